//! Parameters and programs for tests.

use crate::rows::parameters::{
    ExpansionStep, FloodWidth, OutputRegion, RowKeyParameters, RowParameters,
};

/// Steps of `rounds` rounds, in pairs, of residues as digits.
pub(crate) fn steps(rounds: u32) -> Vec<ExpansionStep> {
    let pairs = (0..rounds / 2).map(|_| ExpansionStep { rounds: 2, digits: 1 });
    let last = (rounds % 2 == 1).then_some(ExpansionStep { rounds: 1, digits: 1 });
    pairs.chain(last).collect()
}

/// A flood that fills its room but for a tenth: a wide part, and one of 2^-6 of it.
pub(crate) fn flood(keys: &RowKeyParameters, t: u64) -> [FloodWidth; 2] {
    let room = keys.log2_modulus() - (t as f64).log2() + 0.9f64.log2();
    let width = |log2: f64| {
        let bits = log2.floor() - 15.0;
        // The factor is from 2^15 to 2^16.
        #[expect(clippy::cast_possible_truncation, reason = "small")]
        #[expect(clippy::cast_sign_loss, reason = "positive")]
        let integer = |x: f64| x as u32;
        FloodWidth { factor: integer((log2 - bits).exp2()), bits: integer(bits) }
    };
    [width(room - (1.0f64 + 1.0 / 64.0).log2()), width(room - 6.1)]
}

/// Of a small model of two regions.
pub(crate) fn parameters() -> RowParameters {
    let keys = RowKeyParameters { ring_dimension: 8192, primes: 3, steps: steps(9) };
    let (tag_modulus, value_modulus) = (13, 8209);
    RowParameters {
        flood: flood(&keys, 13 * 8209),
        keys,
        tag_modulus,
        value_modulus,
        tag_factors: 2,
        columns: 100,
        group_columns: 16,
        regions: vec![
            OutputRegion { outputs: 40, trees: 7 },
            OutputRegion { outputs: 25, trees: 5 },
        ],
        hide: 45,
        word_bits: 30,
    }
}
