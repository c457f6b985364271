//! Two sets of images of which no two belong together: a data set for each, on one canvas. Subjects, grids and numbers of
//! images may differ.

use super::{Dataset, OpenOptions};
use crate::data::case;
use crate::data::config::DataConfig;
use crate::data::fit::DataFit;
use crate::data::manifest::{Manifest, Split};
use crate::data::normalise::{Fitted, Normalisation, Scope};
use crate::error::{Error, Result};

impl DataConfig {
    /// The settings of either set by itself: its images are the inputs, and nothing is made of them.
    fn side(&self, targets: bool) -> DataConfig {
        let own = DataConfig { unpaired: false, target: Vec::new(), ..self.clone() };
        match targets {
            false => own,
            true => DataConfig {
                input: self.target.clone(),
                normalise_input: self.normalise_target,
                degrade: None,
                ..own
            },
        }
    }
}

impl Dataset {
    /// Opens both sets; what is given has the inputs, and [`Dataset::others`] the targets.
    pub(super) fn open_sets(
        config: &DataConfig,
        manifest: &Manifest,
        split: Split,
        fit: Option<&DataFit>,
        options: OpenOptions,
    ) -> Result<Dataset> {
        check_rows(manifest, config)?;
        let found;
        let fit = match fit {
            None if split != Split::Train => {
                found = Dataset::open_sets(config, manifest, Split::Train, None, options)?.fit;
                Some(&found)
            }
            other => other,
        };
        let open = |targets: bool| {
            let own = config.side(targets);
            let entries = manifest.entries.iter().filter(|e| e.files.contains_key(&own.input[0]));
            let source = format!("{} (images of `{}`)", manifest.source, own.input.join("`, `"));
            let own_manifest = Manifest { source, entries: entries.cloned().collect(), ..manifest.clone() };
            let own_fit = fit.map(|f| DataFit {
                canvas: f.canvas,
                input: if targets { f.target.iter().map(|t| Some(*t)).collect() } else { f.input.clone() },
                target: Vec::new(),
            });
            Dataset::open_in(&own, own_manifest, split, own_fit.as_ref(), options)
        };
        let (mut set, mut others) = (open(false)?, open(true)?);
        match fit {
            Some(fit) => set.fit = fit.clone(),
            None => {
                let (a, b) = (set.fit.canvas, others.fit.canvas);
                set.fit.canvas = [a[0].max(b[0]), a[1].max(b[1])];
                set.fit.target = others.fit_all(config.normalise_target)?;
                others.fit.input = set.fit.target.iter().map(|t| Some(*t)).collect();
            }
        }
        others.fit.canvas = set.fit.canvas;
        set.others = Some(Box::new(others));
        Ok(set)
    }

    /// A normalisation over all cases, per input.
    fn fit_all(&self, normalisation: Normalisation) -> Result<Vec<Fitted>> {
        let cases: Vec<_> = (0..self.cases()).map(|i| self.case_data(i)).collect::<Result<_>>()?;
        let shared = Normalisation { scope: Scope::Dataset, ..normalisation };
        let config = DataConfig { normalise_input: shared, ..self.config.clone() };
        let fit = case::fit(&cases, &config, self.fit.canvas);
        Ok(fit.input.into_iter().map(|f| f.expect("fitted over the data set")).collect())
    }
}

/// Every subject must have all images of a set or none, and belong to one set at least.
fn check_rows(manifest: &Manifest, config: &DataConfig) -> Result<()> {
    for entry in &manifest.entries {
        let mut member = false;
        for list in [&config.input, &config.target] {
            let has = list.iter().filter(|m| entry.files.contains_key(*m)).count();
            if has > 0 {
                // Also says if a column or a file is missing.
                list.iter().try_for_each(|m| manifest.file(entry, m).map(drop))?;
                member = true;
            }
        }
        if !member {
            let all: Vec<&str> = config.input.iter().chain(&config.target).map(String::as_str).collect();
            for m in &all {
                manifest.check_column(m)?;
            }
            return Err(Error::input(format!(
                "{}: subject {} has none of the images `{}`; add one or leave the subject out",
                manifest.source,
                entry.id,
                all.join("`, `")
            )));
        }
    }
    for (list, key) in [(&config.input, "input"), (&config.target, "target")] {
        list.iter().try_for_each(|m| manifest.check_column(m))?;
        if !manifest.entries.iter().any(|e| e.files.contains_key(&list[0])) {
            return Err(Error::input(format!(
                "{}: no subject has an image `{}` (`data.{key}`); with `data.unpaired` there are two sets, and this one is empty",
                manifest.source, list[0]
            )));
        }
    }
    Ok(())
}
