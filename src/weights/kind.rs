//! Which network a state dict belongs to: its settings are read from the keys and extents of its tensors.

use super::StateDict;
use crate::error::{Error, Result};
use crate::models::{
    AnyNetwork, DcganDiscriminator, DcganGenerator, Limits, Network, PatchGan, PixelGan, ResnetGenerator,
    Signature, UnetGenerator, Wanted,
};
use crate::nn::{NetSpec, Norm};

/// What weights are to be read as. The networks are those of junyanz's pytorch-CycleGAN-and-pix2pix and of PyTorch's DCGAN
/// example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// junyanz's G: U-Net or ResNet, whichever it is
    Pix2pixGenerator,
    /// junyanz's D: PatchGAN or PixelGAN, whichever it is
    Pix2pixDiscriminator,
    /// junyanz's G_A or G_B: ResNet or U-Net
    CycleganGenerator,
    /// junyanz's D_A or D_B: PatchGAN or PixelGAN
    CycleganDiscriminator,
    /// The generator of PyTorch's DCGAN example, of any size
    DcganGenerator,
    /// The discriminator of PyTorch's DCGAN example, of any size
    DcganDiscriminator,
}

/// A network with its settings, as a state dict's tensors tell them.
#[derive(Clone, Debug, PartialEq)]
pub struct Recognised {
    /// The network.
    pub network: AnyNetwork,
    /// Channels of its input; for a generator from noise the numbers of noise.
    pub inputs: usize,
    /// Channels of its output.
    pub outputs: usize,
    /// Extent of its images, where it has only one.
    pub size: Option<usize>,
    /// Its tensors.
    pub spec: NetSpec,
}

impl Kind {
    /// Reads a network's settings from its tensors, and makes sure that all tensors are there and no others.
    pub fn recognise(self, dict: &StateDict) -> Result<Recognised> {
        let found = match self {
            Kind::Pix2pixGenerator | Kind::CycleganGenerator => image_generator(dict),
            Kind::Pix2pixDiscriminator | Kind::CycleganDiscriminator => image_discriminator(dict),
            Kind::DcganGenerator => dcgan_generator(dict),
            Kind::DcganDiscriminator => dcgan_discriminator(dict),
        }?;
        dict.check(&found.spec)?;
        Ok(found)
    }
}

/// Extents `[a, b, ..]` of a convolution's weight.
fn ends(dict: &StateDict, key: &str) -> Result<[usize; 2]> {
    match dict.shape(key) {
        Some(&[a, b, _, _]) => Ok([a, b]),
        Some(other) => Err(Error::input(format!(
            "{}: tensor {key} has shape {other:?} where the weight of a 2D convolution is expected",
            dict.source()
        ))),
        None => Err(Error::input(format!(
            "{}: there is no tensor {key}; name with --as what the weights are of (it has {})",
            dict.source(),
            super::some(dict.keys())
        ))),
    }
}

/// junyanz's code knows batch norm, instance norm and none. Instance norm has no tensors, but a bias before it.
fn norm(dict: &StateDict, conv: &str, norm: &str) -> Result<Norm> {
    if dict.shape(&format!("{norm}.weight")).is_some() {
        Ok(Norm::Batch)
    } else if dict.shape(&format!("{conv}.bias")).is_some() {
        Ok(Norm::Instance)
    } else {
        Err(Error::input(format!(
            "{}: there is neither {norm}.weight (batch norm) nor {conv}.bias (instance norm), and junyanz's networks without a norm are not supported",
            dict.source()
        )))
    }
}

/// How many of the numbers are, from `first` on in steps, keys of convolutions' weights.
fn count(dict: &StateDict, first: usize, step: usize, key: impl Fn(usize) -> String) -> usize {
    (0..).take_while(|i| dict.shape(&key(first + step * i)).is_some_and(|s| s.len() == 4)).count()
}

fn image_generator(dict: &StateDict) -> Result<Recognised> {
    let (network, inputs, outputs) = if dict.shape("model.model.0.weight").is_some() {
        let [ngf, inputs] = ends(dict, "model.model.0.weight")?;
        let [_, outputs] = ends(dict, "model.model.3.weight")?;
        // Level by level, each within the one above.
        let level = |k: usize| format!("model.model.1.{}model", "model.3.".repeat(k));
        let downs = 1 + count(dict, 0, 1, |k| format!("{}.1.weight", level(k)));
        let innermost = level(downs.saturating_sub(2));
        let norm = norm(dict, &format!("{innermost}.3"), &format!("{innermost}.4"))?;
        (AnyNetwork::new("unet", UnetGenerator { downs, ngf, norm, dropout: 0.5 }), inputs, outputs)
    } else {
        let [ngf, inputs] = ends(dict, "model.1.weight")?;
        let norm = norm(dict, "model.1", "model.2")?;
        let blocks = count(dict, 10, 1, |i| format!("model.{i}.conv_block.1.weight"));
        let [outputs, _] = ends(dict, &format!("model.{}.weight", blocks + 17))?;
        // With dropout the second convolution of a block has another number.
        let dropped = dict.shape("model.10.conv_block.6.weight").is_some_and(|s| s.len() == 4);
        let dropout = if dropped { 0.5 } else { 0.0 };
        (AnyNetwork::new("resnet", ResnetGenerator { blocks, ngf, norm, dropout }), inputs, outputs)
    };
    let sizes = |network: &AnyNetwork| vec![network.multiple().max(16); 2];
    recognised(dict, "generator", network, [inputs, outputs], sizes, None)
}

fn image_discriminator(dict: &StateDict) -> Result<Recognised> {
    let (network, inputs) = if dict.shape("net.0.weight").is_some() {
        let [ndf, inputs] = ends(dict, "net.0.weight")?;
        (AnyNetwork::new("pixel", PixelGan { ndf, norm: norm(dict, "net.2", "net.3")? }), inputs)
    } else {
        let [ndf, inputs] = ends(dict, "model.0.weight")?;
        let layers = count(dict, 2, 3, |i| format!("model.{i}.weight")).saturating_sub(1);
        let norm = norm(dict, "model.2", "model.3")?;
        (AnyNetwork::new("patch", PatchGan { layers, ndf, norm }), inputs)
    };
    // Eight layers at most: 2^11 is large enough for all, and nothing is computed.
    recognised(dict, "discriminator", network, [inputs, 1], |_| vec![2048; 2], None)
}

fn dcgan_generator(dict: &StateDict) -> Result<Recognised> {
    let [nz, _] = ends(dict, "main.0.weight")?;
    let levels = count(dict, 0, 3, |i| format!("main.{i}.weight")).saturating_sub(1);
    let [ngf, outputs] = ends(dict, &format!("main.{}.weight", 3 * levels))?;
    let size = image_size(dict, levels)?;
    let network = AnyNetwork::new("dcgan", DcganGenerator { ngf, norm: Norm::Batch });
    recognised(dict, "generator", network, [nz, outputs], |_| vec![size; 2], Some(size))
}

fn dcgan_discriminator(dict: &StateDict) -> Result<Recognised> {
    let [ndf, inputs] = ends(dict, "main.0.weight")?;
    let levels = count(dict, 2, 3, |i| format!("main.{i}.weight"));
    let size = image_size(dict, levels)?;
    let network = AnyNetwork::new("dcgan", DcganDiscriminator { ndf, norm: Norm::Batch });
    recognised(dict, "discriminator", network, [inputs, 1], |_| vec![size; 2], Some(size))
}

fn image_size(dict: &StateDict, levels: usize) -> Result<usize> {
    // 8 x 8 to 1024 x 1024.
    if (1..=8).contains(&levels) {
        Ok(4 << levels)
    } else {
        Err(Error::input(format!(
            "{}: there are {levels} convolutions that halve or double where DCGAN's networks have 1 to 8; name with --as what the weights are of",
            dict.source()
        )))
    }
}

/// The network with its tensors. `size` are extents of images that it takes, and `only` the extent where it takes one only.
fn recognised(
    dict: &StateDict,
    role: &str,
    network: AnyNetwork,
    [inputs, outputs]: [usize; 2],
    size: impl Fn(&AnyNetwork) -> Vec<usize>,
    only: Option<usize>,
) -> Result<Recognised> {
    let unusual = |why: &Error| {
        Error::input(format!("{}: the tensors are not those of a known network ({why})", dict.source()))
    };
    // Before the extents: settings that make no sense may have none.
    network.check(&Limits { key: role, inputs, outputs, size: None }).map_err(|e| unusual(&e))?;
    let size = size(&network);
    network.check(&Limits { key: role, inputs, outputs, size: Some(&size) }).map_err(|e| unusual(&e))?;
    let spec = NetSpec::describe(&format!("the {role}"), |cx, graph| {
        let shape = match network.signature() {
            Signature::Noise => vec![1, inputs],
            _ => [&[1], &size[..], &[inputs]].concat(),
        };
        network.forward(cx, &graph.input("x", shape), &Wanted { channels: outputs, size: size.clone() });
    })
    .map_err(|e| unusual(&e))?;
    Ok(Recognised { network, inputs, outputs, size: only, spec })
}

impl Recognised {
    /// All its tensors, from the state dict that it was recognised in.
    pub fn tensors(&self, dict: &StateDict) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let all = self.spec.params.iter().chain(&self.spec.buffers);
        all.filter_map(|t| dict.get(&t.key).map(|(shape, values)| (t.key.clone(), shape, values))).collect()
    }
}
