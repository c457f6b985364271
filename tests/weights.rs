//! Weights that PyTorch wrote: they are read without running anything, and the networks give PyTorch's answers.
//!
//! `tests/python/write_state_dicts.py` made the files in `tests/weights`.

#![allow(missing_docs)]

mod common;

use clap::ValueEnum;
use gan::dtype::DType;
use gan::exec::{Program, States};
use gan::graph::Var;
use gan::methods::step::StepBuilder;
use gan::models::{Network, Signature, Wanted};
use gan::nn::{Ctx, NetSpec};
use gan::weights::{Kind, Recognised, StateDict};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Key, extents, elements.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weights").join(name)
}

fn read(name: &str) -> StateDict {
    StateDict::read(&fixture(name)).unwrap_or_else(|e| panic!("{e}"))
}

/// `[n, c, spatial..]` to `[n, spatial.., c]`, or back.
fn channels_last(shape: &[usize], x: &[f32], last: bool) -> Vec<f32> {
    let (n, c) = (shape[0], shape[1]);
    let s: usize = shape[2..].iter().product();
    let mut out = vec![0.0; x.len()];
    for i in 0..n {
        for j in 0..c {
            for k in 0..s {
                let (first, behind) = ((i * c + j) * s + k, (i * s + k) * c + j);
                if last { out[behind] = x[first] } else { out[first] = x[behind] }
            }
        }
    }
    out
}

fn trace(found: &Recognised, cx: &Ctx, x: &Var) -> Var {
    let shape = x.shape();
    let size = found.size.map_or_else(|| shape[1..shape.rank() - 1].to_vec(), |n| vec![n; 2]);
    found.network.forward(cx, x, &Wanted { channels: found.outputs, size }).remove(0)
}

/// The network's output for an input in PyTorch's order, in PyTorch's order.
fn answer(found: &Recognised, dict: &StateDict, shape: &[usize], x: &[f32]) -> Vec<f32> {
    let spec: &NetSpec = &found.spec;
    let mut states = States::new();
    spec.initialise::<f32>(&mut states, 0, 1);
    spec.import(&mut states, dict.source(), |key| dict.get(key)).unwrap();
    let step = StepBuilder::new(DType::F32, 0);
    let own = if found.network.signature() == Signature::Noise {
        vec![shape[0], shape[1]]
    } else {
        [&shape[..1], &shape[2..], &shape[1..2]].concat()
    };
    let input = step.graph().input("x", own);
    let net = step.bind(spec, 1);
    let y = trace(found, &step.eval(&net), &input);
    let mut program = Program::new(step.graph(), &[("y", &y)]).unwrap();
    program.run(&mut states, &[("x", &channels_last(shape, x, true)), ("step", &[0f32; 2])]);
    let out = program.output::<f32>(&mut states, "y");
    let s = y.shape();
    if s.rank() < 3 {
        return out;
    }
    let theirs = [&s[..1], &s[s.rank() - 1..], &s[1..s.rank() - 1]].concat();
    channels_last(&theirs, &out, false)
}

#[test]
fn networks_written_by_pytorch_give_pytorchs_answers() {
    let list = fs::read_to_string(fixture("networks.txt")).unwrap();
    let mut seen = 0;
    for (name, kind) in list.lines().map(|l| l.split_once(' ').unwrap()) {
        let kind = Kind::from_str(kind, false).unwrap();
        let io = read(&format!("{name}_io.pth"));
        let ((shape, x), (_, expected)) = (io.get("x").unwrap(), io.get("y").unwrap());
        for file in [format!("{name}.pth"), format!("{name}_legacy.pth")] {
            if !fixture(&file).exists() {
                continue;
            }
            let dict = read(&file);
            let found = kind.recognise(&dict).unwrap_or_else(|e| panic!("{e}"));
            let got = answer(&found, &dict, &shape, &x);
            assert_eq!(got.len(), expected.len(), "{file}");
            // Sums of up to a few hundred products in another order, relative to the largest answer.
            let scale = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
            let worst = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(worst <= 1e-5 * scale, "{file}: {worst} of {scale}");
            seen += 1;
        }
    }
    assert_eq!(seen, 12);
}

#[test]
fn every_type_view_prefix_and_wrapper_is_understood() {
    let expected = read("views_expected.pth");
    for file in ["views.pth", "views_legacy.pth", "views_protocol4.pth"] {
        let dict = read(file);
        assert_eq!(dict.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{file}");
        for key in expected.keys() {
            assert_eq!(dict.get(key), expected.get(key), "{file}: {key}");
        }
    }
}

#[test]
fn imported_weights_start_a_run() {
    let dir = common::workshop();
    let out = common::gan(
        dir.path(),
        &[
            "import",
            fixture("unet_batch.pth").to_str().unwrap(),
            "--as",
            "pix2pix-generator",
            "--out",
            "G.safetensors",
        ],
    )
    .ok();
    assert!(out.stdout.contains("downs = 5"), "{}", out.stdout);
    let train = |init: &str, ngf: &str| {
        let set = [
            "train",
            "r.toml",
            "--quiet",
            "--out",
            "run",
            "--set",
            "train.steps=1",
            "--set",
            "optimiser.lr=1e-12",
            "--set",
            "model.generator.downs=5",
            "--set",
            ngf,
            "--set",
            init,
        ];
        common::gan(dir.path(), &set)
    };
    train("train.init.G=G.safetensors", "model.generator.ngf=2").ok();
    // After a step of a rate that changes nothing, the weights are those of the file.
    let (mine, theirs) =
        (StateDict::read(&dir.path().join("run/checkpoints/last_net_G.safetensors")), read("unet_batch.pth"));
    let (mine, key) = (mine.unwrap(), "model.model.1.model.3.model.1.weight");
    let (a, b) = (mine.get(key).unwrap().1, theirs.get(key).unwrap().1);
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
    fs::remove_dir_all(dir.path().join("run")).unwrap();
    for (init, ngf, why) in [
        (
            "train.init.G=G.safetensors",
            "model.generator.ngf=4",
            "model.model.0.weight has shape [2, 1, 4, 4] where G expects [4, 1, 4, 4]",
        ),
        (
            "train.init.X=G.safetensors",
            "model.generator.ngf=2",
            "`train.init.X` names no network of this recipe, which has G, D",
        ),
        ("train.init.D=G.safetensors", "model.generator.ngf=2", "there is no tensor model.0.weight"),
        ("train.init.G=none.pth", "model.generator.ngf=2", "none.pth"),
    ] {
        let out = train(init, ngf);
        assert_eq!((out.code, out.stderr.trim().lines().count()), (Some(1), 1), "{}", out.stderr);
        assert!(out.stderr.contains(why), "{}", out.stderr);
    }
}

/// A pickle of protocol 2 whose instructions are `body`.
fn pickle(body: &[u8]) -> Vec<u8> {
    [&[0x80, 2], body, b"."].concat()
}

/// A stored zip archive.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, data) in entries {
        zip.start_file(*name, stored).unwrap();
        zip.write_all(data).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn torch_file(body: &[u8], storage: &[u8]) -> Vec<u8> {
    archive(&[("a/data.pkl", &pickle(body)), ("a/data/0", storage), ("a/byteorder", b"little")])
}

/// `{"w": tensor}` of the given extents and strides over storage 0 of float32.
fn one_tensor(shape: u32, stride: u32) -> Vec<u8> {
    let mut body = b"}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0".to_vec();
    for v in [shape, stride] {
        body.push(b'J');
        body.extend(v.to_le_bytes());
        body.push(0x85);
    }
    body.extend(b"\x89ccollections\nOrderedDict\n)RtRs");
    body
}

#[track_caller]
fn refused(file: Vec<u8>, why: &str) {
    let e = StateDict::parse(file, "x.pth").expect_err("it must be refused").to_string();
    assert!(e.contains(why) && e.contains("x.pth"), "{e}");
    assert_eq!(e.lines().count(), 1, "{e}");
}

#[test]
fn the_hand_made_file_is_right_before_it_is_broken() {
    let file = torch_file(&one_tensor(4, 1), &[0; 16]);
    assert_eq!(StateDict::parse(file, "x").unwrap().get("w"), Some((vec![4], vec![0.0; 4])));
}

#[test]
fn files_that_hold_code_or_nonsense_are_refused() {
    refused(torch_file(b"cposix\nsystem\nX\x04\0\0\0true\x85R", &[]), "asks for `posix.system`");
    refused(torch_file(b"X\x02\0\0\0osX\x06\0\0\0system\x93)R", &[]), "asks for `os.system`");
    refused(torch_file(b"cbuiltins\neval\n)R", &[]), "asks for `builtins.eval`");
    refused(torch_file(b"ctorch\n_load_global_deps\n)R", &[]), "asks for `torch._load_global_deps`");
    refused(pickle(b"cposix\nsystem\n)R"), "asks for `posix.system`");
    refused(pickle(b"}"), "none of PyTorch's");
    refused(torch_file(b"]", &[]), "no state dict");
    refused(torch_file(b"}", &[]), "no tensor in it");
    refused(torch_file(b"}X\x05\0\0\0epochK\x03s", &[]), "its entry epoch is no tensor");
    refused(torch_file(b"}K\x01K\x03s", &[]), "a key is no text");
    refused(archive(&[("word/document.xml", b"<a/>")]), "something else");
    refused(archive(&[("a/data.pkl", b"\x80\x02}."), ("a/constants.pkl", b"")]), "TorchScript");
    refused(archive(&[("a/data.pkl", b"\x80\x02}."), ("a/byteorder", b"big")]), "big-endian");
    refused(b"not weights at all".to_vec(), "neither");
    refused(Vec::new(), "neither");
}

#[test]
fn broken_and_boastful_files_are_refused_without_much_memory() {
    refused(torch_file(&one_tensor(5, 1), &[0; 16]), "tensor w of shape [5] is empty or reaches beyond");
    refused(torch_file(&one_tensor(4, 2), &[0; 16]), "reaches beyond");
    refused(torch_file(&one_tensor(0, 1), &[0; 16]), "is empty");
    refused(torch_file(&one_tensor(i32::MAX as u32, i32::MAX as u32), &[0; 16]), "reaches beyond");
    refused(torch_file(&one_tensor(u32::MAX, 1), &[0; 16]), "a tensor's description");
    // Two thousand million times the same element.
    refused(torch_file(&one_tensor(i32::MAX as u32, 0), &[0; 16]), "are said to have 2147483647 elements");
    refused(archive(&[("a/data.pkl", &pickle(&one_tensor(4, 1)))]), "the elements of tensor w are not in it");
    // Deep nesting, circles, a memo that was never filled, a string of 4 GiB, more objects than a state dict has.
    refused(
        torch_file(&[&b"]"[..], &b"]".repeat(100_000), &b"a".repeat(100_000)].concat(), &[]),
        "no state dict",
    );
    refused(torch_file(b"]q\0h\0a", &[]), "no state dict");
    refused(torch_file(b"}q\0X\x01\0\0\0ah\0s", &[]), "its entry a is no tensor");
    refused(torch_file(b"j\xff\xff\xff\xff", &[]), "recalls what it never made");
    refused(torch_file(b"X\xff\xff\xff\xffabc", &[]), "in the middle of its pickle");
    refused(torch_file(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc", &[]), "in the middle of its pickle");
    refused(torch_file(&b"}".repeat(3 << 20), &[]), "more than 2097152 objects");
    for body in [&b"e"[..], b"t", b"R", b"b", b"Q", b"\x87", b"(\x85", b"s", b"u", b"a", b"(.", b"0", b"\x81"]
    {
        refused(torch_file(body, &[]), "its pickle");
    }
    let zip = fs::read(fixture("unet_batch.pth")).unwrap();
    let legacy = fs::read(fixture("unet_batch_legacy.pth")).unwrap();
    for whole in [zip, legacy] {
        for cut in [1, 3, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
            StateDict::parse(whole[..cut].to_vec(), "x").expect_err("a cut file");
        }
    }
}

#[test]
fn another_networks_weights_are_refused_by_name() {
    let fault = |file: &str, kind: Kind| kind.recognise(&read(file)).unwrap_err().to_string();
    assert!(fault("dcgan_g.pth", Kind::Pix2pixGenerator).contains("no tensor model.1.weight"));
    assert!(fault("unet_batch.pth", Kind::DcganGenerator).contains("no tensor main.0.weight"));
    assert!(fault("dcgan_g.pth", Kind::DcganDiscriminator).contains("there are 0 convolutions"));
    assert!(fault("views.pth", Kind::CycleganDiscriminator).contains("no tensor model.0.weight"));
    // One tensor more, one less, one of another shape.
    let original = read("patch_batch.pth");
    let rewritten = |change: &dyn Fn(&mut Tensors)| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let mut all: Vec<_> = original
            .keys()
            .map(|k| {
                let (shape, values) = original.get(k).unwrap();
                (k.to_string(), shape, values)
            })
            .collect();
        change(&mut all);
        gan::run::checkpoint::write(&path, all, &[]).unwrap();
        Kind::Pix2pixDiscriminator.recognise(&StateDict::read(&path).unwrap()).map_err(|e| e.to_string())
    };
    rewritten(&|_| ()).expect("the same tensors in safetensors");
    let e = rewritten(&|t| t.push(("model.99.weight".into(), vec![1], vec![0.0]))).unwrap_err();
    assert!(e.contains("tensor model.99.weight is none of"), "{e}");
    let e = rewritten(&|t| t.retain(|(k, ..)| k != "model.6.running_var")).unwrap_err();
    assert!(e.contains("no tensor model.6.running_var [12]"), "{e}");
    let misshapen = |t: &mut Tensors| {
        let i = t.iter().position(|(k, ..)| k == "model.3.weight").unwrap();
        t[i] = ("model.3.weight".into(), vec![5], vec![0.0; 5]);
    };
    let e = rewritten(&misshapen).unwrap_err();
    assert!(e.contains("model.3.weight has shape [5] where the discriminator expects [6]"), "{e}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..Default::default() })]

    /// Whatever is changed in a file, it is read or refused with one line.
    #[test]
    fn damaged_files(
        which in prop::sample::select(vec!["views.pth", "views_legacy.pth", "dcgan_d.pth", "dcgan_g_legacy.pth"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = fs::read(fixture(which)).unwrap();
        for (at, byte) in changes {
            let n = file.len();
            file[at.index(n)] = byte;
        }
        match StateDict::parse(file, "x.pth") {
            Ok(dict) => {
                for key in dict.keys() {
                    let (shape, values) = dict.get(key).unwrap();
                    prop_assert_eq!(values.len(), shape.iter().product::<usize>());
                }
                for kind in Kind::value_variants() {
                    let _ = kind.recognise(&dict);
                }
            }
            Err(e) => prop_assert_eq!(e.to_string().lines().count(), 1, "{}", e),
        }
    }
}
