//! Compiling many kernels at once. NVRTC holds a lock of its own while it compiles (13.0: two threads take as long as one
//! after the other), so threads gain nothing: kernels are shared out to processes of the program itself, which speak lines
//! of JSON on their standard input and output and leave the code in the cache.
//!
//! Only a program that says so is started again ([`enable`]): whoever uses this crate as a library has another program, which
//! would take the worker's arguments for its own. Without it, or where processes cannot be started, or end too early, what is
//! left is compiled in this process, one kernel after the other.

use super::cache::Cache;
use super::compiler::{Compiler, Specialisation};
use super::driver::Version;
use super::nvrtc::Nvrtc;
use super::sources::{HEADERS, KERNELS};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// The arguments with which a program becomes a worker.
const ARGUMENTS: [&str; 2] = ["kernels", "worker"];

/// Kernels that a process should have to compile at the least: it takes a while to start.
const WORTH: usize = 3;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Lets kernels be compiled by processes of the program `gan` at this path; the first call counts.
pub fn enable(program: PathBuf) {
    let _ = PROGRAM.set(program);
}

/// This very program, even where its file has been replaced or removed since it was started.
pub fn this_program() -> Option<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() { Some(own) } else { std::env::current_exe().ok() }
}

/// How far the compilation of several kernels is.
#[derive(Clone, Debug, PartialEq)]
pub struct Compilation {
    /// Kernels that are compiled.
    pub done: usize,
    /// Kernels that were missing.
    pub missing: usize,
    /// What they are compiled for.
    pub architecture: String,
    /// Processes at work, this one included.
    pub processes: usize,
    /// Since the beginning.
    pub elapsed: Duration,
}

type Watch = Box<dyn Fn(&Compilation) + Send + Sync>;
static WATCH: Mutex<Option<Watch>> = Mutex::new(None);

/// Calls `watch` when kernels begin to be compiled and after each; in place of who watched before.
pub fn watch(watch: impl Fn(&Compilation) + Send + Sync + 'static) {
    *locked(&WATCH) = Some(Box::new(watch));
}

fn tell(now: &Compilation) {
    if let Some(watch) = &*locked(&WATCH) {
        watch(now);
    }
}

/// Nothing is left half done when a thread panics with one of these locks.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Everything that goes into a kernel but its constants: workers of another version are of no use.
fn version() -> String {
    let texts = KERNELS.iter().chain(HEADERS).flat_map(|s| [s.0, s.1]);
    Cache::key("gan", env!("CARGO_PKG_VERSION"), texts)
}

/// The first line that a worker reads.
#[derive(Serialize, Deserialize)]
struct Greeting {
    version: String,
    nvrtc: String,
    nvrtc_version: Version,
    cache: PathBuf,
}

/// Every other.
#[derive(Serialize, Deserialize)]
struct Job {
    file: String,
    constants: Vec<String>,
    architecture: String,
}

/// What it says to each: nothing, or what is wrong.
#[derive(Serialize, Deserialize)]
struct Answer {
    error: Option<String>,
}

impl Compiler {
    /// Compiles what the cache lacks of `all`, in so many processes at most (as many as there are cores), and says how many
    /// kernels that were.
    pub fn compile_all<'a>(
        &self,
        all: impl IntoIterator<Item = &'a Specialisation>,
        architecture: &str,
        processes: Option<usize>,
    ) -> Result<usize> {
        let distinct: BTreeMap<_, _> = all.into_iter().map(|s| ((s.file, &s.constants), s)).collect();
        let mut missing: Vec<&Specialisation> =
            distinct.into_values().filter(|s| !self.is_cached(s, architecture)).collect();
        if missing.is_empty() {
            return Ok(0);
        }
        // Those that take longest first, so that none of them is left for the end.
        missing.sort_by_key(|s| !s.file.starts_with("conv"));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let processes = processes.unwrap_or(cores).min(missing.len().div_ceil(WORTH)).max(1);
        let program = PROGRAM.get().filter(|_| processes > 1);
        let state = State {
            compiler: self,
            architecture,
            queue: Mutex::new(missing.iter().copied().collect()),
            failure: Mutex::default(),
            began: Instant::now(),
            now: Mutex::new(Compilation {
                done: 0,
                missing: missing.len(),
                architecture: architecture.into(),
                processes: if program.is_some() { processes } else { 1 },
                elapsed: Duration::ZERO,
            }),
        };
        tell(&locked(&state.now));
        std::thread::scope(|scope| {
            for program in program.iter().flat_map(|p| std::iter::repeat_n(*p, processes - 1)) {
                scope.spawn(|| state.by_worker(program));
            }
            state.here();
        });
        // What workers left that ended too early.
        state.here();
        let failure = state.failure.into_inner().unwrap_or_else(|e| e.into_inner());
        failure.map_or(Ok(missing.len()), Err)
    }
}

/// What the threads of one compilation share.
struct State<'a> {
    compiler: &'a Compiler,
    architecture: &'a str,
    queue: Mutex<VecDeque<&'a Specialisation>>,
    failure: Mutex<Option<Error>>,
    began: Instant,
    now: Mutex<Compilation>,
}

impl<'a> State<'a> {
    /// The next kernel; none after a failure.
    fn next(&self) -> Option<&'a Specialisation> {
        if locked(&self.failure).is_some() { None } else { locked(&self.queue).pop_front() }
    }

    fn done(&self, outcome: Result<()>) {
        if let Err(e) = outcome {
            locked(&self.failure).get_or_insert(e);
            return;
        }
        let mut now = locked(&self.now);
        now.done += 1;
        now.elapsed = self.began.elapsed();
        tell(&now);
    }

    /// Compiles in this process.
    fn here(&self) {
        while let Some(what) = self.next() {
            self.done(self.compiler.image(what, self.architecture).map(|_| ()));
        }
    }

    /// Lets a worker compile, until nothing is left or it ends; then its kernel is another's.
    fn by_worker(&self, program: &PathBuf) {
        let Some(mut worker) = Worker::start(program, self.compiler) else { return self.lost() };
        while let Some(what) = self.next() {
            let job = Job {
                file: what.file.into(),
                constants: what.constants.clone(),
                architecture: self.architecture.into(),
            };
            match worker.ask(&job) {
                Some(Answer { error: None }) => self.done(Ok(())),
                Some(Answer { error: Some(e) }) => self.done(Err(Error::input(e))),
                None => {
                    locked(&self.queue).push_front(what);
                    return self.lost();
                }
            }
        }
    }

    /// A worker could not be started, or has ended.
    fn lost(&self) {
        locked(&self.now).processes -= 1;
    }
}

/// A process that compiles.
struct Worker {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts one; `None` where that cannot be, or where it is of another version.
    fn start(program: &PathBuf, compiler: &Compiler) -> Option<Self> {
        let mut command = Command::new(program);
        command.args(ARGUMENTS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Ctrl-C is for the program that the worker works for; the worker ends when that does.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().ok()?;
        let (to, from) = (child.stdin.take()?, BufReader::new(child.stdout.take()?));
        let mut worker = Worker { child, to, from };
        let greeting = Greeting {
            version: version(),
            nvrtc: compiler.nvrtc().origin.clone(),
            nvrtc_version: compiler.nvrtc().version,
            cache: compiler.cache().folder().to_path_buf(),
        };
        worker.ask(&greeting).filter(|a| a.error.is_none()).map(|_| worker)
    }

    /// Sends a line and reads the answer; `None` when the worker is no more.
    fn ask(&mut self, what: &impl Serialize) -> Option<Answer> {
        let mut line = serde_json::to_string(what).ok()?;
        line.push('\n');
        self.to.write_all(line.as_bytes()).ok()?;
        let mut answer = String::new();
        self.from.read_line(&mut answer).ok()?;
        serde_json::from_str(&answer).ok()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It waits for the next line, or is of no use.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a worker does: compiles what it is asked for on standard input, until that ends.
pub fn serve() -> Result<()> {
    let mut lines = std::io::stdin().lock().lines();
    let mut compiler = None;
    while let Some(Ok(line)) = lines.next() {
        let outcome = match &compiler {
            None => greet(&line).map(|found| compiler = Some(found)),
            Some(compiler) => work(&line, compiler),
        };
        let answer = Answer { error: outcome.err().map(|e| e.to_string()) };
        let text = serde_json::to_string(&answer).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
            break; // nobody listens any more
        }
    }
    Ok(())
}

fn odd(e: &serde_json::Error) -> Error {
    Error::input(format!(
        "`gan kernels worker` is started by the program itself, and takes kernels to compile on its standard input ({e})"
    ))
}

fn greet(line: &str) -> Result<Compiler> {
    let greeting: Greeting = serde_json::from_str(line).map_err(|e| odd(&e))?;
    let nvrtc = Nvrtc::at(&greeting.nvrtc)?;
    if greeting.version != version() || greeting.nvrtc_version != nvrtc.version {
        return Err(Error::input("this worker is of another version than the program that asks"));
    }
    Ok(Compiler::with(nvrtc, Cache::at(&greeting.cache)?))
}

fn work(line: &str, compiler: &Compiler) -> Result<()> {
    let Job { file, constants, architecture } = serde_json::from_str(line).map_err(|e| odd(&e))?;
    let file = KERNELS
        .iter()
        .find(|k| k.0 == file)
        .ok_or_else(|| Error::input(format!("there is no kernel file {file}")))?
        .0;
    compiler.image(&Specialisation { file, constants }, &architecture).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_does_not_understand_it_says() {
        let e = greet("no greeting").err().unwrap().to_string();
        assert!(e.contains("started by the program itself"), "{e}");
        let greeting = Greeting {
            version: version(),
            nvrtc: "/nowhere/libnvrtc.so.13".into(),
            nvrtc_version: (13, 0),
            cache: "/nowhere".into(),
        };
        let e = greet(&serde_json::to_string(&greeting).unwrap()).err().unwrap().to_string();
        assert!(e.contains("/nowhere/libnvrtc.so.13"), "{e}");
    }

    #[test]
    fn the_version_is_that_of_the_sources() {
        assert_eq!(version(), version());
        assert!(version().starts_with("gan-"));
    }
}
