//! Weights from elsewhere: PyTorch's state dicts, in its own files and in safetensors, and which network they belong to.

mod kind;
mod pickle;
mod pth;

pub use kind::{Kind, Network, Recognised};

use crate::error::{Error, Result};
use crate::nn::NetSpec;
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

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

/// The tensors of a file, by PyTorch's keys. What a network does not compute with is left out: numbers of batches seen, and the
/// running statistics that PyTorch before version 0.4 kept beside instance norms.
#[derive(Debug)]
pub struct StateDict {
    source: String,
    file: Vec<u8>,
    tensors: BTreeMap<String, Tensor>,
}

impl StateDict {
    /// Reads `.pth` (zip or legacy) or `.safetensors`; the content decides, not the name. Nothing in the file is executed.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::read(path).map_err(Error::io("read the weights", path))?;
        Self::parse(file, &path.display().to_string())
    }

    /// As [`StateDict::read`], from memory; `source` names it in messages.
    pub fn parse(file: Vec<u8>, source: &str) -> Result<Self> {
        let fault = |why: String| Error::input(format!("{source} can't be read as weights: {why}"));
        // A safetensors file begins with the length of a JSON object.
        let read = if file.get(8) == Some(&b'{') { safetensors(&file) } else { pth::read(&file) };
        let mut tensors: BTreeMap<String, Tensor> = read.map_err(fault)?.into_iter().collect();
        if tensors.is_empty() {
            return Err(fault(
                "there is no tensor in it; save the weights with torch.save(net.state_dict(), ...)".into(),
            ));
        }
        if tensors.keys().all(|k| k.starts_with("module.")) {
            // torch.nn.DataParallel wraps a network so.
            tensors = tensors.into_iter().map(|(k, t)| (k["module.".len()..].to_string(), t)).collect();
        }
        tensors.retain(|k, _| !k.ends_with(".num_batches_tracked"));
        let mut total = 0usize;
        for (key, tensor) in &tensors {
            let numel = tensor.numel().ok_or_else(|| {
                fault(format!(
                    "tensor {} of shape {:?} is empty or reaches beyond its elements in the file; copy it again",
                    pickle::shown(key),
                    tensor.shape
                ))
            })?;
            total = total.saturating_add(numel);
        }
        // Tensors may share and repeat elements, but a small file does not become a huge network.
        if total > (4 * file.len()).max(1 << 20) {
            return Err(fault(format!(
                "its tensors are said to have {total} elements, which {} bytes don't hold",
                file.len()
            )));
        }
        let mut dict = StateDict { source: source.to_string(), file, tensors };
        dict.drop_orphaned_statistics();
        Ok(dict)
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
        let fault = |why: String| Err(Error::input(format!("{}: {why}", self.source)));
        let wanted = || spec.params.iter().chain(&spec.buffers);
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

fn safetensors(file: &[u8]) -> Result<Vec<(String, Tensor)>, String> {
    let broken = |e| format!("it is not a whole safetensors file ({e}); copy it again");
    let all = SafeTensors::deserialize(file).map_err(broken)?;
    let begin = file.as_ptr() as usize;
    all.iter()
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
        .collect()
}
