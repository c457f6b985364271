//! The operators of the manifest.

use crate::fixture::Layout;
use crate::trace::{Out, Trace};
use gan::graph::Var;
use gan::nn::spectral::spectral_norm;
use gan::ops::concat::concat;
use gan::ops::conv::ConvSpec;
use gan::ops::max_pool::Window;
use gan::ops::norm::NormKind;
use gan::ops::optimiser::RunningStats;
use gan::ops::pad_mode::PadMode;
use gan::ops::resample::AxisMap;

/// Traces an operator, or `None` if the case is about something else.
pub fn build(t: &Trace) -> Option<Vec<Out>> {
    activation(t).or_else(|| normalisation(t)).or_else(|| spatial(t)).or_else(|| tensor(t))
}

fn image(y: &Var) -> Vec<Out> {
    vec![Out::new("y", Layout::Image, y)]
}

fn plain(y: &Var) -> Vec<Out> {
    vec![Out::new("y", Layout::Plain, y)]
}

/// Functions of one value.
fn activation(t: &Trace) -> Option<Vec<Out>> {
    let f: &dyn Fn(&Var) -> Var = match t.case.op.as_str() {
        "relu" => &Var::relu,
        "leaky_relu" => &|x| x.leaky_relu(t.number("negative_slope")),
        "tanh" => &Var::tanh,
        "sigmoid" => &Var::sigmoid,
        "softplus" => &|x| x.softplus_beta(t.case.number("beta").unwrap_or(1.0)),
        "elu" => &|x| x.elu(t.number("alpha")),
        "selu" => &Var::selu,
        "silu" => &Var::silu,
        "gelu" if t.case.attrs["approximate"] != "tanh" => &Var::gelu,
        "gelu" | "gelu_tanh" => &Var::gelu_tanh,
        "mish" => &Var::mish,
        "hardtanh" => &|x| x.hardtanh(t.number("min"), t.number("max")),
        "hardswish" => &Var::hardswish,
        "exp" => &Var::exp,
        "abs" => &Var::abs,
        "logsigmoid" => &Var::logsigmoid,
        "prelu" => &|x| x.prelu(&t.plain("w")),
        "dropout_with_mask" => &|x| x.dropout_with_mask(&t.image("mask"), t.number("p")),
        "softmax" => &|x| x.softmax(axis(t, x)),
        "log_softmax" => &|x| x.log_softmax(axis(t, x)),
        _ => return None,
    };
    Some(image(&f(&t.image("x"))))
}

/// The attribute `dim`, which counts PyTorch's axes, as an axis of an image on our side.
fn axis(t: &Trace, x: &Var) -> usize {
    let rank = x.rank() as i64;
    let dim = t.case.attrs["dim"].as_i64().expect("an axis").rem_euclid(rank);
    match dim {
        0 => 0,
        1 => rank as usize - 1,
        d => d as usize - 1,
    }
}

fn normalisation(t: &Trace) -> Option<Vec<Out>> {
    let eps = t.case.number("eps").unwrap_or(1e-5);
    let affine = || t.optional("w", Layout::Plain).zip(t.optional("b", Layout::Plain));
    let kind = match t.case.op.as_str() {
        "batch_norm" => return Some(batch_norm(t, eps)),
        "instance_norm" => NormKind::Instance,
        "group_norm" => NormKind::Group(t.number("groups") as usize),
        "layer_norm" => {
            let x = t.plain("x");
            let first = x.rank() - t.extents("normalized_shape", 1).len();
            return Some(plain(&x.layer_norm(first, eps, affine().as_ref().map(|(w, b)| (w, b)))));
        }
        "spectral_norm" => {
            let w = t.image("w");
            let rows = t.tensor("w").shape[0];
            // The vector's elements stand in the order of the weight's axes: PyTorch's come channels first.
            let columns = [&[1], &t.tensor("w").shape[1..]].concat();
            let order: Vec<usize> = (0..columns.len()).filter(|&a| a != 1).chain([1]).collect();
            let mut back = vec![0; order.len()];
            order.iter().enumerate().for_each(|(i, &o)| back[o] = i);
            let v = t.plain("v").reshape(&columns).permute(&order);
            let here = v.shape();
            let v = v.reshape(&[columns.iter().product()]);
            let n = spectral_norm(&w, 0, &t.plain("u"), &v, t.number("iterations") as usize, eps);
            let v = n.v.reshape(&here).permute(&back).reshape(&[columns.iter().product()]);
            assert_eq!(n.u.channels(), rows);
            return Some(vec![
                Out::new("y", Layout::Image, &n.weight),
                Out::aside("sigma", Layout::Plain, &n.sigma),
                Out::aside("u", Layout::Plain, &n.u),
                Out::aside("v", Layout::Plain, &v),
            ]);
        }
        _ => return None,
    };
    let x = t.image("x");
    Some(image(&x.normalize(kind, eps, affine().as_ref().map(|(w, b)| (w, b)))))
}

fn batch_norm(t: &Trace, eps: f64) -> Vec<Out> {
    let x = t.image("x");
    let (w, b) = (t.plain("w"), t.plain("b"));
    let c = x.channels();
    let mut running = concat(&[&t.plain("running_mean"), &t.plain("running_var")], 0);
    let y = if t.case.flag("training").expect("a switch") {
        let stats = x.norm_stats(NormKind::Batch);
        let n = (x.shape().numel() / c) as f64;
        let unbiased_factor = n / (n - 1.0);
        let op = RunningStats { offset: 0, channels: c, momentum: t.number("momentum"), unbiased_factor };
        running = running.apply(op, &[&stats.detach()]);
        x.normalize_with(&stats, NormKind::Batch, eps, Some((&w, &b)), false)
    } else {
        let stats = running.reshape(&[2, c]);
        x.normalize_with(&stats, NormKind::Batch, eps, Some((&w, &b)), true)
    };
    vec![
        Out::new("y", Layout::Image, &y),
        Out::aside("running_mean", Layout::Plain, &running.stretch(0, &[c])),
        Out::aside("running_var", Layout::Plain, &running.stretch(c, &[c])),
    ]
}

/// Convolutions, pooling, padding and resizing.
fn spatial(t: &Trace) -> Option<Vec<Out>> {
    let op = t.case.op.as_str();
    if !t.case.has("x") {
        return None;
    }
    // Operators of a fixed number of dimensions carry it in their name; the tensor tells it as well.
    let dims = t.tensor("x").shape.len().saturating_sub(2);
    let bare = match op.strip_suffix('d').and_then(|s| s.strip_suffix(|c: char| c.is_ascii_digit())) {
        Some(bare) => bare,
        None => op,
    };
    let window = || Window {
        kernel: t.extents("kernel", dims),
        stride: t.extents("stride", dims),
        padding: t.extents("padding", dims),
        ceil: t.case.flag("ceil_mode").unwrap_or(false),
    };
    let x = || t.image("x");
    let y = match bare {
        "conv" | "conv_transpose" => {
            let spec = ConvSpec {
                stride: t.extents("stride", dims),
                padding: t.extents("padding", dims),
                dilation: t.extents("dilation", dims),
                groups: t.number("groups") as usize,
            };
            let y = if bare == "conv" {
                x().conv(&t.image("w"), &spec)
            } else {
                x().conv_transpose(&t.image("w"), &spec, &t.extents("output_padding", dims))
            };
            t.optional("b", Layout::Plain).map_or(y.clone(), |b| y.add(&b))
        }
        "max_pool" => x().max_pool(&window()),
        "avg_pool" => {
            let window = window();
            assert!(!window.ceil, "{}: average pooling has no ceil_mode", t.case.name);
            x().avg_pool(&window, t.case.flag("count_include_pad").unwrap_or(true))
        }
        "adaptive_avg_pool" => {
            let bins = t.extents("output", dims).into_iter().map(|out| AxisMap::Bins { out });
            x().resample(&bins.collect::<Vec<_>>())
        }
        "upsample_nearest" => x().resize_nearest(&size(t, dims)),
        "upsample_linear" => x().resize_linear(&size(t, dims), t.case.flag("align_corners").unwrap_or(false)),
        "pixel_shuffle" => x().pixel_shuffle(t.number("factor") as usize),
        "pad" => x().pad_spatial(&amounts(t, dims), pad_mode(t)),
        _ => return None,
    };
    Some(image(&y))
}

/// The extents to resize to: given, or a multiple of the input's.
fn size(t: &Trace, dims: usize) -> Vec<usize> {
    t.case.extents("size", dims).unwrap_or_else(|| {
        let scale = t.number("scale");
        t.tensor("x").shape[2..].iter().map(|&n| (n as f64 * scale) as usize).collect()
    })
}

/// PyTorch lists (before, behind) pairs from the last axis on; axes that it does not list are not padded.
fn amounts(t: &Trace, dims: usize) -> Vec<(usize, usize)> {
    let flat = t.extents("pad", 2 * dims);
    (0..dims).rev().map(|i| flat.get(2 * i..2 * i + 2).map_or((0, 0), |p| (p[0], p[1]))).collect()
}

fn pad_mode(t: &Trace) -> PadMode {
    match t.case.attrs["mode"].as_str() {
        Some("reflect") => PadMode::Reflect,
        Some("replicate") => PadMode::Replicate,
        Some("circular") => PadMode::Circular,
        Some("constant") => match t.case.number("value").unwrap_or(0.0) {
            0.0 => PadMode::Zero,
            v => PadMode::Constant(v),
        },
        other => panic!("{}: a padding of mode {other:?}", t.case.name),
    }
}

/// Operators on tensors of any kind.
fn tensor(t: &Trace) -> Option<Vec<Out>> {
    let reduced = |f: &dyn Fn(&Var, &[usize]) -> Var| {
        let x = t.plain("x");
        let rank = x.rank();
        let dims = t.case.whole("dims", 1).expect("axes");
        let axes: Vec<usize> = dims.iter().map(|d| d.rem_euclid(rank as i64) as usize).collect();
        // PyTorch drops the axes.
        let kept: Vec<usize> = (0..rank).filter(|a| !axes.contains(a)).map(|a| x.shape()[a]).collect();
        f(&x, &axes).reshape(&kept)
    };
    Some(match t.case.op.as_str() {
        "cat" => {
            let parts: Vec<Var> = ('a'..='z')
                .map(|name| name.to_string())
                .take_while(|name| t.case.has(name))
                .map(|name| t.image(&name))
                .collect();
            image(&concat(&parts.iter().collect::<Vec<_>>(), axis(t, &parts[0])))
        }
        "linear" => plain(&t.plain("x").linear(&t.plain("w"), t.optional("b", Layout::Plain).as_ref())),
        "matmul" => plain(&t.plain("a").matmul(&t.plain("b"), false, false)),
        "scaled_dot_product_attention" => plain(&t.plain("q").attention(&t.plain("k"), &t.plain("v"))),
        "mul_add" => plain(&t.plain("x").mul_add(&t.plain("s"), &t.plain("t"))),
        "reduce_sum" => plain(&reduced(&|x, axes| x.sum(axes))),
        "reduce_mean" => plain(&reduced(&|x, axes| x.mean(axes))),
        "reduce_var" => {
            let unbiased = t.case.flag("unbiased").unwrap_or(true);
            plain(&reduced(&|x, axes| x.variance(axes, unbiased)))
        }
        _ => return None,
    })
}
