//! `rank`: what it prints, and how it refuses a table.

mod site;

use serde_json::Value;
use site::Site;

#[test]
fn a_table_is_ranked_as_json() {
    let site = Site::new();
    site.write("scores.csv", "backbone,top1,lower: ms\na,0.5,10\nb,0.7,20\nc,0.9,\n");
    let said = site.bob(&["rank", "scores.csv", "--json"]).ends_with(0);
    let ranking: Value = serde_json::from_str(&said.out).expect("JSON");
    let order: Vec<&str> = ranking["backbones"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|backbone| backbone["backbone"].as_str().expect("a name"))
        .collect();
    // c has z 1.22 of one setting; a and b have means of -0.11 and -0.5 of two.
    assert_eq!(order, ["c", "a", "b"]);
    let first = &ranking["backbones"][0];
    assert!((first["mean_z"].as_f64().expect("a number") - 1.5_f64.sqrt()).abs() < 1e-12);
    assert!((first["z"]["top1"].as_f64().expect("a number") - 1.5_f64.sqrt()).abs() < 1e-12);
    assert_eq!(first["rank"], 1.0);
    assert!(ranking["correlations"].is_array());

    let said = site.bob(&["rank", "scores.csv", "--json", "--ddof", "1"]).ends_with(0);
    let sample: Value = serde_json::from_str(&said.out).expect("JSON");
    assert!((sample["backbones"][0]["mean_z"].as_f64().expect("a number") - 1.0).abs() < 1e-12);

    let said = site.bob(&["rank", "scores.csv"]).ends_with(0);
    assert!(said.out.contains("mean z"), "{}", said.out);
}

#[test]
fn a_table_that_is_none_is_named() {
    let site = Site::new();
    let check = |text: &str, expected: &str| {
        site.write("scores.csv", text);
        let said = site.bob(&["rank", "scores.csv"]).ends_with(2);
        assert!(
            said.err.contains("`scores.csv`") && said.err.contains(expected),
            "{}",
            said.err
        );
        assert!(said.out.is_empty());
    };
    check("name,a\nx,1\n", "backbone");
    check("backbone,a\nx,high\n", "high");
    let said = site.bob(&["rank", "nowhere.csv"]).ends_with(2);
    assert!(said.err.contains("`nowhere.csv`"), "{}", said.err);
}
