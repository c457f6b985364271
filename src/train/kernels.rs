//! Which kernels a recipe needs, found by tracing its programs: no GPU is asked.

use super::recipe::Recipe;
use super::run::{self, PREDICT_BATCH};
use super::session::trace_step;
use crate::data::{Dataset, OpenOptions, Split};
use crate::device::launch::{GpuTraits, Specialisation};
use crate::error::Result;
use crate::exec::gpu::Prepared;
use std::collections::{BTreeMap, BTreeSet};

/// The extents that a recipe's data gives its programs.
#[derive(Clone, Debug)]
pub struct Extents {
    /// Height and width.
    pub canvas: [usize; 2],
    /// Slices that are predicted at once.
    pub predicted: BTreeSet<usize>,
}

impl Extents {
    /// Of a recipe's own data, which is read: as in training, validation and evaluation.
    pub fn of(recipe: &Recipe) -> Result<Self> {
        let open = OpenOptions { multiple: run::method(recipe).multiple(), ..Default::default() };
        let train = Dataset::open(&recipe.data, Split::Train, None, open)?;
        let mut extents = Extents::given(train.fit().canvas);
        for split in [Split::Val, Split::Test] {
            let set = Dataset::open(&recipe.data, split, Some(train.fit()), open)?;
            for i in 0..set.cases() {
                // A subject's last slices are fewer than a whole batch.
                let rest = set.case(i)?.input_shape[0] % PREDICT_BATCH;
                extents.predicted.extend((rest > 0).then_some(rest));
            }
        }
        Ok(extents)
    }

    /// Where only the canvas is known: predictions in whole batches.
    pub fn given(canvas: [usize; 2]) -> Self {
        Extents { canvas, predicted: [PREDICT_BATCH].into() }
    }
}

/// Everything that training and predicting with a recipe launches on such a device, each once.
pub fn specialisations(recipe: &Recipe, extents: &Extents, gpu: &GpuTraits) -> Result<Vec<Specialisation>> {
    let method = run::method(recipe);
    let [h, w] = extents.canvas;
    let specs = method.describe(h, w)?;
    let mut found = BTreeMap::new();
    let mut add = |prepared: Prepared| {
        for launch in prepared.launches() {
            let what = &launch.specialisation;
            found.insert((what.file, what.constants.clone()), what.clone());
        }
    };
    let step = trace_step(recipe, &method, &specs, extents.canvas);
    add(Prepared::new(gpu, step.graph(), &step.outputs())?);
    for &n in &extents.predicted {
        let (step, y) = run::trace_predict(&method, &specs[0], 1, [n, h, w, method.inputs]);
        add(Prepared::new(gpu, step.graph(), &[("output", &y)])?);
    }
    Ok(found.into_values().collect())
}
