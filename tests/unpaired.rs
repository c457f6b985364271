//! CycleGAN on two sets of images of other subjects on other grids (`data.unpaired`).

#![allow(missing_docs)]

mod common;

use common::{gan, tree};
use gan::data::affine::Affine;
use gan::data::{Dataset, Loader, LoaderConfig, OpenOptions, Split, Volume};
use gan::recipe::Recipe;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

const RECIPE: &str = r#"
name = "sites"
[data]
manifest = "all.csv"
input = ["a"]
target = ["b"]
unpaired = true
min_foreground = 0.0
[model]
kind = "cyclegan"
generator = { kind = "unet", downs = 2, ngf = 4 }
discriminator = { kind = "patch", layers = 1, ndf = 4, norm = "instance" }
[loss]
pool = 4
[train]
batch = 2
steps = 6
[log]
every = 1
checkpoint_every = 3
samples = 1
histograms = 0
"#;

/// An image with a ball on a ramp; its values tell the set: those of A lie below 100, those of B above 1000.
fn image(dir: &Path, name: &str, dims: [usize; 3], spacing: [f64; 3], base: f32) {
    let at = |i: usize| [i % dims[0], i / dims[0] % dims[1], i / (dims[0] * dims[1])];
    let value = |i: usize| {
        let p = at(i);
        let apart: f32 = (0..3).map(|a| (p[a] as f32 / dims[a] as f32 - 0.5).powi(2)).sum();
        base + p[0] as f32 + if apart < 0.1 { 50.0 } else { 0.0 }
    };
    let voxels = (0..dims.iter().product()).map(value).collect();
    let volume = Volume::new(dims, Affine::centred(dims, spacing), voxels).expect("a volume");
    volume.save(dir.join(name)).expect("written");
}

/// Five subjects of A, seven of B, no two grids alike.
fn sites() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let mut rows = "subject,split,a,b\n".to_string();
    for (set, count, base) in [("a", 5, 0.0), ("b", 7, 1000.0)] {
        for i in 0..count {
            let name = format!("{set}{i}.nii.gz");
            let (dims, spacing) = match set {
                "a" => ([18 + i, 20, 4 + i % 2], [1.0, 1.0, 3.0 + i as f64]),
                _ => ([17, 22 + i, 3 + i % 3], [1.1, 0.9, 5.0]),
            };
            image(dir.path(), &name, dims, spacing, base);
            let split = ["train", "train", "val", "test", "train"][i % 5];
            rows += &if set == "a" {
                format!("{set}-{i},{split},{name},\n")
            } else {
                format!("{set}-{i},{split},,{name}\n")
            };
        }
    }
    fs::write(dir.path().join("all.csv"), rows).expect("written");
    fs::write(dir.path().join("r.toml"), RECIPE).expect("written");
    dir
}

fn recipe(dir: &Path, set: &[&str]) -> Recipe {
    let mut all = vec![format!("data.manifest={:?}", dir.join("all.csv").display().to_string())];
    all.extend(set.iter().map(ToString::to_string));
    Recipe::parse(RECIPE, "r.toml", &all).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_image_of_both_sets_is_drawn_and_none_meets_the_other_set() {
    let dir = sites();
    let config =
        recipe(dir.path(), &["data.normalise_input.method=none", "data.normalise_target.method=none"]).data;
    let open = OpenOptions { multiple: 4, ..Default::default() };
    let set = Dataset::open(&config, Split::Train, None, open).unwrap_or_else(|e| panic!("{e}"));
    let others = set.others().expect("two sets");
    // Three subjects of A with 4 or 5 slices, five of B with 3 to 5; the largest slice of either, divisible by 4.
    assert_eq!((set.cases(), others.cases()), (3, 5));
    assert_eq!(set.fit().canvas, [28, 24]);
    assert_eq!(
        (set.input_shape(), set.target_shape(), others.input_shape()),
        ([28, 24, 1], [28, 24, 1], [28, 24, 1])
    );
    let (a, b, subjects) = (set.len(), others.len(), others.cases());
    assert_ne!(a, b);
    let set = Arc::new(set);
    let loader = |workers: usize, first: u64| {
        let config = LoaderConfig {
            batch: 2,
            unpaired: true,
            workers,
            augment: gan::data::Augment::NONE,
            ..Default::default()
        };
        Loader::new(set.clone(), config, first).unwrap_or_else(|e| panic!("{e}"))
    };
    let mut all = loader(0, 0);
    let (mut seen, mut targets) = (BTreeSet::new(), BTreeSet::new());
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let mut batches = Vec::new();
    for _ in 0..b.div_ceil(2) + 1 {
        let batch = all.next().unwrap_or_else(|e| panic!("{e}"));
        assert!(batch.input.iter().all(|v| *v < 100.0) && batch.target.iter().all(|v| *v >= 1000.0));
        seen.extend(batch.ids.clone());
        targets.extend(batch.target.chunks(28 * 24).map(bits));
        batches.push(batch);
    }
    // Slices of one subject can be alike; of all subjects there are some.
    assert!(targets.len() >= subjects, "{} of {b}", targets.len());
    assert!(seen.len() >= a - 1, "{seen:?}");
    // The same with threads, and from the middle.
    let mut again = loader(2, 3);
    assert_eq!(again.next().unwrap_or_else(|e| panic!("{e}")), batches[3]);
}

#[test]
fn a_cyclegan_is_trained_resumed_measured_and_used() {
    let dir = sites();
    let dir = dir.path();
    let out = gan(dir, &["train", "r.toml", "--out", "whole"]).ok();
    assert!(out.stderr.contains("(unpaired: 5 subjects, "), "{}", out.stderr);
    let table = fs::read_to_string(dir.join("whole/metrics.csv")).expect("a table");
    let columns: Vec<&str> = table.lines().next().expect("a header").split(',').collect();
    assert!(["loss/cycle_A", "val/kid", "val/swd"].iter().all(|c| columns.contains(c)), "{columns:?}");
    assert!(!columns.contains(&"val/psnr"));
    // Stopped and resumed it is the same.
    gan(dir, &["train", "r.toml", "--out", "parts", "--set", "train.workers=0"]).ok();
    let weights = |run: &str| {
        let files = tree(&dir.join(run).join("checkpoints"));
        files
            .into_iter()
            .filter(|(p, _)| p.to_string_lossy().contains("last_net"))
            .map(|(_, h)| h)
            .collect::<Vec<_>>()
    };
    assert_eq!(weights("whole"), weights("parts"));
    assert_eq!(weights("whole").len(), 4);

    let out = gan(dir, &["evaluate", "whole", "--json", "e.json"]).ok();
    for word in ["network", "identity", "real vs real", "KID"] {
        assert!(out.stdout.contains(word), "{word} is missing in {}", out.stdout);
    }
    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("e.json")).expect("written")).expect("JSON");
    assert!(json["network"]["kid"].is_number() && json["identity"]["kid"].is_number(), "{json}");
    gan(dir, &["report", "whole", "--out", "r.html"]).ok();

    let out = gan(dir, &["predict", "whole", "a3.nii.gz", "--out", "made"]).ok();
    let made = Volume::load(dir.join(out.stdout.trim())).expect("readable");
    let input = Volume::load(dir.join("a3.nii.gz")).expect("readable");
    assert_eq!((made.dims, made.affine()), (input.dims, input.affine()));
    // In the units of B, whose values begin at 1000.
    assert!(made.voxels.iter().all(|v| *v > 900.0), "{:?}", &made.voxels[..5]);
}

#[test]
fn a_pattern_finds_both_sets() {
    let dir = sites();
    for i in 0..5 {
        fs::create_dir_all(dir.path().join("p")).expect("a folder");
        fs::copy(dir.path().join(format!("a{i}.nii.gz")), dir.path().join(format!("p/x{i}_a.nii.gz")))
            .expect("a copy");
        fs::copy(dir.path().join(format!("b{i}.nii.gz")), dir.path().join(format!("p/y{i}_b.nii.gz")))
            .expect("a copy");
    }
    let pattern = dir.path().join("p/{subject}_{modality}.nii.gz").display().to_string();
    let text = RECIPE.replace("manifest = \"all.csv\"", &format!("pattern = {pattern:?}\nsplit_seed = 3"));
    let config = Recipe::parse(&text, "r", &[]).unwrap_or_else(|e| panic!("{e}")).data;
    let set =
        Dataset::open(&config, Split::Train, None, OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let ids =
        |set: &Dataset| (0..set.cases()).map(|i| set.case_id(i)[..1].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(ids(&set), BTreeSet::from(["x".to_string()]));
    assert_eq!(ids(set.others().expect("two sets")), BTreeSet::from(["y".to_string()]));
}

#[test]
fn wrong_sets_are_refused_in_a_sentence() {
    let dir = sites();
    let dir = dir.path();
    let csv = fs::read_to_string(dir.join("all.csv")).expect("there");
    let refused = |rows: &str, set: &[&str], words: &[&str]| {
        fs::write(dir.join("all.csv"), rows).expect("written");
        let mut args = vec!["train", "r.toml", "--out", "x"];
        set.iter().for_each(|s| args.extend(["--set", s]));
        let out = gan(dir, &args);
        assert_eq!(out.code, Some(1), "{}", out.stderr);
        for word in words {
            assert!(out.stderr.contains(word), "{word:?} is missing in: {}", out.stderr);
        }
        assert!(!out.stderr.contains("panicked") && !dir.join("x").exists(), "{}", out.stderr);
    };
    let only = |set: &str| -> String {
        csv.lines()
            .filter(|l| l.starts_with("subject") || l.starts_with(set))
            .map(|l| format!("{l}\n"))
            .collect()
    };
    refused(&only("a"), &[], &["no subject has an image `b`", "`data.target`", "this one is empty"]);
    refused(&only("b"), &[], &["no subject has an image `a`", "`data.input`"]);
    let no_val = csv.replace("b-2,val", "b-2,train");
    refused(&no_val, &[], &["images of `b`", "no subject is in the split `val`"]);
    refused(&format!("{csv}c-0,train,,\n"), &[], &["subject c-0 has none of the images `a`, `b`"]);
    refused(&csv.replace("a0.nii.gz", "none.nii.gz"), &[], &["none.nii.gz", "does not exist"]);
    refused(&csv.replace("split,a,b", "split,aa,b"), &[], &["has no column `a`", "did you mean `aa`?"]);
    let both = csv.replace("split,a,b", "split,a,b,b2").replace(",,b0.nii.gz", ",,b0.nii.gz,b1.nii.gz");
    let both: String = both
        .lines()
        .map(|l| if l.matches(',').count() < 4 { format!("{l},\n") } else { format!("{l}\n") })
        .collect();
    let two = ["data.target=[\"b\",\"b2\"]", "loss.lambda_identity=0"];
    refused(&both, &two, &["subject b-1 has no `b2` image"]);
    refused(&csv, &["validate.metric=psnr"], &["`validate.metric` can't be \"psnr\"", "kid, swd"]);
    refused(&csv, &["model.kind=pix2pix", "loss={}"], &["`data.unpaired` gives two sets", "CycleGAN"]);
    refused(&csv, &["data.patch=[4, 8, 8]"], &["`unpaired`", "remove `labels` and `patch`"]);
    // Without the key they are pairs, and half of each is missing.
    refused(&csv, &["data.unpaired=false", "validate.metric=psnr"], &["subject a-0 has no `b` image"]);
}
