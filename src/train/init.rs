//! Weights to start from in place of random ones: `train.init` of a recipe, and those of its frozen networks.

use crate::data::Notes;
use crate::error::{Error, Result};
use crate::exec::States;
use crate::methods::Method;
use crate::nn::NetSpec;
use crate::nn::params::TensorSpec;
use crate::recipe::Recipe;
use crate::weights::StateDict;

/// Reads the files of `train.init` into the networks that they are named for. A file must have just the network's tensors,
/// or be a checkpoint with one such part, which is noted; its own form (.safetensors, .pth) does not matter.
pub fn from_files(
    recipe: &Recipe,
    method: &Method,
    specs: &[NetSpec],
    states: &mut States,
    notes: &Notes,
) -> Result<()> {
    for (net, path) in &recipe.train.init {
        let spec = specs.iter().find(|s| s.name == *net).ok_or_else(|| {
            let known: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
            Error::input(format!(
                "`train.init.{net}` names no network of this recipe, which has {}",
                known.join(", ")
            ))
        })?;
        if method.frozen(net) {
            return Err(Error::input(format!(
                "`train.init.{net}`: {net} is frozen; name its file in `networks.{net}.weights`"
            )));
        }
        let file = StateDict::read(path)?;
        let (_, dict) = file.find(None, |d| d.check(spec))?;
        if !dict.part().is_empty() {
            let left_out = file.left_out(&dict).join(", ");
            let rest = if left_out.is_empty() { left_out } else { format!("; left out: {left_out}") };
            notes.add(format!(
                "{net} starts from `{}` of {} (`train.init`){rest}",
                dict.part(),
                path.display()
            ));
        }
        spec.import(states, dict.source(), |key| dict.get(key))?;
    }
    Ok(())
}

/// Reads the files of frozen networks. A file may hold more than the network, such as a head that it lacks, which is noted.
/// Where it was trained on several channels and the images have one, its first kernel is summed over them, which is the same as
/// repeating the channel.
pub fn frozen(method: &Method, specs: &[NetSpec], states: &mut States, notes: &Notes) -> Result<()> {
    for (net, path, key) in method.files() {
        let Some(spec) = specs.iter().find(|s| s.name == net) else { continue };
        let named = |e: Error| Error::input(format!("`{key}`: {e}"));
        let file = StateDict::read(path).map_err(named)?;
        let (_, dict) = file.find(None, |d| check(d, spec)).map_err(named)?;
        let wanted = |key: &str| spec.params.iter().chain(&spec.buffers).any(|t| t.key == key);
        let surplus = dict.keys().filter(|k| !wanted(k)).count();
        if surplus > 0 {
            notes.add(format!("{net} takes no use of {surplus} tensors of {} (`{key}`)", path.display()));
        }
        if let Some(first) = spec.params.first()
            && let Some(channels) = summed(&dict, first)
        {
            notes.add(format!(
                "{net} sees the image's one channel {channels} times: its first kernel is summed over as many (`{key}`)"
            ));
        }
        spec.import(states, dict.source(), |key| {
            let (shape, data) = dict.get(key)?;
            let first = spec.params.first().filter(|t| t.key == key);
            match first.and_then(|t| Some((t, summed(&dict, t)?))) {
                Some((t, channels)) => Some((t.torch_shape(), over_channels(&data, shape[0], channels))),
                None => Some((shape, data)),
            }
        })?;
    }
    Ok(())
}

/// Over how many channels the first kernel of a file is summed for images of one channel, if it is.
fn summed(dict: &StateDict, first: &TensorSpec) -> Option<usize> {
    let (own, there) = (first.torch_shape(), dict.shape(&first.key)?);
    let alike = own.len() == there.len() && own.len() > 2 && own[0] == there[0] && own[2..] == there[2..];
    (alike && own[1] == 1 && there[1] > 1).then_some(there[1])
}

/// The sums over the second axis, which has `channels`.
fn over_channels(data: &[f32], outputs: usize, channels: usize) -> Vec<f32> {
    let inner = data.len() / (outputs * channels).max(1);
    let sum = |i: usize| {
        let (output, at) = (i / inner, i % inner);
        let one = |c: usize| f64::from(data[(output * channels + c) * inner + at]);
        (0..channels).map(one).sum::<f64>() as f32
    };
    (0..outputs * inner).map(sum).collect()
}

/// Whether a file has all tensors of a network, with their shapes; else one sentence about the first that it lacks.
fn check(dict: &StateDict, spec: &NetSpec) -> Result<()> {
    let first = spec.params.first().filter(|t| summed(dict, t).is_some()).map(|t| &t.key);
    for t in spec.params.iter().chain(&spec.buffers) {
        let why = match dict.shape(&t.key) {
            Some(shape) if *shape == t.torch_shape() || first == Some(&t.key) => continue,
            Some(shape) => format!(
                "tensor {} has shape {shape:?} where {} expects {:?}",
                t.key,
                spec.name,
                t.torch_shape()
            ),
            None => format!("there is no tensor {} {:?}", t.key, t.torch_shape()),
        };
        return Err(Error::input(format!(
            "{}: {why}; the weights are of another network than {}",
            dict.source(),
            spec.name
        )));
    }
    Ok(())
}
