//! Which instructions the vector arithmetic of the engines has. The arithmetic itself is each
//! engine's own.

/// What evaluates on this processor. Results do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(pub(crate) Instructions);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instructions {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// Proof that the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }
}

/// Proof that the processor has AVX-512F and AVX-512-IFMA.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Avx512(());

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
        found.then_some(Self(()))
    }
}

impl Kernel {
    /// The fastest on this processor.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::portable())
    }

    /// The one for every processor.
    pub fn portable() -> Self {
        Self(Instructions::Portable)
    }

    /// All that this processor has, the fastest last.
    pub fn available() -> Vec<Self> {
        let portable = Some(Instructions::Portable);
        #[cfg(target_arch = "x86_64")]
        let all = [
            portable,
            Avx2::detect().map(Instructions::Avx2),
            Avx512::detect().map(Instructions::Avx512),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let all = [portable];
        all.into_iter().flatten().map(Self).collect()
    }

    /// For people: `portable`, `avx2` or `avx512-ifma`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Instructions::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(_) => "avx512-ifma",
        }
    }
}
