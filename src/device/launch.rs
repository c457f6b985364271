//! What is launched on a GPU, as plain data: an operation turns the shapes of its operands into a [`LaunchList`]
//! without a GPU at hand, and whoever holds one runs the list as often as it likes.

use super::choices::Choices;
pub use super::cuda::compiler::Specialisation;
use super::tensor_map::TensorMap;
use crate::dtype::DType;
use crate::shape::Shape;

/// The arithmetic of the matrix kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Math {
    /// fp32 multiply-adds: exact, any device.
    Fma,
    /// fp32 operands rounded to tf32, on tensor cores.
    Tf32,
    /// bf16 operands, on tensor cores.
    Bf16,
}

/// As on the command line.
impl std::str::FromStr for Math {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        [Math::Fma, Math::Tf32, Math::Bf16]
            .into_iter()
            .find(|m| m.name() == s)
            .ok_or_else(|| "write f32, tf32 or bf16".to_string())
    }
}

impl Math {
    /// The name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            Math::Fma => "f32",
            Math::Tf32 => "tf32",
            Math::Bf16 => "bf16",
        }
    }

    /// Bytes of an operand's element.
    pub fn element_bytes(self) -> usize {
        if self == Math::Bf16 { 2 } else { 4 }
    }

    /// The constant that selects it.
    pub fn constant(self) -> &'static str {
        match self {
            Math::Fma => "MATH=MATH_FMA",
            Math::Tf32 => "MATH=MATH_TF32",
            Math::Bf16 => "MATH=MATH_BF16",
        }
    }

    /// The most elements that one copy may move when all runs are multiples of each of `extents` long.
    pub fn vector(self, extents: &[usize]) -> usize {
        let choices: &[usize] = if self == Math::Bf16 { &[8, 2] } else { &[4] };
        choices.iter().copied().find(|v| extents.iter().all(|e| e % v == 0)).unwrap_or(1)
    }
}

/// What a launch depends on beside the shapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuTraits {
    /// Blocks that run side by side, at one a multiprocessor.
    pub multiprocessors: usize,
    /// The arithmetic of convolutions and matrix products.
    pub math: Math,
    /// Whether convolutions are compiled for their exact shape.
    pub fixed_shapes: bool,
    /// Whether neighbouring pointwise operations become one kernel.
    pub fused: bool,
    /// Which variants were measured to be the fastest.
    pub choices: Option<&'static Choices>,
    /// Which convolutions take the kernels that only sm_90a runs (`kernels/conv_hopper.cu`).
    pub hopper: Tailored,
    /// Which convolutions take the kernels for few channels (`kernels/conv_window.cu`).
    pub window: Tailored,
}

/// Which layers take kernels that are made for some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tailored {
    /// None: the device has no such kernels, or they are not wanted.
    Off,
    /// Those that are likely to gain by it.
    Auto,
    /// All that they can compute.
    Always,
}

/// As the variables GAN_HOPPER and GAN_WINDOW have it.
impl std::str::FromStr for Tailored {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "off" => Ok(Tailored::Off),
            "auto" => Ok(Tailored::Auto),
            "always" => Ok(Tailored::Always),
            _ => Err("write off, auto or always".into()),
        }
    }
}

impl GpuTraits {
    /// Blocks of 256 threads for a grid-stride loop of so many turns in all: eight a multiprocessor at most.
    pub fn blocks(&self, turns: usize) -> usize {
        turns.div_ceil(THREADS).clamp(1, 8 * self.multiprocessors)
    }
}

/// Threads of a block, where the kernel leaves no choice.
pub const THREADS: usize = 256;

/// Bytes to which vector accesses must be aligned.
pub const ALIGNED: usize = 16;

/// Bytes of an fp32 element.
pub const ELEMENT: usize = 4;

/// What an operation knows of an input or its output when it plans its launches.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// The extents.
    pub shape: &'a Shape,
    /// Whether it begins at a multiple of [`ALIGNED`] bytes: a view may begin anywhere.
    pub aligned: bool,
    /// How its elements are stored.
    pub dtype: DType,
}

impl Operand<'_> {
    /// The elements' type in the kernels.
    pub fn kind(&self) -> &'static str {
        kind(self.dtype)
    }
}

/// An element type's name in the kernels.
pub fn kind(dtype: DType) -> &'static str {
    if dtype == DType::Bf16 { "bf16" } else { "float" }
}

/// The operands of one operation.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// The inputs.
    pub inputs: &'a [Operand<'a>],
    /// The output.
    pub output: Operand<'a>,
}

impl<'a> Operands<'a> {
    /// Extents of input `i`.
    pub fn shape(&self, i: usize) -> &'a Shape {
        self.inputs[i].shape
    }

    /// Extents of the output.
    pub fn out(&self) -> &'a Shape {
        self.output.shape
    }
}

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum LaunchArg {
    /// The address of an input.
    Input(usize),
    /// The address of an element of an input.
    InputAt(usize, usize),
    /// The address of the output.
    Output,
    /// The address of an element of the output.
    OutputAt(usize),
    /// The address of a byte of the workspace.
    Workspace(usize),
    /// The address of one of the list's tables.
    Table(usize),
    /// Passed by value: its bytes.
    Bytes(Vec<u8>),
    /// Passed by value: maps of a tensor at an address, for TMA.
    Maps(Box<LaunchArg>, Vec<TensorMap>),
    /// An address that the kernel does not follow.
    Null,
}

macro_rules! by_value {
    ($($t:ty),*) => {
        $(impl From<$t> for LaunchArg {
            fn from(v: $t) -> Self {
                LaunchArg::Bytes(v.to_ne_bytes().to_vec())
            }
        })*
    };
}
by_value!(i32, u32, i64, f32);

/// A struct of ints.
impl From<&[i32]> for LaunchArg {
    fn from(v: &[i32]) -> Self {
        LaunchArg::Bytes(bytemuck::cast_slice(v).to_vec())
    }
}

/// An int. Whoever runs a plan has refused tensors whose elements an int does not count.
pub fn int(v: usize) -> LaunchArg {
    (v as i32).into()
}

/// A 64-bit count.
pub fn count(v: usize) -> LaunchArg {
    (v as i64).into()
}

/// One kernel with everything but the addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The kernel file and its constants.
    pub specialisation: Specialisation,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: usize,
    /// The arguments, in order.
    pub args: Vec<LaunchArg>,
}

impl Launch {
    /// A launch of blocks of [`THREADS`] threads, without dynamic shared memory.
    pub fn new(
        specialisation: Specialisation,
        kernel: &'static str,
        grid: [usize; 3],
        args: Vec<LaunchArg>,
    ) -> Self {
        let grid = grid.map(|v| v as u32);
        Launch { specialisation, kernel, grid, threads: THREADS as u32, shared: 0, args }
    }
}

/// Everything that an operation launches, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LaunchList {
    /// The launches.
    pub launches: Vec<Launch>,
    /// Bytes of memory that they share among themselves; its content is lost afterwards.
    pub workspace_bytes: usize,
    /// Data that must lie in the device's memory: constants, and counters, which a launch leaves as it found them.
    pub tables: Vec<Vec<u8>>,
}

impl LaunchList {
    /// A list of one.
    pub fn of(launch: Launch) -> Self {
        LaunchList { launches: vec![launch], ..Self::default() }
    }

    /// Appends a launch.
    pub fn push(&mut self, launch: Launch) {
        self.launches.push(launch);
    }

    /// A new stretch of workspace, aligned for every kernel.
    pub fn workspace(&mut self, bytes: usize) -> LaunchArg {
        let at = self.workspace_bytes;
        self.workspace_bytes = (at + bytes).next_multiple_of(256);
        LaunchArg::Workspace(at)
    }

    /// A table of ints.
    pub fn ints(&mut self, values: impl IntoIterator<Item = usize>) -> LaunchArg {
        let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
        self.table(bytemuck::cast_slice(&values).to_vec())
    }

    /// Counters for blocks of one launch that wait for none (`last_block.cuh`): zeros.
    pub fn counters(&mut self, n: usize) -> LaunchArg {
        self.table(vec![0; 4 * n])
    }

    /// A table of numbers.
    pub fn floats(&mut self, values: impl IntoIterator<Item = f64>) -> LaunchArg {
        let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        self.table(bytemuck::cast_slice(&values).to_vec())
    }

    fn table(&mut self, bytes: Vec<u8>) -> LaunchArg {
        self.tables.push(bytes);
        LaunchArg::Table(self.tables.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_as_wide_as_channels_and_pitch_allow() {
        assert_eq!(Math::Bf16.vector(&[64, 128]), 8);
        assert_eq!(Math::Bf16.vector(&[64, 66]), 2);
        assert_eq!(Math::Bf16.vector(&[3, 8]), 1);
        assert_eq!(Math::Tf32.vector(&[12]), 4);
        assert_eq!(Math::Fma.vector(&[6]), 1);
    }

    #[test]
    fn stretches_of_workspace_do_not_meet() {
        let mut list = LaunchList::default();
        assert_eq!(list.workspace(10), LaunchArg::Workspace(0));
        assert_eq!(list.workspace(256), LaunchArg::Workspace(256));
        assert_eq!(list.workspace(1), LaunchArg::Workspace(512));
        assert_eq!(list.workspace_bytes, 768);
    }
}
