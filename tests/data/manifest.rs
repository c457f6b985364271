//! Manifests, patterns and splits, and what is said when they are wrong.

use crate::message;
use gan::data::affine::Affine;
use gan::data::manifest::{Manifest, Split, deal};
use gan::data::normalise::{Method, Normalisation, Scope};
use gan::data::{DataConfig, Dataset, OpenOptions, Volume};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

const SHARES: [f64; 3] = [0.6, 0.2, 0.2];

fn csv(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("manifest.csv");
    fs::write(&path, text).unwrap();
    path
}

fn read(text: &str) -> gan::error::Result<Manifest> {
    let tmp = tempfile::tempdir().unwrap();
    Manifest::read(&csv(tmp.path(), text), &SHARES, 1)
}

#[test]
fn columns_splits_and_sessions_are_read() {
    let m = read(
        "subject,session,split,t1,pet\np1,s1,train,a.nii,b.nii\np1,s2,train,c.nii,\np2,,test,d.nii,e.nii\n",
    )
    .unwrap();
    assert_eq!(m.modalities, ["t1", "pet"]);
    let ids: Vec<&str> = m.entries.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["p1_s1", "p1_s2", "p2"]);
    assert_eq!(m.part(Split::Train).unwrap().len(), 2);
    assert!(m.entries[0].files["t1"].ends_with("a.nii") && m.entries[0].files["t1"].is_absolute());
    assert!(!m.entries[1].files.contains_key("pet"));
}

#[test]
fn tables_of_other_programs_are_read_and_that_is_said() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("manifest.csv");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Manifest::read(&path, &SHARES, 1).unwrap_or_else(|e| panic!("{e}"))
    };
    let plain = "subject;split;t1\r\np1;train;a,b.nii\r\n";
    let wide: Vec<u8> = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, words) in [
        (plain.as_bytes().to_vec(), "`;` between the columns"),
        (plain.replace(';', "\t").into_bytes(), "tabs between the columns"),
        ([b"\xef\xbb\xbfsep=;\r\n", plain.as_bytes()].concat(), "`;` between the columns"),
        ([&b"\xff\xfe"[..], &wide].concat(), "`;` between the columns"),
    ] {
        let m = read(&bytes);
        assert!(m.entries[0].files["t1"].ends_with("a,b.nii"), "{:?}", m.entries);
        assert!(m.notes.lines().iter().any(|l| l.contains(words)), "{:?}", m.notes.lines());
    }
    assert!(read(b"subject,split,t1\np1,train,a.nii\n").notes.lines().is_empty());
    // Latin-1, in the table and on the disk.
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let m = read(b"subject,split,t1\nJ\xfcrgen,train,k\xf6pfe.nii\n");
        assert_eq!(m.entries[0].id, "J\u{fc}rgen");
        assert!(m.entries[0].files["t1"].ends_with("k\u{f6}pfe.nii"));
        assert!(m.notes.lines().iter().any(|l| l.contains("Windows-1252")), "{:?}", m.notes.lines());
        let raw = tmp.path().join(std::ffi::OsStr::from_bytes(b"k\xf6pfe.nii"));
        fs::write(&raw, "x").unwrap();
        let m = read(b"subject,split,t1\nJ\xfcrgen,train,k\xf6pfe.nii\n");
        assert_eq!(m.entries[0].files["t1"], raw);
        // A link that leads nowhere is called that.
        std::os::unix::fs::symlink("annex/a", tmp.path().join("gone.nii")).unwrap();
        let m = read(b"subject,split,t1\np1,train,gone.nii\n");
        let why = message(m.file(&m.entries[0], "t1").map(Path::to_path_buf));
        assert!(why.contains("subject p1") && why.contains("link to annex/a"), "{why}");
    }
}

#[test]
fn whether_slices_are_mirrored_is_said() {
    let tmp = tempfile::tempdir().unwrap();
    let manifest = csv(tmp.path(), "subject,split,t1,seg\np1,train,a.nii,b.nii\n");
    let says = |more: &str, words: &str| {
        let text = format!("manifest = '{}'\ntarget = ['seg']\n{more}", manifest.display());
        let config: DataConfig = toml::from_str(&text).unwrap();
        let lines = config.manifest().unwrap().notes.lines();
        assert!(lines.iter().any(|l| l.contains(words)), "{lines:?}");
    };
    let labels = "labels = { values = [0, 1] }\n";
    says(&format!("{labels}[augment]\nflip = 0.0"), "no slice is mirrored");
    says(&format!("{labels}[augment]\nflip = 0.5"), "labels that tell left from right can't be learnt");
    says("[augment]\nflip = 0.5", "mirrored with probability 0.5");
}

#[test]
fn mistakes_are_named_with_the_way_out() {
    let says = |text: &str, parts: &[&str]| {
        let m = message(read(text));
        assert!(parts.iter().all(|p| m.contains(p)), "{m}");
    };
    says("subjekt,t1\na,b\n", &["`subject`", "did you mean `subjekt`"]);
    says(
        "subject,split,t1\na,train,x\na,test,y\n",
        &["subject a", "train (line 2)", "test (line 3)", "one split"],
    );
    says("subject,split,t1\na,train,x\na,train,y\n", &["lines 2 and 3", "session"]);
    says("subject,split,t1\na,trian,x\n", &["line 2", "`trian`", "train, val or test"]);
    says("subject,split,t1\n", &["no subject"]);
    says("subject,t1,t1\na,b,c\n", &["two columns named `t1`"]);
    says("subject,t1\na,b,c\n", &["CSV"]);
    says("subject,t1\n ,b\n", &["line 2", "empty"]);
    // A subject with two sessions may not straddle splits either.
    says("subject,session,split,t1\na,1,train,x\na,2,val,y\n", &["subject a", "one split"]);

    let tmp = tempfile::tempdir().unwrap();
    let m = Manifest::read(&csv(tmp.path(), "subject,split,T1w,pet\na,train,x.nii,\n"), &SHARES, 1).unwrap();
    let entry = m.part(Split::Train).unwrap()[0];
    assert!(message(m.file(entry, "t1w")).contains("did you mean `T1w`"));
    assert!(message(m.file(entry, "flair")).contains("`T1w`, `pet`"));
    assert!(message(m.file(entry, "pet")).contains("no `pet` image"));
    assert!(message(m.file(entry, "T1w")).contains("x.nii"));
    let e = message(m.part(Split::Val));
    assert!(e.contains("`val`") && e.contains("1 subjects"), "{e}");
}

#[test]
fn a_pattern_finds_subjects() {
    let tmp = tempfile::tempdir().unwrap();
    for s in ["p1", "p2", "p10", "q_3", "p4"] {
        let folder = tmp.path().join(s);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(format!("{s}_t1.nii.gz")), "").unwrap();
        fs::write(folder.join(format!("{s}_pet.nii.gz")), "").unwrap();
    }
    // Names that contradict each other are no subject.
    fs::write(tmp.path().join("p1/other_t1.nii.gz"), "").unwrap();
    let modalities = ["t1".to_string(), "pet".to_string()];
    let scan = |pattern: &str| {
        let pattern = tmp.path().join(pattern);
        Manifest::scan(&pattern.to_string_lossy(), &modalities, &modalities[..1], &SHARES, 3)
    };
    let m = scan("{subject}/{subject}_{modality}.nii.gz").unwrap();
    let ids: Vec<&str> = m.entries.iter().map(|e| e.id.as_str()).collect();
    assert_eq!(ids, ["p1", "p10", "p2", "p4", "q_3"]);
    assert!(m.entries.iter().all(|e| e.files.len() == 2));
    let sizes = Split::ALL.map(|s| m.part(s).unwrap().len());
    assert_eq!(sizes, [3, 1, 1]);
    // The same seed deals the same; another seed differently.
    let dealt = |m: &Manifest| m.entries.iter().map(|e| e.split).collect::<Vec<_>>();
    assert_eq!(dealt(&m), dealt(&scan("{subject}/{subject}_{modality}.nii.gz").unwrap()));
    assert!(message(scan("{subject}/x_{modality}.nii.gz")).contains("no file matches"));
    assert!(message(scan("{subject}/x.nii.gz")).contains("{modality}"));
    assert!(message(scan("absent/{subject}_{modality}.nii.gz")).contains("absent"));
}

#[test]
fn a_pair_on_two_grids_is_refused_with_both_names_and_values() {
    let tmp = tempfile::tempdir().unwrap();
    let write = |name: &str, dims: [usize; 3], shift: f64| {
        let mut a = Affine::centred([4, 4, 4], [1.0; 3]);
        a.0[1][3] += shift;
        let voxels = vec![1.0; dims.iter().product()];
        Volume::new(dims, a, voxels).unwrap().save(tmp.path().join(name)).unwrap();
    };
    let config = DataConfig {
        manifest: Some(csv(tmp.path(), "subject,split,t1,pet\na,train,a.nii,b.nii\n")),
        min_foreground: 0.0,
        ..Default::default()
    };
    let open = || Dataset::open(&config, Split::Train, None, OpenOptions::default());
    write("a.nii", [4, 4, 4], 0.0);
    write("b.nii", [4, 4, 5], 0.0);
    let m = message(open());
    assert!(["a.nii", "b.nii", "[4, 4, 4]", "[4, 4, 5]", "resample"].iter().all(|p| m.contains(p)), "{m}");
    write("b.nii", [4, 4, 4], 0.25);
    let m = message(open());
    assert!(["a.nii", "b.nii", "0.250 mm", "-1.25", "resample"].iter().all(|p| m.contains(p)), "{m}");
    write("b.nii", [4, 4, 4], 0.0005);
    open().unwrap();
}

#[test]
fn a_data_table_is_checked_key_by_key() {
    let refuses = |text: &str, part: &str| {
        let m = match toml::from_str::<DataConfig>(text) {
            Err(e) => e.to_string(),
            Ok(c) => message(c.check()),
        };
        assert!(m.contains(part), "{m}");
    };
    refuses("", "no source is set");
    refuses("manifest = 'a.csv'\npattern = 'b'", "exclude each other");
    refuses("manifest = 'a.csv'\ninputs = ['t1']", "inputs");
    refuses("manifest = 'a.csv'\ninput = []", "`input`");
    refuses("manifest = 'a.csv'\nslice_range = [0.5, 0.5]", "slice_range");
    refuses("manifest = 'a.csv'\nmin_foreground = 1.0", "min_foreground");
    refuses("manifest = 'a.csv'\ncanvas = [0, 4]", "canvas");
    refuses("manifest = 'a.csv'\nsplit = [0.5, 0.5, 0.5]", "split");
    refuses("manifest = 'a.csv'\n[augment]\nflip = 2", "augment.flip");
    refuses("manifest = 'a.csv'\n[augment]\nspin = 2", "spin");
    refuses("manifest = 'a.csv'\nplane = 'oblique'", "oblique");
    refuses("manifest = 'a.csv'\nnormalise_input = { method = 'fixed' }", "needs `low` and `high`");
    refuses("manifest = 'a.csv'\nnormalise_input = { method = 'minmax', low = 1 }", "belong to");
    refuses(
        "manifest = 'a.csv'\nnormalise_target = { method = 'percentile', low = 90, high = 10 }",
        "normalise_target",
    );
    refuses("manifest = 'a.csv'\nnormalise_target = { method = 'histogram' }", "percentile");
    let text = "pattern = '{subject}_{modality}.nii'\ninput = ['t1', 't2']\nplane = 'coronal'\n\
                normalise_input = { method = 'zscore' }\n\
                normalise_target = { method = 'fixed', low = -1024, high = 3000 }";
    let c: DataConfig = toml::from_str(text).unwrap();
    c.check().unwrap();
    assert_eq!(c.normalise_input, Normalisation { method: Method::Zscore, scope: Scope::Volume });
    let fixed = Method::Fixed { low: -1024.0, high: 3000.0 };
    assert_eq!(c.normalise_target, Normalisation { method: fixed, scope: Scope::Dataset });
    assert_eq!(DataConfig::default().normalise_target, Normalisation::target());
    // What is written back reads the same.
    let again: DataConfig = toml::from_str(&toml::to_string(&c).unwrap()).unwrap();
    assert_eq!(c, again);
}

proptest! {
    #[test]
    fn dealing_leaves_nobody_out(n in 1usize..200, a in 1u32..20, b in 0u32..20, c in 0u32..20) {
        let sum = f64::from(a + b + c);
        let shares = [a, b, c].map(|v| f64::from(v) / sum);
        let parts = deal(n, &shares);
        prop_assert_eq!(parts.len(), n);
        let count = |s| parts.iter().filter(|p| **p == s).count();
        prop_assert!(count(Split::Train) >= 1);
        if n >= 3 {
            prop_assert_eq!(count(Split::Val) == 0, b == 0);
            prop_assert_eq!(count(Split::Test) == 0, c == 0);
        }
    }
}
