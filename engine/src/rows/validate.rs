//! Which parameters of the row engine fit the table and each other.

use tfhe_ntt::prime::is_prime64;

use super::layout::RowLayout;
use super::noise::{log2_planned_deviation, log2_required_flood};
use super::parameters::{
    ExpansionStep, HEAVIEST_SECRET, HIDE_BITS, InvalidRowParameters, LOG2_HEAVIER_SECRET,
    MAX_DIGITS, MAX_FLOOD_FACTOR, MAX_REGIONS, MAX_REPLY_CIPHERTEXTS, MAX_ROW_COLUMNS,
    MAX_ROW_OUTPUTS, MAX_ROW_PLAINTEXT_MODULUS, MIN_ROW_RING_DIMENSION, REPLY_WORD_BITS,
    ROUNDING_DEVIATIONS, RowKeyParameters, RowParameters, TAG_MODULI,
};

/// What the noise below the flood may add to it, as a part: its hard bound is 2^-20 of the flood where
/// the flood hides by 45 bits or more, and 2^-11 where it hides by 36.
const NOISE_SHARE: f64 = 1.0 / 1024.0;

impl RowKeyParameters {
    /// Refuses rings that are not of the table, and steps that no expansion has.
    pub fn validate(&self) -> Result<(), InvalidRowParameters> {
        let Self { ring_dimension, primes, steps } = self;
        if self.security_bits() == 0 {
            return refuse(format!(
                "ring dimension {ring_dimension} with {primes} primes is not of the table"
            ));
        }
        if *primes < 2 {
            return refuse("one prime is not enough: an upload leaves out the last".to_owned());
        }
        let is_step = |step: &&ExpansionStep| {
            (1..=2).contains(&step.rounds) && (1..=MAX_DIGITS).contains(&step.digits)
        };
        if let Some(step) = steps.iter().find(|step| !is_step(step)) {
            return refuse(format!(
                "an expansion step of {} rounds and {} digits: 1 or 2 rounds, and 1 to {MAX_DIGITS} \
                 digits are possible",
                step.rounds, step.digits
            ));
        }
        // Not their sum, which could overflow.
        let most = ring_dimension.ilog2();
        if steps.len() > most as usize || self.rounds() > most {
            return refuse(format!("more rounds than ring dimension {ring_dimension} has"));
        }
        Ok(())
    }
}

impl RowParameters {
    /// t = t1 t2, of parameters that are valid.
    pub fn plaintext_modulus(&self) -> u64 {
        u64::from(self.tag_modulus) * self.value_modulus
    }

    /// Edges of the longest path that t1 has room for with R factors, of parameters that are valid.
    pub fn longest_allowed_path(&self) -> u32 {
        (self.tag_modulus - 1) / self.tag_factors
    }

    /// The sum that stands for 0: an owner takes it off what it decrypts. It is the offset of every
    /// region, so that sums of leaves may be from `-(t2 - 1) / 2` to `(t2 - 1) / 2`.
    pub fn value_centre(&self) -> i64 {
        // t2 is at most 2^42.
        i64::try_from((self.value_modulus - 1) / 2).unwrap_or(i64::MAX)
    }

    /// Refuses what is not of the table or does not fit together, and a flood that hides less than it
    /// says.
    pub fn validate(&self) -> Result<(), InvalidRowParameters> {
        self.keys.validate()?;
        self.validate_moduli()?;
        self.validate_outputs()?;
        self.validate_places()?;
        self.validate_words()?;
        self.validate_flood()
    }

    fn validate_moduli(&self) -> Result<(), InvalidRowParameters> {
        let (t1, t2) = (self.tag_modulus, self.value_modulus);
        if !TAG_MODULI.contains(&t1) {
            return refuse(format!("tag modulus {t1} is none of {TAG_MODULI:?}"));
        }
        if t2 % 2 == 0 || t2 == u64::from(t1) || !is_prime64(t2) {
            return refuse(format!("value modulus {t2} is not an odd prime other than {t1}"));
        }
        if t2 > MAX_ROW_PLAINTEXT_MODULUS / u64::from(t1) {
            return refuse(format!("plaintext modulus {t1} * {t2} is above 2^42"));
        }
        match (1..t1).contains(&self.tag_factors) {
            true => Ok(()),
            false => refuse(format!("{} tag factors with tag modulus {t1}", self.tag_factors)),
        }
    }

    fn validate_outputs(&self) -> Result<(), InvalidRowParameters> {
        if !(1..=MAX_REGIONS).contains(&self.regions.len()) {
            return refuse(format!(
                "{} raw outputs are not from 1 to {MAX_REGIONS}",
                self.regions.len()
            ));
        }
        if let Some(region) =
            self.regions.iter().find(|region| !(1..=region.outputs).contains(&region.trees))
        {
            return refuse(format!(
                "{} trees with {} leaves together",
                region.trees, region.outputs
            ));
        }
        let outputs: u64 = self.regions.iter().map(|region| u64::from(region.outputs)).sum();
        match outputs <= u64::from(MAX_ROW_OUTPUTS) {
            true => Ok(()),
            false => refuse(format!("{outputs} outputs are more than {MAX_ROW_OUTPUTS}")),
        }
    }

    fn validate_places(&self) -> Result<(), InvalidRowParameters> {
        let (columns, group) = (self.columns, self.group_columns);
        let ring_dimension = self.keys.ring_dimension;
        if ring_dimension < MIN_ROW_RING_DIMENSION {
            return refuse(format!(
                "ring dimension {ring_dimension} is below {MIN_ROW_RING_DIMENSION}: its secrets may be too \
                 heavy for the words of a reply"
            ));
        }
        if !(1..=MAX_ROW_COLUMNS).contains(&columns) {
            return refuse(format!("{columns} columns are not from 1 to {MAX_ROW_COLUMNS}"));
        }
        if !group.is_power_of_two() || group > ring_dimension {
            return refuse(format!("{group} columns of a group are not a power of two up to N"));
        }
        let groups = u64::from(columns.div_ceil(group).next_power_of_two());
        if groups * u64::from(group) > u64::from(ring_dimension) {
            return refuse(format!("{columns} columns do not fit ring dimension {ring_dimension}"));
        }
        let ciphertexts = self.layout().reply_ciphertexts();
        if ciphertexts > MAX_REPLY_CIPHERTEXTS {
            return refuse(format!(
                "{ciphertexts} ciphertexts of a reply are more than {MAX_REPLY_CIPHERTEXTS}"
            ));
        }
        let rounds = (ring_dimension / group).ilog2();
        match self.keys.rounds() == rounds {
            true => Ok(()),
            false => refuse(format!(
                "keys of {} rounds, where {group} columns of a group need {rounds}",
                self.keys.rounds()
            )),
        }
    }

    /// A word of a reply is decrypted when the flood and all rounding together stay below half of
    /// what a message is apart:
    ///
    /// ```text
    /// t ((M1 + M2) / 2q + 14.1 sqrt((1 + 0.74 N) / 12) / 2^w) < 1/2
    /// ```
    fn validate_words(&self) -> Result<(), InvalidRowParameters> {
        if self.flood.iter().any(|width| !(1..=MAX_FLOOD_FACTOR).contains(&width.factor)) {
            return refuse(format!("a factor of the flood is not from 1 to {MAX_FLOOD_FACTOR}"));
        }
        if self.flood.iter().any(|width| width.bits == 0) {
            return refuse("a width of the flood is not even".to_owned());
        }
        if !HIDE_BITS.contains(&self.hide) {
            return refuse(format!("hiding by {} bits is not by {HIDE_BITS:?}", self.hide));
        }
        if !REPLY_WORD_BITS.contains(&self.word_bits) {
            return refuse(format!(
                "words of {} bits are not of {REPLY_WORD_BITS:?}",
                self.word_bits
            ));
        }
        let share = self.flood_share() * (1.0 + NOISE_SHARE) + self.rounding_share();
        match share < 0.5 {
            true => Ok(()),
            false => refuse(format!(
                "flood and rounding take {share:.3} of what messages are apart, of which only a half \
                 is theirs"
            )),
        }
    }

    /// The flood must hide the noise of any program of these parameters by as many bits as they say.
    fn validate_flood(&self) -> Result<(), InvalidRowParameters> {
        let [first, second] = self.flood.map(|width| width.log2());
        let deviation = log2_planned_deviation(self);
        let required = log2_required_flood(deviation, self.hide, first.min(second));
        let missing = required - (first + second) / 2.0;
        match missing <= 0.0 {
            true => Ok(()),
            false => refuse(format!(
                "a flood that should hide by {} bits is {missing:.1} bits too narrow",
                self.hide
            )),
        }
    }

    /// Largest flood, as a part of what messages are apart: `t (M1 + M2) / 2q`.
    pub fn flood_share(&self) -> f64 {
        let t = self.plaintext_modulus() as f64;
        let relative = |log2: f64| (log2 - 1.0 - self.keys.log2_modulus()).exp2();
        t * self.flood.iter().map(|width| relative(width.log2())).sum::<f64>()
    }

    /// Largest rounding of a word, as a part of what messages are apart, but for a probability of
    /// 2^-142.
    pub fn rounding_share(&self) -> f64 {
        let weight = HEAVIEST_SECRET * f64::from(self.keys.ring_dimension);
        let deviation = ((1.0 + weight) / 12.0).sqrt();
        let t = self.plaintext_modulus() as f64;
        t * ROUNDING_DEVIATIONS * deviation / f64::from(self.word_bits).exp2()
    }

    /// log2 of a bound of the probability that any output of a row is decrypted wrongly, of parameters that
    /// are valid: rounding takes more than there is, or the secret is too heavy.
    pub fn log2_failure(&self) -> f64 {
        (self.log2_rounding_failure().exp2() + LOG2_HEAVIER_SECRET.exp2()).log2()
    }

    /// All rounding has what the flood leaves, and is beyond x deviations with probability
    /// `2 exp(-x^2 / 2)` at most.
    fn log2_rounding_failure(&self) -> f64 {
        let room = 0.5 - self.flood_share() * (1.0 + NOISE_SHARE);
        let deviations = room / self.rounding_share() * ROUNDING_DEVIATIONS;
        let outputs = self.layout().outputs() as f64;
        1.0 + outputs.log2() - deviations * deviations / (2.0 * std::f64::consts::LN_2)
    }

    /// Where columns and outputs are, of parameters that are valid.
    pub fn layout(&self) -> RowLayout {
        RowLayout::new(self)
    }
}

fn refuse<T>(reason: String) -> Result<T, InvalidRowParameters> {
    Err(InvalidRowParameters(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::models::parameters;

    #[test]
    fn parameters_that_do_not_fit_are_refused() {
        type Change = fn(&mut RowParameters);
        let valid = parameters();
        valid.validate().unwrap();
        let changes: &[(&str, Change)] = &[
            ("no ring of the table", |p| p.keys.ring_dimension = 1024),
            ("too large a modulus", |p| p.keys.primes = 5),
            ("one prime", |p| p.keys.primes = 1),
            ("one prime of the table", |p| {
                p.keys = RowKeyParameters { ring_dimension: 4096, primes: 1, steps: vec![] };
            }),
            ("no rounds", |p| p.keys.steps[0].rounds = 0),
            ("three rounds", |p| p.keys.steps[0].rounds = 3),
            ("no digits", |p| p.keys.steps[0].digits = 0),
            ("too many digits", |p| p.keys.steps[0].digits = 5),
            ("a round too many", |p| p.keys.steps.push(ExpansionStep { rounds: 1, digits: 1 })),
            ("a round too few", |p| p.keys.steps.truncate(4)),
            ("rounds beyond the ring", |p| {
                p.keys.steps = vec![ExpansionStep { rounds: 2, digits: 1 }; 7];
            }),
            ("a tag modulus of another list", |p| p.tag_modulus = 11),
            ("an even value modulus", |p| p.value_modulus = 2),
            ("no prime", |p| p.value_modulus = 8193),
            ("one prime twice", |p| p.value_modulus = u64::from(p.tag_modulus)),
            ("a large plaintext modulus", |p| p.value_modulus = (1 << 40) + 15),
            ("no tag factors", |p| p.tag_factors = 0),
            ("too many tag factors", |p| p.tag_factors = p.tag_modulus),
            ("no region", |p| p.regions.clear()),
            ("too many regions", |p| p.regions = vec![p.regions[0]; MAX_REGIONS + 1]),
            ("no trees", |p| p.regions[0].trees = 0),
            ("trees without leaves", |p| p.regions[0].trees = p.regions[0].outputs + 1),
            ("too many outputs", |p| p.regions[0].outputs = MAX_ROW_OUTPUTS + 1),
            ("no columns", |p| p.columns = 0),
            ("too many columns", |p| p.columns = p.keys.ring_dimension + 1),
            ("no group", |p| p.group_columns = 0),
            ("no power of two", |p| p.group_columns = 3),
            ("too long a reply", |p| {
                p.regions[0].outputs = 1 << 16;
                p.group_columns = 64;
                p.keys.steps = crate::rows::tests::models::steps(7, 1);
            }),
            ("a group beyond the ring", |p| p.group_columns = 2 * p.keys.ring_dimension),
            ("no flood", |p| p.flood[0].factor = 0),
            ("a large factor", |p| p.flood[0].factor = MAX_FLOOD_FACTOR + 1),
            ("an odd width", |p| p.flood[1].bits = 0),
            ("too wide a flood", |p| p.flood[0].bits += 2),
            ("an absurd flood", |p| p.flood[1].bits = u32::MAX),
            ("hides little", |p| p.hide = 35),
            ("hides less than it says", |p| p.hide = 64),
            ("too narrow a flood", |p| p.flood[0].bits -= 20),
            ("short words", |p| p.word_bits -= 8),
            ("long words", |p| p.word_bits = 57),
        ];
        for (what, change) in changes {
            let mut changed = valid.clone();
            change(&mut changed);
            assert!(changed.validate().is_err(), "{what}");
        }
    }

    #[test]
    fn secrets_of_a_small_ring_may_be_too_heavy() {
        let steps = crate::rows::tests::models::steps(8, 1);
        let keys = RowKeyParameters { ring_dimension: 4096, primes: 2, steps };
        let error = RowParameters { keys, ..parameters() }.validate().unwrap_err().to_string();
        assert!(error.contains("ring dimension 4096 is below 8192"), "{error}");
    }

    /// What the words are made for, and what is written down, is what they give.
    #[test]
    fn failures_are_as_probable_as_the_room_says() {
        let parameters = parameters();
        assert!(parameters.log2_failure() < -148.0);
        let least = parameters.log2_rounding_failure();
        let shorter = RowParameters { word_bits: parameters.word_bits - 1, ..parameters };
        // Half as many deviations.
        let outputs = (73.0f64).log2() + 1.0;
        let quarter = (least - outputs) / 4.0 + outputs;
        assert!((shorter.log2_rounding_failure() - quarter).abs() < 1e-6);
    }
}
