//! Launches of `kernels/pointwise.cu` and `pointwise_pair.cu`: an expression over strided operands, which is also every copy, permutation,
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
pub fn kinds<'a>(inputs: impl IntoIterator<Item = &'a Strided>) -> Vec<String> {
    let names = ["IN_A", "IN_B", "IN_C", "IN_D", "IN_E", "IN_F"];
    let other =
        |(input, name): (&Strided, &str)| (input.kind != "float").then(|| format!("{name}={}", input.kind));
    inputs.into_iter().zip(names).filter_map(other).collect()
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
    let walk = Walk::new(extents, &out, inputs);
    let dense = walk.extents.len() <= 1
        && [&out].into_iter().chain(inputs).zip(&walk.steps).all(|(o, s)| o.aligned && s == &[1]);
    let width = if dense || !walk.fours { 1 } else { 4 };
    let walk = walk.in_steps_of(width);
    let rank = walk.rank();
    let drops = u8::from(mask.is_some());
    let constants = constants(&out, rank, width, drops, inputs.iter(), expression);
    let specialisation = Specialisation::new("pointwise.cu", constants);
    let mut args = Vec::new();
    if !dense {
        args.push(walk.layout(rank, 0..inputs.len(), inputs.len()));
    }
    args.extend([count(walk.turns()), out.address]);
    args.extend(ends(inputs, mask, scalars));
    let turns = walk.turns();
    let (kernel, turns) = if dense { ("pointwise_dense", turns.div_ceil(4)) } else { ("pointwise", turns) };
    Launch::new(specialisation, kernel, [gpu.blocks(turns), 1, 1], args)
}

/// An expression with a result of its own, one of a pair. Its inputs are called a, b, ... behind those of the one before.
pub struct Half {
    /// What is computed.
    pub expression: String,
    /// Dropout in it.
    pub mask: Option<Mask>,
    /// The index space.
    pub extents: Shape,
    /// Where the result goes.
    pub out: Strided,
    /// What is read.
    pub inputs: Vec<Strided>,
}

/// Two expressions with results of one type in one launch, if they fit: together at most [`MOST_INPUTS`] inputs and one
/// dropout.
pub fn pair(gpu: &GpuTraits, [first, second]: &[Half; 2]) -> Option<Launch> {
    let inputs: Vec<Strided> = [&first.inputs[..], &second.inputs].concat();
    if inputs.len() > MOST_INPUTS
        || first.inputs.is_empty()
        || second.inputs.is_empty()
        || first.mask.is_some() && second.mask.is_some()
    {
        return None;
    }
    let walks = [first, second].map(|h| Walk::new(&h.extents, &h.out, &h.inputs));
    let width = if walks.iter().all(|w| w.fours) { 4 } else { 1 };
    let walks = walks.map(|w| w.in_steps_of(width));
    let rank = walks[0].rank().max(walks[1].rank());
    let drops = if second.mask.is_some() { 2 } else { u8::from(first.mask.is_some()) };
    let mut constants = constants(&first.out, rank, width, drops, inputs.iter(), &first.expression);
    constants.push(format!("FIRST_INPUTS={}", first.inputs.len()));
    constants.push(format!("SECOND={}", second.expression));
    let mut args = Vec::new();
    let parts = [0..first.inputs.len(), first.inputs.len()..inputs.len()];
    for ((half, walk), own) in [first, second].into_iter().zip(&walks).zip(parts) {
        args.extend([walk.layout(rank, own, inputs.len()), count(walk.turns()), half.out.address()]);
    }
    args.extend(ends(&inputs, first.mask.clone().or(second.mask.clone()), [0.0; 2]));
    let blocks = gpu.blocks(walks[0].turns().max(walks[1].turns()));
    Some(Launch::new(
        Specialisation::new("pointwise_pair.cu", constants),
        "pointwise_pair",
        [blocks, 2, 1],
        args,
    ))
}

/// The most inputs that the kernels take.
pub const MOST_INPUTS: usize = 6;

/// The constants of an expression over the given inputs.
fn constants<'a>(
    out: &Strided,
    rank: usize,
    width: usize,
    drops: u8,
    inputs: impl ExactSizeIterator<Item = &'a Strided>,
    expression: &str,
) -> Vec<String> {
    let mut constants = vec![format!("OUT={}", out.kind), format!("RANK={rank}")];
    if width > 1 {
        constants.push(format!("WIDTH={width}"));
    }
    if drops > 0 {
        constants.push(format!("DROPOUT={drops}"));
    }
    constants.push(format!("INPUTS={}", inputs.len()));
    constants.extend(kinds(inputs));
    constants.push(format!("EXPRESSION={expression}"));
    constants
}

/// The arguments from the inputs' addresses on.
fn ends(inputs: &[Strided], mask: Option<Mask>, scalars: [f64; 2]) -> Vec<LaunchArg> {
    let address = |i: usize| inputs.get(i).map_or(LaunchArg::Null, Strided::address);
    let none = Mask { step: LaunchArg::Null, argument: LaunchArg::Bytes(vec![0; 20]) };
    let Mask { step, argument } = mask.unwrap_or(none);
    let mut args: Vec<LaunchArg> = (0..MOST_INPUTS).map(address).chain([step]).collect();
    args.extend(scalars.map(|v| LaunchArg::from(v as f32)));
    args.push(argument);
    args
}

/// How an expression's operands, its result first, are walked through.
struct Walk {
    extents: Vec<usize>,
    steps: Vec<Vec<usize>>,
    fours: bool,
}

impl Walk {
    fn new(extents: &[usize], out: &Strided, inputs: &[Strided]) -> Self {
        assert!(inputs.len() <= MOST_INPUTS, "the kernel takes at most six inputs");
        let operands: Vec<&Strided> = [out].into_iter().chain(inputs).collect();
        let (extents, steps) = merged(extents, &operands.iter().map(|o| &o.steps[..]).collect::<Vec<_>>());
        let fours = in_fours(&extents, &steps, &operands);
        Walk { extents, steps, fours }
    }

    fn in_steps_of(mut self, width: usize) -> Self {
        *self.extents.last_mut().expect("an axis") /= width;
        self.steps.iter_mut().for_each(|s| *s.last_mut().expect("an axis") *= width);
        self
    }

    /// At least two axes, so that vectors, dense and not, are one specialisation.
    fn rank(&self) -> usize {
        self.extents.len().max(2)
    }

    fn turns(&self) -> usize {
        self.extents.iter().product()
    }

    /// A `Layout` of so many axes for a kernel that takes `inputs` inputs, of which those in `own` belong here.
    fn layout(&self, rank: usize, own: std::ops::Range<usize>, inputs: usize) -> LaunchArg {
        let lead = rank - self.extents.len();
        let mut ints: Vec<i32> = vec![1; lead];
        ints.extend(self.extents.iter().map(|&v| v as i32));
        let mut push = |steps: Option<&Vec<usize>>| match steps {
            Some(steps) => {
                ints.extend(std::iter::repeat_n(0, lead));
                ints.extend(steps.iter().map(|&v| v as i32));
            }
            None => ints.extend(std::iter::repeat_n(0, rank)),
        };
        push(self.steps.first());
        (0..inputs).for_each(|i| push(own.contains(&i).then(|| &self.steps[1 + i - own.start])));
        ints[..].into()
    }
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
    use crate::device::launch::{Math, Tailored};

    const GPU: GpuTraits = GpuTraits {
        multiprocessors: 4,
        math: Math::Fma,
        fixed_shapes: false,
        fused: true,
        choices: None,
        hopper: Tailored::Off,
        window: Tailored::Off,
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
