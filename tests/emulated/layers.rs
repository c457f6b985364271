//! Convolution layers by themselves, as PyTorch's peer lists them (`torch_peer.py --op conv,convT --json`): the same sizes,
//! our kernels, on any device.

use crate::geometry::{extents, operands};
use gan::device::backend::Backend;
use gan::device::launch::{GpuTraits, Launch, LaunchArg, LaunchList, Math, Operand, Operands};
use gan::device::tensor_map::TensorMap;
use gan::dtype::DType;
use gan::ops::conv::cuda::launch::{Epilogue, Pass, launches};
use gan::ops::conv::geometry::ConvGeometry;
use gan::shape::Shape;
use serde_json::Value;
use std::time::Instant;

/// What a peer calls its passes, and the key of their times.
pub const PASSES: [(&str, &str); 3] = [("forward", "fwd_ms"), ("grad_x", "dgrad_ms"), ("grad_w", "wgrad_ms")];

/// A layer of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    pub name: String,
    /// That of the convolution; a transposed one is the gradient of it.
    pub geometry: ConvGeometry,
    pub transposed: bool,
    pub bias: bool,
    /// How often the network has such a layer.
    pub count: u64,
    /// The peer's times, in the order of [`PASSES`].
    pub peer_ms: [f64; 3],
}

impl Layer {
    /// Reads one row of the peer's list; the module is given as PyTorch prints it.
    pub fn parse(row: &Value) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what} is missing or odd in {row}");
        let text = |key: &str| row[key].as_str().ok_or_else(|| wrong(key));
        let extents = |key: &str| -> Result<Vec<usize>, String> {
            let list = row[key].as_array().ok_or_else(|| wrong(key))?;
            list.iter().map(|v| v.as_u64().map(|v| v as usize).ok_or_else(|| wrong(key))).collect()
        };
        let number = |key: &str| row[key].as_f64().ok_or_else(|| wrong(key));
        let (module, x, y) = (text("module")?, extents("in")?, extents("out")?);
        let transposed = module.starts_with("ConvTranspose");
        if x.len() < 3 || x.len() > 5 || y.len() != x.len() || !module.starts_with("Conv") {
            return Err(wrong("module"));
        }
        let three = |key: &str, spare: usize| -> Result<[usize; 3], String> {
            let Some(at) = module.find(&format!("{key}=(")) else { return Ok([spare; 3]) };
            let list = module[at + key.len() + 2..].split(')').next().unwrap_or_default();
            let values: Option<Vec<usize>> =
                list.split(',').map(str::trim).filter(|v| !v.is_empty()).map(|v| v.parse().ok()).collect();
            let values = values.filter(|v| v.len() == x.len() - 2).ok_or_else(|| wrong(key))?;
            Ok(leading(&values, spare))
        };
        // A transposed convolution goes from the result of its convolution to the input.
        let (from, to) = if transposed { (&y, &x) } else { (&x, &y) };
        let geometry = ConvGeometry {
            n: x[0],
            c: from[1],
            k: to[1],
            groups: 1,
            input: leading(&from[2..], 1),
            output: leading(&to[2..], 1),
            kernel: three("kernel_size", 1)?,
            stride: three("stride", 1)?,
            padding: three("padding", 0)?,
            dilation: three("dilation", 1)?,
        };
        if module.contains("groups=") || module.contains("padding_mode=") {
            return Err(wrong("module"));
        }
        Ok(Layer {
            name: text("layer")?.into(),
            geometry,
            transposed,
            bias: !module.contains("bias=False"),
            count: row["count"].as_u64().unwrap_or(1),
            peer_ms: [number("fwd_ms")?, number("dgrad_ms")?, number("wgrad_ms")?],
        })
    }

    /// The pass of our convolution that pass `i` of [`PASSES`] is.
    fn pass(&self, i: usize) -> Pass {
        let own = [Pass::Forward, Pass::GradX, Pass::GradW][i];
        match own {
            Pass::Forward if self.transposed => Pass::GradX,
            Pass::GradX if self.transposed => Pass::Forward,
            own => own,
        }
    }

    /// FLOPs of each pass; a multiply-add counts two.
    pub fn flops(&self) -> f64 {
        self.geometry.flops() as f64
    }

    /// Bytes that pass `i` must read and write at least, stored as `math` stores.
    pub fn bytes(&self, i: usize, math: Math) -> f64 {
        let [x, w, y] = extents(&self.geometry).map(|s| s.numel() as f64);
        let size = math.element_bytes() as f64;
        // The gradient by the weights is fp32.
        if self.pass(i) == Pass::GradW { size * (x + y) + 4.0 * w } else { size * (x + w + y) }
    }

    /// What pass `i` launches, with the shapes of its two operands and of its result.
    fn launches(&self, i: usize, traits: &GpuTraits) -> ([Shape; 3], LaunchList) {
        let pass = self.pass(i);
        let shapes = operands(&self.geometry, pass);
        let half = if traits.math == Math::Bf16 { DType::Bf16 } else { DType::F32 };
        let operand = |i: usize, dtype| Operand { shape: &shapes[i], aligned: true, dtype };
        let inputs = [operand(0, half), operand(1, half)];
        let output = operand(2, if pass == Pass::GradW { DType::F32 } else { half });
        let bias = (i == 0 && self.bias).then_some(LaunchArg::Input(2));
        let epilogue = Epilogue { bias, ..Epilogue::default() };
        let list = launches(&self.geometry, pass, &Operands { inputs: &inputs, output }, traits, &epilogue);
        (shapes, list)
    }

    /// Median milliseconds of pass `i`, launched back to back on the same memory so often that it takes about `wanted_ms`,
    /// recorded where the device records, with the kernels that a device of these traits takes.
    pub fn time<B: Backend>(
        &self,
        i: usize,
        device: &B,
        gpu: &GpuTraits,
        wanted_ms: f64,
    ) -> gan::error::Result<f64> {
        let (shapes, list) = self.launches(i, gpu);
        let fp32 = |s: &Shape| 4 * s.numel();
        let inputs = [fp32(&shapes[0]), fp32(&shapes[1]), 4 * shapes[2].channels()]
            .into_iter()
            .map(|bytes| filled(device, bytes))
            .collect::<gan::error::Result<Vec<_>>>()?;
        let output = device.allocate(fp32(&shapes[2]))?;
        let workspace = device.allocate(list.workspace_bytes)?;
        let tables = list.tables.iter().map(|bytes| {
            let memory = device.allocate(bytes.len())?;
            device.upload(bytes, &memory, 0)?;
            Ok(memory)
        });
        let tables = tables.collect::<gan::error::Result<Vec<_>>>()?;
        let size = if device.traits().math == Math::Bf16 { 2 } else { 4 };
        let maps = |of: &LaunchArg, maps: &[TensorMap]| -> gan::error::Result<Vec<u8>> {
            let address = match of {
                LaunchArg::Input(i) => device.address(&inputs[*i]),
                LaunchArg::Workspace(at) => device.address(&workspace) + *at as u64,
                other => unreachable!("convolutions read no {other:?}"),
            };
            Ok(maps
                .iter()
                .map(|m| device.tensor_map(m, address))
                .collect::<gan::error::Result<Vec<_>>>()?
                .concat())
        };
        let address = |arg: &LaunchArg| {
            Ok(match arg {
                LaunchArg::Maps(of, all) => maps(of, all)?,
                LaunchArg::Bytes(bytes) => bytes.clone(),
                LaunchArg::Input(i) => device.address(&inputs[*i]).to_ne_bytes().to_vec(),
                LaunchArg::InputAt(i, at) => {
                    (device.address(&inputs[*i]) + (at * size) as u64).to_ne_bytes().to_vec()
                }
                LaunchArg::Output => device.address(&output).to_ne_bytes().to_vec(),
                LaunchArg::Workspace(at) => (device.address(&workspace) + *at as u64).to_ne_bytes().to_vec(),
                LaunchArg::Table(i) => device.address(&tables[*i]).to_ne_bytes().to_vec(),
                LaunchArg::Null => vec![0; 8],
                other => unreachable!("convolutions take no {other:?}"),
            })
        };
        let ready = list
            .launches
            .into_iter()
            .map(|l| {
                let args = l.args.iter().map(address).collect::<gan::error::Result<_>>()?;
                Ok((device.kernel(&l)?, l, args))
            })
            .collect::<gan::error::Result<Vec<(B::Kernel, Launch, Vec<Vec<u8>>)>>>()?;
        let run = |times: usize| {
            (0..times).try_for_each(|_| ready.iter().try_for_each(|(k, l, args)| device.launch(k, l, args)))
        };
        run(1)?;
        device.finish()?;
        let began = Instant::now();
        run(1)?;
        device.finish()?;
        let once = began.elapsed().as_secs_f64() * 1e3;
        let times = ((wanted_ms / once.max(1e-3)) as usize).clamp(1, 200);
        let recording = device.record(&mut || run(times))?;
        let mut measured = Vec::new();
        for _ in 0..5 {
            device.finish()?;
            let began = Instant::now();
            match &recording {
                Some(recording) => device.replay(recording)?,
                None => run(times)?,
            }
            device.finish()?;
            measured.push(began.elapsed().as_secs_f64() * 1e3 / times as f64);
        }
        measured.sort_by(f64::total_cmp);
        Ok(measured[2])
    }
}

/// Extents of up to three axes, the missing ones in front.
fn leading(values: &[usize], spare: usize) -> [usize; 3] {
    std::array::from_fn(|i| (i + values.len()).checked_sub(3).map_or(spare, |at| values[at]))
}

/// Memory with small numbers in it, whether they are read as fp32 or bf16: zeros would take less power than a training.
fn filled<B: Backend>(device: &B, bytes: usize) -> gan::error::Result<B::Memory> {
    let memory = device.allocate(bytes)?;
    let mut rng = gan::rng::Philox::named(5, "layer");
    let mut number = || (rng.range(-1.0, 1.0) as f32).to_bits() & 0xffff_0000 | 0x3c00;
    let piece: Vec<u8> = (0..bytes.min(1 << 20) / 4).flat_map(|_| number().to_ne_bytes()).collect();
    let mut at = 0;
    while at < bytes {
        let length = piece.len().min(bytes - at);
        device.upload(&piece[..length], &memory, at)?;
        at += length;
    }
    Ok(memory)
}
