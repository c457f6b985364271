use gan::device::cpu::blocks::BlockMut;
use gan::device::cpu::tile::{self, Left};
use rustix::time::{ClockId, clock_gettime};
fn now() -> f64 {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}
fn main() {
    for (m, n, depth, stride, panels) in [
        (14, 32, 256, 32, false),
        (14, 128, 256, 128, false),
        (384, 32, 256, 32, false),
        (384, 128, 256, 128, false),
        (384, 128, 256, 512, false),
        (384, 64, 256, 64, false),
        (384, 256, 256, 256, false),
        (192, 128, 256, 128, false),
        (64, 128, 256, 128, false),
        (14, 32, 256, 32, true),
        (128, 128, 256, 128, true),
        (128, 256, 256, 256, true),
        (128, 256, 256, 4096, true),
        (126, 256, 256, 4096, true),
        (126, 256, 128, 4096, true),
    ] {
        let a =
            vec![0.5f32; if panels { tile::left_panels_len::<f32>(m, depth) } else { m * tile::ROW_STRIDE }];
        let b = vec![0.5f32; tile::right_len::<f32>(n, depth)];
        let mut c = vec![0f32; m * stride];
        let mut best = 1e9f64;
        let reps = 200_000_000 / (m * n * depth) + 1;
        for _ in 0..15 {
            let t = now();
            for _ in 0..reps {
                let mut out = BlockMut::new(&mut c, stride);
                tile::multiply(
                    (m, n, depth),
                    if panels { Left::Panels(&a) } else { Left::Rows(&a) },
                    &b,
                    &mut out.part(0, m, 0, n),
                    None,
                    true,
                );
            }
            best = best.min((now() - t) / reps as f64);
        }
        println!(
            "{m} {n} {depth} stride {stride} panels {panels}: {:.1} GFLOP/s",
            2.0 * (m * n * depth) as f64 / best * 1e-9
        );
    }
}
