//! The instruction sets that the kernels are compiled for, and the one in use.

use std::sync::OnceLock;

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
