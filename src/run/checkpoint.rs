//! Checkpoints.
//!
//! `<which>_net_G.safetensors` holds a network's weights under PyTorch's keys and in PyTorch's order of axes, with its
//! architecture in the metadata: what others read. `<which>_state.safetensors` holds everything that a resumed run
//! needs, weights and moments bit by bit. Each file is written under a temporary name and renamed; the state file alone
//! decides where a run resumes, so a kill between two files costs nothing.

use crate::error::{Error, Result};
use crate::exec::States;
use crate::fsio;
use crate::nn::NetSpec;
use crate::nn::schedule::PlateauState;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Version of the state file's layout.
const FORMAT: &str = "gan-state-1";

/// What a run knows beside its tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// The best validation score so far and the step that had it.
    #[serde(with = "score")]
    pub best: Option<(f64, u64)>,
    /// What a plateau schedule remembers.
    pub plateau: PlateauState,
    /// Factors by which the learning rate was lowered, one for each roll-back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lr_cuts: Vec<f64>,
    /// What programs that run in some steps only logged in the last of them, with the program's number: it stands in logs until
    /// the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<(usize, String, f32)>,
}

/// A score in JSON, which knows neither infinity (the PSNR of equal images) nor NaN: as text there. States of earlier versions
/// hold `null` in its place and were refused; what was best then is asked anew.
mod score {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Score {
        Number(f64),
        Text(String),
        Null(()),
    }

    pub fn serialize<S: Serializer>(best: &Option<(f64, u64)>, s: S) -> Result<S::Ok, S::Error> {
        let score = |v: f64| if v.is_finite() { Score::Number(v) } else { Score::Text(v.to_string()) };
        best.map(|(v, step)| (score(v), step)).serialize(s)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(d: D) -> Result<Option<(f64, u64)>, D::Error> {
        Ok(Option::<(Score, u64)>::deserialize(d)?.and_then(|(score, step)| match score {
            Score::Number(v) => Some((v, step)),
            Score::Text(text) => text.parse().ok().map(|v| (v, step)),
            Score::Null(()) => None,
        }))
    }
}

/// The weights' file of one network.
pub fn weights_path(dir: &Path, which: &str, net: &str) -> PathBuf {
    dir.join(format!("{which}_net_{net}.safetensors"))
}

/// The state's file.
pub fn state_path(dir: &Path, which: &str) -> PathBuf {
    dir.join(format!("{which}_state.safetensors"))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// A checksum over all tensors in the order of their names: safetensors itself has none.
fn checksum<'a>(tensors: impl Iterator<Item = (String, &'a [u8])>) -> String {
    let mut sorted: Vec<_> = tensors.collect();
    sorted.sort();
    format!("{:08x}", sorted.iter().fold(0, |crc, (_, data)| crc32c::crc32c_append(crc, data)))
}

/// Writes a safetensors file. The header is laid out here and not by the crate, which keeps metadata in a hash map: two
/// files of equal content would differ in their bytes.
pub fn write(
    path: &Path,
    mut tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut header, mut crc, mut data) = (Map::new(), 0, Vec::new());
    let mut about: BTreeMap<&str, String> = metadata.iter().map(|(k, v)| (*k, v.to_string())).collect();
    header.insert("__metadata__".into(), json!(null));
    for (name, shape, values) in tensors {
        let begin = data.len();
        data.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        crc = crc32c::crc32c_append(crc, &data[begin..]);
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()] }));
    }
    about.insert("crc32c", format!("{crc:08x}"));
    header["__metadata__"] = json!(about);
    let mut header = serde_json::to_vec(&header).expect("plain data");
    // The data begins at a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    fsio::write_atomic(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        out.write_all(&data)
    })
}

/// Writes a network's weights. The file depends on nothing but them and the architecture.
pub fn save_weights(path: &Path, spec: &NetSpec, states: &States, architecture: &str) -> Result<()> {
    let metadata = [("format", "pt"), ("network", &spec.name), ("architecture", architecture)];
    write(path, spec.export(states), &metadata)
}

/// A safetensors file in memory.
pub struct Tensors {
    file: Vec<u8>,
    metadata: HashMap<String, String>,
}

impl Tensors {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::read(path).map_err(Error::io("read the checkpoint", path))?;
        let corrupt = |why: &dyn std::fmt::Display| {
            Error::input(format!(
                "{} is damaged: not a whole safetensors file ({why}); use another checkpoint, or train again",
                path.display()
            ))
        };
        let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| corrupt(&e))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let tensors = SafeTensors::deserialize(&file).map_err(|e| corrupt(&e))?;
        if let Some(noted) = metadata.get("crc32c") {
            let all = tensors.iter().collect::<Vec<_>>();
            if *noted != checksum(all.iter().map(|(n, v)| (n.to_string(), v.data()))) {
                return Err(corrupt(&"its checksum does not match its content"));
            }
        }
        Ok(Tensors { file, metadata })
    }

    /// A metadata entry.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// All metadata.
    pub fn all_metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Names and extents.
    pub fn list(&self) -> Vec<(String, Vec<usize>, usize)> {
        let Ok(t) = SafeTensors::deserialize(&self.file) else { return Vec::new() };
        let mut all: Vec<_> =
            t.iter().map(|(n, v)| (n.to_string(), v.shape().to_vec(), v.data().len())).collect();
        all.sort();
        all
    }

    /// A tensor's extents and elements, if it is there and in single precision.
    pub fn get(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        let t = SafeTensors::deserialize(&self.file).ok()?;
        let v = t.tensor(name).ok()?;
        (v.dtype() == Dtype::F32).then(|| (v.shape().to_vec(), floats(v.data())))
    }
}

/// Reads a network's weights into the states, after checking that they belong to this architecture.
pub fn load_weights(path: &Path, spec: &NetSpec, states: &mut States, architecture: &str) -> Result<()> {
    let file = Tensors::read(path)?;
    if let Some(theirs) = file.metadata("architecture").filter(|a| *a != architecture) {
        return Err(Error::input(format!(
            "{} holds weights of another architecture ({theirs}) than the run's recipe describes ({architecture}); use the recipe that it was trained with",
            path.display()
        )));
    }
    spec.import(states, &path.display().to_string(), |key| file.get(key))
}

/// The network whose parameters (or their running mean) a state holds, if any: these lie in a file in the order in which the
/// layers ask for them. So a file does not depend on how they lie in memory.
fn owner<'a>(specs: &'a [NetSpec], state: &str) -> Option<&'a NetSpec> {
    specs.iter().find(|s| s.store_name() == state || s.ema_name() == state)
}

/// Writes everything that a resumed run of these networks needs.
pub fn save_state(
    path: &Path,
    specs: &[NetSpec],
    states: &States,
    progress: &Progress,
    recipe_hash: &str,
) -> Result<()> {
    let tensor = |n: &str| {
        let values = states.get::<f32>(n);
        let values = owner(specs, n).map_or_else(|| values.to_vec(), |spec| spec.to_declared(values));
        (n.to_string(), vec![values.len()], values)
    };
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = states.names().map(tensor).collect();
    let progress = serde_json::to_string(progress).expect("plain data");
    let metadata = [("format", FORMAT), ("progress", &progress), ("recipe", recipe_hash)];
    write(path, tensors, &metadata)
}

/// Reads a state file into states of the same names and sizes.
pub fn load_state(
    path: &Path,
    specs: &[NetSpec],
    states: &mut States,
    recipe_hash: &str,
) -> Result<Progress> {
    let file = Tensors::read(path)?;
    let foreign = |what: &str| {
        Error::input(format!(
            "{} {what}; continue the run with the recipe that it was started with, or start anew in another folder with --out",
            path.display()
        ))
    };
    if file.metadata("format") != Some(FORMAT) {
        return Err(foreign("is no state file of this version"));
    }
    if file.metadata("recipe") != Some(recipe_hash) {
        return Err(foreign("belongs to a run with other settings or other images"));
    }
    let progress: Progress = file
        .metadata("progress")
        .and_then(|p| serde_json::from_str(p).ok())
        .ok_or_else(|| foreign("does not say how far the run got"))?;
    let names: Vec<String> = states.names().map(String::from).collect();
    for name in names {
        let (_, values) = file.get(&name).ok_or_else(|| foreign(&format!("lacks the tensor {name}")))?;
        let own = states.get_mut::<f32>(&name);
        if own.len() != values.len() {
            return Err(foreign(&format!("has a tensor {name} of another size")));
        }
        match owner(specs, &name) {
            Some(spec) => own.copy_from_slice(&spec.from_declared(&values)),
            None => own.copy_from_slice(&values),
        }
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ConvLayer;

    #[test]
    fn a_state_survives_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = state_path(dir.path(), "last");
        let mut states = States::new();
        states.set("a", &[1.5f32, -0.0, f32::MIN_POSITIVE]);
        let progress = Progress {
            step: 7,
            best: Some((0.1, 3)),
            plateau: PlateauState { waited: 2, ..Default::default() },
            ..Default::default()
        };
        save_state(&path, &[], &states, &progress, "h").expect("written");
        let mut again = States::new();
        again.set("a", &[0f32; 3]);
        assert_eq!(load_state(&path, &[], &mut again, "h").expect("read"), progress);
        assert_eq!(again.get::<f32>("a"), states.get::<f32>("a"));
        assert!(load_state(&path, &[], &mut again, "other").is_err());
        let whole = std::fs::read(&path).expect("read");
        for cut in [0, 5, 20, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).expect("written");
            let e = load_state(&path, &[], &mut again, "h").expect_err("refused").to_string();
            assert!(e.contains("last_state.safetensors") && e.contains("damaged"), "{e}");
        }
        let mut flipped = whole.clone();
        *flipped.last_mut().expect("not empty") ^= 1;
        std::fs::write(&path, &flipped).expect("written");
        assert!(
            load_state(&path, &[], &mut again, "h").expect_err("refused").to_string().contains("checksum")
        );
    }

    #[test]
    fn a_score_that_json_has_no_number_for_survives() {
        let json =
            |best| serde_json::to_string(&Progress { best, ..Default::default() }).expect("plain data");
        let read = |text: &str| serde_json::from_str::<Progress>(text).expect("progress").best;
        for best in [None, Some((31.5, 4)), Some((f64::INFINITY, 4)), Some((f64::NEG_INFINITY, 4))] {
            assert_eq!(read(&json(best)), best);
        }
        // What is no number was written as null once, and the run could not be resumed.
        let old = json(Some((31.5, 4))).replace("31.5", "null");
        assert!(old.contains("[null,4]"), "{old}");
        assert_eq!(read(&old), None);
    }

    /// Files hold parameters in the order of the layers, as all versions have written them, wherever they lie in memory.
    #[test]
    fn parameters_lie_in_files_in_the_order_of_the_layers() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = state_path(dir.path(), "last");
        let spec = NetSpec::describe("G", |cx, graph| {
            let x = graph.input("x", [1, 8, 8, 3]);
            let y = cx.conv("a", &x, ConvLayer::same(3, 3)); // 81 weights and 3 biases: all that follows would be odd
            cx.conv("b", &y, ConvLayer::same(16, 3));
        })
        .expect("valid");
        let n = spec.param_count();
        let of = |key: &str| spec.params.iter().find(|t| t.key == key).expect("a parameter").offset;
        assert_eq!(["b.weight", "b.bias", "a.weight", "a.bias"].map(of), [0, 432, 448, 529]);

        // What an earlier version wrote: one after the other, two slots; and a running mean.
        let old: Vec<f32> = (0..2 * n).map(|i| i as f32).collect();
        let tensors = [("G.ema", old[..n].to_vec()), ("G.params", old.clone()), ("G.buffers", vec![0.5])];
        let tensors = tensors.map(|(name, v)| (name.to_string(), vec![v.len()], v));
        let progress = serde_json::to_string(&Progress::default()).expect("plain data");
        let metadata = [("format", FORMAT), ("progress", progress.as_str()), ("recipe", "h")];
        write(&path, tensors.into(), &metadata).expect("written");
        let mut states = States::new();
        states.set("G.params", &vec![0f32; 2 * n]);
        states.set("G.ema", &vec![0f32; n]);
        states.set("G.buffers", &[0f32]);
        let specs = [spec];
        load_state(&path, &specs, &mut states, "h").expect("read");
        let mut first = 0;
        for t in &specs[0].params {
            for slot in 0..2 {
                let at = slot * n + t.offset;
                assert_eq!(states.get::<f32>("G.params")[at], (slot * n + first) as f32, "{} {slot}", t.key);
            }
            assert_eq!(states.get::<f32>("G.ema")[t.offset], first as f32);
            first += t.shape.numel();
        }
        // And written again: the same bytes.
        let before = std::fs::read(&path).expect("read");
        save_state(&path, &specs, &states, &Progress::default(), "h").expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), before);
    }
}
