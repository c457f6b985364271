//! Where the time of the main recipe's step goes.

use crate::Outcome;
use crate::bench::{json_of, number};
use crate::program::Program;
use crate::record::Record;
use crate::timed::PAPER;
use serde_json::json;
use std::path::Path;

impl Program {
    /// Profiles the paper's step. Tables, traces and pages go into the record's folder.
    pub fn profile(&self, record: &mut Record) -> Outcome {
        let folder = std::path::absolute(Record::folder()).map_err(|e| e.to_string())?;
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let recipe = self.recipes.join("mr2pet.toml").display().to_string();
        let mut profiled = 0;
        for batch in [1, 16] {
            for precision in ["f32", "tf32", "bf16"] {
                let name = format!("profile-pix2pix-256-batch{batch}-{precision}");
                let file = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
                let [json, trace, page] = [file("json"), file("trace.json"), file("html")];
                let set = [
                    format!("train.batch={batch}"),
                    "data.canvas=[256, 256]".into(),
                    "data.phantom.dir=\"phantom-profile\"".into(),
                ];
                let mut args = vec!["profile", &recipe, "--device", "cuda", "--precision", precision];
                args.extend(["--steps", "20", "--json", &json, "--trace", &trace, "--html", &page]);
                PAPER
                    .into_iter()
                    .chain(set.iter().map(String::as_str))
                    .for_each(|s| args.extend(["--set", s]));
                let text = self.run(&args)?;
                std::fs::write(file("txt"), text).map_err(|e| format!("{name}: {e}"))?;
                let profile = json_of(Path::new(&json))?;
                let of = |part: &str, key: &str| number(&profile[part][key]);
                let row = json!({
                    "recipe": "pix2pix", "size": 256, "batch": batch, "dtype": precision,
                    "timing": profile["mode"], "ms": of("step", "median_ms")?, "floor ms": of("work", "floor_ms")?,
                    "compute ms": of("shares", "compute_ms")?, "calls ms": of("shares", "calls_ms")?,
                    "peak TFLOP/s": of("peaks", "flops_per_s")? / 1e12,
                });
                record.row("profiles", row);
                profiled += 1;
            }
        }
        Ok(format!("{profiled} profiles"))
    }
}
