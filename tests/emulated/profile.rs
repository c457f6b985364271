//! The CUDA half of a profile, with the emulator for a GPU: every launch of a training step timed by marks around it.

use crate::device::Emulator;
use gan::device::launch::Math;
use gan::exec::States;
use gan::exec::cost::{Bandwidth, Peaks};
use gan::exec::gpu::{DeviceStates, GpuProgram};
use gan::methods::Shapes;
use gan::profile::gpu::{GpuTarget, Timing};
use gan::profile::measure::{Effort, Work, measure};
use gan::profile::report::Subject;
use gan::profile::summary::summarise;
use gan::profile::target::Target;
use gan::profile::{html, text, trace};
use gan::recipe::Recipe;
use gan::run::programs::trace_step;
use gan_emu::Mode;

/// Few kernels, so that few are built.
const RECIPE: &str = r#"
name = "tiny"
[data]
phantom = { dir = "unused", subjects = 4, size = [16, 16, 16], spacing = 8.0 }
input = ["t1"]
target = ["t1"]
[model]
kind = "supervised"
[model.network]
kind = "srcnn"
widths = [4, 4]
kernels = [3, 1, 3]
[loss]
kind = "distance"
distance = "l2"
[train]
batch = 2
[log]
every = 2
"#;

#[test]
fn every_launch_of_a_step_is_timed_and_told() {
    let recipe = Recipe::parse(RECIPE, "tiny.toml", &[]).unwrap_or_else(|e| panic!("{e}"));
    let method = recipe.method().unwrap_or_else(|e| panic!("{e}"));
    let shapes = Shapes::new(&recipe.data, recipe.train.batch, vec![32, 32]);
    let specs = method.networks(&shapes.size).unwrap_or_else(|e| panic!("{e}"));
    let mut states = States::new();
    for spec in &specs {
        spec.initialise::<f32>(&mut states, 1, recipe.optimiser.rule.slots());
    }
    let emulator = Emulator::new(Mode::all()[0], Math::Fma);
    let there = DeviceStates::new(&emulator, &states).unwrap_or_else(|e| panic!("{e}"));
    let steps = trace_step(&recipe, &method, &specs, &shapes);
    let bind = |s: &gan::methods::step::StepBuilder| {
        GpuProgram::new(&emulator, s.graph(), &s.outputs(), &there).unwrap_or_else(|e| panic!("{e}"))
    };
    let programs: Vec<_> = steps.iter().map(bind).collect();
    let launches = programs[0].launched().unwrap_or_else(|e| panic!("{e}")).len();
    let mut target = GpuTarget::new(programs, there, 1000, Timing::Auto).unwrap_or_else(|e| panic!("{e}"));
    let n = shapes.input().numel();
    let mut batches = 0;
    let mut next = || {
        batches += 1;
        Ok((vec![0.5f32; n], vec![0.25f32; n]))
    };
    let losses = vec![vec!["loss/l2".to_string()]];
    let mut work =
        Work { recipe: &recipe, method: &method, specs: &specs, size: &shapes.size, losses, next: &mut next };
    let effort = Effort { warm_up: 2, steps: 3, traced: 2 };
    let measured = measure(&mut target, &mut work, effort).unwrap_or_else(|e| panic!("{e}"));
    let peaks = Peaks { flops_per_s: 1e12, bandwidth: vec![Bandwidth { bytes: 1 << 30, bytes_per_s: 1e12 }] };
    let subject = Subject {
        recipe: "tiny".into(),
        batch: 2,
        size: vec![32, 32],
        device: "cuda:0".into(),
        on: "the emulator".into(),
        precision: "f32".into(),
        threads: 1,
    };
    let p = summarise(&target, &work, &measured, subject, peaks).unwrap_or_else(|e| panic!("{e}"));
    let trace = trace::trace(&target, &work, &measured).unwrap_or_else(|e| panic!("{e}"));
    drop(work);
    assert_eq!(batches, 2 + 3 + 3, "warm-up, steps as in training, steps launch by launch");

    assert_eq!((measured.plain.len(), measured.watched.len(), measured.shared_steps), (3, 3, 3));
    assert_eq!(p.work.calls, launches as f64, "each launch stands in one row");
    let plan = target.plan(0);
    assert!(launches >= plan.steps.len(), "{launches} launches of {} steps", plan.steps.len());
    assert_eq!(p.work.flops, plan.cost().flops);
    let told = |f: &dyn Fn(&gan::profile::report::Kernel) -> u64| -> u64 {
        p.kernels.iter().map(|k| f(k) * k.calls as u64).sum()
    };
    assert_eq!(
        told(&|k| k.flops),
        plan.cost().flops,
        "no FLOP is told twice where a step makes several launches"
    );
    assert_eq!(told(&|k| k.bytes), plan.cost().bytes);
    for k in &p.kernels {
        let gpu = k.gpu.as_ref().expect("launched");
        assert!(
            k.kernel.is_some() && k.variant.is_some() && gpu.block > 0 && !gpu.grid.contains(&0),
            "{k:?}"
        );
        assert_eq!((gpu.registers, gpu.spilled), (64, 0));
        assert!(gpu.shared >= 1024 && gpu.occupancy.is_some_and(|o| o > 0.0 && o <= 1.0), "{gpu:?}");
        assert!(k.median_us > 0.0 && k.p95_us >= k.median_us && gpu.gap_us >= 0.0, "{k:?}");
    }
    // Calls, and what lies between them, fill the time from the first mark to the last.
    let s = &p.shares;
    assert!(s.compute_ms > 0.0 && s.copies_ms > 0.0, "{s:?}");
    let parts = s.compute_ms + s.copies_ms + s.idle_data_ms + s.idle_host_ms + s.idle_synchronisation_ms;
    assert!((parts - s.step_ms).abs() < 1e-9 * s.step_ms, "{s:?}");
    assert_eq!(p.memory.other_bytes, 1000);

    let events = trace["traceEvents"].as_array().expect("a list");
    let launched: Vec<_> = events.iter().filter(|e| e["args"]["grid"].is_array()).collect();
    assert_eq!(launched.len(), 2 * launches, "two steps are traced");
    assert!(launched.iter().all(|e| e["args"]["registers"] == 64 && e["args"]["variant"].is_string()));
    let table = text::whole(&p);
    for word in ["events around every launch", "occ.", "spills", "gap us"] {
        assert!(table.contains(word), "{word} is missing in\n{table}");
    }
    assert!(html::page(&p).contains("\"grid\""));
}
