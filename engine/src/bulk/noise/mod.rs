//! How large phases become: variances of what is decrypted, in units of the phase.
//!
//! The phase of a fresh column is `m + t e` with `e` of variance σ², and, where rows are slots,
//! with a message whose coefficients are spread over all of t:
//!
//! ```text
//! V_f = t^2 (σ^2 + 1/12)    of each of its N coefficients
//! ```
//!
//! An output is a polynomial in columns. Its monomials are uncorrelated, and in the evaluation
//! domain a phase is a complex Gaussian of variance `N V_f`, for which `E|z^k|^2 = k! (N V_f)^k`.
//! So, with `c_M` the coefficient of the monomial M over all trees, d its degree and k the
//! multiplicities of its columns,
//!
//! ```text
//! V = sum over M of c_M^2 * (product of k!) * N^(d-1) V_f^d
//! ```
//!
//! Where rows are coefficients there is no product, and the message is exact: `V = sum of w^2 t^2
//! σ^2`.

mod expand;

use std::collections::HashMap;

use thiserror::Error;

use self::expand::{Expansion, Polynomial};
use super::parameters::{Packing, Parameters};
use super::program::{MAX_DEGREE, ValidProgram};
use crate::rlwe::sampling::{ERROR_VARIANCE, SECRET_VARIANCE};

/// One secret of 2^128 may have larger powers than is counted on, and tails are as heavy as they
/// are at 2^-128.
const TAIL_BITS: f64 = 128.0;
/// From this degree on, a bit is always spent on heavy tails.
const HEAVY_TAIL_DEGREE: u32 = 5;
/// Splits of a tail that are tried.
const TAIL_SPLITS: u32 = 64;
/// Monomials that are held at a time.
pub const MAX_MONOMIALS: usize = 1 << 22;
/// Times that a coefficient is added to a monomial.
pub const MAX_ADDITIONS: u64 = 1 << 26;

/// Why the noise of a program is not known.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoiseError {
    /// The program expands beyond [`MAX_MONOMIALS`] or [`MAX_ADDITIONS`].
    #[error("the polynomials have too many monomials; fewer levels or fewer trees have less")]
    TooManyMonomials,
    /// A coefficient is beyond 127 bits.
    #[error("a coefficient of a polynomial is too large")]
    Overflow,
}

/// What of a program decides about noise, in any ring.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    outputs: Vec<Moment>,
    degree: u32,
}

/// Of one output.
#[derive(Debug, Clone, PartialEq)]
struct Moment {
    /// For each degree the sum of `c_M^2 * product of k!`.
    squares: [f64; MAX_DEGREE as usize + 1],
    /// For each degree the largest part of it that the monomials of one column have.
    shares: [f64; MAX_DEGREE as usize + 1],
    /// Sum of the magnitudes of the coefficients of degree 1.
    weights: f64,
}

impl Moments {
    /// Expands the program into distinct monomials.
    pub fn new(program: &ValidProgram) -> Result<Self, NoiseError> {
        let outputs = Expansion::outputs(program)?.iter().map(Moment::new).collect();
        Ok(Self { outputs, degree: program.degree() })
    }

    /// Variance of the monomials of one degree, of the output that has most.
    pub fn variance_of_degree(&self, parameters: &Parameters, degree: u32) -> f64 {
        let of = |moment: &Moment| moment.squares[degree as usize];
        self.outputs.iter().map(of).fold(0.0, f64::max) * of_monomial(parameters, degree)
    }

    /// V, of the output that has most, with what makes up for tails that are heavier than a
    /// Gaussian's.
    pub fn variance(&self, parameters: &Parameters) -> f64 {
        let of = |moment: &Moment| -> f64 {
            let degrees = (0u32..).zip(moment.squares.into_iter().zip(moment.shares)).skip(1);
            let variances = degrees.map(|(degree, (squares, share))| {
                squares * of_monomial(parameters, degree) * heavy_tail(parameters, degree, share)
            });
            variances.sum()
        };
        self.outputs.iter().map(of).fold(0.0, f64::max)
    }

    /// Without the monomials above a degree.
    pub(super) fn up_to(&self, degree: u32) -> Self {
        let mut cut = self.clone();
        cut.degree = cut.degree.min(degree);
        for moment in &mut cut.outputs {
            moment.squares.iter_mut().skip(degree as usize + 1).for_each(|square| *square = 0.0);
        }
        cut
    }

    /// Bound of what messages add to a phase: half of t; and where rows are coefficients, t for
    /// each column, whose integer may have been brought below t/2.
    pub fn message_bound(&self, parameters: &Parameters) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let modulus = parameters.plaintext_modulus as f64;
        match parameters.packing {
            Packing::Slots => modulus / 2.0,
            Packing::Coefficients => {
                let weights = self.outputs.iter().map(|moment| moment.weights).fold(0.0, f64::max);
                modulus * (0.5 + weights)
            }
        }
    }
}

/// Variance of the phase of what the sanitiser adds: for i = 1..=D, with uniform ternary r and
/// errors e, e1 and e2,
///
/// ```text
/// s^(i-1) * ((r pk_0 + t e1) + s (r pk_1 + t e2)) = t (r e s^(i-1) + e1 s^(i-1) + e2 s^i)
/// ```
///
/// as `pk_0 + pk_1 s = t e`. With S_i the sum of squares of the coefficients of s^i, about
/// `i! (2N/3)^i`, that is `t^2 σ^2 (2N/3 S_(i-1) + S_(i-1) + S_i)`.
pub fn sanitiser_variance(parameters: &Parameters, degree: u32) -> f64 {
    let of = |i: u32| {
        let before = secret_power(parameters, i - 1);
        let ternary = SECRET_VARIANCE * f64::from(parameters.ring_dimension);
        before * ternary + before + secret_power(parameters, i)
    };
    square_of_modulus(parameters) * ERROR_VARIANCE * (1..=degree).map(of).sum::<f64>()
}

/// Variance of the phase of what rounds components 0..=D to multiples of the dropped primes, in
/// units of the smaller phase. Component i is off by a uniform multiple of t/P between -t/2 and
/// t/2: `t^2/12 * (S_0 + ... + S_D)`.
pub fn rounding_variance(parameters: &Parameters, degree: u32) -> f64 {
    let powers: f64 = (0..=degree).map(|i| secret_power(parameters, i)).sum();
    square_of_modulus(parameters) / 12.0 * powers
}

/// S_i, of all secrets but one of 2^128.
///
/// In the evaluation domain s is a complex Gaussian of variance 2N/3: `|s(ζ)|^2 / (2N/3)` is
/// exponential, and its i-th power has the mean i!. A data owner has one secret for ever, and high
/// powers are far from their mean when s is large in a single pair of conjugate points out of N/2,
/// which is how such sums of heavy tails deviate. With `X = 128 ln 2 + ln(N/2)`, beyond which no
/// point is,
///
/// ```text
/// S_i = (2N/3)^i (i! + 2 X^i / N)
/// ```
fn secret_power(parameters: &Parameters, power: u32) -> f64 {
    let dimension = f64::from(parameters.ring_dimension);
    let largest = TAIL_BITS * std::f64::consts::LN_2 + (dimension / 2.0).ln();
    let (mut scale, mut mean, mut jump) = (1.0, 1.0, 2.0 / dimension);
    for factor in 1..=power {
        scale *= SECRET_VARIANCE * dimension;
        mean *= f64::from(factor);
        jump *= largest;
    }
    if power == 0 { 1.0 } else { scale * (mean + jump) }
}

/// How much larger a Gaussian's variance would be, to have the tail at 2^-128 of a sum of products
/// of d phases.
///
/// Given d - 1 factors, a coefficient of one product is Gaussian, of a variance that is the mean
/// over the evaluation domain of a product of d - 1 exponential variables. Of `L = 128 ln 2`, let
/// `f L` be spent on one pair of conjugate points out of N/2 where that product is large, and the
/// rest on the Gaussian. Of a sum, only monomials that share the factors grow with them; they are
/// no more than those that share a column, which have the share S of the variance:
///
/// ```text
/// max over f of (1 - f) (1 + S 2/N ((f L + ln(N/2)) / (d - 1))^(d-1))
/// ```
///
/// From [`HEAVY_TAIL_DEGREE`] on it is at least 4: one bit of the standard deviation.
fn heavy_tail(parameters: &Parameters, degree: u32, share: f64) -> f64 {
    if degree < 2 {
        return 1.0;
    }
    let dimension = f64::from(parameters.ring_dimension);
    let (budget, others) = (TAIL_BITS * std::f64::consts::LN_2, degree - 1);
    let tried = (0..TAIL_SPLITS).map(|split| {
        let part = f64::from(split) / f64::from(TAIL_SPLITS);
        let largest = (part * budget + (dimension / 2.0).ln()) / f64::from(others);
        let jump: f64 = (0..others).map(|_| largest).product();
        (1.0 - part) * (1.0 + share * 2.0 / dimension * jump)
    });
    let least = if degree >= HEAVY_TAIL_DEGREE { 4.0 } else { 1.0 };
    tried.fold(least, f64::max)
}

/// t².
fn square_of_modulus(parameters: &Parameters) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let modulus = parameters.plaintext_modulus as f64;
    modulus * modulus
}

/// `N^(d-1) V_f^d`.
fn of_monomial(parameters: &Parameters, degree: u32) -> f64 {
    let message = match parameters.packing {
        Packing::Slots => 1.0 / 12.0,
        Packing::Coefficients => 0.0,
    };
    let fresh = square_of_modulus(parameters) * (ERROR_VARIANCE + message);
    let dimension = f64::from(parameters.ring_dimension);
    (0..degree).map(|factor| if factor == 0 { fresh } else { dimension * fresh }).product()
}

impl Moment {
    fn new(polynomial: &Polynomial) -> Self {
        let zero = [0.0; MAX_DEGREE as usize + 1];
        let mut moment = Self { squares: zero, shares: zero, weights: 0.0 };
        let mut columns: HashMap<(usize, u16), f64> = HashMap::new();
        for (monomial, &coefficient) in polynomial {
            #[allow(clippy::cast_precision_loss)]
            let coefficient = coefficient as f64;
            let square = coefficient * coefficient * monomial.arrangements();
            let degree = usize::from(monomial.degree);
            moment.squares[degree] += square;
            for column in monomial.distinct_columns() {
                *columns.entry((degree, column)).or_default() += square;
            }
            if degree == 1 {
                moment.weights += coefficient.abs();
            }
        }
        for ((degree, _), square) in columns {
            if square > 0.0 {
                let share = &mut moment.shares[degree];
                *share = share.max(square / moment.squares[degree]);
            }
        }
        moment
    }
}

#[cfg(test)]
mod tests {
    use super::super::program::{Node, Output, Program};
    use super::super::tests::samples::{Numbers, affine, column, full_trees};
    use super::*;

    fn slots(ring_dimension: u32, plaintext_modulus: u64) -> Parameters {
        Parameters { packing: Packing::Slots, ring_dimension, primes: 1, plaintext_modulus }
    }

    fn bits(variance: f64) -> f64 {
        variance.log2() / 2.0
    }

    /// 100 full trees with leaves between -127 and 127, in columns that are hardly shared:
    /// `T (N V_f)^(D-1) 2^(D-2) (4 L^2 / 3) V_f`.
    #[test]
    fn independent_trees_have_the_noise_of_the_formula() {
        let mut numbers = Numbers(3);
        for (depth, dimension, modulus, expected) in [
            (3, 4096, 40961, 74.0),
            (4, 4096, 40961, 97.5),
            (5, 8192, 65537, 126.4),
            (6, 8192, 65537, 151.1),
        ] {
            let trees = full_trees(&mut numbers, 100, depth, 65_536).validate().unwrap();
            let (moments, parameters) = (Moments::new(&trees).unwrap(), slots(dimension, modulus));
            let of_degree = bits(moments.variance_of_degree(&parameters, depth));
            assert!((of_degree - expected).abs() < 0.2, "{depth}: {of_degree}");
            // Trees have few columns in common: below degree 5, tails are those of a Gaussian.
            let tail = if depth < HEAVY_TAIL_DEGREE { 0.0 } else { 1.0 };
            let of_tail = bits(moments.variance(&parameters)) - of_degree - tail;
            assert!((0.0..0.2).contains(&of_tail), "{depth}: {of_tail}");
        }
    }

    #[test]
    fn tails_are_heavier_with_the_degree() {
        let tail = |degree| bits(heavy_tail(&slots(8192, 65537), degree, 1.0));
        assert_eq!(tail(1), 0.0);
        assert!(tail(2) < 0.01 && tail(3) < 0.1 && tail(4) < 0.5, "{} {}", tail(3), tail(4));
        assert!((1.0..1.5).contains(&tail(5)), "{}", tail(5));
        assert!((1.5..3.0).contains(&tail(6)), "{}", tail(6));
        assert!((2..MAX_DEGREE).all(|degree| tail(degree) <= tail(degree + 1)));
    }

    fn output(columns: u32, nodes: Vec<Node>, roots: &[u32]) -> Moments {
        let outputs = vec![Output { constant: 0, roots: roots.to_vec() }];
        Moments::new(&Program { columns, nodes, outputs }.validate().unwrap()).unwrap()
    }

    fn times(column_of: u32, factor: u32) -> Node {
        let product =
            super::super::program::Product { indicator: column(column_of), factor, minus: None };
        Node::Select { base: None, products: vec![product] }
    }

    #[test]
    fn monomials_are_summed_before_they_are_squared() {
        let nodes = vec![Node::Affine(affine(0, &[(0, 3)])), times(1, 0), times(1, 0)];
        let parameters = slots(4096, 40961);
        let once = output(2, nodes.clone(), &[1]).variance(&parameters);
        let twice = output(2, nodes, &[1, 2]).variance(&parameters);
        assert_eq!(twice, 4.0 * once);
        let opposite =
            vec![Node::Affine(affine(7, &[(0, 3)])), Node::Affine(affine(1, &[(0, -3)]))];
        assert_eq!(output(1, opposite, &[0, 1]).variance(&parameters), 0.0);
    }

    #[test]
    fn powers_of_a_column_count_their_arrangements() {
        let nodes = |second| vec![Node::Affine(affine(0, &[(0, 1)])), times(second, 0)];
        let parameters = slots(4096, 40961);
        let square = output(2, nodes(0), &[1]).variance(&parameters);
        let product = output(2, nodes(1), &[1]).variance(&parameters);
        assert_eq!(square, 2.0 * product);
    }

    #[test]
    fn sums_of_coefficients_have_no_message_noise() {
        let linear = output(2, vec![Node::Affine(affine(0, &[(0, 3), (1, -4)]))], &[0]);
        let packing = Packing::Coefficients;
        let parameters = Parameters { packing, plaintext_modulus: 16, ..slots(2048, 0) };
        assert_eq!(linear.variance(&parameters), 25.0 * 256.0 * 10.5);
        assert_eq!(linear.message_bound(&parameters), 16.0 * 7.5);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        // One root of 128 monomials, 2^20 times: more additions than there may be.
        let terms: Vec<_> = (0..128).map(|column| (column, 1)).collect();
        let nodes = vec![Node::Affine(affine(0, &terms))];
        let outputs = vec![Output { constant: 0, roots: vec![0; 1 << 20] }];
        let program = Program { columns: 128, nodes, outputs }.validate().unwrap();
        assert_eq!(Moments::new(&program).unwrap_err(), NoiseError::TooManyMonomials);
    }

    #[test]
    fn sanitiser_and_rounding_follow_their_formulas() {
        let parameters = slots(2048, 12289);
        let (t, ternary) = (12289.0f64, 2.0 / 3.0 * 2048.0);
        let (s1, s2) = (secret_power(&parameters, 1), secret_power(&parameters, 2));
        let close = |left: f64, right: f64| assert!((left / right - 1.0).abs() < 1e-12);
        let first = t * t * 10.5 * (ternary + 1.0 + s1);
        close(sanitiser_variance(&parameters, 1), first);
        assert_eq!(sanitiser_variance(&parameters, 0), 0.0);
        close(sanitiser_variance(&parameters, 2), first + t * t * 10.5 * (ternary * s1 + s1 + s2));
        close(rounding_variance(&parameters, 2), t * t / 12.0 * (1.0 + s1 + s2));
    }

    /// Sums of squares of the coefficients of powers of ternary secrets, multiplied out: near their
    /// means for low powers, and below the bound for all.
    #[test]
    fn powers_of_secrets_stay_below_their_bound() {
        let dimension = 256;
        let parameters = slots(u32::try_from(dimension).unwrap(), 12289);
        let mut numbers = Numbers(4);
        let mut mean = 0.0;
        for _ in 0..20 {
            let secret: Vec<f64> = (0..dimension).map(|_| numbers.below(3) as f64 - 1.0).collect();
            let mut power = secret.clone();
            for degree in 2..=6 {
                power = product(&power, &secret);
                let squares: f64 = power.iter().map(|c| c * c).sum();
                assert!(squares < secret_power(&parameters, degree));
                if degree == 2 {
                    mean += squares / 20.0 / (2.0 * (2.0 / 3.0 * 256.0f64).powi(2));
                }
            }
        }
        assert!((mean - 1.0).abs() < 0.15, "{mean}");
    }

    /// Modulo X^N + 1.
    fn product(left: &[f64], right: &[f64]) -> Vec<f64> {
        let mut product = vec![0.0; left.len()];
        for (shift, factor) in left.iter().enumerate() {
            for (power, word) in right.iter().enumerate() {
                let wraps = shift + power >= left.len();
                let sign = if wraps { -1.0 } else { 1.0 };
                product[(shift + power) % left.len()] += sign * factor * word;
            }
        }
        product
    }
}
