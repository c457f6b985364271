//! One subject: anatomy sampled on the grid, then every scanner's view of it.

use super::PhantomConfig;
use super::anatomy::Head;
use super::scanner;
use super::tissue::{ALL, COUNT, Field, Sequence, Tissue};
use crate::data::affine::Affine;
use crate::rng::Philox;
use rayon::prelude::*;

/// Signal that white matter has in every MR image, before the subject's own gain.
const WHITE_SIGNAL: f64 = 400.0;
/// MR noise of the 3 T and 7 T MPRAGE over `mr_noise`, and bias over `bias`.
const MPRAGE: [(Field, f64, f64); 2] = [(Field::T3, 5.0 / 3.0, 1.0), (Field::T7, 1.0, 2.5)];
/// Share of k-space that the 3 T MPRAGE keeps: 0.65 mm against 1 mm.
const K_SPACE: f64 = 0.65;

/// An image of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    /// An MR sequence.
    Mr(Sequence),
    /// FDG PET, SUVR relative to cerebellar grey matter.
    Pet,
    /// Tissue numbers ([`Tissue`]).
    Tissue,
    /// Tumour labels: 1 necrosis, 2 oedema, 4 enhancing.
    Tumour,
}

/// Name in the manifest, and what it is.
pub const MODALITIES: [(&str, Modality); 9] = [
    ("t1", Modality::Mr(Sequence::T1)),
    ("t1ce", Modality::Mr(Sequence::T1Contrast)),
    ("t2", Modality::Mr(Sequence::T2)),
    ("flair", Modality::Mr(Sequence::Flair)),
    ("mprage_3t", Modality::Mr(Sequence::Mprage(Field::T3))),
    ("mprage_7t", Modality::Mr(Sequence::Mprage(Field::T7))),
    ("pet", Modality::Pet),
    ("tissue", Modality::Tissue),
    ("tumour", Modality::Tumour),
];

/// All images of one subject, x fastest, RAS.
pub struct Subject {
    /// `sub-0001`, ...
    pub id: String,
    /// Voxels in the order of [`MODALITIES`].
    pub images: Vec<Vec<f32>>,
    /// Whether it has a tumour.
    pub tumour: bool,
    /// Whether it has the hidden hypometabolism.
    pub hypometabolism: bool,
    /// Root mean square (SUVR) of PET minus the best prediction from perfectly known anatomy: over the whole volume,
    /// and inside the head.
    pub oracle_rmse: [f64; 2],
}

/// Makes subject `index` (from 0): a pure function of (settings, index).
pub fn simulate(config: &PhantomConfig, index: usize) -> Subject {
    let id = format!("sub-{:04}", index + 1);
    let stream = |what: &str| Philox::named(config.seed, &format!("{id}/{what}"));
    let dims = config.size;
    let spacing = [config.spacing; 3];
    let tumour = chosen(config.tumours, index, config.seed, "tumour");
    let hypometabolism = chosen(config.hypometabolism, index, config.seed, "hypometabolism");
    let head = Head::new(&mut stream("anatomy"), config.spacing as f32, tumour, hypometabolism);

    let affine = Affine::centred(dims, spacing);
    let slab = dims[0] * dims[1];
    let mixes: Vec<_> = (0..dims[0] * dims[1] * dims[2])
        .into_par_iter()
        .with_min_len(slab)
        .map(|at| {
            let index = [at % dims[0], at / dims[0] % dims[1], at / slab].map(|i| i as f64);
            head.at(affine.apply(index).map(|v| v as f32))
        })
        .collect();

    let gain = stream("gain").range(0.8, 1.25);
    let mr = |sequence: Sequence, name: &str| {
        let white = sequence.signal(Tissue::White).abs();
        let signal: [f32; COUNT] = ALL.map(|t| (sequence.signal(t) * gain * WHITE_SIGNAL / white) as f32);
        let mut image: Vec<f32> =
            mixes.iter().map(|m| m.share.iter().zip(&signal).map(|(s, v)| s * v).sum()).collect();
        let field = if let Sequence::Mprage(f) = sequence { Some(f) } else { None };
        let (_, noise, bias) =
            MPRAGE.into_iter().find(|m| Some(m.0) == field).unwrap_or((Field::T3, 1.0, 1.0));
        if field == Some(Field::T3) {
            scanner::crop_k_space(&mut image, dims, K_SPACE);
        }
        scanner::bias(&mut image, dims, spacing, config.bias * bias, &mut stream(&format!("{name}/bias")));
        let sigma = config.mr_noise * noise * gain * WHITE_SIGNAL;
        scanner::rician(&mut image, sigma as f32, config.seed, &format!("{id}/{name}/noise"));
        image
    };

    let mut oracle_rmse = [0.0; 2];
    let images = MODALITIES
        .iter()
        .map(|(name, modality)| match modality {
            Modality::Mr(sequence) => mr(*sequence, name),
            Modality::Pet => {
                let mut pet: Vec<f32> = mixes.iter().map(|m| m.uptake.real).collect();
                let mut expected: Vec<f32> = mixes.iter().map(|m| m.uptake.expected).collect();
                scanner::blur(&mut pet, dims, spacing, config.pet_fwhm);
                scanner::blur(&mut expected, dims, spacing, config.pet_fwhm);
                scanner::poisson(&mut pet, config.pet_counts, &mut stream("pet/noise"));
                let inside = |at: usize| mixes[at].of(Tissue::Air) < 0.5;
                oracle_rmse = [rmse(&pet, &expected, |_| true), rmse(&pet, &expected, inside)];
                pet
            }
            Modality::Tissue => mixes.iter().map(|m| m.dominant() as f32).collect(),
            Modality::Tumour => mixes.iter().map(|m| tumour_label(&m.share)).collect(),
        })
        .collect();
    Subject { id, images, tumour, hypometabolism, oracle_rmse }
}

/// The BraTS 2020 label of a voxel that is mostly tumour, else 0.
fn tumour_label(share: &[f32; COUNT]) -> f32 {
    let parts = [(Tissue::Necrosis, 1.0), (Tissue::Edema, 2.0), (Tissue::Enhancing, 4.0)];
    if parts.iter().map(|(t, _)| share[*t as usize]).sum::<f32>() < 0.5 {
        return 0.0;
    }
    parts
        .iter()
        .fold((0.0, 0.0), |best, (t, label)| {
            let s = share[*t as usize];
            if s > best.0 { (s, *label) } else { best }
        })
        .1
}

/// Whether a subject is among the share that has a property. Any run of subjects has about its share (systematic
/// sampling with a random start), so that every split sees it.
fn chosen(share: f64, index: usize, seed: u64, what: &str) -> bool {
    let start = Philox::named(seed, what).uniform();
    let count = |n: usize| (n as f64 * share + start).floor();
    count(index + 1) > count(index)
}

fn rmse(a: &[f32], b: &[f32], inside: impl Fn(usize) -> bool) -> f64 {
    let (mut sum, mut n) = (0.0, 0usize);
    for at in (0..a.len()).filter(|&at| inside(at)) {
        sum += f64::from(a[at] - b[at]).powi(2);
        n += 1;
    }
    if n == 0 { 0.0 } else { (sum / n as f64).sqrt() }
}
