//! Names of the forms in which a compiled model can be evaluated.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::serde_as_text;

/// A way in which a compiled model can be evaluated. Models of Concrete ML have one way only, which has
/// no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FormName {
    /// Many rows at a time, a column of them in a ciphertext.
    Bulk,
    /// One row at a time, all its columns in one ciphertext.
    Rows,
}

/// Text that names no form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a form is bulk or rows")]
pub struct UnknownForm;

impl FormName {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Bulk, Self::Rows];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Rows => "rows",
        }
    }
}

impl fmt::Display for FormName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FormName {
    type Err = UnknownForm;

    fn from_str(text: &str) -> Result<Self, UnknownForm> {
        Self::ALL.into_iter().find(|form| form.as_str() == text).ok_or(UnknownForm)
    }
}

serde_as_text!(FormName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_one_text() {
        for form in FormName::ALL {
            assert_eq!(form.to_string().parse(), Ok(form));
        }
        for wrong in ["", "Bulk", "row", "bulk "] {
            assert_eq!(wrong.parse::<FormName>(), Err(UnknownForm), "{wrong}");
        }
    }
}
