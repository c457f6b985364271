//! Every operator, loss and optimiser against PyTorch's results: values, gradients, second derivatives.
//!
//! The fixtures lie in `tests/goldens` (`manifest.json` and safetensors files); the environment variable `GAN_GOLDENS`
//! names another folder of the same format, such as one that `tests/goldens/generate.py` writes.
//!
//! A fixture's inputs are exact in single precision and its results were computed in double precision, then rounded to
//! single. A double-precision run must agree to that rounding. A single-precision run may be off by what PyTorch's own
//! single-precision run is off (`f32_err`), up to a factor, and by a few roundings of the largest value.

#[path = "goldens/fixture.rs"]
mod fixture;
#[path = "goldens/losses.rs"]
mod losses;
#[path = "goldens/operators.rs"]
mod operators;
#[path = "goldens/optimisers.rs"]
mod optimisers;
#[path = "goldens/trace.rs"]
mod trace;

use fixture::{Case, Expected, Manifest};
use gan::dtype::DType;
use std::collections::BTreeMap;

/// Results by name (`out/y`, `grad/x`, `grad2/x`), in the order of axes of the fixture.
type Results = BTreeMap<String, Vec<f64>>;

/// Whole training steps are compared elsewhere: they need the networks.
const ELSEWHERE: &str = "training_step";

fn compute(case: &Case, dtype: DType) -> Result<Results, String> {
    if let Some(results) = optimisers::run(case, dtype) {
        return results;
    }
    trace::run(case, dtype, |t| {
        operators::build(t)
            .or_else(|| losses::build(t))
            .ok_or_else(|| format!("the operation {} is unknown to this test", case.op))
    })
}

/// The largest error that is accepted.
fn limit(expected: &Expected, dtype: DType) -> f64 {
    match (expected, dtype) {
        (Expected::Exact, _) => 0.0,
        (Expected::Close { max, .. }, DType::F64) => 2e-7 * max + 1e-12,
        (Expected::Close { max, f32_err }, _) => 4.0 * f32_err + 2e-6 * max + 1e-7,
    }
}

/// The largest share of its limit that a result of this case uses, or what is wrong.
fn check(case: &Case, dtype: DType) -> Result<f64, String> {
    let got = compute(case, dtype)?;
    let mut worst = 0.0f64;
    for (name, expected) in &case.results {
        let got = got.get(name).ok_or_else(|| format!("{name} is not computed"))?;
        let want = &case.tensor(name)?.data;
        if got.len() != want.len() {
            return Err(format!("{name} has {} elements instead of {}", got.len(), want.len()));
        }
        let limit = limit(expected, dtype);
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let off = (g - w).abs();
            if off.is_nan() || off > limit {
                return Err(format!("{name}[{i}] = {g}, PyTorch has {w} (accepted: {limit:.1e})"));
            }
            worst = worst.max(off / limit.max(f64::MIN_POSITIVE));
        }
    }
    Ok(worst)
}

fn run_all(dtype: DType) {
    let manifest = Manifest::read(&fixture::folder()).unwrap_or_else(|e| panic!("{e}"));
    let cases: Vec<&Case> = manifest.cases.iter().filter(|c| c.op != ELSEWHERE).collect();
    let mut failures = Vec::new();
    let (mut results, mut worst) = (0, (0.0, ""));
    for case in &cases {
        match check(case, dtype) {
            Ok(share) => {
                results += case.results.len();
                if share > worst.0 {
                    worst = (share, &case.name);
                }
            }
            Err(why) => failures.push(format!("{}: {why}", case.name)),
        }
    }
    println!(
        "{}: {} of {} cases agree with PyTorch {} ({results} tensors; {} training steps left to their own test); \
         {} comes closest to its limit, with {:.0}% of it",
        dtype.name(),
        cases.len() - failures.len(),
        cases.len(),
        manifest.torch,
        manifest.cases.len() - cases.len(),
        worst.1,
        100.0 * worst.0,
    );
    assert!(!cases.is_empty(), "no cases in {}", fixture::folder().display());
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn single_precision_agrees_with_pytorch() {
    run_all(DType::F32);
}

#[test]
fn double_precision_agrees_with_pytorch() {
    run_all(DType::F64);
}

/// The comparison itself: it must see an error just beyond the limit, a NaN and an operation that it does not know.
#[test]
fn deviations_are_noticed() {
    let manifest = Manifest::read(&fixture::folder()).unwrap_or_else(|e| panic!("{e}"));
    let find = |op: &str| manifest.cases.iter().find(|c| c.op == op);
    let Some(case) = find("tanh").or_else(|| manifest.cases.iter().find(|c| c.results.contains_key("out/y")))
    else {
        return; // a folder of losses only
    };
    for dtype in [DType::F32, DType::F64] {
        let exact = compute(case, dtype).expect("runs")["out/y"].clone();
        for (factor, passes) in [(0.9, true), (1.1, false), (f64::NAN, false)] {
            let mut moved = case.clone();
            let limit = limit(&case.results["out/y"], dtype);
            let mut values = exact.clone();
            values[0] += factor * limit;
            moved.set_tensor("out/y", values);
            assert_eq!(check(&moved, dtype).is_ok(), passes, "{factor} of the limit in {}", dtype.name());
        }
    }
    let mut odd = case.clone();
    odd.op = "frobnicate".into();
    assert!(check(&odd, DType::F64).expect_err("nobody knows it").contains("frobnicate"));
}
