//! The head: what tissue is where, and how much tracer it takes up.
//!
//! A head is a stack of soft-edged layers (skin, fat, muscle, skull, fluid, brain, ventricles, deep nuclei, tumour)
//! painted one over the other, so a voxel at a boundary holds a mixture. The cortex is a ribbon of constant thickness
//! that lines the brain's hull and the clefts of a random labyrinth (the zero set of a sum of waves on the hull).
//! Every subject has its own sizes, warp, folds and, mostly, a tumour.

use super::mix::{CORTEX, Mix, SKIN, Uptake, WHITE};
use super::shape::{Ellipsoid, P3, Waves, capsule, step, sub};
use super::tissue::Tissue;
use super::tumour::Tumour;
use crate::rng::Philox;

/// The head's fixed plan, before a subject's warp (mm; x right, y front, z up).
mod plan {
    use super::Ellipsoid;
    pub const CAVITY: Ellipsoid = Ellipsoid::new([0.0, -2.0, 4.0], [69.0, 87.0, 70.0]);
    pub const CEREBRUM: Ellipsoid = Ellipsoid::new([0.0, 0.0, 7.0], [65.0, 82.5, 64.0]);
    pub const TEMPORAL: Ellipsoid = Ellipsoid::new([40.0, 1.0, -19.0], [22.0, 40.0, 19.0]);
    pub const CEREBELLUM: Ellipsoid = Ellipsoid::new([0.0, -47.0, -37.0], [47.0, 30.0, 24.0]);
    pub const HORN: Ellipsoid = Ellipsoid::new([10.0, 25.0, 13.0], [5.5, 14.0, 7.0]);
    pub const BODY: Ellipsoid = Ellipsoid::new([13.0, -4.0, 18.0], [6.5, 26.0, 5.5]);
    pub const ATRIUM: Ellipsoid = Ellipsoid::new([22.0, -36.0, 9.0], [6.5, 19.0, 6.5]);
    pub const THIRD: Ellipsoid = Ellipsoid::new([0.0, -7.0, 2.0], [2.6, 13.0, 9.0]);
    pub const FOURTH: Ellipsoid = Ellipsoid::new([0.0, -33.0, -36.0], [6.0, 5.0, 7.0]);
    pub const CAUDATE: Ellipsoid = Ellipsoid::new([18.0, 19.0, 11.0], [4.5, 13.0, 7.5]);
    pub const PUTAMEN: Ellipsoid = Ellipsoid::new([28.0, 2.0, 1.0], [5.5, 17.0, 10.0]);
    pub const THALAMUS: Ellipsoid = Ellipsoid::new([10.5, -17.0, 5.0], [8.0, 14.0, 8.5]);
    pub const HIPPOCAMPUS: Ellipsoid = Ellipsoid::new([27.0, -20.0, -18.0], [5.5, 17.0, 5.0]);
    pub const EYE: Ellipsoid = Ellipsoid::new([31.0, 74.0, -22.0], [12.0, 12.0, 12.0]);
    pub const ORBIT: Ellipsoid = Ellipsoid::new([29.0, 66.0, -22.0], [17.0, 24.0, 16.0]);
    pub const SINUS: Ellipsoid = Ellipsoid::new([23.0, 60.0, -54.0], [12.0, 14.0, 13.0]);
    pub const NOSE: Ellipsoid = Ellipsoid::new([0.0, 64.0, -50.0], [7.0, 24.0, 17.0]);
    pub const TEMPORALIS: Ellipsoid = Ellipsoid::new([70.0, 28.0, -16.0], [10.0, 27.0, 32.0]);
    pub const GLAND: Ellipsoid = Ellipsoid::new([54.0, -4.0, -62.0], [10.0, 13.0, 16.0]);
}

/// One subject's head.
pub struct Head {
    /// World to plan: per-axis scale, shift, and a smooth warp of three components.
    scale: P3,
    shift: P3,
    warp: [Waves; 3],
    warp_mm: f32,
    folds: Waves,
    folia: Waves,
    depth: Waves,
    relief: Waves,
    fat_mm: f32,
    cortex_mm: f32,
    sulcus_mm: f32,
    ventricles: f32,
    /// Smooth, individual variation of uptake that the MR does not show, but small.
    metabolism: Waves,
    /// Where the hidden hypometabolism is, and its depth (0 to 1); `None` in most subjects.
    hypometabolism: Option<(Ellipsoid, f32)>,
    tumour: Option<Tumour>,
    /// Width of soft edges: a voxel's.
    edge: f32,
}

impl Head {
    /// The head of a subject. `edge` is the voxel size in mm.
    pub fn new(rng: &mut Philox, edge: f32, with_tumour: bool, hypometabolic: bool) -> Self {
        let size = rng.range(0.94, 1.03);
        let scale = [0, 1, 2].map(|_| (size * rng.range(0.97, 1.03)) as f32);
        let shift = [rng.range(-3.0, 3.0) as f32, rng.range(-3.0, 3.0) as f32, rng.range(-4.0, 2.0) as f32];
        let warp = [0, 1, 2].map(|_| Waves::new(rng, 4, 90.0, 200.0));
        let side = if rng.uniform() < 0.5 { -1.0 } else { 1.0 };
        let regions: [P3; 4] = [
            [48.0 * side, -8.0, -20.0],
            [40.0 * side, -50.0, 38.0],
            [34.0 * side, 48.0, 24.0],
            [0.0, -48.0, 34.0],
        ];
        let region = regions[rng.below(4)];
        let deficit = (Ellipsoid::new(region, [30.0, 32.0, 30.0]), rng.range(0.25, 0.4) as f32);
        let head = Head {
            scale,
            shift,
            warp,
            warp_mm: 2.2,
            folds: Waves::new(rng, 14, 19.0, 31.0),
            folia: Waves::new(rng, 6, 9.0, 12.0),
            depth: Waves::new(rng, 5, 40.0, 70.0),
            relief: Waves::new(rng, 6, 35.0, 80.0),
            fat_mm: rng.range(2.5, 5.5) as f32,
            cortex_mm: rng.range(2.7, 3.4) as f32,
            sulcus_mm: rng.range(0.5, 1.1) as f32,
            ventricles: rng.range(0.75, 1.35) as f32,
            metabolism: Waves::new(rng, 6, 60.0, 120.0),
            hypometabolism: hypometabolic.then_some(deficit),
            tumour: None,
            edge,
        };
        let tumour = Tumour::new(rng, &plan::CEREBRUM);
        Head { tumour: with_tumour.then_some(tumour), ..head }
    }

    /// The content at a world position (mm).
    pub fn at(&self, world: P3) -> Mix {
        let mut m = Mix::air();
        let p = self.to_plan(world);
        let surface = plan::CAVITY.distance(p);
        let neck = ((p[0] / 54.0).hypot((p[1] + 16.0) / 62.0) - 1.0) * 52.0;
        let neck = neck.max(p[2] + 30.0);
        let relief = self.relief.at(p);
        let skull_mm = 7.0 + 0.8 * relief;
        // Distance from the skin, negative inside.
        let outside = (surface - skull_mm - self.fat_mm - 2.5).min(neck);
        if outside > self.edge {
            return m;
        }
        self.paint_envelope(&mut m, p, outside, surface - skull_mm);
        // The skull's base rises to the front, and in the middle behind the nose.
        let saddle = step(26.0, 10.0, p[0].abs()) * step(-16.0, 4.0, p[1]);
        let floor = -62.0 + 46.0 * step(-6.0, 48.0, p[1]).max(0.75 * saddle);
        let cavity = surface.max(floor - p[2]);
        self.paint_skull(&mut m, p, surface, cavity, skull_mm);
        m.paint(Tissue::Csf, 0.03, self.inside(cavity));
        self.paint_brain(&mut m, p);
        m
    }

    /// Opacity of what lies at a signed distance (negative inside).
    fn inside(&self, distance: f32) -> f32 {
        (0.5 - distance / self.edge).clamp(0.0, 1.0)
    }

    fn to_plan(&self, world: P3) -> P3 {
        let q = [0, 1, 2].map(|a| (world[a] - self.shift[a]) / self.scale[a]);
        let bent = [0, 1, 2].map(|a| q[a] + self.warp_mm * self.warp[a].at(q));
        match &self.tumour {
            Some(t) => t.pull(bent),
            None => bent,
        }
    }

    /// Skin, fat, muscle, face.
    fn paint_envelope(&self, m: &mut Mix, p: P3, outside: f32, from_skull: f32) {
        m.paint(Tissue::Skin, SKIN, self.inside(outside));
        m.paint(Tissue::Fat, 0.06, self.inside(outside + 2.2));
        let low = p[2] < -20.0;
        let fat = 2.2 + self.fat_mm * if low { 1.5 } else { 1.0 };
        if low || from_skull < 0.0 {
            m.paint(Tissue::Muscle, 0.22, self.inside(outside + fat));
        }
        let q = [p[0].abs(), p[1], p[2]];
        m.paint(Tissue::Muscle, 0.22, self.inside(plan::TEMPORALIS.distance(q).max(outside + 3.5)));
        m.paint(Tissue::Skin, 0.55, self.inside(plan::GLAND.distance(q).max(outside + 4.0)));
        let inner = outside + 4.0;
        m.paint(Tissue::Fat, 0.06, self.inside(plan::ORBIT.distance(q).max(inner)));
        m.paint(Tissue::Csf, 0.1, self.inside(plan::EYE.distance(q).max(inner)));
        let optic = capsule(q, [30.0, 64.0, -22.0], [8.0, 26.0, -16.0], 3.0);
        m.paint(Tissue::Muscle, 0.5, self.inside(optic));
        for cavity in [plan::SINUS, plan::NOSE] {
            let d = cavity.distance(q).max(inner);
            m.paint(Tissue::Skin, 0.45, self.inside(d - 2.5));
            m.paint(Tissue::Air, 0.0, self.inside(d));
        }
    }

    /// Bone with a core of marrow.
    fn paint_skull(&self, m: &mut Mix, p: P3, surface: f32, cavity: f32, skull_mm: f32) {
        let bone = self.inside((surface - skull_mm).max(cavity - 9.0));
        m.paint(Tissue::Bone, 0.05, bone);
        let marrow = ((cavity - 0.5 * skull_mm).abs() - 0.22 * skull_mm) + 0.5 * self.depth.at(p);
        m.paint(Tissue::Fat, 0.16, 0.55 * bone * self.inside(marrow));
    }

    fn paint_brain(&self, m: &mut Mix, p: P3) {
        let side = if p[0] < 0.0 { -1.0 } else { 1.0 };
        let q = [p[0].abs(), p[1], p[2]];
        self.paint_cerebellum(m, p);
        let [hull, dome] = self.cerebrum_hull(p);
        let within = self.inside(hull);
        let mut brain = 0.0;
        if within > 0.0 {
            let pial = self.pial_distance(p, hull, dome);
            brain = within.min(self.inside(-pial));
            let white = self.inside(self.cortex_mm * (1.0 + 0.12 * self.depth.at(p)) - pial);
            m.paint(Tissue::Grey, self.cortex_uptake(p), brain);
            m.paint(Tissue::White, Uptake::times(WHITE, 1.0 + 0.1 * self.metabolism.at(p)), brain.min(white));
        }
        if hull < -8.0 {
            let n = |e: Ellipsoid| self.inside(e.distance(q));
            let tone = |expected| Uptake::times(expected, 1.0 + 0.05 * self.metabolism.at(p));
            m.paint(Tissue::Grey, tone(0.78), n(plan::HIPPOCAMPUS));
            m.paint(Tissue::DeepGrey, tone(1.4), n(plan::PUTAMEN));
            m.paint(Tissue::DeepGrey, tone(1.28), n(plan::CAUDATE));
            m.paint(Tissue::DeepGrey, tone(1.12), n(plan::THALAMUS));
        }
        if let Some(t) = &self.tumour {
            t.paint(m, p, self.edge, brain);
        }
        // Left and right ventricles differ a little.
        let v = self.ventricles * (1.0 + 0.08 * side * self.depth.at([0.0, 0.0, 20.0]));
        let ventricle = [plan::HORN, plan::BODY, plan::ATRIUM]
            .iter()
            .map(|e| e.scaled(v).distance(q))
            .fold(plan::THIRD.scaled(v.sqrt()).distance(q), f32::min)
            .min(plan::FOURTH.distance(q));
        m.paint(Tissue::Csf, 0.03, self.inside(ventricle));
    }

    fn paint_cerebellum(&self, m: &mut Mix, p: P3) {
        let stem = capsule(p, [0.0, -12.0, -6.0], [0.0, -24.0, -46.0], 11.5);
        let cord = capsule(p, [0.0, -24.0, -46.0], [0.0, -32.0, -110.0], 7.5);
        m.paint(Tissue::Csf, 0.03, self.inside(cord - 4.0));
        let d = plan::CEREBELLUM.distance(p);
        let alpha = self.inside(d);
        if alpha > 0.0 {
            let (v, slope) = self.folia.with_slope([0.4 * p[0], 0.8 * p[1], 1.5 * p[2]]);
            let sheet = v.abs() / (slope + 0.05);
            let leaf = (-d).min(12.0);
            m.paint(Tissue::Grey, Uptake::times(1.0, 1.0 + 0.03 * self.metabolism.at(p)), alpha);
            m.paint(Tissue::Csf, 0.03, alpha * 0.6 * self.inside(sheet - 0.5) * step(9.0, 3.0, leaf));
            let arbor = step(5.0, 9.0, -d) * step(0.9, 2.0, sheet);
            m.paint(Tissue::White, WHITE, alpha * arbor.max(step(13.0, 15.0, -d)));
        }
        m.paint(Tissue::White, 0.55, self.inside(stem.min(cord)));
    }

    /// Signed distance to the hull of the cerebrum: an ellipsoid with a flat base, and the temporal lobes below it.
    /// Second, the same without the base: there are folds where that is near.
    fn cerebrum_hull(&self, p: P3) -> [f32; 2] {
        let dome = plan::CEREBRUM.distance(p);
        let upper = dome.max(-14.0 - p[2]);
        let temporal = plan::TEMPORAL.distance([p[0].abs(), p[1], p[2]]);
        // Rounded where they meet.
        let blend = (0.5 + 0.5 * (upper - temporal) / 6.0).clamp(0.0, 1.0);
        [upper, dome].map(|d| d + blend * (temporal - d) - 6.0 * blend * (1.0 - blend))
    }

    /// Distance into the brain from its nearest outer surface: the hull, a sulcus, or one of the great fissures.
    fn pial_distance(&self, p: P3, hull: f32, dome: f32) -> f32 {
        // The flat base has cortex only towards its rim.
        let level = plan::CEREBRUM.level(p);
        let mut d = -hull + 14.0 * step(0.5, 0.35, level);
        let depth = -dome;
        if depth < 26.0 {
            // Sulci run inward: the field is that of the point's projection towards the hull.
            let c = sub(p, plan::CEREBRUM.centre);
            let level = level.max(0.6).powf(0.8);
            let (v, slope) = self.folds.with_slope(c.map(|x| x / level));
            let reach = 15.0 + 4.5 * self.depth.at(p);
            let beside =
                (v.abs() / (slope + 0.03) - self.sulcus_mm * step(reach + 4.0, 0.0, depth)).max(-1.0);
            let below = (depth - reach).max(0.0);
            d = d.min(if below > 0.0 { beside.max(0.0).hypot(below) } else { beside });
        }
        // Between the hemispheres, except through the corpus callosum and below it.
        let mid = (p[0] - 1.2 * self.relief.at([0.0, p[1], p[2]])).abs() - 0.8 - 0.3 * self.sulcus_mm;
        let callosum = (((p[1] + 2.0) / 44.0).hypot((p[2] - 8.0) / 21.0) - 1.0) * 30.0;
        d = d.min(if callosum < 0.0 { mid.max(0.0).hypot(-callosum) } else { mid });
        // The Sylvian fissure.
        let along = (p[1] - 6.0).abs() - 28.0;
        let off = (p[2] - (-6.0 - 0.35 * (p[1] - 6.0))).abs() - 0.9 - self.sulcus_mm;
        let deep = (40.0 - p[0].abs()).max(0.0);
        let beyond = along.max(0.0).hypot(deep);
        d.min(if beyond > 0.0 { off.max(0.0).hypot(beyond) } else { off })
    }

    /// Uptake of the cortex: lobes differ, and some subjects carry a deficit that the MR does not show.
    fn cortex_uptake(&self, p: P3) -> Uptake {
        let q = [p[0].abs(), p[1], p[2]];
        let bump = |c: P3, width: f32| {
            let d = sub(q, c);
            (-(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]) / (2.0 * width * width)).exp()
        };
        let lobes = 1.0
            + 0.22 * bump([6.0, -76.0, 4.0], 22.0)
            + 0.26 * bump([4.0, -46.0, 32.0], 19.0)
            + 0.14 * bump([24.0, 56.0, 20.0], 24.0)
            + 0.12 * bump([52.0, -20.0, 12.0], 14.0)
            - 0.28 * bump([50.0, 2.0, -28.0], 24.0)
            - 0.16 * bump([34.0, -36.0, 58.0], 20.0)
            - 0.12 * bump([4.0, 40.0, -10.0], 16.0);
        let own = 1.0 + 0.03 * self.metabolism.at(p);
        let deficit = match &self.hypometabolism {
            Some((where_, depth)) => 1.0 - depth * step(1.0, 0.55, where_.level(p)),
            None => 1.0,
        };
        Uptake::times(CORTEX * lobes, own * deficit)
    }
}
