//! Weights within today's checkpoints: PyTorch's wrappers, Lightning, MONAI. Read without running anything.

#![allow(missing_docs)]

mod common;

use gan::weights::{Kind, StateDict};
use std::fs;
use std::io::Write;
use std::path::Path;

/// What a pickle of protocol 2 is put together from.
type Bytes = Vec<u8>;

fn text(s: &str) -> Bytes {
    [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat()
}

fn dict(entries: &[(Bytes, Bytes)]) -> Bytes {
    let items: Bytes = entries.iter().flat_map(|(k, v)| [k.clone(), v.clone()].concat()).collect();
    [b"}(", &items[..], b"u"].concat()
}

fn named(entries: &[(&str, Bytes)]) -> Bytes {
    dict(&entries.iter().map(|(k, v)| (text(k), v.clone())).collect::<Vec<_>>())
}

fn whole(n: usize) -> Bytes {
    [b"J", &(n as u32).to_le_bytes()[..]].concat()
}

fn tuple(items: impl IntoIterator<Item = usize>) -> Bytes {
    [b"(", &items.into_iter().flat_map(whole).collect::<Bytes>()[..], b"t"].concat()
}

/// An object of a class, as pickle writes one with attributes.
fn object(module: &str, class: &str) -> Bytes {
    [
        format!("c{module}\n{class}\n)").into_bytes(),
        b"\x81".to_vec(),
        named(&[("lr", b"G\x3f\xf0\0\0\0\0\0\0".to_vec())]),
        b"b".to_vec(),
    ]
    .concat()
}

/// Tensors of a file that PyTorch wrote, as `torch.save` writes them again: their keys and their elements.
#[derive(Default)]
struct Saved {
    storages: Vec<Bytes>,
}

impl Saved {
    /// The state dict of a fixture, `rename` being done to the keys.
    fn state_dict(&mut self, fixture: &str, rename: impl Fn(&str) -> String) -> Vec<(Bytes, Bytes)> {
        let own = read(fixture);
        let keys: Vec<String> = own.keys().map(str::to_string).collect();
        keys.iter()
            .map(|key| {
                let (shape, values) = own.get(key).unwrap();
                (text(&rename(key)), self.tensor(&shape, &values))
            })
            .collect()
    }

    fn tensor(&mut self, shape: &[usize], values: &[f32]) -> Bytes {
        let record = self.storages.len().to_string();
        self.storages.push(values.iter().flat_map(|v| v.to_le_bytes()).collect());
        let stride = (0..shape.len()).map(|i| shape[i + 1..].iter().product());
        [
            b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
            text("storage"),
            b"ctorch\nFloatStorage\n".to_vec(),
            text(&record),
            text("cpu"),
            whole(values.len()),
            b"tQK\0".to_vec(),
            tuple(shape.iter().copied()),
            tuple(stride),
            b"\x89ccollections\nOrderedDict\n)RtR".to_vec(),
        ]
        .concat()
    }

    fn file(&self, root: &[u8]) -> Bytes {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let mut put = |name: &str, data: &[u8]| {
            zip.start_file(format!("archive/{name}"), stored).unwrap();
            zip.write_all(data).unwrap();
        };
        put("data.pkl", &[&b"\x80\x02"[..], root, b"."].concat());
        put("byteorder", b"little");
        for (i, bytes) in self.storages.iter().enumerate() {
            put(&format!("data/{i}"), bytes);
        }
        zip.finish().unwrap().into_inner()
    }
}

fn read(fixture: &str) -> StateDict {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights").join(fixture);
    StateDict::read(&path).unwrap_or_else(|e| panic!("{e}"))
}

/// The generator that is found in a file has the fixture's tensors.
#[track_caller]
fn finds(file: Bytes, kind: Kind, fixture: &str, part: &str) {
    let file = StateDict::parse(file, "x.ckpt").unwrap_or_else(|e| panic!("{e}"));
    let (found, dict) = file.find(None, |d| kind.recognise(d)).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(dict.part(), part);
    let original = read(fixture);
    assert_eq!(found.tensors(&dict), kind.recognise(&original).unwrap().tensors(&original));
}

/// What an optimiser keeps: tensors by number, and lists of settings.
fn optimiser(saved: &mut Saved) -> Bytes {
    let moments = named(&[("step", whole(3)), ("exp_avg", saved.tensor(&[2], &[0.5, 0.25]))]);
    let group = named(&[("lr", b"G\x3f\xf0\0\0\0\0\0\0".to_vec()), ("params", tuple([0, 1]))]);
    named(&[("state", dict(&[(whole(0), moments)])), ("param_groups", [&b"]"[..], &group, b"a"].concat())])
}

#[test]
fn wrappers_come_off_in_any_order_and_number() {
    for wrap in
        ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod."]
    {
        let mut saved = Saved::default();
        let root = dict(&saved.state_dict("unet_instance.pth", |k| format!("{wrap}{k}")));
        finds(saved.file(&root), Kind::Pix2pixGenerator, "unet_instance.pth", "");
    }
    // A part that was compiled by itself.
    let mut saved = Saved::default();
    let root =
        dict(&saved.state_dict("resnet_instance.pth", |k| k.replacen("model.", "model._orig_mod.", 1)));
    finds(saved.file(&root), Kind::CycleganGenerator, "resnet_instance.pth", "");
}

#[test]
fn a_checkpoint_of_lightning_gives_the_network_that_is_asked_for() {
    let mut saved = Saved::default();
    let mut both = saved.state_dict("unet_batch.pth", |k| format!("generator.{k}"));
    both.extend(saved.state_dict("patch_batch.pth", |k| format!("discriminator._orig_mod.{k}")));
    both.push((text("loss.weight"), saved.tensor(&[1], &[1.0])));
    let moments = optimiser(&mut saved);
    let root = named(&[
        ("epoch", whole(7)),
        ("pytorch-lightning_version", text("2.4.0")),
        ("state_dict", dict(&both)),
        ("loops", named(&[("fit_loop", named(&[("state_dict", b"}".to_vec())]))])),
        (
            "callbacks",
            named(&[("ModelCheckpoint", named(&[("best_model_score", saved.tensor(&[], &[0.5]))]))]),
        ),
        ("optimizer_states", [&b"]"[..], &moments, b"a"].concat()),
        ("hyper_parameters", object("omegaconf.dictconfig", "DictConfig")),
    ]);
    let file = saved.file(&root);
    finds(file.clone(), Kind::Pix2pixGenerator, "unet_batch.pth", "state_dict.generator");
    finds(file.clone(), Kind::Pix2pixDiscriminator, "patch_batch.pth", "state_dict.discriminator");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("last.ckpt"), &file).unwrap();
    let args = ["import", "last.ckpt", "--as", "pix2pix-generator", "--out", "G.safetensors"];
    let out = common::gan(dir.path(), &args).ok();
    for words in [
        "read from state_dict.generator of last.ckpt",
        "left out: epoch",
        "omegaconf.dictconfig.DictConfig",
        "hyper_parameters",
    ] {
        assert!(out.stdout.contains(words), "no `{words}` in {}", out.stdout);
    }
    let told = common::gan(dir.path(), &["info", "last.ckpt"]).ok().stdout;
    for words in ["state_dict:", "generator.model.model.0.weight [", "hyper_parameters"] {
        assert!(told.contains(words), "no `{words}` in {told}");
    }
    let again = common::gan(dir.path(), &args);
    assert!(again.code == Some(1) && again.stderr.contains("--force"), "{}", again.stderr);
    common::gan(dir.path(), &[&args[..], &["--force"]].concat()).ok();
}

#[test]
fn checkpoints_of_monai_and_others_are_searched() {
    for key in ["net", "model", "generator", "params"] {
        let mut saved = Saved::default();
        let weights = dict(&saved.state_dict("resnet_instance.pth", |k| format!("module.{k}")));
        let root = named(&[(key, weights), ("optimizer", optimiser(&mut saved)), ("epoch", whole(3))]);
        finds(saved.file(&root), Kind::CycleganGenerator, "resnet_instance.pth", key);
    }
}

#[test]
fn of_several_that_fit_one_must_be_named() {
    let mut saved = Saved::default();
    let mut both = saved.state_dict("resnet_instance.pth", |k| format!("G_A.{k}"));
    both.extend(saved.state_dict("resnet_instance.pth", |k| format!("G_B.{k}")));
    let file = saved.file(&named(&[("state_dict", dict(&both))]));
    let parsed = StateDict::parse(file, "x.ckpt").unwrap();
    let find = |part: Option<&str>| parsed.find(part, |d| Kind::CycleganGenerator.recognise(d));
    let e = find(None).unwrap_err().to_string();
    assert!(e.contains("state_dict.G_A, state_dict.G_B") && e.contains("--part"), "{e}");
    assert_eq!(find(Some("state_dict.G_B")).unwrap().1.part(), "state_dict.G_B");
    let e = find(Some("G_C")).unwrap_err().to_string();
    assert!(e.contains("no part G_C") && e.contains("state_dict.G_A"), "{e}");
}

#[test]
fn an_unknown_file_lists_what_it_has_beside_what_is_expected() {
    let mut saved = Saved::default();
    let renamed = |k: &str| k.replace("model.0.", "first.");
    let root = dict(&saved.state_dict("patch_batch.pth", renamed));
    let dict = StateDict::parse(saved.file(&root), "x.pth").unwrap();
    let e = Kind::Pix2pixDiscriminator.recognise(&dict).unwrap_err().to_string();
    assert!(e.contains("no tensor model.0.weight") && e.contains("first.weight"), "{e}");
    let spec = Kind::Pix2pixDiscriminator.recognise(&read("patch_batch.pth")).unwrap().spec;
    let e = dict.check(&spec).unwrap_err().to_string();
    for words in [
        "expected, but not there: model.0.weight, model.0.bias",
        "there, but not expected: first.bias, first.weight",
    ] {
        assert!(e.contains(words), "no `{words}` in {e}");
    }
    assert!(e.lines().count() == 1, "{e}");
}

#[test]
fn what_is_beside_the_weights_is_not_run_and_alone_is_refused() {
    let mut saved = Saved::default();
    let weights = dict(&saved.state_dict("patch_batch.pth", str::to_string));
    let evil = b"cposix\nsystem\nX\x04\0\0\0true\x85R".to_vec();
    let file = saved.file(&named(&[("net", weights.clone()), ("args", evil.clone())]));
    let parsed = StateDict::parse(file, "x.pth").unwrap();
    let (_, found) = parsed.find(None, |d| Kind::Pix2pixDiscriminator.recognise(d)).unwrap();
    assert_eq!(parsed.left_out(&found), ["args", "objects of posix.system, none of which was run"]);
    // In a state dict itself nothing else has a place.
    let inside = [&weights[..weights.len() - 1], &text("x"), &evil, b"u"].concat();
    for root in [inside, object("models", "UNet")] {
        let e = StateDict::parse(saved.file(&root), "x.pth").unwrap_err().to_string();
        assert!(e.contains("asks for"), "{e}");
    }
}
