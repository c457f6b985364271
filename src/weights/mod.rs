//! Weights from elsewhere: PyTorch's state dicts, in its own files and in safetensors, and which network they belong to.

mod kind;
mod pickle;
mod pth;

pub use kind::{Kind, Recognised};

use crate::error::{Error, Result};
use crate::nn::NetSpec;
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// How elements are stored, least significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Element::F64 | Element::I64 => 8,
            Element::F32 | Element::I32 => 4,
            Element::F16 | Element::BF16 | Element::I16 => 2,
            Element::I8 | Element::U8 | Element::Bool => 1,
        }
    }

    /// The element that begins at `bytes`.
    fn value(self, bytes: &[u8]) -> f32 {
        fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
            *bytes.first_chunk().expect("its extents were checked")
        }
        match self {
            Element::F64 => f64::from_le_bytes(first(bytes)) as f32,
            Element::F32 => f32::from_le_bytes(first(bytes)),
            Element::F16 => f16::from_le_bytes(first(bytes)).to_f32(),
            Element::BF16 => bf16::from_le_bytes(first(bytes)).to_f32(),
            Element::I64 => i64::from_le_bytes(first(bytes)) as f32,
            Element::I32 => i32::from_le_bytes(first(bytes)) as f32,
            Element::I16 => f32::from(i16::from_le_bytes(first(bytes))),
            Element::I8 => f32::from(i8::from_le_bytes(first(bytes))),
            Element::U8 | Element::Bool => f32::from(bytes[0]),
        }
    }

    fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype {
            Dtype::F64 => Element::F64,
            Dtype::F32 => Element::F32,
            Dtype::F16 => Element::F16,
            Dtype::BF16 => Element::BF16,
            Dtype::I64 => Element::I64,
            Dtype::I32 => Element::I32,
            Dtype::I16 => Element::I16,
            Dtype::I8 => Element::I8,
            Dtype::U8 => Element::U8,
            Dtype::BOOL => Element::Bool,
            _ => return None,
        })
    }
}

/// A tensor: a strided view of a stretch of the file.
#[derive(Clone, Debug)]
struct Tensor {
    shape: Vec<usize>,
    /// Elements from one position of an axis to the next.
    stride: Vec<usize>,
    /// First element, counted from the beginning of the storage.
    offset: usize,
    element: Element,
    /// The storage, which tensors may share.
    bytes: Range<usize>,
}

impl Tensor {
    /// The number of elements, unless there are none or the tensor reaches beyond its storage.
    fn numel(&self) -> Option<usize> {
        let numel = self.shape.iter().try_fold(1usize, |n, e| n.checked_mul(*e)).filter(|n| *n > 0)?;
        let last = self.shape.iter().zip(&self.stride).try_fold(self.offset, |at, (extent, stride)| {
            at.checked_add((extent - 1).checked_mul(*stride)?)
        })?;
        (last < self.bytes.len() / self.element.bytes()).then_some(numel)
    }

    fn values(&self, file: &[u8]) -> Vec<f32> {
        let (storage, width) = (&file[self.bytes.clone()], self.element.bytes());
        let numel = self.shape.iter().product();
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        let mut out = Vec::with_capacity(numel);
        for _ in 0..numel {
            out.push(self.element.value(&storage[at * width..]));
            // The next index, the last axis first.
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.stride[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= index[axis] * self.stride[axis];
                index[axis] = 0;
            }
        }
        out
    }
}

/// What a file holds: state dicts by their place in it ("" is the file itself), and what lies beside them.
#[derive(Default)]
struct Contents {
    dicts: Vec<(String, Vec<(String, Tensor)>)>,
    beside: Vec<String>,
}

/// Where checkpoints keep the weights of the network that counts, the first that is there.
const USUAL: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "network_weights", "params"];

/// Most names in a message.
const NAMED: usize = 4;

/// The tensors of a state dict, by PyTorch's keys. What a network does not compute with is left out: numbers of batches seen,
/// and the running statistics that PyTorch before version 0.4 kept beside instance norms.
#[derive(Clone, Debug)]
pub struct StateDict {
    source: String,
    /// Its place in the file, and what was taken off all keys: `state_dict.generator`.
    part: String,
    file: Arc<Vec<u8>>,
    tensors: BTreeMap<String, Tensor>,
    /// The file's other state dicts.
    others: Vec<StateDict>,
    /// The names of all that the file holds, where it is more than this.
    beside: Vec<String>,
}

impl StateDict {
    /// Reads `.pth` (zip or legacy) or `.safetensors`; the content decides, not the name. Nothing in the file is executed.
    /// Of a checkpoint this is its main state dict; [`StateDict::find`] looks at all.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::read(path).map_err(Error::io("read the weights", path))?;
        Self::parse(file, &path.display().to_string())
    }

    /// As [`StateDict::read`], from memory; `source` names it in messages.
    pub fn parse(file: Vec<u8>, source: &str) -> Result<Self> {
        let fault = |why: String| Error::input(format!("{source} can't be read as weights: {why}"));
        // A safetensors file begins with the length of a JSON object.
        let read = if file.get(8) == Some(&b'{') { safetensors(&file) } else { pth::read(&file) };
        let Contents { dicts, beside } = read.map_err(fault)?;
        let file = Arc::new(file);
        let mut all = Vec::new();
        let mut first_fault = None;
        for (part, tensors) in dicts {
            let tensors = tensors.into_iter().collect();
            let own = StateDict {
                source: source.to_string(),
                part,
                file: file.clone(),
                tensors,
                others: Vec::new(),
                beside: Vec::new(),
            };
            match own.settled() {
                Ok(own) => all.push(own),
                Err(why) => first_fault = first_fault.or(Some(why)),
            }
        }
        let rank = |d: &StateDict| USUAL.iter().position(|u| *u == d.part).unwrap_or(USUAL.len());
        let best = (0..all.len()).min_by_key(|i| rank(&all[*i]));
        let Some(best) = best else {
            let none = "there is no tensor in it; save the weights with torch.save(net.state_dict(), ...)";
            return Err(fault(first_fault.unwrap_or_else(|| none.into())));
        };
        let main = all.remove(best);
        Ok(StateDict { others: all, beside, ..main })
    }

    /// Checks the tensors' extents and takes off what wraps all keys and what a network does not compute with.
    fn settled(mut self) -> Result<Self, String> {
        if self.tensors.is_empty() {
            return Err(
                "there is no tensor in it; save the weights with torch.save(net.state_dict(), ...)".into()
            );
        }
        self.tensors = unwrapped(self.tensors);
        self.tensors.retain(|k, _| !k.ends_with(".num_batches_tracked"));
        let mut total = 0usize;
        for (key, tensor) in &self.tensors {
            let numel = tensor.numel().ok_or_else(|| {
                format!(
                    "tensor {} of shape {:?} is empty or reaches beyond its elements in the file; copy it again",
                    pickle::shown(key),
                    tensor.shape
                )
            })?;
            total = total.saturating_add(numel);
        }
        // Tensors may share and repeat elements, but a small file does not become a huge network.
        if total > (4 * self.file.len()).max(1 << 20) {
            return Err(format!(
                "its tensors are said to have {total} elements, which {} bytes don't hold",
                self.file.len()
            ));
        }
        self.drop_orphaned_statistics();
        Ok(self)
    }

    /// The one state dict of the file that `want` accepts, or the part of one under a common prefix (`generator.`), as
    /// training frameworks keep several networks in one. `part` names one of several; see [`StateDict::part`].
    pub fn find<T>(
        &self,
        part: Option<&str>,
        want: impl Fn(&StateDict) -> Result<T>,
    ) -> Result<(T, StateDict)> {
        let dicts = || std::iter::once(self).chain(&self.others);
        if let Some(part) = part.map(|p| p.trim_end_matches('.')) {
            let all = || dicts().flat_map(|d| std::iter::once(d.clone()).chain(d.parts()));
            let Some(own) = all().find(|d| d.part == part) else {
                let known: Vec<String> = all().map(|d| d.part).filter(|p| !p.is_empty()).collect();
                return Err(Error::input(format!(
                    "{} has no part {part}; it has {}",
                    self.source,
                    some(known.iter().map(String::as_str))
                )));
            };
            return Ok((want(&own)?, own));
        }
        let why = match want(self) {
            Ok(found) => return Ok((found, self.clone())),
            Err(why) => why,
        };
        let mut found: Vec<(T, StateDict)> = Vec::new();
        for dict in dicts() {
            let wholes = std::iter::once(dict.clone()).filter(|d| d.part != self.part);
            for own in wholes.chain(dict.parts()) {
                // What lies within an accepted part is a part of that.
                let within = |f: &(T, StateDict)| own.part.starts_with(&format!("{}.", f.1.part));
                if !found.iter().any(within)
                    && let Ok(accepted) = want(&own)
                {
                    found.push((accepted, own));
                }
            }
        }
        match found.len() {
            0 => Err(why),
            1 => Ok(found.remove(0)),
            _ => Err(Error::input(format!(
                "{} holds several such networks, {}; choose one with gan import --part",
                self.source,
                some(found.iter().map(|(_, d)| d.part.as_str()))
            ))),
        }
    }

    /// The tensors under each prefix of keys, the shortest first, with the prefix taken off.
    fn parts(&self) -> Vec<StateDict> {
        const LONGEST: usize = 3;
        const MOST: usize = 256;
        let mut prefixes = std::collections::BTreeSet::new();
        for key in self.tensors.keys() {
            for (n, (at, _)) in key.match_indices('.').take(LONGEST).enumerate() {
                prefixes.insert((n, &key[..=at]));
            }
        }
        let part = |(_, prefix): (usize, &str)| {
            let inner = |(k, t): (&String, &Tensor)| Some((k.strip_prefix(prefix)?.to_string(), t.clone()));
            let name = prefix.trim_end_matches('.');
            let part = if self.part.is_empty() { name.to_string() } else { format!("{}.{name}", self.part) };
            StateDict {
                part,
                tensors: unwrapped(self.tensors.iter().filter_map(inner).collect()),
                source: self.source.clone(),
                file: self.file.clone(),
                others: Vec::new(),
                beside: Vec::new(),
            }
        };
        prefixes.into_iter().take(MOST).map(part).collect()
    }

    /// Its place in the file and the prefix that was taken off all keys, joined by dots; empty for a whole file.
    pub fn part(&self) -> &str {
        &self.part
    }

    /// The other state dicts of its file.
    pub fn others(&self) -> &[StateDict] {
        &self.others
    }

    /// What else a checkpoint holds than the part that was found in it: optimisers' states, hyper-parameters.
    pub fn left_out(&self, found: &StateDict) -> Vec<&str> {
        let own = |name: &str| found.part == name || found.part.starts_with(&format!("{name}."));
        self.beside.iter().map(String::as_str).filter(|name| !own(name)).collect()
    }

    /// Running statistics without a scale beside them belong to an instance norm.
    fn drop_orphaned_statistics(&mut self) {
        let owner = |k: &str| {
            let base = k.strip_suffix(".running_mean").or(k.strip_suffix(".running_var"));
            base.map(|b| format!("{b}.weight"))
        };
        let orphans: Vec<String> = self
            .tensors
            .keys()
            .filter(|k| owner(k).is_some_and(|w| !self.tensors.contains_key(&w)))
            .cloned()
            .collect();
        for key in orphans {
            self.tensors.remove(&key);
        }
    }

    /// Where it came from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's extents, in PyTorch's order.
    pub fn shape(&self, key: &str) -> Option<&[usize]> {
        self.tensors.get(key).map(|t| t.shape.as_slice())
    }

    /// A tensor's extents and elements.
    pub fn get(&self, key: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.tensors.get(key).map(|t| (t.shape.clone(), t.values(&self.file)))
    }

    /// Whether it has just the tensors of a network, with their shapes; else one sentence about the first difference.
    pub fn check(&self, spec: &NetSpec) -> Result<()> {
        let wanted = || spec.params.iter().chain(&spec.buffers);
        let missing = wanted().map(|t| t.key.as_str()).filter(|k| self.shape(k).is_none());
        let surplus = self.keys().filter(|k| !wanted().any(|t| t.key == *k));
        let lists = [(some(missing), "expected, but not there"), (some(surplus), "there, but not expected")];
        let lists: Vec<String> = lists
            .iter()
            .filter(|(list, _)| !list.is_empty())
            .map(|(list, what)| format!("{what}: {list}"))
            .collect();
        let lists = if lists.is_empty() { String::new() } else { format!(" ({})", lists.join("; ")) };
        let fault = |why: String| Err(Error::input(format!("{}: {why}{lists}", self.source)));
        for t in wanted() {
            match self.shape(&t.key) {
                None => {
                    return fault(format!(
                        "there is no tensor {} {:?}; the weights are of another network than {}",
                        t.key,
                        t.torch_shape(),
                        spec.name
                    ));
                }
                Some(shape) if *shape != t.torch_shape() => {
                    return fault(format!(
                        "tensor {} has shape {shape:?} where {} expects {:?}; the weights are of another network",
                        t.key,
                        spec.name,
                        t.torch_shape()
                    ));
                }
                Some(_) => {}
            }
        }
        match self.keys().find(|k| !wanted().any(|t| t.key == *k)) {
            Some(key) => fault(format!(
                "tensor {} is none of {}; the weights are of another network",
                pickle::shown(key),
                spec.name
            )),
            None => Ok(()),
        }
    }
}

/// Takes off what wrappers put before keys: `module.` (DataParallel, DistributedDataParallel) before all of them,
/// `_orig_mod.` (torch.compile) anywhere, in any order and number.
fn unwrapped(mut tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    const COMPILED: &str = "_orig_mod.";
    const PARALLEL: &str = "module.";
    loop {
        let compiled = |k: &String| k.starts_with(COMPILED) || k.contains("._orig_mod.");
        if tensors.keys().any(compiled) {
            let bare = |k: String| match k.strip_prefix(COMPILED) {
                Some(rest) => rest.to_string(),
                None => k.replacen("._orig_mod.", ".", 1),
            };
            tensors = tensors.into_iter().map(|(k, t)| (bare(k), t)).collect();
        } else if !tensors.is_empty() && tensors.keys().all(|k| k.starts_with(PARALLEL)) {
            tensors = tensors.into_iter().map(|(k, t)| (k[PARALLEL.len()..].to_string(), t)).collect();
        } else {
            return tensors;
        }
    }
}

/// The first of many names, fit for a message.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let shown: Vec<String> = names.iter().take(NAMED).map(|n| pickle::shown(n)).collect();
    match names.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn safetensors(file: &[u8]) -> Result<Contents, String> {
    let broken = |e| format!("it is not a whole safetensors file ({e}); copy it again");
    let all = SafeTensors::deserialize(file).map_err(broken)?;
    let begin = file.as_ptr() as usize;
    let tensors = all
        .iter()
        .map(|(key, view)| {
            let element = Element::of(view.dtype()).ok_or_else(|| {
                format!(
                    "tensor {} has the type {:?}; convert it to float32",
                    pickle::shown(key),
                    view.dtype()
                )
            })?;
            let at = view.data().as_ptr() as usize - begin;
            let shape = view.shape().to_vec();
            let stride = (1..=shape.len()).map(|i| shape[i..].iter().product()).collect();
            Ok((
                key.to_string(),
                Tensor { shape, stride, offset: 0, element, bytes: at..at + view.data().len() },
            ))
        })
        .collect::<Result<_, String>>()?;
    Ok(Contents { dicts: vec![(String::new(), tensors)], beside: Vec::new() })
}
