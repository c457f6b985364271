//! Intensities to the network's range and back.
//!
//! Every method is an affine map `y = (x - centre) / half`, fitted to a volume or to the whole training split. Nothing
//! is clipped: values outside the fitted interval leave [-1, 1], and the inverse loses nothing.

use crate::error::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;

/// How an image's intensities are brought to the network's range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Minimum to -1, maximum to 1.
    Minmax,
    /// Two percentiles to -1 and 1.
    Percentile {
        /// Lower percentile (0 to 100) that becomes -1.
        low: f64,
        /// Upper percentile that becomes 1.
        high: f64,
    },
    /// Mean 0, standard deviation 1, both over the voxels that are not zero.
    Zscore,
    /// Two given values, in the image's own units, to -1 and 1.
    Fixed {
        /// Becomes -1.
        low: f64,
        /// Becomes 1.
        high: f64,
    },
    /// As it is.
    None,
}

/// What a method is fitted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Each volume by itself: right for inputs whose units are arbitrary (MR).
    Volume,
    /// All volumes of the training split together: right for targets, whose units a prediction must have.
    Dataset,
}

/// Normalisation of one role (input or target). In a recipe: `{ method = "percentile", low = 0.5, high = 99.5, scope =
/// "volume" }`, with the methods minmax, percentile, zscore, fixed and none; percentile's limits and the scope have defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(into = "Table")]
pub struct Normalisation {
    /// What to do.
    pub method: Method,
    /// What to fit it to.
    pub scope: Scope,
}

impl Normalisation {
    /// Inputs by default: percentiles 0.5 and 99.5 of each volume.
    pub fn input() -> Self {
        Normalisation { method: Method::Percentile { low: 0.5, high: 99.5 }, scope: Scope::Volume }
    }

    /// Targets by default: minimum and percentile 99.9 of the training split.
    pub fn target() -> Self {
        Normalisation { method: Method::Percentile { low: 0.0, high: 99.9 }, scope: Scope::Dataset }
    }

    /// Checks the method's numbers; `key` is named in the message.
    pub fn check(&self, key: &str) -> Result<()> {
        match self.method {
            Method::Percentile { low, high } if !(0.0 <= low && low < high && high <= 100.0) => {
                Err(Error::input(format!(
                    "{key}: percentiles {low} and {high} must satisfy 0 <= low < high <= 100; use for example 0.5 and 99.5"
                )))
            }
            Method::Fixed { low, high } if !(low < high && low.is_finite() && high.is_finite()) => {
                Err(Error::input(format!(
                    "{key}: fixed low {low} must be below high {high}; swap or correct them"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl JsonSchema for Normalisation {
    fn schema_name() -> Cow<'static, str> {
        "Normalisation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Table::json_schema(generator)
    }
}

/// How intensities become numbers around zero.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Table {
    method: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    low: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    high: Option<f64>,
    scope: Option<Scope>,
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Name {
    Minmax,
    Percentile,
    Zscore,
    Fixed,
    None,
}

impl From<Normalisation> for Table {
    fn from(n: Normalisation) -> Table {
        let (method, limits) = match n.method {
            Method::Minmax => (Name::Minmax, None),
            Method::Percentile { low, high } => (Name::Percentile, Some((low, high))),
            Method::Zscore => (Name::Zscore, None),
            Method::Fixed { low, high } => (Name::Fixed, Some((low, high))),
            Method::None => (Name::None, None),
        };
        Table { method, low: limits.map(|l| l.0), high: limits.map(|l| l.1), scope: Some(n.scope) }
    }
}

impl Table {
    fn read(self, scope: Scope) -> Result<Normalisation, &'static str> {
        let method = match (self.method, self.low, self.high) {
            (Name::Percentile, low, high) => {
                Method::Percentile { low: low.unwrap_or(0.5), high: high.unwrap_or(99.5) }
            }
            (Name::Fixed, Some(low), Some(high)) => Method::Fixed { low, high },
            (Name::Fixed, ..) => return Err("method \"fixed\" needs `low` and `high`, in the image's units"),
            (Name::Minmax, None, None) => Method::Minmax,
            (Name::Zscore, None, None) => Method::Zscore,
            (Name::None, None, None) => Method::None,
            _ => {
                return Err(
                    "`low` and `high` belong to the methods \"percentile\" and \"fixed\" only; delete them",
                );
            }
        };
        Ok(Normalisation { method, scope: self.scope.unwrap_or(scope) })
    }
}

/// Reads an input's normalisation: the scope is `volume` where none is given.
pub(super) fn for_input<'de, D: Deserializer<'de>>(d: D) -> Result<Normalisation, D::Error> {
    Table::deserialize(d)?.read(Scope::Volume).map_err(D::Error::custom)
}

/// Reads a target's normalisation: the scope is `dataset` where none is given.
pub(super) fn for_target<'de, D: Deserializer<'de>>(d: D) -> Result<Normalisation, D::Error> {
    Table::deserialize(d)?.read(Scope::Dataset).map_err(D::Error::custom)
}

/// A fitted map: `y = (x - centre) / half`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// The value that becomes 0.
    pub centre: f64,
    /// The distance from it that becomes 1; above 0.
    pub half: f64,
}

impl Fitted {
    /// Changes nothing.
    pub const IDENTITY: Fitted = Fitted { centre: 0.0, half: 1.0 };

    /// `low` to -1, `high` to 1.
    pub fn interval(low: f64, high: f64) -> Self {
        // A constant image has no scale of its own; it becomes -1 (or 0 for z-scores).
        let half = 0.5 * (high - low);
        if half > 0.0 { Fitted { centre: low + half, half } } else { Fitted { centre: low + 1.0, half: 1.0 } }
    }

    /// The mean of numbers to 0, their standard deviation to 1.
    pub fn deviation(numbers: impl Iterator<Item = f32>) -> Self {
        let all: Vec<f64> = numbers.map(f64::from).collect();
        let n = all.len().max(1) as f64;
        let centre = all.iter().sum::<f64>() / n;
        let half = (all.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / n).sqrt();
        Fitted { centre, half: if half > 0.0 { half } else { 1.0 } }
    }

    /// Fits a method to the voxels of one or several volumes.
    pub fn fit(method: Method, volumes: &[&[f32]]) -> Self {
        match method {
            Method::None => Self::IDENTITY,
            Method::Fixed { low, high } => Self::interval(low, high),
            Method::Minmax => {
                let all = volumes.iter().flat_map(|v| v.iter());
                let (low, high) =
                    all.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
                if low > high { Self::IDENTITY } else { Self::interval(f64::from(low), f64::from(high)) }
            }
            Method::Percentile { low, high } => {
                let mut all: Vec<f32> = volumes.concat();
                if all.is_empty() {
                    return Self::IDENTITY;
                }
                Self::interval(percentile(&mut all, low), percentile(&mut all, high))
            }
            Method::Zscore => {
                let used =
                    || volumes.iter().flat_map(|v| v.iter()).filter(|v| **v != 0.0).map(|&v| f64::from(v));
                let n = used().count().max(1) as f64;
                let mean = used().sum::<f64>() / n;
                let deviation = (used().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
                Fitted { centre: mean, half: if deviation > 0.0 { deviation } else { 1.0 } }
            }
        }
    }

    /// To the network's range.
    pub fn apply(&self, value: f32) -> f32 {
        ((f64::from(value) - self.centre) / self.half) as f32
    }

    /// Back to the image's units.
    pub fn invert(&self, value: f32) -> f32 {
        (f64::from(value) * self.half + self.centre) as f32
    }

    /// [`Self::apply`] to a whole buffer.
    pub fn apply_all(&self, values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = self.apply(*v));
    }

    /// [`Self::invert`] to a whole buffer.
    pub fn invert_all(&self, values: &mut [f32]) {
        values.iter_mut().for_each(|v| *v = self.invert(*v));
    }
}

/// Percentile with linear interpolation between order statistics (numpy's default). Reorders `values`, not empty.
pub fn percentile(values: &mut [f32], percent: f64) -> f64 {
    let at = percent / 100.0 * (values.len() - 1) as f64;
    let below = at.floor() as usize;
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    f64::from(low) + (at - below as f64) * (f64::from(high) - f64::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_are_numpys() {
        let v = [3.0, 1.0, 4.0, 1.5, 9.0, 2.0];
        // numpy.percentile(v, [0, 25, 50, 90, 100])
        for (p, want) in [(0.0, 1.0), (25.0, 1.625), (50.0, 2.5), (90.0, 6.5), (100.0, 9.0)] {
            assert!((percentile(&mut v.to_vec(), p) - want).abs() < 1e-9, "{p}");
        }
    }

    #[test]
    fn methods_do_what_they_say() {
        let v = [0.0f32, 0.0, 2.0, 4.0, 6.0];
        let f = Fitted::fit(Method::Zscore, &[&v]);
        assert!((f.centre - 4.0).abs() < 1e-12 && (f.half - (8.0f64 / 3.0).sqrt()).abs() < 1e-12);
        let f = Fitted::fit(Method::Minmax, &[&v, &[10.0]]);
        assert_eq!([0.0, 5.0, 10.0].map(|x| f.apply(x)), [-1.0, 0.0, 1.0]);
        let f = Fitted::fit(Method::Fixed { low: -1000.0, high: 3000.0 }, &[]);
        assert_eq!(f.apply(1000.0), 0.0);
        // A constant volume is no division by zero.
        let f = Fitted::fit(Method::Minmax, &[&[5.0; 4]]);
        assert_eq!((f.apply(5.0), f.invert(-1.0)), (-1.0, 5.0));
        assert_eq!(Fitted::fit(Method::None, &[&v]), Fitted::IDENTITY);
    }

    #[test]
    fn wrong_numbers_name_the_key() {
        let n = Normalisation { method: Method::Percentile { low: 5.0, high: 5.0 }, scope: Scope::Volume };
        assert!(n.check("data.normalise_input").unwrap_err().to_string().contains("data.normalise_input"));
        let n = Normalisation { method: Method::Fixed { low: 1.0, high: 0.0 }, scope: Scope::Volume };
        assert!(n.check("x").is_err());
        assert!(Normalisation::target().check("x").is_ok());
    }

    proptest! {
        #[test]
        fn invert_undoes_apply(low in -2000.0f64..2000.0, width in 1.0f64..4000.0, t in 0.0f64..1.0) {
            let f = Fitted::interval(low, low + width);
            let x = (low + t * width) as f32;
            // Exact up to the spacing of f32 at the interval's size.
            let ulp = (low.abs() + width) as f32 * f32::EPSILON;
            prop_assert!((f.invert(f.apply(x)) - x).abs() <= ulp);
        }
    }
}
