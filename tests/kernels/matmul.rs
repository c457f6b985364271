//! Matrix products: both operands either way, batches, slices, and every arithmetic.

use crate::common::{assert_close, module, normal};
use gan_emu::{Arg, Buffer, Mode, Shape, bf16_round};

#[test]
fn every_arrangement_of_operands() {
    let (m, n, k, batches) = (37usize, 44usize, 70usize, 2usize);
    for (math, bytes) in [("FMA", 4), ("TF32", 4), ("BF16", 2)] {
        for (a_across, b_across) in [(false, false), (false, true), (true, false), (true, true)] {
            for slices in [1usize, 3] {
                let a = normal(1, batches * m * k);
                let b = normal(2, batches * n * k);
                let bias = normal(3, n);
                let round = |v: f32| match math {
                    "BF16" => bf16_round(v),
                    "TF32" => f32::from_bits((v.to_bits() + 0x1000) & 0xffff_e000),
                    _ => v,
                };
                let mut want = vec![0.0; batches * m * n];
                for batch in 0..batches {
                    for i in 0..m {
                        for j in 0..n {
                            let sum: f64 = (0..k)
                                .map(|q| {
                                    let va = a[batch * m * k + if a_across { q * m + i } else { i * k + q }];
                                    let vb = b[batch * n * k + if b_across { q * n + j } else { j * k + q }];
                                    f64::from(round(va)) * f64::from(round(vb))
                                })
                                .sum();
                            want[(batch * m + i) * n + j] = (sum + f64::from(bias[j])).max(0.0);
                        }
                    }
                }
                let widest: &[usize] = if bytes == 2 { &[8, 2, 1] } else { &[4, 1] };
                let vec = |extent: usize| *widest.iter().find(|&&v| extent.is_multiple_of(v)).unwrap();
                let (a_pitch, b_pitch) = (if a_across { m } else { k }, if b_across { n } else { k });
                let stored = |across| if across { "ACROSS_K" } else { "ALONG_K" };
                let program = module(
                    "matmul.cu",
                    &[
                        format!("MATH=MATH_{math}"),
                        format!("A_STORED={}", stored(a_across)),
                        format!("B_STORED={}", stored(b_across)),
                        format!("VEC_A={}", vec(a_pitch)),
                        format!("VEC_B={}", vec(b_pitch)),
                        "OUT=float".into(),
                        "BM=32".into(),
                        "BN=32".into(),
                        "BK=32".into(),
                        "WARPS_M=2".into(),
                        "WARPS_N=1".into(),
                        "STAGES=3".into(),
                        "BIAS=1".into(),
                        "ACTIVATION(v)=relu(v)".into(),
                    ],
                );
                let sum = module("sum_slices.cu", &["OUT=float", "BIAS=1", "ACTIVATION(v)=relu(v)"]);
                let shape = Shape {
                    grid: [(m.div_ceil(32) * n.div_ceil(32) * batches) as u32, slices as u32, 1],
                    threads: 64,
                    shared: 3 * 64 * 32 * bytes,
                };
                let put = |v: &[f32]| if bytes == 2 { Buffer::bf16(v) } else { Buffer::f32(v) };
                for mode in Mode::all() {
                    let (va, vb, vbias) = (put(&a), put(&b), Buffer::f32(&bias));
                    let out = Buffer::poisoned(4 * want.len());
                    let partial = Buffer::poisoned(4 * want.len() * slices);
                    let args: Vec<Arg> = vec![
                        (m as i32).into(),
                        (n as i32).into(),
                        (k as i32).into(),
                        (&va).into(),
                        (&vb).into(),
                        (&vbias).into(),
                        (&out).into(),
                        (&partial).into(),
                        (slices as i32).into(),
                        (a_pitch as i32).into(),
                        (b_pitch as i32).into(),
                        (n as i32).into(),
                        ((m * k) as i64).into(),
                        ((n * k) as i64).into(),
                        ((m * n) as i64).into(),
                    ];
                    program.launch("matmul", shape, &args, mode).unwrap_or_else(|e| panic!("{e}"));
                    if slices > 1 {
                        let args: [Arg; 8] = [
                            (&partial).into(),
                            (&vbias).into(),
                            Arg::Null,
                            (&out).into(),
                            (want.len() as i64).into(),
                            (slices as i32).into(),
                            (n as i32).into(),
                            (n as i32).into(),
                        ];
                        sum.launch("sum_slices", Shape::flat(2, 256), &args, mode)
                            .unwrap_or_else(|e| panic!("{e}"));
                    }
                    let what = format!("{math} {a_across} {b_across} x{slices} {mode:?}");
                    assert_close(&what, &out.to_f32(), &want, 4e-6);
                }
            }
        }
    }
}
