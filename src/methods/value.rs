//! Names of a step's values: what the data give and what networks make of it.

use serde::Deserialize;

/// What the data give, or a step draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The images of `data.input`.
    Input,
    /// The images of `data.target`, or its label map.
    Target,
    /// Standard normal numbers, drawn anew by each program of a step.
    Noise,
}

impl Source {
    /// As in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Source::Input => "input",
            Source::Target => "target",
            Source::Noise => "noise",
        }
    }
}

/// A value of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// What the data give or the step draws.
    Source(Source),
    /// What a network, by index, makes of a value.
    Apply(usize, Box<Expr>),
    /// A function of a value.
    Map(Map, Box<Expr>),
}

/// A function that turns logits and labels into what a discriminator can compare, or a distribution into a number drawn from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Map {
    /// Probabilities of regions.
    Sigmoid,
    /// Probabilities of classes.
    Softmax,
    /// A channel of zeros and ones for each class.
    OneHot,
    /// Of means and logarithms of variances, one behind the other: normal numbers, drawn anew (Kingma and Welling, ICLR 2014).
    Sample,
}

impl Map {
    const ALL: [Map; 4] = [Map::Sigmoid, Map::Softmax, Map::OneHot, Map::Sample];

    /// As in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Map::Sigmoid => "sigmoid",
            Map::Softmax => "softmax",
            Map::OneHot => "one_hot",
            Map::Sample => "sample",
        }
    }
}

impl Expr {
    /// Reads `input`, `target`, `noise`, `NETWORK(value)`, or `sigmoid`, `softmax`, `one_hot` or `sample` of a value.
    pub fn parse(text: &str, networks: &[&str]) -> Result<Expr, String> {
        let text = text.trim();
        if let Some((name, rest)) = text.split_once('(') {
            let inner = rest.strip_suffix(')').ok_or_else(|| format!("{text} lacks a closing bracket"))?;
            let (name, inner) = (name.trim(), Box::new(Expr::parse(inner, networks)?));
            if let Some(index) = networks.iter().position(|n| *n == name) {
                return Ok(Expr::Apply(index, inner));
            }
            let map = Map::ALL.into_iter().find(|m| m.name() == name).ok_or_else(|| {
                let maps = Map::ALL.map(Map::name).join(", ");
                format!(
                    "there is no network {name}; write one of {}, or of the functions {maps}",
                    networks.join(", ")
                )
            })?;
            return Ok(Expr::Map(map, inner));
        }
        let sources = [Source::Input, Source::Target, Source::Noise];
        let found = sources.into_iter().find(|s| s.name() == text);
        found.map(Expr::Source).ok_or_else(|| {
            format!("{text} is no value of a step; write input, target, noise, or a network applied to one, such as {}(input)", networks.first().unwrap_or(&"G"))
        })
    }

    /// The networks that make it, by index.
    pub fn networks(&self) -> Vec<usize> {
        match self {
            Expr::Source(_) => Vec::new(),
            Expr::Apply(net, inner) => [vec![*net], inner.networks()].concat(),
            Expr::Map(_, inner) => inner.networks(),
        }
    }

    /// What it is made from.
    pub fn source(&self) -> Source {
        match self {
            Expr::Source(source) => *source,
            Expr::Apply(_, inner) | Expr::Map(_, inner) => inner.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_sources_and_networks_of_them() {
        let nets = ["G_A", "G_B"];
        let cycle = Expr::parse("G_B( G_A(input))", &nets).expect("valid");
        let inner = Expr::Apply(0, Box::new(Expr::Source(Source::Input)));
        assert_eq!(cycle, Expr::Apply(1, Box::new(inner)));
        assert_eq!(cycle.source(), Source::Input);
        for (wrong, why) in
            [("G_C(input)", "no network G_C"), ("G_A(input", "bracket"), ("inputs", "inputs is no value")]
        {
            assert!(Expr::parse(wrong, &nets).expect_err("wrong").contains(why), "{wrong}");
        }
    }
}
