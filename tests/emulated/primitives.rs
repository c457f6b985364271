//! Every primitive of the kernels by itself, against what `kernels/include/ptx.cuh` says of it, on any device.

use gan::device::backend::{Backend, Fetch};
use gan::device::launch::{Launch, LaunchArg, Specialisation};
use gan::rng::Philox;
use gan_emu::bf16_round;

/// A kernel, its inputs, and what it must give.
struct Case {
    kernel: &'static str,
    inputs: Vec<Vec<f32>>,
    want: Vec<f32>,
    /// By how much a result may be off: 0 where a primitive moves or rounds, more where it sums.
    tolerance: f32,
}

fn numbers(name: &str, n: usize) -> Vec<f32> {
    let mut rng = Philox::named(11, name);
    (0..n).map(|_| rng.normal() as f32).collect()
}

/// Ten bits of mantissa; ties away from zero.
fn tf32(v: f32) -> f32 {
    f32::from_bits((v.to_bits() + 0x1000) & !0x1fff)
}

/// Rows of `a` times columns of `b`, `k` numbers each.
fn product(a: &[f32], b: &[f32], k: usize, round: fn(f32) -> f32) -> Vec<f32> {
    let dot = |x: &[f32], y: &[f32]| {
        x.iter().zip(y).map(|(x, y)| f64::from(round(*x)) * f64::from(round(*y))).sum::<f64>() as f32
    };
    a.chunks(k).flat_map(|x| b.chunks(k).map(move |y| dot(x, y))).collect()
}

fn cases(tensor_cores: bool) -> Vec<Case> {
    let case =
        |kernel, inputs: Vec<Vec<f32>>, want: Vec<f32>, tolerance| Case { kernel, inputs, want, tolerance };
    let lanes = numbers("lanes", 32);
    let shuffled = (0..32).map(|i| lanes[i ^ 5]).chain((0..32).map(|i| lanes[i * 7 % 32])).collect();
    // Ties in both directions, and what lies next to them.
    let mut odd = numbers("odd", 32);
    for (i, bits) in [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0xbf80_7fff, 0x7f7f_0001, 0, 0x8000_0000]
        .into_iter()
        .enumerate()
    {
        odd[i] = f32::from_bits(bits);
    }
    let turns = numbers("turns", 32);
    let turn =
        |f: fn(f64) -> f64| turns.iter().map(move |v| f(2.0 * std::f64::consts::PI * f64::from(*v)) as f32);
    let rounded = odd.iter().map(|v| bf16_round(*v)).chain(turn(f64::sin)).chain(turn(f64::cos)).collect();
    let mixed = [&odd[..], &turns].concat();
    let long = numbers("long", 288);
    let mut copied = long.clone();
    (0..32).step_by(3).for_each(|i| copied[4 * i..4 * i + 4].fill(0.0));
    (0..32).step_by(5).for_each(|i| copied[256 + i] = 0.0);
    let mut all = vec![
        case("shuffles", vec![lanes], shuffled, 0.0),
        case("roundings", vec![mixed], rounded, 1e-6),
        case("async_copies", vec![long], copied, 0.0),
    ];
    if tensor_cores {
        let words: Vec<f32> = (0..256u32).map(|i| (i * 257 % 65_521) as f32).collect();
        // Matrix i, row r, column c; lane = 4 g + t holds row g, columns 2 t and 2 t + 1.
        let at = |i: usize, r: usize, c: usize| words[(8 * i + r) * 8 + c];
        let register = |transposed: bool, lane: usize, i: usize, half: usize| {
            let (g, c) = (lane / 4, 2 * (lane % 4) + half);
            if transposed { at(i, c, g) } else { at(i, g, c) }
        };
        let mut loaded = Vec::new();
        for transposed in [false, true] {
            for lane in 0..32 {
                loaded.extend((0..8).map(|j| register(transposed, lane, j / 2, j % 2)));
            }
        }
        all.push(case("matrices", vec![words.clone()], loaded, 0.0));
        let (a, b) = (numbers("a", 512), numbers("b", 256));
        let sums = product(&a, &b, 16, bf16_round);
        // Sixteen terms of a few units each, added in single precision in some order.
        all.push(case("products_bf16", vec![a, b], sums, 1e-5));
        let (a, b) = (numbers("c", 256), numbers("d", 128));
        let mut sums = product(&a, &b, 8, tf32);
        sums.extend(a[..32].iter().map(|v| tf32(*v)));
        all.push(case("products_tf32", vec![a, b], sums, 1e-5));
    }
    all
}

fn specialisation(tensor_cores: bool) -> Specialisation {
    let constants: &[&str] = if tensor_cores { &["TENSOR_CORES=1"] } else { &[] };
    Specialisation::new("primitives.cu", constants.iter().copied())
}

/// What they are compiled to.
#[allow(dead_code)] // for the tests of a device, which compile everything beforehand
pub fn kernels(tensor_cores: bool) -> Vec<Specialisation> {
    vec![specialisation(tensor_cores)]
}

/// Runs every primitive on a device; one line for each that gives something else.
pub fn faults<B: Backend>(backend: &B, tensor_cores: bool) -> Vec<String> {
    let run = |case: &Case| -> gan::error::Result<Vec<f32>> {
        let what = specialisation(tensor_cores);
        let mut arguments = Vec::new();
        let mut memory = Vec::new();
        for values in &case.inputs {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
            let own = backend.allocate(bytes.len())?;
            backend.upload(&bytes, &own, 0)?;
            arguments.push(backend.address(&own).to_ne_bytes().to_vec());
            memory.push(own);
        }
        let mut raw = vec![0xffu8; 4 * case.want.len()];
        let out = backend.allocate(raw.len())?;
        backend.upload(&raw, &out, 0)?;
        arguments.push(backend.address(&out).to_ne_bytes().to_vec());
        let args: Vec<LaunchArg> = arguments.iter().map(|_| LaunchArg::Null).collect();
        let launch = Launch { threads: 32, ..Launch::new(what, case.kernel, [1, 1, 1], args) };
        let kernel = backend.kernel(&launch)?;
        backend.launch(&kernel, &launch, &arguments)?;
        backend.download(&mut [Fetch { from: &out, offset: 0, into: &mut raw }])?;
        Ok(raw.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let wrong = |case: &Case| match run(case) {
        Err(e) => Some(format!("{}: {e}", case.kernel)),
        Ok(got) => {
            let bad = |i: &usize| {
                let (g, w) = (got[*i], case.want[*i]);
                g.is_nan() || (g - w).abs() > case.tolerance * w.abs().max(1.0)
            };
            let i = (0..got.len()).find(bad)?;
            Some(format!("{}: number {i} is {}, not {}", case.kernel, got[i], case.want[i]))
        }
    };
    cases(tensor_cores).iter().filter_map(wrong).collect()
}
