//! The table of the fastest variants as a file: beside the compiled kernels, where `gan kernels tune` writes it, and in the
//! folder of every run that took one.

use crate::device::choices::Choices;
use crate::device::cuda::cache::Cache;
use crate::device::cuda::device::CudaDevice;
use crate::device::cuda::sources::{HEADERS, KERNELS};
use crate::error::{Error, Result};
use crate::fsio;
use crate::ops::conv::cuda::variants::{ConvShape, Variant};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What marks the files.
const FORMAT: &str = "gan-kernel-choices";
/// Of their layout.
const VERSION: u32 = 1;

/// On what variants were timed: on anything else others may be the fastest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The device's name.
    pub device: String,
    /// Its compute capability, such as 90 for 9.0.
    pub capability: u32,
    /// Its multiprocessors.
    pub multiprocessors: usize,
    /// The newest CUDA that the driver runs.
    pub driver: String,
    /// The version of the run-time compiler.
    pub compiler: String,
    /// A hash of the kernels' sources.
    pub sources: String,
}

/// A shape's variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// Its name.
    pub variant: String,
    /// Microseconds that it took.
    pub us: f64,
    /// Microseconds of the variant that the rule by shape takes.
    pub default_us: f64,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    format: String,
    version: u32,
    /// Where it was measured.
    pub place: Place,
    /// Variants by shape.
    pub choices: BTreeMap<String, Chosen>,
}

impl Place {
    /// A device with its driver and compiler, and this program's kernels.
    pub fn of(device: &CudaDevice) -> Self {
        let version = |v: (i32, i32)| format!("{}.{}", v.0, v.1);
        let mut sources = Sha256::new();
        for (name, text) in KERNELS.iter().chain(HEADERS) {
            sources.update(name.as_bytes());
            sources.update((text.len() as u64).to_le_bytes());
            sources.update(text.as_bytes());
        }
        Place {
            device: device.name().into(),
            capability: device.capability(),
            multiprocessors: device.multiprocessors(),
            driver: version(device.driver_version()),
            compiler: version(device.compiler().nvrtc().version),
            sources: hex(&sources.finalize()),
        }
    }

    /// The file of its table.
    pub fn path(&self, cache: &Cache) -> PathBuf {
        let about = serde_json::to_string(self).expect("plain data");
        cache.folder().join("choices").join(format!("{}.json", hex(&Sha256::digest(about.as_bytes()))))
    }

    /// In what it differs from another, in words.
    fn difference(&self, other: &Place) -> Option<String> {
        let pairs = [
            ("device", self.device.clone(), other.device.clone()),
            ("compute capability", self.capability.to_string(), other.capability.to_string()),
            ("multiprocessors", self.multiprocessors.to_string(), other.multiprocessors.to_string()),
            ("driver", self.driver.clone(), other.driver.clone()),
            ("compiler", self.compiler.clone(), other.compiler.clone()),
            ("kernels", self.sources.clone(), other.sources.clone()),
        ];
        let differ = pairs.into_iter().find(|(_, a, b)| a != b);
        differ.map(|(what, there, here)| format!("{what} {there} there, {here} here"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

impl Table {
    /// An empty one.
    pub fn new(place: Place) -> Self {
        Table { format: FORMAT.into(), version: VERSION, place, choices: BTreeMap::new() }
    }

    /// Reads a table. Everything in it is checked: what is read can be used.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: String| {
            Error::input(format!(
                "{} is no table of kernel variants ({why}); delete it, and make it anew with `gan kernels tune`",
                path.display()
            ))
        };
        let text = std::fs::read(path).map_err(Error::io("read", path))?;
        let table: Table = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        if (table.format.as_str(), table.version) != (FORMAT, VERSION) {
            return Err(wrong(format!("its format is {:?}, version {}", table.format, table.version)));
        }
        for (shape, chosen) in &table.choices {
            let shape: ConvShape = shape.parse().map_err(&wrong)?;
            let variant: Variant = chosen.variant.parse().map_err(&wrong)?;
            if !shape.allows(&variant) {
                return Err(wrong(format!("{variant} is no variant of {shape}")));
            }
        }
        Ok(table)
    }

    /// The table of a place, if one was measured there.
    pub fn cached(place: &Place, cache: &Cache) -> Result<Option<Self>> {
        let path = place.path(cache);
        if !path.exists() {
            return Ok(None);
        }
        let table = Self::read(&path)?;
        match table.place.difference(place) {
            None => Ok(Some(table)),
            Some(differ) => Err(Error::input(format!(
                "{} was measured elsewhere ({differ}); delete it, and make it anew with `gan kernels tune`",
                path.display()
            ))),
        }
    }

    /// Writes it.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fsio::create_dir(folder)?;
        }
        fsio::write_bytes(path, self.text().as_bytes())
    }

    fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data") + "\n"
    }

    /// A fingerprint of its choices: two tables of the same one give the same results.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for (shape, chosen) in &self.choices {
            hash.update(format!("{shape} {}\n", chosen.variant));
        }
        hex(&hash.finalize())
    }

    /// For a device.
    pub fn choices(&self) -> &'static Choices {
        Choices::leak(self.choices.iter().map(|(s, c)| (s.clone(), c.variant.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: &str = "grad_x bf16 1,64,128,1,1,16,16,1,8,8,1,4,4,1,2,2,0,1,1,1,1,1";

    fn place() -> Place {
        Place {
            device: "D".into(),
            capability: 90,
            multiprocessors: 132,
            driver: "13.0".into(),
            compiler: "13.0".into(),
            sources: "0".into(),
        }
    }

    fn table() -> Table {
        let mut table = Table::new(place());
        let chosen = Chosen { variant: "64x32/2".into(), us: 1.0, default_us: 2.0 };
        table.choices.insert(SHAPE.into(), chosen);
        table
    }

    #[test]
    fn a_table_is_read_back_and_a_wrong_one_is_refused_in_a_sentence() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path()).expect("a cache");
        assert_eq!(Table::cached(&place(), &cache).expect("none"), None);
        let path = place().path(&cache);
        table().write(&path).expect("written");
        assert_eq!(Table::cached(&place(), &cache).expect("read"), Some(table()));
        assert!(cache.list().is_empty(), "no kernel");
        let refused = |text: &str| {
            std::fs::write(&path, text).expect("written");
            let e = Table::cached(&place(), &cache).expect_err(text);
            assert!(
                e.exit_code() == 1 && e.to_string().contains("make it anew with `gan kernels tune`"),
                "{e}"
            );
            e.to_string()
        };
        let text = table().text();
        assert!(refused("").contains("is no table of kernel variants"));
        assert!(refused(&text[..text.len() / 2]).contains("is no table of kernel variants"));
        assert!(refused(&text.replace("64x32/2", "64x48/2")).contains("64x48/2 is no variant of grad_x"));
        assert!(refused(&text.replace("64x32/2", "fast")).contains("\"fast\" names no variant"));
        assert!(refused(&text.replace(SHAPE, "conv")).contains("\"conv\" names no convolution"));
        assert!(refused(&text.replace("\"version\": 1", "\"version\": 2")).contains("version 2"));
        let other = text.replace("\"driver\": \"13.0\"", "\"driver\": \"12.8\"");
        assert!(refused(&other).contains("was measured elsewhere (driver 12.8 there, 13.0 here)"));
    }

    #[test]
    fn only_choices_make_the_fingerprint() {
        let (a, mut b) = (table(), table());
        b.place.driver = "13.1".into();
        b.choices.get_mut(SHAPE).expect("there").us = 7.0;
        assert_eq!(a.digest(), b.digest());
        b.choices.get_mut(SHAPE).expect("there").variant = "64x32/1".into();
        assert_ne!(a.digest(), b.digest());
    }
}
