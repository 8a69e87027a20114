//! The report as text: terminal, Markdown, CSV and JSON on a few made-up records.

mod synthetic;

use bob_report::{
    Battle, BattleOptions, Fixtures, Import, csv, html, json, markdown, ranking_csv, terminal, terminal_ranks,
};
use bob_stats::{Direction, Metric, Overall, RankReport, RankingOptions, Record, ScoreTable};
use expect_test::{Expect, expect};
use synthetic::{BACKBONES, Made, metric, record, timing};

const STRONG: Made = ("convnext_tiny.fb_in1k", 0.9, 28_589_128, 4_470_000_000, 61.0);
const QUICK: Made = ("mobilenetv2_100.ra_in1k", 0.5, 3_504_872, 307_000_000, 9.1);
const RANDOM: Made = ("resnet18.random", 0.1, 11_689_512, 1_814_000_000, 21.0);

fn top1(value: f64) -> Vec<Metric> {
    vec![metric("top1", Direction::HigherIsBetter, value, 0.02, 500)]
}

/// Three backbones; two seeds of one cell, one cell missing, one limited.
fn few() -> Vec<Record> {
    let knn = |made, seed, value| record(made, "classification", "knn", "cifar10-1000-500", seed, top1(value));
    let map = |made, value| {
        let metrics = vec![metric("map", Direction::HigherIsBetter, value, 0.04, 400)];
        record(made, "retrieval", "instance", "emoji-2-vendors", 0, metrics)
    };
    let shift = |made, value| {
        let metrics = vec![metric("error", Direction::LowerIsBetter, value, 0.01, 12_500)];
        record(made, "ood", "shift", "cifar10-c-5", 0, metrics)
    };
    let limited = Record {
        limited: true,
        ..record(RANDOM, "retrieval", "instance", "emoji-2-vendors", 0, top1(1.0))
    };
    vec![
        knn(STRONG, 0, 0.84),
        knn(STRONG, 1, 0.86),
        knn(QUICK, 0, 0.71),
        knn(RANDOM, 0, 0.28),
        map(STRONG, 0.61),
        map(QUICK, 0.43),
        limited,
        shift(STRONG, 0.31),
        shift(QUICK, 0.44),
        shift(RANDOM, 0.83),
        timing(STRONG),
        timing(QUICK),
        timing(RANDOM),
    ]
}

fn battle(records: &[Record]) -> Battle {
    Battle::from_records(records, &BattleOptions::default()).expect("the scores are finite")
}

#[test]
fn a_terminal_shows_the_ranking_the_leaders_and_the_warnings() {
    let check = |width, expected: Expect| {
        let text = terminal(&battle(&few()), width, false);
        expected.assert_eq(&text);
    };
    check(
        200,
        expect![[r#"
        Battle of the Backbones
        3 backbones in 3 settings of 3 tasks from 12 records, run 2026-11-22 in 4 min 18 s

        rank  interval  backbone                 mean z  classification    ood  retrieval  settings  pretraining        parameters     MACs  latency p50, ms      images/s  peak memory
           1       1–1  convnext_tiny.fb_in1k     +0.99           +0.98  +0.98      +1.00    3 of 3  supervised, IN-1k     28.59 M  4.470 G     61.00 ± 2.44  20.49 ± 0.33    473.7 MiB
           2       2–2  mobilenetv2_100.ra_in1k   -0.07           +0.40  +0.39      -1.00    3 of 3  supervised, IN-1k     3.505 M  307.0 M    9.100 ± 0.364   137.4 ± 2.2    32.53 MiB
           3       3–3  resnet18.random           -1.37           -1.37  -1.37               2 of 3  random                11.69 M  1.814 G     21.00 ± 0.84  59.52 ± 0.95    192.2 MiB
        not shown for want of room: strongest in

        setting                     metric   best backbone                    value      n
        knn@1/cifar10-1000-500      top1 ↑   convnext_tiny.fb_in1k  0.8500 ± 0.0200    500
        shift@1/cifar10-c-5         error ↓  convnext_tiny.fb_in1k  0.3100 ± 0.0100  12500
        instance@1/emoji-2-vendors  map ↑    convnext_tiny.fb_in1k  0.6100 ± 0.0400    400

        between         and                 Spearman ρ  backbones
        classification  ood                      +1.00          3
        overall mean z  parameters               +0.50          3
        overall mean z  MACs                     +0.50          3
        overall mean z  latency p50              +0.50          3
        overall mean z  images/s                 -0.50          3
        overall mean z  pretraining images       +0.87          3

        warning: 1 limited record left out: runs that were cut short do not enter a ranking
        warning: rank intervals rest on 3 settings; below 5 they are too narrow
        warning: backbone `resnet18.random` has 2 of 3 settings; its mean z is over those
    "#]],
    );
    check(
        72,
        expect![[r#"
        Battle of the Backbones
        3 backbones in 3 settings of 3 tasks from 12 records, run 2026-11-22 in 4 min 18 s

        rank  interval  backbone                 mean z  classification    ood
           1       1–1  convnext_tiny.fb_in1k     +0.99           +0.98  +0.98
           2       2–2  mobilenetv2_100.ra_in1k   -0.07           +0.40  +0.39
           3       3–3  resnet18.random           -1.37           -1.37  -1.37
        not shown for want of room: retrieval, parameters, latency p50, ms, settings, images/s, pretraining, MACs, peak memory, strongest in

        setting                     best backbone                    value
        knn@1/cifar10-1000-500      convnext_tiny.fb_in1k  0.8500 ± 0.0200
        shift@1/cifar10-c-5         convnext_tiny.fb_in1k  0.3100 ± 0.0100
        instance@1/emoji-2-vendors  convnext_tiny.fb_in1k  0.6100 ± 0.0400
        not shown for want of room: metric, n

        between         and                 Spearman ρ  backbones
        classification  ood                      +1.00          3
        overall mean z  parameters               +0.50          3
        overall mean z  MACs                     +0.50          3
        overall mean z  latency p50              +0.50          3
        overall mean z  images/s                 -0.50          3
        overall mean z  pretraining images       +0.87          3

        warning: 1 limited record left out: runs that were cut short do not enter a ranking
        warning: rank intervals rest on 3 settings; below 5 they are too narrow
        warning: backbone `resnet18.random` has 2 of 3 settings; its mean z is over those
    "#]],
    );
}

#[test]
fn colour_changes_nothing_but_colour() {
    let plain = terminal(&battle(&few()), 100, false);
    let coloured = terminal(&battle(&few()), 100, true);
    assert_ne!(plain, coloured);
    assert_eq!(
        plain,
        coloured
            .replace("\x1b[1m", "")
            .replace("\x1b[2m", "")
            .replace("\x1b[0m", "")
    );
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let battle = battle(&synthetic::records(&BACKBONES, 9));
    for width in [50, 80, 120, 240] {
        let text = terminal(&battle, width, false);
        let tables = text.split("warning:").next().unwrap();
        for line in tables.lines().filter(|line| !line.starts_with("not shown")) {
            assert!(
                line.chars().count() <= width || line.contains(" from "),
                "{width}: {line}"
            );
        }
    }
}

#[test]
fn markdown_is_tables() {
    expect![[r#"
        # Battle of the Backbones

        3 backbones in 3 settings of 3 tasks from 12 records, run 2026-11-22 in 4 min 18 s.

        > 1 limited record left out: runs that were cut short do not enter a ranking.

        > Rank intervals rest on 3 settings; below 5 they are too narrow.

        > Backbone `resnet18.random` has 2 of 3 settings; its mean z is over those.

        ## Ranking

        | rank | interval | backbone | mean z | classification | ood | retrieval | settings | pretraining | parameters | MACs | latency p50, ms | images/s | peak memory | strongest in |
        | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | --- |
        | 1 | 1–1 | convnext_tiny.fb_in1k | +0.99 | +0.98 | +0.98 | +1.00 | 3 of 3 | supervised, IN-1k | 28.59 M | 4.470 G | 61.00 ± 2.44 | 20.49 ± 0.33 | 473.7 MiB | instance@1/emoji-2-vendors |
        | 2 | 2–2 | mobilenetv2_100.ra_in1k | -0.07 | +0.40 | +0.39 | -1.00 | 3 of 3 | supervised, IN-1k | 3.505 M | 307.0 M | 9.100 ± 0.364 | 137.4 ± 2.2 | 32.53 MiB | knn@1/cifar10-1000-500 |
        | 3 | 3–3 | resnet18.random | -1.37 | -1.37 | -1.37 |  | 2 of 3 | random | 11.69 M | 1.814 G | 21.00 ± 0.84 | 59.52 ± 0.95 | 192.2 MiB | shift@1/cifar10-c-5 |

        ## Scores

        | backbone | knn@1/cifar10-1000-500, top1 ↑ | shift@1/cifar10-c-5, error ↓ | instance@1/emoji-2-vendors, map ↑ |
        | --- | ---: | ---: | ---: |
        | convnext_tiny.fb_in1k | 0.8500 ± 0.0200 | 0.3100 ± 0.0100 | 0.6100 ± 0.0400 |
        | mobilenetv2_100.ra_in1k | 0.7100 ± 0.0200 | 0.4400 ± 0.0100 | 0.4300 ± 0.0400 |
        | resnet18.random | 0.2800 ± 0.0200 | 0.8300 ± 0.0100 |  |

        ## Correlations

        | between | and | Spearman ρ | backbones |
        | --- | --- | ---: | ---: |
        | classification | ood | +1.00 | 3 |
        | overall mean z | parameters | +0.50 | 3 |
        | overall mean z | MACs | +0.50 | 3 |
        | overall mean z | latency p50 | +0.50 | 3 |
        | overall mean z | images/s | -0.50 | 3 |
        | overall mean z | pretraining images | +0.87 | 3 |

        ## Machines and programs

        | commit | backend | adapter | dtype | threads | host | heap | JPEG decoder | bob | burn | records |
        | --- | --- | --- | --- | ---: | --- | --- | --- | --- | --- | ---: |
        | 3f2a9c1e77d0 | flex | AMD EPYC 7B13 | F32 | 2 | linux x86_64 | system | simd | 0.1.0 | 0.22.1 | 12 |

        ## Weights, data and protocols

        | name | kind | SHA-256 | notes |
        | --- | --- | --- | --- |
        | convnext_tiny.fb_in1k | weights | 70ab5a308099 | batch norm folded |
        | mobilenetv2_100.ra_in1k | weights | da44def04d78 | batch norm folded |
        | resnet18.random | weights | 8956ec60befc | batch norm folded |
        | cifar10-1000-500 | data | a7d174bc9c62 | test 500, train 1000 |
        | cifar10-c-5 | data | dca96234bc86 | test 500, train 1000 |
        | emoji-2-vendors | data | 2b4ffb5affa3 | test 500, train 1000 |
        | synthetic-224 | data | 355a8d892d44 | test 500, train 1000 |
        | efficiency@1 | protocol | 65972026974b |  |
        | instance@1 | protocol | 414a134c24ef |  |
        | knn@1 | protocol | 3da33719363a |  |
        | shift@1 | protocol | 297a5749140a |  |

        ## How to read this

        * A z-score says how many standard deviations a backbone lies above the mean of all backbones in a setting; better is more.
        * Mean z is the mean of the task means, each over the settings that a backbone has; a missing setting is left out.
        * The interval of a rank is a bootstrap over settings: how far the rank moves with the choice of settings.
        * `±` is half the bootstrap interval over the test set's items, at the 95 % level unless the protocol says otherwise.
        * Speed and size are costs; they do not enter the ranking.
    "#]].assert_eq(&markdown(&battle(&few())));
}

#[test]
fn csv_has_a_line_per_cell_and_the_ranking_one_per_backbone() {
    expect![[r#"
        backbone,task,setting,metric,direction,value,low,high,level,n,seeds,seed_deviation,z,fixtures
        convnext_tiny.fb_in1k,classification,knn@1/cifar10-1000-500,top1,higher-is-better,0.85,0.83,0.87,0.95,500,2,0.014142135623730963,0.9758125071509393,false
        mobilenetv2_100.ra_in1k,classification,knn@1/cifar10-1000-500,top1,higher-is-better,0.71,0.69,0.73,0.95,500,1,,0.3985713057377075,false
        resnet18.random,classification,knn@1/cifar10-1000-500,top1,higher-is-better,0.28,0.26,0.30000000000000004,0.95,500,1,,-1.3743838128886474,false
        convnext_tiny.fb_in1k,ood,shift@1/cifar10-c-5,error,lower-is-better,0.31,0.3,0.32,0.95,12500,1,,0.9805806756909201,false
        mobilenetv2_100.ra_in1k,ood,shift@1/cifar10-c-5,error,lower-is-better,0.44,0.43,0.45,0.95,12500,1,,0.392232270276368,false
        resnet18.random,ood,shift@1/cifar10-c-5,error,lower-is-better,0.83,0.82,0.84,0.95,12500,1,,-1.3728129459672884,false
        convnext_tiny.fb_in1k,retrieval,instance@1/emoji-2-vendors,map,higher-is-better,0.61,0.57,0.65,0.95,400,1,,0.9999999999999997,false
        mobilenetv2_100.ra_in1k,retrieval,instance@1/emoji-2-vendors,map,higher-is-better,0.43,0.39,0.47,0.95,400,1,,-1.0000000000000004,false
    "#]].assert_eq(&csv(&battle(&few())));
    expect![[r#"
        rank,rank_low,rank_high,backbone,mean_z,mean_z:classification,mean_z:ood,mean_z:retrieval,settings,style,pretraining_data,pretraining_images,parameters,macs,latency_p50_ms,images_per_second,peak_memory_bytes,pareto,knn@1/cifar10-1000-500,shift@1/cifar10-c-5,instance@1/emoji-2-vendors
        1,1,1,convnext_tiny.fb_in1k,0.9854643942806196,0.9758125071509393,0.9805806756909201,0.9999999999999997,3,supervised,IN-1k,1281167,28589128,4470000000,61,20.491803278688526,496666666.6666667,true,0.85,0.31,0.61
        2,2,2,mobilenetv2_100.ra_in1k,-0.06973214132864165,0.3985713057377075,0.392232270276368,-1.0000000000000004,3,supervised,IN-1k,1281167,3504872,307000000,9.1,137.36263736263737,34111111.11111111,true,0.71,0.44,0.43
        3,3,3,resnet18.random,-1.373598379427968,-1.3743838128886474,-1.3728129459672884,,2,random,none,0,11689512,1814000000,21,59.523809523809526,201555555.55555555,false,0.28,0.83,
    "#]].assert_eq(&ranking_csv(&battle(&few())));
}

#[test]
fn json_is_the_battle() {
    let value: serde_json::Value = serde_json::from_str(&json(&battle(&few()))).unwrap();
    assert_eq!(value["contenders"][0]["backbone"], STRONG.0);
    assert_eq!(value["contenders"][0]["place"]["rank"], 1.0);
    assert_eq!(value["contenders"][0]["pareto"], true);
    assert_eq!(value["settings"][0]["cells"][STRONG.0]["seeds"], 2);
    assert_eq!(value["limited"], 1);
    assert_eq!(value["fixtures"], "none");
}

#[test]
fn seeds_are_averaged_with_their_spread() {
    let battle = battle(&few());
    let cell = &battle.settings[0].cells[STRONG.0];
    assert_eq!((cell.seeds, cell.n), (2, Some(500)));
    assert!((cell.value - 0.85).abs() < 1e-12);
    assert!((cell.seed_deviation.unwrap() - 0.02 / 2_f64.sqrt()).abs() < 1e-12);
    assert!((cell.low.unwrap() - 0.83).abs() < 1e-12 && (cell.high.unwrap() - 0.87).abs() < 1e-12);
}

#[test]
fn costs_and_limited_records_do_not_enter_the_ranking() {
    let with = battle(&few());
    let mut quality = few();
    quality.retain(|record| record.cell.task != "efficiency" && !record.limited);
    let without = battle(&quality);
    assert_eq!(with.settings, without.settings);
    let places = |battle: &Battle| battle.contenders.iter().map(|c| c.place.clone()).collect::<Vec<_>>();
    assert_eq!(places(&with), places(&without));
    // The random baseline is slower than a better backbone.
    let front: Vec<_> = with
        .contenders
        .iter()
        .filter(|c| c.pareto)
        .map(|c| c.backbone.as_str())
        .collect();
    assert_eq!(front, [STRONG.0, QUICK.0]);
}

#[test]
fn what_cannot_be_compared_is_warned_of() {
    fn check(change: fn(&mut Vec<Record>), expected: &str) {
        let mut records = few();
        change(&mut records);
        let warnings = battle(&records).warnings;
        assert!(
            warnings.iter().any(|warning| warning.contains(expected)),
            "{warnings:?}"
        );
    }
    check(|_| {}, "1 limited record left out");
    check(|_| {}, "backbone `resnet18.random` has 2 of 3 settings");
    check(|_| {}, "rank intervals rest on 3 settings");
    check(
        |records| records[2].protocol_sha256 = "other".into(),
        "protocol `knn@1` was resolved in 2 ways",
    );
    check(
        |records| records[2].data.manifest_sha256 = "other".into(),
        "data set `cifar10-1000-500` has 2 manifests",
    );
    check(
        |records| records[2].checkpoint.sha256 = "other".into(),
        "`mobilenetv2_100.ra_in1k` ran with 2 different",
    );
    check(
        |records| records[10].environment.threads = 64,
        "speeds were measured in 2 environments",
    );
    check(
        |records| records[2].metrics[0].primary = false,
        "1 record without a primary metric",
    );
    check(
        |records| records.iter_mut().for_each(|record| record.metrics[0].value = 0.5),
        "setting `shift@1/cifar10-c-5` gives every backbone the same score",
    );
}

#[test]
fn fixtures_come_first_everywhere() {
    let mut records = few();
    for record in &mut records {
        record.data.fixtures = true;
    }
    let all = battle(&records);
    assert_eq!(all.fixtures, Fixtures::All);
    assert!(terminal(&all, 80, false).starts_with("All records are on the repository's fixtures"));
    assert!(markdown(&all).starts_with("**All records are on the repository's fixtures"));
    records[0].data.fixtures = false;
    let some = battle(&records);
    assert_eq!(some.fixtures, Fixtures::Some);
    assert!(terminal(&some, 200, false).contains("knn@1/cifar10-1000-500 (fixtures)"));
}

#[test]
fn nothing_is_reported_as_nothing() {
    let nothing = battle(&[]);
    expect![[r#"
        Battle of the Backbones
        No records to rank; run `cargo xtask bench-all` first
    "#]]
    .assert_eq(&terminal(&nothing, 80, false));
    expect![[r#"
        # Battle of the Backbones

        No records to rank; run `cargo xtask bench-all` first.
    "#]]
    .assert_eq(&markdown(&nothing));
    assert_eq!(csv(&nothing).lines().count(), 1);
    assert_eq!(ranking_csv(&nothing).lines().count(), 1);
    let limited: Vec<Record> = few()
        .into_iter()
        .map(|record| Record {
            limited: true,
            ..record
        })
        .collect();
    assert!(battle(&limited).contenders.is_empty());
}

#[test]
fn names_do_not_leave_their_cells() {
    let hostile = "a|b<i>*`[x]\n\u{1b}[2J,\"";
    let mut records = few();
    for record in &mut records {
        if record.cell.backbone == QUICK.0 {
            record.cell.backbone = hostile.into();
        }
    }
    let battle = battle(&records);
    let text = terminal(&battle, 200, true);
    assert!(!text.contains("\x1b[2J"));
    let page = markdown(&battle);
    assert!(page.contains(r"| a\|b&lt;i&gt;\*\`\[x\]  \[2J,"), "{page}");
    let table = csv(&battle);
    let mut reader = ::csv::Reader::from_reader(table.as_bytes());
    assert!(reader.records().any(|row| row.unwrap()[0] == *hostile));
}

#[test]
fn imported_scores_are_ranked_along() {
    let text = format!("backbone,voc,lower:ms\n{},0.5,3\nelsewhere,0.9,2\n", STRONG.0);
    let table = ScoreTable::from_csv(text.as_bytes()).unwrap();
    let imports = vec![Import {
        name: "detection".into(),
        table,
    }];
    let battle = Battle::from_records(
        &few(),
        &BattleOptions {
            imports,
            ..BattleOptions::default()
        },
    )
    .unwrap();
    assert_eq!(battle.tasks(), ["classification", "detection", "ood", "retrieval"]);
    let elsewhere = battle.contenders.iter().find(|c| c.backbone == "elsewhere").unwrap();
    assert!((elsewhere.place.as_ref().unwrap().mean_z - 1.0).abs() < 1e-12);
    assert_eq!(elsewhere.parameters, None);
    assert!(html(&battle).contains("detection/voc") || html(&battle).contains("detection/<wbr>voc"));
}

#[test]
fn the_overall_score_is_what_was_asked_for() {
    let ranking = RankingOptions {
        overall: Overall::Settings,
        ..RankingOptions::default()
    };
    let battle = Battle::from_records(
        &few(),
        &BattleOptions {
            ranking,
            ..BattleOptions::default()
        },
    )
    .unwrap();
    assert!(markdown(&battle).contains("mean over all settings"));
}

#[test]
fn anybodys_table_is_ranked_for_the_terminal() {
    let table = ScoreTable::from_csv(b"backbone,acc,lower:ms\na,0.5,3\nb,0.7,4\nc,0.9,\nd,0.8,1\n").unwrap();
    let report = RankReport::new(&table, RankingOptions::default()).unwrap();
    expect![[r#"
        rank  interval  backbone  mean z  settings    acc     ms
           1       1–1  c          +1.18         1  +1.18
           2       1–2  d          +0.92         2  +0.51  +1.34
           3       3–3  b          -0.62         2  -0.17  -1.07
           4       2–4  a          -0.89         2  -1.52  -0.27

        between  and  Spearman ρ  p
        acc      ms        +0.50
    "#]]
    .assert_eq(&terminal_ranks(&report, 80, false));
}
