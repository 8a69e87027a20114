//! Random numbers that depend on what they are for and on nothing else.

use rand::SeedableRng;
use rand::rngs::StdRng;

/// What random numbers are drawn for, so that two uses of one seed share none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The order of the images.
    Order,
    /// The augmentation of one image.
    Augmentation,
}

/// The generator for `purpose` in `epoch` of a training of `seed`, for the image `index` of the set where the purpose is
/// one image, else 0.
pub(crate) fn generator(purpose: Purpose, seed: u64, epoch: usize, index: usize) -> StdRng {
    let words = [purpose as u64, seed, epoch as u64, index as u64];
    let mut key = [0; 32];
    for (bytes, word) in key.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    StdRng::from_seed(key)
}
