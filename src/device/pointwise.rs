//! Launches of `kernels/pointwise.cu`: an expression over strided operands, which is also every copy, permutation,
//! broadcast, cast and fill.

use super::launch::{
    GpuTraits, Launch, LaunchArg, LaunchList, Operand, Operands, Specialisation, count, kind,
};
use crate::dtype::DType;
use crate::shape::Shape;

/// One operand: where it lies and how it is walked through.
#[derive(Clone, Debug)]
pub struct Strided {
    address: LaunchArg,
    /// Elements between neighbours along each axis.
    steps: Vec<usize>,
    /// Whether the address allows vector accesses.
    aligned: bool,
    kind: &'static str,
}

impl Strided {
    /// Any fp32 operand.
    pub fn new(address: LaunchArg, steps: Vec<usize>, aligned: bool) -> Self {
        Strided { address, steps, aligned, kind: "float" }
    }

    /// A dense fp32 operand of the given extents.
    pub fn dense(address: LaunchArg, shape: &Shape, aligned: bool) -> Self {
        Self::new(address, shape.strides(), aligned)
    }

    /// The output of an operation, whole.
    pub fn output(io: &Operands) -> Self {
        Self::output_at(io, 0, io.out().strides())
    }

    /// The output of an operation from element `first` on.
    pub fn output_at(io: &Operands, first: usize, steps: Vec<usize>) -> Self {
        Self::part(LaunchArg::OutputAt(first), &io.output, first, steps)
    }

    /// Input `i` of an operation, repeated to the output's extents under NumPy's rule.
    pub fn input(io: &Operands, i: usize) -> Self {
        Self::input_at(io, i, 0, io.shape(i).steps_within(io.out()))
    }

    /// Input `i` of an operation from element `first` on.
    pub fn input_at(io: &Operands, i: usize, first: usize, steps: Vec<usize>) -> Self {
        Self::part(LaunchArg::InputAt(i, first), &io.inputs[i], first, steps)
    }

    /// A part of an operand; four elements of any type are as aligned as the operand itself.
    fn part(address: LaunchArg, whole: &Operand, first: usize, steps: Vec<usize>) -> Self {
        Self::new(address, steps, whole.aligned && first.is_multiple_of(4)).of(whole.kind())
    }

    /// Where it begins.
    pub fn address(&self) -> LaunchArg {
        self.address.clone()
    }

    /// Elements between neighbours along each axis.
    pub fn steps(&self) -> &[usize] {
        &self.steps
    }

    /// The same with elements of another type.
    pub fn of(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }
}

/// The constants that tell which inputs are not fp32.
pub fn kinds(inputs: &[Strided]) -> Vec<String> {
    let names = ["IN_A", "IN_B", "IN_C", "IN_D", "IN_E", "IN_F"];
    let other =
        |(input, name): (&Strided, &str)| (input.kind != "float").then(|| format!("{name}={}", input.kind));
    inputs.iter().zip(names).filter_map(other).collect()
}

/// Dropout within an expression: at which step, by which random numbers.
#[derive(Clone, Debug)]
pub struct Mask {
    /// The address of the step number.
    pub step: LaunchArg,
    /// The kernel's argument.
    pub argument: LaunchArg,
}

/// `out = expression` over `extents`. In the expression `a` to `f` are the inputs, `p` and `q` the scalars, which are
/// arguments of the kernel: expressions that differ in numbers only are one kernel. An input may be the output's own memory
/// if it is walked through alike.
pub fn pointwise(
    gpu: &GpuTraits,
    expression: &str,
    scalars: [f64; 2],
    extents: &[usize],
    out: Strided,
    inputs: &[Strided],
) -> Launch {
    dropping(gpu, expression, scalars, None, extents, out, inputs)
}

/// As [`pointwise`], for an expression that may drop: what is in `extents`, counted in its order, is what the mask counts.
pub fn dropping(
    gpu: &GpuTraits,
    expression: &str,
    scalars: [f64; 2],
    mask: Option<Mask>,
    extents: &[usize],
    out: Strided,
    inputs: &[Strided],
) -> Launch {
    assert!(inputs.len() <= 6, "the kernel takes at most six inputs");
    let operands: Vec<&Strided> = [&out].into_iter().chain(inputs).collect();
    let (mut extents, mut steps) =
        merged(extents, &operands.iter().map(|o| &o.steps[..]).collect::<Vec<_>>());
    let dense = extents.len() <= 1 && operands.iter().zip(&steps).all(|(o, s)| o.aligned && s == &[1]);
    let width = if dense || !in_fours(&extents, &steps, &operands) { 1 } else { 4 };
    if width == 4 {
        *extents.last_mut().expect("an axis") /= 4;
        steps.iter_mut().for_each(|s| *s.last_mut().expect("an axis") *= 4);
    }
    let total: usize = extents.iter().product();

    // At least two axes, so that vectors, dense and not, are one specialisation.
    let rank = extents.len().max(2);
    let mut constants = vec![format!("OUT={}", out.kind), format!("RANK={rank}")];
    if width > 1 {
        constants.push(format!("WIDTH={width}"));
    }
    if mask.is_some() {
        constants.push("DROPOUT=1".into());
    }
    constants.push(format!("INPUTS={}", inputs.len()));
    constants.extend(kinds(inputs));
    constants.push(format!("EXPRESSION={expression}"));
    let specialisation = Specialisation::new("pointwise.cu", constants);

    let mut args = Vec::new();
    if !dense {
        let lead = rank - extents.len();
        let extents = std::iter::repeat_n(1, lead).chain(extents.iter().copied());
        let steps = steps.iter().flat_map(|s| std::iter::repeat_n(0, lead).chain(s.iter().copied()));
        let layout: Vec<i32> = extents.chain(steps).map(|v| v as i32).collect();
        args.push(layout[..].into());
    }
    args.push(count(total));
    args.push(out.address);
    args.extend((0..6).map(|i| inputs.get(i).map_or(LaunchArg::Null, |o| o.address.clone())));
    let none = Mask { step: LaunchArg::Null, argument: LaunchArg::Bytes(vec![0; 20]) };
    let Mask { step, argument } = mask.unwrap_or(none);
    args.push(step);
    args.extend(scalars.map(|v| LaunchArg::from(v as f32)));
    args.push(argument);
    let (kernel, turns) = if dense { ("pointwise_dense", total.div_ceil(4)) } else { ("pointwise", total) };
    Launch::new(specialisation, kernel, [gpu.blocks(turns), 1, 1], args)
}

/// Appends a copy of input `i`, of which `from` tells, in another type, and says where it is.
pub fn copy_as(list: &mut LaunchList, gpu: &GpuTraits, i: usize, from: &Operand, dtype: DType) -> LaunchArg {
    let flat = Shape::from([from.shape.numel()]);
    let copy = list.workspace(dtype.size() * flat.numel());
    let read = Strided::dense(LaunchArg::Input(i), &flat, from.aligned).of(from.kind());
    let write = Strided::dense(copy.clone(), &flat, true).of(kind(dtype));
    list.push(pointwise(gpu, "a", [0.0; 2], &flat, write, &[read]));
    copy
}

/// Whether four neighbours along the last axis can move as one: every operand either has them side by side, on an address
/// that allows it, or repeats one element.
fn in_fours(extents: &[usize], steps: &[Vec<usize>], operands: &[&Strided]) -> bool {
    let last = extents.len() - 1;
    let fits = |(o, s): (&&Strided, &Vec<usize>)| match s[last] {
        0 => true,
        1 => o.aligned && s[..last].iter().all(|step| step.is_multiple_of(4)),
        _ => false,
    };
    extents[last].is_multiple_of(4) && steps[0][last] == 1 && operands.iter().zip(steps).all(fits)
}

/// Drops axes of extent 1 and joins neighbours that every operand runs through evenly.
pub fn merged(extents: &[usize], steps: &[&[usize]]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut kept: Vec<usize> = Vec::new();
    let mut out: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (axis, &extent) in extents.iter().enumerate() {
        if extent == 1 {
            continue;
        }
        let even = kept.last().is_some()
            && out.iter().zip(steps).all(|(o, s)| o.last().is_some_and(|&l| l == s[axis] * extent));
        if even {
            *kept.last_mut().expect("just seen") *= extent;
            out.iter_mut().zip(steps).for_each(|(o, s)| *o.last_mut().expect("just seen") = s[axis]);
        } else {
            kept.push(extent);
            out.iter_mut().zip(steps).for_each(|(o, s)| o.push(s[axis]));
        }
    }
    if kept.is_empty() {
        kept.push(1);
        out.iter_mut().for_each(|o| o.push(1));
    }
    (kept, out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::launch::{Hopper, Math};

    const GPU: GpuTraits = GpuTraits {
        multiprocessors: 4,
        math: Math::Fma,
        fixed_shapes: false,
        fused: true,
        choices: None,
        hopper: Hopper::Off,
    };

    #[test]
    fn axes_are_joined_where_all_operands_allow() {
        let (extents, steps) = merged(&[2, 3, 1, 4], &[&[12, 4, 4, 1], &[0, 0, 0, 1]]);
        assert_eq!((extents, steps), (vec![6, 4], vec![vec![4, 1], vec![0, 1]]));
        assert_eq!(merged(&[1, 1], &[&[1, 1]]), (vec![1], vec![vec![1]]));
        assert_eq!(merged(&[2, 3, 4], &[&[12, 4, 1], &[12, 4, 1]]).0, [24]);
    }

    #[test]
    fn vectors_are_used_only_where_every_address_is_aligned() {
        let shape = Shape::from([5, 7]);
        for (aligned, kernel) in [(true, "pointwise_dense"), (false, "pointwise")] {
            let out = Strided::dense(LaunchArg::Output, &shape, true);
            let a = Strided::dense(LaunchArg::Input(0), &shape, aligned);
            let launch = pointwise(&GPU, "a + p", [1.5, 0.0], &shape, out, &[a]);
            assert_eq!((launch.kernel, launch.grid), (kernel, [1, 1, 1]));
        }
        // A scalar is no vector.
        let out = Strided::dense(LaunchArg::Output, &shape, true);
        let a = Strided::new(LaunchArg::Input(0), vec![0, 0], true);
        assert_eq!(pointwise(&GPU, "a", [0.0; 2], &shape, out, &[a]).kernel, "pointwise");
    }
}
