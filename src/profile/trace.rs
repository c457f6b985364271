//! A trace that Perfetto (<https://ui.perfetto.dev>) and Chrome read: the "Trace Event Format", as a JSON object. A few steps
//! long, so that it stays small.

use super::measure::{Measured, Work};
use super::memory::over_time;
use super::target::{Kind, Target};
use crate::error::Result;
use serde_json::{Value, json};

/// Events at most; what comes later is left out, and the trace says so.
const MOST: usize = 200_000;

const PROCESS: u32 = 1;
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// The trace of the first watched steps.
pub fn trace(target: &dyn Target, work: &Work, measured: &Measured) -> Result<Value> {
    let parts = work.method.parts();
    let calls = (0..parts).map(|part| target.calls(part)).collect::<Result<Vec<_>>>()?;
    let live: Vec<_> = (0..parts).map(|part| over_time(target.plan(part))).collect();
    let zero = measured.traced.iter().map(|s| s.began).fold(f64::INFINITY, f64::min);
    let us = |seconds: f64| 1e6 * seconds;
    let mut events = vec![
        named("process_name", None, "gan profile"),
        named("thread_name", Some(HOST), "host"),
        named("thread_name", Some(DEVICE), if target.asynchronous() { "GPU" } else { "CPU operations" }),
    ];
    let mut left_out = 0;
    for span in &measured.traced {
        if events.len() >= MOST {
            left_out += 1;
            continue;
        }
        let (ts, dur) = (us(span.began - zero), us(span.seconds().max(0.0)));
        let mut complete = |thread: u32, name: &str, category: &str, args: Value| {
            events.push(json!({
                "ph": "X", "pid": PROCESS, "tid": thread, "ts": ts, "dur": dur, "name": name, "cat": category, "args": args
            }));
        };
        let none = json!({});
        match span.kind {
            Kind::Step => complete(HOST, &format!("step {}", span.step), "step", none),
            Kind::Data => complete(HOST, "wait for a batch", "data", none),
            Kind::Prepare => complete(HOST, "prepare inputs", "host", none),
            Kind::Submit => {
                complete(HOST, if target.asynchronous() { "launch" } else { "run" }, "host", none);
            }
            Kind::Read => complete(HOST, "read losses", "synchronisation", none),
            Kind::Copy => complete(DEVICE, "copy inputs", "copy", none),
            Kind::Recording(part) => complete(DEVICE, &format!("program {part}"), "recording", none),
            Kind::Call { part, call } => {
                let it = &calls[part][call];
                let step = &target.plan(part).steps[it.step];
                let mut args = json!({
                    "layer": &*step.path, "phase": &*step.phase, "output": step.output.shape.to_string(),
                    "flops": step.cost.flops, "bytes": step.cost.bytes,
                });
                let mut name = step.op.name();
                if let Some(l) = &it.launched {
                    name = l.launch.kernel;
                    args["operation"] = json!(step.op.name());
                    args["grid"] = json!(l.launch.grid);
                    args["block"] = json!(l.launch.threads);
                    args["registers"] = json!(l.facts.registers);
                    args["variant"] = json!(l.launch.specialisation.constants.join(" "));
                }
                complete(DEVICE, name, &step.phase, args);
                let now = &live[part][it.step];
                events.push(json!({
                    "ph": "C", "pid": PROCESS, "tid": DEVICE, "ts": ts, "name": format!("temporaries of program {part} (bytes)"),
                    "args": {"activations": now.activations, "gradients": now.gradients, "inputs": now.inputs},
                }));
            }
        }
    }
    Ok(json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "program": format!("gan {}", env!("CARGO_PKG_VERSION")), "recipe": work.recipe.name,
            "timing": target.timing(), "events left out": left_out,
        },
    }))
}

fn named(what: &str, thread: Option<u32>, name: &str) -> Value {
    let mut event = json!({"ph": "M", "pid": PROCESS, "name": what, "args": {"name": name}});
    if let Some(thread) = thread {
        event["tid"] = json!(thread);
    }
    event
}
