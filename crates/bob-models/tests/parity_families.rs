//! NFNets, RegNets, the networks of CLIP, Segment Anything and Stable Diffusion, and the variants of the other families
//! that the battle's checkpoints need: tiny members with the outputs of timm 1.0.31 (`fixtures/make_models_families.py`)
//! and of diffusers (`fixtures/make_models_diffusion.py`), and published figures of the full-size ones.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bob_core::{Backbone, CostCounter, num_parameters};
use bob_models::weights;
use bob_models::{
    Activation, AnyBackbone, AutoencoderConfig, BlockType, ChannelAttention, ClipResNetConfig, ConvNextConfig,
    InitOptions, NormFreeNetConfig, NormFreeStem, RegNetConfig, ResNetConfig, StableDiffusionConfig,
    SwinTransformerV2Config, TextConfig, UnetConfig, VisionTransformerConfig, VisionTransformerSamConfig,
    architectures, checkpoints,
};
use burn::module::{Module, ModuleVisitor, Param, list_param_ids};
use burn::tensor::{Device, Tensor};
use common::{check, images, load, path, relative_error, tensor};
use safetensors::SafeTensors;

/// A fixture and how its backbone is initialised.
struct Member {
    fixture: &'static str,
    /// A checkpoint whose file has the fixture's names, where they are not ours.
    named_as: Option<&'static str>,
    init: Box<dyn Fn(&Device) -> AnyBackbone>,
}

impl Member {
    fn new<B: Into<AnyBackbone>>(fixture: &'static str, init: impl Fn(&Device) -> B + 'static) -> Self {
        Self {
            fixture,
            named_as: None,
            init: Box::new(move |device| init(device).into()),
        }
    }

    fn named_as(self, checkpoint: &'static str) -> Self {
        Self {
            named_as: Some(checkpoint),
            ..self
        }
    }

    fn load(&self, device: &Device) -> AnyBackbone {
        let entry = self.named_as.map(|name| {
            checkpoints()
                .into_iter()
                .find(|entry| entry.checkpoint.name == name)
                .unwrap()
        });
        load((self.init)(device), self.fixture, entry.as_ref())
    }
}

fn nfnet() -> NormFreeNetConfig {
    NormFreeNetConfig::new([1, 2, 1, 1], [8, 16, 24, 24])
        .with_stem_chs(16)
        .with_group_size(Some(8))
        .with_num_features(32)
        .with_num_classes(7)
}

fn regnet() -> RegNetConfig {
    RegNetConfig::new(5, 8, 8.0, 1.6, 8).with_num_classes(7)
}

fn clip_resnet(input_size: [usize; 2]) -> ClipResNetConfig {
    ClipResNetConfig::new([1, 2, 1, 1], 16)
        .with_width(2)
        .with_head_dim(32)
        .with_input_size(input_size)
}

fn resnet() -> ResNetConfig {
    ResNetConfig::new([BlockType::Bottleneck; 4], [1, 1, 1, 1]).with_channels([2, 2, 4, 4])
}

fn vit() -> VisionTransformerConfig {
    VisionTransformerConfig::new(16, 3, 2)
        .with_input_size([32, 32])
        .with_patch_size(8)
        .with_num_classes(7)
}

fn mocov3() -> VisionTransformerConfig {
    vit().with_input_size([32, 40]).with_num_classes(0).mocov3()
}

fn sam(input_size: [usize; 2]) -> VisionTransformerSamConfig {
    VisionTransformerSamConfig::new(16, 3, 2, vec![1])
        .with_input_size(input_size)
        .with_patch_size(8)
        .with_window_size(3)
        .with_neck_chans(8)
        .with_num_classes(7)
}

fn stable_diffusion() -> StableDiffusionConfig {
    StableDiffusionConfig::new()
        .with_first_stage_config(
            AutoencoderConfig::new()
                .with_ch(2)
                .with_ch_mult(vec![1, 2, 2])
                .with_num_groups(2),
        )
        .with_unet_config(
            UnetConfig::new()
                .with_model_channels(4)
                .with_channel_mult(vec![1, 2, 3])
                .with_attention_resolutions(vec![2, 1])
                .with_num_heads(2)
                .with_num_groups(2),
        )
        .with_cond_stage_config(
            TextConfig::new()
                .with_vocab_size(11)
                .with_hidden_size(8)
                .with_intermediate_size(16)
                .with_num_hidden_layers(2)
                .with_num_attention_heads(2)
                .with_max_position_embeddings(6)
                .with_prompt(vec![9, 3, 5, 10]),
        )
}

/// Every fixture of this file.
fn members() -> Vec<Member> {
    vec![
        Member::new("nfnet_deepmind", |device| {
            nfnet()
                .with_gamma_in_act(true)
                .with_same_padding(true)
                .with_skipinit(true)
                .init(device)
        }),
        Member::new("nfnet_gelu", |device| {
            NormFreeNetConfig::new([1, 1, 1, 1], [32, 40, 32, 32])
                .with_stem_chs(16)
                .with_group_size(Some(16))
                .with_attn_layer(ChannelAttention::SqueezeExcite(0.25))
                .with_num_features(32)
                .with_num_classes(7)
                .init(device)
        }),
        Member::new("nfnet_light", |device| {
            nfnet()
                .with_act_layer(Activation::Silu)
                .with_bottle_ratio(0.25)
                .with_attn_layer(ChannelAttention::SqueezeExcite(0.25))
                .with_num_features(36)
                .init(device)
        }),
        Member::new("nfnet_eca", |device| {
            nfnet()
                .with_act_layer(Activation::Silu)
                .with_attn_layer(ChannelAttention::Eca)
                .init(device)
        }),
        Member::new("nf_resnet", |device| {
            NormFreeNetConfig::new([1, 2, 1, 1], [16, 24, 32, 48])
                .with_stem_type(NormFreeStem::Conv7x7Pool)
                .with_stem_chs(8)
                .with_group_size(None)
                .with_bottle_ratio(0.25)
                .with_extra_conv(false)
                .with_attn_layer(ChannelAttention::None)
                .with_act_layer(Activation::Relu)
                .with_num_classes(7)
                .init(device)
        }),
        Member::new("regnet_x", |device| regnet().init(device)).named_as("regnetx_004.pycls_in1k"),
        Member::new("regnet_y", |device| regnet().with_se_ratio(0.25).init(device)).named_as("regnety_004.pycls_in1k"),
        Member::new("clip_resnet", |device| clip_resnet([32, 96]).init(device)),
        Member::new("clip_resnet_of_another_size", |device| {
            clip_resnet([64, 32]).init(device)
        }),
        Member::new("resnet_vicreg", |device| resnet().with_num_classes(0).init(device)),
        Member::new("resnet_sscd", |device| {
            resnet().with_descriptor(Some(12)).with_num_classes(0).init(device)
        })
        .named_as("resnet50_sscd.disc_mixup"),
        Member::new("convnext_vicregl", |device| {
            ConvNextConfig::new([1, 1, 2, 1], [6, 8, 12, 16])
                .vicregl()
                .with_num_classes(0)
                .init(device)
        })
        .named_as("convnext_xlarge_vicregl.alpha0p75_in22k"),
        Member::new("swinv2_midas", |device| {
            SwinTransformerV2Config::new(8, vec![2, 2], vec![2, 4], 4)
                .with_pretrained_window_sizes(vec![3, 2])
                .with_input_size([32, 48])
                .with_num_classes(7)
                .init(device)
        })
        .named_as("swinv2_tiny_window16_256.midas"),
        Member::new("vit_swiglu_reg4", |device| {
            vit()
                .with_init_values(Some(1e-5))
                .with_swiglu(true)
                .reg4()
                .with_out_indices(vec![0, 2])
                .init(device)
        }),
        Member::new("vit_mocov3", |device| mocov3().init(device)).named_as("vit_small_patch16_224_mocov3.in1k_300ep"),
        Member::new("samvit", |device| sam([32, 40]).init(device)),
        Member::new("samvit_of_another_size", |device| sam([40, 24]).init(device)),
        Member::new("stable_diffusion_tiny", |device| stable_diffusion().init(device))
            .named_as("stable_diffusion_v1.sd_v1_4"),
    ]
}

#[test]
fn tiny_members_equal_their_references() {
    for member in members() {
        check(member.fixture, |device| member.load(device));
    }
}

struct Gradients<'a> {
    gradients: &'a burn::tensor::Gradients,
    found: usize,
    fixed: usize,
}

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            self.fixed += 1;
            return;
        }
        let gradient = param
            .val()
            .grad(self.gradients)
            .expect("every parameter has a gradient");
        let norm = gradient.clone().mul(gradient).sum().into_scalar::<f32>();
        assert!(norm.is_finite(), "{norm}");
        self.found += 1;
    }
}

/// Every parameter has a gradient, and is in one layer group or the classifier.
#[test]
fn every_parameter_trains_and_has_a_layer() {
    let device = Device::flex().autodiff();
    for member in members() {
        let name = member.fixture;
        let backbone = member.load(&device);
        let embedding = backbone.forward_embedding(images(name).to_device(&device));
        let output = backbone.forward_classifier(embedding.clone());
        let classifier = 2 * usize::from(output.is_some());
        let output = output.unwrap_or(embedding);
        let gradients = output.clone().mul(output).sum().backward();
        let mut visitor = Gradients {
            gradients: &gradients,
            found: 0,
            fixed: 0,
        };
        backbone.visit(&mut visitor);
        let parameters = list_param_ids(&backbone).len();
        assert_eq!(visitor.found + visitor.fixed, parameters, "{name}");
        // Running statistics, the position embedding of MoCo v3 and the text encoder of Stable Diffusion do not train.
        let expected = weights::expected(&backbone);
        let count = |is_fixed: fn(&str) -> bool| expected.iter().filter(|expected| is_fixed(&expected.name)).count();
        let statistics = 2 * count(|name| name.ends_with("running_mean"));
        let texts = count(|name| name.starts_with("cond_stage_model."));
        let positions = usize::from(name == "vit_mocov3");
        assert_eq!(visitor.fixed, statistics + texts + positions, "{name}");

        let mut grouped: Vec<_> = backbone.layer_groups().into_iter().flatten().collect();
        grouped.sort();
        grouped.dedup();
        assert_eq!(grouped.len() + classifier, parameters, "{name}");
    }
}

fn create(name: &str, num_classes: usize, size: usize) -> AnyBackbone {
    let architectures = architectures();
    let architecture = architectures
        .iter()
        .find(|architecture| architecture.name == name)
        .unwrap();
    let options = InitOptions {
        num_classes,
        input_size: [size, size],
    };
    (architecture.init)(&options, &Device::flex())
}

fn macs(backbone: &AnyBackbone, size: usize) -> u64 {
    let mut counter = CostCounter::new();
    backbone.count(&mut counter, [size, size]);
    counter.finish().unwrap().macs
}

/// Table 1 and Table 3 of arXiv:2102.06171: parameters in millions, the resolution of the test, and 10^9
/// multiply-accumulates ("FLOPs") at it. The last three are not printed there but counted from the widths and depths of
/// DeepMind's code, the wider ones at 224 pixels, where arXiv:2310.16764 trains them.
const NFNETS: [(&str, f64, usize, f64); 10] = [
    ("dm_nfnet_f0", 71.5, 256, 12.38),
    ("dm_nfnet_f1", 132.6, 320, 35.54),
    ("dm_nfnet_f2", 193.8, 352, 62.59),
    ("dm_nfnet_f3", 254.9, 416, 114.76),
    ("dm_nfnet_f4", 316.1, 512, 215.24),
    ("dm_nfnet_f5", 377.2, 544, 289.76),
    ("dm_nfnet_f6", 438.4, 576, 377.28),
    ("dm_nfnet_f7", 499.5, 608, 478.78),
    ("dm_nfnet_f3_plus", 423.4, 224, 51.72),
    ("dm_nfnet_f7_plus", 829.6, 224, 100.74),
];

#[test]
fn nfnets_are_of_the_size_that_the_paper_prints() {
    for (name, parameters, size, gmacs) in NFNETS {
        let backbone = create(name, 1000, size);
        let millions = num_parameters(&backbone) as f64 / 1e6;
        let counted = macs(&backbone, size) as f64 / 1e9;
        let rounded = ((millions * 10.0).round() / 10.0, (counted * 100.0).round() / 100.0);
        assert_eq!(rounded, (parameters, gmacs), "{name}");
    }
}

/// Parameters of the full-size members, of `num_classes` classes: `sum(p.numel() for p in model.parameters())` of
/// `timm.create_model(name, num_classes=num_classes)`, timm 1.0.31, or of `fixtures/oracle/architectures.py` where timm has
/// no name for it. CLIP's are counted with their own projection. Stable Diffusion's is what
/// `fixtures/oracle/stable_diffusion.py --count` counts in diffusers 0.42.1.
const PARAMETERS: &[(&str, usize, usize)] = &[
    ("dm_nfnet_f0", 1000, 71_489_284),
    ("nfnet_f0", 1000, 71_489_272),
    ("nfnet_f7", 1000, 499_503_992),
    ("nfnet_l0", 1000, 35_074_488),
    ("eca_nfnet_l0", 1000, 24_143_924),
    ("eca_nfnet_l1", 1000, 41_407_728),
    ("eca_nfnet_l2", 1000, 56_722_348),
    ("nf_resnet50", 1000, 25_557_032),
    ("nf_resnet101", 1000, 44_549_160),
    ("test_nfnet", 1000, 383_080),
    ("nfnet_f1", 1000, 132_634_232),
    ("nfnet_f2", 1000, 193_779_192),
    ("nfnet_f3", 1000, 254_924_152),
    ("nfnet_f4", 1000, 316_069_112),
    ("nfnet_f5", 1000, 377_214_072),
    ("nfnet_f6", 1000, 438_359_032),
    ("regnetx_002", 1000, 2_684_792),
    ("regnetx_004", 1000, 5_157_512),
    ("regnetx_006", 1000, 6_196_040),
    ("regnetx_008", 1000, 7_259_656),
    ("regnety_002", 1000, 3_162_996),
    ("regnety_004", 1000, 4_344_144),
    ("regnety_006", 1000, 6_055_160),
    ("regnety_008", 1000, 6_263_168),
    ("convnext_large", 1000, 197_767_336),
    ("convnext_xlarge", 1000, 350_196_968),
    ("convnext_small_vicregl", 1000, 50_210_152),
    ("convnext_base_vicregl", 1000, 88_573_416),
    ("convnext_xlarge_vicregl", 1000, 350_160_872),
    ("swinv2_base_window12_192", 1000, 87_918_816),
    ("swinv2_large_window12_192", 1000, 196_739_932),
    ("swinv2_large_window12to16_192to256", 1000, 196_739_932),
    ("swinv2_large_window12to24_192to384", 1000, 196_739_932),
    ("vit_small_patch14_dinov2", 1000, 22_441_192),
    ("vit_small_patch14_hf", 1000, 22_441_192),
    ("vit_base_patch14_dinov2", 1000, 87_348_712),
    ("vit_large_patch14_dinov2", 1000, 305_392_616),
    ("vit_giant_patch14_dinov2", 1000, 1_138_016_232),
    ("vit_small_patch14_reg4_dinov2", 1000, 22_442_344),
    ("vit_base_patch14_reg4_dinov2", 1000, 87_351_016),
    ("vit_large_patch14_reg4_dinov2", 1000, 305_395_688),
    ("vit_giant_patch14_reg4_dinov2", 1000, 1_138_020_840),
    ("vit_small_patch8_224", 1000, 22_055_272),
    ("vit_base_patch8_224", 1000, 86_576_872),
    ("vit_large_patch14_clip_224", 1000, 304_204_776),
    ("vit_small_patch16_224_mocov3", 1000, 22_050_664),
    ("vit_base_patch16_224_mocov3", 1000, 86_567_656),
    ("deit_base_patch16_224", 1000, 86_567_656),
    ("tf_mobilenetv2_100", 1000, 3_504_872),
    ("resnet50_sscd", 1000, 25_070_120),
    ("resnet50_clip", 0, 38_316_896),
    ("resnet101_clip", 0, 56_259_936),
    ("resnet50x4_clip", 0, 87_137_080),
    ("resnet50x16_clip", 0, 167_328_912),
    ("resnet50x64_clip", 0, 420_380_352),
    ("samvit_base_patch16", 0, 89_670_912),
    ("samvit_large_patch16", 0, 308_278_272),
    ("samvit_huge_patch16", 0, 637_026_048),
    ("stable_diffusion_v1", 0, 505_937_104),
    ("dm_nfnet_f7", 1000, 499_504_088),
];

#[test]
fn full_size_members_are_of_timm_s_size() {
    let architectures = architectures();
    for &(name, num_classes, parameters) in PARAMETERS {
        let architecture = architectures
            .iter()
            .find(|architecture| architecture.name == name)
            .unwrap();
        let options = InitOptions {
            num_classes,
            input_size: architecture.input_size,
        };
        let backbone = (architecture.init)(&options, &Device::flex());
        assert_eq!(num_parameters(&backbone), parameters, "{name}");
    }
}

/// Multiply-accumulates of one image: half of what `torch.utils.flop_counter.FlopCounterMode` of torch 2.9.1 counts in
/// timm 1.0.31's model on the device `meta`. CLIP's is `forward_features` so counted and the pooling by hand, as timm
/// asks it for every pixel and not for the mean only. Stable Diffusion's is so counted in diffusers 0.42.1 by
/// `fixtures/oracle/stable_diffusion.py`.
const MACS: &[(&str, usize, u64)] = &[
    ("dm_nfnet_f0", 256, 12_384_198_656),
    ("nfnet_l0", 224, 4_255_094_784),
    ("eca_nfnet_l0", 224, 4_244_258_560),
    ("nf_resnet50", 256, 5_340_348_416),
    ("regnetx_004", 224, 397_677_568),
    ("regnety_004", 224, 401_842_848),
    ("resnet50_clip", 224, 5_367_226_368 + 425_926_656),
    ("convnext_large", 224, 34_361_433_600),
    ("convnext_xlarge", 224, 60_921_030_656),
    ("swinv2_large_window12to24_192to384", 384, 115_991_427_072),
    ("vit_large_patch14_clip_224", 224, 81_013_006_336),
    ("vit_small_patch14_reg4_dinov2", 518, 46_883_212_800),
    ("vit_giant_patch14_dinov2", 518, 1_783_344_494_592),
    ("samvit_base_patch16", 1024, 486_038_923_264),
    ("stable_diffusion_v1", 256, 164_272_414_720),
];

#[test]
fn full_size_members_cost_what_torch_counts() {
    for &(name, size, expected) in MACS {
        let has_classifier = !["resnet50_clip", "stable_diffusion_v1"].contains(&name);
        let num_classes = if has_classifier { 1000 } else { 0 };
        assert_eq!(macs(&create(name, num_classes, size), size), expected, "{name}");
    }
}

/// The position embedding that a network of MoCo v3 starts with is the one of its checkpoints.
#[test]
fn the_fixed_position_embedding_is_moco_s() {
    let saved = tempfile::NamedTempFile::new().unwrap();
    weights::save(&mocov3().init(&Device::flex()).into(), saved.path()).unwrap();
    let found = std::fs::read(saved.path()).unwrap();
    let expected = std::fs::read(path("vit_mocov3")).unwrap();
    let error = relative_error(
        tensor::<3>(&found, "pos_embed").unwrap(),
        tensor(&expected, "module.base_encoder.pos_embed").unwrap(),
    );
    assert!(error < 1e-6, "{error}");
}

/// Names and shapes of the published checkpoints, by `ldm`'s code and the configuration `v1-inference.yaml`.
#[test]
fn stable_diffusion_has_the_names_of_its_checkpoints() {
    let expected = weights::expected(&create("stable_diffusion_v1", 0, 256));
    let published: &[(&str, &[usize])] = &[
        ("first_stage_model.encoder.conv_in.weight", &[128, 3, 3, 3]),
        ("first_stage_model.encoder.down.0.block.0.norm1.weight", &[128]),
        ("first_stage_model.encoder.down.1.block.0.nin_shortcut.bias", &[256]),
        (
            "first_stage_model.encoder.down.2.downsample.conv.weight",
            &[512, 512, 3, 3],
        ),
        (
            "first_stage_model.encoder.mid.attn_1.proj_out.weight",
            &[512, 512, 1, 1],
        ),
        ("first_stage_model.encoder.mid.block_2.conv2.bias", &[512]),
        ("first_stage_model.encoder.norm_out.bias", &[512]),
        ("first_stage_model.encoder.conv_out.weight", &[8, 512, 3, 3]),
        ("first_stage_model.quant_conv.weight", &[8, 8, 1, 1]),
        ("model.diffusion_model.time_embed.0.weight", &[1280, 320]),
        ("model.diffusion_model.time_embed.2.bias", &[1280]),
        ("model.diffusion_model.input_blocks.0.0.weight", &[320, 4, 3, 3]),
        ("model.diffusion_model.input_blocks.1.0.in_layers.0.weight", &[320]),
        ("model.diffusion_model.input_blocks.3.0.op.weight", &[320, 320, 3, 3]),
        (
            "model.diffusion_model.input_blocks.4.0.in_layers.2.weight",
            &[640, 320, 3, 3],
        ),
        (
            "model.diffusion_model.input_blocks.4.0.emb_layers.1.weight",
            &[640, 1280],
        ),
        (
            "model.diffusion_model.input_blocks.4.0.skip_connection.weight",
            &[640, 320, 1, 1],
        ),
        ("model.diffusion_model.input_blocks.1.1.norm.weight", &[320]),
        (
            "model.diffusion_model.input_blocks.1.1.proj_in.weight",
            &[320, 320, 1, 1],
        ),
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
            &[320, 320],
        ),
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.bias",
            &[320],
        ),
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
            &[320, 768],
        ),
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.ff.net.0.proj.weight",
            &[2560, 320],
        ),
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.ff.net.2.weight",
            &[320, 1280],
        ),
        (
            "model.diffusion_model.input_blocks.8.1.transformer_blocks.0.norm3.bias",
            &[1280],
        ),
        (
            "model.diffusion_model.input_blocks.11.0.out_layers.3.weight",
            &[1280, 1280, 3, 3],
        ),
        (
            "model.diffusion_model.middle_block.1.proj_out.weight",
            &[1280, 1280, 1, 1],
        ),
        ("model.diffusion_model.middle_block.2.out_layers.0.bias", &[1280]),
        (
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
            &[49408, 768],
        ),
        (
            "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
            &[77, 768],
        ),
        (
            "cond_stage_model.transformer.text_model.encoder.layers.11.self_attn.q_proj.weight",
            &[768, 768],
        ),
        (
            "cond_stage_model.transformer.text_model.encoder.layers.0.layer_norm1.weight",
            &[768],
        ),
        (
            "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
            &[3072, 768],
        ),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", &[768]),
    ];
    for (name, shape) in published {
        let found = expected.iter().find(|expected| expected.name == *name);
        let found = found.unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(found.shape.as_slice(), *shape, "{name}");
    }
    assert!(
        !expected
            .iter()
            .any(|expected| expected.name.contains("input_blocks.10.1."))
    );
}

/// Saved as loaded, with what its file holds besides left out; without that being said, the file is refused.
#[test]
fn stable_diffusion_is_saved_under_the_names_of_its_checkpoints() {
    let name = "stable_diffusion_tiny";
    let member = members().into_iter().find(|member| member.fixture == name).unwrap();
    let device = Device::flex();
    let saved = tempfile::NamedTempFile::new().unwrap();
    weights::save(&member.load(&device), saved.path()).unwrap();
    let [found, original] = [saved.path(), path(name).as_path()].map(|file| std::fs::read(file).unwrap());
    let [found, original] = [&found, &original].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    assert_eq!(found.len(), weights::expected(&(member.init)(&device)).len());
    for (name, tensor) in found.tensors() {
        let expected = original.tensor(&name).unwrap();
        assert_eq!(
            (tensor.shape(), tensor.data()),
            (expected.shape(), expected.data()),
            "{name}"
        );
    }
    let strict = weights::LoadOptions::default();
    let refused = weights::load_module((member.init)(&device), &path(name), &strict).unwrap_err();
    for besides in ["betas", "first_stage_model.decoder.conv_in.weight"] {
        assert!(refused.to_string().contains(besides), "{refused}");
    }
}
