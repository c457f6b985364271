//! Our measures against MONAI's, scikit-image's and SciPy's, on inputs that both sides make from one integer hash.
//! `tests/python/golden_metrics.py` documents the hash and writes the expected values.

use gan::metrics::overlap::Confusion;
use gan::metrics::ssim::{Ssim, Window};
use gan::metrics::{image, stats, surface};
use serde_json::Value;

/// The references compute in 64 bits like ours; they differ by the order of summation only.
const TOLERANCE: f64 = 1e-9;

fn goldens() -> Value {
    serde_json::from_str(include_str!("goldens/metrics/metrics.json")).expect("the goldens are JSON")
}

fn uniform(seed: u64, n: usize) -> Vec<f64> {
    let hash = |index: u64| {
        let mut h = seed
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add((index + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9));
        h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        h ^ (h >> 31)
    };
    (0..n as u64).map(|i| (hash(i) >> 11) as f64 / (1u64 << 53) as f64).collect()
}

fn number(v: &Value) -> f64 {
    match v {
        Value::String(word) => word.parse().expect("a number in words"),
        v => v.as_f64().expect("a number"),
    }
}

fn dims(case: &Value) -> [usize; 3] {
    std::array::from_fn(|a| case["dims"][a].as_u64().expect("an extent") as usize)
}

fn seed(case: &Value) -> u64 {
    case["seed"].as_u64().expect("a seed")
}

fn assert_close(got: f64, case: &Value, key: &str) {
    assert_within(got, case, key, TOLERANCE);
}

fn assert_within(got: f64, case: &Value, key: &str, tolerance: f64) {
    let wanted = number(&case[key]);
    let equal = got == wanted || (got - wanted).abs() <= tolerance * wanted.abs().max(1.0);
    assert!(equal, "{key}: {got} instead of {wanted} for {case}");
}

fn image_pair(case: &Value) -> (Vec<f64>, Vec<f64>) {
    let n = dims(case).iter().product();
    let (a, b) = (uniform(seed(case), n), uniform(seed(case) + 1, n));
    let each = |f: &dyn Fn(f64, f64) -> (f64, f64)| a.iter().zip(&b).map(|(&a, &b)| f(a, b)).unzip();
    match case["kind"].as_str().expect("a kind") {
        "noise" => each(&|a, b| (a, b)),
        "similar" => each(&|a, b| (a, 0.9 * a + 0.1 * b)),
        "signed" => each(&|a, b| (2.0 * a - 1.0, 2.0 * (0.5 * a + 0.5 * b) - 1.0)),
        "ct" => each(&|a, b| (4024.0 * a - 1024.0, 4024.0 * (0.8 * a + 0.2 * b) - 1024.0)),
        "equal" => each(&|a, _| (a, a)),
        "constant" => each(&|_, _| (0.25, 0.75)),
        "zero" => each(&|a, _| (a, 0.0)),
        "both zero" => each(&|_, _| (0.0, 0.0)),
        "inverted" => each(&|a, _| (1.0 - a, a)),
        "offset" => each(&|a, _| (0.5 * a + 0.3, 0.5 * a)),
        other => panic!("unknown kind {other}"),
    }
}

#[test]
fn both_sides_make_the_same_inputs() {
    let expected: Vec<f64> = goldens()["hash_check"].as_array().unwrap().iter().map(number).collect();
    assert_eq!(uniform(42, 3), expected);
}

#[test]
fn image_errors_and_ssim_agree_with_scikit_image_and_monai() {
    let goldens = goldens();
    let cases = goldens["images"].as_array().unwrap();
    assert!(cases.len() >= 16);
    for case in cases {
        let (x, y) = image_pair(case);
        let range = number(&case["range"]);
        let errors = image::Errors::between(&x, &y, None).unwrap();
        assert_close(errors.mae, case, "mae");
        assert_close(errors.mse, case, "mse");
        assert_close(errors.psnr(range).unwrap(), case, "psnr");
        if case["kind"] == "both zero" {
            // 0/0: ours is 0, because the images are equal.
            assert!(number(&case["nmse"]).is_nan() && errors.nmse == 0.0);
        } else {
            assert_close(errors.nmse, case, "nmse");
        }
        let ssim = |window| Ssim::new(window, range).unwrap().score(&x, &y, dims(case), None).unwrap();
        assert_close(ssim(Window::Gaussian), case, "ssim_gaussian");
        assert_close(ssim(Window::Uniform), case, "ssim_uniform");
    }
}

#[test]
fn multi_scale_ssim_agrees_with_monai() {
    for case in goldens()["ms_ssim"].as_array().unwrap() {
        let (x, y) = image_pair(case);
        let weights: Vec<f64> = case["weights"].as_array().unwrap().iter().map(number).collect();
        let ssim = Ssim::new(Window::Gaussian, 1.0).unwrap();
        assert_close(ssim.multi_scale(&x, &y, dims(case), &weights).unwrap(), case, "ms_ssim");
    }
}

fn mask(kind: &str, dims: [usize; 3], seed: u64) -> Vec<bool> {
    let n: usize = dims.iter().product();
    let u = uniform(seed, n);
    let one = (uniform(seed + 9, 1)[0] * n as f64) as usize;
    let centre = uniform(seed + 7, 3);
    let voxel = |i: usize| {
        let at = [i / (dims[1] * dims[2]), i / dims[2] % dims[1], i % dims[2]];
        let axis =
            |a: usize| (at[a] as f64 - centre[a] * (dims[a] - 1) as f64) / (0.35 * dims[a] as f64).max(1.0);
        let r2 = axis(0) * axis(0) + axis(1) * axis(1) + axis(2) * axis(2);
        match kind {
            "empty" => false,
            "full" => true,
            "one voxel" => i == one,
            "corner voxel" => i == n - 1,
            "sparse" => u[i] < 0.05,
            "half" => u[i] < 0.5,
            "dense" => u[i] < 0.95,
            "ball" => r2 < 1.0,
            "box" => (0..3).all(|a| at[a] >= dims[a] / 4 && at[a] < (dims[a] / 2 + 1).max(1)),
            "shell" => r2 < 1.0 && r2 > 0.4,
            other => panic!("unknown mask {other}"),
        }
    };
    (0..n).map(voxel).collect()
}

#[test]
fn overlap_and_surface_distances_agree_with_monai() {
    let goldens = goldens();
    let cases = goldens["masks"].as_array().unwrap();
    assert!(cases.len() >= 50);
    let mut measured = 0;
    for case in cases {
        let d = dims(case);
        let spacing: [f64; 3] = std::array::from_fn(|a| number(&case["spacing"][a]));
        let p = mask(case["prediction"].as_str().unwrap(), d, seed(case));
        let t = mask(case["truth"].as_str().unwrap(), d, seed(case) + 100);

        let c = Confusion::between(&p, &t, None).unwrap();
        let counts = [c.true_positive, c.false_positive, c.true_negative, c.false_negative];
        assert_eq!(
            counts.to_vec(),
            case["counts"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect::<Vec<_>>(),
            "{case}"
        );
        // MONAI's Dice divides in 32 bits.
        assert_within(c.dice(), case, "dice", f64::from(f32::EPSILON));
        assert_close(c.accuracy(), case, "accuracy");
        for (ours, key) in
            [(c.sensitivity(), "sensitivity"), (c.specificity(), "specificity"), (c.ppv(), "ppv")]
        {
            if number(&case[key]).is_nan() {
                // MONAI drops such a case; ours is 1 when the masks agree, else 0.
                assert_eq!(ours, if p == t { 1.0 } else { 0.0 }, "{key} {case}");
            } else {
                assert_close(ours, case, key);
            }
        }

        let hd95 = surface::hd95(&p, &t, d, spacing).unwrap();
        if case["hd95"].is_null() {
            assert_eq!(hd95, surface::diagonal(d, spacing));
        } else if !p.contains(&true) {
            // MONAI says NaN of two empty masks; ours is 0, because they agree.
            assert_eq!(hd95, 0.0);
        } else {
            assert_close(hd95, case, "hd95");
            assert_close(surface::hausdorff(&p, &t, d, spacing, 100.0).unwrap(), case, "hd");
            measured += 1;
        }
    }
    assert!(measured >= 50, "only {measured} pairs have two surfaces");
}

#[test]
fn intervals_agree_with_scipy() {
    for case in goldens()["intervals"].as_array().unwrap() {
        let n = case["n"].as_u64().unwrap() as usize;
        let sample =
            |s: u64, base: f64| uniform(s, n).into_iter().map(|u| base + 4.0 * u).collect::<Vec<_>>();
        let (v, w) = (sample(seed(case), 30.0), sample(seed(case) + 1, 29.5));
        let i = stats::mean_interval(&v, 0.95).unwrap();
        assert_close(i.mean, case, "mean");
        assert_close(stats::standard_deviation(&v), case, "sd");
        assert_close(i.low, case, "low");
        assert_close(i.high, case, "high");
        assert_close(stats::paired(&v, &w, 0.95).unwrap().p_value, case, "p_value");
    }
}
