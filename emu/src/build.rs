//! Compiling a `.cu` file as C++.

use crate::Module;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Which sanitizer a stand-alone program is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sanitizer {
    /// ThreadSanitizer, by clang: finds races.
    Thread,
    /// AddressSanitizer and UndefinedBehaviorSanitizer: find overruns and misaligned accesses.
    Address,
}

/// A `.cu` file with the constants that specialise it.
#[derive(Clone, Debug, Hash)]
pub struct Build {
    kernels: PathBuf,
    file: String,
    defines: Vec<String>,
    patches: Vec<(String, String, String)>,
}

impl Build {
    /// `file` in the folder `kernels`.
    pub fn new(kernels: impl Into<PathBuf>, file: &str) -> Self {
        Build { kernels: kernels.into(), file: file.into(), defines: Vec::new(), patches: Vec::new() }
    }

    /// Adds constants, each `NAME=value` or `NAME(a)=expression`.
    pub fn define<S: AsRef<str>>(mut self, constants: impl IntoIterator<Item = S>) -> Self {
        self.defines.extend(constants.into_iter().map(|c| c.as_ref().to_string()));
        self
    }

    /// Replaces a piece of a source (`conv.cu`, `include/tile.cuh`) in the copy that is built: how tests plant bugs.
    pub fn patch(mut self, file: &str, from: &str, to: &str) -> Self {
        self.patches.push((file.into(), from.into(), to.into()));
        self
    }

    /// Builds a shared library, unless it is there already, and loads it.
    pub fn load(&self) -> Result<Module, String> {
        Module::open(self.make(None)?)
    }

    /// Builds a stand-alone program with a sanitizer, unless it is there already.
    pub fn program(&self, sanitizer: Sanitizer) -> Result<PathBuf, String> {
        self.make(Some(sanitizer))
    }

    fn make(&self, sanitizer: Option<Sanitizer>) -> Result<PathBuf, String> {
        let mut sources = Vec::new();
        let mut headers = list(&self.kernels.join("include"))?;
        headers.push(self.kernels.join(&self.file));
        headers.extend(list(&self.kernels.join("emu"))?);
        for path in headers {
            let mut text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let name = path.strip_prefix(&self.kernels).unwrap().to_string_lossy().into_owned();
            for (file, from, to) in self.patches.iter().filter(|p| p.0 == name) {
                if !text.contains(from.as_str()) {
                    return Err(format!("{file} has no {from:?} to patch"));
                }
                text = text.replace(from.as_str(), to);
            }
            sources.push((name, text));
        }
        let kernel_text = &sources.iter().find(|s| s.0 == self.file).unwrap().1;
        sources.push(("entry.cpp".into(), entry(&self.file, &kernel_names(kernel_text))));

        let compiler = compiler(sanitizer)?;
        let mut flags: Vec<&str> =
            "-std=c++17 -fPIC -fvisibility=hidden -DGAN_EMULATE -Iinclude -Wall -Wno-unknown-pragmas -ffp-contract=off"
                .split(' ')
                .collect();
        let (extra, machine_flags): (&[&str], &[&str]) = match sanitizer {
            None => (&["-O2", "-g1"], &[]),
            Some(Sanitizer::Thread) => (&["-O1", "-g", "-fsanitize=thread"], &["-DEMU_TSAN"]),
            Some(Sanitizer::Address) => {
                (&["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], &["-DEMU_ASAN"])
            }
        };
        flags.extend(extra);

        let mut h = DefaultHasher::new();
        (&sources, &flags, &self.defines, sanitizer, compiler).hash(&mut h);
        let stem = self.file.trim_end_matches(".cu");
        let folder = cache().join(format!("{stem}-{:016x}", h.finish()));
        let result = folder.join(if sanitizer.is_some() { "program" } else { "library.so" });
        if result.exists() {
            return Ok(result);
        }

        // Build in a folder of our own and move it into place, so that two test programs may build the same thing.
        let work = cache().join(format!(
            "{stem}-{:016x}-{}-{:?}",
            h.finish(),
            std::process::id(),
            std::thread::current().id()
        ));
        for (name, text) in &sources {
            let path = work.join(name);
            std::fs::create_dir_all(path.parent().unwrap())
                .map_err(|e| format!("{}: {e}", path.display()))?;
            std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        // The machine is never instrumented for threads: it is what orders them.
        let plain: Vec<&str> = flags.iter().copied().filter(|f| *f != "-fsanitize=thread").collect();
        run(
            Command::new(compiler).args(&plain).args(machine_flags).args([
                "-O2",
                "-c",
                "emu/emu.cpp",
                "-o",
                "emu.o",
            ]),
            &work,
        )?;
        let defines: Vec<String> = self.defines.iter().map(|d| format!("-D{d}")).collect();
        run(
            Command::new(compiler).args(&flags).args(&defines).args(["-c", "entry.cpp", "-o", "entry.o"]),
            &work,
        )?;
        let mut link = Command::new(compiler);
        match sanitizer {
            None => link.args(["-shared", "entry.o", "emu.o", "-o", "library.so"]),
            Some(_) => link.args(&flags).args(["entry.o", "emu.o", "emu/main.cpp", "-o", "program"]),
        };
        run(&mut link, &work)?;
        if std::fs::rename(&work, &folder).is_err() {
            let _ = std::fs::remove_dir_all(&work); // another one was faster
        }
        if result.exists() { Ok(result) } else { Err(format!("{} was not built", result.display())) }
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

/// The names of the kernels in a source: the first name followed by `(` after KERNEL and its launch bounds.
/// With each the most threads of a block that its launch bounds allow, as C++; 1024 where it has none.
fn kernel_names(text: &str) -> Vec<(String, String)> {
    let code: String =
        text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for piece in code.split("KERNEL ").skip(1) {
        let (bound, piece) = match piece.strip_prefix("__launch_bounds__(") {
            Some(rest) => rest.split_once(')').unwrap_or((rest, "")),
            None => ("1024", piece),
        };
        let bound = bound.split(',').next().unwrap_or_default().to_string();
        let name: String =
            piece.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !name.is_empty() {
            names.push((name, bound));
        }
    }
    names
}

/// The C++ that turns a name and an array of pointers into a call.
fn entry(file: &str, kernels: &[(String, String)]) -> String {
    let mut s = format!(
        "#include \"{file}\"\n\
         int emu_launch(void (*)(void**), void**, const u32*, const u32*, int, size_t, int, int, u64, char*, size_t);\n\
         extern \"C\" __attribute__((visibility(\"default\"))) int gan_emu_run(const char* kernel, void** arguments, \
         const u32* sizes, int count, const u32* grid, const u32* block, size_t shared, int order, int copies, u64 seed, \
         char* report, size_t report_size) {{\n"
    );
    for (k, bound) in kernels {
        s += &format!(
            "    if (!strcmp(kernel, \"{k}\")) {{\n        \
             if (!emu_fits({k}, sizes, count, report, report_size)) return 1;\n        \
             return emu_launch([](void** a) {{ emu_call({k}, a); }}, arguments, grid, block, {bound}, shared, order, copies, seed, \
             report, report_size);\n    }}\n"
        );
    }
    s + "    emu_say(report, report_size, \"no such kernel in this file\");\n    return 1;\n}\n"
}

fn compiler(sanitizer: Option<Sanitizer>) -> Result<&'static str, String> {
    static PLAIN: OnceLock<Option<&str>> = OnceLock::new();
    static CLANG: OnceLock<Option<&str>> = OnceLock::new();
    fn first(names: &'static [&'static str]) -> Option<&'static str> {
        names
            .iter()
            .copied()
            .find(|n| Command::new(n).arg("--version").output().is_ok_and(|o| o.status.success()))
    }
    if sanitizer == Some(Sanitizer::Thread) {
        return CLANG
            .get_or_init(|| first(&["clang++-19", "clang++-20", "clang++-18", "clang++"]))
            .ok_or("no clang++: install clang-19 and libclang-rt-19-dev".into());
    }
    PLAIN.get_or_init(|| first(&["g++", "c++", "clang++"])).ok_or("no C++ compiler: install g++".into())
}

fn run(command: &mut Command, folder: &Path) -> Result<(), String> {
    let output = command.current_dir(folder).output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// `target/emu` beside the running test, or a temporary folder.
fn cache() -> PathBuf {
    let target = std::env::current_exe().ok().and_then(|exe| {
        let deps = exe.parent()?;
        (deps.file_name()? == "deps").then(|| deps.parent().and_then(Path::parent).map(Path::to_path_buf))?
    });
    target.unwrap_or_else(std::env::temp_dir).join("emu")
}
