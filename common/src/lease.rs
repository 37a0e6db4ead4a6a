//! How long the store keeps something that nobody renews.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cipherscore_ids::serde_as_text;
use thiserror::Error;

/// Longest lease, in seconds: ten years.
pub const MAX_LEASE_SECONDS: u64 = 3650 * DAY_SECONDS;

const DAY_SECONDS: u64 = 24 * 60 * 60;
const UNITS: &[(&str, u64)] = &[("d", DAY_SECONDS), ("h", 60 * 60), ("m", 60), ("s", 1)];

/// A time of whole seconds, from 1 to [`MAX_LEASE_SECONDS`]. Written as a number and one unit:
/// `30d`, `12h`, `90m`, `45s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease(u64);

/// Text that is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a time is a number and a unit, such as 30d, 12h, 90m or 45s, from 1s to 3650d")]
pub struct InvalidLease;

impl Lease {
    /// What keys get unless told otherwise.
    pub const DEFAULT: Self = Self::days(30);

    /// Of a number of days from 1 to 3650; others are brought into that range.
    pub const fn days(days: u16) -> Self {
        Self(match days {
            0 => DAY_SECONDS,
            1..3650 => days as u64 * DAY_SECONDS,
            3650.. => MAX_LEASE_SECONDS,
        })
    }

    /// What rows and outputs in the store get unless told otherwise.
    pub const PAYLOAD: Self = Self(7 * DAY_SECONDS);

    /// In seconds.
    pub const fn seconds(self) -> u64 {
        self.0
    }

    /// As a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl FromStr for Lease {
    type Err = InvalidLease;

    fn from_str(text: &str) -> Result<Self, InvalidLease> {
        let unit =
            UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
        let (number, seconds) = unit.ok_or(InvalidLease)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidLease);
        }
        let number: u64 = number.parse().map_err(|_| InvalidLease)?;
        match number.checked_mul(*seconds) {
            Some(seconds @ 1..=MAX_LEASE_SECONDS) => Ok(Self(seconds)),
            _ => Err(InvalidLease),
        }
    }
}

/// In the largest unit that gives a whole number.
impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, seconds): &&(&str, u64)| self.0.is_multiple_of(*seconds);
        match UNITS.iter().find(fits) {
            Some((unit, seconds)) => write!(f, "{}{unit}", self.0 / seconds),
            None => write!(f, "{}s", self.0),
        }
    }
}

serde_as_text!(Lease);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_a_number_and_a_unit() {
        for (text, seconds) in [("30d", 2_592_000), ("12h", 43_200), ("90m", 5_400), ("45s", 45)] {
            let lease: Lease = text.parse().unwrap();
            assert_eq!((lease.seconds(), lease.to_string().as_str()), (seconds, text));
        }
        for wrong in
            ["", "d", "30", "0s", "-1d", "+1d", "1.5h", "3651d", "1w", "99999999999999999999d"]
        {
            assert_eq!(wrong.parse::<Lease>(), Err(InvalidLease), "{wrong}");
        }
    }
}
