//! ONNX's messages, as far as they are written. Field numbers are those of `onnx.proto`.
//!
//! Protocol buffers are tags, lengths and bytes; eight messages of them, which are only ever written, need no generated
//! code.

/// A message under construction.
#[derive(Clone, Default)]
pub(super) struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.0.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.0.push(v as u8);
    }

    /// A whole number.
    pub fn int(mut self, field: u64, v: i64) -> Self {
        self.varint(field << 3);
        self.varint(v as u64);
        self
    }

    /// A single-precision number.
    pub fn float(mut self, field: u64, v: f32) -> Self {
        self.varint(field << 3 | 5);
        self.0.extend(v.to_le_bytes());
        self
    }

    /// Bytes, text, or another message's content.
    pub fn bytes(mut self, field: u64, v: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(v.len() as u64);
        self.0.extend(v);
        self
    }

    pub fn text(self, field: u64, v: &str) -> Self {
        self.bytes(field, v.as_bytes())
    }

    pub fn message(self, field: u64, v: &Message) -> Self {
        self.bytes(field, &v.0)
    }
}

/// What an operator is told beside its inputs.
#[derive(Clone, Debug)]
pub(super) enum Attribute {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Text(&'static str),
}

impl Attribute {
    fn message(&self, name: &str) -> Message {
        let m = Message::default().text(1, name);
        match self {
            Attribute::Float(v) => m.float(2, *v).int(20, 1),
            Attribute::Int(v) => m.int(3, *v).int(20, 2),
            Attribute::Text(v) => m.text(4, v).int(20, 3),
            Attribute::Ints(list) => list.iter().fold(m, |m, v| m.int(8, *v)).int(20, 7),
        }
    }
}

/// An operator with the names of its inputs and its output.
pub(super) fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> Message {
    let m = inputs.iter().fold(Message::default(), |m, i| m.text(1, i));
    let m = m.text(2, output).text(3, output).text(4, op);
    attributes.iter().fold(m, |m, (name, a)| m.message(5, &a.message(name)))
}

fn tensor(name: &str, kind: i64, shape: &[usize], raw: &[u8]) -> Message {
    let m = shape.iter().fold(Message::default(), |m, d| m.int(1, *d as i64));
    m.int(2, kind).text(8, name).bytes(9, raw)
}

/// A constant of single-precision numbers.
pub(super) fn floats(name: &str, shape: &[usize], values: &[f32]) -> Message {
    tensor(name, 1, shape, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

/// A list of whole numbers.
pub(super) fn ints(name: &str, values: &[i64]) -> Message {
    tensor(name, 7, &[values.len()], &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
}

/// One extent of an input or output.
pub(super) enum Extent {
    Fixed(usize),
    Free(String),
}

/// A declared input or output of single-precision numbers.
pub(super) fn value(name: &str, extents: &[Extent]) -> Message {
    let shape = extents.iter().fold(Message::default(), |m, e| {
        let dim = match e {
            Extent::Fixed(n) => Message::default().int(1, *n as i64),
            Extent::Free(n) => Message::default().text(2, n),
        };
        m.message(1, &dim)
    });
    let kind = Message::default().int(1, 1).message(2, &shape);
    Message::default().text(1, name).message(2, &Message::default().message(1, &kind))
}
