//! Where NVIDIA's libraries are looked for: where toolkits and Python packages put them.

use std::path::{Path, PathBuf};

/// The folders of a toolkit that hold its libraries.
const TOOLKIT: [&str; 4] = ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"];

/// Where to look, best first: the folder (or file) that the variable `setting` names, a toolkit (in the folders `more` of it
/// first), the environment that the binary stands in, the active Python environments.
pub(super) fn folders(setting: &str, more: &[&str]) -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let mut found = Vec::new();
    if let Some(v) = variable(setting) {
        found.push(if v.is_file() { v.parent().map(Path::to_path_buf).unwrap_or_default() } else { v });
    }
    for v in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = variable(v) {
            found.extend(more.iter().chain(&TOOLKIT).map(|f| home.join(f)));
        }
    }
    let beside = std::env::current_exe().ok().and_then(|e| Some(e.parent()?.parent()?.to_path_buf()));
    for root in [beside, variable("VIRTUAL_ENV"), variable("CONDA_PREFIX")].into_iter().flatten() {
        found.push(root.join("lib"));
        for python in children(&root.join("lib"), "python3") {
            for package in children(&python.join("site-packages/nvidia"), "") {
                found.push(package.join("lib"));
            }
        }
    }
    found.retain(|f| f.is_dir());
    found
}

/// The entries of a folder whose names begin so, newest-looking last name first.
fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
        .collect();
    paths.sort();
    paths.reverse();
    paths
}

/// The library in a folder whose name begins so; not the alternative builds that NVIDIA puts beside it.
pub(super) fn library_in(folder: &Path, prefix: &str) -> Option<PathBuf> {
    children(folder, prefix).into_iter().find(|p| !p.to_string_lossy().contains(".alt."))
}
