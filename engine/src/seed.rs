//! Seeds of masks.

use tfhe::core_crypto::commons::math::random::CompressionSeed;
use tfhe_csprng::generators::aes_ctr::{AesCtrParams, TableIndex};
use tfhe_csprng::seeders::{Seed as CsprngSeed, SeedKind};

/// The mask of a seeded ciphertext or key is expanded from this.
///
/// Two words, low first, as Concrete stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u64; 2]);

impl Seed {
    pub(crate) fn from_u128(seed: u128) -> Self {
        let word = |shift| u64::try_from((seed >> shift) & u128::from(u64::MAX)).expect("64 bits");
        Self([word(0), word(64)])
    }

    /// The seed as Concrete's generator takes it.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.0[0]) | u128::from(self.0[1]) << 64).to_le_bytes()
    }

    /// The stream that Concrete expands from the seed.
    ///
    /// Concrete's generator starts at byte 1 of the AES-CTR stream. `CompressionSeed::from(Seed)`
    /// has started at byte 0 since tfhe 1.6: everything loads with it, and decrypts to garbage.
    pub(crate) fn compression_seed(self) -> CompressionSeed {
        let seed = CsprngSeed(u128::from_le_bytes(self.to_bytes()));
        AesCtrParams { seed: SeedKind::Ctr(seed), first_index: TableIndex::SECOND }.into()
    }
}
