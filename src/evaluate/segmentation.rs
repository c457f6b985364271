//! Segmented cases: scores, label maps, and how masks are shown.

use crate::data::labels::Labels;
use crate::data::{Case, DataConfig};
use crate::error::Result;
use crate::metrics::case::CaseScores;
use crate::metrics::masks::{self, Grid};
use crate::metrics::thresholds::Thresholds;

/// What is watched in training: means over the masks, and each mask's Dice where there are several.
pub fn watched(data: &DataConfig) -> Vec<String> {
    let names = data.labels.as_ref().map_or_else(Vec::new, |l| l.names());
    let mut all = ["dice", "sensitivity", "ppv"].map(String::from).to_vec();
    if names.len() > 1 {
        all.extend(names.iter().map(|n| format!("dice_{n}")));
    }
    all
}

/// Dice, sensitivity, specificity and PPV of each mask over the whole volume, and with `distances` HD95 in mm; their
/// means over the masks first. What lies beyond the canvas counts as predicted to be background. Policies for empty
/// masks are those of [`crate::metrics::overlap`] and [`crate::metrics::surface`].
pub fn score(case: &Case, probabilities: &[f32], data: &DataConfig, distances: bool) -> Result<CaseScores> {
    let labels = data.known_labels()?;
    let decided = labels.decide(probabilities);
    let channels = labels.target_channels();
    let volumes: Vec<Vec<f32>> = (0..channels).map(|c| case.canonical(&decided, channels, c, 0.0)).collect();
    let predicted = labels.masks(&volumes.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let truth = labels.masks(&case.target_channels());
    let (dims, spacing) = case.canonical_grid();
    let both = |i: usize| (predicted[i].clone(), truth[i].clone());
    masks::score(case.id.clone(), &labels.names(), both, None, distances.then_some(Grid { dims, spacing }))
}

/// How well each mask is found at every threshold, over all voxels of the cases' canvases, in the order of
/// [`Labels::names`]: by its probability, whatever the others' are.
pub fn curves(cases: &[Case], probabilities: &[Vec<f32>], labels: &Labels) -> Vec<(String, Thresholds)> {
    let (outputs, channels) = (labels.outputs(), labels.target_channels());
    // Of classes the first is the background.
    let skipped = usize::from(labels.regions.is_empty());
    let curve = |i: usize, name: String| {
        let mut curve = Thresholds::default();
        for (case, p) in cases.iter().zip(probabilities) {
            let truth = case.target.as_deref().unwrap_or_default();
            for (p, t) in p.chunks(outputs).zip(truth.chunks(channels)) {
                let own = if skipped == 1 { t[0] == (i + 1) as f32 } else { t[i] > 0.5 };
                curve.add(p[i + skipped], own);
            }
        }
        (name, curve)
    };
    labels.names().into_iter().enumerate().map(|(i, name)| curve(i, name)).collect()
}

/// Target channels of pixels as grey values in [-1, 1]: masks one upon the other, classes from dark to bright.
pub fn shade(channels: &[f32], labels: &Labels) -> Vec<f32> {
    let count = labels.target_channels();
    // Class numbers count from 0; of masks as many can lie upon each other as there are.
    let most = if labels.regions.is_empty() { labels.values.len() - 1 } else { count };
    channels.chunks(count).map(|v| 2.0 * v.iter().sum::<f32>() / most as f32 - 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::labels::Region;

    #[test]
    fn masks_and_classes_become_steps_of_grey() {
        let region = |labels: &[u8]| Region { name: "x".into(), labels: labels.to_vec() };
        let nested =
            Labels { values: vec![0, 1, 2], regions: vec![region(&[1, 2]), region(&[1])], symmetric: false };
        assert_eq!(shade(&[0.0, 0.0, 1.0, 0.0, 1.0, 1.0], &nested), [-1.0, 0.0, 1.0]);
        let classes = Labels { values: vec![0, 1, 4], regions: Vec::new(), symmetric: false };
        assert_eq!(shade(&[0.0, 1.0, 2.0], &classes), [-1.0, 0.0, 1.0]);
    }
}
