//! Every recipe that is shipped, at a tiny size: it trains, a kill does not change it, it predicts, it is measured.

#![allow(missing_docs)]

mod common;

use common::{gan, sha256, start, tree};
use gan::data::Volume;
use gan::data::nifti_io::inspect;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const T1: &str = "ph/sub-0006/anat/sub-0006_T1w.nii.gz";

/// What makes a recipe tiny: networks and images; the phantom is the one in `ph`.
fn tiny(name: &str) -> Vec<&'static str> {
    let mut set = vec![
        "data.phantom.dir=ph",
        "data.phantom.subjects=6",
        "data.phantom.seed=1",
        "data.phantom.size=[24, 28, 24]",
        "data.phantom.spacing=8.0",
        "data.phantom.tumours=1.0",
        "train.steps=12",
        "validate.every_epochs=1",
        "log.every=1",
        "log.checkpoint_every=3",
        "log.samples=1",
    ];
    set.extend(match name {
        "mr2pet" => {
            vec![
                "model.generator.downs=3",
                "model.generator.ngf=4",
                "model.discriminator.layers=1",
                "model.discriminator.ndf=4",
            ]
        }
        "mr2pet-cyclegan" => vec![
            "model.generator.ngf=2",
            "model.generator.blocks=1",
            "model.discriminator.layers=1",
            "model.discriminator.ndf=4",
            "loss.pool=5",
        ],
        "dcgan-mr" | "wgan-gp-mr" => {
            vec![
                "model.generator.ngf=4",
                "model.discriminator.ndf=4",
                "data.canvas=[16, 16]",
                "train.batch=4",
            ]
        }
        "wgan-mr" => vec![
            "model.generator.ngf=4",
            "model.discriminator.ndf=4",
            "data.canvas=[16, 16]",
            "train.batch=4",
            // Steps with more updates of the critic fall among the others.
            "loss.n_critic=2",
            "loss.warm_first=2",
            "loss.warm_every=5",
            "loss.warm_critic=4",
        ],
        "vanilla-gan" => vec![
            "model.generator.widths=[8, 8]",
            "model.discriminator.widths=[8]",
            "data.canvas=[16, 16]",
            "train.batch=4",
        ],
        "unet-tumour" => {
            vec!["model.network.base=4", "model.network.downs=2", "data.canvas=[16, 16]", "train.batch=2"]
        }
        "unet-brats" => vec!["model.network.base=4", "model.network.downs=2", "train.batch=2"],
        "3t-to-7t" => {
            vec!["data.canvas=[28, 24]", "model.network.base=4", "model.network.downs=2", "train.batch=2"]
        }
        "unet3d-tumour" => vec!["model.network.base=2", "model.network.downs=2", "data.patch=[8, 12, 12]"],
        "srcnn" => vec!["model.network.widths=[4, 4]"],
        "vdsr" | "denoise" => vec!["model.network.layers=3", "model.network.width=4"],
        "denoise-wgan" => vec![
            "model.network.layers=3",
            "model.network.width=4",
            "model.discriminator.ndf=4",
            "model.discriminator.layers=1",
            "loss.n_critic=2",
            "train.batch=2",
        ],
        "unet-plus-plus" => {
            vec!["model.network.base=2", "model.network.downs=2", "data.canvas=[16, 16]", "train.batch=2"]
        }
        "vox2vox" => vec![
            "networks.G.base=2",
            "networks.G.middle=1",
            "networks.D.ndf=2",
            "networks.D.layers=1",
            "data.patch=[16, 16, 16]",
        ],
        "r3gan-mr" => vec![
            "networks.G.widths=[16, 16, 16]",
            "networks.D.widths=[16, 16, 16]",
            "data.canvas=[16, 16]",
            "train.batch=4",
        ],
        "vgg16-pet" => vec![
            "model.network.width=1",
            "model.network.hidden=4",
            "data.canvas=[32, 32]",
            "data.phantom.hypometabolism=0.5",
            "data.phantom.split=[0.5, 0.25, 0.25]",
            "train.batch=4",
        ],
        other => panic!("no tiny size for {other}"),
    });
    set
}

fn args<'a>(name: &'a str, out: &'a str, set: &[&'a str], more: &[&'a str]) -> Vec<String> {
    let recipe = format!("{}/recipes/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let mut all = vec!["train".to_string(), recipe, "--out".into(), out.into(), "--quiet".into()];
    set.iter().for_each(|s| all.extend(["--set".to_string(), s.to_string()]));
    all.extend(more.iter().map(ToString::to_string));
    all
}

fn train(dir: &Path, name: &str, out: &str, set: &[&str], more: &[&str]) {
    let args = args(name, out, set, more);
    gan(dir, &args.iter().map(String::as_str).collect::<Vec<_>>()).ok();
}

/// The columns of `metrics.csv`, by name.
fn table(run: &Path) -> BTreeMap<String, Vec<f64>> {
    let text = fs::read_to_string(run.join("metrics.csv")).expect("a table");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in lines {
        for (name, cell) in names.iter().zip(line.split(',')) {
            all.entry(name.to_string()).or_default().extend(cell.parse::<f64>());
        }
    }
    all
}

fn results(run: &Path) -> BTreeMap<String, String> {
    let kept = |p: &Path| {
        p.extension().is_some_and(|e| e == "safetensors") || p.file_name().is_some_and(|n| n == "metrics.csv")
    };
    let below = |p: &Path| p.strip_prefix(run).expect("below").display().to_string();
    tree(run).into_iter().filter(|(p, _)| kept(p)).map(|(p, h)| (below(&p), h)).collect()
}

/// Kills a run somewhere in its middle and resumes it: it must end with the same bytes as `whole`.
fn assert_a_kill_changes_nothing(dir: &Path, name: &str, set: &[&str]) {
    let whole = results(&dir.join("whole"));
    let caught = (0..10).any(|attempt| {
        let out = format!("killed-{attempt}");
        let folder = dir.join(&out);
        let args = args(name, &out, set, &[]);
        let mut child = start(dir, &args.iter().map(String::as_str).collect::<Vec<_>>());
        let saved = folder.join("checkpoints/last_state.safetensors");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !saved.exists() && child.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < deadline, "{name}: no checkpoint within a minute");
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().expect("killed");
        let killed = child.wait().expect("ended").code().is_none();
        train(dir, name, &out, set, &["--resume"]);
        assert_eq!(results(&folder), whole, "{name}: resumed, it ends otherwise");
        killed
    });
    assert!(caught, "{name}: no run could be killed in time");
}

fn workshop() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Trains, kills and resumes; every loss and score is there and finite.
fn trained(name: &str, columns: &[&str]) -> tempfile::TempDir {
    let dir = workshop();
    let set = tiny(name);
    train(dir.path(), name, "whole", &set, &[]);
    let table = table(&dir.path().join("whole"));
    for column in columns {
        let values = table.get(*column).unwrap_or_else(|| panic!("{name}: no column {column}"));
        assert!(!values.is_empty() && values.iter().all(|v| v.is_finite()), "{name}: {column} {values:?}");
    }
    assert_eq!(table["step"].len(), 12, "{name}: a row for every step");
    assert_a_kill_changes_nothing(dir.path(), name, &set);
    dir
}

fn evaluated(dir: &Path, words: &[&str]) -> serde_json::Value {
    let out = gan(dir, &["evaluate", "whole", "--json", "e.json"]).ok();
    words.iter().for_each(|w| assert!(out.stdout.contains(w), "no {w} in\n{}", out.stdout));
    serde_json::from_str(&fs::read_to_string(dir.join("e.json")).expect("written")).expect("JSON")
}

fn translates(name: &str, inputs: &[&str], losses: &[&str], baselines: &[&str]) {
    let columns: Vec<&str> = losses.iter().copied().chain(["val/psnr", "val/ssim", "lr/G"]).collect();
    let dir = trained(name, &columns);
    let dir = dir.path();
    let mut args = vec!["predict", "whole", "--out", "p"];
    args.extend(inputs);
    let out = gan(dir, &args).ok();
    let made = Volume::load(dir.join(out.stdout.trim())).expect("readable");
    let input = Volume::load(dir.join(inputs[0])).expect("readable");
    assert_eq!((made.dims, made.affine()), (input.dims, input.affine()));
    let json = evaluated(dir, baselines);
    for b in baselines {
        assert!(json[b.replace('-', "")]["metrics"].is_array(), "{b} is not in the JSON");
        assert!(json["kid"][b.replace('-', "")].is_number(), "{json}");
    }
}

fn generates(name: &str, losses: &[&str]) {
    let columns: Vec<&str> = losses.iter().copied().chain(["val/kid", "val/swd"]).collect();
    let dir = trained(name, &columns);
    let dir = dir.path();
    gan(dir, &["predict", "whole", "--count", "5", "--out", "s"]).ok();
    let made: Vec<String> =
        tree(&dir.join("s")).into_keys().map(|p| p.file_name().unwrap().to_string_lossy().into()).collect();
    assert_eq!(made.len(), 6, "{made:?}");
    let file = std::fs::File::open(dir.join("s/sample-0001.png")).expect("a sample");
    let first = png::Decoder::new(std::io::BufReader::new(file)).read_info().expect("a PNG");
    assert_eq!(first.info().size(), (16, 16));
    // Other noise, another image; the same noise, the same image.
    gan(dir, &["predict", "whole", "--count", "1", "--out", "t"]).ok();
    gan(dir, &["predict", "whole", "--count", "1", "--seed", "2", "--out", "u"]).ok();
    let hash = |folder: &str| sha256(&dir.join(folder).join("sample-0001.png"));
    assert_eq!(hash("s"), hash("t"));
    assert_ne!(hash("s"), hash("u"));
    let json = evaluated(dir, &["KID", "sliced Wasserstein", "real vs real"]);
    for part in ["network", "floor"] {
        assert!(json[part]["kid"].is_number() && json[part]["swd"].is_number(), "{json}");
    }
    let misused = gan(dir, &["predict", "whole", T1, "--out", "v"]);
    assert!(misused.code == Some(2) && misused.stderr.contains("from noise"), "{}", misused.stderr);
}

fn segments(name: &str, losses: &[&str], inputs: &[&str], regions: &[&str]) {
    let dice: Vec<String> = regions.iter().map(|r| format!("val/dice_{r}")).collect();
    let mut columns = [losses, &["loss/dice", "val/dice", "val/sensitivity"]].concat();
    columns.extend(dice.iter().map(String::as_str));
    let dir = trained(name, &columns);
    let dir = dir.path();
    let mut args = vec!["predict", "whole", "--out", "p"];
    args.extend(inputs);
    let out = gan(dir, &args).ok();
    let path = dir.join(out.stdout.trim());
    let (made, input) =
        (Volume::load(&path).expect("readable"), Volume::load(dir.join(inputs[0])).expect("readable"));
    assert_eq!((made.dims, made.affine()), (input.dims, input.affine()));
    assert_eq!(inspect(&path).expect("readable").stored_name(), "uint8");
    assert!(made.voxels.iter().all(|v| [0.0, 1.0, 2.0, 4.0].contains(v)), "labels only");
    let json = evaluated(dir, &["dice", "sensitivity", "specificity", "ppv", "hd95"]);
    assert!(json["network"]["metrics"].is_array());
}

fn classifies(name: &str, losses: &[&str], inputs: &[&str], column: &str) {
    let columns = [losses, &["val/accuracy", "val/log_loss"]].concat();
    let dir = trained(name, &columns);
    let dir = dir.path();
    let mut args = vec!["predict", "whole", "--out", "p"];
    args.extend(inputs);
    let out = gan(dir, &args).ok();
    let text = fs::read_to_string(dir.join(out.stdout.trim())).expect("a table");
    assert!(text.lines().next().is_some_and(|h| h.split(',').any(|c| c == column)), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    let json = evaluated(dir, &["accuracy", "auroc", "majority class", "logistic regression"]);
    assert!(json["network"]["scores"]["accuracy"]["mean"].is_number(), "{json}");
}

#[test]
fn vgg() {
    let file = "ph/sub-0006/pet/sub-0006_trc-18FFDG_pet.nii.gz";
    classifies("vgg16-pet", &["loss/ce"], &[file], "has_hypometabolism");
}

#[test]
fn pix2pix() {
    translates("mr2pet", &[T1], &["loss/G_L1"], &["look-up", "identity"]);
}

#[test]
fn three_to_seven_tesla() {
    let input = "ph/sub-0006/anat/sub-0006_acq-mprage3T_T1w.nii.gz";
    translates("3t-to-7t", &[input], &["loss/l2"], &["histogram", "identity"]);
}

#[test]
fn cyclegan() {
    let losses = ["loss/G_A", "loss/cycle_A", "loss/idt_A", "loss/D_A", "loss/D_B"];
    translates("mr2pet-cyclegan", &[T1], &losses, &["look-up", "identity"]);
}

#[test]
fn dcgan() {
    generates("dcgan-mr", &["loss/D_real", "loss/D_fake", "loss/G"]);
}

#[test]
fn vanilla_gan() {
    generates("vanilla-gan", &["loss/D_real", "loss/D_fake", "loss/G"]);
}

#[test]
fn wgan() {
    generates("wgan-mr", &["loss/W", "loss/G"]);
}

#[test]
fn wgan_gp() {
    generates("wgan-gp-mr", &["loss/W", "loss/GP", "loss/G"]);
}

#[test]
fn unet_tumour() {
    segments("unet-tumour", &["loss/bce"], &["ph/sub-0006/anat/sub-0006_ce-gadolinium_T1w.nii.gz"], &[]);
}

#[test]
fn unet_brats() {
    let files =
        ["T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"].map(|m| format!("ph/sub-0006/anat/sub-0006_{m}.nii.gz"));
    segments("unet-brats", &["loss/bce"], &files.each_ref().map(String::as_str), &["WT", "TC", "ET"]);
}

#[test]
fn unet_3d() {
    let files = ["ce-gadolinium_T1w", "FLAIR"].map(|m| format!("ph/sub-0006/anat/sub-0006_{m}.nii.gz"));
    segments("unet3d-tumour", &["loss/bce"], &files.each_ref().map(String::as_str), &["WT", "TC"]);
}

#[test]
fn srcnn() {
    translates("srcnn", &[T1], &["loss/l2"], &["identity"]);
}

#[test]
fn vdsr() {
    translates("vdsr", &[T1], &["loss/l2"], &["identity"]);
}

#[test]
fn denoiser() {
    translates("denoise", &[T1], &["loss/l2"], &["gaussian", "median", "nlm"]);
}

#[test]
fn denoiser_with_a_critic() {
    translates(
        "denoise-wgan",
        &[T1],
        &["loss/W", "loss/GP", "loss/G_GAN", "loss/G_distance"],
        &["gaussian", "median", "nlm"],
    );
}

#[test]
fn unet_plus_plus() {
    let file = "ph/sub-0006/anat/sub-0006_ce-gadolinium_T1w.nii.gz";
    segments("unet-plus-plus", &["loss/bce", "loss/deep"], &[file], &[]);
}

#[test]
fn vox2vox() {
    let files =
        ["T1w", "ce-gadolinium_T1w", "T2w", "FLAIR"].map(|m| format!("ph/sub-0006/anat/sub-0006_{m}.nii.gz"));
    let losses = ["loss/D_real", "loss/D_fake", "loss/G_GAN"];
    segments("vox2vox", &losses, &files.each_ref().map(String::as_str), &["WT", "TC", "ET"]);
}

#[test]
fn r3gan() {
    generates("r3gan-mr", &["loss/D", "loss/R1", "loss/R2", "loss/G"]);
}

/// Methods know no dimensions; networks do.
#[test]
fn volumes_suit_pairs_cycles_and_critics() {
    for (name, more) in [
        ("mr2pet", vec![]),
        ("mr2pet-cyclegan", vec!["model.generator={kind=\"unet\", downs=2, ngf=2}"]),
        ("denoise-wgan", vec![]),
    ] {
        let dir = workshop();
        let mut set = tiny(name);
        // Another kind of generator has settings of its own.
        set.retain(|s| name != "mr2pet-cyclegan" || !s.starts_with("model.generator."));
        set.extend(["data.patch=[8, 16, 16]", "train.steps=3", "train.batch=1"]);
        set.extend(more);
        train(dir.path(), name, "run", &set, &[]);
        let out = gan(dir.path(), &["predict", "run", T1, "--out", "p"]).ok();
        let made = Volume::load(dir.path().join(out.stdout.trim())).expect("readable");
        let input = Volume::load(dir.path().join(T1)).expect("readable");
        assert_eq!((made.dims, made.affine()), (input.dims, input.affine()), "{name}");
    }
}

/// A preset written in full trains to the same bits.
#[test]
fn an_expanded_recipe_trains_to_the_same_bits() {
    for name in ["mr2pet", "wgan-gp-mr", "unet-brats"] {
        let dir = workshop();
        let set = [tiny(name), vec!["train.steps=3"]].concat();
        train(dir.path(), name, "preset", &set, &[]);
        let written = dir.path().join("preset/recipe.toml");
        let full = gan(dir.path(), &["recipes", &written.to_string_lossy(), "--expanded"]).ok().stdout;
        assert!(full.contains("[networks.") && !full.contains("[model"), "{full}");
        fs::write(dir.path().join("full.toml"), full).expect("written");
        gan(dir.path(), &["train", "full.toml", "--out", "full", "--quiet"]).ok();
        let weights = |run: &str| {
            let all = results(&dir.path().join(run));
            all.into_iter().filter(|(p, _)| p.contains("_net_")).collect::<BTreeMap<_, _>>()
        };
        let digests = |run: &str| -> Vec<Vec<u8>> {
            let of = |p: &String| fs::read(dir.path().join(run).join(p)).expect("weights");
            // Behind the header, whose description of the architecture differs.
            let tensors = |bytes: Vec<u8>| {
                let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
                bytes[8 + header..].to_vec()
            };
            weights(run).keys().map(of).map(tensors).collect()
        };
        assert!(!digests("preset").is_empty() && digests("preset") == digests("full"), "{name}");
    }
}

/// Editors and people learn from the program itself what may be written.
#[test]
fn recipes_and_networks_are_described() {
    let dir = workshop();
    let schema = gan(dir.path(), &["recipes", "--schema"]).ok().stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    let defs = &schema["$defs"];
    assert_eq!(schema["properties"]["model"]["properties"]["kind"]["enum"][0], "pix2pix");
    assert_eq!(defs["Train"]["properties"]["batch"]["default"], 1);
    assert!(defs["DataConfig"]["properties"]["canvas"]["description"].as_str().is_some_and(|d| d.len() > 20));
    let list = gan(dir.path(), &["recipes", "--networks"]).ok().stdout;
    assert!(list.lines().any(|l| l.starts_with("unet-plus-plus") && l.contains("image -> values per pixel")));
    let one = gan(dir.path(), &["recipes", "--networks", "unet-plus-plus"]).ok().stdout;
    assert!(one.contains("downs = 4\n    How often the resolution is halved."), "{one}");
    let unknown = gan(dir.path(), &["recipes", "--networks", "unet-plus-pluss"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("did you mean unet-plus-plus?"));
}

/// The list knows every file in `recipes/`.
#[test]
fn all_recipes_are_listed() {
    let dir = workshop();
    let listed = gan(dir.path(), &["recipes"]).ok().stdout;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "toml") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(
                listed.lines().any(|l| l.split_whitespace().next() == Some(&name)),
                "{name} is not listed"
            );
            let text = gan(dir.path(), &["recipes", &name]).ok().stdout;
            assert_eq!(text.trim_end(), fs::read_to_string(&path).expect("a recipe").trim_end());
            count += 1;
        }
    }
    assert_eq!(listed.lines().count(), count);
    let unknown = gan(dir.path(), &["recipes", "dcgan"]);
    assert!(
        unknown.code == Some(1) && unknown.stderr.contains("did you mean dcgan-mr?"),
        "{}",
        unknown.stderr
    );
}
