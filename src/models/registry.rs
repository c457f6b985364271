//! All networks by name. Documentation, recipes, weights' files and methods know networks by this list alone.

use super::network::{Limits, Network, Signature, Wanted, settings};
use super::{
    AttentionUnet, DcganDiscriminator, DcganGenerator, DeeplabV3, Denoiser, Densenet, Googlenet, InceptionV3,
    MlpDiscriminator, MlpGenerator, MobilenetV2, MultiScaleGan, Mwcnn, Nnunet, NnunetResidual, PatchGan,
    PixelGan, R2Unet, R3Discriminator, R3Generator, ResidualCritic, ResidualGenerator, Resnet,
    ResnetGenerator, Rrdb, SaganDiscriminator, SaganGenerator, SegmentationUnet, Srcnn, SrganDiscriminator,
    SrganGenerator, Stylegan2Discriminator, Stylegan2Generator, UnetGenerator, UnetPlusPlus, Vdsr, Vgg,
    Vox2Vox, Xception,
};
use crate::error::{Error, Result};
use crate::graph::Var;
use crate::nn::Ctx;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::sync::Arc;
use toml::{Table, Value};

/// Name, type and source of each network.
pub const REGISTRY: &[Entry] = &[
    Entry::new::<UnetGenerator>("unet-generator", "U-Net of pix2pix (Isola et al., CVPR 2017)"),
    Entry::new::<ResnetGenerator>("resnet-generator", "residual network of CycleGAN (Zhu et al., ICCV 2017)"),
    Entry::new::<PatchGan>("patch", "PatchGAN (Isola et al., CVPR 2017)"),
    Entry::new::<PixelGan>("pixel", "PixelGAN (Isola et al., CVPR 2017)"),
    Entry::new::<MultiScaleGan>("multi-scale", "PatchGANs at several resolutions (Wang et al., CVPR 2018)"),
    Entry::new::<SegmentationUnet>("unet", "U-Net, 2D and 3D (Ronneberger et al., 2015; Cicek et al., 2016)"),
    Entry::new::<UnetPlusPlus>("unet-plus-plus", "U-Net++, 2D and 3D (Zhou et al., DLMIA 2018)"),
    Entry::new::<AttentionUnet>("attention-unet", "Attention U-Net, 2D and 3D (Oktay et al., MIDL 2018)"),
    Entry::new::<R2Unet>("r2-unet", "R2U-Net, 2D and 3D (Alom et al., 2018)"),
    Entry::new::<Nnunet>("nnunet", "nnU-Net's U-Net, 2D and 3D (Isensee et al., Nature Methods 2021)"),
    Entry::new::<NnunetResidual>(
        "nnunet-residual",
        "nnU-Net with residual encoder (Isensee et al., MICCAI 2024)",
    ),
    Entry::new::<DeeplabV3>("deeplab-v3", "DeepLabv3, 2D and 3D (Chen et al., 2017)"),
    Entry::new::<Vox2Vox>("vox2vox", "generator of Vox2Vox, 2D and 3D (Cirillo et al., BrainLes 2020)"),
    Entry::new::<Vgg>("vgg", "VGG11 to VGG19, 2D and 3D (Simonyan and Zisserman, ICLR 2015)"),
    Entry::new::<Srcnn>("srcnn", "SRCNN (Dong et al., ECCV 2014)"),
    Entry::new::<Vdsr>("vdsr", "VDSR (Kim et al., CVPR 2016)"),
    Entry::new::<Rrdb>("rrdb", "generator of ESRGAN (Wang et al., ECCV Workshops 2018)"),
    Entry::new::<SrganGenerator>("srgan-generator", "SRGAN, SRResNet (Ledig et al., CVPR 2017)"),
    Entry::new::<SrganDiscriminator>("srgan-discriminator", "SRGAN (Ledig et al., CVPR 2017)"),
    Entry::new::<Mwcnn>("mwcnn", "MWCNN, 2D and 3D (Liu et al., CVPR Workshops 2018)"),
    Entry::new::<Denoiser>("denoiser", "DnCNN (Zhang et al., IEEE TIP 2017)"),
    Entry::new::<Resnet>("resnet", "ResNet and ResNet V2, with SE or CBAM (He et al., CVPR and ECCV 2016)"),
    Entry::new::<Densenet>("densenet", "DenseNet, 2D and 3D (Huang et al., CVPR 2017)"),
    Entry::new::<MobilenetV2>("mobilenet-v2", "MobileNetV2, 2D and 3D (Sandler et al., CVPR 2018)"),
    Entry::new::<Googlenet>("googlenet", "GoogLeNet with batch norm (Szegedy et al., CVPR 2015)"),
    Entry::new::<InceptionV3>("inception-v3", "Inception v3 (Szegedy et al., CVPR 2016)"),
    Entry::new::<Xception>("xception", "Xception, 2D and 3D (Chollet, CVPR 2017)"),
    Entry::new::<DcganGenerator>("dcgan-generator", "DCGAN (Radford et al., ICLR 2016)"),
    Entry::new::<DcganDiscriminator>("dcgan-discriminator", "DCGAN (Radford et al., ICLR 2016)"),
    Entry::new::<ResidualGenerator>("residual-generator", "WGAN-GP (Gulrajani et al., NeurIPS 2017)"),
    Entry::new::<ResidualCritic>("residual-discriminator", "WGAN-GP (Gulrajani et al., NeurIPS 2017)"),
    Entry::new::<SaganGenerator>("sagan-generator", "SAGAN (Zhang et al., ICML 2019)"),
    Entry::new::<SaganDiscriminator>("sagan-discriminator", "SAGAN (Zhang et al., ICML 2019)"),
    Entry::new::<Stylegan2Generator>("stylegan2-generator", "StyleGAN2 (Karras et al., CVPR 2020)"),
    Entry::new::<Stylegan2Discriminator>("stylegan2-discriminator", "StyleGAN2 (Karras et al., CVPR 2020)"),
    Entry::new::<R3Generator>("r3gan-generator", "R3GAN (Huang et al., NeurIPS 2024)"),
    Entry::new::<R3Discriminator>("r3gan-discriminator", "R3GAN (Huang et al., NeurIPS 2024)"),
    Entry::new::<MlpGenerator>("mlp-generator", "fully connected (Goodfellow et al., NeurIPS 2014)"),
    Entry::new::<MlpDiscriminator>("mlp-discriminator", "fully connected (Goodfellow et al., NeurIPS 2014)"),
];

/// A network by name.
pub struct Entry {
    /// Its name in recipes. In a role whose name it ends in, the rest is enough: the generator `unet` is `unet-generator`.
    pub kind: &'static str,
    /// What it is and who described it.
    pub about: &'static str,
    read: fn(Value) -> Result<AnyParts, toml::de::Error>,
    schema: fn() -> Schema,
}

type AnyParts = (Arc<dyn Network>, serde_json::Map<String, serde_json::Value>);

/// A setting of a network.
pub struct Setting {
    /// Its name in recipes.
    pub name: String,
    /// Its default, as TOML.
    pub default: String,
    /// What it means.
    pub about: String,
}

impl Entry {
    /// What it is, as its documentation begins, and its settings.
    pub fn settings(&self) -> Result<(String, Vec<Setting>)> {
        let schema = (self.schema)();
        let one_line = |v: Option<&serde_json::Value>| {
            v.and_then(|d| d.as_str()).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let (_, defaults) = self.defaults()?;
        let about = |name: &str| one_line(schema.get("properties").and_then(|p| p[name].get("description")));
        let settings = defaults.iter().map(|(name, value)| {
            let default = toml::Value::try_from(value).map_or_else(|_| value.to_string(), |v| v.to_string());
            Setting { name: name.clone(), default, about: about(name) }
        });
        Ok((one_line(schema.get("description")), settings.collect()))
    }

    fn defaults(&self) -> Result<AnyParts> {
        (self.read)(Value::Table(Table::new()))
            .map_err(|e| Error::input(format!("{}: {}", self.kind, e.message())))
    }

    /// What goes in and what comes out of it, with the settings that it has where a recipe gives none.
    pub fn signature(&self) -> Result<Signature> {
        Ok(self.defaults()?.0.signature())
    }

    const fn new<N: Network + Serialize + DeserializeOwned + JsonSchema + 'static>(
        kind: &'static str,
        about: &'static str,
    ) -> Self {
        Entry {
            kind,
            about,
            read: |table| {
                let network: N = table.try_into()?;
                let settings = settings(&network);
                Ok((Arc::new(network), settings))
            },
            schema: || schemars::schema_for!(N),
        }
    }
}

/// A network of the registry with its settings. Two are equal when their names and settings are.
#[derive(Clone, Debug)]
pub struct AnyNetwork {
    /// As the recipe names it.
    kind: String,
    settings: serde_json::Map<String, serde_json::Value>,
    network: Arc<dyn Network>,
}

impl AnyNetwork {
    /// Reads a table of settings with its name under `kind`, such as `{ kind = "unet", ngf = 32 }`, in a role such as
    /// `generator`. The errors are serde's.
    pub fn read(role: &str, mut table: Table) -> Result<AnyNetwork, String> {
        let kind = match table.remove("kind") {
            None => return Err("missing field `kind`".to_string()),
            Some(Value::String(kind)) => kind,
            Some(other) => return Err(format!("invalid type: {}, expected a string", other.type_str())),
        };
        let Some(entry) = find(role, &kind) else {
            let names: Vec<String> = names(role).iter().map(|n| format!("`{n}`")).collect();
            return Err(format!("unknown variant `{kind}`, expected one of {}", names.join(", ")));
        };
        let (network, settings) = (entry.read)(Value::Table(table)).map_err(|e| e.message().to_string())?;
        Ok(AnyNetwork { kind, settings, network })
    }

    /// A network by its own type, under the name that it has in a role.
    pub fn new<N: Network + Serialize + 'static>(kind: &str, network: N) -> AnyNetwork {
        AnyNetwork { kind: kind.to_string(), settings: settings(&network), network: Arc::new(network) }
    }

    /// As recipes name it.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// As it stands in a recipe: `{ kind = "unet", downs = 8, .. }`.
    pub fn to_toml(&self) -> String {
        toml::Value::try_from(self).expect("plain data").to_string()
    }

    /// Name and settings in one line: what tells its architecture from others.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }
}

impl Network for AnyNetwork {
    fn signature(&self) -> Signature {
        self.network.signature()
    }

    fn multiple(&self) -> usize {
        self.network.multiple()
    }

    fn takes_volumes(&self) -> bool {
        self.network.takes_volumes()
    }

    fn mixes_batch(&self) -> bool {
        self.network.mixes_batch()
    }

    fn check(&self, limits: &Limits) -> Result<()> {
        self.network.check(limits)
    }

    #[track_caller]
    fn forward(&self, cx: &Ctx, x: &Var, wanted: &Wanted) -> Vec<Var> {
        self.network.forward(cx, x, wanted)
    }
}

impl PartialEq for AnyNetwork {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.settings == other.settings
    }
}

impl Serialize for AnyNetwork {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.settings.len()))?;
        map.serialize_entry("kind", &self.kind)?;
        for (key, value) in self.settings.iter().filter(|(_, v)| !v.is_null()) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

fn find(role: &str, kind: &str) -> Option<&'static Entry> {
    let by = |name: &str| REGISTRY.iter().find(|e| e.kind == name);
    by(&format!("{kind}-{role}")).or_else(|| by(kind))
}

/// The names that a role knows: first those of networks made for it.
fn names(role: &str) -> Vec<&'static str> {
    let short = |e: &Entry| e.kind.strip_suffix(role).and_then(|k| k.strip_suffix('-'));
    let own = REGISTRY.iter().filter_map(short);
    let rest = REGISTRY.iter().filter(|e| short(e).is_none()).map(|e| e.kind);
    own.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(role: &str, text: &str) -> Result<AnyNetwork, String> {
        AnyNetwork::read(role, text.parse().expect("TOML"))
    }

    #[test]
    fn a_role_knows_its_networks_by_their_short_names() {
        let generator = read("generator", "kind = \"unet\"\nngf = 8").expect("known");
        assert_eq!(generator.signature(), Signature::Image);
        assert_eq!(read("network", "kind = \"unet\"").expect("known").signature(), Signature::Dense);
        assert_eq!(generator.text(), r#"{"kind":"unet","downs":8,"ngf":8,"norm":"batch","dropout":0.5}"#);
        let again = read("generator", &toml::to_string(&generator).expect("plain data")).expect("reads back");
        assert_eq!(again, generator);
        assert!(read("generator", "kind = \"unett\"").expect_err("unknown").contains("`unet`"));
        assert!(read("generator", "ngf = 8").expect_err("no kind").contains("missing field `kind`"));
    }

    /// A name that is another's short name in some role would hide it there.
    #[test]
    fn names_are_unique() {
        for (i, entry) in REGISTRY.iter().enumerate() {
            assert!(REGISTRY[..i].iter().all(|e| e.kind != entry.kind), "{} stands twice", entry.kind);
            assert!(!entry.about.is_empty() && entry.signature().is_ok(), "{}", entry.kind);
            let (about, settings) = entry.settings().expect("it has defaults");
            assert!(!about.is_empty(), "{} is not described", entry.kind);
            let silent: Vec<_> = settings.iter().filter(|s| s.about.is_empty()).map(|s| &s.name).collect();
            assert!(silent.is_empty(), "{}: no meaning of {silent:?}", entry.kind);
        }
    }
}
