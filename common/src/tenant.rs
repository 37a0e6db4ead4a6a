//! Tenants.

use std::str::FromStr;

use cipherscore_ids::{serde_as_text, text_form};
use thiserror::Error;

/// Longest name of a tenant, in characters.
pub const MAX_TENANT_LENGTH: usize = 64;

/// Whose keys and models these are. The characters leave no way out of a name in the store, and
/// none is special in its patterns.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(String);

/// Text that is not the name of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a tenant is named by 1 to {MAX_TENANT_LENGTH} characters of a-z, 0-9 and -")]
pub struct InvalidTenant;

impl Tenant {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tenant {
    type Err = InvalidTenant;

    fn from_str(text: &str) -> Result<Self, InvalidTenant> {
        let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let length = 1..=MAX_TENANT_LENGTH;
        match length.contains(&text.len()) && text.as_bytes().iter().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidTenant),
        }
    }
}

/// Where there is one tenant only.
impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

text_form!(Tenant);
serde_as_text!(Tenant);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_cannot_leave_its_names() {
        assert_eq!("bank-7".parse::<Tenant>().unwrap().as_str(), "bank-7");
        let long = "a".repeat(MAX_TENANT_LENGTH);
        assert!(long.parse::<Tenant>().is_ok());
        for wrong in ["", "Bank", "a:b", "*", "a b", "ä", "a\n", &format!("{long}a")] {
            assert_eq!(wrong.parse::<Tenant>(), Err(InvalidTenant), "{wrong}");
        }
    }
}
