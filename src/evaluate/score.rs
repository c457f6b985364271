//! Scoring predicted cases: in validation, and in `gan evaluate` beside the baselines that a network must beat.

use crate::data::{Case, Dataset};
use crate::error::Result;
use crate::metrics::baseline::{Lookup, LookupFit};
use crate::metrics::case::CaseScores;
use crate::metrics::ssim::{Ssim, Window};

/// Scores are taken of intensities mapped to [0, 1] (SSIM depends on where zero is), so this is their range.
const RANGE: f64 = 1.0;

/// MAE (in the target's units), NMSE, PSNR and SSIM of one case's predicted slices `[n, h, w, c]`, over the whole volume.
/// The data range of PSNR and SSIM is the range that normalisation maps to [-1, 1]: fixed, never an image's own. SSIM
/// has MONAI's Gaussian window, over the volume if `three_d` (and it has 11 slices), else slice by slice.
pub fn score(case: &Case, predicted: &[f32], three_d: bool) -> Result<CaseScores> {
    let [n, h, w, c] = case.target_shape;
    let target = case.target.as_deref().unwrap_or_default();
    let ssim = Ssim::new(Window::Gaussian, RANGE)?;
    let mut mean = CaseScores::new(case.id.clone());
    for channel in 0..c {
        let plane =
            |v: &[f32]| -> Vec<f32> { v.iter().skip(channel).step_by(c).map(|v| 0.5 * (v + 1.0)).collect() };
        let (out, want) = (plane(predicted), plane(target));
        let fitted = case.target_fit(channel);
        let scores = if three_d && n >= 11 {
            CaseScores::synthesis(case.id.clone(), &out, &want, [n, h, w], None, &ssim)?
        } else {
            let errors = crate::metrics::image::Errors::between(&out, &want, None)?;
            let mut s = CaseScores::new(case.id.clone());
            s.set("mae", errors.mae).set("nmse", errors.nmse).set("psnr", errors.psnr(RANGE)?);
            s.set("ssim", ssim.score_slices(&out, &want, [n, h, w], None)?);
            s
        };
        // In the target's units: normalisation is affine.
        let unit = |v: f32| f64::from(fitted.invert(2.0 * v - 1.0));
        let (mut square, mut power) = (0.0, 0.0);
        for (o, t) in out.iter().zip(&want) {
            square += (unit(*o) - unit(*t)).powi(2);
            power += unit(*t).powi(2);
        }
        for (name, value) in &scores.scores {
            let value = match name.as_str() {
                "mae" => value * 2.0 * fitted.half,
                "nmse" if power > 0.0 => square / power,
                _ => *value,
            };
            let so_far = mean.get(name).unwrap_or(0.0);
            mean.set(name.clone(), so_far + value / c as f64);
        }
    }
    Ok(mean)
}

/// The best pointwise look-up from the input channels to each target channel, fitted on a training split.
pub fn fit_lookup(set: &Dataset) -> Result<Vec<Lookup>> {
    let ([h, w, ci], co) = (set.input_shape(), set.target_shape()[2]);
    let mut fits = (0..co).map(|_| LookupFit::new(ci, -1.25, 1.25)).collect::<Result<Vec<_>>>()?;
    for i in 0..set.cases() {
        let case = set.case(i)?;
        let inputs = channels(&case.input, ci);
        let targets = channels(case.target.as_deref().unwrap_or_default(), co);
        debug_assert_eq!(inputs[0].len() % (h * w), 0);
        let views: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        for (fit, target) in fits.iter_mut().zip(&targets) {
            fit.add(&views, target, None)?;
        }
    }
    fits.iter().map(LookupFit::finish).collect()
}

/// Predicts a case by the look-up.
pub fn apply_lookup(lookups: &[Lookup], case: &Case) -> Result<Vec<f32>> {
    let inputs = channels(&case.input, case.input_shape[3]);
    let views: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let outputs = lookups.iter().map(|l| l.apply(&views)).collect::<Result<Vec<_>>>()?;
    Ok((0..outputs[0].len()).flat_map(|i| outputs.iter().map(move |o| o[i])).collect())
}

/// Predicts a case by its own first input channel.
pub fn apply_identity(case: &Case) -> Vec<f32> {
    let (ci, co) = (case.input_shape[3], case.target_shape[3]);
    case.input.chunks(ci).flat_map(|p| (0..co).map(move |c| p[c.min(ci - 1)])).collect()
}

/// Interleaved channels apart.
fn channels(values: &[f32], c: usize) -> Vec<Vec<f32>> {
    (0..c).map(|k| values.iter().skip(k).step_by(c).copied().collect()).collect()
}
