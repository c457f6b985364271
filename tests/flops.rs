//! The FLOPs that are counted of training steps are, to the last one, those that PyTorch counts when it runs the same
//! steps: convolutions and matrix products, a multiply-add as two, taps on padding included.
//!
//! `flops.json` holds PyTorch's counts and what made them. With `GAN_PEERS` naming the folder of `torch_peer.py`, and
//! `GAN_PYTHON` a Python with PyTorch, the smaller ones are counted anew.

#![allow(missing_docs)]

mod common;
#[path = "gpu/timed.rs"]
mod timed;
#[path = "common/work.rs"]
mod work;

use gan::compile::plan::{Passes, plan_with};
use gan::methods::Shapes;
use gan::recipe::Recipe;
use gan::run::programs::trace_step;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn fixture() -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("flops.json")).expect("JSON");
    all["steps"].as_array().expect("a list").clone()
}

fn text(v: &Value) -> &str {
    v.as_str().expect("text")
}

/// FLOPs of products in a whole training step: that of a critic's family with all updates of the critic.
fn counted(case: &Value) -> u64 {
    let set: Vec<String> =
        case["set"].as_array().expect("a list").iter().map(|s| text(s).to_string()).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes").join(text(&case["recipe"]));
    let recipe = Recipe::load(&path, &set).unwrap_or_else(|e| panic!("{e}"));
    let method = recipe.method().unwrap_or_else(|e| panic!("{e}"));
    let edge = case["size"].as_u64().expect("a number") as usize;
    let shapes = Shapes::new(
        &recipe.data,
        recipe.train.batch,
        recipe.data.patch.map_or(vec![edge; 2], |p| p.to_vec()),
    );
    let specs = method.networks(&shapes.size).unwrap_or_else(|e| panic!("{e}"));
    let parts: Vec<u64> = trace_step(&recipe, &method, &specs, &shapes)
        .iter()
        .map(|step| {
            let products = |fuse, mixed| {
                let plan = plan_with(step.graph(), &step.outputs(), Passes { fuse, mixed });
                plan.unwrap_or_else(|e| panic!("{e}")).cost().products
            };
            let plain = products(false, false);
            assert_eq!(
                [products(true, false), products(true, true)],
                [plain; 2],
                "what is fused is counted as well"
            );
            plain
        })
        .collect();
    // Late in the training, where every step is like the others.
    method.runs(u64::from(u32::MAX)).iter().map(|run| parts[run.part]).sum()
}

/// FLOPs and bytes of a step are those of the step, not of who computes it: fusion and mixed precision, which decide what
/// is launched, change neither, and every FLOP has its place in one of the operations that are launched.
#[test]
fn every_device_and_precision_counts_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the recipes").flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let recipe = Recipe::load(&path, &[]).unwrap_or_else(|e| panic!("{e}"));
        let method = recipe.method().unwrap_or_else(|e| panic!("{e}"));
        let size = recipe.data.patch.map_or(recipe.data.canvas.unwrap_or([96, 128]).to_vec(), |p| p.to_vec());
        let shapes = Shapes::new(&recipe.data, recipe.train.batch, size);
        let specs = method.networks(&shapes.size).unwrap_or_else(|e| panic!("{e}"));
        for (part, step) in trace_step(&recipe, &method, &specs, &shapes).iter().enumerate() {
            let plan = |fuse, mixed| {
                let plan = plan_with(step.graph(), &step.outputs(), Passes { fuse, mixed });
                plan.unwrap_or_else(|e| panic!("{e}"))
            };
            let traced = plan(false, false).work;
            assert!(traced.flops > traced.products && traced.products > 0 && traced.bytes > 0);
            for (fuse, mixed) in [(false, false), (true, false), (true, true)] {
                let plan = plan(fuse, mixed);
                let own = plan.cost();
                if plan.work != traced || (own.flops, own.products) != (traced.flops, traced.products) {
                    wrong.push(format!(
                        "{} part {part}, fused {fuse}, mixed {mixed}: {own:?} of {:?}, traced {traced:?}",
                        recipe.name, plan.work
                    ));
                }
                // What is moved is less, the more is fused and halved.
                assert!(!fuse || own.bytes < traced.bytes, "{}: {own:?} {traced:?}", recipe.name);
            }
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn flops_are_those_that_pytorch_executes() {
    let mut wrong = Vec::new();
    for case in fixture() {
        let (own, peer) = (counted(&case), case["flop"].as_u64().expect("a number"));
        let batch = case["batch"].as_u64().expect("a number");
        // The gradient penalty wants the derivative of the critic's score and not the score: with each of the five updates
        // the plan leaves out the critic's last convolution (512 channels, 4 x 4, to one number), which PyTorch runs.
        let unread = if case["peer"] == "wgan-gp" { 5 * batch * 2 * 512 * 4 * 4 } else { 0 };
        if own + unread != peer {
            wrong.push(format!(
                "{} {} batch {batch}: {own}, PyTorch {peer} (of which nobody reads {unread})",
                case["peer"], case["size"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What `tests/gpu` times beside PyTorch is the peer's step: the fixture's FLOPs, for as many images of as many pixels (a
/// fully convolutional network's grow with them).
#[test]
fn the_steps_that_are_compared_are_the_peers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    for (file, set, peer, size, batch) in timed::TIMED {
        let own = work::of_step(&folder.join(file), set, size, batch).unwrap_or_else(|e| panic!("{e}"));
        let scale = |case: &Value| {
            let [edge, n] = ["size", "batch"].map(|key| case[key].as_u64().expect("a number") as f64);
            let (axes, convolutional) = (if peer == "unet3d" { 3 } else { 2 }, peer.starts_with("unet"));
            let known = text(&case["peer"]) == peer && (edge == size as f64 || convolutional);
            known.then(|| {
                (size as f64 / edge).powi(axes) * batch as f64 / n * case["flop"].as_f64().expect("FLOPs")
            })
        };
        let peers = fixture().iter().filter_map(scale).next_back().unwrap_or_else(|| panic!("no {peer}"));
        timed::same_work(peer, own.products as f64, peers).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Another network is not set beside it: the 3D U-Net as its paper has it, of two inputs, has three times the FLOPs.
#[test]
fn unequal_work_is_not_compared() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/unet3d-tumour.toml");
    let [own, other] = [&["model.network.widths=\"after-pooling\""][..], &[]].map(|set| {
        let small = ["data.patch=[32, 32, 32]", "model.network.base=32", "model.network.downs=4"];
        work::of_step(&path, &[&small, set].concat(), 32, 1).unwrap_or_else(|e| panic!("{e}")).products as f64
    });
    let why = timed::same_work("unet3d", other, own).expect_err("other networks");
    assert!(why.starts_with("unet3d: not compared, for the steps differ"), "{why}");
    assert!(timed::same_work("a", 100.0, 101.9).is_ok() && timed::same_work("a", 100.0, 102.1).is_err());
    assert!(timed::same_work("a", 100.0, f64::NAN).is_err() && timed::same_work("a", 0.0, 0.0).is_err());
}

/// The fixture says what PyTorch says.
#[test]
fn the_fixture_is_pytorchs() {
    let Some(peers) = std::env::var_os("GAN_PEERS") else {
        eprintln!("not checked: GAN_PEERS names no folder with torch_peer.py");
        return;
    };
    let python = std::env::var("GAN_PYTHON").unwrap_or_else(|_| "python3".into());
    if !Command::new(&python).args(["-c", "import torch"]).output().is_ok_and(|o| o.status.success()) {
        eprintln!("not checked: {python} has no PyTorch");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("peer.json");
    // Those that take seconds.
    for case in fixture().iter().filter(|c| c["flop"].as_u64().is_some_and(|f| f < 20_000_000_000)) {
        let mut command = Command::new(&python);
        command.arg(Path::new(&peers).join("torch_peer.py"));
        command.args(["--recipe", text(&case["peer"]), "--mode", text(&case["mode"])]);
        command.args(["--size", &case["size"].to_string(), "--batch", &case["batch"].to_string()]);
        command.args(["--device", "cpu", "--warmup", "1", "--steps", "1", "--check-flops", "--json"]);
        let ran = common::finish({
            command.arg(&out);
            command
        });
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let found: Value = serde_json::from_slice(&std::fs::read(&out).expect("written")).expect("JSON");
        assert_eq!(found["check_flops"]["executed_flop"], case["flop"], "{case}");
    }
}
