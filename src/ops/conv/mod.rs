//! Convolution in 1, 2 and 3 dimensions, channels last.
//!
//! `conv`, `conv_grad_x` and `conv_grad_w` are the three partial derivatives of one trilinear form
//! `<conv(x, w), z>`: the derivative of each is built from the other two, so these three serve every order of
//! derivative. A transposed convolution *is* `conv_grad_x`.
//!
//! Layouts: `x [n, spatial.., c]`, `w [k, kernel.., c / groups]`, `y [n, spatial.., k]`.

pub mod cpu;
pub mod cuda;
pub mod geometry;
mod samples;

pub use samples::samples;

use crate::device::cpu::Io;
use crate::device::launch::{GpuTraits, LaunchList, Operands};
use crate::dispatch_real;
use crate::graph::{GradArgs, Op, Storage, Var};
use crate::shape::Shape;
use cuda::launch::{Epilogue, Pass};
use geometry::ConvGeometry;

/// How the kernel moves over the input. One entry per spatial axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvSpec {
    /// Steps between outputs.
    pub stride: Vec<usize>,
    /// Zeros before and behind the input.
    pub padding: Vec<usize>,
    /// Steps between kernel taps.
    pub dilation: Vec<usize>,
    /// Number of groups of channels that do not see each other.
    pub groups: usize,
}

impl ConvSpec {
    /// The same stride and padding along each of `dims` axes, no dilation, one group.
    pub fn new(dims: usize, stride: usize, padding: usize) -> Self {
        ConvSpec {
            stride: vec![stride; dims],
            padding: vec![padding; dims],
            dilation: vec![1; dims],
            groups: 1,
        }
    }

    fn dims(&self) -> usize {
        self.stride.len()
    }

    /// The output's extents for given input and kernel extents.
    fn output(&self, input: &[usize], kernel: &[usize]) -> Result<Vec<usize>, String> {
        (0..self.dims())
            .map(|i| {
                let reach = self.dilation[i] * (kernel[i] - 1) + 1;
                (input[i] + 2 * self.padding[i])
                    .checked_sub(reach)
                    .map(|room| room / self.stride[i] + 1)
                    .ok_or_else(|| {
                        format!(
                            "a kernel that reaches {reach} does not fit an input of {} padded by {}",
                            input[i], self.padding[i]
                        )
                    })
            })
            .collect()
    }

    /// The geometry for an input, a weight and an output of the given shapes.
    pub(crate) fn geometry(&self, x: &[usize], w: &[usize], y: &[usize]) -> ConvGeometry {
        let three = |v: &[usize], fill: usize| {
            let mut out = [fill; 3];
            out[3 - v.len()..].copy_from_slice(v);
            out
        };
        let d = self.dims();
        ConvGeometry {
            n: x[0],
            c: x[d + 1],
            k: w[0],
            groups: self.groups,
            input: three(&x[1..=d], 1),
            output: three(&y[1..=d], 1),
            kernel: three(&w[1..=d], 1),
            stride: three(&self.stride, 1),
            padding: three(&self.padding, 0),
            dilation: three(&self.dilation, 1),
        }
    }

    fn check(&self, what: &str, x: &Shape) -> Result<(), String> {
        let d = self.dims();
        if x.rank() != d + 2 {
            return Err(format!(
                "{what} has shape {x}; {d}D convolution expects {} axes, channels last",
                d + 2
            ));
        }
        Ok(())
    }

    fn check_channels(&self, c: usize, w: &Shape) -> Result<(), String> {
        self.check("the weight", w)?;
        if c != w.channels() * self.groups {
            return Err(format!(
                "the input has {c} channels, the weight {w} with {} groups expects {}",
                self.groups,
                w.channels() * self.groups
            ));
        }
        if !w[0].is_multiple_of(self.groups) {
            return Err(format!("{} output channels do not divide into {} groups", w[0], self.groups));
        }
        Ok(())
    }
}

/// `y = conv(x, w)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conv(pub ConvSpec);

/// `dx = conv_grad_x(dy, w)`: the adjoint of `x -> conv(x, w)`; the forward of a transposed convolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvGradX {
    /// The convolution.
    pub spec: ConvSpec,
    /// Spatial extents of `dx` (several inputs lead to the same output when the stride leaves a rest).
    pub input: Vec<usize>,
}

/// `dw = conv_grad_w(x, dy)`: the adjoint of `w -> conv(x, w)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvGradW {
    /// The convolution.
    pub spec: ConvSpec,
    /// Spatial extents of `dw`.
    pub kernel: Vec<usize>,
}

impl Op for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let ([x, w], d) = ([inputs[0], inputs[1]], self.0.dims());
        self.0.check("the input", x)?;
        self.0.check_channels(x.channels(), w)?;
        let mut y = vec![x[0]];
        y.extend(self.0.output(&x[1..=d], &w[1..=d])?);
        y.push(w[0]);
        Ok(Shape::from(y))
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let (x, w, d) = (&a.inputs[0], &a.inputs[1], self.0.dims());
        vec![
            a.want(0, || a.dy.conv_grad_x(w, &self.0, &x.shape()[1..=d])),
            a.want(1, || x.conv_grad_w(a.dy, &self.0, &w.shape()[1..=d])),
        ]
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        self.0.geometry(inputs[0], inputs[1], output).flops()
    }

    fn product_flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        self.flops(inputs, output)
    }

    fn cpu(&self, io: &mut Io) {
        let g = self.0.geometry(io.in_shape(0), io.in_shape(1), io.out_shape());
        dispatch_real!(io.dtype(), T => cpu::forward::<T>(&g, io.input(0), io.input(1), io.output()));
    }

    fn storage(&self) -> Storage {
        Storage::Product(&[0, 1])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let g = self.0.geometry(io.shape(0), io.shape(1), io.out());
        Ok(cuda::launch::launches(&g, Pass::Forward, io, gpu, &Epilogue::default()))
    }
}

impl Op for ConvGradX {
    fn name(&self) -> &'static str {
        "conv_grad_x"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let ([dy, w], d) = ([inputs[0], inputs[1]], self.spec.dims());
        self.spec.check("the input", dy)?;
        self.spec.check_channels(w.channels() * self.spec.groups, w)?;
        if dy.channels() != w[0] {
            return Err(format!("the input has {} channels, the weight {w} expects {}", dy.channels(), w[0]));
        }
        let expected = self.spec.output(&self.input, &w[1..=d])?;
        if expected != dy[1..=d] {
            return Err(format!(
                "an output of {:?} belongs to inputs of {:?}, not {:?}",
                self.input,
                expected,
                &dy[1..=d]
            ));
        }
        let mut x = vec![dy[0]];
        x.extend(&self.input);
        x.push(w.channels() * self.spec.groups);
        Ok(Shape::from(x))
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let (dy, w, z) = (&a.inputs[0], &a.inputs[1], a.dy);
        let kernel = w.shape()[1..=self.spec.dims()].to_vec();
        vec![a.want(0, || z.conv(w, &self.spec)), a.want(1, || z.conv_grad_w(dy, &self.spec, &kernel))]
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        self.spec.geometry(output, inputs[1], inputs[0]).flops()
    }

    fn product_flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        self.flops(inputs, output)
    }

    fn cpu(&self, io: &mut Io) {
        let g = self.spec.geometry(io.out_shape(), io.in_shape(1), io.in_shape(0));
        dispatch_real!(io.dtype(), T => cpu::grad_x::<T>(&g, io.input(0), io.input(1), io.output()));
    }

    fn storage(&self) -> Storage {
        Storage::Product(&[0, 1])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let g = self.spec.geometry(io.out(), io.shape(1), io.shape(0));
        Ok(cuda::launch::launches(&g, Pass::GradX, io, gpu, &Epilogue::default()))
    }
}

impl Op for ConvGradW {
    fn name(&self) -> &'static str {
        "conv_grad_w"
    }

    fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let ([x, dy], d) = ([inputs[0], inputs[1]], self.spec.dims());
        self.spec.check("the input", x)?;
        self.spec.check("the gradient", dy)?;
        if x.channels() % self.spec.groups != 0 || dy.channels() % self.spec.groups != 0 {
            return Err(format!("channels of {x} and {dy} do not divide into {} groups", self.spec.groups));
        }
        let expected = self.spec.output(&x[1..=d], &self.kernel)?;
        if x[0] != dy[0] || expected != dy[1..=d] {
            return Err(format!(
                "the gradient of an input {x} has spatial extents {expected:?}, not those of {dy}"
            ));
        }
        let mut w = vec![dy.channels()];
        w.extend(&self.kernel);
        w.push(x.channels() / self.spec.groups);
        Ok(Shape::from(w))
    }

    fn grad(&self, a: &GradArgs) -> Vec<Option<Var>> {
        let (x, dy, u) = (&a.inputs[0], &a.inputs[1], a.dy);
        let input = x.shape()[1..=self.spec.dims()].to_vec();
        vec![a.want(0, || dy.conv_grad_x(u, &self.spec, &input)), a.want(1, || x.conv(u, &self.spec))]
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        self.spec.geometry(inputs[0], output, inputs[1]).flops()
    }

    fn product_flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        self.flops(inputs, output)
    }

    fn cpu(&self, io: &mut Io) {
        let g = self.spec.geometry(io.in_shape(0), io.out_shape(), io.in_shape(1));
        dispatch_real!(io.dtype(), T => cpu::grad_w::<T>(&g, io.input(0), io.input(1), io.output()));
    }

    fn storage(&self) -> Storage {
        Storage::Operands(&[0, 1])
    }

    fn launches(&self, io: &Operands, gpu: &GpuTraits) -> Result<LaunchList, String> {
        let g = self.spec.geometry(io.shape(0), io.out(), io.shape(1));
        Ok(cuda::launch::launches(&g, Pass::GradW, io, gpu, &Epilogue::default()))
    }
}

impl Var {
    /// Convolution of `self [n, spatial.., c]` with `w [k, kernel.., c / groups]`.
    #[track_caller]
    pub fn conv(&self, w: &Var, spec: &ConvSpec) -> Var {
        self.apply(Conv(spec.clone()), &[w])
    }

    /// The gradient by the input of extents `input` of a convolution whose output's gradient is `self`.
    #[track_caller]
    pub fn conv_grad_x(&self, w: &Var, spec: &ConvSpec, input: &[usize]) -> Var {
        self.apply(ConvGradX { spec: spec.clone(), input: input.to_vec() }, &[w])
    }

    /// The gradient by the weight of a convolution of `self` whose output's gradient is `dy`.
    #[track_caller]
    pub fn conv_grad_w(&self, dy: &Var, spec: &ConvSpec, kernel: &[usize]) -> Var {
        self.apply(ConvGradW { spec: spec.clone(), kernel: kernel.to_vec() }, &[dy])
    }

    /// Transposed convolution of `self [n, spatial.., k]` with `w [k, kernel.., c / groups]`: each output extent is
    /// `(in - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1`.
    #[track_caller]
    pub fn conv_transpose(&self, w: &Var, spec: &ConvSpec, output_padding: &[usize]) -> Var {
        let (x, k, d) = (self.shape(), w.shape(), spec.dims());
        if self.id().is_none() || w.id().is_none() || x.rank() != d + 2 || k.rank() != d + 2 {
            return self.conv_grad_x(w, spec, &vec![1; d]); // poisoned, or reports the wrong rank
        }
        // Beyond a whole stride (dilated kernels allow it) the padding continues what follows from further, zero, inputs.
        let beyond: Vec<usize> = (0..d).map(|i| output_padding[i] / spec.stride[i]).collect();
        if beyond.iter().any(|&b| b > 0) {
            let amounts: Vec<(i64, i64)> =
                [0].iter().chain(&beyond).chain(&[0]).map(|&b| (0, b as i64)).collect();
            let rest: Vec<usize> = (0..d).map(|i| output_padding[i] % spec.stride[i]).collect();
            return self.pad_zero(&amounts).conv_transpose(w, spec, &rest);
        }
        let input: Vec<usize> = (0..d)
            .map(|i| {
                let full = (x[i + 1] - 1) * spec.stride[i]
                    + spec.dilation[i] * (k[i + 1] - 1)
                    + output_padding[i]
                    + 1;
                full.saturating_sub(2 * spec.padding[i])
            })
            .collect();
        self.conv_grad_x(w, spec, &input)
    }
}
