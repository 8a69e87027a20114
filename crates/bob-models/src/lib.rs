//! The architectures of the battle, one file per family, and the strict loading of their weights.
//!
//! Faithful to timm 1.0.x: fields carry the names of timm's state dicts, so weights load with next to no
//! renaming; parity against timm is tested with stored oracles (`fixtures/`). What timm has not, Stable Diffusion, is
//! faithful to its authors' code and names in the same way.

#[macro_use]
mod registry;

mod battle;
mod convnext;
mod efficientnet;
mod hub;
mod init;
mod layers;
mod mlp;
mod nfnet;
mod own;
mod patch_embed;
mod regnet;
mod resample;
mod resnet;
mod resnet_clip;
mod squeeze_excite;
mod stable_diffusion;
mod swin_transformer_v2;
mod vision_transformer;
mod vision_transformer_sam;
pub mod weights;

pub use battle::{BattleRow, BattleTask, Corrected, Released, battle};
pub use convnext::{ConvNext, ConvNextConfig};
pub use efficientnet::{EfficientNet, EfficientNetConfig, StageConfig};
pub use layers::Activation;
pub use nfnet::{ChannelAttention, NormFreeNet, NormFreeNetConfig, NormFreeStem};
pub use own::{OwnCheckpoint, OwnCheckpointError, OwnCheckpointFault, OwnWeights, parse_own_checkpoints};
pub use registry::{
    Architecture, CheckpointEntry, CreateError, InitOptions, architectures, checkpoints, create, create_random,
    family_of, load_options,
};
pub use regnet::{RegNet, RegNetConfig};
pub use resnet::{BlockType, ResNet, ResNetConfig, StemType};
pub use resnet_clip::{ClipResNet, ClipResNetConfig};
pub use stable_diffusion::{AutoencoderConfig, StableDiffusion, StableDiffusionConfig, TextConfig, UnetConfig};
pub use swin_transformer_v2::{SwinTransformerV2, SwinTransformerV2Config};
pub use vision_transformer::{GlobalPool, VisionTransformer, VisionTransformerConfig};
pub use vision_transformer_sam::{VisionTransformerSam, VisionTransformerSamConfig};

backbones! {
    /// Residual networks (`timm/models/resnet.py`).
    ResNet(ResNet) from resnet,
    /// ConvNeXt (`timm/models/convnext.py`).
    ConvNext(ConvNext) from convnext,
    /// Swin Transformer V2 (`timm/models/swin_transformer_v2.py`).
    SwinTransformerV2(SwinTransformerV2) from swin_transformer_v2,
    /// Vision transformers (`timm/models/vision_transformer.py`).
    VisionTransformer(VisionTransformer) from vision_transformer,
    /// EfficientNet, its Lite variants and MobileNetV2 (`timm/models/efficientnet.py`).
    EfficientNet(EfficientNet) from efficientnet,
    /// Networks without normalisation (`timm/models/nfnet.py`).
    NormFreeNet(NormFreeNet) from nfnet,
    /// RegNet (`timm/models/regnet.py`).
    RegNet(RegNet) from regnet,
    /// The residual networks of CLIP (`resnet50_clip` of `timm/models/byobnet.py`).
    ClipResNet(ClipResNet) from resnet_clip,
    /// The image encoder of Segment Anything (`timm/models/vision_transformer_sam.py`).
    VisionTransformerSam(VisionTransformerSam) from vision_transformer_sam,
    /// The encoding half of Stable Diffusion (`ldm` of CompVis).
    StableDiffusion(StableDiffusion) from stable_diffusion,
}
