//! The instruction sets that the kernels are compiled for, and the one in use.

use std::sync::OnceLock;

use pulp::{Arch, NullaryFnOnce};

/// An instruction set with a version of every kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// AVX-512 F, with BW, DQ and VL.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// What every processor has.
    Portable,
}

impl Isa {
    /// Every one, best first.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Portable];

    /// Whether this processor has it.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn is_here(self) -> bool {
        self == Self::Portable
    }

    /// Whether this processor has it.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_here(self) -> bool {
        match self {
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && Self::Avx2.is_here()
            }
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Portable => true,
        }
    }

    /// The best that this processor has.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            if Self::Avx512.is_here() {
                Self::Avx512
            } else if Self::Avx2.is_here() {
                Self::Avx2
            } else {
                Self::Portable
            }
        })
    }
}

/// Run `f` compiled for the widest vectors of this processor. Write `#[inline(always)]` before it.
///
/// A function that takes closures by value would call them through a shim, which the compiler does not inline here; and
/// what is not inlined is compiled for every processor, many times slower. For the same reason write loops in it: the
/// `for_each` and `fold` of iterators are functions that take closures, and were found called.
#[inline(always)]
pub(crate) fn vectorized<R>(f: impl FnMut() -> R) -> R {
    struct Run<F>(F);

    impl<R, F: FnMut() -> R> NullaryFnOnce for Run<F> {
        type Output = R;

        #[inline(always)]
        fn call(mut self) -> R {
            (self.0)()
        }
    }

    Arch::new().dispatch(Run(f))
}
