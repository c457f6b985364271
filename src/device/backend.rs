//! What a plan needs of a device that runs launches: memory, kernels, and a way to run them in order. The CUDA driver is
//! one; the tests' emulator is another.

use super::launch::{GpuTraits, Launch, Specialisation};
use super::occupancy::{KernelFacts, Limits};
use super::tensor_map::TensorMap;
use crate::error::Result;

/// A stretch of memory to be read back.
pub struct Fetch<'a, M> {
    /// The memory.
    pub from: &'a M,
    /// Where in it.
    pub offset: usize,
    /// As many bytes as are wanted.
    pub into: &'a mut [u8],
}

/// Bytes of a staging area that go to a place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where they are in the staging area.
    pub from: usize,
    /// Where they go.
    pub to: usize,
    /// How many.
    pub bytes: usize,
}

/// A device. Everything that is asked of it happens in the order of asking.
pub trait Backend {
    /// A stretch of its memory, aligned to 256 bytes; freed when dropped.
    type Memory;
    /// A way for a run's inputs to the device, beside what is being computed there.
    type Staging;
    /// A kernel that is ready to run.
    type Kernel;
    /// A recorded run.
    type Recording;

    /// What operations need to know of it.
    fn traits(&self) -> GpuTraits;

    /// Bytes of memory that are free, where it can tell.
    fn available(&self) -> Option<u64>;

    /// Reserves memory. Its content is arbitrary.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory>;

    /// The address of a stretch, as kernels take it.
    fn address(&self, memory: &Self::Memory) -> u64;

    /// What TMA must be told of a tensor that begins at an address: 128 bytes, passed to kernels by value.
    fn tensor_map(&self, map: &TensorMap, address: u64) -> Result<Vec<u8>>;

    /// Copies bytes to the device. They may be overwritten as soon as this returns.
    fn upload(&self, bytes: &[u8], to: &Self::Memory, offset: usize) -> Result<()>;

    /// Copies stretches from the device, when everything before is done.
    fn download(&self, what: &mut [Fetch<Self::Memory>]) -> Result<()>;

    /// Reserves a staging area of so many bytes.
    fn staging(&self, bytes: usize) -> Result<Self::Staging>;

    /// Lets `fill` write the area's bytes and sends them off; they arrive while earlier runs go on.
    fn stage(&self, staging: &mut Self::Staging, fill: &mut dyn FnMut(&mut [u8])) -> Result<()>;

    /// Copies pieces of what was last sent to where runs read it, in order with them.
    fn unstage(&self, staging: &mut Self::Staging, to: &Self::Memory, pieces: &[Piece]) -> Result<()>;

    /// Compiles together what is not compiled yet of kernels that will be asked for; a device that compiles nothing, or one
    /// kernel at a time, does nothing here.
    fn compile(&self, _all: &mut dyn Iterator<Item = &Specialisation>) -> Result<()> {
        Ok(())
    }

    /// Compiles and loads the kernel of a launch, and refuses what the device cannot launch
    /// ([`super::limits::LaunchLimits`]).
    fn kernel(&self, launch: &Launch) -> Result<Self::Kernel>;

    /// Runs a kernel; `arguments` are the bytes of each argument, addresses resolved.
    fn launch(&self, kernel: &Self::Kernel, launch: &Launch, arguments: &[Vec<u8>]) -> Result<()>;

    /// Records the launches that `run` makes, so that all of them can be replayed as one, if the device can. Whether they
    /// are also run is left open.
    fn record(&self, run: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Recording>>;

    /// Runs what was recorded.
    fn replay(&self, recording: &Self::Recording) -> Result<()>;

    /// Waits until everything is done.
    fn finish(&self) -> Result<()>;
}

/// A kernel that ran, as a device notes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRecord {
    /// Its name.
    pub name: String,
    /// When it began, in nanoseconds of the device's clock.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of shared memory of a block that were asked for when it was launched.
    pub dynamic_shared: usize,
    /// What it took besides.
    pub facts: KernelFacts,
}

/// A device that can tell when what was asked of it happened, and what its kernels take.
pub trait Timed: Backend {
    /// A point in the order of what was asked.
    type Mark;

    /// A mark that stands nowhere yet.
    fn mark(&self) -> Result<Self::Mark>;

    /// Puts a mark behind everything that was asked so far. It may be put anew as often as one likes.
    fn place(&self, mark: &Self::Mark) -> Result<()>;

    /// Seconds between two marks, of which both have been reached.
    fn seconds(&self, from: &Self::Mark, to: &Self::Mark) -> Result<f64>;

    /// What a kernel takes.
    fn facts(&self, kernel: &Self::Kernel) -> Result<KernelFacts>;

    /// What a multiprocessor has.
    fn limits(&self) -> Result<Limits>;

    /// Notes every kernel that runs from here on, also inside of recordings, and says by what means; or why it cannot.
    fn note(&self) -> std::result::Result<String, String> {
        Err("this device notes no kernels".into())
    }

    /// Ends what [`Timed::note`] began when everything is done, and gives the kernels in the order in which they began; or says
    /// what is wrong with what was noted.
    fn noted(&self) -> std::result::Result<Vec<KernelRecord>, String> {
        Ok(Vec::new())
    }

    /// Names what is asked from here on, up to the matching [`Timed::leave`], to a profiler that watches from outside. They
    /// may lie in one another.
    fn enter(&self, _name: &str) {}

    /// Ends what the last [`Timed::enter`] began.
    fn leave(&self) {}
}
