//! Launch of `kernels/optim.cu`.

use super::{OptimiserStep, Rule};
use crate::device::launch::{GpuTraits, Launch, LaunchArg, Specialisation, count};

/// A rule's switches and numbers, as the kernel names them.
#[derive(Default)]
struct Settings {
    rule: &'static str,
    amsgrad: bool,
    centered: bool,
    nesterov: bool,
    beta1: f64,
    beta2: f64,
    eps: f64,
    decay: f64,
    momentum: f64,
    dampening: f64,
    lr_decay: f64,
    initial: f64,
}

impl Settings {
    fn of(rule: Rule) -> Self {
        let none = Settings::default();
        match rule {
            Rule::Adam { beta1, beta2, eps, weight_decay, amsgrad } => {
                Settings { rule: "ADAM", beta1, beta2, eps, decay: weight_decay, amsgrad, ..none }
            }
            Rule::AdamW { beta1, beta2, eps, weight_decay, amsgrad } => {
                Settings { rule: "ADAMW", beta1, beta2, eps, decay: weight_decay, amsgrad, ..none }
            }
            Rule::RmsProp { alpha, eps, momentum, centered, weight_decay } => Settings {
                rule: "RMSPROP",
                beta2: alpha,
                eps,
                momentum,
                centered,
                decay: weight_decay,
                ..none
            },
            Rule::Sgd { momentum, dampening, nesterov, weight_decay } => {
                Settings { rule: "SGD", momentum, dampening, nesterov, decay: weight_decay, ..none }
            }
            Rule::Adagrad { lr_decay, eps, initial_accumulator, weight_decay } => Settings {
                rule: "ADAGRAD",
                lr_decay,
                eps,
                initial: initial_accumulator,
                decay: weight_decay,
                ..none
            },
        }
    }
}

/// The step over the whole store, which is updated in place.
pub(super) fn step(op: &OptimiserStep, gpu: &GpuTraits) -> Launch {
    let s = Settings::of(op.rule);
    let constants = [
        ("AMSGRAD", s.amsgrad),
        ("CENTERED", s.centered),
        ("MOMENTUM", s.momentum != 0.0),
        ("NESTEROV", s.nesterov),
        ("SHADOW", false),
        ("ZERO_GRADIENT", false),
    ];
    let constants = constants.map(|(name, on)| format!("{name}={}", u8::from(on)));
    let numbers = [s.beta1, s.beta2, s.eps, s.decay, s.momentum, s.dampening, s.lr_decay, s.initial];
    let args = vec![
        LaunchArg::Bytes(bytemuck::cast_slice(&numbers).to_vec()),
        count(op.n),
        LaunchArg::Input(2),
        LaunchArg::Input(3),
        LaunchArg::Output,
        LaunchArg::Input(1),
        LaunchArg::Null,
    ];
    let rule = [format!("RULE={}", s.rule)].into_iter().chain(constants);
    Launch::new(Specialisation::new("optim.cu", rule), "optimise", [gpu.blocks(op.n), 1, 1], args)
}
