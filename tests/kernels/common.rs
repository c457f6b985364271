//! What the kernel tests share.

use gan::rng::Philox;
use gan_emu::{Arg, Buffer, Build, Mode, Module, Shape, bf16_round};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

/// The folder of the CUDA sources.
pub fn kernels() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// A built kernel file; each specialisation is built and loaded once.
pub fn module<S: AsRef<str>>(file: &str, defines: &[S]) -> Arc<Module> {
    type Slot = Arc<OnceLock<Arc<Module>>>;
    static LOADED: OnceLock<Mutex<HashMap<String, Slot>>> = OnceLock::new();
    let key = format!("{file} {}", defines.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" "));
    let slot = LOADED.get_or_init(Mutex::default).lock().unwrap().entry(key).or_default().clone();
    slot.get_or_init(|| {
        Arc::new(Build::new(kernels(), file).define(defines).load().unwrap_or_else(|e| panic!("{e}")))
    })
    .clone()
}

/// Normally distributed numbers.
pub fn normal(seed: u64, n: usize) -> Vec<f32> {
    let mut r = Philox::new(seed, 99);
    (0..n).map(|_| r.normal() as f32).collect()
}

/// Fails unless every number is within `relative` of the expected one, measured against the largest expected number.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f64], relative: f64) {
    assert_eq!(got.len(), want.len(), "{what}: number of results");
    let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs();
        assert!(error <= relative * scale, "{what}: element {i} is {g}, not {w} (scale {scale})");
    }
}

/// Runs a kernel under every mode; `fresh` makes its arguments, `check` sees them afterwards.
#[track_caller]
pub fn in_every_mode<T>(
    module: &Module,
    kernel: &str,
    shape: Shape,
    fresh: impl Fn() -> T,
    args: impl for<'a> Fn(&'a T) -> Vec<Arg<'a>>,
    check: impl Fn(&T),
) {
    for mode in Mode::all() {
        let state = fresh();
        module.launch(kernel, shape, &args(&state), mode).unwrap_or_else(|e| panic!("{e}"));
        check(&state);
    }
}

/// A buffer of fp32 or bf16 numbers.
pub fn buffer(kind: &str, v: &[f32]) -> Buffer {
    if kind == "bf16" { Buffer::bf16(v) } else { Buffer::f32(v) }
}

/// An unwritten buffer of `n` fp32 or bf16 numbers.
pub fn unwritten(kind: &str, n: usize) -> Buffer {
    Buffer::poisoned(n * if kind == "bf16" { 2 } else { 4 })
}

/// Its numbers.
pub fn numbers(kind: &str, b: &Buffer) -> Vec<f32> {
    if kind == "bf16" { b.to_bf16() } else { b.to_f32() }
}

/// The numbers as a buffer of that kind holds them.
pub fn rounded(kind: &str, v: &[f32]) -> Vec<f64> {
    v.iter().map(|&x| f64::from(if kind == "bf16" { bf16_round(x) } else { x })).collect()
}

/// What a result stored as that kind may be off by, beside the arithmetic's own error.
pub fn precision(kind: &str, arithmetic: f64) -> f64 {
    if kind == "bf16" { arithmetic.max(4.1e-3) } else { arithmetic }
}
