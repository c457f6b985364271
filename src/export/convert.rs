//! From a traced network to ONNX.
//!
//! A graph has fixed shapes, an ONNX model should take any. So the network is traced at two sizes and the traces are
//! compared: what differs between them depends on the size of the input and must not end up in the file as a constant. An
//! operation that cannot be written without such a constant is an error, and so is one that has no counterpart.
//!
//! Images are channels last here and channels first there. A value is written in the order in which it is made; a
//! transposition is added where another order is asked for, which for convolutional networks is nowhere.

mod spatial;

use super::proto::{self, Attribute, Extent, Message};
use crate::error::{Error, Result};
use crate::exec::{Program, States};
use crate::graph::{Graph, Node, NodeId, Op, Source, Var};
use crate::ops::binary::Binary;
use crate::ops::concat::Concat;
use crate::ops::conv::{Conv, ConvGradX};
use crate::ops::matmul::MatMul;
use crate::ops::max_pool::MaxPool;
use crate::ops::norm::{NormKind, NormStats, Normalize};
use crate::ops::pad::PadZero;
use crate::ops::permute::Permute;
use crate::ops::resample::Resample;
use crate::ops::reshape::{Detach, Reshape};
use crate::ops::softmax::Softmax;
use crate::ops::sum::Sum;
use crate::ops::unary::Unary;
use std::any::Any;
use std::collections::HashMap;

/// The version of ONNX's operators: that of ONNX 1.8 (2020), the oldest in which sums take their axes as an input. What
/// runs ONNX at all runs it.
const OPSET: i64 = 13;
const IR_VERSION: i64 = 7;

/// A network in evaluation mode, traced on one input.
pub struct Trace {
    /// What it was traced in.
    pub graph: Graph,
    /// `[n, spatial.., c]`, or `[n, values]`.
    pub input: Var,
    /// Its answer.
    pub output: Var,
}

/// The ONNX file of a network that was traced on inputs of two sizes (which differ in every extent that is to be free). Images
/// whose extents are no multiples of `multiple` are padded by their border inside, and the output cropped.
pub fn onnx(
    traces: [&Trace; 2],
    states: &mut States,
    multiple: usize,
    metadata: &[(&str, String)],
) -> Result<Vec<u8>> {
    let [a, b] = traces;
    a.graph.check()?;
    b.graph.check()?;
    let poisoned = || Error::input("the network does not take images of this size");
    let (input, output) = (a.input.id().ok_or_else(poisoned)?, a.output.id().ok_or_else(poisoned)?);
    let (nodes, others) = (a.graph.nodes(), b.graph.nodes());
    if nodes.len() != others.len() || b.output.id() != Some(output) || b.input.id() != Some(input) {
        return Err(Error::input("cannot export: the network's layers depend on the size of its input"));
    }
    let mut writer = Writer { nodes, others, input, ..Default::default() };
    writer.find_dynamic(output)?;
    writer.evaluate_constants(&a.graph, output, states)?;
    writer.write(output, multiple)?;
    writer.finish(output, metadata)
}

/// Which order of axes a value is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Order {
    /// As in the graph.
    Same,
    /// Channels before the spatial axes.
    First,
}

use Order::*;

#[derive(Default)]
struct Writer {
    nodes: Vec<Node>,
    others: Vec<Node>,
    input: NodeId,
    /// Which nodes depend on the input.
    dynamic: Vec<bool>,
    /// Which nodes the output needs.
    needed: Vec<bool>,
    constants: HashMap<NodeId, Vec<f32>>,
    names: HashMap<(NodeId, Order), String>,
    body: Vec<Message>,
    initializers: Vec<Message>,
    fresh: usize,
}

/// Attributes of one operator.
type Attributes<'a> = &'a [(&'a str, Attribute)];

fn list(values: impl IntoIterator<Item = usize>) -> Attribute {
    Attribute::Ints(values.into_iter().map(|v| v as i64).collect())
}

/// The same amounts before and behind each axis.
fn both(padding: &[usize]) -> Attribute {
    list(padding.iter().chain(padding).copied())
}

/// Channels moved behind the first axis.
fn channels_first<T: Copy>(of: &[T]) -> Vec<T> {
    [&of[..1], &of[of.len() - 1..], &of[1..of.len() - 1]].concat()
}

impl Writer {
    fn op(&self, id: NodeId) -> Option<(&dyn Op, &[NodeId])> {
        match &self.nodes[id].source {
            Source::Op { op, inputs } => Some((op.as_ref(), inputs)),
            _ => None,
        }
    }

    /// What a node is computed from. Statistics that an instance or group norm takes of its own input are part of ONNX's
    /// operator.
    fn uses(&self, id: NodeId) -> Vec<NodeId> {
        let Some((op, inputs)) = self.op(id) else { return Vec::new() };
        let own = as_op::<Normalize>(op).is_some_and(|n| !n.frozen && n.kind != NormKind::Batch);
        inputs.iter().enumerate().filter(|(i, _)| !(own && *i == 1)).map(|(_, id)| *id).collect()
    }

    fn fault(&self, id: NodeId, why: &str) -> Error {
        let node = &self.nodes[id];
        let name = self.op(id).map_or("input", |(op, _)| op.name());
        Error::input(format!("cannot export layer {}: {name} {why}", node.path))
    }

    fn find_dynamic(&mut self, output: NodeId) -> Result<()> {
        self.dynamic = vec![false; self.nodes.len()];
        for id in 0..self.nodes.len() {
            let from = self.op(id).map_or(Vec::new(), |(_, inputs)| inputs.to_vec());
            self.dynamic[id] = id == self.input || from.iter().any(|i| self.dynamic[*i]);
        }
        self.needed = vec![false; self.nodes.len()];
        self.needed[output] = true;
        for id in (0..=output).rev().filter(|id| self.dynamic[*id]) {
            if self.needed[id] {
                for i in self.uses(id) {
                    self.needed[i] = true;
                }
            }
        }
        Ok(())
    }

    /// Computes what does not depend on the input: parameters, and whatever is made of them.
    fn evaluate_constants(&mut self, graph: &Graph, output: NodeId, states: &mut States) -> Result<()> {
        let wanted: Vec<NodeId> = (0..=output).filter(|i| self.needed[*i] && !self.dynamic[*i]).collect();
        let mut pending = wanted.clone();
        let mut seen = vec![false; self.nodes.len()];
        while let Some(id) = pending.pop() {
            match &self.nodes[id].source {
                Source::Input(_) => return Err(self.fault(id, "depends on another value than the images")),
                Source::Op { inputs, .. } if !std::mem::replace(&mut seen[id], true) => {
                    pending.extend(inputs)
                }
                _ => {}
            }
        }
        let named: Vec<(String, Var)> = wanted.iter().map(|id| (format!("c{id}"), graph.var(*id))).collect();
        let outputs: Vec<(&str, &Var)> = named.iter().map(|(n, v)| (n.as_str(), v)).collect();
        let mut program = Program::new(graph, &outputs)?;
        program.run::<f32>(states, &[]);
        for (id, (name, _)) in wanted.iter().zip(&named) {
            self.constants.insert(*id, program.output::<f32>(states, name));
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        self.fresh += 1;
        format!("v{}", self.fresh)
    }

    fn emit(&mut self, op: &str, inputs: &[&str], attributes: Attributes) -> String {
        let name = self.name();
        self.body.push(proto::node(op, inputs, &name, attributes));
        name
    }

    fn floats(&mut self, shape: &[usize], values: &[f32]) -> String {
        let name = self.name();
        self.initializers.push(proto::floats(&name, shape, values));
        name
    }

    fn ints(&mut self, values: &[i64]) -> String {
        let name = self.name();
        self.initializers.push(proto::ints(&name, values));
        name
    }

    fn rank(&self, id: NodeId) -> usize {
        self.nodes[id].shape.rank()
    }

    /// The name of a value in the wanted order.
    fn get(&mut self, id: NodeId, order: Order) -> Result<String> {
        // With fewer than three axes there is no order but one.
        let order = if self.rank(id) < 3 { Same } else { order };
        if let Some(name) = self.names.get(&(id, order)) {
            return Ok(name.clone());
        }
        let name = if self.dynamic[id] {
            let rank = self.rank(id);
            let axes: Vec<usize> = (0..rank).collect();
            let (from, perm) = match order {
                First => (Same, channels_first(&axes)),
                Same => (First, [&[0], &axes[2..], &[1]].concat()),
            };
            let from =
                self.names.get(&(id, from)).cloned().ok_or_else(|| self.fault(id, "was not written"))?;
            self.emit("Transpose", &[&from], &[("perm", list(perm))])
        } else {
            let shape = self.nodes[id].shape.to_vec();
            self.constant(id, &shape, order)?
        };
        self.names.insert((id, order), name.clone());
        Ok(name)
    }

    /// A constant, seen with the given extents.
    fn constant(&mut self, id: NodeId, shape: &[usize], order: Order) -> Result<String> {
        if self.nodes[id].shape != self.others[id].shape {
            return Err(self.fault(id, "is a constant as large as the image"));
        }
        let values = self.constants.get(&id).cloned().ok_or_else(|| self.fault(id, "was not computed"))?;
        if order == Same || shape.len() < 3 {
            return Ok(self.floats(shape, &values));
        }
        let c = shape[shape.len() - 1];
        let spatial: usize = shape[1..shape.len() - 1].iter().product();
        let at = |i: usize| {
            let (n, rest) = (i / (c * spatial), i % (c * spatial));
            (n * spatial + rest % spatial) * c + rest / spatial
        };
        let moved: Vec<f32> = (0..values.len()).map(|i| values[at(i)]).collect();
        Ok(self.floats(&channels_first(shape), &moved))
    }

    /// The order in which a value exists already.
    fn order(&self, id: NodeId) -> Order {
        if self.names.contains_key(&(id, First)) { First } else { Same }
    }

    fn write(&mut self, output: NodeId, multiple: usize) -> Result<()> {
        let images = self.rank(self.input) >= 3;
        let mut start = "input".to_string();
        let mut padding = None;
        if images && multiple > 1 {
            padding = Some(self.pad_to(multiple));
            let [pads, ..] = padding.as_ref().expect("just made");
            start = self.emit("Pad", &["input", pads], &[("mode", Attribute::Text("edge"))]);
        }
        self.names.insert((self.input, if images { First } else { Same }), start);
        for id in 0..=output {
            if self.needed[id] && self.dynamic[id] && id != self.input {
                let (name, order) = self.convert(id)?;
                self.names.insert((id, if self.rank(id) < 3 { Same } else { order }), name);
            }
        }
        let mut last = self.get(output, First)?;
        let spatial =
            |nodes: &[Node], id: NodeId| nodes[id].shape[1..nodes[id].shape.rank().max(2) - 1].to_vec();
        if let Some([_, begin, end, axes]) = padding {
            let keeps = |nodes: &[Node]| spatial(nodes, self.input) == spatial(nodes, output);
            if !keeps(&self.nodes) || !keeps(&self.others) {
                return Err(self.fault(output, "changes the image's size, so that padding can't be undone"));
            }
            last = self.emit("Slice", &[&last, &begin, &end, &axes], &[]);
        }
        self.body.push(proto::node("Identity", &[&last], "output", &[]));
        Ok(())
    }

    /// Amounts that pad the input's spatial axes to multiples, as the networks do; the begin and end of the image in the
    /// padded one; the axes.
    fn pad_to(&mut self, multiple: usize) -> [String; 4] {
        let dims = self.rank(self.input) - 2;
        let size = self.emit("Shape", &["input"], &[]);
        let (from, to, none) = (self.ints(&[2]), self.ints(&[2 + dims as i64]), self.ints(&[0]));
        let spatial = self.emit("Slice", &[&size, &from, &to, &none], &[]);
        let (m, two, zeros) = (self.ints(&[multiple as i64]), self.ints(&[2]), self.ints(&[0, 0]));
        let rest = self.emit("Mod", &[&spatial, &m], &[]);
        let lacking = self.emit("Sub", &[&m, &rest], &[]);
        let missing = self.emit("Mod", &[&lacking, &m], &[]);
        let before = self.emit("Div", &[&missing, &two], &[]);
        let behind = self.emit("Sub", &[&missing, &before], &[]);
        let pads = self.emit("Concat", &[&zeros, &before, &zeros, &behind], &[("axis", Attribute::Int(0))]);
        let end = self.emit("Add", &[&before, &spatial], &[]);
        let axes = self.ints(&(2..2 + dims as i64).collect::<Vec<_>>());
        [pads, before, end, axes]
    }

    fn finish(self, output: NodeId, metadata: &[(&str, String)]) -> Result<Vec<u8>> {
        let rank = self.rank(self.input);
        let letters: &[&str] = match rank {
            4 => &["N", "H", "W"],
            5 => &["N", "D", "H", "W"],
            _ => &["N", "L"],
        };
        let extents = |id: NodeId| {
            let (a, b) = (&self.nodes[id].shape, &self.others[id].shape);
            let free: Vec<Extent> = (0..a.rank())
                .map(|i| match letters.get(i) {
                    _ if a[i] == b[i] => Extent::Fixed(a[i]),
                    Some(l) if a.get(i) == self.nodes[self.input].shape.get(i) => Extent::Free(l.to_string()),
                    Some(l) => Extent::Free(format!("{l}_out")),
                    None => Extent::Free(format!("out_{i}")),
                })
                .collect();
            let mut free: Vec<Option<Extent>> = free.into_iter().map(Some).collect();
            let order: Vec<usize> = (0..free.len()).collect();
            let order = if free.len() < 3 { order } else { channels_first(&order) };
            order.into_iter().filter_map(|i| free[i].take()).collect::<Vec<_>>()
        };
        let graph = self.body.iter().fold(Message::default(), |m, n| m.message(1, n)).text(2, "network");
        let graph = self.initializers.iter().fold(graph, |m, t| m.message(5, t));
        let graph = graph
            .message(11, &proto::value("input", &extents(self.input)))
            .message(12, &proto::value("output", &extents(output)));
        let opset = Message::default().text(1, "").int(2, OPSET);
        let model = Message::default()
            .int(1, IR_VERSION)
            .text(2, "gan")
            .text(3, env!("CARGO_PKG_VERSION"))
            .message(7, &graph)
            .message(8, &opset);
        let model = metadata
            .iter()
            .fold(model, |m, (key, value)| m.message(14, &Message::default().text(1, key).text(2, value)));
        if model.0.len() > i32::MAX as usize {
            return Err(Error::input(
                "the network is larger than 2 GiB, which an ONNX file can't be; export it with --safetensors",
            ));
        }
        Ok(model.0)
    }

    /// Writes a node; returns its name and the order in which it was written.
    fn convert(&mut self, id: NodeId) -> Result<(String, Order)> {
        let (op, inputs) = match &self.nodes[id].source {
            Source::Op { op, inputs } => (op.clone(), inputs.clone()),
            _ => return Err(self.fault(id, "is an input that only training has")),
        };
        let op: &dyn Op = op.as_ref();
        let Source::Op { op: twin, .. } = &self.others[id].source else {
            return Err(self.fault(id, "depends on the size of the image"));
        };
        let twin = twin.clone();
        let twin: &dyn Op = twin.as_ref();
        if let Some(o) = as_op::<ConvGradX>(op) {
            return self.conv_transpose(id, o, as_op(twin), &inputs);
        }
        if let Some(o) = as_op::<Reshape>(op) {
            return self.reshape(id, o, &inputs);
        }
        if let Some(o) = as_op::<Resample>(op) {
            return self.resample(id, o, as_op(twin), &inputs);
        }
        // Of all others, the settings must not depend on the size of the image.
        if format!("{op:?}") != format!("{twin:?}") {
            return Err(self.fault(id, "depends on the size of the image"));
        }
        if let Some(o) = as_op::<Conv>(op) {
            let (x, w) = (self.get(inputs[0], First)?, self.weight(id, inputs[1])?);
            let attributes = [
                ("strides", list(o.0.stride.clone())),
                ("pads", both(&o.0.padding)),
                ("dilations", list(o.0.dilation.clone())),
                ("group", Attribute::Int(o.0.groups as i64)),
            ];
            Ok((self.emit("Conv", &[&x, &w], &attributes), First))
        } else if let Some(o) = as_op::<Normalize>(op) {
            self.normalize(id, o, &inputs)
        } else if let Some(o) = as_op::<Unary>(op) {
            let order = self.order(inputs[0]);
            let x = self.get(inputs[0], order)?;
            Ok((self.unary(id, *o, &x)?, order))
        } else if let Some(o) = as_op::<Binary>(op) {
            self.binary(id, *o, &inputs)
        } else if let Some(o) = as_op::<Concat>(op) {
            let rank = self.rank(id);
            let order = if rank < 3 { Same } else { First };
            let axis = if order == Same { o.axis } else { moved(o.axis, rank) };
            let names = inputs.iter().map(|i| self.get(*i, order)).collect::<Result<Vec<_>>>()?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Ok((self.emit("Concat", &names, &[("axis", Attribute::Int(axis as i64))]), order))
        } else if let Some(o) = as_op::<PadZero>(op) {
            self.pad_zero(&o.amounts, inputs[0])
        } else if let Some(MaxPool(w)) = as_op::<MaxPool>(op) {
            let x = self.get(inputs[0], First)?;
            let attributes = [
                ("kernel_shape", list(w.kernel.clone())),
                ("strides", list(w.stride.clone())),
                ("pads", both(&w.padding)),
                ("ceil_mode", Attribute::Int(i64::from(w.ceil))),
            ];
            Ok((self.emit("MaxPool", &[&x], &attributes), First))
        } else if as_op::<Detach>(op).is_some() {
            let order = self.order(inputs[0]);
            Ok((self.get(inputs[0], order)?, order))
        } else if let Some(o) = as_op::<Permute>(op) {
            let x = self.get(inputs[0], Same)?;
            Ok((self.emit("Transpose", &[&x], &[("perm", list(o.order.clone()))]), Same))
        } else if let Some(o) = as_op::<MatMul>(op) {
            let (a, b) = (self.get(inputs[0], Same)?, self.get(inputs[1], Same)?);
            let a = if o.ta { self.swap_last(&a, self.rank(inputs[0])) } else { a };
            let b = if o.tb { self.swap_last(&b, self.rank(inputs[1])) } else { b };
            Ok((self.emit("MatMul", &[&a, &b], &[]), Same))
        } else if let Some(o) = as_op::<Softmax>(op) {
            let x = self.get(inputs[0], Same)?;
            let kind = if o.log { "LogSoftmax" } else { "Softmax" };
            Ok((self.emit(kind, &[&x], &[("axis", Attribute::Int(o.axis as i64))]), Same))
        } else if let Some(o) = as_op::<Sum>(op) {
            let x = self.get(inputs[0], Same)?;
            let axes = self.ints(&(o.first as i64..o.last as i64).collect::<Vec<_>>());
            Ok((self.emit("ReduceSum", &[&x, &axes], &[("keepdims", Attribute::Int(1))]), Same))
        } else {
            Err(self.fault(id, "has no counterpart in ONNX; export the weights with --safetensors instead"))
        }
    }

    /// A convolution's weight, `[k, kernel.., c]` here and `[k, c, kernel..]` there.
    fn weight(&mut self, id: NodeId, weight: NodeId) -> Result<String> {
        if self.dynamic[weight] {
            return Err(self.fault(id, "has a weight that depends on the image"));
        }
        self.get(weight, First)
    }

    fn swap_last(&mut self, x: &str, rank: usize) -> String {
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 1, rank - 2);
        self.emit("Transpose", &[x], &[("perm", list(perm))])
    }

    fn normalize(&mut self, id: NodeId, op: &Normalize, inputs: &[NodeId]) -> Result<(String, Order)> {
        let x = self.get(inputs[0], First)?;
        let c = self.nodes[id].shape.channels();
        let eps = ("epsilon", Attribute::Float(op.eps as f32));
        if op.frozen && op.kind == NormKind::Batch {
            let [gamma, beta] = self.affine(op, inputs, c, &[c])?;
            let stats = self.constants.get(&inputs[1]).cloned();
            let stats = stats.ok_or_else(|| self.fault(id, "has statistics that depend on the image"))?;
            let (mean, var) = (self.floats(&[c], &stats[..c]), self.floats(&[c], &stats[c..]));
            return Ok((self.emit("BatchNormalization", &[&x, &gamma, &beta, &mean, &var], &[eps]), First));
        }
        let own = self.op(inputs[1]).is_some_and(|(s, from)| {
            as_op::<NormStats>(s).is_some_and(|s| s.0 == op.kind) && from[0] == inputs[0]
        });
        if op.frozen || !own || self.rank(id) < 3 {
            return Err(self.fault(id, "has statistics that ONNX does not know"));
        }
        match op.kind {
            NormKind::Instance => {
                let [gamma, beta] = self.affine(op, inputs, c, &[c])?;
                Ok((self.emit("InstanceNormalization", &[&x, &gamma, &beta], &[eps]), First))
            }
            NormKind::Group(g) => {
                // One "channel" per group, all of its elements in a row.
                let (rows, ones, zeros) = (
                    self.ints(&[0, g as i64, -1]),
                    self.floats(&[g], &vec![1.0; g]),
                    self.floats(&[g], &vec![0.0; g]),
                );
                let size = self.emit("Shape", &[&x], &[]);
                let flat = self.emit("Reshape", &[&x, &rows], &[]);
                let normed = self.emit("InstanceNormalization", &[&flat, &ones, &zeros], &[eps]);
                let y = self.emit("Reshape", &[&normed, &size], &[]);
                let mut shape = vec![1; self.rank(id) - 1];
                shape[0] = c;
                let [gamma, beta] = self.affine(op, inputs, c, &shape)?;
                let y = self.emit("Mul", &[&y, &gamma], &[]);
                Ok((self.emit("Add", &[&y, &beta], &[]), First))
            }
            NormKind::Batch => {
                Err(self.fault(id, "takes its statistics over the batch, which a prediction must not"))
            }
        }
    }

    /// Scale and shift, or ones and zeros where the norm has none.
    fn affine(
        &mut self,
        op: &Normalize,
        inputs: &[NodeId],
        c: usize,
        shape: &[usize],
    ) -> Result<[String; 2]> {
        if !op.affine {
            return Ok([self.floats(shape, &vec![1.0; c]), self.floats(shape, &vec![0.0; c])]);
        }
        Ok([self.constant(inputs[2], shape, Same)?, self.constant(inputs[3], shape, Same)?])
    }

    fn unary(&mut self, id: NodeId, op: Unary, x: &str) -> Result<String> {
        let simple = match op {
            Unary::Abs => "Abs",
            Unary::Sign => "Sign",
            Unary::Exp => "Exp",
            Unary::Log => "Log",
            Unary::Sqrt => "Sqrt",
            Unary::Recip => "Reciprocal",
            Unary::Tanh => "Tanh",
            Unary::Sigmoid => "Sigmoid",
            Unary::Softplus => "Softplus",
            Unary::Erf => "Erf",
            Unary::LeakyRelu(0.0) => "Relu",
            Unary::LeakyRelu(slope) => {
                return Ok(self.emit("LeakyRelu", &[x], &[("alpha", Attribute::Float(slope as f32))]));
            }
            Unary::Square => return Ok(self.emit("Mul", &[x, x], &[])),
            Unary::AddScalar(c) | Unary::MulScalar(c) | Unary::Pow(c) => {
                let c = self.floats(&[], &[c as f32]);
                let kind = match op {
                    Unary::AddScalar(_) => "Add",
                    Unary::MulScalar(_) => "Mul",
                    _ => "Pow",
                };
                return Ok(self.emit(kind, &[x, &c], &[]));
            }
            Unary::Clamp(low, high) => {
                let (low, high) = (self.floats(&[], &[low as f32]), self.floats(&[], &[high as f32]));
                return Ok(self.emit("Clip", &[x, &low, &high], &[]));
            }
            Unary::Inside(..) => return Err(self.fault(id, "has no counterpart in ONNX")),
        };
        Ok(self.emit(simple, &[x], &[]))
    }

    fn binary(&mut self, id: NodeId, op: Binary, inputs: &[NodeId]) -> Result<(String, Order)> {
        let kind = match op {
            Binary::Add => "Add",
            Binary::Sub => "Sub",
            Binary::Mul => "Mul",
            Binary::Div => "Div",
            Binary::Max => "Max",
            Binary::Min => "Min",
            Binary::Gate(_) => return Err(self.fault(id, "has no counterpart in ONNX")),
        };
        let rank = self.rank(id);
        // Channels first, unless a value of the image lacks axes and would broadcast against others.
        let dynamic: Vec<NodeId> = inputs.iter().copied().filter(|i| self.dynamic[*i]).collect();
        let whole = dynamic.iter().all(|i| self.rank(*i) == rank);
        let order = if whole && dynamic.iter().any(|i| self.order(*i) == First) { First } else { Same };
        let mut names = Vec::new();
        for i in inputs {
            names.push(if self.dynamic[*i] {
                self.get(*i, order)?
            } else {
                let shape = self.nodes[*i].shape.to_vec();
                self.constant(*i, &[vec![1; rank - shape.len()], shape].concat(), order)?
            });
        }
        Ok((self.emit(kind, &[&names[0], &names[1]], &[]), order))
    }
}

/// An axis after the channels moved to the front.
fn moved(axis: usize, rank: usize) -> usize {
    match axis {
        0 => 0,
        a if a == rank - 1 => 1,
        a => a + 1,
    }
}

fn as_op<T: Op>(op: &dyn Op) -> Option<&T> {
    (op as &dyn Any).downcast_ref()
}
