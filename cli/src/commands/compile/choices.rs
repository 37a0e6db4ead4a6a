//! What `compile` is asked for, with its help.

use anyhow::{Context, bail, ensure};
use cipherscore_compiler::settle::LeftOutLink;
use cipherscore_compiler::{Bins, Rounds, WantedForms};
use clap::ValueEnum;

/// Failure probabilities that can be asked for, as powers of 2.
const P_FAIL: std::ops::RangeInclusive<f64> = -1024.0..=-20.0;

/// As [`Bins`], with help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BinsChoice {
    /// The real ones among decoys, which are drawn as trainers draw thresholds. Needs --calibration.
    Padded,
    /// The real ones and no others: the smallest upload.
    Used,
    /// A grid of quantiles, to which the real ones are moved: hides them, and changes decisions.
    /// Needs --calibration.
    Full,
}

impl From<BinsChoice> for Bins {
    fn from(choice: BinsChoice) -> Self {
        match choice {
            BinsChoice::Padded => Self::Padded,
            BinsChoice::Used => Self::Used,
            BinsChoice::Full => Self::Full,
        }
    }
}

/// As [`LeftOutLink`], with help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LinkChoice {
    /// Nothing.
    Identity,
    /// The exponential function.
    Exp,
}

impl LinkChoice {
    pub(super) fn link(self) -> LeftOutLink {
        match self {
            Self::Identity => LeftOutLink::Identity,
            Self::Exp => LeftOutLink::Exp,
        }
    }
}

/// As [`WantedForms`], with help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormChoice {
    /// Thousands of rows at a time, microseconds each.
    Bulk,
    /// Single rows, milliseconds each, of trees of any depth.
    Rows,
    /// Both, where the model fits both and a row is worth it; else the one that it fits. Whoever encrypts
    /// takes the one that costs less for its rows.
    Both,
}

impl From<FormChoice> for WantedForms {
    fn from(choice: FormChoice) -> Self {
        match choice {
            FormChoice::Bulk => Self::Bulk,
            FormChoice::Rows => Self::Rows,
            FormChoice::Both => Self::Both,
        }
    }
}

/// A power of 2, such as 2^-64, or a number, such as 1e-20: its logarithm.
pub(super) fn parse_p_fail(text: &str) -> anyhow::Result<f64> {
    let log2 = match text.strip_prefix("2^") {
        Some(exponent) => exponent.parse::<f64>()?,
        None => text.parse::<f64>()?.log2(),
    };
    match P_FAIL.contains(&log2) {
        true => Ok(log2),
        false => {
            bail!("from 2^{} to 2^{}, written as 2^-64 or 1e-20", P_FAIL.start(), P_FAIL.end())
        }
    }
}

pub(super) fn parse_rounds(text: &str) -> anyhow::Result<Rounds> {
    Ok(match text {
        "best" => Rounds::Best,
        "all" => Rounds::All,
        text => Rounds::First(text.parse().context("best, all, or a number of rounds")?),
    })
}

pub(super) fn parse_error(text: &str) -> anyhow::Result<f64> {
    let error = text.parse::<f64>()?;
    ensure!(error > 0.0 && error < 1.0, "a number between 0 and 1");
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_powers_or_numbers() {
        assert_eq!(parse_p_fail("2^-64").unwrap(), -64.0);
        assert!((parse_p_fail("1e-20").unwrap() + 66.44).abs() < 0.01);
        for wrong in ["2^0", "0", "1", "-3", "2^-4000", "often", "2^", "nan"] {
            assert!(parse_p_fail(wrong).is_err(), "{wrong}");
        }
    }
}
