//! The losses of the manifest.

use crate::fixture::Layout;
use crate::trace::{Out, Trace};
use gan::graph::Var;
use gan::objectives::adversarial::{
    GanMode, bce_with_logits, bce_with_logits_constant, gradient_penalty, interpolate, least_squares,
};
use gan::objectives::pixel::{charbonnier, kl_gaussian, l1, l2, psnr, smooth_l1, total_variation};
use gan::objectives::segmentation::{CrossEntropy, cross_entropy, dice_sigmoid, dice_softmax, focal_sigmoid};
use gan::objectives::ssim::Ssim;
use gan::ops::conv::ConvSpec;

/// Traces a loss, or `None` if the case is about something else.
pub fn build(t: &Trace) -> Option<Vec<Out>> {
    let pair = |f: &dyn Fn(&Var, &Var) -> Var| f(&t.image("x"), &t.image("y"));
    let loss = match t.case.op.as_str() {
        "bce_with_logits" => match t.case.number("target") {
            Some(target) => bce_with_logits_constant(&t.image("x"), target),
            // The weight broadcasts against PyTorch's order of axes.
            None => bce_with_logits(
                &t.plain("x"),
                &t.plain("t"),
                t.optional("pos_weight", Layout::Plain).as_ref(),
            ),
        },
        "mse" => match t.case.number("target") {
            Some(target) => least_squares(&t.image("x"), target),
            None => pair(&l2),
        },
        "hinge_d" => discriminator(t, GanMode::Hinge),
        "wgan_d" => discriminator(t, GanMode::Wgan),
        "l1" => pair(&l1),
        "smooth_l1" => pair(&|x, y| smooth_l1(x, y, t.number("beta"))),
        "charbonnier" => pair(&|x, y| charbonnier(x, y, t.number("eps"))),
        "dice_sigmoid" => dice_sigmoid(&t.image("x"), &t.image("t"), t.number("smooth")),
        "dice_softmax" => dice_softmax(&t.image("x"), &t.plain("t"), t.number("smooth")),
        "cross_entropy" => {
            let options = CrossEntropy {
                ignore: t.case.attrs["ignore_index"].as_i64(),
                weights: t.case.has("weight").then(|| t.tensor("weight").data.clone()),
                smoothing: t.case.number("label_smoothing").unwrap_or(0.0),
            };
            cross_entropy(&t.image("x"), &t.plain("t"), &options)
        }
        "focal_sigmoid" => {
            focal_sigmoid(&t.image("x"), &t.image("t"), t.number("gamma"), t.case.number("alpha"))
        }
        "total_variation" => total_variation(&t.image("x")),
        "kl_gaussian" => kl_gaussian(&t.plain("mu"), &t.plain("logvar")),
        "ssim" => {
            let ssim = Ssim {
                window: t.number("window") as usize,
                sigma: t.number("sigma"),
                range: t.number("data_range"),
                k: [t.number("k1"), t.number("k2")],
            };
            return Some(vec![Out::new("ssim", Layout::Plain, &pair(&|x, y| ssim.index(x, y)))]);
        }
        "psnr" => {
            let value = pair(&|x, y| psnr(x, y, t.number("data_range")));
            return Some(vec![Out::new("psnr", Layout::Plain, &value)]);
        }
        "wgan_gp_penalty" => return Some(penalty(t)),
        _ => return None,
    };
    Some(vec![Out::new("loss", Layout::Plain, &loss)])
}

fn discriminator(t: &Trace, mode: GanMode) -> Var {
    mode.d_real(&t.plain("real")).add(&mode.d_fake(&t.plain("fake")))
}

/// The critic of the fixture: two strided convolutions with leaky ReLU, and one that leaves a number per image.
fn penalty(t: &Trace) -> Vec<Out> {
    let weights: Vec<(Var, Var)> =
        (1..=3).map(|i| (t.image(&format!("w{i}")), t.plain(&format!("b{i}")))).collect();
    let critic = |x: &Var| {
        let layer = |x: &Var, i: usize, spec: &ConvSpec| x.conv(&weights[i].0, spec).add(&weights[i].1);
        let down = ConvSpec::new(2, 2, 1);
        let x = layer(x, 0, &down).leaky_relu(0.2);
        let x = layer(&x, 1, &down).leaky_relu(0.2);
        layer(&x, 2, &ConvSpec::new(2, 1, 0))
    };
    let mix = interpolate(&t.image("alpha"), &t.image("real"), &t.image("fake"));
    let (penalty, norms) = gradient_penalty(critic, &mix);
    vec![
        Out::new("loss", Layout::Plain, &penalty.mul_scalar(t.number("weight"))),
        Out::aside("grad_norm", Layout::Plain, &norms),
    ]
}
