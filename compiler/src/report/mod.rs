//! What compiling a model found out, before anybody encrypts a row.

mod picture;

use cipherscore_engine::artifact::Kind;
use cipherscore_engine::rows::parameters::OutputRegion;
use serde::{Deserialize, Serialize};

use crate::bins::Bins;

/// Facts about a compiled model: of its bulk form, where it has one, and of its row form. Without a
/// bulk form, what there is to say of ciphertexts is the row form's, whose degree is 1, and whose
/// replies are of words and have 0 primes. Nothing in it is more than the data owner may know; `noise_bits`,
/// which is left out of `client.zip`, is for the model owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompileReport {
    /// Class of the trained model.
    pub class_name: String,
    /// Ensemble or linear.
    pub kind: Kind,
    /// How thresholds are offered; none for a linear model.
    pub bins: Option<Bins>,
    /// Columns of each feature that has any.
    pub features: Vec<FeatureColumns>,
    /// Columns of the upload.
    pub columns: u32,
    /// Raw outputs.
    pub outputs: u32,
    /// Degree of the polynomials.
    pub degree: u32,
    /// Whether replies hide the model.
    pub hidden: bool,
    /// N: rows of a full ring batch.
    pub ring_dimension: u32,
    /// Primes of an upload, 51 bits each.
    pub primes: u32,
    /// Primes of a reply.
    pub reply_primes: u32,
    /// t.
    pub plaintext_modulus: u64,
    /// log2 of the work of the best known attack on a ciphertext.
    pub security_bits: u32,
    /// log2 of the probability that any score of a ring batch is wrong.
    pub log2_p_fail: f64,
    /// Of a full ring batch.
    pub upload_bytes_per_row: f64,
    /// Of a full ring batch.
    pub reply_bytes_per_row: f64,
    /// On one core, as it is planned.
    pub microseconds_per_row: f64,
    /// Largest difference that rounding makes to each raw output.
    pub raw_error: Vec<f64>,
    /// The same, relative to what the raw output can be; of the output where it is largest.
    pub relative_error: f64,
    /// On the calibration rows, if there are any.
    pub agreement: Option<Agreement>,
    /// What the data owner can learn of the model.
    pub data_owner_learns: Vec<String>,
    /// log2 of the standard deviation of the noise that the monomials of degree 1, 2, ... have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noise_bits: Vec<f64>,
    /// The row form, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowReport>,
}

/// Facts about the row form. All of it is public, or follows from what is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowReport {
    /// Leaves and trees of each raw output, padded.
    pub regions: Vec<OutputRegion>,
    /// N.
    pub ring_dimension: u32,
    /// k, 51 bits each.
    pub primes: u32,
    /// Of each step of the expansion: digits into which a residue is cut.
    pub digits: Vec<u32>,
    /// c: columns of one expanded ciphertext.
    pub group_columns: u32,
    /// t1.
    pub tag_modulus: u32,
    /// R.
    pub tag_factors: u32,
    /// t2.
    pub value_modulus: u64,
    /// Bits by which replies hide the model.
    pub hide_bits: u32,
    /// log2 of the work of the best known attack on a ciphertext.
    pub security_bits: u32,
    /// log2 of the probability that a row's scores are wrong, at most.
    pub log2_p_fail: f64,
    /// Of a row on one thread with AVX-512-IFMA, about; twice as many with AVX2, four times without.
    pub milliseconds: f64,
    /// Of a row.
    pub upload_bytes: u64,
    /// Of a row.
    pub reply_bytes: u64,
    /// Of the evaluation key, which travels once.
    pub key_bytes: u64,
}

/// Columns of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureColumns {
    /// Its name.
    pub feature: String,
    /// How many.
    pub columns: u32,
}

/// How the compiled model answers the calibration rows, compared with the trained model as it was
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// Rows that were compared.
    pub rows: u32,
    /// Rows that the compiled model refuses: of a linear model, out of range.
    pub refused: u32,
    /// Rows whose most probable class is the same; none where scores are no probabilities.
    pub same_label: Option<u32>,
    /// Largest difference of any score.
    pub largest_difference: f64,
    /// Of half of the rows the largest difference of a score is at most this. Not in reports of
    /// earlier compilers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_difference: Option<f64>,
}

impl CompileReport {
    /// What goes into `client.zip`. Exact figures would say of a hidden model how many products
    /// and which leaves it has.
    pub(crate) fn for_data_owner(&self) -> Self {
        let mut report = Self { noise_bits: Vec::new(), ..self.clone() };
        if self.hidden {
            report.microseconds_per_row = round_up(report.microseconds_per_row);
            report.relative_error = round_up(report.relative_error);
            report.raw_error.iter_mut().for_each(|error| *error = round_up(*error));
            if let Some(agreement) = &mut report.agreement {
                agreement.largest_difference = round_up(agreement.largest_difference);
                agreement.median_difference = agreement.median_difference.map(round_up);
            }
        }
        report
    }

    /// As JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a struct of strings and numbers");
        json.push(b'\n');
        json
    }

    /// Reads what [`CompileReport::to_json`] wrote.
    pub fn from_json(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// Bits of the modulus that noise may use: half of it.
    fn available_bits(&self) -> f64 {
        f64::from(self.primes) * f64::from(cipherscore_engine::rlwe::primes::WORD_BITS) - 1.0
    }

    /// A picture: noise by degree against what the modulus has room for, and bytes of a row.
    pub fn svg(&self) -> String {
        picture::draw(self)
    }
}

/// To a power of two that is no smaller.
fn round_up(value: f64) -> f64 {
    if value > 0.0 { value.log2().ceil().exp2() } else { value }
}

/// What the data owner of an ensemble can learn, in sentences.
pub(crate) fn ensemble_secrets(bins: Bins, hidden: bool) -> Vec<String> {
    let thresholds = match bins {
        Bins::Used => "every threshold of the model: predicates are offered as they are",
        Bins::Padded => {
            "thresholds, mixed with decoys that are drawn as trainers draw them, as far as the \
             calibration rows have room for them; sets of categories as they are"
        }
        Bins::Full => {
            "which features have thresholds, not where; of features with sets of categories, or \
             without different values in the calibration rows, everything"
        }
    };
    let replies = match hidden {
        true => {
            "from replies no more than the exact scores of its own rows, if it sends honest bits, \
             noise and public key; whoever does not can extract the trees"
        }
        false => "the whole model from its replies, by linear algebra: it is not hidden",
    };
    let always = "number of columns, degree, sizes and timing";
    [thresholds, replies, always].map(str::to_owned).into()
}

/// What the data owner can learn of an ensemble beside [`ensemble_secrets`], where it has the row
/// form.
pub(crate) fn row_secrets() -> Vec<String> {
    let sizes = "numbers of trees and of leaves of each raw output, small ones as they are and others to \
                 one part in eight; a bound of the longest path, to a factor of two; the time of a row, and \
                 from it about how many columns are used";
    let rows = "from single rows, if it sends honest bits, noise and keys, no more than their exact \
                scores; whoever does not can extract the trees";
    [sizes, rows].map(str::to_owned).into()
}

/// What the data owner of a linear model can learn, in sentences.
pub(crate) fn linear_secrets(features: usize) -> Vec<String> {
    vec![
        format!(
            "all weights, rounded: {} answered rows give a linear model away, whatever encrypts \
             them, and so its replies are not hidden",
            features + 1
        ),
        "ranges of the features".into(),
    ]
}
