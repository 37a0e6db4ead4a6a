//! Flood and words of a reply: whether parameters have room for both.

use super::super::noise::{log2_planned_deviation, log2_required_flood};
use super::super::parameters::{
    FloodWidth, MAX_FLOOD_FACTOR, REPLY_WORD_BITS, ROUNDING_DEVIATIONS, RowParameters,
};

/// Bits of a word beyond those of t: with fewer, rounding takes most of the room, with more, a reply
/// is longer for nothing.
const WORD_MARGIN: std::ops::RangeInclusive<u32> = 12..=15;
/// Largest M2, as a part of M1 + M2. The shorter the sides of the trapezoid are, the closer an output
/// that is not reached is to uniform modulo t, whatever was added to it.
const SHORT_SIDE: f64 = 0.2;
/// What of half the distance of messages flood and rounding may take together: the noise below the
/// flood is far less than the rest.
const ROOM: f64 = 0.998;

/// Why a flood does not fit: bits of q that it needs, and has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct NoRoom {
    pub(super) needed: f64,
    pub(super) available: f64,
}

/// Fills in the shortest words and the widest flood that fit, of parameters that are right but for
/// these.
pub(super) fn fit(
    mut parameters: RowParameters,
    log2_failure: f64,
) -> Result<RowParameters, NoRoom> {
    let log2_t = (parameters.plaintext_modulus() as f64).log2();
    let deviation = log2_planned_deviation(&parameters);
    let mut closest = NoRoom { needed: f64::INFINITY, available: parameters.keys.log2_modulus() };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 42")]
    let bits = log2_t.ceil() as u32;
    for word_bits in WORD_MARGIN.map(|margin| bits + margin) {
        if !REPLY_WORD_BITS.contains(&word_bits) {
            continue;
        }
        parameters.word_bits = word_bits;
        // Half of the distance of messages, less what rounding takes.
        let rounding = parameters.rounding_share() * deviations(&parameters, log2_failure);
        let share = 1.0 - 2.0 * rounding;
        let log2_room = parameters.keys.log2_modulus() - log2_t + (share.max(0.0) * ROOM).log2();
        match flood(deviation, parameters.hide, log2_room) {
            Ok(flood) => {
                parameters.flood = flood;
                return Ok(parameters);
            }
            Err(missing) => closest.needed = closest.needed.min(closest.available + missing),
        }
    }
    Err(closest)
}

/// Deviations of rounding that words have room for, relative to [`ROUNDING_DEVIATIONS`]. A sum of
/// independent uniform terms is beyond x deviations with probability `2 exp(-x^2 / 2)` at most.
fn deviations(parameters: &RowParameters, log2_failure: f64) -> f64 {
    let outputs = parameters.layout().outputs() as f64;
    let needed = (2.0 * std::f64::consts::LN_2 * (1.0 + outputs.log2() - log2_failure)).sqrt();
    (needed / ROUNDING_DEVIATIONS).max(1.0)
}

/// The trapezoid that fills a room and hides a deviation; else how many bits are missing.
fn flood(log2_deviation: f64, hide: u32, log2_room: f64) -> Result<[FloodWidth; 2], f64> {
    // M2 is a part s of the room, M1 the rest, and s (1 - s) the square of what is required.
    let required = log2_required_flood(log2_deviation, hide, log2_room);
    let square = (2.0 * (required - log2_room)).exp2();
    let most = SHORT_SIDE * (1.0 - SHORT_SIDE);
    if square > most || square.is_nan() {
        return Err(required - log2_room - most.log2() / 2.0);
    }
    // (1 - sqrt(1 - 4 x)) / 2, which would be 0 for a small x.
    let short = 2.0 * square / (1.0 + (1.0 - 4.0 * square).sqrt());
    let long = width(log2_room + (1.0 - short).log2(), f64::floor);
    Ok([long, width(log2_room + short.log2(), f64::ceil)])
}

/// A width near one, rounded to a factor of as many bits as there may be.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far below 2^32")]
fn width(log2: f64, round: fn(f64) -> f64) -> FloodWidth {
    let bits = (log2 - f64::from(MAX_FLOOD_FACTOR).log2() + 1.0).floor().max(1.0);
    FloodWidth { factor: round((log2 - bits).exp2()).max(1.0) as u32, bits: bits as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By all that a flood must do: enough to hide, no more than there is room for, short sides.
    #[test]
    fn floods_hide_and_fill_their_room() {
        let mut found = 0;
        for log2_room in [60.0, 101.3, 134.77, 150.0] {
            for below in 40..70 {
                let deviation = log2_room - f64::from(below);
                let Ok([long, short]) = flood(deviation, 45, log2_room) else { continue };
                let required = log2_required_flood(deviation, 45, short.log2());
                assert!(long.log2() + short.log2() >= 2.0 * required - 1e-3, "{log2_room} {below}");
                let both = (long.log2() - log2_room).exp2() + (short.log2() - log2_room).exp2();
                assert!((0.9999..1.000_001).contains(&both), "{both}");
                assert!(short.log2() <= long.log2() - 1.99);
                assert!(long.factor <= MAX_FLOOD_FACTOR && short.factor <= MAX_FLOOD_FACTOR);
                found += 1;
            }
        }
        assert!((50..100).contains(&found), "{found}");
    }

    #[test]
    fn floods_hide_where_there_is_far_more_room() {
        for below in 70..150 {
            let (deviation, log2_room) = (20.0, 20.0 + f64::from(below));
            let [long, short] = flood(deviation, 45, log2_room).unwrap();
            let required = log2_required_flood(deviation, 45, short.log2());
            assert!(long.log2() + short.log2() >= 2.0 * required, "{below}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let missing = flood(100.0, 45, 140.0).unwrap_err();
        assert!(flood(100.0, 45, 140.0 + missing - 0.1).is_err());
        assert!(flood(100.0, 45, 140.0 + missing + 0.1).is_ok());
    }
}
