//! Which steps are timed beside PyTorch, and that both compute the same.

/// A step: recipe, settings, and what PyTorch's peer calls the same.
pub type Timed = (&'static str, &'static [&'static str], &'static str, usize, usize);

/// The steps that are timed. Networks are the peer's: `tests/flops.rs` counts their FLOPs.
pub const TIMED: [Timed; 8] = [
    ("mr2pet.toml", &PAPER, "pix2pix", 256, 1),
    ("mr2pet.toml", &PAPER, "pix2pix", 256, 4),
    ("mr2pet.toml", &PAPER, "pix2pix", 256, 16),
    (
        "mr2pet-cyclegan.toml",
        &[
            "model.generator.blocks=9",
            "model.generator.ngf=64",
            "model.discriminator.layers=3",
            "model.discriminator.ndf=64",
        ],
        "cyclegan",
        256,
        1,
    ),
    (
        "dcgan-mr.toml",
        &[
            "model.nz=100",
            "model.generator.ngf=64",
            "model.discriminator.ndf=64",
            "model.discriminator.norm=\"batch\"",
            "loss.r1=0.0",
        ],
        "dcgan",
        64,
        64,
    ),
    (
        "wgan-gp-mr.toml",
        &["model.nz=100", "model.generator.ngf=64", "model.discriminator.ndf=64", "loss.n_critic=5"],
        "wgan-gp",
        64,
        64,
    ),
    ("unet-tumour.toml", &["model.network.base=64", "model.network.downs=4"], "unet", 240, 32),
    (
        "unet3d-tumour.toml",
        // One modality, one mask, and widths as the peer's network has them.
        &[
            "data.patch=[128, 128, 128]",
            "data.input=[\"t1ce\"]",
            "data.labels.regions=[{ name = \"TC\", labels = [1, 4] }]",
            "model.network.base=32",
            "model.network.downs=4",
            "model.network.widths=\"after-pooling\"",
        ],
        "unet3d",
        128,
        2,
    ),
];

/// The sizes of the paper.
pub const PAPER: [&str; 4] = [
    "model.generator.downs=8",
    "model.generator.ngf=64",
    "model.discriminator.layers=3",
    "model.discriminator.ndf=64",
];

/// By how much the FLOPs of two steps may differ that are set beside each other.
const ALIKE: f64 = 0.02;

/// Refuses to compare steps that do not compute the same: FLOPs of products, ours and the peer's.
pub fn same_work(what: &str, own: f64, peer: f64) -> Result<(), String> {
    // (A negation, so that NaN is refused.)
    if own > 0.0 && ((own - peer) / own).abs() <= ALIKE {
        return Ok(());
    }
    Err(format!(
        "{what}: not compared, for the steps differ: {:.2} GFLOP here, {:.2} in PyTorch",
        own / 1e9,
        peer / 1e9
    ))
}
