//! What is done to the images of a data set, said once.

use super::Dataset;
use crate::data::config::{Augment, Window};
use crate::data::manifest::Split;

impl Dataset {
    /// Notes what is left out, padded, cropped and changed at random. `dims` are the cases' canonical extents.
    pub(super) fn tell(&self, dims: &[[usize; 3]]) {
        let (config, notes) = (&self.config, &self.manifest.notes);
        let [h, w] = self.fit.canvas;
        for (entry, dims) in self.entries.iter().zip(dims) {
            let size = config.plane.slice_shape(*dims);
            if size[0] < h || size[1] < w {
                notes.about(
                    format!("slices are padded with their volume's smallest value to the canvas of {h} x {w} (data.canvas)"),
                    &entry.id,
                );
            }
            if size[0] > h || size[1] > w {
                let place = match config.window {
                    Window::Centre => "in their middle",
                    Window::Brightest => "where the first input is brightest",
                    Window::Target => "around the true labels",
                };
                notes.about(
                    format!("slices are cropped to the canvas of {h} x {w}, {place}: what lies outside is not seen (data.canvas, data.window)"),
                    &entry.id,
                );
            }
        }
        if config.degrade.is_some() {
            notes.add("the inputs are made worse before a network sees them (data.degrade)");
        }
        if self.split != Split::Train {
            return;
        }
        let left_out = self.slices_in_all - self.samples.len();
        if left_out > 0 {
            let labelled = if config.only_labelled { ", data.only_labelled" } else { "" };
            notes.add(format!(
                "{left_out} of {} training slices of `{}` are left out, as they show too little (data.min_foreground = {}, data.slice_range{labelled})",
                self.slices_in_all,
                config.input.join("+"),
                config.min_foreground
            ));
        }
        self.tell_changes(&config.augment);
    }

    /// Notes the random changes; of mirroring the configuration speaks.
    fn tell_changes(&self, augment: &Augment) {
        let notes = &self.manifest.notes;
        let others = [
            ("shift", augment.shift),
            ("rotate", augment.rotate),
            ("zoom", augment.zoom),
            ("gain", augment.gain),
            ("noise", augment.noise),
        ];
        let used: Vec<&str> = others.iter().filter(|(_, v)| *v > 0.0).map(|(name, _)| *name).collect();
        if !used.is_empty() {
            notes.add(format!("training slices are changed at random (data.augment): {}", used.join(", ")));
        }
    }
}
