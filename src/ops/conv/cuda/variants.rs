//! Which way to launch a convolution is taken: what was measured on the device (`gan kernels tune`), else a rule by shape.
//!
//! Variants differ in tiles and in the slices of the sum, so also in the order of additions: two of them agree only up to
//! rounding.

use super::depthwise;
use super::hopper;
use super::product::{Pass, Product, Tiles, choose, depth, product, side, tiled, usual_slices};
pub use super::variant::{ConvShape, Kernels, Variant};
use crate::device::launch::{GpuTraits, Tailored};
use crate::ops::conv::geometry::ConvGeometry;

/// Extents of a tile that the general kernels are made for.
const SIDES: [usize; 4] = [16, 32, 64, 128];

impl ConvShape {
    fn product(&self) -> Product {
        product(&self.geometry, self.pass)
    }

    /// The most slices that have something to do each.
    fn most_slices(&self) -> usize {
        let step = tiled(SIDES[0], SIDES[0], self.math).bk;
        (depth(&self.geometry, self.pass).div_ceil(step) / 4).clamp(1, 64)
    }

    /// Whether the kernels can do it so.
    pub fn allows(&self, v: &Variant) -> bool {
        match v.kernels {
            Kernels::General => {
                SIDES.contains(&v.bm) && SIDES.contains(&v.bn) && (1..=self.most_slices()).contains(&v.slices)
            }
            Kernels::Hopper => hopper::allows(self, v),
            Kernels::Depthwise => depthwise::allows(self, v),
        }
    }

    /// What is taken where nothing was measured, if the operands lie as they should.
    pub fn default(&self, gpu: &GpuTraits) -> Variant {
        let gpu = GpuTraits { math: self.math, choices: None, ..*gpu };
        if let Some(own) = depthwise::default(self, &gpu) {
            return own;
        }
        hopper::choose(&self.geometry, self.pass, [true; 2], &gpu).map_or_else(
            || {
                let (tiles, slices) = choose(&self.geometry, self.pass, self.math, gpu.multiprocessors);
                Variant { kernels: Kernels::General, bm: tiles.bm, bn: tiles.bn, slices }
            },
            |v| Variant { kernels: Kernels::Hopper, bm: v.rows, bn: v.bn, slices: v.slices },
        )
    }

    /// What may be faster than the default, which comes first: tiles half as large on either side, and fewer and more slices
    /// than the rule gives them; and where a device has kernels of its own, those in all widths.
    pub fn legal(&self, gpu: &GpuTraits) -> Vec<Variant> {
        let p = self.product();
        let mut all = vec![self.default(gpu)];
        let mut add = |v: Variant| {
            if self.allows(&v) && !all.contains(&v) {
                all.push(v);
            }
        };
        for bm in [side(p.m), side(p.m) / 2] {
            for bn in [side(p.n), side(p.n) / 2] {
                let tiles = tiled(bm.max(SIDES[0]), bn.max(SIDES[0]), self.math);
                let usual = usual_slices(&self.geometry, self.pass, &tiles, gpu.multiprocessors);
                for slices in [usual, 1, usual / 2, 2 * usual] {
                    add(Variant { kernels: Kernels::General, bm: tiles.bm, bn: tiles.bn, slices });
                }
            }
        }
        depthwise::variants(self, gpu.multiprocessors).into_iter().for_each(&mut add);
        if gpu.hopper != Tailored::Off {
            hopper::variants(self, gpu.multiprocessors).into_iter().for_each(add);
        }
        all
    }
}

/// What was measured to be the fastest, if that was and can be done.
pub fn measured(g: &ConvGeometry, pass: Pass, gpu: &GpuTraits) -> Option<Variant> {
    let shape = ConvShape { geometry: g.clone(), pass, math: gpu.math };
    let variant: Variant = gpu.choices?.of(&shape.to_string())?.parse().ok()?;
    shape.allows(&variant).then_some(variant)
}

/// The tiles and slices that a convolution takes on a device's general kernels.
pub fn chosen(g: &ConvGeometry, pass: Pass, gpu: &GpuTraits) -> (Tiles, usize) {
    match measured(g, pass, gpu).filter(|v| v.kernels == Kernels::General) {
        Some(v) => (v.tiles(gpu.math), v.slices),
        None => choose(g, pass, gpu.math, gpu.multiprocessors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::choices::Choices;
    use crate::ops::conv::cuda::product::Math;
    use crate::ops::conv::cuda::product::tests::geometry;

    fn shape(c: usize, k: usize, size: usize, pass: Pass) -> ConvShape {
        ConvShape { geometry: geometry(c, k, size), pass, math: Math::Bf16 }
    }

    #[test]
    fn names_are_read_back_and_others_are_not() {
        for pass in [Pass::Forward, Pass::GradX, Pass::GradW] {
            let shape = shape(64, 128, 8, pass);
            assert_eq!(shape.to_string().parse(), Ok(shape));
        }
        let name = shape(64, 128, 8, Pass::GradX).to_string();
        assert_eq!(name, "grad_x bf16 1,64,128,1,1,16,16,1,8,8,1,4,4,1,2,2,0,1,1,1,1,1");
        for (kernels, name) in [
            (Kernels::General, "128x64/8"),
            (Kernels::Hopper, "hopper 128x64/8"),
            (Kernels::Depthwise, "depthwise 128x64/8"),
        ] {
            let v = Variant { kernels, bm: 128, bn: 64, slices: 8 };
            assert_eq!((v.to_string().as_str(), name.parse()), (name, Ok(v)));
        }
        let wrong = [
            "",
            "forward",
            "forward bf16 1,2",
            "forward fp8 1",
            &name.replace("grad_x", "x"),
            &name.replace("64", "0"),
        ];
        for text in wrong {
            assert!(text.parse::<ConvShape>().is_err(), "{text}");
        }
        assert!(name.replace(",64,", ",99999999999,").parse::<ConvShape>().is_err());
        let wrong = ["128x64", "-1x64/2", "other 128x64/2", "hopper"];
        assert!(wrong.iter().all(|text| text.parse::<Variant>().is_err()));
    }

    fn gpu(hopper: Tailored) -> GpuTraits {
        GpuTraits {
            multiprocessors: 132,
            math: Math::Bf16,
            fixed_shapes: true,
            fused: true,
            choices: None,
            hopper,
            window: Tailored::Off,
        }
    }

    #[test]
    fn all_that_is_tried_is_allowed_and_the_rule_comes_first() {
        for pass in [Pass::Forward, Pass::GradX, Pass::GradW] {
            for (c, k, size) in [(3, 64, 128), (64, 128, 64), (512, 512, 1), (1, 1, 2)] {
                for hopper in [Tailored::Off, Tailored::Auto] {
                    let (shape, gpu) = (shape(c, k, size, pass), gpu(hopper));
                    let legal = shape.legal(&gpu);
                    assert_eq!(legal[0], shape.default(&gpu));
                    assert!(legal.iter().all(|v| shape.allows(v)), "{shape}: {legal:?}");
                    let mut names: Vec<String> = legal.iter().map(Variant::to_string).collect();
                    names.sort();
                    names.dedup();
                    assert_eq!(names.len(), legal.len(), "each once");
                    let own = legal.iter().any(|v| v.kernels == Kernels::Hopper);
                    assert_eq!(own, hopper == Tailored::Auto && c % 8 == 0, "{shape}");
                }
            }
        }
        let shape = shape(64, 128, 64, Pass::Forward);
        let names =
            |hopper| -> Vec<String> { shape.legal(&gpu(hopper)).iter().map(Variant::to_string).collect() };
        assert_eq!(names(Tailored::Off)[..4], ["64x64/2", "128x128/8", "128x128/1", "128x128/4"]);
        let own = names(Tailored::Auto);
        assert_eq!((own[0].as_str(), &own[1]), ("hopper 128x128/4", &names(Tailored::Off)[1]));
        assert!(
            own.contains(&"hopper 128x64/2".into()) && own.contains(&"hopper 128x128/1".into()),
            "{own:?}"
        );
        let not = |kernels, bm, bn, slices| assert!(!shape.allows(&Variant { kernels, bm, bn, slices }));
        for (m, n, s) in [(256, 64, 1), (64, 48, 1), (64, 64, 9), (64, 64, 0)] {
            not(Kernels::General, m, n, s);
        }
        for (m, n, s) in [(64, 64, 1), (128, 256, 1), (128, 32, 1), (128, 128, 17)] {
            not(Kernels::Hopper, m, n, s);
        }
    }

    #[test]
    fn what_was_measured_is_taken_and_what_was_asked_is_known() {
        let shape = shape(64, 128, 64, Pass::Forward);
        let on = |variant: &str, hopper| {
            let choices = Choices::leak([(shape.to_string(), variant.to_string())].into());
            let gpu = GpuTraits { choices: Some(choices), ..gpu(hopper) };
            let (g, pass) = (&shape.geometry, shape.pass);
            let own = hopper::choose_measured(g, pass, [true; 2], &gpu, measured(g, pass, &gpu));
            let (tiles, slices) = chosen(&shape.geometry, shape.pass, &gpu);
            assert_eq!(choices.asked(), [shape.to_string()]);
            own.map_or((tiles.bm, tiles.bn, slices), |v| (v.rows, v.bn, v.slices))
        };
        let with = |variant| on(variant, Tailored::Off);
        assert_eq!(with("64x32/2"), (64, 32, 2));
        assert_eq!(with("64x32/99"), (64, 64, 2), "what cannot be done is not");
        assert_eq!(with("hopper 128x64/2"), (64, 64, 2), "nor what this device has not");
        let with = |variant| on(variant, Tailored::Auto);
        assert_eq!(with("hopper 128x64/2"), (128, 64, 2));
        assert_eq!(with("64x32/2"), (64, 32, 2), "the general kernels were faster");
    }
}
