//! Compiling a `.cu` file as C++.

use crate::Module;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

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
            "-std=c++17 -fPIC -fvisibility=hidden -DGAN_EMULATE -Iinclude -Wall -Wno-unknown-pragmas -Werror=double-promotion \
             -ffp-contract=off"
                .split(' ')
                .collect();
        // More optimisation takes longer than it saves: most specialisations are launched a few times.
        let (extra, machine_flags): (&[&str], &[&str]) = match sanitizer {
            None => (&["-O1"], &[]),
            Some(Sanitizer::Thread) => (&["-O1", "-g", "-fsanitize=thread"], &["-DEMU_TSAN"]),
            Some(Sanitizer::Address) => {
                (&["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"], &["-DEMU_ASAN"])
            }
        };
        flags.extend(extra);

        let stem = self.file.trim_end_matches(".cu");
        let key = hash(&(&sources, &flags, &self.defines, sanitizer, compiler));
        let kind = if sanitizer.is_some() { "program" } else { "library.so" };
        let result = cache().join(format!("{stem}-{key}.{kind}"));
        if result.exists() {
            return Ok(result);
        }
        // What does not depend on the constants is written and compiled once for all specialisations: most of them are so
        // small that the machine behind them takes longer than they do.
        let folder = made(&cache().join(format!("{stem}-{}", hash(&sources))), |to| {
            sources.iter().try_for_each(|(name, text)| {
                let path = to.join(name);
                std::fs::create_dir_all(path.parent().unwrap())
                    .and_then(|()| std::fs::write(&path, text))
                    .map_err(|e| format!("{}: {e}", path.display()))
            })
        })?;
        let shared: Vec<&(String, String)> = sources.iter().filter(|s| s.0.starts_with("emu/")).collect();
        let machine = hash(&(shared, &flags, machine_flags, compiler));
        // The machine is never instrumented for threads: it is what orders them.
        let plain: Vec<&str> = flags.iter().copied().filter(|f| *f != "-fsanitize=thread").collect();
        let object = |name: &str, source: &str, arguments: &[&str]| {
            made(&cache().join(format!("{name}-{machine}.o")), |to| {
                let mut command = Command::new(compiler);
                run(command.args(arguments).args(["-c", source, "-o"]).arg(to), &folder)
            })
        };
        let mut objects =
            vec![object("machine", "emu/emu.cpp", &[&plain[..], machine_flags, &["-O3"]].concat())?];
        if sanitizer.is_some() {
            objects.push(object("main", "emu/main.cpp", &flags)?);
        }
        made(&result, |to| {
            let mut command = Command::new(compiler);
            command.args(&flags).args(self.defines.iter().map(|d| format!("-D{d}")));
            command.arg("entry.cpp").args(&objects);
            if sanitizer.is_none() {
                // C's libraries are all it needs; to look through C++'s takes as long as to link the rest.
                command.args(["-shared", "-nodefaultlibs", "-lm", "-lc", "-lgcc"]);
            }
            run(command.arg("-o").arg(to), &folder)
        })
    }
}

fn hash(what: &impl Hash) -> String {
    let mut h = DefaultHasher::new();
    what.hash(&mut h);
    format!("{:016x}", h.finish())
}

/// A file or folder, made by `make` unless it is there. It is made under another name and moved into place, so that two test
/// programs may make the same thing; two threads of one take turns.
fn made(path: &Path, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    static TURNS: OnceLock<Mutex<HashMap<PathBuf, Arc<Mutex<()>>>>> = OnceLock::new();
    let turns = TURNS.get_or_init(Mutex::default);
    let turn = turns.lock().unwrap_or_else(|e| e.into_inner()).entry(path.into()).or_default().clone();
    let _turn = turn.lock().unwrap_or_else(|e| e.into_inner());
    if path.exists() {
        return Ok(path.into());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let work = cache().join(format!("{}-{name}", std::process::id()));
    std::fs::create_dir_all(cache()).map_err(|e| format!("{}: {e}", cache().display()))?;
    make(&work)?;
    if let Err(e) = std::fs::rename(&work, path)
        && !path.is_dir()
    {
        return Err(format!("{}: {e}", path.display()));
    }
    let _ = std::fs::remove_dir_all(&work); // another one was faster
    Ok(path.into())
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
