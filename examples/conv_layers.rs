//! Times the CPU convolutions layer by layer, in all three directions, and sums them up for one training step.
//!
//!     cargo run --release --example conv_layers -- [pix2pix|cyclegan|dcgan|unet|unet3d|groups] [threads] [repetitions] [name]
//!
//! Every figure is the minimum over the repetitions; with one thread it is processor time, so that other programs do not
//! count, else wall-clock time. Before each call the operands are pushed out of the caches, as the
//! rest of a training step does.

use gan::ops::conv::cpu;
use gan::ops::conv::geometry::ConvGeometry;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A layer and how often a step calls its forward pass, input gradient and weight gradient.
struct Layer {
    name: String,
    geometry: ConvGeometry,
    calls: [usize; 3],
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let recipe = args.first().map_or("pix2pix", String::as_str);
    let number = |i: usize, default| args.get(i).map_or(default, |a| a.parse().expect("a number"));
    let (threads, repetitions): (usize, usize) = (number(1, 2), number(2, 7));
    let mut layers = match recipe {
        "pix2pix" => pix2pix(),
        "cyclegan" => cyclegan(),
        "dcgan" => dcgan(),
        "unet" => unet(2, 32, 64, 64),
        "unet3d" => unet(3, 1, 64, 32),
        "groups" => groups(),
        other => panic!("no layers for {other}"),
    };
    layers.retain(|layer| args.get(3).is_none_or(|name| layer.name.contains(name.as_str())));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
    pool.install(|| table(&layers, threads, repetitions));
}

fn table(layers: &[Layer], threads: usize, repetitions: usize) {
    let peak = peak() * threads as f64;
    println!("{threads} threads; peak of the multiply-add loop {peak:.0} GFLOP/s");
    println!(
        "{:<8} {:>34} {:>9} {:>26} {:>26} {:>26}",
        "layer", "n x c x input -> k, kernel", "GFLOP", "forward", "input gradient", "weight gradient"
    );
    let (mut total, mut flops) = ([0.0; 3], 0.0);
    let mut flush = vec![0f32; 24 << 20];
    for layer in layers {
        let g = &layer.geometry;
        let x = numbers(g.n * g.in_pixels() * g.c);
        let w = numbers(g.k * g.taps() * g.group_c());
        let dy = numbers(g.n * g.out_pixels() * g.k);
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let mut best = [f64::INFINITY; 3];
        for _ in 0..repetitions {
            for (direction, best) in best.iter_mut().enumerate() {
                flush.iter_mut().for_each(|v| *v += 1.0);
                let start = now(threads);
                match direction {
                    0 => cpu::forward(g, &x, &w, &mut y),
                    1 => cpu::grad_x(g, &dy, &w, &mut dx),
                    _ => cpu::grad_w(g, &x, &dy, &mut dw),
                }
                *best = best.min((now(threads) - start).as_secs_f64() * 1e3);
            }
        }
        let gflop = g.flops() as f64 / 1e9;
        let shape = format!("{}x{}x{:?} -> {}, {:?}/{:?}", g.n, g.c, g.input, g.k, g.kernel, g.stride);
        print!("{:<8} {shape:>34} {gflop:>9.3}", layer.name);
        for direction in 0..3 {
            let (ms, calls) = (best[direction], layer.calls[direction]);
            print!(" {ms:>8.2} ms {:>5.0} {:>3.0}% x{calls:<2}", gflop / ms * 1e3, gflop / ms * 1e5 / peak);
            total[direction] += ms * calls as f64;
            flops += gflop * calls as f64;
        }
        println!();
    }
    let sum: f64 = total.iter().sum();
    println!(
        "a step: forward {:.1} + input gradients {:.1} + weight gradients {:.1} = {sum:.1} ms; {flops:.1} GFLOP, {:.0} GFLOP/s, {:.0} % of peak",
        total[0],
        total[1],
        total[2],
        flops / sum * 1e3,
        flops / sum * 1e5 / peak
    );
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1013) as f32 / 1013.0 - 0.5).collect()
}

/// Processor time of the only thread, or the time of day.
fn now(threads: usize) -> Duration {
    let clock = if threads == 1 { ClockId::ProcessCPUTime } else { ClockId::Monotonic };
    Duration::try_from(clock_gettime(clock)).expect("clocks do not run backwards past zero")
}

/// Multiply-adds of one thread in cache, by the best of several products: what a share is a share of.
fn peak() -> f64 {
    use gan::device::cpu::blocks::BlockMut;
    use gan::device::cpu::tile::{self, Left};
    let (m, n, depth) = (tile::panel_rows::<f32>(), tile::panel_width::<f32>(), 128);
    let (a, b) = (numbers(tile::left_panels_len::<f32>(m, depth)), numbers(tile::right_len::<f32>(n, depth)));
    let mut out = vec![0f32; m * n];
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = now(1);
        for _ in 0..200 {
            tile::multiply((m, n, depth), Left::Panels(&a), &b, &mut BlockMut::new(&mut out, n), None, false);
        }
        best = best.min((now(1) - start).as_secs_f64());
    }
    (200 * 2 * m * n * depth) as f64 / best / 1e9
}

fn layer(
    name: impl Into<String>,
    dims: usize,
    n: usize,
    (c, size, k): (usize, usize, usize),
    (kernel, stride, padding): (usize, usize, usize),
    calls: [usize; 3],
) -> Layer {
    let axes = |v: usize, one: usize| [if dims == 3 { v } else { one }, v, v];
    let output = (size + 2 * padding - kernel) / stride + 1;
    Layer {
        name: name.into(),
        calls,
        geometry: ConvGeometry {
            n,
            c,
            k,
            groups: 1,
            input: axes(size, 1),
            output: axes(output, 1),
            kernel: axes(kernel, 1),
            stride: axes(stride, 1),
            padding: axes(padding, 0),
            dilation: [1; 3],
        },
    }
}

/// The U-Net generator at 256x256 and the 70x70 patch discriminator, batch 1. A layer `up` is a transposed convolution:
/// its forward pass is this geometry's input gradient and the other way round.
fn pix2pix() -> Vec<Layer> {
    let ch: Vec<usize> = (0..8).map(|i| 64 * 8.min(1 << i)).collect();
    let mut layers = Vec::new();
    for i in 0..8 {
        let c = if i == 0 { 1 } else { ch[i - 1] };
        let calls = [1, usize::from(i > 0), 1];
        layers.push(layer(format!("down.{i}"), 2, 1, (c, 256 >> i, ch[i]), (4, 2, 1), calls));
    }
    for i in (0..8).rev() {
        let k = if i == 7 { ch[i] } else { 2 * ch[i] };
        let c = if i == 0 { 1 } else { ch[i - 1] };
        layers.push(layer(format!("up.{i}"), 2, 1, (c, 256 >> i, k), (4, 2, 1), [1, 1, 1]));
    }
    // The discriminator sees fake and real, then the fake again for the generator, which needs no weight gradients.
    let patch = [(2, 256, 64, 2), (64, 128, 128, 2), (128, 64, 256, 2), (256, 32, 512, 1), (512, 31, 1, 1)];
    for (i, (c, size, k, stride)) in patch.into_iter().enumerate() {
        let calls = [3, if i == 0 { 1 } else { 3 }, 2];
        layers.push(layer(format!("patch.{i}"), 2, 1, (c, size, k), (4, stride, 1), calls));
    }
    layers
}

/// One pass through a ResNet generator with nine blocks at 256x256 (reflection padding is a separate operation).
fn cyclegan() -> Vec<Layer> {
    vec![
        layer("first", 2, 1, (1, 262, 64), (7, 1, 0), [1; 3]),
        layer("down.1", 2, 1, (64, 256, 128), (3, 2, 1), [1; 3]),
        layer("down.2", 2, 1, (128, 128, 256), (3, 2, 1), [1; 3]),
        layer("block", 2, 1, (256, 66, 256), (3, 1, 0), [18; 3]),
        layer("up.1", 2, 1, (128, 128, 256), (3, 2, 1), [1; 3]),
        layer("up.2", 2, 1, (64, 256, 128), (3, 2, 1), [1; 3]),
        layer("last", 2, 1, (64, 262, 1), (7, 1, 0), [1; 3]),
    ]
}

/// One pass through DCGAN's generator and discriminator at 64x64, batch 64.
fn dcgan() -> Vec<Layer> {
    let mut layers = vec![layer("gen.0", 2, 64, (512, 4, 100), (4, 1, 0), [1; 3])];
    for (i, (c, size, k)) in
        [(256, 8, 512), (128, 16, 256), (64, 32, 128), (1, 64, 64)].into_iter().enumerate()
    {
        layers.push(layer(format!("gen.{}", i + 1), 2, 64, (c, size, k), (4, 2, 1), [1; 3]));
    }
    layers.push(layer("dis.4", 2, 64, (512, 4, 1), (4, 1, 0), [1; 3]));
    layers
}

/// One pass through a U-Net of 3-wide kernels.
fn unet(dims: usize, n: usize, size: usize, base: usize) -> Vec<Layer> {
    let mut layers = Vec::new();
    for i in 0..5 {
        let (size, k) = (size >> i, base << i);
        let c = if i == 0 { 1 } else { k / 2 };
        layers.push(layer(format!("down.{i}a"), dims, n, (c, size, k), (3, 1, 1), [1; 3]));
        layers.push(layer(
            format!("down.{i}b"),
            dims,
            n,
            (k, size, k),
            (3, 1, 1),
            [1 + usize::from(i < 4); 3],
        ));
        if i < 4 {
            layers.push(layer(format!("up.{i}"), dims, n, (k, size, 2 * k), (2, 2, 0), [1; 3]));
            layers.push(layer(format!("up.{i}a"), dims, n, (2 * k, size, k), (3, 1, 1), [1; 3]));
        }
    }
    layers.push(layer("head", dims, n, (base, size, 1), (1, 1, 0), [1; 3]));
    layers
}

/// The same layer with more and more groups, down to depthwise, and depthwise layers as networks have them.
fn groups() -> Vec<Layer> {
    let grouped = |name: &str, dims, (c, size, k), (kernel, stride), groups| {
        let mut layer = layer(name, dims, 1, (c, size, k), (kernel, stride, kernel / 2), [1; 3]);
        layer.geometry.groups = groups;
        layer
    };
    let mut layers: Vec<Layer> = [1, 4, 8, 16, 32, 64, 128, 256]
        .map(|groups| grouped(&format!("{}-wide", 256 / groups), 2, (256, 64, 256), (3, 1), groups))
        .into();
    layers.extend([
        grouped("s2", 2, (256, 64, 256), (3, 2), 256),
        grouped("x2", 2, (128, 64, 256), (3, 1), 128),
        grouped("7x7", 2, (96, 64, 96), (7, 1), 96),
        grouped("3d", 3, (64, 32, 64), (3, 1), 64),
        grouped("odd", 2, (99, 64, 99), (3, 1), 99),
    ]);
    layers
}
