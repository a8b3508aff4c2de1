//! What the host's CPU can do beyond its baseline, as the compilers use it. Part of the key of code kept on disk.

/// Optional instructions of the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HostFeatures {
    /// SSE3 to SSE4.2 (x86-64-v2 has all of them).
    pub sse42: bool,
    /// AVX.
    pub avx: bool,
    /// AVX2.
    pub avx2: bool,
    /// Fused multiply-add.
    pub fma: bool,
    /// BMI1.
    pub bmi1: bool,
    /// BMI2.
    pub bmi2: bool,
    /// `lzcnt`.
    pub lzcnt: bool,
    /// `popcnt`.
    pub popcnt: bool,
    /// `cmpxchg16b`.
    pub cmpxchg16b: bool,
    /// Carry-less multiplication.
    pub pclmulqdq: bool,
    /// AArch64 LSE atomics.
    pub lse: bool,
}

impl HostFeatures {
    /// Those of the CPU this runs on.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            Self {
                sse42: has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2"),
                avx: has!("avx"),
                avx2: has!("avx2"),
                fma: has!("fma"),
                bmi1: has!("bmi1"),
                bmi2: has!("bmi2"),
                lzcnt: has!("lzcnt"),
                popcnt: has!("popcnt"),
                cmpxchg16b: has!("cmpxchg16b"),
                pclmulqdq: has!("pclmulqdq"),
                lse: false,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            Self { lse: std::arch::is_aarch64_feature_detected!("lse"), ..Self::default() }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            Self::default()
        }
    }

    /// All of them as bits, for keys.
    pub fn bits(self) -> u64 {
        let all = [
            self.sse42,
            self.avx,
            self.avx2,
            self.fma,
            self.bmi1,
            self.bmi2,
            self.lzcnt,
            self.popcnt,
            self.cmpxchg16b,
            self.pclmulqdq,
            self.lse,
        ];
        all.iter().enumerate().map(|(i, has)| u64::from(*has) << i).sum()
    }
}
