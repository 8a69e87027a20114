//! Where a pass is run from.

use burn::tensor::Device;

#[cfg(feature = "flex")]
use crate::operation::is_flex;

/// `pass`, run on `flex` by one thread of the pool that shares out the work of every operation (rayon's, the one that the
/// caller is in). From outside of the pool each operation of the pass would wait for a thread that sleeps, and be waited
/// for asleep, which took 2 to 10 % of a training step on two cores. On other devices it is `pass()`.
///
/// The pool misses the thread while `pass` runs, so it should not wait for work of the pool. All steps of a training
/// belong in one `pass`: burn keeps the running statistics of a batch norm per thread, and takes their mean in the end.
///
/// # Panics
/// As `pass` does.
pub fn on_cores<R: Send>(device: &Device, pass: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "flex")]
    if is_flex(device) {
        return rayon::scope(|_| pass());
    }
    let _ = device;
    pass()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn a_pass_on_flex_is_run_by_the_pool() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            assert!(on_cores(&device, rayon::current_thread_index).is_some());
        }
    }
}
