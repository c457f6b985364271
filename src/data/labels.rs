//! Label maps as targets: whole numbers in a file, masks or class numbers for a network, and back.

use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Most labels and regions.
const MOST: usize = 64;

/// What the labels of the target mean. Without regions every label is a class of its own; the first one is the background.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// All numbers that a label map may hold, 0 to 255.
    pub values: Vec<u8>,
    /// Masks that may overlap, each the union of some labels. Where a prediction is written as one label map, later
    /// regions are painted over earlier ones: name the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Region>,
    /// No label tells left from right, so that mirroring is as right for the map as for the image (default false: training
    /// does not mirror unless `data.augment.flip` says so).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub symmetric: bool,
}

/// A union of labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Short name, such as "TC".
    pub name: String,
    /// Its labels.
    pub labels: Vec<u8>,
}

impl Labels {
    /// Checks what can be checked without a file; messages name the key.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::input(format!("data: `labels` {why}")));
        let twice = |list: &[u8]| (1..list.len()).any(|i| list[..i].contains(&list[i]));
        if !(2..=MOST).contains(&self.values.len()) || twice(&self.values) {
            return wrong("needs 2 to 64 different `values`, for example values = [0, 1, 2, 4]".into());
        }
        if self.regions.len() > MOST {
            return wrong(format!("has more than {MOST} regions; leave some out"));
        }
        for region in &self.regions {
            let name = &region.name;
            if let Some(l) = region.labels.iter().find(|l| !self.values.contains(l)) {
                return wrong(format!(
                    "has label {l} in region {name}, but not in `values`; add it there or correct it"
                ));
            }
            if region.labels.is_empty() || twice(&region.labels) {
                return wrong(format!("has no labels, or the same twice, in region {name}; list each once"));
            }
        }
        Ok(())
    }

    /// Channels of the target: one per region, or one of class numbers.
    pub fn target_channels(&self) -> usize {
        self.regions.len().max(1)
    }

    /// Channels that a network puts out: one per region or class.
    pub fn outputs(&self) -> usize {
        if self.regions.is_empty() { self.values.len() } else { self.regions.len() }
    }

    /// The names under which masks are scored: of the regions, or of all classes but the first.
    pub fn names(&self) -> Vec<String> {
        if self.regions.is_empty() {
            self.values[1..].iter().map(|v| format!("label{v}")).collect()
        } else {
            self.regions.iter().map(|r| r.name.clone()).collect()
        }
    }

    /// A label map's channels: a mask of zeros and ones per region, or one channel of class numbers. Numbers that are no
    /// label are refused.
    pub fn channels(&self, map: &[f32], path: &Path) -> Result<Vec<Vec<f32>>> {
        let class = |v: f32| self.values.iter().position(|l| f32::from(*l) == v);
        if let Some(v) = map.iter().find(|v| class(**v).is_none()) {
            return Err(Error::input(format!(
                "{} holds the label {v}, but `data.labels.values` has {:?} only; add it there, or correct the image",
                path.display(),
                self.values
            )));
        }
        if self.regions.is_empty() {
            return Ok(vec![map.iter().map(|v| class(*v).unwrap_or(0) as f32).collect()]);
        }
        let mask = |r: &Region| {
            map.iter().map(|v| f32::from(u8::from(r.labels.iter().any(|l| f32::from(*l) == *v)))).collect()
        };
        Ok(self.regions.iter().map(mask).collect())
    }

    /// The masks behind channels of a target (`[voxels]` each), in the order of [`Labels::names`].
    pub fn masks(&self, channels: &[&[f32]]) -> Vec<Vec<bool>> {
        if self.regions.is_empty() {
            (1..self.values.len()).map(|k| channels[0].iter().map(|v| *v == k as f32).collect()).collect()
        } else {
            channels.iter().map(|c| c.iter().map(|v| *v > 0.5).collect()).collect()
        }
    }

    /// A network's probabilities (channels interleaved) as a target's channels: masks above one half, or the likeliest
    /// class.
    pub fn decide(&self, probabilities: &[f32]) -> Vec<f32> {
        if !self.regions.is_empty() {
            return probabilities.iter().map(|p| f32::from(u8::from(*p > 0.5))).collect();
        }
        let likeliest =
            |p: &[f32]| (0..p.len()).fold(0, |best, k| if p[k] > p[best] { k } else { best }) as f32;
        probabilities.chunks(self.values.len()).map(likeliest).collect()
    }

    /// One voxel's target channels as a label. A region is painted with the first of its labels that no later region has.
    pub fn label(&self, channels: &[f32]) -> f32 {
        if self.regions.is_empty() {
            return self.values.get(channels[0] as usize).map_or(0.0, |v| f32::from(*v));
        }
        let own = |i: usize| {
            let later = &self.regions[i + 1..];
            let mut labels = self.regions[i].labels.iter();
            let first = self.regions[i].labels[0];
            *labels.find(|l| !later.iter().any(|r| r.labels.contains(l))).unwrap_or(&first)
        };
        let painted = (0..self.regions.len()).rev().find(|&i| channels[i] > 0.5);
        f32::from(painted.map_or(self.values[0], own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brats() -> Labels {
        let region = |name: &str, labels: &[u8]| Region { name: name.into(), labels: labels.to_vec() };
        Labels {
            values: vec![0, 1, 2, 4],
            regions: vec![region("WT", &[1, 2, 4]), region("TC", &[1, 4]), region("ET", &[4])],
            symmetric: false,
        }
    }

    #[test]
    fn regions_of_brats_survive_the_way_to_a_network_and_back() {
        let labels = brats();
        labels.check().expect("valid");
        let map = [0.0, 1.0, 2.0, 4.0];
        let channels = labels.channels(&map, Path::new("x")).expect("known labels");
        assert_eq!(channels, [[0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]);
        for (i, v) in map.iter().enumerate() {
            let voxel: Vec<f32> = channels.iter().map(|c| c[i]).collect();
            assert_eq!(labels.label(&voxel), *v);
        }
        // Necrosis is tumour core: a core alone is written as its first own label.
        let core =
            Labels { values: vec![0, 1, 2, 4], regions: vec![labels.regions[1].clone()], symmetric: false };
        assert_eq!((core.label(&[1.0]), core.label(&[0.0])), (1.0, 0.0));
    }

    #[test]
    fn classes_are_numbered_in_the_order_of_the_values() {
        let labels = Labels { values: vec![0, 2, 5], regions: Vec::new(), symmetric: false };
        let channels = labels.channels(&[5.0, 0.0, 2.0], Path::new("x")).expect("known labels");
        assert_eq!(channels, [[2.0, 0.0, 1.0]]);
        assert_eq!(labels.decide(&[0.1, 0.2, 0.7, 0.5, 0.4, 0.1]), [2.0, 0.0]);
        assert_eq!((labels.label(&[2.0]), labels.label(&[0.0])), (5.0, 0.0));
        assert_eq!(labels.masks(&[&[2.0, 0.0, 1.0]]), [[false, false, true], [true, false, false]]);
    }

    #[test]
    fn unknown_labels_are_named() {
        let e = brats().channels(&[0.0, 3.0], Path::new("seg.nii")).expect_err("3 is none").to_string();
        assert!(e.contains("seg.nii") && e.contains("label 3") && e.contains("data.labels.values"), "{e}");
        let mut wrong = brats();
        wrong.regions[0].labels.push(3);
        assert!(wrong.check().expect_err("3 is none").to_string().contains("label 3 in region WT"));
        wrong.values = vec![0, 0];
        assert!(wrong.check().is_err());
    }
}
