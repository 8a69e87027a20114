//! The rows of Battle of the Backbones: which checkpoint each name stands for in each task as BoB released it, and which
//! one it is where all tasks are to have the same.
//!
//! Read from the configurations and loaders of BoB's five repositories (`bob-classification`, `bob-ood-classification`,
//! `bob-retrieval`, `bob-detection`, `bob-ood-detection`) and from timm 0.6.12, the version that they pin and whose
//! default weights its names stand for. The numbers are those of the list in which the paper's backbones were found
//! there; 36 is random weights, which are no checkpoint.
//!
//! The preprocessing of a task is as its code has it at the last commit:
//!
//! * classification, and the shifted test sets: timm's `resolve_data_config`. Models that are not timm's have no
//!   configuration there and get its defaults, ImageNet's statistics at a crop of 0.875, whatever they were trained with.
//!   Shifted test sets are seen at timm's size for tests, which for ConvNeXt is 288 pixels, whole.
//! * linear probe (`linear_probe.py`): the shorter side becomes 1.143 times the input size, ImageNet's statistics.
//! * retrieval (`retrieval/main_ret.py`): 224 pixels of 256 and ImageNet's statistics for all but 384 pixels of 400, MiDaS
//!   (a deviation and mean of 0.5, 256 pixels of 256) and CLIP's ResNet-50x64 (448 of 460, CLIP's statistics). Images of
//!   Oxford and Paris are shrunk into 224 x 224 pixels before.
//! * detection: another pipeline, whose statistics are ImageNet's for all; only where the checkpoint's are others is that
//!   said.

use bob_core::{CropMode, Interpolation, Preprocess, Style};
use serde::Serialize;

use crate::registry::checkpoints;

/// A task, as far as it chose checkpoints for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BattleTask {
    /// Fine-tuning on all or a part of the images.
    Classification,
    /// A linear classifier of frozen features.
    LinearProbe,
    /// A gallery ranked by similarity.
    Retrieval,
    /// Detection and segmentation on COCO.
    Detection,
    /// Sim10k to Cityscapes.
    OodDetection,
    /// The fine-tuned classifier on shifted test sets.
    OodClassification,
}

use BattleTask::{Classification, Detection, LinearProbe, OodClassification, OodDetection, Retrieval};

impl BattleTask {
    /// Every task.
    pub const ALL: [Self; 6] = [
        Classification,
        LinearProbe,
        Retrieval,
        Detection,
        OodDetection,
        OodClassification,
    ];

    /// What a table calls it.
    pub const fn title(self) -> &'static str {
        match self {
            Classification => "classification",
            LinearProbe => "linear probe",
            Retrieval => "retrieval",
            Detection => "detection",
            OodDetection => "OOD detection",
            OodClassification => "OOD classification",
        }
    }
}

/// A backbone of the battle.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BattleRow {
    /// Its number in the list, absent for what is in the retrieval script alone.
    pub number: Option<usize>,
    /// What it is called.
    pub name: &'static str,
    /// How it was pretrained.
    pub style: Style,
    /// What BoB ran, one for every one of [`BattleTask::ALL`], in their order.
    pub as_released: Vec<Released>,
    /// The one checkpoint for all tasks.
    pub as_corrected: Corrected,
}

/// What BoB ran in a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Released {
    /// The task.
    pub task: BattleTask,
    /// The registered checkpoint, absent where BoB ran none or one that is not registered.
    pub checkpoint: Option<&'static str>,
    /// The preprocessing, where it is not the checkpoint's own.
    pub preprocess: Option<Preprocess>,
    /// What else differs from the checkpoint as it is; without a checkpoint, why there is none.
    pub notes: Vec<&'static str>,
}

/// The checkpoint that a name stands for where all tasks have the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Corrected {
    /// The registered checkpoint.
    pub checkpoint: &'static str,
    /// Why this one.
    pub reason: &'static str,
}

const CLASSIFYING: [BattleTask; 3] = [Classification, LinearProbe, OodClassification];
const DETECTING: [BattleTask; 2] = [Detection, OodDetection];

const TIMM_CNN: &str = "its script does not run timm's convolutional networks";
const NOT_RETRIEVED: &str = "not in the retrieval script";
const NO_CONFIGURATION: &str = "no configuration";
const NOWHERE: &str = "in the paper, in no configuration that was released";
const RETRIEVAL_ONLY: &str = "in the retrieval script alone";
const SWIN_AT_224: &str =
    "the last commit gives it 224 pixels, which timm refuses, and it ran before by a rule that cropped 256";
const LAST_WINDOW: &str = "12 as the pretrained window of every stage, where that of the last is 6";
const LOGITS: &str = "ranked by the 1000 logits of its ImageNet classifier";

/// The rows, in the order of the list, then those of the retrieval script alone.
pub fn battle() -> Vec<BattleRow> {
    use Style::{Depth, Generative, SelfSupervised, Supervised, VisionLanguage};

    let without_clip_s_statistics = Preprocess::imagenet(224);
    let mae = Preprocess::imagenet(224);
    let clip = |mean, std| Preprocess {
        crop_pct: 0.9,
        mean,
        std,
        ..Preprocess::imagenet(224)
    };
    let whole_288 = Preprocess {
        crop_pct: 1.0,
        ..Preprocess::imagenet(288)
    };
    let mut rows = vec![
        row(1, "ResNet-50 sup IN-1k", Supervised, "resnet50.a1_in1k")
            .none(&[LinearProbe], TIMM_CNN)
            .other(&DETECTING, "resnet50.tv_in1k")
            .corrected("that of most tasks, as torchvision's is of another recipe"),
        row(2, "ResNet-101 sup IN-1k", Supervised, "resnet101.a1h_in1k")
            .none(&[LinearProbe], TIMM_CNN)
            .other(&DETECTING, "resnet101.tv_in1k")
            .corrected("that of most tasks, as torchvision's is of another recipe"),
        row(3, "ResNet-50 CLIP", VisionLanguage, "resnet50_clip.openai")
            .prepared(&[Classification, OodClassification], &without_clip_s_statistics)
            .none(&DETECTING, NO_CONFIGURATION),
        row(4, "ResNet-101 CLIP", VisionLanguage, "resnet101_clip.openai")
            .none(&CLASSIFYING, "registered by BoB, in no configuration")
            .none(&DETECTING, NO_CONFIGURATION),
        row(5, "ResNet-50 DINO", SelfSupervised, "resnet50.dino_in1k").none(&[Retrieval], NOT_RETRIEVED),
        row(6, "ResNet-50 VICReg", SelfSupervised, "resnet50.vicreg_in1k").note(
            &[Retrieval],
            "its features pass an untrained layer of 2048 to 1000, drawn without a seed",
        ),
        row(7, "ResNet-50 MoCo v3", SelfSupervised, "resnet50.mocov3_in1k")
            .none(
                &CLASSIFYING,
                "no configuration, and the loader takes the whole file for its state dict",
            )
            .none(&[Retrieval], NOT_RETRIEVED)
            .none(&DETECTING, NO_CONFIGURATION)
            .corrected("the checkpoint that BoB's loader names"),
        row(8, "ConvNeXt-T sup IN-1k", Supervised, "convnext_tiny.fb_in1k")
            .none(&[LinearProbe], TIMM_CNN)
            .none(&[Retrieval], "the script has ConvNeXt-S in its place")
            .prepared(&[OodClassification], &whole_288)
            .other(&DETECTING, "convnext_tiny.fb_in1k_no_ema")
            .corrected("the averaged weights, which timm has, where detection took the last ones"),
        row(9, "ConvNeXt-B sup IN-1k", Supervised, "convnext_base.fb_in1k")
            .none(&[LinearProbe], TIMM_CNN)
            .prepared(&[OodClassification], &whole_288)
            .other(&DETECTING, "convnext_base.fb_in1k_no_ema")
            .corrected("the averaged weights, which timm has, where detection took the last ones"),
        row(10, "ConvNeXt-B sup IN-21k", Supervised, "convnext_base.fb_in22k")
            .none(&[LinearProbe], TIMM_CNN)
            .other(&[Retrieval], "convnext_base.fb_in22k_ft_in1k")
            .prepared(&[OodClassification], &whole_288)
            .corrected(
                "IN-21k alone, as the paper writes, where retrieval took the one that was trained on IN-1k after",
            ),
        row(
            11,
            "ConvNeXt-XL VICRegL",
            SelfSupervised,
            "convnext_xlarge_vicregl.alpha0p75_in22k",
        )
        .none(&[Retrieval], NOT_RETRIEVED)
        .none(&DETECTING, NO_CONFIGURATION),
        row(12, "SwinV2-T sup IN-1k", Supervised, "swinv2_tiny_window8_256.ms_in1k").note(&[Retrieval], SWIN_AT_224),
        row(13, "SwinV2-B sup IN-1k", Supervised, "swinv2_base_window8_256.ms_in1k").none(&[Retrieval], NOT_RETRIEVED),
        row(
            14,
            "SwinV2-B 256 IN-21k to 1k",
            Supervised,
            "swinv2_base_window12to16_192to256.ms_in22k_ft_in1k",
        )
        .note(&[Retrieval], SWIN_AT_224)
        .note(&DETECTING, LAST_WINDOW),
        row(
            15,
            "SwinV2-B 384 IN-21k to 1k",
            Supervised,
            "swinv2_base_window12to24_192to384.ms_in22k_ft_in1k",
        )
        .note(&DETECTING, LAST_WINDOW),
        row(
            16,
            "ViT-S/16 sup IN-1k",
            Supervised,
            "vit_small_patch16_224.augreg_in1k",
        )
        .other(&CLASSIFYING, "vit_small_patch16_224.augreg_in21k_ft_in1k")
        .other(&DETECTING, "deit_small_patch16_224.fb_in1k")
        .corrected(
            "IN-1k alone, as its name says, where timm 0.6.12 gives weights that saw IN-21k for the name that the \
                 configurations have",
        ),
        row(17, "ViT-B/16 sup IN-1k", Supervised, "vit_base_patch16_224.augreg_in1k")
            .other(&CLASSIFYING, "vit_base_patch16_224.augreg_in21k_ft_in1k")
            .other(&DETECTING, "deit_base_patch16_384.fb_in1k")
            .corrected(
                "IN-1k alone, as its name says, where timm 0.6.12 gives weights that saw IN-21k for the name that the \
                 configurations have",
            ),
        row(
            18,
            "ViT-S/16 sup IN-21k to 1k",
            Supervised,
            "vit_small_patch16_224.augreg_in21k_ft_in1k",
        )
        .none(&DETECTING, NO_CONFIGURATION),
        row(
            19,
            "ViT-B/16 sup IN-21k to 1k",
            Supervised,
            "vit_base_patch16_224.augreg_in21k_ft_in1k",
        )
        .none(&DETECTING, NO_CONFIGURATION),
        row(20, "ViT-S/16 DINO", SelfSupervised, "vit_small_patch16_224.dino"),
        row(21, "ViT-B/16 DINO", SelfSupervised, "vit_base_patch16_224.dino"),
        row(
            22,
            "ViT-S/16 MoCo v3",
            SelfSupervised,
            "vit_small_patch16_224_mocov3.in1k_300ep",
        )
        .note(&DETECTING, "built with 6 heads for weights of 12"),
        row(
            23,
            "ViT-B/16 MoCo v3",
            SelfSupervised,
            "vit_base_patch16_224_mocov3.in1k_300ep",
        ),
        row(24, "ViT-B/16 MAE", SelfSupervised, "vit_base_patch16_224.mae")
            .prepared(&[Classification, OodClassification], &mae)
            .note(
                &[LinearProbe],
                "the mean of the patches through an untrained norm, not the class token through the trained one",
            ),
        row(25, "ViT-L/16 MAE", SelfSupervised, "vit_large_patch16_224.mae")
            .prepared(&[Classification, OodClassification], &mae)
            .note(
                &[LinearProbe],
                "the mean of the patches through an untrained norm, not the class token through the trained one",
            )
            .none(&DETECTING, NO_CONFIGURATION),
        row(26, "ViT-B/16 CLIP", VisionLanguage, "vit_base_patch16_clip_224.laion2b")
            .prepared(
                &[Classification, OodClassification],
                &clip(Preprocess::CLIP_MEAN, Preprocess::CLIP_STD),
            )
            .note(&DETECTING, "the epsilon of its norms is 1e-6, not 1e-5"),
        row(
            27,
            "ViT-L/14 CLIP",
            VisionLanguage,
            "vit_large_patch14_clip_224.laion2b",
        )
        .prepared(
            &[Classification, OodClassification],
            &clip(Preprocess::HALF, Preprocess::HALF),
        )
        .none(&DETECTING, NO_CONFIGURATION),
        row(28, "SwinV2-T MiDaS", Depth, "swinv2_tiny_window16_256.midas")
            .note(&[Retrieval], LOGITS)
            .note(&DETECTING, "windows of 8 for weights of 16"),
        row(29, "SwinV2-B MiDaS", Depth, "swinv2_base_window12to24_192to384.midas")
            .note(&[Retrieval], LOGITS)
            .note(&DETECTING, LAST_WINDOW),
        row(30, "Stable Diffusion v1", Generative, "stable_diffusion_v1.sd_v1_4")
            .other(&[OodClassification], "stable_diffusion_v1.sd_v1_1")
            .note(
                &[OodClassification],
                "its configuration names a model that is not there, so that it does not run as published",
            )
            .note(&[Detection], "told \"object detection\", not \"image classification\"")
            .none(&[OodDetection], NO_CONFIGURATION)
            .none(&[Retrieval], NOT_RETRIEVED)
            .corrected("that of all tasks but the shifted test sets"),
        row(31, "ViT-B/16 SAM", Supervised, "samvit_base_patch16.sa1b")
            .none(
                &[Classification, LinearProbe, OodClassification, OodDetection],
                NO_CONFIGURATION,
            )
            .none(&[Retrieval], NOT_RETRIEVED)
            .corrected("detection's, though the paper does not name it"),
        row(
            32,
            "ResNet-50 SSCD ImageNet",
            SelfSupervised,
            "resnet50_sscd.imagenet_mixup",
        )
        .only_retrieved(),
        row(32, "SSCD DISC", SelfSupervised, "resnet50_sscd.disc_mixup")
            .only_retrieved()
            .none(
                &[Retrieval],
                "`sscd_disc_large`, which is not registered, as its descriptor of 1024 values is of another network",
            )
            .corrected("SSCD's ResNet-50 for the same images, beside the other row"),
        row(33, "RegNetX-400MF", Supervised, "regnetx_004.pycls_in1k").nowhere(),
        row(34, "EfficientNet-B0", Supervised, "efficientnet_b0.ra_in1k").nowhere(),
        row(35, "ResNet-18", Supervised, "resnet18.tv_in1k").nowhere(),
        unnumbered("ConvNeXt-S sup IN-1k", Supervised, "convnext_small.fb_in1k"),
        unnumbered("ConvNeXt-S IN-21k to 1k", Supervised, "convnext_small.fb_in22k_ft_in1k"),
        unnumbered(
            "ConvNeXt-XL IN-21k to 1k",
            Supervised,
            "convnext_xlarge.fb_in22k_ft_in1k",
        ),
        unnumbered(
            "SwinV2-L 256 IN-21k to 1k",
            Supervised,
            "swinv2_large_window12to16_192to256.ms_in22k_ft_in1k",
        )
        .note(&[Retrieval], SWIN_AT_224),
        unnumbered(
            "SwinV2-L 384 IN-21k to 1k",
            Supervised,
            "swinv2_large_window12to24_192to384.ms_in22k_ft_in1k",
        ),
        unnumbered(
            "ViT-L/16 IN-21k to 1k",
            Supervised,
            "vit_large_patch16_224.augreg_in21k_ft_in1k",
        ),
        unnumbered("ResNet-50x64 CLIP", VisionLanguage, "resnet50x64_clip.openai"),
    ];
    prepare(&mut rows);
    rows
}

/// A row whose tasks all have one checkpoint.
fn row(number: usize, name: &'static str, style: Style, checkpoint: &'static str) -> BattleRow {
    let released = |task| Released {
        task,
        checkpoint: Some(checkpoint),
        preprocess: None,
        notes: Vec::new(),
    };
    BattleRow {
        number: Some(number),
        name,
        style,
        as_released: BattleTask::ALL.map(released).to_vec(),
        as_corrected: Corrected {
            checkpoint,
            reason: "the one that was released",
        },
    }
}

fn unnumbered(name: &'static str, style: Style, checkpoint: &'static str) -> BattleRow {
    let row = row(0, name, style, checkpoint).only_retrieved();
    BattleRow { number: None, ..row }
}

impl BattleRow {
    fn each(mut self, tasks: &[BattleTask], change: impl Fn(&mut Released)) -> Self {
        self.as_released
            .iter_mut()
            .filter(|released| tasks.contains(&released.task))
            .for_each(change);
        self
    }

    fn none(self, tasks: &[BattleTask], reason: &'static str) -> Self {
        self.each(tasks, |released| {
            released.checkpoint = None;
            released.notes = vec![reason];
        })
    }

    fn other(self, tasks: &[BattleTask], checkpoint: &'static str) -> Self {
        self.each(tasks, |released| released.checkpoint = Some(checkpoint))
    }

    fn note(self, tasks: &[BattleTask], note: &'static str) -> Self {
        self.each(tasks, |released| released.notes.push(note))
    }

    fn prepared(self, tasks: &[BattleTask], preprocess: &Preprocess) -> Self {
        self.each(tasks, |released| released.preprocess = Some(preprocess.clone()))
    }

    fn corrected(mut self, reason: &'static str) -> Self {
        self.as_corrected.reason = reason;
        self
    }

    fn only_retrieved(self) -> Self {
        self.none(&CLASSIFYING, RETRIEVAL_ONLY).none(&DETECTING, RETRIEVAL_ONLY)
    }

    fn nowhere(self) -> Self {
        self.none(&BattleTask::ALL, NOWHERE)
            .corrected("what timm 0.6.12 has for its name")
    }
}

/// The preprocessing that a rule of the task gives, where it is not the checkpoint's own.
fn prepare(rows: &mut [BattleRow]) {
    let checkpoints = checkpoints();
    for row in rows {
        for released in &mut row.as_released {
            let own = checkpoints
                .iter()
                .map(|entry| &entry.checkpoint)
                .find(|checkpoint| Some(checkpoint.name.as_str()) == released.checkpoint);
            let Some(own) = own else { continue };
            match released.task {
                Classification | OodClassification => {}
                LinearProbe => released.preprocess = Some(linear_probe(&own.preprocess)),
                Retrieval => released.preprocess = retrieval(&own.architecture, row.style, &own.preprocess),
                Detection | OodDetection => {
                    if own.preprocess.mean != Preprocess::IMAGENET_MEAN {
                        released.notes.push("ImageNet's statistics");
                    }
                }
            }
            released.preprocess = released.preprocess.take().filter(|one| *one != own.preprocess);
        }
    }
}

fn linear_probe(own: &Preprocess) -> Preprocess {
    let side = own.input_size[0];
    let resized = (1.143 * side as f64).floor();
    Preprocess {
        crop_pct: side as f64 / resized,
        ..Preprocess::imagenet(side)
    }
}

/// None where it would be a size that the network does not take.
fn retrieval(architecture: &str, style: Style, own: &Preprocess) -> Option<Preprocess> {
    let side = own.input_size[0];
    let (size, resized, [mean, std]) = match (architecture, side, style) {
        ("resnet50x64_clip", ..) => (448, 460, [Preprocess::CLIP_MEAN, Preprocess::CLIP_STD]),
        (_, 384, Style::Depth) => (384, 400, [Preprocess::HALF; 2]),
        (_, 384, _) => (384, 400, [Preprocess::IMAGENET_MEAN, Preprocess::IMAGENET_STD]),
        (_, 256, Style::Depth) => (256, 256, [Preprocess::HALF; 2]),
        (_, 256, _) => return None,
        _ => (224, 256, [Preprocess::IMAGENET_MEAN, Preprocess::IMAGENET_STD]),
    };
    Some(Preprocess {
        input_size: [size, size],
        interpolation: Interpolation::Bicubic,
        crop_pct: size as f64 / f64::from(resized),
        crop_mode: CropMode::Center,
        mean,
        std,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_there_and_names_what_is_registered() {
        let (rows, checkpoints) = (battle(), checkpoints());
        let mut numbers: Vec<usize> = rows.iter().filter_map(|row| row.number).collect();
        numbers.dedup();
        assert_eq!(numbers, (1..=35).collect::<Vec<_>>());
        for row in &rows {
            let find = |name: &str| {
                let entry = checkpoints.iter().find(|entry| entry.checkpoint.name == name);
                &entry
                    .unwrap_or_else(|| panic!("{}: no checkpoint {name}", row.name))
                    .checkpoint
            };
            let corrected = find(row.as_corrected.checkpoint);
            assert_eq!(corrected.pretraining.style, row.style, "{}", row.name);
            let tasks: Vec<BattleTask> = row.as_released.iter().map(|released| released.task).collect();
            assert_eq!(tasks, BattleTask::ALL, "{}", row.name);
            let mut is_one = true;
            for released in &row.as_released {
                match released.checkpoint {
                    Some(name) => {
                        let own = &find(name).preprocess;
                        assert_ne!(released.preprocess.as_ref(), Some(own), "{}", row.name);
                        is_one &= name == row.as_corrected.checkpoint;
                    }
                    None => assert_eq!(released.notes.len(), 1, "{}: one reason", row.name),
                }
            }
            let is_plain = row.as_corrected.reason == "the one that was released";
            assert!(is_one || !is_plain, "{}: why is it that one?", row.name);
        }
        let mut names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len(), "a name stands for one row");
    }

    #[test]
    fn a_task_s_rule_is_its_code_s() {
        let rows = battle();
        let released = |number: usize, task: BattleTask| {
            let row = rows.iter().find(|row| row.number == Some(number)).expect("there");
            row.as_released
                .iter()
                .find(|one| one.task == task)
                .expect("there")
                .clone()
        };
        let check = |number, task, expected: Option<(usize, f64, [f64; 3])>| {
            let found = released(number, task).preprocess.map(|one| {
                (
                    one.input_size[0],
                    (one.input_size[0] as f64 / one.crop_pct).floor(),
                    one.mean,
                )
            });
            assert_eq!(found, expected, "{number} {task:?}");
        };
        let imagenet = Preprocess::IMAGENET_MEAN;
        check(3, Classification, Some((224, 256.0, imagenet)));
        check(26, Classification, Some((224, 248.0, Preprocess::CLIP_MEAN)));
        check(1, Classification, None);
        check(8, OodClassification, Some((288, 288.0, imagenet)));
        check(18, LinearProbe, Some((224, 256.0, imagenet)));
        check(12, LinearProbe, Some((256, 292.0, imagenet)));
        check(5, LinearProbe, None);
        check(19, Retrieval, Some((224, 256.0, imagenet)));
        check(12, Retrieval, None);
        check(15, Retrieval, Some((384, 400.0, imagenet)));
        check(29, Retrieval, Some((384, 400.0, Preprocess::HALF)));
        check(28, Retrieval, Some((256, 256.0, Preprocess::HALF)));
        assert_eq!(released(26, Detection).notes.len(), 2);
    }
}
