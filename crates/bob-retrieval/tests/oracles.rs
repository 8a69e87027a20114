//! Scores against scikit-learn's average precision and numpy's versions of BoB's formulas, as stored by
//! `fixtures/make_tasks.py`.

use bob_retrieval::bob_core::Embeddings;
use bob_retrieval::bob_stats::Bootstrap;
use bob_retrieval::{Relevance, judge, protocols, run};
use serde_json::Value;

fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tasks/retrieval.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("fixture")).expect("JSON")
}

fn embeddings(values: &Value, labels: &Value) -> Embeddings {
    let labels: Vec<u32> = serde_json::from_value(labels.clone()).expect("labels");
    let values: Vec<f32> = serde_json::from_value(values.clone()).expect("values");
    let dim = values.len() / labels.len();
    let names = (0..labels.len()).map(|i| i.to_string()).collect();
    Embeddings::new(values, dim, labels, names).expect("fits")
}

#[test]
fn every_protocol_equals_its_oracle() {
    let fixture = fixture();
    let queries = embeddings(&fixture["queries"], &fixture["query_labels"]);
    let gallery = embeddings(&fixture["gallery"], &fixture["gallery_labels"]);
    let check = |protocol: &str, expected: &Value, average_precision: &str| {
        let protocol = protocols()
            .into_iter()
            .find(|one| one.name() == protocol)
            .expect("in the table");
        let queries = if protocol.leave_one_out() { &gallery } else { &queries };
        let metrics = run(&protocol, queries, &gallery, &Bootstrap::default()).expect("runs");
        for metric in &metrics {
            let key = match metric.name.as_str() {
                "map" => average_precision,
                "mrr" => "reciprocal_rank",
                name => name,
            };
            let expected = expected[key].as_f64().expect("stored");
            assert!(
                (metric.value - expected).abs() < 1e-12,
                "{}: {} is not {expected}",
                metric.name,
                metric.value
            );
        }
        assert_eq!(metrics.len(), 11);
    };
    check("instance-retrieval", &fixture["instance"], "average_precision");
    check("instance-retrieval-as-released", &fixture["instance"], "trapezoid");
    check("class-retrieval", &fixture["leave_one_out"], "average_precision");
}

#[test]
fn junk_is_handled_as_in_bobs_code() {
    for case in fixture()["junk"].as_array().expect("cases") {
        let ranking = case["ranking"].as_str().expect("a ranking");
        let judged = judge(ranking.chars().map(|kind| match kind {
            'p' => Relevance::Positive,
            'j' => Relevance::Junk,
            _ => Relevance::Negative,
        }));
        let check = |name: &str, found: Option<f64>| {
            let expected = case["scores"][name].as_f64().expect("stored");
            assert!(
                (found.expect("a positive") - expected).abs() < 1e-12,
                "{ranking}: {name} is not {expected}"
            );
        };
        check("reciprocal_rank", Some(judged.reciprocal_rank()));
        check("average_precision", judged.average_precision());
        check("trapezoid", judged.trapezoid_average_precision());
        for k in [1, 5, 10] {
            check(&format!("recall_at_{k}"), judged.recall_at(k));
            check(&format!("hit_at_{k}"), judged.hit_at(k));
            check(&format!("precision_at_{k}"), judged.precision_at(k));
        }
    }
}
