//! The order in which an epoch sees the images.

use rand::seq::SliceRandom;

use crate::seed::{Purpose, generator};

/// The indices below `len` in the random order of `epoch`: each once. `seed`, `epoch` and `len` give one order.
pub fn permutation(seed: u64, epoch: usize, len: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut generator(Purpose::Order, seed, epoch, 0));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_comes_once_in_an_order_of_its_seed_and_epoch() {
        for len in [0, 1, 2, 1000] {
            let mut order = permutation(3, 5, len);
            order.sort_unstable();
            assert_eq!(order, (0..len).collect::<Vec<_>>());
        }
        let first = permutation(3, 5, 1000);
        assert_eq!(first, permutation(3, 5, 1000));
        for other in [
            permutation(4, 5, 1000),
            permutation(3, 6, 1000),
            permutation(5, 3, 1000),
        ] {
            let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 10, "{same} of 1000 indices stand in the same place");
        }
    }

    /// The place of an index has the mean and the spread of a uniform draw.
    #[test]
    fn every_place_is_as_likely() {
        let places: Vec<f64> = (0..400)
            .map(|epoch| {
                let order = permutation(0, epoch, 100);
                order.iter().position(|&index| index == 7).expect("it is there") as f64
            })
            .collect();
        let mean = places.iter().sum::<f64>() / 400.0;
        let variance = places.iter().map(|place| (place - mean).powi(2)).sum::<f64>() / 400.0;
        // The deviation of the mean is 1.4; that of the variance about 37.
        assert!((mean - 49.5).abs() < 6.0, "mean {mean}");
        assert!((variance - 833.0).abs() < 150.0, "variance {variance}");
    }
}
