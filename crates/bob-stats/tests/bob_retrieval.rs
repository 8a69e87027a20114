//! The retrieval numbers of Battle of the Backbones: mean reciprocal rank of backbones on eight data sets, as printed
//! in `retrieval/nb_plotting.ipynb` of github.com/hsouri/bob-retrieval; z-scores, ranking and correlations computed from
//! them independently. The 21 rows are those no larger than ConvNeXt-Base that the paper names.

use bob_stats::{RankReport, RankingOptions, ScoreTable};

const CSV: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../fixtures/stats/retrieval_mrr_21.csv"
));

/// Mean of the z-scores over the eight data sets, with the population's deviation, best first.
const MEAN_Z: [(&str, f64); 21] = [
    ("timm-convnext_base_in22ft1k", 1.3353),
    ("timm-swinv2_base_window12to16_192to256_22kft1k", 1.3076),
    ("clip-vit_base_patch16_224", 1.0477),
    ("timm-vit_base_patch16_224_dino", 0.5309),
    ("timm-vit_small_patch16_224_dino", 0.5303),
    ("timm-vit_base_patch16_224_augreg_in21k_ft_in1k", 0.4965),
    ("timm-vit_small_patch16_224_augreg_in21k_ft_in1k", 0.4198),
    ("timm-swinv2_tiny_window8_256", 0.1853),
    ("clip-resnet101", 0.1037),
    ("timm-resnet101", 0.0758),
    ("timm-convnext_base", 0.0290),
    ("moco-vit_base_patch16_224", -0.0926),
    ("vicreg-resnet50", -0.1280),
    ("clip-resnet50", -0.1399),
    ("timm-resnet50", -0.1490),
    ("moco-vit_small_patch16_224", -0.2276),
    ("timm-vit_small_patch16_224_augreg_in1k", -0.3422),
    ("midas-swin2_base_384", -0.4179),
    ("timm-vit_base_patch16_224_augreg_in1k", -0.4955),
    ("midas-swin2_tiny_256", -0.9327),
    ("mae-vit_base_patch16_224", -3.1365),
];

const DATASETS: [&str; 8] = [
    "cub200",
    "inaturalist",
    "objectnet",
    "instre",
    "gldv2",
    "roxford5k",
    "rparis6k",
    "copydays",
];

/// z-scores of the first and the last, in the order of the data sets.
const FIRST_Z: [f64; 8] = [1.4597, 2.4438, 2.0010, 0.7767, 1.4553, 1.0723, 0.8098, 0.6633];
const LAST_Z: [f64; 8] = [-2.8765, -1.7275, -2.1265, -3.7015, -3.3689, -2.9477, -4.1446, -4.1990];

/// Spearman's correlation between the data sets.
const SPEARMAN: [[f64; 8]; 8] = [
    [1.0000, 0.9662, 0.8883, 0.8688, 0.7883, 0.6247, 0.6222, 0.5623],
    [0.9662, 1.0000, 0.8636, 0.8182, 0.7675, 0.6922, 0.6456, 0.6481],
    [0.8883, 0.8636, 1.0000, 0.8571, 0.6909, 0.4286, 0.6521, 0.3909],
    [0.8688, 0.8182, 0.8571, 1.0000, 0.8857, 0.6117, 0.6892, 0.5299],
    [0.7883, 0.7675, 0.6909, 0.8857, 1.0000, 0.7831, 0.6567, 0.5883],
    [0.6247, 0.6922, 0.4286, 0.6117, 0.7831, 1.0000, 0.6560, 0.8714],
    [0.6222, 0.6456, 0.6521, 0.6892, 0.6567, 0.6560, 1.0000, 0.5239],
    [0.5623, 0.6481, 0.3909, 0.5299, 0.5883, 0.8714, 0.5239, 1.0000],
];

fn report(options: RankingOptions) -> RankReport {
    let table = ScoreTable::from_csv(CSV.as_bytes()).expect("the fixture is a table");
    RankReport::new(&table, options).expect("the options are good")
}

/// Equal to the four decimals that are printed.
fn check(name: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() < 0.5001e-4, "{name}: {found} != {expected}");
}

#[test]
fn mean_z_and_ranks() {
    let report = report(RankingOptions::default());
    assert_eq!(report.backbones.len(), 21);
    for (place, (ranked, (backbone, mean_z))) in report.backbones.iter().zip(MEAN_Z).enumerate() {
        assert_eq!(ranked.backbone, backbone);
        check(backbone, ranked.mean_z, mean_z);
        assert_eq!(ranked.rank, place as f64 + 1.0);
        assert_eq!(ranked.coverage, 8);
    }
    for (ranked, expected) in [(&report.backbones[0], FIRST_Z), (&report.backbones[20], LAST_Z)] {
        for (((setting, z), dataset), expected) in ranked.z.iter().zip(DATASETS).zip(expected) {
            assert_eq!(setting, dataset);
            check(setting, z.unwrap(), expected);
        }
    }
    // Last on every data set, so last on every resample of them.
    let last = &report.backbones[20];
    assert_eq!((last.rank_low, last.rank_high), (Some(21.0), Some(21.0)));
    // 0.028 ahead of the second: other data sets could have turned them round.
    let first = &report.backbones[0];
    assert!(first.rank_low == Some(1.0) && first.rank_high >= Some(2.0), "{first:?}");
}

#[test]
fn the_sample_deviation_only_scales() {
    let report = report(RankingOptions {
        ddof: 1,
        ..RankingOptions::default()
    });
    for (ranked, (backbone, mean_z)) in report.backbones.iter().zip(MEAN_Z) {
        assert_eq!(ranked.backbone, backbone);
        assert!((ranked.mean_z - 0.975900 * mean_z).abs() < 1e-4);
    }
}

#[test]
fn correlations_between_data_sets() {
    let report = report(RankingOptions::default());
    assert_eq!(report.correlations.len(), 28);
    for pair in &report.correlations {
        let place = |name: &str| DATASETS.iter().position(|dataset| *dataset == name).unwrap();
        let (a, b) = (place(&pair.a), place(&pair.b));
        check(
            &format!("{} and {}", pair.a, pair.b),
            pair.spearman.unwrap(),
            SPEARMAN[a][b],
        );
        check(
            &format!("{} and {}", pair.b, pair.a),
            pair.spearman.unwrap(),
            SPEARMAN[b][a],
        );
        assert_eq!(pair.n, 21);
    }
}

#[test]
fn the_json_has_the_promised_keys() {
    let json = serde_json::to_value(report(RankingOptions::default())).unwrap();
    let first = &json["backbones"][0];
    assert_eq!(first["backbone"], "timm-convnext_base_in22ft1k");
    for key in ["mean_z", "rank", "rank_low", "rank_high"] {
        assert!(first[key].is_f64(), "{key}: {}", first[key]);
    }
    assert!(first["z"]["cub200"].is_f64());
    let pair = &json["correlations"][0];
    assert_eq!((&pair["a"], &pair["b"]), (&"cub200".into(), &"inaturalist".into()));
    assert!(pair["spearman"].is_f64() && pair["p_value"].is_f64());
}
