//! An expression over strided reads of other values: what the fusion pass makes of neighbouring pointwise operations.

use crate::device::cpu::Io;
use crate::device::launch::{LaunchArg, Operands};
use crate::device::pointwise::{Mask, Strided};
use crate::dtype::Real;
use crate::ops::binary::Binary;
use crate::ops::dropout::Dropout;
use crate::ops::unary::Unary;
use crate::rng::step_number;
use crate::shape::Shape;

/// The most leaves that the kernels take.
pub const MOST_LEAVES: usize = 6;

/// The most tokens of an expression: beyond it, registers run short and nothing is gained.
pub const MOST_TOKENS: usize = 40;

/// One read: which input, from which element on, and how far apart neighbours along each axis lie (0: repeated).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Number of the input (while fusing: of the node).
    pub input: usize,
    /// First element.
    pub offset: usize,
    /// Elements between neighbours, for every axis of the expression.
    pub steps: Vec<usize>,
}

/// A token of an expression in postfix order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token {
    /// Reads a leaf.
    Leaf(usize),
    /// A number.
    Number(f64),
    /// Of the last value.
    Unary(Unary),
    /// Of the last two.
    Binary(Binary),
    /// Of the last value but one; the last is the first part of the step number. At most one in an expression, whose
    /// elements are counted in its own order.
    Dropout(Dropout),
}

/// `y[i] = code(leaves at i)` for every index of `extents`.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// The index space.
    pub extents: Shape,
    /// What is read.
    pub leaves: Vec<Leaf>,
    /// What is computed.
    pub code: Vec<Token>,
}

/// How one leaf is read that lies like the result: every element in order.
pub fn in_order(leaf: &Leaf, extents: &Shape) -> bool {
    let strides = extents.strides();
    (0..extents.rank()).all(|i| extents[i] == 1 || leaf.steps[i] == strides[i])
}

/// A number as C++ writes it.
fn literal(v: f64) -> String {
    let v = v as f32;
    if v.is_nan() {
        "(INFINITY_FLOAT - INFINITY_FLOAT)".into()
    } else if v.is_infinite() {
        if v > 0.0 { "INFINITY_FLOAT".into() } else { "(-INFINITY_FLOAT)".into() }
    } else if v.is_sign_negative() {
        format!("({v:?}f)")
    } else {
        format!("{v:?}f")
    }
}

/// An expression in C++, with the given names for its leaves.
pub fn source(code: &[Token], names: &[&str]) -> String {
    let mut stack: Vec<String> = Vec::new();
    for (i, token) in code.iter().enumerate() {
        let text = match token {
            Token::Leaf(leaf) => names[*leaf].to_string(),
            Token::Number(v) => literal(*v),
            // 1 / sqrt(v), which is one instruction.
            Token::Unary(Unary::Sqrt) if code.get(i + 1) == Some(&Token::Unary(Unary::Recip)) => continue,
            Token::Unary(Unary::Recip) if i > 0 && code[i - 1] == Token::Unary(Unary::Sqrt) => {
                format!("rsqrtf({})", stack.pop().expect("a value"))
            }
            Token::Unary(f) => {
                let (template, numbers) = f.expression();
                fill(template, [&stack.pop().expect("a value"), ""], numbers)
            }
            Token::Binary(f) => {
                let (b, a) = (stack.pop().expect("a value"), stack.pop().expect("a value"));
                let (template, number) = f.expression();
                fill(template, [&a, &b], [number, 0.0])
            }
            Token::Dropout(_) => {
                stack.pop().expect("a step number");
                format!("dropped({}, numbers)", stack.pop().expect("a value"))
            }
        };
        stack.push(text);
    }
    stack.pop().expect("a value")
}

/// `template` with its operands and numbers put in for their names. Only a call needs no brackets around it.
fn fill(template: &str, [a, b]: [&str; 2], [p, q]: [f64; 2]) -> String {
    let mut text = String::new();
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = template;
    while let Some(c) = rest.chars().next() {
        let length = if letter(c) { rest.find(|c| !letter(c)).unwrap_or(rest.len()) } else { c.len_utf8() };
        let (word, behind) = rest.split_at(length);
        match word {
            "a" => text.push_str(a),
            "b" => text.push_str(b),
            "p" => text.push_str(&literal(p)),
            "q" => text.push_str(&literal(q)),
            _ => text.push_str(word),
        }
        rest = behind;
    }
    if template.ends_with(')') { text } else { format!("({text})") }
}

/// An expression's value at element `at`, given its leaves'. It holds no dropout.
pub fn value<T: Real>(code: &[Token], at: usize, leaf: impl Fn(usize) -> T) -> T {
    value_in_step(code, 0, at, leaf)
}

/// As [`value`], in a step.
fn value_in_step<T: Real>(code: &[Token], step: u32, at: usize, leaf: impl Fn(usize) -> T) -> T {
    let mut stack: Vec<T> = Vec::new();
    for token in code {
        let v = match token {
            Token::Leaf(i) => leaf(*i),
            Token::Number(v) => T::of(*v),
            Token::Unary(f) => f.eval(stack.pop().expect("a value")),
            Token::Binary(f) => {
                let (b, a) = (stack.pop().expect("a value"), stack.pop().expect("a value"));
                f.eval(a, b)
            }
            Token::Dropout(d) => {
                stack.pop().expect("a step number");
                d.value(stack.pop().expect("a value"), step, at as u64)
            }
        };
        stack.push(v);
    }
    stack.pop().expect("a value")
}

impl Expression {
    /// In C++, with the operands called a to f.
    pub fn source(&self) -> String {
        self.source_from(0)
    }

    /// In C++, with the operands called by the letters from number `first` on.
    pub fn source_from(&self, first: usize) -> String {
        const LETTERS: [&str; MOST_LEAVES] = ["a", "b", "c", "d", "e", "f"];
        let mut letters = LETTERS[first..].iter();
        let mut name =
            |leaf| if self.is_operand(leaf) { *letters.next().expect("six operands") } else { "s" };
        let names: Vec<&str> = (0..self.leaves.len()).map(&mut name).collect();
        source(&self.code, &names)
    }

    /// Whether a leaf is read for every element: all are, but for the step number of dropout.
    fn is_operand(&self, leaf: usize) -> bool {
        let step = |w: &[Token]| w[0] == Token::Leaf(leaf) && matches!(w[1], Token::Dropout(_));
        self.code.iter().filter(|t| **t == Token::Leaf(leaf)).count() != 1 || !self.code.windows(2).any(step)
    }

    /// Elements of input `i` that its leaves read: a repeated one counts once.
    pub fn reads(&self, i: usize) -> usize {
        let own = |(at, l): (usize, &Leaf)| -> usize {
            if !self.is_operand(at) {
                return 2; // the parts of a step number
            }
            (0..self.extents.rank()).filter(|&a| l.steps[a] != 0).map(|a| self.extents[a]).product()
        };
        self.leaves.iter().enumerate().filter(|(_, l)| l.input == i).map(own).sum()
    }

    /// Whether it holds dropout.
    pub fn drops(&self) -> bool {
        self.code.iter().any(|t| matches!(t, Token::Dropout(_)))
    }

    /// The dropout in it, and where the first of the two parts of its step number is read.
    fn dropout(&self) -> Option<(Dropout, &Leaf)> {
        let at = self.code.iter().position(|t| matches!(t, Token::Dropout(_)))?;
        match (self.code[at - 1], self.code[at]) {
            (Token::Leaf(step), Token::Dropout(d)) => Some((d, &self.leaves[step])),
            other => unreachable!("{other:?}: a step number is read, not computed"),
        }
    }

    /// The dropout in it, as the pointwise kernels take it.
    pub fn mask(&self) -> Option<Mask> {
        self.dropout().map(|(d, step)| d.mask(LaunchArg::InputAt(step.input, step.offset)))
    }

    /// The leaves as operands of a kernel.
    pub fn operands(&self, io: &Operands) -> Vec<Strided> {
        let own = (0..self.leaves.len()).filter(|&i| self.is_operand(i)).map(|i| &self.leaves[i]);
        own.map(|l| Strided::input_at(io, l.input, l.offset, l.steps.clone())).collect()
    }

    /// Calls `each` with the flat index and the value of every element, in order.
    pub fn evaluate<T: Real>(&self, io: &Io, mut each: impl FnMut(usize, T)) {
        let inputs: Vec<Vec<T>> = self.leaves.iter().map(|l| io.copied(l.input)).collect();
        let step = self.dropout().map_or(0, |(_, leaf)| {
            let parts: Vec<T> = io.copied(leaf.input);
            step_number(parts[leaf.offset].f64(), parts[leaf.offset + 1].f64())
        });
        for flat in 0..self.extents.numel() {
            let mut rest = flat;
            let mut at: Vec<usize> = self.leaves.iter().map(|l| l.offset).collect();
            for axis in (0..self.extents.rank()).rev() {
                let here = rest % self.extents[axis];
                rest /= self.extents[axis];
                at.iter_mut().zip(&self.leaves).for_each(|(at, l)| *at += here * l.steps[axis]);
            }
            each(flat, value_in_step(&self.code, step, flat, |leaf| inputs[leaf][at[leaf]]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_reads_as_a_person_would_write_it() {
        let code = [
            Token::Leaf(0),
            Token::Leaf(1),
            Token::Unary(Unary::AddScalar(1e-5)),
            Token::Unary(Unary::Sqrt),
            Token::Unary(Unary::Recip),
            Token::Binary(Binary::Mul),
            Token::Unary(Unary::LeakyRelu(0.2)),
        ];
        assert_eq!(source(&code, &["v", "w"]), "leaky_relu((v * rsqrtf((w + 1e-5f))), 0.2f)");
        assert_eq!(
            [literal(-1.0), literal(f64::INFINITY), literal(3.0)],
            ["(-1.0f)", "INFINITY_FLOAT", "3.0f"]
        );
    }
}
