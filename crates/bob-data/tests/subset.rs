//! Subsets: balanced, by names, and the same for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bob_data::{Dataset, ImageSet, datasets};
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn labels(set: &dyn ImageSet) -> Vec<u32> {
    (0..set.len()).map(|index| set.label(index)).collect()
}

fn names(set: &dyn ImageSet) -> Vec<String> {
    (0..set.len()).map(|index| set.name(index)).collect()
}

fn sizes(sizes: &[(&str, usize)]) -> BTreeMap<String, usize> {
    sizes.iter().map(|(split, size)| (split.to_string(), *size)).collect()
}

#[test]
fn subsets_are_balanced_nested_and_pinned() {
    let whole = datasets::open("fixtures", Path::new("")).expect("committed");
    let subset = |train, test, seed| {
        whole
            .subset(&sizes(&[("train", train), ("test", test)]), seed)
            .expect("fits")
    };
    let small = subset(25, 10, 0);
    assert_eq!(small.name, "fixtures-25-10");
    assert_eq!(subset(25, 10, 3).name, "fixtures-25-10-s3");
    assert_eq!(
        whole.subset(&sizes(&[("test", 10)]), 0).expect("fits").name,
        "fixtures-120-10"
    );

    let mut counts = BTreeMap::new();
    for label in labels(&*small.splits["train"]) {
        *counts.entry(label).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 10);
    assert!(counts.values().all(|&count| count == 2 || count == 3), "{counts:?}");

    let set = |data: &Dataset| names(&*data.splits["train"]);
    assert!(set(&small).is_sorted(), "the order is kept");
    let large: BTreeSet<String> = set(&subset(60, 10, 0)).into_iter().collect();
    assert!(
        set(&small).iter().all(|name| large.contains(name)),
        "a larger one holds a smaller one"
    );
    assert_ne!(set(&small), set(&subset(25, 10, 1)));
    assert_eq!(
        sha256(set(&small).join("\n").as_bytes()),
        SUBSET,
        "the choice of images is part of every result"
    );
}

/// Of the names; computed from the rule by hashlib, too.
const SUBSET: &str = "f1ecad85f3bfaf9bad550981c4a866965ba013437d2054b5b4b8b0b2365e297c";

#[test]
fn subsets_for_retrieval_keep_their_labels() {
    let emoji = datasets::open("fixtures-emoji", Path::new("")).expect("committed");
    let set = emoji
        .subset(&sizes(&[("query", 20), ("gallery", 20)]), 0)
        .expect("fits");
    assert_eq!(set.name, "fixtures-emoji-20-20");
    assert_eq!(labels(&*set.splits["query"]), labels(&*set.splits["gallery"]));
    let set = emoji
        .subset(&sizes(&[("query", 20), ("gallery", 45)]), 5)
        .expect("fits");
    let gallery: BTreeSet<u32> = labels(&*set.splits["gallery"]).into_iter().collect();
    assert!(
        labels(&*set.splits["query"])
            .iter()
            .all(|label| gallery.contains(label))
    );

    let check = |asked: &[(&str, usize)], expected: &str| {
        let error = emoji.subset(&sizes(asked), 0).expect_err("does not fit").to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(
        &[("query", 20), ("gallery", 10)],
        "a gallery of 10 has no image of class",
    );
    check(&[("query", 0)], "0 images of split `query` were asked for; it has 60");
    check(&[("query", 61)], "61 images of split `query` were asked for; it has 60");
    check(&[("querry", 6)], "did you mean `query`?");
}
