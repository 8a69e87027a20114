//! The architectures and checkpoints of the family.

use bob_core::{Preprocess, Pretraining};
use burn::tensor::Device;

use super::VisionTransformerConfig;
use crate::hub::{self, TimmCheckpoint};
use crate::registry::{Architecture, Family};
use crate::{AnyBackbone, CheckpointEntry, InitOptions};

/// The family's tables.
pub(crate) static FAMILY: Family = Family {
    architectures: &[
        vit("vit_tiny_patch16_224", 224, |options, device| {
            init(VisionTransformerConfig::tiny(), options, device)
        }),
        vit("vit_small_patch16_224", 224, |options, device| {
            init(VisionTransformerConfig::small(), options, device)
        }),
        vit("vit_base_patch16_224", 224, |options, device| {
            init(VisionTransformerConfig::base(), options, device)
        }),
        vit("vit_base_patch16_384", 384, |options, device| {
            init(VisionTransformerConfig::base(), options, device)
        }),
        vit("vit_large_patch16_224", 224, |options, device| {
            init(VisionTransformerConfig::large(), options, device)
        }),
        vit("vit_base_patch16_clip_224", 224, |options, device| {
            init(VisionTransformerConfig::base_clip(), options, device)
        }),
        vit("vit_large_patch14_clip_224", 224, |options, device| {
            init(VisionTransformerConfig::large_clip(), options, device)
        }),
        vit("vit_small_patch8_224", 224, |options, device| {
            init(VisionTransformerConfig::small().with_patch_size(8), options, device)
        }),
        vit("vit_base_patch8_224", 224, |options, device| {
            init(VisionTransformerConfig::base().with_patch_size(8), options, device)
        }),
        vit("vit_small_patch14_dinov2", 518, |options, device| {
            init(VisionTransformerConfig::small().dinov2(), options, device)
        }),
        vit("vit_base_patch14_dinov2", 518, |options, device| {
            init(VisionTransformerConfig::base().dinov2(), options, device)
        }),
        vit("vit_large_patch14_dinov2", 518, |options, device| {
            init(VisionTransformerConfig::large().dinov2(), options, device)
        }),
        vit("vit_giant_patch14_dinov2", 518, |options, device| {
            init(VisionTransformerConfig::giant_swiglu().dinov2(), options, device)
        }),
        vit("vit_small_patch14_reg4_dinov2", 518, |options, device| {
            init(VisionTransformerConfig::small().dinov2().reg4(), options, device)
        }),
        vit("vit_base_patch14_reg4_dinov2", 518, |options, device| {
            init(VisionTransformerConfig::base().dinov2().reg4(), options, device)
        }),
        vit("vit_large_patch14_reg4_dinov2", 518, |options, device| {
            init(VisionTransformerConfig::large().dinov2().reg4(), options, device)
        }),
        vit("vit_giant_patch14_reg4_dinov2", 518, |options, device| {
            init(VisionTransformerConfig::giant_swiglu().dinov2().reg4(), options, device)
        }),
        // Not timm's names: the networks of MoCo v3, with a fixed position embedding and twelve heads in both.
        vit("vit_small_patch16_224_mocov3", 224, |options, device| {
            init(VisionTransformerConfig::new(384, 12, 12).mocov3(), options, device)
        }),
        vit("vit_base_patch16_224_mocov3", 224, |options, device| {
            init(VisionTransformerConfig::base().mocov3(), options, device)
        }),
        vit("deit_tiny_patch16_224", 224, |options, device| {
            init(VisionTransformerConfig::tiny(), options, device)
        }),
        vit("deit_small_patch16_224", 224, |options, device| {
            init(VisionTransformerConfig::small(), options, device)
        }),
        vit("deit_base_patch16_224", 224, |options, device| {
            init(VisionTransformerConfig::base(), options, device)
        }),
        vit("deit_base_patch16_384", 384, |options, device| {
            init(VisionTransformerConfig::base(), options, device)
        }),
    ],
    checkpoints,
};

const fn vit(name: &'static str, size: usize, init: fn(&InitOptions, &Device) -> AnyBackbone) -> Architecture {
    Architecture {
        name,
        input_size: [size, size],
        init,
    }
}

impl VisionTransformerConfig {
    /// ViT-Ti/16.
    pub fn tiny() -> Self {
        Self::new(192, 12, 3)
    }

    /// ViT-S/16.
    pub fn small() -> Self {
        Self::new(384, 12, 6)
    }

    /// ViT-B/16.
    pub fn base() -> Self {
        Self::new(768, 12, 12)
    }

    /// ViT-L/16.
    pub fn large() -> Self {
        Self::new(1024, 24, 16)
    }

    /// The image tower of CLIP ViT-B/16: a norm before the blocks, PyTorch's epsilon.
    pub fn base_clip() -> Self {
        Self::base().with_pre_norm(true).with_norm_epsilon(1e-5)
    }

    /// The image tower of CLIP ViT-L/14.
    pub fn large_clip() -> Self {
        Self::large()
            .with_patch_size(14)
            .with_pre_norm(true)
            .with_norm_epsilon(1e-5)
    }

    /// ViT-g/16 with gated perceptrons of 4096 units.
    pub fn giant_swiglu() -> Self {
        Self::new(1536, 40, 24).with_swiglu(true).with_mlp_ratio(2.666_67 * 2.0)
    }

    /// As DINOv2 has it: patches of 14 pixels and a layer scale.
    pub fn dinov2(self) -> Self {
        self.with_patch_size(14).with_init_values(Some(1e-5))
    }

    /// With four registers, and positions for patches only.
    pub fn reg4(self) -> Self {
        self.with_reg_tokens(4).with_no_embed_class(true)
    }

    /// As MoCo v3 has it.
    pub fn mocov3(self) -> Self {
        self.with_sincos_pos_embed(true)
    }
}

fn init(config: VisionTransformerConfig, options: &InitOptions, device: &Device) -> AnyBackbone {
    config
        .with_num_classes(options.num_classes)
        .with_input_size(options.input_size)
        .init(device)
        .into()
}

fn checkpoints() -> Vec<CheckpointEntry> {
    let augreg = |name, pretraining: Pretraining| {
        let preprocess = Preprocess {
            mean: Preprocess::HALF,
            std: Preprocess::HALF,
            ..at(224)
        };
        checkpoint(name, preprocess, pretraining, 1000, "Apache-2.0", "2106.10270")
    };
    let dino = |name| {
        checkpoint(
            name,
            at(224),
            hub::imagenet_1k_self_supervised(),
            0,
            "Apache-2.0",
            "2104.14294",
        )
    };
    let mae = |name| {
        checkpoint(
            name,
            at(224),
            hub::imagenet_1k_self_supervised(),
            0,
            "CC-BY-NC-4.0",
            "2111.06377",
        )
    };
    let clip = |name, num_classes| {
        let preprocess = Preprocess {
            crop_pct: 1.0,
            mean: Preprocess::CLIP_MEAN,
            std: Preprocess::CLIP_STD,
            ..at(224)
        };
        checkpoint(
            name,
            preprocess,
            hub::laion_2b(),
            num_classes,
            "Apache-2.0",
            "2212.07143",
        )
    };
    let dinov2 = |name, paper| {
        let preprocess = Preprocess {
            crop_pct: 1.0,
            ..at(518)
        };
        checkpoint(name, preprocess, hub::lvd_142m(), 0, "Apache-2.0", paper)
    };
    const DINOV2: &str = "2304.07193";
    const REGISTERS: &str = "2309.16588";
    let deit = |name| checkpoint(name, at(224), hub::imagenet_1k(), 1000, "Apache-2.0", "2012.12877");
    let at_384 = || Preprocess {
        crop_pct: 1.0,
        ..at(384)
    };
    vec![
        augreg("vit_tiny_patch16_224.augreg_in21k_ft_in1k", hub::imagenet_22k()),
        augreg("vit_small_patch16_224.augreg_in21k_ft_in1k", hub::imagenet_22k()),
        augreg("vit_small_patch16_224.augreg_in1k", hub::imagenet_1k()),
        dino("vit_small_patch16_224.dino"),
        augreg("vit_base_patch16_224.augreg_in21k_ft_in1k", hub::imagenet_22k()),
        augreg("vit_base_patch16_224.augreg_in1k", hub::imagenet_1k()),
        dino("vit_base_patch16_224.dino"),
        mae("vit_base_patch16_224.mae"),
        checkpoint(
            "vit_base_patch16_384.augreg_in21k_ft_in1k",
            Preprocess {
                mean: Preprocess::HALF,
                std: Preprocess::HALF,
                ..at_384()
            },
            hub::imagenet_22k(),
            1000,
            "Apache-2.0",
            "2106.10270",
        ),
        augreg("vit_large_patch16_224.augreg_in21k_ft_in1k", hub::imagenet_22k()),
        mae("vit_large_patch16_224.mae"),
        clip("vit_base_patch16_clip_224.laion2b", 512),
        clip("vit_base_patch16_clip_224.laion2b_ft_in1k", 1000),
        checkpoint(
            "vit_large_patch14_clip_224.laion2b",
            Preprocess {
                crop_pct: 1.0,
                mean: Preprocess::HALF,
                std: Preprocess::HALF,
                ..at(224)
            },
            hub::laion_2b(),
            768,
            "Apache-2.0",
            "2212.07143",
        ),
        dino("vit_small_patch8_224.dino"),
        dino("vit_base_patch8_224.dino"),
        dinov2("vit_small_patch14_dinov2.lvd142m", DINOV2),
        dinov2("vit_base_patch14_dinov2.lvd142m", DINOV2),
        dinov2("vit_large_patch14_dinov2.lvd142m", DINOV2),
        dinov2("vit_giant_patch14_dinov2.lvd142m", DINOV2),
        dinov2("vit_small_patch14_reg4_dinov2.lvd142m", REGISTERS),
        dinov2("vit_base_patch14_reg4_dinov2.lvd142m", REGISTERS),
        dinov2("vit_large_patch14_reg4_dinov2.lvd142m", REGISTERS),
        dinov2("vit_giant_patch14_reg4_dinov2.lvd142m", REGISTERS),
        // https://dl.fbaipublicfiles.com/moco-v3/
        mocov3("vit_small_patch16_224_mocov3.in1k_300ep", "vit-s-300ep.pth.tar"),
        mocov3("vit_base_patch16_224_mocov3.in1k_300ep", "vit-b-300ep.pth.tar"),
        deit("deit_tiny_patch16_224.fb_in1k"),
        deit("deit_small_patch16_224.fb_in1k"),
        deit("deit_base_patch16_224.fb_in1k"),
        checkpoint(
            "deit_base_patch16_384.fb_in1k",
            at_384(),
            hub::imagenet_1k(),
            1000,
            "Apache-2.0",
            "2012.12877",
        ),
    ]
}

fn mocov3(name: &'static str, file: &str) -> CheckpointEntry {
    let checkpoint = TimmCheckpoint {
        name,
        preprocess: at(224),
        pretraining: hub::imagenet_1k_self_supervised(),
        num_classes: 0,
        license: "CC-BY-NC-4.0",
        paper: "2104.02057",
    };
    CheckpointEntry {
        top_level_key: Some("state_dict"),
        remap: hub::remap_moco_v3,
        ..checkpoint.elsewhere(
            "vision_transformer",
            file,
            &["head.*", "module.momentum_encoder.*", "module.predictor.*"],
        )
    }
}

/// timm's preprocessing of this family with ImageNet's statistics.
fn at(size: usize) -> Preprocess {
    Preprocess {
        crop_pct: 0.9,
        ..Preprocess::imagenet(size)
    }
}

fn checkpoint(
    name: &'static str,
    preprocess: Preprocess,
    pretraining: Pretraining,
    num_classes: usize,
    license: &'static str,
    paper: &'static str,
) -> CheckpointEntry {
    TimmCheckpoint {
        name,
        preprocess,
        pretraining,
        num_classes,
        license,
        paper,
    }
    .entry("vision_transformer", &[])
}
