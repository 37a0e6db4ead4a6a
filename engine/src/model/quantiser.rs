//! Uniform quantisation, operation for operation as Concrete ML's `UniformQuantizer`, so that
//! integers are equal and not merely close.

/// The integer that stands for 0.0.
#[derive(Debug, Clone, PartialEq)]
pub enum ZeroPoint {
    /// The same for all values.
    Scalar(f64),
    /// One for each output of a linear model.
    PerOutput(Vec<f64>),
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
    /// The integer of a value, half rounded to even; none when it does not fit 64 bits.
    pub fn quantise(&self, value: f64) -> Option<i64> {
        let real = (value / self.scale + self.zero_point(0)).round_ties_even();
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

    /// The value of an integer; `index` is its position among a row's outputs.
    pub fn dequantise(&self, integer: i64, index: usize) -> f64 {
        #[allow(
            clippy::cast_precision_loss,
            reason = "outputs have at most 62 bits; numpy rounds alike"
        )]
        let integer = integer as f64;
        self.scale * (integer - self.zero_point(index))
    }

    fn zero_point(&self, index: usize) -> f64 {
        match &self.zero_point {
            ZeroPoint::Scalar(value) => *value,
            ZeroPoint::PerOutput(values) => values[index % values.len()],
        }
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

    #[test]
    fn values_beyond_the_range_are_clipped() {
        assert_eq!(quantiser().quantise(1e300), Some(7));
        assert_eq!(quantiser().quantise(-1e300), Some(-8));
    }

    #[test]
    fn without_clipping_what_does_not_fit_is_refused() {
        let quantiser = Quantiser { clip: None, ..quantiser() };
        assert_eq!(quantiser.quantise(1e19), None);
        assert_eq!(quantiser.quantise(-9.2e18), Some(-9_200_000_000_000_000_000));
        assert_eq!(quantiser.quantise(f64::NAN), None);
    }
}
