//! Bad input: every case ends with one sentence that names the file or the key, the right exit code, and nothing written.

#![allow(missing_docs)]

mod common;

use common::{Outcome, command, finish, gan, nifti, not_checked, tree, workshop};
use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What may stand before the error: how a run begins.
const NOTES: [&str; 7] =
    ["data: ", "note: ", "splits: ", "networks: ", "a step: ", "training: ", "resuming "];

thread_local! {
    /// What is wrong in this test, so that one bad sentence does not hide the next.
    static FAULTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Fails the test at its end if any case went wrong.
struct Verdict;

impl Drop for Verdict {
    fn drop(&mut self) {
        let faults = FAULTS.take();
        if !std::thread::panicking() {
            assert!(faults.is_empty(), "{} faults:\n\n{}", faults.len(), faults.join("\n\n"));
        }
    }
}

fn fault(case: &str, what: &str, text: &str) {
    FAULTS.with_borrow_mut(|f| f.push(format!("{case}\n  {what}\n  {}", text.trim_end())));
}

/// One sentence, the right code, no panic.
fn assert_refused(case: &str, out: &Outcome, code: i32, words: &[&str]) {
    let text = &out.stderr;
    if out.code != Some(code) {
        fault(case, &format!("exit code {:?} instead of {code}", out.code), text);
    }
    if text.contains("panicked") || text.contains("RUST_BACKTRACE") {
        fault(case, "a panic", text);
    }
    // What the command line's parser refuses comes with the usage.
    if !text.contains("Usage:") && !text.starts_with("error: ") {
        let lines: Vec<&str> = text.lines().filter(|l| !NOTES.iter().any(|n| l.starts_with(n))).collect();
        let one = lines.len() == 1 && lines[0].starts_with("gan: ");
        if !one || lines[0].len() > 600 || lines[0].contains("  ") {
            fault(case, "not one plain line", text);
        }
        if one && !lines[0]["gan: ".len()..].contains([';', ':']) {
            fault(case, "no way out", text);
        }
    }
    for word in words.iter().filter(|w| !text.contains(**w)) {
        fault(case, &format!("no `{word}`"), text);
    }
}

/// Runs the program, which must refuse and leave everything below `dir` as it was.
fn refused(dir: &Path, args: &[&str], code: i32, words: &[&str]) {
    let case = args.join(" ");
    let before = tree(dir);
    let out = gan(dir, args);
    assert_refused(&case, &out, code, words);
    let after = tree(dir);
    let mut changed: Vec<_> =
        after.iter().filter(|(p, h)| before.get(*p) != Some(h)).map(|(p, _)| p).collect();
    changed.extend(before.keys().filter(|p| !after.contains_key(*p)));
    if !changed.is_empty() {
        fault(&case, &format!("changed {changed:?}"), "");
    }
}

/// A workshop with its phantom.
fn with_phantom() -> tempfile::TempDir {
    let dir = workshop();
    gan(dir.path(), &["phantom", "ph", "--subjects", "6", "--size", "24,28,24", "--spacing", "8"]).ok();
    dir
}

/// A workshop with a run of three steps in `run`.
fn with_run(set: &[&str]) -> tempfile::TempDir {
    let dir = with_phantom();
    let mut args = vec!["train", "r.toml", "--out", "run", "--steps", "3", "--quiet"];
    set.iter().for_each(|s| args.extend(["--set", s]));
    gan(dir.path(), &args).ok();
    dir
}

const T1: &str = "ph/sub-0001/anat/sub-0001_T1w.nii.gz";
const T2: &str = "ph/sub-0001/anat/sub-0001_T2w.nii.gz";

#[test]
fn command_lines() {
    let _verdict = Verdict;
    let dir = workshop();
    let dir = dir.path();
    let cases: [(&[&str], i32, &[&str]); 15] = [
        (&[], 2, &["Usage"]),
        (&["trian", "r.toml"], 2, &["trian", "train"]),
        (&["train", "r.toml", "--stesp", "3"], 2, &["--stesp", "--steps"]),
        (&["train"], 2, &["RECIPE"]),
        (&["train", "r.toml", "--steps", "0"], 2, &["--steps 0", "at least one step"]),
        (&["train", "r.toml", "--steps", "many"], 2, &["--steps", "many"]),
        (&["train", "r.toml", "--threads", "0"], 2, &["--threads 0", "at least one thread"]),
        (&["train", "r.toml", "--device", "gpu"], 2, &["gpu", "cuda"]),
        (&["train", "r.toml", "--set", "train.batch"], 2, &["--set train.batch", "key=value"]),
        (&["train", "r.toml", "--set", "=3"], 2, &["--set =3", "train.batch"]),
        (&["train", "r.toml", "--set", "name.x=3"], 2, &["name.x=3", "holds a value"]),
        (&["predict", "run", T1], 2, &["--out"]),
        (&["evaluate"], 2, &["RUN"]),
        (&["evaluate", "run", "--split", "foo"], 2, &["--split foo", "train, val or test"]),
        (&["info", "nothing.nii"], 1, &["nothing.nii", "does not exist"]),
    ];
    for (args, code, words) in cases {
        refused(dir, args, code, words);
    }
}

#[test]
fn recipes() {
    let _verdict = Verdict;
    let dir = with_phantom();
    let dir = dir.path();
    fs::write(dir.join("broken.toml"), "name = \"x\"\nseed = \n").unwrap();
    fs::write(dir.join("list.toml"), "name = \"x\"\nmodel = [1, 2\n").unwrap();
    fs::write(dir.join("binary.toml"), [0u8, 159, 146, 150, 255]).unwrap();
    fs::write(dir.join("empty.toml"), "").unwrap();
    let files: [(&str, &[&str]); 6] = [
        ("no.toml", &["no.toml", "check the path"]),
        ("broken.toml", &["broken.toml, line 2", "TOML"]),
        ("list.toml", &["list.toml, line 2", "TOML"]),
        ("binary.toml", &["binary.toml", "no text file"]),
        ("empty.toml", &["empty.toml", "`name` is missing"]),
        ("ph", &["ph"]),
    ];
    for (file, words) in files {
        refused(dir, &["train", file, "--out", "run"], 1, words);
    }
    let keys: [(&str, &[&str]); 35] = [
        ("train.bach=4", &["r.toml", "`train.bach`", "did you mean `batch`?"]),
        ("trian.batch=4", &["`trian`", "did you mean `train`?"]),
        ("model.generator.nfg=4", &["nfg", "did you mean `ngf`?"]),
        ("data.phantom.subject=4", &["subject", "did you mean `subjects`?"]),
        ("data.augment.flipp=0.5", &["flipp", "did you mean `flip`?"]),
        ("train.batch=many", &["`train.batch`", "a whole number", "many"]),
        ("train.batch=-1", &["`train.batch`"]),
        ("train.batch=2.5", &["`train.batch`"]),
        ("train.batch=0", &["`train.batch`"]),
        ("train.batch=1000000", &["`train.batch`"]),
        ("train.batch=500", &["`train.batch` is 500", "slices", "lower it"]),
        ("train.workers=100000", &["`train.workers`"]),
        ("optimiser.lr=-1", &["`optimiser.lr`", "positive"]),
        ("optimiser.lr=\"fast\"", &["`optimiser.lr`", "expected a number"]),
        ("train=3", &["`train`", "a table of keys"]),
        ("data.input=3", &["`data.input`", "a list"]),
        ("optimiser.ema=1", &["`optimiser.ema`"]),
        ("optimiser.schedule.kind=liner", &["liner", "did you mean `linear`?"]),
        ("optimiser.rule.kind=adamm", &["adamm", "did you mean `adam`?"]),
        ("validate.metric=psnrr", &["`validate.metric`", "did you mean `psnr`?"]),
        ("model.kind=pix3pix", &["pix3pix", "did you mean `pix2pix`?"]),
        ("model.generator.downs=1", &["`model.generator.downs`", "between 2 and 10"]),
        ("model.generator.ngf=0", &["`model.generator.ngf`"]),
        ("model.generator.dropout=1.5", &["`model.generator.dropout`"]),
        ("model.discriminator.layers=8", &["32 x 24", "too small", "model.discriminator.layers"]),
        ("loss.pool=1000000000", &["`loss.pool`"]),
        ("loss.gan=lsgann", &["`loss.gan`", "did you mean `lsgan`?"]),
        ("data.canvas=[0, 32]", &["`canvas = [0, 32]`"]),
        ("data.canvas=[100000, 100000]", &["`canvas = [100000, 100000]`", "8192"]),
        ("data.canvas=[30, 30]", &["`canvas = [30, 30]`", "[32, 32]"]),
        ("data.input=[]", &["`input`"]),
        ("data.input=[\"t9\"]", &["`t9`", "did you mean"]),
        ("data.manifest=x.csv", &["exclude each other"]),
        ("data.phantom.size=[4, 4, 4]", &["`size = [4, 4, 4]`"]),
        ("data.phantom.subjects=7", &["ph", "subjects: 6 there, 7 asked"]),
    ];
    for (set, words) in keys {
        refused(dir, &["train", "r.toml", "--out", "run", "--set", set], 1, words);
    }
    let huge = ["data.canvas=[8192, 8192]", "model.generator.ngf=512", "train.batch=60"];
    let mut args = vec!["train", "r.toml", "--out", "run"];
    huge.iter().for_each(|s| args.extend(["--set", s]));
    refused(dir, &args, 1, &["GiB of memory", "`data.canvas`"]);
}

#[test]
fn images() {
    let _verdict = Verdict;
    let dir = workshop();
    let dir = dir.path();
    let ramp = |i: usize| (i % 97) as f32;
    let good = nifti(&[16, 16, 8], 0.0, ramp);
    // No two alike: the same image in two splits is refused.
    for (k, name) in ["a1", "a2", "b1", "b2", "c1", "c2"].into_iter().enumerate() {
        let image = nifti(&[16, 16, 8], 0.0, |i| ((i + 7 * k) % 97) as f32);
        fs::write(dir.join(format!("{name}.nii")), image).unwrap();
    }
    let write = |name: &str, bytes: &[u8]| fs::write(dir.join(name), bytes).unwrap();
    write("truncated.nii", &good[..good.len() - 100]);
    write("headless.nii", &good[..200]);
    write("nothing.nii", b"");
    write("text.nii", "This is not an image. ".repeat(50).as_bytes());
    write("gzip.nii.gz", &[0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    write("nan.nii", &nifti(&[16, 16, 8], 0.0, |i| if i == 77 { f32::NAN } else { ramp(i) }));
    write("smaller.nii", &nifti(&[16, 15, 8], 0.0, ramp));
    write("moved.nii", &nifti(&[16, 16, 8], 3.0, ramp));
    write("frames.nii", &nifti(&[16, 16, 8, 3], 0.0, ramp));
    write("flat.nii", &nifti(&[16, 16, 8], 0.0, |_| 5.0));
    let mut lying = good.clone();
    lying[42..44].copy_from_slice(&30000u16.to_le_bytes());
    write("lying.nii", &lying);
    fs::create_dir(dir.join("folder.nii")).unwrap();
    let all = "subject,split,t1,t2\na,train,{},{}\nb,val,b1.nii,b2.nii\nc,test,c1.nii,c2.nii\n";
    let train = |csv: &str, words: &[&str]| {
        fs::write(dir.join("list.csv"), csv).unwrap();
        let recipe = common::RECIPE.replace(
            "phantom = { dir = \"ph\", subjects = 6, size = [24, 28, 24], spacing = 8.0 }",
            "manifest = \"list.csv\"\ninput = [\"t1\"]\ntarget = [\"t2\"]",
        );
        fs::write(dir.join("m.toml"), recipe).unwrap();
        refused(dir, &["train", "m.toml", "--out", "run"], 1, words);
    };
    let pair = |t1: &str, t2: &str| all.replacen("{}", t1, 1).replacen("{}", t2, 1);
    let files: [(&str, &str, &[&str]); 13] = [
        ("missing.nii", "a2.nii", &["list.csv", "subject a", "missing.nii", "does not exist"]),
        ("truncated.nii", "a2.nii", &["truncated.nii", "ends after", "fetch it again"]),
        ("headless.nii", "a2.nii", &["headless.nii", "header", "fetch it again"]),
        ("nothing.nii", "a2.nii", &["nothing.nii", "fetch it again"]),
        ("text.nii", "a2.nii", &["text.nii", "not a NIfTI file"]),
        ("gzip.nii.gz", "a2.nii", &["gzip.nii.gz", "again"]),
        ("nan.nii", "a2.nii", &["nan.nii", "1 voxels", "NaN", "data.nan"]),
        ("a1.nii", "smaller.nii", &["a1.nii", "smaller.nii", "[16, 15, 8]", "resample"]),
        ("a1.nii", "moved.nii", &["a1.nii", "moved.nii", "3.000 mm", "resample"]),
        ("frames.nii", "a2.nii", &["frames.nii", "3 frames", "data.frame"]),
        ("flat.nii", "a2.nii", &["`train`", "min_foreground"]),
        ("lying.nii", "a2.nii", &["lying.nii", "fetch it again"]),
        ("folder.nii", "a2.nii", &["folder.nii"]),
    ];
    for (t1, t2, words) in files {
        train(&pair(t1, t2), words);
    }
    let whole = pair("a1.nii", "a2.nii");
    train(&whole.replace(",val,", ",train,"), &["list.csv", "no subject is in the split `val`"]);
    train(&whole.replace(",train,", ",val,"), &["list.csv", "no subject is in the split `train`"]);
    train(&whole.replace(",val,", ",vla,"), &["list.csv, line 3", "`vla`", "train, val or test"]);
    train(&whole.replace("subject,", "person,"), &["list.csv", "no column `subject`"]);
    train(&whole.replace("c,test", "a,test"), &["list.csv", "subject a", "one split only"]);
    train(&format!("{whole}d,train\n"), &["list.csv", "line"]);
    train("subject,split,t1,t2\n", &["list.csv", "lists no subject"]);
    train("", &["list.csv"]);
    fs::remove_file(dir.join("list.csv")).unwrap();
    refused(dir, &["train", "m.toml", "--out", "run"], 1, &["list.csv", "check the path"]);
    refused(dir, &["info", "headless.nii"], 1, &["headless.nii"]);
}

#[test]
fn outputs() {
    let _verdict = Verdict;
    let dir = with_phantom();
    let dir = dir.path();
    fs::create_dir(dir.join("mine")).unwrap();
    fs::write(dir.join("mine/data.json"), "precious").unwrap();
    fs::write(dir.join("mine/notes.txt"), "precious").unwrap();
    let out = |path: &str, words: &[&str]| refused(dir, &["train", "r.toml", "--out", path], 1, words);
    out("r.toml/run", &["r.toml/run", "check the path"]);
    out("r.toml", &["r.toml is a file", "--out"]);
    out("mine", &["mine is no run folder", "--out"]);
    out("ph", &["ph is no run folder", "--out"]);
    if Path::new("/proc/self").exists() {
        out("/proc/no/run", &["/proc/no/run"]);
    }
    let phantom = &["phantom", "r.toml/ph", "--subjects", "1"];
    refused(dir, phantom, 1, &["r.toml"]);
    gan(dir, &["train", "r.toml", "--out", "run", "--steps", "2", "--quiet"]).ok();
    out("run", &["run holds a run already", "--resume"]);
    refused(dir, &["predict", "run", T1, "--out", "r.toml/x"], 1, &["r.toml/x"]);
    refused(dir, &["evaluate", "run", "--json", "r.toml/x.json"], 1, &["r.toml/x.json"]);
}

/// The program under a shell's limit on the size of files, whose excess is then an error like a full disk's.
fn limited(dir: &Path, blocks: u32, args: &[&str]) -> Outcome {
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    shell
        .args(["-c", &script, env!("CARGO_BIN_EXE_gan")])
        .args(args)
        .current_dir(dir)
        .env("CUDA_VISIBLE_DEVICES", "");
    finish(shell)
}

#[test]
fn files_that_may_not_grow() {
    let _verdict = Verdict;
    let dir = with_phantom();
    let dir = dir.path();
    // Not even the recipe can be written: no run is left.
    let before = tree(dir);
    let out = limited(dir, 0, &["train", "r.toml", "--out", "none"]);
    assert_refused("no space at all", &out, 1, &["none/", "free some space"]);
    assert_eq!(tree(dir), before, "something was left");
    // The run begins, but its state does not fit.
    let out = limited(dir, 40, &["train", "r.toml", "--out", "some", "--quiet"]);
    assert_refused("no space for a checkpoint", &out, 1, &["some/", "free some space", "--resume"]);
    assert_eq!(common::leftovers(dir), Vec::<std::path::PathBuf>::new());
    assert!(dir.join("some/recipe.toml").exists());
    // With space again it goes on, and ends as if nothing had happened.
    gan(dir, &["train", "r.toml", "--out", "some", "--resume", "--quiet"]).ok();
    gan(dir, &["train", "r.toml", "--out", "whole", "--quiet"]).ok();
    for file in ["checkpoints/last_state.safetensors", "metrics.csv"] {
        assert_eq!(
            common::sha256(&dir.join("some").join(file)),
            common::sha256(&dir.join("whole").join(file))
        );
    }
    let before = tree(dir);
    let out = limited(dir, 8, &["predict", "whole", T1, "--out", "predicted"]);
    assert_refused("no space for a prediction", &out, 1, &["predicted/", "free some space"]);
    let out = limited(dir, 8, &["phantom", "other", "--subjects", "1", "--size", "24,28,24"]);
    assert_refused("no space for a phantom", &out, 1, &["free some space"]);
    assert_eq!(tree(dir), before, "something was left");
}

/// On a file system of 64 KiB that is really full, in a mount namespace of its own.
#[test]
fn a_full_disk() {
    let _verdict = Verdict;
    let dir = with_phantom();
    let dir = dir.path();
    fs::create_dir(dir.join("disk")).unwrap();
    let script =
        "mount -t tmpfs -o size=64k tmpfs disk || exit 99; \"$0\" \"$@\"; code=$?; find disk; exit $code";
    let mut shell = Command::new("unshare");
    let train = ["train", "r.toml", "--out", "disk/run", "--quiet"];
    shell
        .args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_gan")])
        .args(train)
        .current_dir(dir)
        .env("CUDA_VISIBLE_DEVICES", "");
    let Ok(out) = shell.output() else { return not_checked("there is no `unshare` to mount a small disk") };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let out = Outcome { code: out.status.code(), stdout: text(&out.stdout), stderr: text(&out.stderr) };
    if out.code != Some(1) && !out.stderr.contains("gan: ") {
        return not_checked(&format!("no small disk could be mounted ({})", out.stderr.trim()));
    }
    assert_refused("a full disk", &out, 1, &["disk/run/", "No space left", "free some space"]);
    assert!(!out.stdout.contains(".tmp"), "{}", out.stdout);
}

#[test]
fn full_streams() {
    let _verdict = Verdict;
    if !Path::new("/dev/full").exists() {
        return not_checked("there is no /dev/full");
    }
    let dir = with_phantom();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut results = command(dir.path(), &["info", T1]);
    let out = results.stdout(full()).stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output();
    let out = out.unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("standard output"));
    // Notes are not results: that they can't be shown ends no training.
    let mut notes = command(dir.path(), &["train", "r.toml", "--out", "run", "--steps", "2"]);
    assert!(notes.stderr(full()).status().unwrap().success());
}

#[test]
fn checkpoints() {
    let _verdict = Verdict;
    let dir = with_run(&[]);
    let dir = dir.path();
    let weights = dir.join("run/checkpoints/last_net_G.safetensors");
    let state = dir.join("run/checkpoints/last_state.safetensors");
    let predict = ["predict", "run", T1, "--out", "predicted", "--checkpoint", "last"];
    let resume = ["train", "r.toml", "--out", "run", "--steps", "3", "--resume"];
    for (path, args) in [(&weights, &predict[..]), (&state, &resume[..])] {
        let name = path.file_name().unwrap().to_str().unwrap();
        let whole = fs::read(path).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        let mut header = whole.clone();
        header[3] = 255;
        let damages: [(&[u8], &str); 6] = [
            (&whole[..whole.len() - 1], "damaged"),
            (&whole[..100], "damaged"),
            (&[], "damaged"),
            (&flipped, "checksum"),
            (&header, "damaged"),
            (b"garbage garbage garbage", "damaged"),
        ];
        for (bytes, word) in damages {
            fs::write(path, bytes).unwrap();
            refused(dir, args, 1, &[name, word]);
        }
        fs::remove_file(path).unwrap();
        if path == &weights {
            refused(dir, args, 1, &[name]);
        }
        fs::write(path, &whole).unwrap();
        gan(dir, args).ok();
        let _ = fs::remove_dir_all(dir.join("predicted"));
    }
    // Another network's weights.
    let own = fs::read(&weights).unwrap();
    fs::copy(dir.join("run/checkpoints/last_net_D.safetensors"), &weights).unwrap();
    refused(dir, &predict, 1, &["last_net_G.safetensors", "another architecture"]);
    gan(
        dir,
        &["train", "r.toml", "--out", "wide", "--steps", "2", "--quiet", "--set", "model.generator.ngf=6"],
    )
    .ok();
    fs::copy(dir.join("wide/checkpoints/last_net_G.safetensors"), &weights).unwrap();
    refused(dir, &predict, 1, &["last_net_G.safetensors", "another architecture", "\"ngf\":6", "\"ngf\":4"]);
    fs::write(&weights, own).unwrap();
    fs::copy(dir.join("wide/checkpoints/last_state.safetensors"), &state).unwrap();
    refused(dir, &resume, 1, &["last_state.safetensors", "--out"]);
    // The folder around them.
    for (file, bytes) in [("data.json", "{\"canvas\": [1"), ("recipe.toml", "name = \"x\"\n")] {
        let path = dir.join("run").join(file);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        refused(dir, &predict, 1, &[file]);
        fs::write(&path, whole).unwrap();
    }
    fs::remove_file(dir.join("run/data.json")).unwrap();
    refused(dir, &predict, 1, &["data.json"]);
    refused(dir, &["predict", "ph", T1, "--out", "predicted"], 1, &["ph is no run folder"]);
    refused(dir, &["predict", "no", T1, "--out", "predicted"], 1, &["no is no run folder"]);
    refused(dir, &["evaluate", "ph"], 1, &["ph is no run folder"]);
    refused(dir, &["info", "ph"], 1, &["ph is no run folder"]);
}

#[test]
fn predictions_and_evaluations() {
    let _verdict = Verdict;
    let dir = with_run(&["data.input=[\"t1\", \"t2\"]"]);
    let dir = dir.path();
    let predict = |inputs: &[&str], code: i32, words: &[&str]| {
        let mut args = vec!["predict", "run", "--out", "predicted"];
        args.extend(inputs);
        refused(dir, &args, code, words);
    };
    fs::create_dir_all(dir.join("a")).unwrap();
    fs::create_dir_all(dir.join("b")).unwrap();
    fs::copy(dir.join(T1), dir.join("a/x.nii.gz")).unwrap();
    fs::copy(dir.join(T1), dir.join("b/x.nii.gz")).unwrap();
    fs::write(dir.join("garbage.nii"), "garbage ".repeat(100)).unwrap();
    fs::write(dir.join("small.nii"), nifti(&[16, 16, 8], 0.0, |i| i as f32)).unwrap();
    predict(&[T1], 1, &["2 images a subject (t1, t2)", "1 given"]);
    predict(&[T1, T2, T1], 1, &["2 images a subject (t1, t2)", "3 given"]);
    predict(
        &["a/x.nii.gz", T2, "b/x.nii.gz", T2],
        1,
        &["a/x.nii.gz", "b/x.nii.gz", "x_desc-synth_pet.nii.gz", "--out"],
    );
    predict(&[T1, "missing.nii"], 1, &["missing.nii", "check the path"]);
    predict(&[T1, "garbage.nii"], 1, &["garbage.nii", "not a NIfTI file"]);
    // A later subject's fault is found before the first prediction is written.
    predict(&[T1, T2, "a/x.nii.gz", "garbage.nii"], 1, &["garbage.nii"]);
    predict(&[T1, "small.nii"], 1, &["T1w.nii.gz", "small.nii", "resample"]);
    // The output's place is taken by a link to the input.
    #[cfg(unix)]
    {
        fs::create_dir(dir.join("links")).unwrap();
        std::os::unix::fs::symlink(dir.join("a/x.nii.gz"), dir.join("links/x_desc-synth_pet.nii.gz"))
            .unwrap();
        let own = ["predict", "run", "a/x.nii.gz", T2, "--out", "links"];
        refused(dir, &own, 1, &["overwrite the input a/x.nii.gz", "--out"]);
    }

    let ramp = |i: usize| (i % 97) as f32;
    let write = |name: &str, bytes: &[u8]| {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), bytes).unwrap();
    };
    write("good/x.nii", &nifti(&[16, 16, 12], 0.0, ramp));
    write("truth/x.nii", &nifti(&[16, 16, 12], 0.0, |i| ramp(i) + 1.0));
    write("other/y.nii", &nifti(&[16, 16, 12], 0.0, ramp));
    write("small/x.nii", &nifti(&[16, 15, 12], 0.0, ramp));
    write("moved/x.nii", &nifti(&[16, 16, 12], 1.0, ramp));
    write("flat/x.nii", &nifti(&[16, 16, 12], 0.0, |_| 1.0));
    write("thin/x.nii", &nifti(&[16, 16, 2], 0.0, ramp));
    write("broken/x.nii", b"broken");
    fs::create_dir(dir.join("empty")).unwrap();
    gan(dir, &["evaluate", "--predictions", "good", "--references", "truth"]).ok();
    type Case<'a> = (&'a str, &'a str, &'a [&'a str], i32, &'a [&'a str]);
    let cases: [Case; 12] = [
        ("good", "other", &[], 1, &["x has no counterpart in other"]),
        ("good", "small", &[], 1, &["x: ", "[16, 16, 12] and [16, 15, 12]", "resample"]),
        ("good", "moved", &[], 1, &["x: ", "different affines", "resample"]),
        ("good", "empty", &[], 1, &["empty holds no .nii"]),
        ("good", "nowhere", &[], 1, &["nowhere", "check the path"]),
        ("good", "broken", &[], 1, &["broken/x.nii"]),
        ("good", "flat", &[], 1, &["constant", "--range"]),
        ("thin", "thin", &[], 1, &["x", "SSIM"]),
        ("good", "truth", &["--mask", "other"], 1, &["x has no counterpart in other"]),
        ("good", "truth", &["--mask", "small"], 1, &["resample"]),
        ("good", "truth", &["--range", "0"], 2, &["--range 0"]),
        ("good", "truth", &["--json", "r.toml/x"], 1, &["r.toml/x"]),
    ];
    for (predictions, references, more, code, words) in cases {
        let mut args = vec!["evaluate", "--predictions", predictions, "--references", references];
        args.extend(more);
        refused(dir, &args, code, words);
    }
}
