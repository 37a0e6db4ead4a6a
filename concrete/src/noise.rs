//! How much noise a circuit's ciphertexts have, and how often a row fails because of it.
//!
//! Concrete picks keys so that the noise of each table's index and of each output stays below a
//! bound. Here it is computed from circuit and keyset, whoever made them: the net below wrong keys.
//!
//! Variances are fractions of the torus, squared; `q = 2^64`. Keys are binary, and the Fourier
//! transform has 53 bits. Formulas are those of Concrete's optimizer (`concrete-cpu-noise-model`).

use std::collections::BTreeMap;

use cipherscore_engine::circuit::{Affine, Root, ValidCircuit};
use cipherscore_engine::parameters::{
    BootstrapKeyParameters, KeysetParameters, KeyswitchKeyParameters,
};

/// Failure probability that Concrete ML asks for, where a zip does not say any.
pub const DEFAULT_P_ERROR: f64 = 1.0 / (1u64 << 40) as f64;
/// What concrete-python asks for when it is asked for nothing.
const COMPILER_P_ERROR: f64 = 1e-5;
/// Above this ratio to its bound, noise is not what Concrete's optimizer allows. A lowered circuit
/// is refused; a recorded one is warned of, as Concrete counts linear models with other sums.
pub const MAX_RATIO: f64 = 1.05;
/// Above this ratio a recorded circuit is refused as well, where the compiler reported what it was
/// compiled for: its results are not those of the model.
pub const MAX_RECORDED_RATIO: f64 = 1.4;

/// q^2
const Q2: f64 = (1u128 << 127) as f64 * 2.0;

/// How seldom a circuit was compiled to fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailureTarget {
    /// Of one table or output.
    pub p_error: Option<f64>,
    /// Of all tables and outputs of a row together.
    pub global_p_error: Option<f64>,
}

impl FailureTarget {
    /// For each table and output.
    pub fn each(p_error: f64) -> Self {
        Self { p_error: Some(p_error), global_p_error: None }
    }

    /// What a compiler was asked for; it has a default.
    pub fn compiled(p_error: Option<f64>, global_p_error: Option<f64>) -> Self {
        let p_error = p_error.or_else(|| global_p_error.is_none().then_some(COMPILER_P_ERROR));
        Self { p_error, global_p_error }
    }
}

/// What noise does to a circuit's results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Largest variance, as a part of what the target allows.
    pub ratio: f64,
    /// Probability that one table or output fails, for the worst of them.
    pub worst_failure: f64,
    /// Probability that any table or output of a row fails.
    pub row_failure: f64,
}

/// Variances of all tables' indices and of all outputs.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By width, and by the bits of the variance: how many there are. In an order, so that equal
    /// circuits have equal sums.
    entries: BTreeMap<(u32, u64), f64>,
}

impl Ledger {
    /// Takes in an integer of so many bits; none for one that is only positive or negative.
    pub(crate) fn record(&mut self, variance: f64, width: u32) {
        *self.entries.entry((width, variance.to_bits())).or_default() += 1.0;
    }

    /// All of it, beside the target.
    pub(crate) fn close(&self, target: FailureTarget) -> Noise {
        let mut worst: f64 = 0.0;
        let mut ratio: f64 = 0.0;
        for &(width, variance) in self.entries.keys() {
            let variance = f64::from_bits(variance);
            worst = worst.max(failure(variance, width));
            if let Some(p_error) = target.p_error {
                ratio = ratio.max(variance / bound(width, p_error));
            }
        }
        if let Some(global) = target.global_p_error {
            ratio = ratio.max(self.global_ratio(global));
        }
        Noise { ratio, worst_failure: worst, row_failure: self.row_failure(1.0) }
    }

    /// Probability that any of them fails, if all variances were divided by `shrink`.
    fn row_failure(&self, shrink: f64) -> f64 {
        let all = self.entries.iter().map(|(&(width, variance), &count)| {
            count * (-failure(f64::from_bits(variance) / shrink, width)).ln_1p()
        });
        -all.sum::<f64>().exp_m1()
    }

    /// By what variances would have to be divided for a row to fail as seldom as that.
    fn global_ratio(&self, global: f64) -> f64 {
        let (mut low, mut high) = (-40.0f64, 40.0f64);
        for _ in 0..60 {
            let middle = (low + high) / 2.0;
            match self.row_failure(middle.exp2()) > global {
                true => low = middle,
                false => high = middle,
            }
        }
        high.exp2()
    }
}

/// Probability that noise carries an integer of so many bits to another one: `2^-(2 + width)` is
/// half the distance between two of them, with a bit of padding.
fn failure(variance: f64, width: u32) -> f64 {
    let distance = (-f64::from(2 + width)).exp2();
    match variance > 0.0 {
        true => libm::erfc(distance / (2.0 * variance).sqrt()),
        false => 0.0,
    }
}

/// Largest variance of an integer of so many bits that fails with probability `p_error`.
fn bound(width: u32, p_error: f64) -> f64 {
    ((-f64::from(2 + width)).exp2() / (2f64.sqrt() * inverse_erfc(p_error))).powi(2)
}

/// By bisection: erfc falls from 1 at 0 to less than any double at 30.
fn inverse_erfc(probability: f64) -> f64 {
    let (mut low, mut high) = (0.0, 30.0);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        match libm::erfc(middle) > probability {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

/// Variances that the keys of a keyset add.
#[derive(Debug)]
pub(crate) struct KeyNoise {
    /// For each keyswitch key, what it adds.
    pub(crate) keyswitch: Vec<f64>,
    /// For each bootstrap key, that of its results.
    pub(crate) bootstrap: Vec<f64>,
    /// For each bootstrap key, what rounding to 2N steps adds to its index.
    pub(crate) modulus_switch: Vec<f64>,
}

impl KeyNoise {
    pub(crate) fn of(keyset: &KeysetParameters) -> Self {
        let keyswitch = |key: &KeyswitchKeyParameters| {
            keyswitch_variance(keyset.dimension(key.input_key) as f64, key)
        };
        let bootstrap = |key: &BootstrapKeyParameters| {
            bootstrap_variance(keyset.dimension(key.input_key) as f64, key)
        };
        let modulus_switch = |key: &BootstrapKeyParameters| {
            let n = keyset.dimension(key.input_key) as f64;
            modulus_switch_variance(n, key.polynomial_size as f64)
        };
        Self {
            keyswitch: keyset.keyswitch_keys.iter().map(keyswitch).collect(),
            bootstrap: keyset.bootstrap_keys.iter().map(bootstrap).collect(),
            modulus_switch: keyset.bootstrap_keys.iter().map(modulus_switch).collect(),
        }
    }
}

/// `B` and `B^2l` of a gadget of base `2^base_log` and `l` levels.
fn gadget(base_log: usize, level_count: usize) -> (f64, f64) {
    let base = (base_log as f64).exp2();
    (base, (2.0 * base_log as f64 * level_count as f64).exp2())
}

fn keyswitch_variance(n: f64, key: &KeyswitchKeyParameters) -> f64 {
    let (base, base_2l) = gadget(key.base_log, key.level_count);
    let levels = key.level_count as f64;
    let rounding = 0.5 * (Q2 / (12.0 * base_2l) - 1.0 / 12.0) / Q2;
    n * (rounding + 1.0 / (16.0 * Q2) + levels * key.variance * (base * base + 2.0) / 12.0)
}

fn bootstrap_variance(n: f64, key: &BootstrapKeyParameters) -> f64 {
    /// Of the Fourier transform: its bits, and what was measured beside them.
    const FFT_LOG_ERROR: f64 = 2.0 * (64.0 - 53.0) - 2.577_224_94;
    let (base, base_2l) = gadget(key.base_log, key.level_count);
    let levels = key.level_count as f64;
    let (k, size) = (key.glwe_dimension as f64, key.polynomial_size as f64);
    let of_key = levels * (k + 1.0) * size * (base * base + 2.0) / 12.0 * key.variance;
    let of_digits = (Q2 - base_2l) / (24.0 * base_2l) * (1.0 + k * size / 2.0) / Q2
        + k * size / (32.0 * Q2)
        + (1.0 - k * size).powi(2) / (64.0 * Q2);
    let of_fft = FFT_LOG_ERROR.exp2() * levels * base * base * size * size * (k + 1.0) / Q2;
    n * (of_key + of_digits + of_fft)
}

fn modulus_switch_variance(n: f64, size: f64) -> f64 {
    (1.0 / 12.0 + n / 24.0) / (2.0 * size).powi(2) + (n / 48.0 - 1.0 / 12.0) / Q2
}

/// The noise of a circuit's rows. Roots are taken as independent, each with its true coefficient.
pub fn of_circuit(circuit: &ValidCircuit, target: FailureTarget) -> Noise {
    let (signature, circuit) = (circuit.signature(), circuit.circuit());
    let keys = KeyNoise::of(&signature.keyset);
    let widths: Vec<u32> = circuit.tables.iter().map(|table| table_width(table)).collect();
    let mut ledger = Ledger::default();
    let mut variances: Vec<f64> = Vec::with_capacity(circuit.roots.len());
    let sum = |affine: &Affine, variances: &[f64]| -> f64 {
        let terms = affine.terms.iter();
        terms.map(|t| (t.coefficient as f64).powi(2) * variances[t.root as usize]).sum()
    };
    for root in &circuit.roots {
        let variance = match root {
            Root::Input { argument, .. } => signature.inputs[*argument as usize].variance,
            Root::Keyswitch { input, key } => {
                sum(input, &variances) + keys.keyswitch[*key as usize]
            }
            Root::Bootstrap { input, table, key } => {
                let index = sum(input, &variances) + keys.modulus_switch[*key as usize];
                // A trivial index has no noise, and neither has its entry.
                if input.terms.is_empty() {
                    0.0
                } else {
                    ledger.record(index, widths[*table as usize]);
                    keys.bootstrap[*key as usize]
                }
            }
        };
        variances.push(variance);
    }
    for (gate, output) in signature.outputs.iter().zip(&circuit.outputs) {
        for affine in output {
            ledger.record(sum(affine, &variances), gate.encoding.width);
        }
    }
    ledger.close(target)
}

/// By how many bits a table of N words is looked up. Entries take `b = N / 2^width` words, the
/// first of which is half before the beginning: words change at odd multiples of `b / 2` only. A
/// table of one entry tells positive from negative, which is no bit at all.
fn table_width(table: &[u64]) -> u32 {
    let changes = table.windows(2).zip(1usize..).filter(|(pair, _)| pair[0] != pair[1]);
    let half_entry = changes.map(|(_, place)| place.trailing_zeros()).min();
    half_entry.map_or(0, |half| table.len().ilog2().saturating_sub(half + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_met_by_their_own_variance() {
        for (width, p_error) in [(0, 1e-5), (4, DEFAULT_P_ERROR), (8, 0.01)] {
            let found = failure(bound(width, p_error), width);
            assert!((found / p_error - 1.0).abs() < 1e-9, "{width}: {found} and {p_error}");
        }
        // In standard deviations; scipy.stats.norm.isf(2**-41).
        assert!((2f64.sqrt() * inverse_erfc(DEFAULT_P_ERROR) - 7.143_552).abs() < 1e-6);
        assert_eq!(failure(0.0, 4), 0.0);
    }

    #[test]
    fn a_row_fails_when_any_of_its_tables_does() {
        let mut ledger = Ledger::default();
        (0..1000).for_each(|_| ledger.record(bound(4, 1e-9), 4));
        let noise = ledger.close(FailureTarget::each(1e-9));
        assert!((noise.ratio - 1.0).abs() < 1e-9, "{noise:?}");
        assert!((noise.row_failure / 1e-6 - 1.0).abs() < 1e-3, "{noise:?}");
        // What was asked of the whole row: variances are just right, or twice too large.
        let target = FailureTarget::compiled(None, Some(noise.row_failure));
        assert!((ledger.close(target).ratio - 1.0).abs() < 1e-6);
        let mut twice = Ledger::default();
        (0..1000).for_each(|_| twice.record(2.0 * bound(4, 1e-9), 4));
        assert!((twice.close(target).ratio - 2.0).abs() < 1e-6);
    }

    #[test]
    fn tables_tell_by_how_many_bits_they_are_looked_up() {
        assert_eq!(table_width(&[7; 64]), 0);
        // Four entries of 16 words; the first begins half an entry before and is negated there.
        let table: Vec<u64> = (0..64)
            .map(|place| match (place + 8) / 16 {
                entry @ 0..4 => [3, 1, 1, 5][entry],
                _ => 3u64.wrapping_neg(),
            })
            .collect();
        assert_eq!(table_width(&table), 2);
    }
}
