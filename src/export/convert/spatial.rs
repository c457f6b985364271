//! The operations whose extents ONNX wants to know: transposed convolution, padding, reshaping, resampling.

use super::Order::{First, Same};
use super::{Order, Writer, both, channels_first, list};
use crate::error::Result;
use crate::export::proto::Attribute;
use crate::graph::{Node, NodeId};
use crate::ops::conv::ConvGradX;
use crate::ops::resample::{AxisMap, Resample};
use crate::ops::reshape::Reshape;

impl Writer {
    pub(super) fn conv_transpose(
        &mut self,
        id: NodeId,
        op: &ConvGradX,
        twin: Option<&ConvGradX>,
        inputs: &[NodeId],
    ) -> Result<(String, Order)> {
        let s = &op.spec;
        // What is left over when the stride does not divide: it must not depend on the size.
        let extra = |nodes: &[Node], o: &ConvGradX| -> Vec<i64> {
            let (y, w) = (&nodes[inputs[0]].shape, &nodes[inputs[1]].shape);
            (0..s.stride.len())
                .map(|i| {
                    let reach = (s.dilation[i] * (w[i + 1] - 1) + 1) as i64;
                    o.input[i] as i64
                        - ((y[i + 1] as i64 - 1) * s.stride[i] as i64 + reach - 2 * s.padding[i] as i64)
                })
                .collect()
        };
        let rest = extra(&self.nodes, op);
        if twin.is_none_or(|t| t.spec != op.spec || extra(&self.others, t) != rest)
            || rest.iter().any(|r| *r < 0)
        {
            return Err(self.fault(id, "depends on the size of the image"));
        }
        let attributes = [
            ("strides", list(s.stride.clone())),
            ("pads", both(&s.padding)),
            ("dilations", list(s.dilation.clone())),
            ("group", Attribute::Int(s.groups as i64)),
            ("output_padding", Attribute::Ints(rest)),
        ];
        let (x, w) = (self.get(inputs[0], First)?, self.weight(id, inputs[1])?);
        Ok((self.emit("ConvTranspose", &[&x, &w], &attributes), First))
    }

    pub(super) fn pad_zero(&mut self, amounts: &[(i64, i64)], x: NodeId) -> Result<(String, Order)> {
        let order = if amounts.len() < 3 { Same } else { First };
        let amounts = if order == First { channels_first(amounts) } else { amounts.to_vec() };
        let mut name = self.get(x, order)?;
        if amounts.iter().any(|(a, b)| *a > 0 || *b > 0) {
            let pads: Vec<i64> =
                amounts.iter().map(|p| p.0.max(0)).chain(amounts.iter().map(|p| p.1.max(0))).collect();
            let pads = self.ints(&pads);
            name = self.emit("Pad", &[&name, &pads], &[]);
        }
        if amounts.iter().any(|(a, b)| *a < 0 || *b < 0) {
            let axes: Vec<i64> = (0..amounts.len() as i64).collect();
            let from: Vec<i64> = amounts.iter().map(|p| (-p.0).max(0)).collect();
            let to: Vec<i64> = amounts.iter().map(|p| if p.1 < 0 { p.1 } else { i64::MAX }).collect();
            let (from, to, axes) = (self.ints(&from), self.ints(&to), self.ints(&axes));
            name = self.emit("Slice", &[&name, &from, &to, &axes], &[]);
        }
        Ok((name, order))
    }

    pub(super) fn reshape(&mut self, id: NodeId, op: &Reshape, inputs: &[NodeId]) -> Result<(String, Order)> {
        let x = inputs[0];
        let shapes = |nodes: &[Node]| (nodes[x].shape.to_vec(), nodes[id].shape.to_vec());
        let ((from, to), (from2, to2)) = (shapes(&self.nodes), shapes(&self.others));
        if op.offset != 0 || from.iter().product::<usize>() != to.iter().product::<usize>() {
            return Err(self.fault(id, "takes a stretch of the image's memory"));
        }
        let mut target = Vec::new();
        for i in 0..to.len() {
            let copied = from.get(i) == Some(&to[i]) && from2.get(i) == Some(&to2[i]);
            target.push(match to[i] == to2[i] {
                true => to[i] as i64,
                // As in the input.
                false if copied => 0,
                // What is left.
                false => -1,
            });
        }
        if target.iter().filter(|t| **t == -1).count() > 1 {
            return Err(self.fault(id, "depends on the size of the image in several axes"));
        }
        let (name, target) = (self.get(x, Same)?, self.ints(&target));
        Ok((self.emit("Reshape", &[&name, &target], &[]), Same))
    }

    pub(super) fn resample(
        &mut self,
        id: NodeId,
        op: &Resample,
        twin: Option<&Resample>,
        inputs: &[NodeId],
    ) -> Result<(String, Order)> {
        let twin =
            twin.filter(|t| !op.adjoint && !t.adjoint).ok_or_else(|| self.fault(id, "is a gradient"))?;
        let varies = || self.fault(id, "depends on the size of the image");
        let x = self.nodes[inputs[0]].shape.clone();
        let fixed = self.others[inputs[0]].shape == x;
        let mut scales = vec![1f32; op.maps.len() + 2];
        let mut pads = vec![0i64; 2 * scales.len()];
        let (mut kernel, mut stride, mut padding) =
            (vec![1; op.maps.len()], vec![1; op.maps.len()], vec![0; op.maps.len()]);
        // One operator of ONNX serves all axes, so all that do something do the same.
        let mut kinds: Vec<(&str, &str)> = Vec::new();
        for (i, (map, other)) in op.maps.iter().zip(&twin.maps).enumerate() {
            let mut resize = |out: usize, out2: usize| {
                let (n, n2) = (op.input[i], twin.input[i]);
                scales[i + 2] = out as f32 / n as f32;
                out * n2 == out2 * n
            };
            let mut pad = |before: usize, behind: usize| {
                (pads[i + 2], pads[i + 4 + op.maps.len()]) = (before as i64, behind as i64);
                map == other
            };
            let (kind, fits) = match (*map, *other) {
                (AxisMap::Keep, AxisMap::Keep) => continue,
                (AxisMap::Nearest { out }, AxisMap::Nearest { out: o2 }) => {
                    (("nearest", "asymmetric"), resize(out, o2))
                }
                (AxisMap::Linear { out, corners: false }, AxisMap::Linear { out: o2, .. }) => {
                    (("linear", "half_pixel"), resize(out, o2))
                }
                (AxisMap::Linear { out, corners: true }, AxisMap::Linear { out: o2, .. }) => {
                    (("linear", "align_corners"), resize(out, o2))
                }
                (AxisMap::Reflect { before, behind }, _) => (("pad", "reflect"), pad(before, behind)),
                (AxisMap::Replicate { before, behind }, _) => (("pad", "edge"), pad(before, behind)),
                (AxisMap::Average { kernel: k, stride: s, padding: p, count_padding }, _) => {
                    (kernel[i], stride[i], padding[i]) = (k, s, p);
                    (("average", if count_padding { "1" } else { "0" }), map == other)
                }
                _ => return Err(self.fault(id, "maps an axis in a way that ONNX does not know")),
            };
            if !(fits || fixed) {
                return Err(varies());
            }
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let name = self.get(inputs[0], First)?;
        let text = |t: &str| -> Attribute {
            Attribute::Text(match t {
                "nearest" => "nearest",
                "linear" => "linear",
                "asymmetric" => "asymmetric",
                "half_pixel" => "half_pixel",
                "align_corners" => "align_corners",
                "reflect" => "reflect",
                _ => "edge",
            })
        };
        let made = match kinds[..] {
            [] => name,
            [("pad", mode)] => {
                let pads = self.ints(&pads);
                self.emit("Pad", &[&name, &pads], &[("mode", text(mode))])
            }
            [("average", count)] => {
                let attributes = [
                    ("kernel_shape", list(kernel)),
                    ("strides", list(stride)),
                    ("pads", both(&padding)),
                    ("count_include_pad", Attribute::Int(i64::from(count == "1"))),
                ];
                self.emit("AveragePool", &[&name], &attributes)
            }
            [(mode, coordinates)] => {
                let scales = self.floats(&[scales.len()], &scales);
                let attributes = [
                    ("mode", text(mode)),
                    ("coordinate_transformation_mode", text(coordinates)),
                    ("nearest_mode", Attribute::Text("floor")),
                ];
                self.emit("Resize", &[&name, "", &scales], &attributes)
            }
            _ => return Err(self.fault(id, "maps its axes in different ways")),
        };
        Ok((made, First))
    }
}
