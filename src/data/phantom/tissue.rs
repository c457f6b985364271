//! Tissues and the signal equations of magnetic resonance.
//!
//! Relaxation times and proton densities are literature values at 3 T and 7 T; those of tumour tissue are our choice.
//! Times in ms. The ratios that they must give are tested at the foot of this file.

/// Number of tissues.
pub const COUNT: usize = 12;

/// A tissue; the discriminant is its index in a [`super::mix::Mix`] and its number in the tissue label map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Tissue {
    /// Outside, and air-filled cavities.
    Air = 0,
    /// Cerebrospinal fluid (also the eyeballs).
    Csf = 1,
    /// Cortical and cerebellar grey matter.
    Grey = 2,
    /// White matter.
    White = 3,
    /// Putamen, caudate, thalamus.
    DeepGrey = 4,
    /// Cortical bone.
    Bone = 5,
    /// Subcutaneous and orbital fat, marrow.
    Fat = 6,
    /// Muscle.
    Muscle = 7,
    /// Skin and mucosa: the relaxation of grey matter, an eighth of its uptake.
    Skin = 8,
    /// Necrotic tumour core (BraTS label 1).
    Necrosis = 9,
    /// Oedema around a tumour (BraTS label 2).
    Edema = 10,
    /// Enhancing tumour (BraTS label 4).
    Enhancing = 11,
}

/// All tissues, by index.
pub const ALL: [Tissue; COUNT] = [
    Tissue::Air,
    Tissue::Csf,
    Tissue::Grey,
    Tissue::White,
    Tissue::DeepGrey,
    Tissue::Bone,
    Tissue::Fat,
    Tissue::Muscle,
    Tissue::Skin,
    Tissue::Necrosis,
    Tissue::Edema,
    Tissue::Enhancing,
];

/// Field strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// 3 tesla.
    T3,
    /// 7 tesla.
    T7,
}

/// Longitudinal and transverse relaxation times (ms) and proton density (water: 1).
#[derive(Clone, Copy, Debug)]
pub struct Relaxation {
    /// T1 in ms.
    pub t1: f64,
    /// T2 in ms.
    pub t2: f64,
    /// Proton density.
    pub pd: f64,
}

impl Tissue {
    /// Relaxation at a field strength.
    pub fn relaxation(self, field: Field) -> Relaxation {
        let (three, seven, pd) = match self {
            Tissue::Air => ((1000.0, 10.0), (1000.0, 10.0), 0.0),
            Tissue::Csf => ((4163.0, 1650.0), (4000.0, 800.0), 1.0),
            Tissue::Grey => ((1607.0, 83.0), (1939.0, 43.0), 0.80),
            Tissue::White => ((838.0, 75.0), (1126.0, 37.0), 0.70),
            Tissue::DeepGrey => ((1332.0, 70.0), (1644.0, 40.0), 0.78),
            Tissue::Bone => ((1000.0, 8.0), (1200.0, 6.0), 0.08),
            Tissue::Fat => ((374.0, 125.0), (374.0, 125.0), 1.0),
            Tissue::Muscle => ((1100.0, 40.0), (1400.0, 30.0), 0.9),
            Tissue::Skin => ((1607.0, 60.0), (1939.0, 40.0), 0.85),
            Tissue::Necrosis => ((2800.0, 300.0), (3200.0, 180.0), 0.95),
            Tissue::Edema => ((1350.0, 120.0), (1700.0, 75.0), 0.85),
            Tissue::Enhancing => ((1500.0, 100.0), (1800.0, 65.0), 0.85),
        };
        let (t1, t2) = if field == Field::T3 { three } else { seven };
        Relaxation { t1, t2, pd }
    }

    /// By how much gadolinium shortens T1 (ms).
    pub fn contrast_shift(self) -> f64 {
        match self {
            Tissue::Enhancing => 838.0,
            Tissue::Edema => 123.0,
            Tissue::Grey | Tissue::White | Tissue::DeepGrey => 32.0,
            _ => 0.0,
        }
    }
}

/// A pulse sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// T1-weighted spoiled gradient echo, TR 20, flip angle 20 degrees, 3 T.
    T1,
    /// The same after gadolinium.
    T1Contrast,
    /// T2-weighted spin echo, TR 4500, TE 100, 3 T.
    T2,
    /// Fluid-attenuated inversion recovery, TR 9000, TE 120, TI 2420, 3 T.
    Flair,
    /// MPRAGE, TI 900, TR 2300 at 3 T; TI 1050, TR 2600 at 7 T.
    Mprage(Field),
}

impl Sequence {
    /// Noise-free signal of a tissue; negative where an inverted magnetisation has not recovered.
    pub fn signal(self, tissue: Tissue) -> f64 {
        let field = if let Sequence::Mprage(f) = self { f } else { Field::T3 };
        let Relaxation { t1, t2, pd } = tissue.relaxation(field);
        let spoiled = |t1: f64| {
            let (e, a) = ((-20.0 / t1).exp(), 20f64.to_radians());
            pd * a.sin() * (1.0 - e) / (1.0 - e * a.cos())
        };
        let inverted = |ti: f64, tr: f64| pd * (1.0 - 2.0 * (-ti / t1).exp() + (-tr / t1).exp());
        match self {
            Sequence::T1 => spoiled(t1),
            Sequence::T1Contrast => spoiled(t1 - tissue.contrast_shift()),
            Sequence::T2 => pd * (1.0 - (-4500.0 / t1).exp()) * (-100.0 / t2).exp(),
            Sequence::Flair => inverted(2420.0, 9000.0) * (-120.0 / t2).exp(),
            Sequence::Mprage(Field::T3) => inverted(900.0, 2300.0),
            Sequence::Mprage(Field::T7) => inverted(1050.0, 2600.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(s: Sequence, a: Tissue, b: Tissue) -> f64 {
        s.signal(a) / s.signal(b)
    }

    #[test]
    fn contrasts_are_those_of_the_reference() {
        use Tissue::*;
        let close =
            |got: f64, want: f64, within: f64| assert!((got - want).abs() < within, "{got} is not {want}");
        close(ratio(Sequence::T1Contrast, Enhancing, White), 1.39, 0.01);
        close(ratio(Sequence::Flair, Edema, White), 1.66, 0.01);
        close(ratio(Sequence::Flair, Necrosis, White), 1.01, 0.02);
        close(ratio(Sequence::Flair, Csf, White), 0.0, 0.03);
        close(ratio(Sequence::Mprage(Field::T3), White, Grey), 3.5, 0.1);
        close(ratio(Sequence::Mprage(Field::T7), White, Grey), 2.8, 0.05);
        // Without contrast agent the tumour is darker than white matter.
        assert!(ratio(Sequence::T1, Enhancing, White) < 0.9);
        ALL.iter().enumerate().for_each(|(i, t)| assert_eq!(*t as usize, i));
    }
}
