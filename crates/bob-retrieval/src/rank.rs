//! Ranking a gallery for every query, by cosine.

use bob_core::{Embeddings, dot_products};
use rayon::prelude::*;

use crate::RetrievalError;

/// Queries whose similarities are computed together: `BLOCK * gallery.len()` floats a thread.
const BLOCK: usize = 32;

/// Gallery images that pass through the cache together.
const GALLERY_BLOCK: usize = 512;

/// The gallery in order of falling similarity, for every query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    order: Vec<Vec<u32>>,
}

impl Ranking {
    /// Number of queries.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Indices of the gallery's images for query `index`, most similar first.
    ///
    /// # Panics
    /// Where `index` is not below [`Self::len`].
    pub fn query(&self, index: usize) -> &[u32] {
        &self.order[index]
    }
}

/// Rank `gallery` for every one of `queries` by cosine similarity; ties go to the lower gallery index.
///
/// It keeps `queries.len() * gallery.len()` indices; [`rank_with`] keeps one query's at a time.
///
/// # Errors
/// Where a set is empty or the two have unlike dimensions.
pub fn rank(queries: &Embeddings, gallery: &Embeddings) -> Result<Ranking, RetrievalError> {
    let order = rank_with(queries, gallery, |_| None, |_, order| order.to_vec())?;
    Ok(Ranking { order })
}

/// Rank `gallery` for every one of `queries` and hand each query's order to `f`, on all threads; the results come in
/// the order of the queries and do not depend on the number of threads.
///
/// `left_out` names the one gallery image that query `index` must not find, usually itself.
///
/// # Errors
/// Where a set is empty or the two have unlike dimensions.
pub fn rank_with<T: Send>(
    queries: &Embeddings,
    gallery: &Embeddings,
    left_out: impl Fn(usize) -> Option<usize> + Sync,
    f: impl Fn(usize, &[u32]) -> T + Sync,
) -> Result<Vec<T>, RetrievalError> {
    if queries.is_empty() || gallery.is_empty() {
        let set = if queries.is_empty() { "query" } else { "gallery" };
        return Err(RetrievalError::Empty { set });
    }
    if queries.dim() != gallery.dim() {
        return Err(RetrievalError::Dimensions {
            queries: queries.dim(),
            gallery: gallery.dim(),
        });
    }
    let dim = queries.dim();
    let (queries, gallery) = (queries.l2_normalized(), gallery.l2_normalized());
    let blocks: Vec<Vec<T>> = queries
        .values()
        .par_chunks(BLOCK * dim)
        .enumerate()
        .map(|(block, rows)| {
            let similarities = similarities(rows, gallery.values(), dim);
            let mut order = Vec::with_capacity(gallery.len());
            similarities
                .chunks(gallery.len())
                .enumerate()
                .map(|(row, similarities)| {
                    let query = block * BLOCK + row;
                    let left_out = left_out(query);
                    order.clear();
                    order.extend(
                        (0..gallery.len())
                            .filter(|&index| Some(index) != left_out)
                            .map(|index| index as u32),
                    );
                    order.sort_unstable_by(|&a, &b| {
                        similarities[b as usize]
                            .total_cmp(&similarities[a as usize])
                            .then(a.cmp(&b))
                    });
                    f(query, &order)
                })
                .collect()
        })
        .collect();
    Ok(blocks.into_iter().flatten().collect())
}

/// Cosines of normalised rows, `[queries, gallery]`.
fn similarities(queries: &[f32], gallery: &[f32], dim: usize) -> Vec<f32> {
    let (m, n) = (queries.len() / dim, gallery.len() / dim);
    let mut all = vec![0.0; m * n];
    let mut part = vec![0.0; m * GALLERY_BLOCK];
    for (block, rows) in gallery.chunks(GALLERY_BLOCK * dim).enumerate() {
        let width = rows.len() / dim;
        let part = &mut part[..m * width];
        dot_products(queries, rows, dim, part);
        for (all, part) in all.chunks_mut(n).zip(part.chunks(width)) {
            for (all, part) in all[block * GALLERY_BLOCK..].iter_mut().zip(part) {
                // A negative zero would rank behind a positive one.
                *all = part + 0.0;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::embeddings;

    #[test]
    fn ties_go_to_the_lower_index_and_an_image_can_be_left_out() {
        let gallery = embeddings(
            &[[0.0, 2.0], [1.0, 0.0], [5.0, 0.0], [0.0, 0.0], [-1.0, 0.0]],
            &[0, 1, 2, 3, 4],
        );
        let queries = embeddings(&[[3.0, 0.0], [0.0, 1.0]], &[0, 1]);
        let ranking = rank(&queries, &gallery).expect("fits");
        assert_eq!(ranking.query(0), [1, 2, 0, 3, 4]);
        assert_eq!(ranking.query(1), [0, 1, 2, 3, 4]);
        let without = rank_with(&queries, &gallery, |_| Some(0), |_, order| order.to_vec()).expect("fits");
        assert_eq!(without, [[1, 2, 3, 4], [1, 2, 3, 4]]);
    }

    #[test]
    fn the_order_does_not_depend_on_the_number_of_threads() {
        let values = |n: usize, salt: u32| -> Vec<[f32; 3]> {
            (0..n as u32)
                .map(|i| [0, 1, 2].map(|c| ((i * 31 + c * 17 + salt) % 23) as f32 - 11.0))
                .collect()
        };
        let queries = embeddings(&values(70, 1), &vec![0; 70]);
        let gallery = embeddings(&values(1100, 5), &vec![0; 1100]);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads");
            pool.install(|| rank(&queries, &gallery).expect("fits"))
        };
        assert_eq!(with(1), with(3));
    }
}
