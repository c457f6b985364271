//! Bad input to the families beyond pix2pix: one sentence that names the file or the key and the way out, exit code 1,
//! and nothing written.

#![allow(missing_docs)]

mod common;

use common::{gan, nifti, tree};
use std::fs;
use std::path::Path;

/// What may stand before the error: how a run begins.
const NOTES: [&str; 6] = ["data: ", "note: ", "networks: ", "a step: ", "training: ", "resuming "];

#[track_caller]
fn refused(dir: &Path, args: &[&str], words: &[&str]) {
    let before = tree(dir);
    let out = gan(dir, args);
    let case = args.join(" ");
    assert_eq!(out.code, Some(1), "{case}\n{}", out.stderr);
    let lines: Vec<&str> = out.stderr.lines().filter(|l| !NOTES.iter().any(|n| l.starts_with(n))).collect();
    assert!(lines.len() == 1 && lines[0].starts_with("gan: "), "{case}: not one line\n{}", out.stderr);
    assert!(lines[0].contains([';', ':']) && lines[0].len() < 600, "{case}\n{}", out.stderr);
    words.iter().for_each(|w| assert!(lines[0].contains(w), "{case}: no `{w}` in\n{}", lines[0]));
    assert_eq!(tree(dir), before, "{case}: something was written");
}

const NOISE: &str = r#"
name = "noise"
[data]
phantom = { dir = "ph", subjects = 6, size = [24, 28, 24], spacing = 8.0 }
target = []
canvas = [16, 16]
[model]
kind = "gan"
generator = { kind = "dcgan", ngf = 2 }
discriminator = { kind = "dcgan", ndf = 2 }
[train]
batch = 2
steps = 2
"#;

const SEGMENTATION: &str = r#"
name = "segmentation"
[data]
phantom = { dir = "ph", subjects = 6, size = [24, 28, 24], spacing = 8.0 }
input = ["t1ce"]
target = ["tumour"]
[data.labels]
values = [0, 1, 2, 4]
regions = [{ name = "WT", labels = [1, 2, 4] }]
[model]
kind = "supervised"
network = { kind = "unet", base = 2, downs = 2 }
[loss]
kind = "regions"
[train]
batch = 2
steps = 2
"#;

fn workshop() -> tempfile::TempDir {
    let dir = common::workshop();
    let path = dir.path();
    fs::write(path.join("noise.toml"), NOISE).expect("written");
    fs::write(path.join("wgan.toml"), NOISE.replace("\"gan\"", "\"wgan\"")).expect("written");
    fs::write(path.join("seg.toml"), SEGMENTATION).expect("written");
    gan(path, &["phantom", "ph", "--subjects", "6", "--size", "24,28,24", "--spacing", "8"]).ok();
    dir
}

#[test]
fn settings_that_do_not_belong_together() {
    let dir = workshop();
    let dir = dir.path();
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("noise.toml", &["data.target=[\"pet\"]"], &["`data.target`", "from noise", "[]"]),
        ("noise.toml", &["data.canvas=[16, 32]"], &["square", "16 x 32", "`data.canvas`"]),
        ("noise.toml", &["data.canvas=[24, 24]"], &["`data.canvas`", "power of two"]),
        ("noise.toml", &["data.canvas=[8, 8]"], &["8 x 8", "16 x 16"]),
        ("noise.toml", &["model.nz=0"], &["`model.nz`"]),
        ("noise.toml", &["model.generator.kind=dcgann"], &["dcgann", "did you mean `dcgan`?"]),
        ("noise.toml", &["loss.lambda_l1=3"], &["unknown key `loss.lambda_l1`", "gan"]),
        ("noise.toml", &["validate.metric=psnr"], &["`validate.metric`", "kid, swd"]),
        ("noise.toml", &["data.patch=[8, 8, 8]"], &["`data.patch`", "slices"]),
        ("noise.toml", &["data.labels={values=[0, 1]}"], &["`data.labels`", "remove it"]),
        ("noise.toml", &["loss.r1=1"], &["`loss.r1`", "batch norm", "`model.discriminator.norm`"]),
        ("noise.toml", &["loss.r1=-1"], &["`loss.r1`", "negative"]),
        ("wgan.toml", &["loss.lipschitz={penalty=10.0}"], &["batch norm", "`model.discriminator.norm`"]),
        ("wgan.toml", &["loss.n_critic=0"], &["`loss.n_critic`"]),
        ("wgan.toml", &["loss.lipschitz={clip=-1.0}"], &["`loss.lipschitz.clip`", "positive"]),
        (
            "wgan.toml",
            &["loss.lipschitz={penalty=10.0, clip=0.1}", "loss.lipschitz.clipp=1"],
            &["`loss.lipschitz.clipp`"],
        ),
        ("r.toml", &["loss.gan=wgan"], &["`loss.gan`", "Lipschitz", "hinge"]),
        ("r.toml", &["loss.lambda_l1=-1"], &["`loss.lambda_l1`", "negative"]),
        ("r.toml", &["loss.lambda_l1=many"], &["`loss.lambda_l1`", "a number"]),
        ("r.toml", &["model.generator={kind=\"patch\"}"], &["`model.generator.kind`", "image -> image"]),
        (
            "r.toml",
            &["model.discriminator={kind=\"vdsr\"}"],
            &["`model.discriminator.kind`", "image -> logits"],
        ),
        (
            "seg.toml",
            &["model.network={kind=\"unet-generator\"}"],
            &["`model.network.kind`", "values per pixel"],
        ),
        ("seg.toml", &["loss.kind=region"], &["`loss.kind`", "did you mean `regions`?"]),
        ("seg.toml", &["loss.dicee=1"], &["`loss.dicee`", "did you mean `dice`?"]),
        ("seg.toml", &["loss={kind=\"classes\"}"], &["\"classes\"", "`data.labels.regions`"]),
        ("seg.toml", &["loss={kind=\"distance\"}"], &["`data.labels`", "remove it"]),
        ("seg.toml", &["data.labels.regions=[]"], &["\"regions\"", "`data.labels.regions`"]),
        ("seg.toml", &["data.labels.values=[0]"], &["`labels`", "values"]),
        ("seg.toml", &["data.labels.values=[0, 1, 2]"], &["label 4 in region WT", "`values`"]),
        ("seg.toml", &["data.labels.values=[0, 1, 2, 300]"], &["data.labels.values"]),
        ("seg.toml", &["data.target=[\"tumour\", \"tissue\"]"], &["`labels`", "2 images"]),
        ("seg.toml", &["data.target=[\"tumor\"]"], &["`tumor`", "did you mean `tumour`?"]),
        ("seg.toml", &["data.input=[\"t1ce\", \"t9\"]"], &["`t9`", "did you mean"]),
        ("seg.toml", &["model.residual=true"], &["`model.residual`", "false"]),
        ("seg.toml", &["model.network.downs=9"], &["`model.network.downs`"]),
        ("seg.toml", &["data.patch=[50, 8, 8]"], &["`patch`", "50 slices deep", "24 only"]),
        ("seg.toml", &["data.patch=[8, 8, 2]"], &["`patch = [8, 8, 2]`"]),
        ("seg.toml", &["data.patch=[8, 8, 8]", "data.augment.rotate=5"], &["`patch`", "augment.rotate"]),
        ("seg.toml", &["data.fold=5"], &["`fold = 5`", "5 folds, from 0"]),
        ("seg.toml", &["data.fold=0", "data.folds=1"], &["`folds`"]),
        ("seg.toml", &["data.splits=x.json"], &["`splits`", "`fold`"]),
        ("seg.toml", &["data.fold=0", "data.splits=x.json"], &["x.json", "check the path"]),
        ("seg.toml", &["data.degrade.downsample=0"], &["`degrade.downsample`"]),
        ("r.toml", &["data.target=[]"], &["`data.target`", "at least one"]),
        ("r.toml", &["data.window=target"], &["`window = \"target\"`", "`data.labels`"]),
        ("r.toml", &["validate.baselines=[\"bicubic\"]"], &["`validate.baselines", "bicubic"]),
        (
            "r.toml",
            &[
                "model={kind=\"supervised\",network={kind=\"vdsr\"}}",
                "loss={kind=\"distance\"}",
                "data.input=[\"t1\", \"t2\"]",
            ],
            &["`data.target`", "as many channels"],
        ),
        ("r.toml", &["model={kind=\"supervised\",network={kind=\"vdsr\"}}"], &["`loss.kind` is missing"]),
    ];
    for (recipe, set, words) in cases {
        let mut args = vec!["train", recipe, "--out", "run"];
        set.iter().for_each(|s| args.extend(["--set", s]));
        refused(dir, &args, words);
    }
}

const FULL: &str = r#"
name = "full"
[data]
phantom = { dir = "ph", subjects = 6, size = [24, 28, 24], spacing = 8.0 }
[method]
predict = "G(input)"
[networks.G]
role = "generator"
kind = "unet"
downs = 2
ngf = 2
[networks.D]
role = "discriminator"
kind = "patch"
layers = 1
ndf = 2
takes = ["input", "target"]
[[train.update]]
network = "D"
terms = [{ adversarial = "lsgan", real = "target", fake = "G(input)", log = "D" }]
[[train.update]]
network = "G"
terms = [{ adversarial = "lsgan", by = "D", fake = "G(input)", log = "G" }, { l1 = 100.0, of = "G(input)", to = "target" }]
"#;

/// What stands in a recipe, and what in its place.
type Changes = Vec<(String, String)>;

/// A method that a recipe writes in full: what does not go together is refused by name.
#[test]
fn methods_in_full() {
    let dir = workshop();
    let dir = dir.path();
    let cases: &[(&str, &str, &[&str])] = &[
        ("role = \"generator\"", "role = \"judge\"", &["`networks.G.role`", "generator"]),
        ("kind = \"unet\"", "kind = \"unett\"", &["`networks.G.kind`", "did you mean `unet`?"]),
        ("ngf = 2", "nfg = 2", &["`networks.G.nfg`", "did you mean `ngf`?"]),
        ("predict = \"G(input)\"", "predict = \"H(input)\"", &["`method.predict`", "no network H"]),
        ("predict = \"G(input)\"", "predict = \"input\"", &["`method.predict`"]),
        ("l1 = 100.0", "l1 = -1.0", &["`train.update[1].terms[1].l1`", "negative"]),
        ("l1 = 100.0", "l7 = 100.0", &["l7", "did you mean"]),
        ("l1 = 100.0, of", "of", &["`train.update[1].terms[1]`", "names none"]),
        ("l1 = 100.0", "l1 = 1.0, l2 = 1.0", &["l1 and l2"]),
        ("to = \"target\" }", "to = \"D(target)\" }", &["D is a discriminator"]),
        ("log = \"G\"", "log = \"D\"", &["two terms are logged as \"D\""]),
        ("log = \"G\"", "log = []", &["`log` names nothing"]),
        ("adversarial = \"lsgan\", by", "adversarial = \"lsgan\", weight = 0.0, by", &[]),
        ("network = \"D\"\n", "network = \"E\"\n", &["`train.update[0].network`", "no network E"]),
        ("adversarial = \"lsgan\", real", "adversarial = \"wgan\", real", &["Lipschitz"]),
        ("real = \"target\", fake", "fake", &["`train.update[0].terms[0].real` is missing"]),
        ("by = \"D\", ", "by = \"G\", ", &["must name a discriminator"]),
        ("fake = \"G(input)\", log = \"D\"", "fake = \"G(noise)\", log = \"D\"", &["`noise`"]),
    ];
    for (from, to, words) in cases {
        assert!(FULL.contains(from), "{from}");
        fs::write(dir.join("full.toml"), FULL.replacen(from, to, 1)).expect("written");
        let args = ["train", "full.toml", "--steps", "1", "--quiet", "--out", "run"];
        if words.is_empty() {
            gan(dir, &args).ok();
            fs::remove_dir_all(dir.join("run")).expect("removed");
        } else {
            refused(dir, &args, words);
        }
    }
    let (d, g) = ("log = \"D\" }", "to = \"target\" }]");
    let frozen = "[networks.F]\nrole = \"frozen\"\nkind = \"patch\"\nndf = 2\nlayers = 1\n";
    let looks = |term: &str| format!("{}, of = \"G(input)\", to = \"target\" }}]", term);
    let with_f = |rest: &str| format!("{frozen}{rest}\n[[train.update]]\nnetwork = \"D\"");
    let perceptual = looks("to = \"target\" }, { perceptual = { by = \"F\" }");
    // Another term of the discriminator, another of the generator; a frozen network with keys of its own, and what looks into it.
    let of_d = |term: &str| [(d.to_string(), format!("{d}, {{ {term} }}"))];
    let of_g = |term: &str| [(g.to_string(), format!("to = \"target\" }}, {{ {term} }}]"))];
    let of_f = |keys: &str, term: &str| {
        [("[[train.update]]\nnetwork = \"D\"".to_string(), with_f(keys)), (g.to_string(), term.to_string())]
    };
    let cases: Vec<(Changes, &[&str])> = vec![
        (
            of_d("path_length = 2.0, of = \"G(input)\"").into(),
            &["`train.update[0].terms[1].path_length`", "update of a generator"],
        ),
        (of_g("path_length = 2.0, of = \"G(input)\"").into(), &["path_length`", "`of` = \"G(noise)\""]),
        (of_g("path_length = 2.0, decay = 1.5, of = \"G(input)\"").into(), &["terms[2].decay`", "0.01"]),
        (
            of_g("lecam = 0.3, real = \"target\", fake = \"G(input)\"").into(),
            &["lecam`", "update of a discriminator"],
        ),
        (of_d("dragan = 10.0, real = \"target\"").into(), &["dragan`", "batch norm in D"]),
        (of_d("dragan = 10.0").into(), &["`train.update[0].terms[1].real` is missing"]),
        (
            of_g("kl = 1.0, temperature = 0, of = \"G(input)\", to = \"input\"").into(),
            &["temperature`", "positive"],
        ),
        (
            of_g("kl_gaussian = 1.0, of = \"G(input)\"").into(),
            &["kl_gaussian`", "has 1 channels", "`outputs`"],
        ),
        (
            of_g("l2 = 1.0, of = \"G(sample(input))\", to = \"input\"").into(),
            &["`input` has 1 channels", "`outputs`"],
        ),
        (
            of_g("l2 = 1.0, weight = { from = 0.0, to = 0.0, steps = 5 }, of = \"G(input)\", to = \"input\"")
                .into(),
            &["terms[2].weight`", "above 0"],
        ),
        (
            of_g("l2 = 1.0, weight = { from = 0.0, to = 1.0 }, of = \"G(input)\", to = \"input\"").into(),
            &["terms[2].weight`", "steps = 1000"],
        ),
        (
            of_g("l2 = 1.0, weight = \"high\", of = \"G(input)\", to = \"input\"").into(),
            &["terms[2].weight`", "a number"],
        ),
        (
            of_g("perceptual = { by = \"G\" }, of = \"G(input)\", to = \"target\"").into(),
            &["perceptual.by`", "frozen network", "G is none"],
        ),
        (
            of_g("perceptual = { by = \"E\" }, of = \"G(input)\", to = \"target\"").into(),
            &["perceptual.by`", "no network E"],
        ),
        (
            of_g("perceptual = { by = \"D\", layer = [] }, of = \"G(input)\", to = \"target\"").into(),
            &["perceptual.layer", "did you mean `layers`?"],
        ),
        (
            of_g("perceptual = { by = \"D\", layers = [] }, of = \"G(input)\", to = \"target\"").into(),
            &["perceptual.layers`", "leave it out"],
        ),
        (
            of_g("perceptual = { by = \"D\", layers = [\"conv9\"] }, of = \"G(input)\", to = \"target\"")
                .into(),
            &["perceptual", "no layer \"conv9\"", "model.0, model.2"],
        ),
        (
            of_g("style = { by = \"D\", distance = \"l1\" }, of = \"G(input)\", to = \"target\"").into(),
            &["style.distance`", "Gram"],
        ),
        (
            of_g("perceptual = { by = \"D\", weight = -1.0 }, of = \"G(input)\", to = \"target\"").into(),
            &["perceptual.weight`", "negative"],
        ),
        (
            of_g("perceptual = { by = \"D\" }, l2 = 1.0, of = \"G(input)\", to = \"target\"").into(),
            &["l2 and perceptual"],
        ),
        (of_f("", g).into(), &["frozen network F is used by no term"]),
        (of_f("takes = [\"input\", \"target\"]", &perceptual).into(), &["`networks.F.takes`", "one value"]),
        (
            of_f("weights = \"none.safetensors\"", &perceptual).into(),
            &["`networks.F.weights`", "none.safetensors"],
        ),
        (of_f("weights = \"full.toml\"", &perceptual).into(), &["`networks.F.weights`", "full.toml"]),
        (
            of_f("weights = \"d.safetensors\"\nnorm = \"none\"", &perceptual).into(),
            &["`networks.F.weights`", "no tensor model.2.bias", "d.safetensors"],
        ),
        (of_f("outputs = 0", &perceptual).into(), &["`networks.F.outputs`"]),
        (
            of_f("[train.init]\nF = \"d.safetensors\"", &perceptual).into(),
            &["`train.init.F`", "`networks.F.weights`"],
        ),
        (
            [("ngf = 2".to_string(), "ngf = 2\nweights = \"w.pth\"".to_string())].into(),
            &["`networks.G.weights`", "`train.init.G`"],
        ),
        (
            [("network = \"G\"\n".to_string(), "network = \"G\"\nlr = 0.0\n".to_string())].into(),
            &["`train.update[1].lr`", "positive"],
        ),
        (
            [("network = \"G\"\n".to_string(), "network = \"G\"\nfrom = 5\nuntil = 5\n".to_string())].into(),
            &["`train.update[1].until`", "beyond `from`, which is 5"],
        ),
    ];
    // The discriminator's weights, for frozen networks of the same kind.
    fs::write(dir.join("full.toml"), FULL).expect("written");
    gan(dir, &["train", "full.toml", "--steps", "1", "--quiet", "--out", "run"]).ok();
    fs::copy(dir.join("run/checkpoints/last_net_D.safetensors"), dir.join("d.safetensors")).expect("copied");
    fs::remove_dir_all(dir.join("run")).expect("removed");
    for (changes, words) in cases {
        let mut text = FULL.to_string();
        for (from, to) in changes {
            assert!(text.contains(&from), "{from}");
            text = text.replacen(&from, &to, 1);
        }
        fs::write(dir.join("full.toml"), text).expect("written");
        refused(dir, &["train", "full.toml", "--steps", "1", "--quiet", "--out", "run"], words);
    }
    // What is accepted, with another frozen network for the prediction and for an update.
    let frozen = FULL.replacen(g, &perceptual, 1).replacen(
        "[[train.update]]\nnetwork = \"D\"",
        &with_f("weights = \"d.safetensors\""),
        1,
    );
    fs::write(dir.join("full.toml"), &frozen).expect("written");
    gan(dir, &["train", "full.toml", "--steps", "1", "--quiet", "--out", "run"]).ok();
    fs::remove_dir_all(dir.join("run")).expect("removed");
    for (from, to, words) in [
        ("predict = \"G(input)\"", "predict = \"F(input)\"", ["`method.predict`", "frozen"]),
        (
            "network = \"G\"\n",
            "network = [\"G\", \"F\"]\n",
            ["`train.update[1].network`", "F, which is frozen"],
        ),
    ] {
        fs::write(dir.join("full.toml"), frozen.replacen(from, to, 1)).expect("written");
        refused(dir, &["train", "full.toml", "--out", "run"], &words);
    }
    let unused = FULL.replace("[[train.update]]\nnetwork = \"D\"", "[[train.update]]\nnetwork = \"G\"");
    fs::write(dir.join("full.toml"), unused.replace("real = \"target\", fake", "by = \"D\", fake"))
        .expect("written");
    refused(dir, &["train", "full.toml", "--out", "run"], &["D is trained by no update"]);
    fs::write(
        dir.join("r.toml"),
        fs::read_to_string(dir.join("r.toml")).expect("read") + "[method]\npredict = \"G(input)\"\n",
    )
    .expect("written");
    refused(dir, &["train", "r.toml", "--out", "run"], &["either a preset", "[method]"]);
    let zero = ["--set", "loss.lambda_l1=0", "--set", "loss.lambda_gan=0"];
    common::workshop();
    fs::write(dir.join("r.toml"), common::RECIPE).expect("written");
    refused(
        dir,
        &[&["train", "r.toml", "--out", "run"], &zero[..]].concat(),
        &["weight 0", "`loss.lambda_l1`"],
    );
}

#[test]
fn label_maps_and_missing_images() {
    let dir = workshop();
    let dir = dir.path();
    let image = |value: &dyn Fn(usize) -> f32| nifti(&[16, 16, 8], 0.0, value);
    // No two images alike: the same one in two splits is refused.
    for (k, name) in ["a", "b", "c"].into_iter().enumerate() {
        fs::write(dir.join(format!("{name}.nii")), image(&|i| ((i + 7 * k) % 97) as f32)).expect("written");
        fs::write(dir.join(format!("{name}-seg.nii")), image(&|i| [0.0, 1.0, 2.0, 4.0][i % 4]))
            .expect("written");
    }
    fs::write(dir.join("three.nii"), image(&|i| [0.0, 3.0][i % 2])).expect("written");
    fs::write(dir.join("half.nii"), image(&|i| [0.0, 0.5][i % 2])).expect("written");
    let list =
        "subject,split,t1ce,tumour\na,train,a.nii,SEG\nb,val,b.nii,b-seg.nii\nc,test,c.nii,c-seg.nii\n";
    let source = "phantom = { dir = \"ph\", subjects = 6, size = [24, 28, 24], spacing = 8.0 }";
    fs::write(dir.join("m.toml"), SEGMENTATION.replace(source, "manifest = \"list.csv\"")).expect("written");
    for (seg, words) in [
        ("three.nii", ["three.nii", "label 3", "data.labels.values"]),
        ("half.nii", ["half.nii", "label 0.5", "data.labels.values"]),
        ("", ["subject a", "no `tumour` image", "add it"]),
        ("none.nii", ["none.nii", "does not exist", "subject a"]),
    ] {
        fs::write(dir.join("list.csv"), list.replace("SEG", seg)).expect("written");
        refused(dir, &["train", "m.toml", "--out", "run"], &words);
    }
    fs::write(dir.join("list.csv"), list.replace("SEG", "a-seg.nii")).expect("written");
    gan(dir, &["train", "m.toml", "--out", "run", "--quiet"]).ok();
    // Folds.
    let splits = |text: &str, words: &[&str]| {
        fs::write(dir.join("splits.json"), text).expect("written");
        let set = ["--set", "data.fold=0", "--set", "data.splits=splits.json"];
        refused(dir, &[&["train", "m.toml", "--out", "other"], &set[..]].concat(), words);
    };
    splits("{}", &["splits.json", "no list of splits"]);
    splits("[]", &["`fold = 0`", "0 folds"]);
    splits("[{\"train\": [\"a\"], \"val\": [\"a\"]}]", &["splits.json", "subject a", "train and in val"]);
    splits("[{\"train\": [\"a\"], \"val\": [\"z\"]}]", &["no subject z", "fold 0"]);
    splits("[{\"train\": [\"a\"], \"val\": [\"c\"]}]", &["subject c", "test split"]);
}

#[test]
fn predictions() {
    let dir = workshop();
    let dir = dir.path();
    let set = ["--set", "data.input=[\"t1ce\", \"flair\"]"];
    gan(dir, &[&["train", "seg.toml", "--out", "two", "--quiet"], &set[..]].concat()).ok();
    let t1 = "ph/sub-0001/anat/sub-0001_T1w.nii.gz";
    // A modality is missing.
    refused(
        dir,
        &["predict", "two", t1, "--out", "p"],
        &["two takes 2 images a subject (t1ce, flair), 1 given", "in this order"],
    );
    let out = gan(dir, &["predict", "two", "--out", "p"]);
    assert!(out.code == Some(2) && out.stderr.contains("name the images"), "{}", out.stderr);
    let frames = nifti(&[24, 28, 24, 4], 0.0, |i| i as f32);
    fs::write(dir.join("frames.nii"), frames).expect("written");
    refused(
        dir,
        &["predict", "two", t1, "frames.nii", "--out", "p"],
        &["frames.nii", "4 frames", "split or average"],
    );
    // Weights of a network with another number of channels.
    gan(dir, &["train", "seg.toml", "--out", "one", "--quiet"]).ok();
    for which in ["best", "last"] {
        let file = format!("checkpoints/{which}_net_U.safetensors");
        fs::copy(dir.join("one").join(&file), dir.join("two").join(&file)).expect("copied");
    }
    refused(dir, &["predict", "two", t1, t1, "--out", "p"], &["net_U.safetensors", "another architecture"]);
    // Where the true target says where to look.
    let set = ["--set", "data.window=target", "--set", "data.canvas=[16, 16]"];
    gan(dir, &[&["train", "seg.toml", "--out", "oracle", "--quiet"], &set[..]].concat()).ok();
    refused(dir, &["predict", "oracle", t1, "--out", "p"], &["`data.window`", "brightest"]);
    let told = gan(dir, &["evaluate", "oracle"]).ok().stdout;
    assert!(told.contains("an upper bound, no result"), "{told}");
}
