//! Which kernels a recipe needs, found by tracing its programs: no GPU is asked.

use crate::data::{Dataset, OpenOptions, Split};
use crate::device::launch::{GpuTraits, Specialisation};
use crate::error::Result;
use crate::evaluate::generation::MOST;
use crate::exec::gpu::Prepared;
use crate::methods::{Shapes, Task};
use crate::recipe::Recipe;
use crate::run::forward::{self, BATCH};
use crate::run::predictor::predicting;
use crate::run::programs::trace_step;
use std::collections::{BTreeMap, BTreeSet};

/// The extents that a recipe's data gives its programs.
#[derive(Clone, Debug)]
pub struct Extents {
    /// Of an image: two or three spatial extents.
    pub size: Vec<usize>,
    /// Images that are predicted at once.
    pub predicted: BTreeSet<usize>,
}

impl Extents {
    /// Of a recipe's own data, which is read (but for patches, whose extents the recipe says): as in training, validation
    /// and evaluation.
    pub fn of(recipe: &Recipe) -> Result<Self> {
        if let Some(patch) = recipe.data.patch {
            return Ok(Extents::given(patch.to_vec()));
        }
        let method = recipe.method()?;
        let open = OpenOptions { multiple: method.multiple(), ..Default::default() };
        let train = Dataset::open(&recipe.data, Split::Train, None, open)?;
        let mut extents = Extents::given(recipe.data.size(train.fit()));
        for split in [Split::Val, Split::Test] {
            let set = Dataset::open(&recipe.data, split, Some(train.fit()), open)?;
            let counts = match method.task() {
                // As many images as there are real ones.
                Task::Generate => vec![set.len().min(MOST)],
                // As many slices as training shows of them.
                Task::Classify | Task::Regress => (0..set.cases())
                    .map(|i| Ok(set.case(i)?.shown(&recipe.data).len()))
                    .collect::<Result<Vec<usize>>>()?,
                Task::Translate | Task::Segment => (0..set.cases())
                    .map(|i| Ok(set.case(i)?.input_shape[0]))
                    .collect::<Result<Vec<usize>>>()?,
            };
            // The last are fewer than a whole batch.
            extents.predicted.extend(counts.iter().map(|n| n % BATCH).filter(|rest| *rest > 0));
        }
        Ok(extents)
    }

    /// Where only the images' extents are known: slices are predicted in whole batches, patches one by one.
    pub fn given(size: Vec<usize>) -> Self {
        let at_once = if size.len() == 3 { 1 } else { BATCH };
        Extents { size, predicted: [at_once].into() }
    }
}

/// The programs that training and predicting with a recipe run on such a device: first those of a training step.
pub fn programs(recipe: &Recipe, extents: &Extents, gpu: &GpuTraits) -> Result<Vec<Prepared>> {
    let method = recipe.method()?;
    let shapes = Shapes::new(&recipe.data, recipe.train.batch, extents.size.clone());
    let specs = method.networks(&shapes.size)?;
    let mut all = Vec::new();
    for step in trace_step(recipe, &method, &specs, &shapes) {
        all.push(Prepared::new(gpu, step.graph(), &step.outputs())?);
    }
    let item = match method.noise() {
        Some(numbers) => vec![numbers],
        None => [shapes.size.as_slice(), &[shapes.inputs]].concat(),
    };
    let net = predicting(&method, &specs);
    for &n in &extents.predicted {
        let (step, y) = forward::trace(&method, net, &[&[n], item.as_slice()].concat(), &shapes.size);
        all.push(Prepared::new(gpu, step.graph(), &[("output", &y)])?);
    }
    Ok(all)
}

/// Everything that training and predicting with a recipe launches on such a device, each once.
pub fn specialisations(recipe: &Recipe, extents: &Extents, gpu: &GpuTraits) -> Result<Vec<Specialisation>> {
    let mut found = BTreeMap::new();
    for program in programs(recipe, extents, gpu)? {
        for launch in program.launches() {
            let what = &launch.specialisation;
            found.insert((what.file, what.constants.clone()), what.clone());
        }
    }
    Ok(found.into_values().collect())
}
