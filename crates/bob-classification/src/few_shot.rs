//! Nearest class mean of a few images: CL2N of SimpleShot (arXiv 1911.04623).

use bob_core::{Embeddings, dot_products};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::{ClassificationError, check_pair};

/// The class of every image of `test` as the nearest class mean of `shots` images of each class of `train` has it, for
/// each of `draws` draws.
///
/// A draw of fewer images is the beginning of the same draw of more.
///
/// # Errors
/// Where a set is empty, the two do not fit each other, `train` has one class, or a class has fewer than `shots`
/// images.
pub fn few_shot(
    train: &Embeddings,
    test: &Embeddings,
    shots: usize,
    draws: usize,
    seed: u64,
) -> Result<Vec<Vec<u32>>, ClassificationError> {
    check_pair(train, test)?;
    let mut classes: Vec<(u32, Vec<usize>)> = Vec::new();
    for (row, &label) in train.labels().iter().enumerate() {
        match classes.binary_search_by_key(&label, |(class, _)| *class) {
            Ok(at) => classes[at].1.push(row),
            Err(at) => classes.insert(at, (label, vec![row])),
        }
    }
    if let Some((class, rows)) = classes.iter().find(|(_, rows)| rows.len() < shots) {
        return Err(ClassificationError::TooFewImages {
            class: *class,
            found: rows.len(),
            needed: shots,
        });
    }
    let labels: Vec<u32> = classes.iter().map(|(label, _)| *label).collect();
    (0..draws as u64)
        .into_par_iter()
        .map(|draw| {
            let mut random = StdRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(draw));
            let support: Vec<Vec<usize>> = classes
                .iter()
                .map(|(_, rows)| {
                    let mut rows = rows.clone();
                    rows.shuffle(&mut random);
                    rows.truncate(shots);
                    rows
                })
                .collect();
            let nearest = nearest_class_mean(train, &support, test);
            Ok(nearest.into_iter().map(|class| labels[class]).collect())
        })
        .collect()
}

/// For every image of `test`, the index of the group of `support` (rows of `train`) whose mean is nearest, after all
/// were centred on the mean of the support and L2-normalised; the first of equals.
pub(crate) fn nearest_class_mean(train: &Embeddings, support: &[Vec<usize>], test: &Embeddings) -> Vec<usize> {
    let dim = train.dim();
    let mut centre = vec![0.0; dim];
    for &row in support.iter().flatten() {
        add(&mut centre, train.row(row).iter().copied().map(f64::from));
    }
    let count = support.iter().map(Vec::len).sum::<usize>() as f64;
    centre.iter_mut().for_each(|value| *value /= count);

    let means: Vec<f32> = support
        .iter()
        .flat_map(|rows| {
            let mut mean = vec![0.0; dim];
            for &row in rows {
                add(&mut mean, centred(train.row(row), &centre).into_iter().map(f64::from));
            }
            mean.into_iter()
                .map(|value| (value / rows.len() as f64) as f32)
                .collect::<Vec<_>>()
        })
        .collect();
    // |x - m|² orders classes as |m|² / 2 - x·m does.
    let half_norms: Vec<f32> = means
        .chunks(dim)
        .map(|mean| (mean.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 2.0) as f32)
        .collect();

    (0..test.len())
        .map(|row| {
            let mut products = vec![0.0; support.len()];
            dot_products(&centred(test.row(row), &centre), &means, dim, &mut products);
            let distances = half_norms
                .iter()
                .zip(&products)
                .map(|(half_norm, product)| half_norm - product);
            distances
                .enumerate()
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .map_or(0, |(class, _)| class)
        })
        .collect()
}

fn add(sum: &mut [f64], values: impl IntoIterator<Item = f64>) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// `row - centre`, of length 1 (or 0 where it is the centre).
fn centred(row: &[f32], centre: &[f64]) -> Vec<f32> {
    let difference: Vec<f64> = row
        .iter()
        .zip(centre)
        .map(|(&value, centre)| f64::from(value) - centre)
        .collect();
    let norm = difference.iter().map(|value| value * value).sum::<f64>().sqrt();
    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    difference.into_iter().map(|value| (value * scale) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{embeddings, fixture, numbers, stored};

    #[test]
    fn nearest_means_equal_those_of_numpy() {
        let fixture = fixture("few_shot.json");
        let (train, test) = (
            stored(&fixture["train"], vec![0; 70]),
            stored(&fixture["test"], vec![0; 50]),
        );
        for draw in fixture["draws"].as_array().expect("draws") {
            let found = nearest_class_mean(&train, &numbers::<Vec<usize>>(&draw["support"]), &test);
            assert_eq!(found, numbers::<usize>(&draw["nearest"]));
        }
    }

    #[test]
    fn draws_differ_repeat_by_seed_and_nest() {
        let rows: Vec<[f32; 3]> = (0..60)
            .map(|i| [i, i * 7, i * 13].map(|v: u32| ((v % 31) as f32 - 15.0) * (1.0 + (i % 3) as f32)))
            .collect();
        let labels: Vec<u32> = (0..60).map(|i| [4, 9, 2][i % 3]).collect();
        let set = embeddings(&rows, &labels);
        let draw = |seed: u64| few_shot(&set, &set, 2, 5, seed).expect("fits");
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        assert_ne!(draw(3)[0], draw(3)[1]);
    }

    #[test]
    fn a_class_with_too_few_images_is_named() {
        let set = embeddings(&[[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], &[0, 1, 1]);
        let error = few_shot(&set, &set, 2, 1, 0).expect_err("must be refused");
        assert_eq!(
            error.to_string(),
            "class 0 has 1 training images; 2 are needed, take a larger set or fewer shots"
        );
    }
}
