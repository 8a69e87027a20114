//! The HTML page: well formed, self-contained, complete, safe.

mod synthetic;

use bob_report::{Battle, BattleOptions, html};
use bob_stats::{Direction, Record};
use synthetic::{BACKBONES, metric, record, records, timing};

fn page(records: &[Record]) -> String {
    html(&Battle::from_records(records, &BattleOptions::default()).expect("the scores are finite"))
}

/// Every tag closes in order, attributes are quoted, and nothing outside the page is named.
fn check_page(page: &str) {
    assert!(page.starts_with("<!doctype html>"));
    let void = ["meta", "wbr", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        let name = tag
            .trim_start_matches('/')
            .split([' ', '\n'])
            .next()
            .unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "</{closed}> closes another");
        } else if !void.contains(&name) && !tag.ends_with('/') {
            open.push(name);
            if name == "style" {
                rest = &rest[rest.find("</style").expect("the style ends")..];
            }
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    for outside in [
        "http",
        "//",
        "src=",
        "url(",
        "@import",
        "<script",
        "<link",
        "<iframe",
        "javascript:",
    ] {
        assert!(!page.contains(outside), "the page names `{outside}`");
    }
    let mut ids: Vec<&str> = page
        .split(" id=\"")
        .skip(1)
        .filter_map(|text| text.split('"').next())
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id occurs twice");
    for link in page.split("href=\"#").skip(1).filter_map(|text| text.split('"').next()) {
        assert!(ids.contains(&link), "no section `{link}`");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("<desc").count());
    let headings = page.matches("<th").count() - page.matches("<thead").count();
    assert_eq!(
        headings,
        page.matches("<th scope=\"").count(),
        "a heading without scope"
    );
}

#[test]
fn a_battle_is_a_whole_page() {
    let page = page(&records(&BACKBONES, 9));
    check_page(&page);
    for (name, ..) in BACKBONES {
        assert!(page.contains(name), "{name}");
    }
    for word in [
        "AMD EPYC 7B13",
        "3f2a9c1e77d0",
        "batch norm folded",
        "flex",
        "F32",
        "ece ↓",
        "map ↑",
        "Pareto",
    ] {
        assert!(page.contains(word), "{word}");
    }
    assert!(!page.contains("fixtures\">"));
    // For a look at it.
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/battle.html"), page).unwrap();
}

#[test]
fn fixtures_come_first() {
    let mut all = records(&BACKBONES[..3], 2);
    for record in &mut all {
        record.data.fixtures = true;
    }
    let text = page(&all);
    check_page(&text);
    let body = text.split("<body>").nth(1).unwrap();
    assert!(
        body.trim_start()
            .starts_with("<p class=\"fixtures\">All records are on"),
        "{}",
        &body[..80]
    );
    all[0].data.fixtures = false;
    assert!(page(&all).contains("<p class=\"fixtures\">Some records are on"));
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/fixtures.html"), page(&all)).unwrap();
}

#[test]
fn nothing_one_and_gaps() {
    check_page(&page(&[]));
    assert!(page(&[]).contains("No records to rank"));

    // One backbone, one setting: a tie with itself.
    let one = page(&records(&BACKBONES[..1], 1));
    check_page(&one);
    assert!(one.contains("leads") && one.contains("mean z 0.00"));

    // Timed, never scored.
    let costs = page(&[timing(BACKBONES[0])]);
    check_page(&costs);
    assert!(costs.contains("Nothing was ranked") && costs.contains(BACKBONES[0].0));

    // A backbone without timing, and one without some settings.
    let mut gaps = records(&BACKBONES, 9);
    gaps.retain(|record| !(record.cell.backbone == BACKBONES[0].0 && record.cell.task == "efficiency"));
    gaps.retain(|record| !(record.cell.backbone == BACKBONES[6].0 && record.cell.protocol == "knn"));
    let gaps = page(&gaps);
    check_page(&gaps);
    assert!(gaps.contains("<td class=\"missing\">missing</td>"));
    assert!(gaps.contains("<code>resnet50.<wbr>a1_<wbr>in1k</code> has 7 of 9 settings"));
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/gaps.html"), gaps).unwrap();
}

#[test]
fn names_are_shown_and_not_run() {
    let hostile = "</style><script>alert(\"1\")</script>&'\u{1b}[2J";
    let mut hostiles = records(&BACKBONES[..4], 3);
    for record in &mut hostiles {
        if record.cell.backbone == BACKBONES[1].0 {
            record.cell.backbone = hostile.into();
        }
        record.environment.adapter = hostile.into();
        record.cell.dataset = hostile.into();
        for metric in &mut record.metrics {
            if metric.primary && record.cell.task != "efficiency" {
                metric.name = hostile.into();
            }
        }
    }
    let options = BattleOptions {
        title: hostile.into(),
        ..BattleOptions::default()
    };
    let page = html(&Battle::from_records(&hostiles, &options).unwrap());
    check_page(&page);
    assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"));
    assert!(!page.contains('\u{1b}'));
}

#[test]
fn many_points_in_one_place_stay_apart() {
    // Thirty backbones of nearly one speed and strength.
    let made: Vec<_> = (0..30)
        .map(|i| {
            let name: &'static str =
                Box::leak(format!("family_{}_patch16_224.some_tag_in22k_ft_in1k", i).into_boxed_str());
            (
                name,
                0.5 + 0.01 * f64::from(i % 7),
                20_000_000,
                4_000_000_000,
                50.0 + f64::from(i % 5),
            )
        })
        .collect();
    let page = page(&records(&made, 3));
    check_page(&page);
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/dense.html"), page).unwrap();
}

#[test]
fn the_same_records_give_the_same_page() {
    let forward = records(&BACKBONES, 5);
    let backward: Vec<Record> = forward.iter().rev().cloned().collect();
    assert_eq!(page(&forward), page(&backward));
    let extra = record(
        BACKBONES[0],
        "retrieval",
        "new",
        "d",
        0,
        vec![metric("map", Direction::HigherIsBetter, 0.1, 0.0, 1)],
    );
    assert_ne!(page(&forward), page(&[forward.clone(), vec![extra]].concat()));
}
