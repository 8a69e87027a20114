//! Nearest neighbours that vote: DINO's weighted k-NN (arXiv 2104.14294, `eval_knn.py`).

use bob_core::{Embeddings, dot_products};
use rayon::prelude::*;

use crate::{ClassificationError, Knn, check_pair};

/// Test images whose similarities are computed together.
const BLOCK: usize = 32;

/// Training images that pass through the cache together; bounds the memory of a thread to `BLOCK * TRAIN_BLOCK` floats.
const TRAIN_BLOCK: usize = 512;

/// The classes that the neighbours of every test image vote for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnnPredictions {
    /// Winner of the weighted vote of `k` neighbours.
    pub weighted: Vec<u32>,
    /// Class of the nearest neighbour.
    pub nearest: Vec<u32>,
}

/// Let the nearest of `train` vote for the class of every image of `test`.
///
/// Among equally similar training images the one that comes first is nearer; among classes of equal votes the lowest
/// wins.
///
/// # Errors
/// Where a set is empty, the two do not fit each other, `train` has one class, or `k` is 0.
pub fn knn(train: &Embeddings, test: &Embeddings, settings: &Knn) -> Result<KnnPredictions, ClassificationError> {
    check_pair(train, test)?;
    if settings.k == 0 {
        return Err(ClassificationError::NoNeighbours);
    }
    let dim = train.dim();
    let (rows, queries) = (train.l2_normalized(), test.l2_normalized());
    let predictions: Vec<[u32; 2]> = queries
        .values()
        .par_chunks(BLOCK * dim)
        .flat_map_iter(|queries| {
            nearest(queries, rows.values(), dim, settings.k)
                .into_iter()
                .map(|neighbours| {
                    [
                        vote(&neighbours, train.labels(), settings),
                        train.labels()[neighbours[0].index],
                    ]
                })
        })
        .collect();
    Ok(KnnPredictions {
        weighted: predictions.iter().map(|[weighted, _]| *weighted).collect(),
        nearest: predictions.iter().map(|[_, nearest]| *nearest).collect(),
    })
}

#[derive(Clone, Copy)]
struct Neighbour {
    similarity: f32,
    index: usize,
}

/// The `k` nearest of `rows` for each of `queries`, nearest first.
fn nearest(queries: &[f32], rows: &[f32], dim: usize, k: usize) -> Vec<Vec<Neighbour>> {
    let k = k.min(rows.len() / dim);
    let mut nearest: Vec<Vec<Neighbour>> = vec![Vec::with_capacity(k + 1); queries.len() / dim];
    let mut similarities = vec![0.0; nearest.len() * TRAIN_BLOCK];
    for (block, rows) in rows.chunks(TRAIN_BLOCK * dim).enumerate() {
        let width = rows.len() / dim;
        let similarities = &mut similarities[..nearest.len() * width];
        dot_products(queries, rows, dim, similarities);
        for (nearest, similarities) in nearest.iter_mut().zip(similarities.chunks(width)) {
            for (column, &similarity) in similarities.iter().enumerate() {
                if nearest.len() == k && similarity <= nearest[k - 1].similarity {
                    continue;
                }
                let place = nearest.partition_point(|other| other.similarity >= similarity);
                nearest.insert(
                    place,
                    Neighbour {
                        similarity,
                        index: block * TRAIN_BLOCK + column,
                    },
                );
                nearest.truncate(k);
            }
        }
    }
    nearest
}

/// The class with most of the weight `exp(similarity / temperature)`, the lowest of equals.
fn vote(neighbours: &[Neighbour], labels: &[u32], settings: &Knn) -> u32 {
    // Relative to the nearest, or a low temperature would overflow.
    let nearest = f64::from(neighbours[0].similarity);
    let mut votes: Vec<(u32, f64)> = Vec::new();
    for neighbour in neighbours {
        let weight = ((f64::from(neighbour.similarity) - nearest) / settings.temperature).exp();
        let label = labels[neighbour.index];
        match votes.iter_mut().find(|(class, _)| *class == label) {
            Some((_, votes)) => *votes += weight,
            None => votes.push((label, weight)),
        }
    }
    let winner = votes.iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    winner.map_or(0, |(class, _)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{embeddings, fixture, numbers, stored};

    const SETTINGS: Knn = Knn {
        k: 20,
        temperature: 0.07,
    };

    #[test]
    fn votes_equal_those_of_scikit_learn() {
        let fixture = fixture("knn.json");
        let train = stored(&fixture["train"], numbers(&fixture["train_labels"]));
        let test = stored(&fixture["test"], numbers(&fixture["test_labels"]));
        for (k, expected) in fixture["predicted"].as_object().expect("by k") {
            let settings = Knn {
                k: k.parse().expect("a number"),
                ..SETTINGS
            };
            let found = knn(&train, &test, &settings).expect("fits");
            assert_eq!(found.weighted, numbers::<u32>(expected), "k = {k}");
            assert_eq!(found.nearest, numbers::<u32>(&fixture["predicted"]["1"]));
        }
    }

    #[test]
    fn ties_go_to_the_first_image_and_the_lowest_class() {
        let train = embeddings(&[[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], &[3, 2, 1, 1]);
        let test = embeddings(&[[2.0, 0.0], [0.0, 2.0]], &[1, 1]);
        let found = knn(&train, &test, &SETTINGS).expect("fits");
        assert_eq!(found.nearest, [2, 3], "the first of equal images");
        assert_eq!(
            found.weighted,
            [1, 1],
            "one far image of class 1 breaks the tie, though k is above the set's size"
        );
        let two = knn(&train, &test, &Knn { k: 2, ..SETTINGS }).expect("fits");
        assert_eq!(two.weighted, [1, 1], "the lowest of classes with equal votes");
    }

    #[test]
    fn predictions_do_not_depend_on_the_number_of_threads() {
        let rows = |n: u32, salt: u32| -> Vec<[f32; 5]> {
            (0..n)
                .map(|i| [0, 1, 2, 3, 4].map(|c| ((i * 37 + c * 11 + salt) % 29) as f32 - 14.0))
                .collect()
        };
        let labels = |n: u32| -> Vec<u32> { (0..n).map(|i| i % 7).collect() };
        let (train, test) = (
            embeddings(&rows(1200, 1), &labels(1200)),
            embeddings(&rows(90, 4), &labels(90)),
        );
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads");
            pool.install(|| knn(&train, &test, &SETTINGS).expect("fits"))
        };
        assert_eq!(with(1), with(3));
    }
}
