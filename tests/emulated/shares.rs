//! What the tests of a device take from here: that its processes do everything once, and that the oracle of its convolutions is
//! right.

use crate::convolutions::{Kind, small, small_windows, tasks};
use crate::geometry::{operands, products};
use crate::oracle::exact;
use crate::shard::Shard;
use crate::suite::registry;
use gan::ops::conv::cuda::launch::Pass;
use gan::rng::Philox;

#[test]
fn shards_together_are_everything_once() {
    let samples: Vec<String> = registry().into_iter().map(|s| s.name).collect();
    let convolutions = [tasks(Kind::Window, &small_windows()), tasks(Kind::Hopper, &small())].concat();
    let convolutions: Vec<String> = convolutions.iter().map(|t| format!("{t:?}")).collect();
    for of in [1, 2, 3, 7, 15, 16, 1000] {
        let shards: Vec<Shard> =
            (0..of).map(|i| Shard::parse(&format!("{i}/{of}")).expect("a shard")).collect();
        for (number, all) in [&samples, &convolutions].into_iter().enumerate() {
            let mut found: Vec<String> = shards.iter().flat_map(|s| s.share(number, all.clone())).collect();
            let mut want = all.clone();
            found.sort();
            want.sort();
            assert_eq!(found, want, "{of} shards");
            let sizes: Vec<usize> = shards.iter().map(|s| s.share(number, all.clone()).len()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
        for stage in 0..20 {
            assert_eq!(shards.iter().filter(|s| s.takes(stage)).count(), 1);
        }
    }
    assert_eq!(Shard::WHOLE.share(3, samples.clone()), samples);
    for odd in ["", "1", "1/", "2/2", "0/0", "-1/2", "a/b"] {
        let e = Shard::parse(odd).unwrap_err();
        assert!(e.contains("write i/n"), "{e}");
    }
}

#[test]
fn the_fast_oracle_is_the_plain_one() {
    for g in [small(), small_windows()].concat() {
        for pass in [Pass::Forward, Pass::GradX, Pass::GradW] {
            let shapes = operands(&g, pass);
            let mut rng = Philox::named(3, "oracle");
            let [a, b] =
                [0, 1].map(|i| (0..shapes[i].numel()).map(|_| rng.normal() as f32).collect::<Vec<f32>>());
            let mut want = vec![0.0f64; shapes[2].numel()];
            products(&g, |x, w, y| {
                let (to, from, by) = match pass {
                    Pass::Forward => (y, x, w),
                    Pass::GradX => (x, y, w),
                    Pass::GradW => (w, x, y),
                };
                want[to] += f64::from(a[from]) * f64::from(b[by]);
            });
            let got = exact(&g, pass, &a, &b);
            assert_eq!(got.len(), want.len());
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                // Sums of up to a few thousand terms of a few units each, in another order.
                assert!((got - want).abs() < 1e-10, "{pass:?} of {g:?}: number {i} is {got}, not {want}");
            }
        }
    }
}
