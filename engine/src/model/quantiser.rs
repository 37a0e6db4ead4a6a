//! Uniform quantisation, operation for operation as Concrete ML's `UniformQuantizer`, so that
//! integers are equal and not merely close.

use super::ModelError;

/// The integer that stands for 0.0.
#[derive(Debug, Clone, PartialEq)]
pub enum ZeroPoint {
    /// The same for all values.
    Scalar(f64),
    /// An array that is broadcast over the outputs as numpy does it: one for each output of a
    /// linear model, one for each channel of a convolution.
    Array {
        /// Its dimensions, the outermost first.
        shape: Vec<usize>,
        /// As many as the product of the dimensions, in row-major order.
        values: Vec<f64>,
    },
}

impl ZeroPoint {
    /// One zero point for each output of a row, in row-major order of `shape`.
    fn broadcast(&self, shape: &[usize]) -> Result<Vec<f64>, ModelError> {
        let outputs = shape.iter().product();
        let (own, values) = match self {
            Self::Scalar(value) => return Ok(vec![*value; outputs]),
            Self::Array { shape, values } => (shape, values),
        };
        let fits = |(own, dimension): (&usize, &usize)| *own == 1 || own == dimension;
        if own.len() > shape.len() || !own.iter().rev().zip(shape.iter().rev()).all(fits) {
            return Err(ModelError::ZeroPoint { found: own.clone(), shape: shape.to_vec() });
        }
        let position = |output: usize| {
            let (mut rest, mut stride, mut position) = (output, 1, 0);
            for (own, dimension) in own.iter().rev().zip(shape.iter().rev()) {
                position += (rest % dimension) % own * stride;
                rest /= dimension;
                stride *= own;
            }
            position
        };
        Ok((0..outputs).map(|output| values[position(output)]).collect())
    }
}

/// `q = rint(x / scale + zero_point)`, `x = scale * (q - zero_point)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantiser {
    /// Distance of neighbouring values.
    pub scale: f64,
    /// The integer of 0.0.
    pub zero_point: ZeroPoint,
    /// Smallest and largest integer; none where nothing is clipped.
    pub clip: Option<(i64, i64)>,
}

impl Quantiser {
    /// Integers that are values.
    pub fn identity() -> Self {
        Self { scale: 1.0, zero_point: ZeroPoint::Scalar(0.0), clip: None }
    }

    /// The integer of a value, half rounded to even; none when it does not fit 64 bits, or when
    /// this is a quantiser of outputs, with an array of zero points.
    pub fn quantise(&self, value: f64) -> Option<i64> {
        let ZeroPoint::Scalar(zero_point) = self.zero_point else { return None };
        let real = (value / self.scale + zero_point).round_ties_even();
        let real = match self.clip {
            #[allow(clippy::cast_precision_loss, reason = "bounds have at most 32 bits")]
            Some((low, high)) => real.clamp(low as f64, high as f64),
            None => real,
        };
        /// 2^63, the first value beyond `i64`.
        const BEYOND: f64 = 9_223_372_036_854_775_808.0;
        #[allow(clippy::cast_possible_truncation, reason = "an integer within range")]
        (-BEYOND..BEYOND).contains(&real).then_some(real as i64)
    }

    /// The number in double precision that has the integer which a number in single precision has
    /// there. numpy computes with 32-bit arrays in 32 bits: scale, zero point and every step are
    /// rounded to them, so that a value near the border of two integers may take the other one than
    /// in 64 bits. What is not finite remains so.
    pub fn widen(&self, value: f32) -> f64 {
        let ZeroPoint::Scalar(zero_point) = self.zero_point else { return value.into() };
        if !value.is_finite() {
            return value.into();
        }
        #[allow(clippy::cast_possible_truncation, reason = "rounded as numpy does")]
        let (scale, single_zero_point) = (self.scale as f32, zero_point as f32);
        let integer = (value / scale + single_zero_point).round_ties_even();
        let integer = match self.clip {
            #[allow(clippy::cast_precision_loss, reason = "rounded as numpy does")]
            Some((low, high)) => integer.clamp(low as f32, high as f32),
            None => integer,
        };
        self.scale * (f64::from(integer) - zero_point)
    }

    /// The values of a row's integers, in row-major order of `shape`.
    pub fn dequantise(&self, integers: &[i64], shape: &[usize]) -> Result<Vec<f64>, ModelError> {
        #[allow(
            clippy::cast_precision_loss,
            reason = "outputs have at most 62 bits; numpy rounds alike"
        )]
        let value = |(&integer, zero_point)| self.scale * (integer as f64 - zero_point);
        Ok(integers.iter().zip(self.zero_point.broadcast(shape)?).map(value).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantiser() -> Quantiser {
        Quantiser { scale: 1.0, zero_point: ZeroPoint::Scalar(0.0), clip: Some((-8, 7)) }
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        let halves = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5].map(|x| quantiser().quantise(x));
        assert_eq!(halves, [-2, -2, 0, 0, 2, 2].map(Some));
    }

    /// Values by the borders of integers, as numpy 1.26 and Concrete ML 1.9 quantise 32-bit arrays
    /// of them; in 64 bits each has the neighbouring integer.
    #[test]
    fn single_precision_is_quantised_as_numpy_does() {
        let cases = [
            (0.240_000_000_000_000_05, -18.0, (0, 15), [(0x408e_147b, 0, 1), (0x4095_c28f, 2, 1)]),
            (
                0.001_319_824_373_910_969,
                -24.0,
                (-128, 127),
                [(0xbe0b_e159, -128, -127), (0xbd60_5958, -66, -65)],
            ),
            (
                16.682_352_941_176_47,
                -128.0,
                (-128, 127),
                [(0x41c8_3030, -126, -127), (0x4105_7576, -128, -127)],
            ),
            (1.114_285_741_533_551_9, 0.0, (0, 7), [(0x3fd5_f15f, 2, 1), (0x4032_4925, 2, 3)]),
        ];
        for (scale, zero_point, clip, values) in cases {
            let zero_point = ZeroPoint::Scalar(zero_point);
            let quantiser = Quantiser { scale, zero_point, clip: Some(clip) };
            for (bits, single, double) in values {
                let value = f32::from_bits(bits);
                assert_eq!(quantiser.quantise(quantiser.widen(value)), Some(single), "{value}");
                assert_eq!(quantiser.quantise(value.into()), Some(double), "{value}");
            }
        }
    }

    /// Whatever the value, the integer of 32-bit arithmetic survives the way through 64 bits.
    #[test]
    fn widened_values_have_the_integers_of_single_precision() {
        for (scale, zero_point, high) in
            [(0.24f32, -18.0f32, 7), (1.3e-3, -24.0, 127), (16.7, -128.0, 32767)]
        {
            let (low, zero) = (-high - 1, ZeroPoint::Scalar(zero_point.into()));
            let quantiser =
                Quantiser { scale: scale.into(), zero_point: zero, clip: Some((low, high)) };
            for step in -2000i16..2000 {
                let value = (0.25 * f32::from(step) - zero_point) * scale;
                let integer = (value / scale + zero_point).round_ties_even();
                #[allow(clippy::cast_possible_truncation, reason = "an integer of few bits")]
                let expected = (integer as i64).clamp(low, high);
                assert_eq!(quantiser.quantise(quantiser.widen(value)), Some(expected), "{value}");
            }
        }
        let quantiser = quantiser();
        assert!(quantiser.widen(f32::NAN).is_nan());
        assert!(quantiser.widen(f32::INFINITY).is_infinite());
    }

    #[test]
    fn values_beyond_the_range_are_clipped() {
        assert_eq!(quantiser().quantise(1e300), Some(7));
        assert_eq!(quantiser().quantise(-1e300), Some(-8));
    }

    #[test]
    fn zero_points_are_broadcast_as_numpy_does() {
        let values = |own: &[usize], shape: &[usize]| {
            let count = own.iter().product::<usize>();
            let values = (0..count).map(|i| -(i as f64)).collect();
            let zero_point = ZeroPoint::Array { shape: own.to_vec(), values };
            let quantiser = Quantiser { scale: 0.5, zero_point, clip: None };
            quantiser.dequantise(&vec![0; shape.iter().product()], shape).map_err(drop)
        };
        assert_eq!(values(&[3], &[1, 3]).unwrap(), [0.0, 0.5, 1.0]);
        assert_eq!(values(&[1, 3], &[1, 3]).unwrap(), [0.0, 0.5, 1.0]);
        assert_eq!(values(&[], &[1, 2]).unwrap(), [0.0, 0.0]);
        // A convolution of two channels, 1 x 3 each; then one that varies in all but its rows.
        let channels = values(&[1, 2, 1, 1], &[1, 2, 1, 3]).unwrap();
        assert_eq!(channels, [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]);
        let rows = values(&[2, 1, 2], &[1, 2, 2, 2]).unwrap();
        assert_eq!(rows, [0.0, 0.5, 0.0, 0.5, 1.0, 1.5, 1.0, 1.5]);
        for (own, shape) in [(&[2][..], &[1, 3][..]), (&[1, 1, 3], &[1, 3]), (&[3, 1], &[1, 3])] {
            assert_eq!(values(own, shape), Err(()), "{own:?} over {shape:?}");
        }
    }

    #[test]
    fn without_clipping_what_does_not_fit_is_refused() {
        let quantiser = Quantiser { clip: None, ..quantiser() };
        assert_eq!(quantiser.quantise(1e19), None);
        assert_eq!(quantiser.quantise(-9.2e18), Some(-9_200_000_000_000_000_000));
        assert_eq!(quantiser.quantise(f64::NAN), None);
    }
}
