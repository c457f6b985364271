//! Reading fixtures, and reordering images between PyTorch's order of axes and ours.

use gan::shape::Shape;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the fixtures are.
pub fn folder() -> PathBuf {
    std::env::var_os("GAN_GOLDENS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens"), PathBuf::from)
}

/// A tensor in PyTorch's order of axes.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

/// How near a result must come.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Whole numbers: equal.
    Exact,
    /// Largest magnitude, and the largest error of PyTorch's single-precision run.
    Close { max: f64, f32_err: f64 },
}

/// One case of the manifest, with its tensors.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub op: String,
    pub attrs: Value,
    pub results: BTreeMap<String, Expected>,
    file: Arc<HashMap<String, Tensor>>,
    changed: HashMap<String, Tensor>,
}

/// A folder of fixtures.
pub struct Manifest {
    pub torch: String,
    pub cases: Vec<Case>,
}

impl Manifest {
    /// Reads `manifest.json` and every file that it names.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("manifest.json");
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let json: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut files: HashMap<String, Arc<HashMap<String, Tensor>>> = HashMap::new();
        let mut cases = Vec::new();
        for entry in json["cases"].as_array().ok_or("the manifest lists no cases")? {
            let field = |k: &str| entry[k].as_str().map(str::to_string).ok_or(format!("a case has no {k}"));
            let name = field("file")?;
            if !files.contains_key(&name) {
                files.insert(name.clone(), Arc::new(read_file(&folder.join(&name))?));
            }
            let results = entry["results"].as_object().into_iter().flatten();
            cases.push(Case {
                name: field("name")?,
                op: field("op")?,
                attrs: entry["attrs"].clone(),
                results: results
                    .map(|(k, v)| Ok((k.clone(), expected(v)?)))
                    .collect::<Result<_, String>>()?,
                file: files[&name].clone(),
                changed: HashMap::new(),
            });
        }
        Ok(Manifest { torch: json["torch"].as_str().unwrap_or("?").to_string(), cases })
    }
}

fn expected(v: &Value) -> Result<Expected, String> {
    if v["exact"] == Value::Bool(true) {
        return Ok(Expected::Exact);
    }
    match (v["max"].as_f64(), v["f32_err"].as_f64()) {
        (Some(max), Some(f32_err)) => Ok(Expected::Close { max, f32_err }),
        _ => Err(format!("a result without max and f32_err: {v}")),
    }
}

fn read_file(path: &Path) -> Result<HashMap<String, Tensor>, String> {
    let fault = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = std::fs::read(path).map_err(|e| fault(&e))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fault(&e))?;
    file.iter()
        .map(|(name, view)| {
            let data = match view.dtype() {
                Dtype::F32 => numbers(view.data(), f32::from_le_bytes, f64::from),
                Dtype::F64 => numbers(view.data(), f64::from_le_bytes, |v| v),
                Dtype::I64 => numbers(view.data(), i64::from_le_bytes, |v| v as f64),
                Dtype::I32 => numbers(view.data(), i32::from_le_bytes, f64::from),
                Dtype::U8 => numbers(view.data(), u8::from_le_bytes, f64::from),
                other => return Err(fault(&format!("{name} has elements of type {other:?}"))),
            };
            Ok((name.to_string(), Tensor { shape: view.shape().to_vec(), data }))
        })
        .collect()
}

fn numbers<T, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T, widen: fn(T) -> f64) -> Vec<f64> {
    bytes.as_chunks::<N>().0.iter().map(|b| widen(read(*b))).collect()
}

impl Case {
    /// A tensor of this case by its name behind the case's (`in/x`, `out/y`).
    pub fn tensor(&self, name: &str) -> Result<&Tensor, String> {
        let found = self.changed.get(name).or_else(|| self.file.get(&format!("{}/{name}", self.name)));
        found.ok_or_else(|| format!("there is no tensor {name}"))
    }

    /// Whether there is such an input.
    pub fn has(&self, input: &str) -> bool {
        self.tensor(&format!("in/{input}")).is_ok()
    }

    /// Replaces the values of a tensor.
    pub fn set_tensor(&mut self, name: &str, data: Vec<f64>) {
        let shape = self.tensor(name).expect("a tensor of the case").shape.clone();
        self.changed.insert(name.to_string(), Tensor { shape, data });
    }

    /// A number among the attributes.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.attrs[key].as_f64()
    }

    /// A switch among the attributes.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.attrs[key].as_bool()
    }

    /// Whole numbers among the attributes: a list of them, or one that stands for `repeat`.
    pub fn whole(&self, key: &str, repeat: usize) -> Option<Vec<i64>> {
        match &self.attrs[key] {
            Value::Array(list) => list.iter().map(Value::as_i64).collect(),
            v => v.as_i64().map(|v| vec![v; repeat]),
        }
    }

    /// As [`Case::whole`], for extents.
    pub fn extents(&self, key: &str, repeat: usize) -> Option<Vec<usize>> {
        self.whole(key, repeat)?.into_iter().map(|v| usize::try_from(v).ok()).collect()
    }
}

/// The order of axes on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As in PyTorch.
    Plain,
    /// PyTorch's second axis comes last: images `[n, c, ..]` to `[n, .., c]`, weights `[k, c, ..]` to `[k, .., c]`.
    Image,
}

impl Layout {
    /// Extents on our side.
    pub fn shape(self, torch: &[usize]) -> Shape {
        match (self, torch) {
            (Layout::Image, [a, b, space @ ..]) => [&[*a], space, &[*b]].concat().into(),
            _ => torch.into(),
        }
    }

    /// Elements in our order.
    pub fn to_ours(self, t: &Tensor) -> Vec<f64> {
        self.reorder(&t.shape, &t.data, false)
    }

    /// Elements in PyTorch's order, given PyTorch's extents.
    pub fn to_torch(self, torch: &[usize], ours: &[f64]) -> Vec<f64> {
        self.reorder(torch, ours, true)
    }

    fn reorder(self, torch: &[usize], data: &[f64], back: bool) -> Vec<f64> {
        let (Layout::Image, [_, b, space @ ..]) = (self, torch) else { return data.to_vec() };
        let (b, s) = (*b, space.iter().product::<usize>());
        (0..data.len())
            .map(|i| {
                let (image, rest) = (i / (b * s), i % (b * s));
                let from = if back { rest % s * b + rest / s } else { rest % b * s + rest / b };
                data[image * b * s + from]
            })
            .collect()
    }
}
