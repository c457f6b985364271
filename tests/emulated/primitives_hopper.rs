//! The primitives of `kernels/include/hopper.cuh` by themselves, against what that file and the CUDA documents say of them,
//! on any device that has them.

use gan::device::backend::{Backend, Fetch};
use gan::device::launch::{Launch, LaunchArg, Specialisation};
use gan::device::tensor_map::{Take, TensorMap};
use gan::rng::Philox;
use gan_emu::bf16_round;

/// An argument beside the result.
enum Given {
    Numbers(Vec<f32>),
    Map(TensorMap, Vec<f32>),
    Int(i32),
}

struct Case {
    what: String,
    kernel: &'static str,
    constants: Vec<String>,
    threads: u32,
    shared: usize,
    given: Vec<Given>,
    want: Vec<f32>,
    tolerance: f32,
}

/// Numbers that bf16 holds.
fn numbers(name: &str, n: usize) -> Vec<f32> {
    let mut rng = Philox::named(12, name);
    (0..n).map(|_| bf16_round(rng.normal() as f32)).collect()
}

/// Rows of 64 elements as they lie in shared memory: chunk c of row r is the (c xor r mod 8)th.
fn swizzled(rows: &[[f32; 64]]) -> Vec<f32> {
    let place = |r: usize, c: usize| r * 64 + ((c / 8) ^ (r % 8)) * 8 + c % 8;
    let mut out = vec![0.0; rows.len() * 64];
    for (r, row) in rows.iter().enumerate() {
        row.iter().enumerate().for_each(|(c, v)| out[place(r, c)] = *v);
    }
    out
}

/// The element at these coordinates (the fastest first), zero outside.
fn element(extents: &[usize], data: &[f32], at: &[i64]) -> f32 {
    if at.iter().zip(extents).any(|(&a, &e)| a < 0 || a >= e as i64) {
        return 0.0;
    }
    let flat = at.iter().zip(extents).rev().fold(0, |flat, (&a, &e)| flat * e + a as usize);
    data[flat]
}

/// 64 elements along the fastest axis.
fn row(extents: &[usize], data: &[f32], at: &[i64]) -> [f32; 64] {
    std::array::from_fn(|c| {
        let mut at = at.to_vec();
        at[0] += c as i64;
        element(extents, data, &at)
    })
}

fn tiled(c0: i32, r0: i32, p0: i32) -> Case {
    let (flat, deep) = (vec![72, 7], vec![80, 5, 6]);
    let (x, y) = (numbers("flat", 72 * 7), numbers("deep", 80 * 5 * 6));
    let (c, r, p) = (i64::from(c0), i64::from(r0), i64::from(p0));
    let first: Vec<_> = (0..4).map(|i| row(&flat, &x, &[c, r + i])).collect();
    let second: Vec<_> = (0..6).map(|i| row(&deep, &y, &[c, r + i % 2, p + i / 2])).collect();
    let map = |extents: &[usize], take: &[usize]| TensorMap {
        extents: extents.to_vec(),
        take: Take::Tiled(take.to_vec()),
    };
    Case {
        what: format!("at {c0}, {r0}, {p0}"),
        kernel: "boxes_tiled",
        constants: vec![],
        threads: 64,
        shared: 1024 + 768 + 8,
        given: vec![
            Given::Map(map(&flat, &[64, 4]), x),
            Given::Map(map(&deep, &[64, 2, 3]), y),
            Given::Int(c0),
            Given::Int(r0),
            Given::Int(p0),
        ],
        want: [swizzled(&first), swizzled(&second)].concat(),
        tolerance: 0.0,
    }
}

/// A convolution's gathering: the filter's extents, stride and padding along each spatial axis, the fastest first, and which
/// pixel of the result, channel and tap the box begins with.
fn im2col(
    source: &[usize],
    filter: &[usize],
    stride: &[usize],
    padding: &[usize],
    first: usize,
    tap: &[usize],
    c0: i32,
) -> Case {
    let (channels, images, axes) = (72usize, 3usize, source.len());
    let result: Vec<usize> =
        (0..axes).map(|a| (source[a] + 2 * padding[a] - filter[a]) / stride[a] + 1).collect();
    let extents = [&[channels], source, &[images]].concat();
    let data = numbers("pixels", extents.iter().product());
    let count: usize = result.iter().product();
    // Pixel by pixel of the result, which is what the walk means.
    let place = |pixel: usize| -> (Vec<i64>, usize) {
        let (mut left, mut at) = (pixel % count, Vec::new());
        for a in 0..axes {
            at.push((left % result[a] * stride[a]) as i64 - padding[a] as i64);
            left /= result[a];
        }
        (at, pixel / count)
    };
    let rows: Vec<_> = (first..first + 48)
        .map(|pixel| {
            let (at, image) = place(pixel);
            let moved = at.iter().zip(tap).map(|(a, t)| a + *t as i64);
            let at: Vec<i64> = [i64::from(c0)].into_iter().chain(moved).chain([image as i64]).collect();
            row(&extents, &data, &at)
        })
        .collect();
    let upper = |a: usize| padding[a] as i32 - (filter[a] as i32 - 1);
    let take = Take::Im2col {
        lower: padding.iter().map(|&p| -(p as i32)).collect(),
        upper: (0..axes).map(upper).collect(),
        steps: stride.to_vec(),
        pixels: 48,
    };
    let (at, image) = place(first);
    let ints = [c0].into_iter().chain(at.iter().map(|a| *a as i32)).chain([image as i32]);
    let ints = ints.chain(tap.iter().map(|t| *t as i32)).map(Given::Int);
    Case {
        what: format!("{source:?} by {filter:?} from {first} on, tap {tap:?}, channel {c0}"),
        kernel: if axes == 2 { "boxes_im2col4" } else { "boxes_im2col5" },
        constants: vec![],
        threads: 64,
        shared: 48 * 128 + 8,
        given: [Given::Map(TensorMap { extents, take }, data)].into_iter().chain(ints).collect(),
        want: swizzled(&rows),
        tolerance: 0.0,
    }
}

fn product(columns: usize, a_across: bool, b_across: bool) -> Case {
    let (a, b) = (numbers("a", 64 * 64), numbers("b", columns * 64));
    let mut want = Vec::new();
    for x in a.chunks(64) {
        for y in b.chunks(64) {
            let dot: f64 = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            want.push((2.0 * dot) as f32);
        }
    }
    Case {
        what: format!("{columns} columns, across {a_across} {b_across}"),
        kernel: "warpgroup_products",
        constants: vec![
            format!("COLUMNS={columns}"),
            format!("A_ACROSS={}", u8::from(a_across)),
            format!("B_ACROSS={}", u8::from(b_across)),
        ],
        threads: 128,
        shared: (64 + columns) * 128,
        given: vec![Given::Numbers(a), Given::Numbers(b)],
        want,
        // 128 terms of a few units each, added in single precision in some order.
        tolerance: 4e-5,
    }
}

fn cases() -> Vec<Case> {
    let lanes = numbers("lanes", 32);
    let mut all = vec![Case {
        what: String::new(),
        kernel: "phases",
        constants: vec![],
        threads: 64,
        shared: 16 + 128,
        want: lanes.iter().map(|v| (0..4).fold(*v, |v, _| (v + 1.0) * 2.0)).collect(),
        given: vec![Given::Numbers(lanes)],
        tolerance: 1e-6,
    }];
    let threads = numbers("threads", 384);
    all.push(Case {
        what: String::new(),
        kernel: "registers",
        constants: vec![],
        threads: 384,
        shared: 0,
        want: threads.iter().enumerate().map(|(i, v)| v * i as f32).collect(),
        given: vec![Given::Numbers(threads)],
        tolerance: 0.0,
    });
    all.extend([tiled(0, 0, 0), tiled(8, 5, 4), tiled(64, -2, -1), tiled(-16, 1, 5)]);
    // Width unlike height, strides unlike each other, boxes that span rows and images, and one that runs out of the last.
    all.extend([
        im2col(&[9, 5], &[3, 3], &[1, 1], &[1, 1], 0, &[0, 0], 0),
        im2col(&[9, 5], &[3, 3], &[1, 1], &[1, 1], 29, &[2, 1], 16),
        im2col(&[11, 6], &[4, 2], &[2, 1], &[1, 0], 7, &[3, 1], 0),
        im2col(&[6, 7], &[2, 3], &[1, 2], &[0, 2], 40, &[1, 2], 64),
        im2col(&[5, 4, 3], &[3, 3, 3], &[1, 1, 1], &[1, 1, 1], 17, &[2, 0, 1], 8),
        im2col(&[7, 4, 5], &[4, 2, 3], &[2, 2, 1], &[1, 0, 1], 3, &[3, 1, 2], 0),
    ]);
    for columns in [64, 128, 256] {
        for (a, b) in [(false, false), (false, true), (true, false), (true, true)] {
            all.push(product(columns, a, b));
        }
    }
    all
}

fn specialisation(case: &Case) -> Specialisation {
    Specialisation::new("primitives_hopper.cu", case.constants.clone())
}

/// What they are compiled to.
#[allow(dead_code)] // for the tests of a device, which compile everything beforehand
pub fn kernels() -> Vec<Specialisation> {
    cases().iter().map(specialisation).collect()
}

/// Runs every primitive on a device; one line for each that gives something else.
pub fn faults<B: Backend>(backend: &B) -> Vec<String> {
    let run = |case: &Case| -> gan::error::Result<Vec<f32>> {
        let what = specialisation(case);
        let (mut arguments, mut memory) = (Vec::new(), Vec::new());
        let mut upload = |bytes: &[u8]| -> gan::error::Result<u64> {
            let own = backend.allocate(bytes.len())?;
            backend.upload(bytes, &own, 0)?;
            let address = backend.address(&own);
            memory.push(own);
            Ok(address)
        };
        for given in &case.given {
            arguments.push(match given {
                Given::Int(v) => v.to_ne_bytes().to_vec(),
                Given::Numbers(v) => {
                    let bytes: Vec<u8> = v.iter().flat_map(|v| v.to_ne_bytes()).collect();
                    upload(&bytes)?.to_ne_bytes().to_vec()
                }
                Given::Map(map, v) => {
                    let half = |v: &f32| ((v.to_bits() >> 16) as u16).to_ne_bytes();
                    let bytes: Vec<u8> = v.iter().flat_map(half).collect();
                    backend.tensor_map(map, upload(&bytes)?)?
                }
            });
        }
        let mut raw = vec![0xffu8; 4 * case.want.len()];
        let out = backend.allocate(raw.len())?;
        backend.upload(&raw, &out, 0)?;
        arguments.push(backend.address(&out).to_ne_bytes().to_vec());
        let args: Vec<LaunchArg> = arguments.iter().map(|_| LaunchArg::Null).collect();
        let plain = Launch::new(what, case.kernel, [1, 1, 1], args);
        let launch = Launch { threads: case.threads, shared: case.shared, ..plain };
        let kernel = backend.kernel(&launch)?;
        backend.launch(&kernel, &launch, &arguments)?;
        backend.download(&mut [Fetch { from: &out, offset: 0, into: &mut raw }])?;
        Ok(raw.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
    };
    let wrong = |case: &Case| match run(case) {
        Err(e) => Some(format!("{} {}: {e}", case.kernel, case.what)),
        Ok(got) => {
            let bad = |i: &usize| {
                let (g, w) = (got[*i], case.want[*i]);
                g.is_nan() || (g - w).abs() > case.tolerance * w.abs().max(1.0)
            };
            let i = (0..got.len()).find(bad)?;
            Some(format!("{} {}: number {i} is {}, not {}", case.kernel, case.what, got[i], case.want[i]))
        }
    };
    cases().iter().filter_map(wrong).collect()
}
