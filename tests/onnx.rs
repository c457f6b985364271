//! Networks as ONNX give the same answers in onnxruntime, at sizes that they were not traced at.

#![allow(missing_docs)]

mod common;

use gan::dtype::DType;
use gan::exec::{Program, States};
use gan::export::{Trace, onnx};
use gan::graph::Var;
use gan::methods::step::StepBuilder;
use gan::models::*;
use gan::nn::{Activation, Ctx, NetSpec, Norm};
use gan::ops::unary::Unary;
use gan::rng::Philox;
use std::fs;
use std::path::Path;
use std::process::Command;

type Forward = Box<dyn Fn(&Ctx, &Var) -> Var>;

struct Case {
    name: &'static str,
    forward: Forward,
    multiple: usize,
    /// Two inputs to trace on, then those to compare on; channels last.
    shapes: Vec<Vec<usize>>,
}

fn case(
    name: &'static str,
    multiple: usize,
    shapes: &[&[usize]],
    forward: impl Fn(&Ctx, &Var) -> Var + 'static,
) -> Case {
    Case { name, multiple, shapes: shapes.iter().map(|s| s.to_vec()).collect(), forward: Box::new(forward) }
}

fn forward(network: &dyn Network, cx: &Ctx, x: &Var, channels: usize) -> Var {
    let shape = x.shape();
    network.forward(cx, x, &Wanted { channels, size: shape[1..shape.rank() - 1].to_vec() }).remove(0)
}

fn generate(network: &dyn Network, cx: &Ctx, z: &Var, size: usize) -> Var {
    network.forward(cx, z, &Wanted { channels: 1, size: vec![size; 2] }).remove(0)
}

fn cases() -> Vec<Case> {
    let unet = UnetGenerator { downs: 4, ngf: 2, norm: Norm::Batch, dropout: 0.5 };
    let resnet = ResnetGenerator { blocks: 2, ngf: 2, norm: Norm::Instance, dropout: 0.0 };
    let flat = SegmentationUnet {
        base: 2,
        downs: 2,
        norm: Norm::Layer,
        activation: Activation::Gelu,
        ..Default::default()
    };
    let deep = SegmentationUnet {
        base: 2,
        downs: 2,
        norm: Norm::InstanceAffine,
        activation: Activation::LeakyRelu(0.01),
        deep_supervision: true,
        ..Default::default()
    };
    let patch = PatchGan { layers: 2, ndf: 2, norm: Norm::Batch };
    let dcgan = DcganGenerator { ngf: 2, norm: Norm::Batch };
    let critic = ResidualCritic { dim: 2, norm: Norm::Layer };
    let images: [&[usize]; 4] = [&[2, 32, 48, 1], &[3, 64, 80, 1], &[1, 48, 32, 1], &[2, 37, 21, 1]];
    vec![
        case("unet", 16, &images, move |cx, x| forward(&unet, cx, x, 2)),
        case("resnet", 4, &images, move |cx, x| forward(&resnet, cx, x, 1)),
        case("unet2d", 4, &images, move |cx, x| forward(&flat, cx, x, 3).sigmoid()),
        case(
            "unet3d",
            4,
            &[&[2, 8, 12, 16, 2], &[3, 16, 20, 24, 2], &[1, 12, 8, 8, 2], &[1, 9, 7, 10, 2]],
            move |cx, x| forward(&deep, cx, x, 3).softmax(4),
        ),
        case("srcnn", 1, &images, |cx, x| forward(&Srcnn { widths: [4, 3], ..Default::default() }, cx, x, 1)),
        case("vdsr", 1, &images, |cx, x| forward(&Vdsr { layers: 4, width: 3 }, cx, x, 1)),
        case("denoiser", 1, &images, |cx, x| {
            forward(&Denoiser { layers: 4, width: 3, norm: Norm::Batch }, cx, x, 1)
        }),
        case("patch", 1, &images, move |cx, x| forward(&patch, cx, x, 1)),
        case("dcgan", 1, &[&[2, 6], &[3, 6], &[1, 6], &[5, 6]], move |cx, z| generate(&dcgan, cx, z, 16)),
        case("residual", 1, &[&[2, 6], &[3, 6], &[5, 6]], |cx, z| {
            generate(&ResidualGenerator { dim: 2 }, cx, z, 32)
        }),
        case("critic", 1, &[&[2, 32, 32, 1], &[3, 32, 32, 1], &[5, 32, 32, 1]], move |cx, x| {
            forward(&critic, cx, x, 1)
        }),
    ]
}

fn trace(case: &Case, spec: &NetSpec, shape: &[usize]) -> Trace {
    let step = StepBuilder::new(DType::F32, 0);
    let input = step.graph().input("x", shape);
    let output = (case.forward)(&step.eval(&step.bind(spec, 1)), &input);
    Trace { graph: step.graph().clone(), input, output }
}

fn channels_first(shape: &[usize], x: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let rank = shape.len();
    if rank < 3 {
        return (shape.to_vec(), x.to_vec());
    }
    let (n, c) = (shape[0], shape[rank - 1]);
    let s: usize = shape[1..rank - 1].iter().product();
    let mut out = Vec::new();
    for i in 0..n {
        for j in 0..c {
            out.extend((0..s).map(|k| x[(i * s + k) * c + j]));
        }
    }
    ([&[n, c], &shape[1..rank - 1]].concat(), out)
}

/// Random parameters and running statistics that no default can be mistaken for.
fn weights(spec: &NetSpec) -> States {
    let mut states = States::new();
    spec.initialise::<f32>(&mut states, 1, 1);
    let mut rng = Philox::named(2, &spec.name);
    for t in &spec.params {
        let fan: usize = t.shape.iter().skip(1).product();
        let own = &mut states.get_mut::<f32>(&spec.store_name())[t.offset..t.offset + t.shape.numel()];
        own.iter_mut().for_each(|v| *v = (rng.normal() * 1.2 / (fan as f64).sqrt()) as f32);
    }
    for v in states.get_mut::<f32>(&spec.buffers_name()) {
        *v = rng.range(0.5, 1.5) as f32;
    }
    states
}

fn write(case: &Case, dir: &Path, lines: &mut Vec<String>) {
    let spec = NetSpec::describe(case.name, |cx, graph| {
        (case.forward)(cx, &graph.input("x", case.shapes[0].as_slice()));
    })
    .unwrap();
    let mut states = weights(&spec);
    let traces = [0, 1].map(|i| trace(case, &spec, &case.shapes[i]));
    let metadata = [("about", case.name.to_string())];
    let file = onnx([&traces[0], &traces[1]], &mut states, case.multiple, &metadata)
        .unwrap_or_else(|e| panic!("{}: {e}", case.name));
    fs::write(dir.join(format!("{}.onnx", case.name)), file).unwrap();
    for shape in &case.shapes {
        let t = trace(case, &spec, shape);
        let mut rng = Philox::named(3, &format!("{shape:?}"));
        let x: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
        let mut program = Program::new(&t.graph, &[("y", &t.output)]).unwrap();
        program.run(&mut states, &[("x", &x), ("step", &[0f32; 2])]);
        let y = program.output::<f32>(&mut states, "y");
        let ((xs, x), (ys, y)) = (channels_first(shape, &x), channels_first(&t.output.shape(), &y));
        let text = |s: &[usize]| s.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        for (ending, values) in [("x", &x), ("y", &y)] {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            fs::write(dir.join(format!("{}.{ending}", lines.len())), bytes).unwrap();
        }
        lines.push(format!("{} {} {}", case.name, text(&xs), text(&ys)));
    }
}

/// Needs a Python with onnx and onnxruntime: the one named by GAN_PYTHON, else `python3`.
#[test]
fn onnxruntime_gives_the_same_answers_at_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = Vec::new();
    for case in cases() {
        write(&case, dir.path(), &mut lines);
    }
    fs::write(dir.path().join("cases.txt"), lines.join("\n")).unwrap();
    let python = std::env::var("GAN_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import numpy, onnx, onnxruntime"]).output();
    if !has.is_ok_and(|o| o.status.success()) {
        common::not_checked(&format!(
            "{python} has no onnxruntime; install onnx and onnxruntime or set GAN_PYTHON"
        ));
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/check_onnx.py");
    let out = Command::new(&python).arg(script).arg(dir.path()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && text.contains("onnxruntime agrees"), "{text}");
}

#[test]
fn what_cannot_be_written_without_a_constant_size_is_refused_by_layer() {
    let refused = |forward: &dyn Fn(&Var) -> Var, why: &str| {
        let one = |shape: [usize; 4]| {
            let step = StepBuilder::new(DType::F32, 0);
            let input = step.graph().input("x", shape);
            let output = step.graph().scope("G/head", || forward(&input));
            Trace { graph: step.graph().clone(), input, output }
        };
        let traces = [one([2, 8, 12, 1]), one([3, 16, 20, 1])];
        let e = onnx([&traces[0], &traces[1]], &mut States::new(), 1, &[]).unwrap_err().to_string();
        assert!(e.contains("G/head") && e.contains(why) && e.lines().count() == 1, "{e}");
    };
    refused(&|x| x.mul_scalar(x.shape()[1] as f64), "mul_scalar depends on the size");
    refused(&|x| x.resize_nearest(&[16, 16]), "depends on the size");
    refused(&|x| x.reshape(&[x.shape().numel() / 4, 2, 2]).reshape(&x.shape()), "depends on the size");
    refused(&|x| x.apply(Unary::Inside(0.0, 1.0), &[]), "inside has no counterpart in ONNX");
}

#[test]
fn a_run_is_exported() {
    let dir = common::workshop();
    common::gan(dir.path(), &["train", "r.toml", "--quiet", "--out", "run", "--set", "train.steps=2"]).ok();
    let out =
        common::gan(dir.path(), &["export", "run", "--onnx", "g.onnx", "--safetensors", "g.safetensors"])
            .ok();
    assert_eq!(out.stdout.lines().collect::<Vec<_>>(), ["g.onnx", "g.safetensors"]);
    let model = fs::read(dir.path().join("g.onnx")).unwrap();
    for text in ["preprocessing", "postprocessing", "output * half + centre", "architecture"] {
        assert!(model.windows(text.len()).any(|w| w == text.as_bytes()), "{text}");
    }
    let best = dir.path().join("run/checkpoints/best_net_G.safetensors");
    assert_eq!(fs::read(dir.path().join("g.safetensors")).unwrap(), fs::read(best).unwrap());
    for args in [&["export", "none", "--onnx", "x.onnx"][..], &["export", "run", "--onnx", "no/x.onnx"]] {
        let out = common::gan(dir.path(), args);
        assert_eq!((out.code, out.stderr.trim().lines().count()), (Some(1), 1), "{}", out.stderr);
    }
    assert_eq!(common::gan(dir.path(), &["export", "run"]).code, Some(2));
}
