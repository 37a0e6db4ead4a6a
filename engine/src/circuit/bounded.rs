//! Lists whose elements take far more memory than bytes in a file: an empty table is one byte there
//! and three words here. They end at the bound of a valid circuit, not at the end of the file.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Reads a list of at most `LIMIT` elements.
pub(super) fn list<'de, T, const LIMIT: usize, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Elements::<T, LIMIT>(PhantomData))
}

struct Elements<T, const LIMIT: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const LIMIT: usize> Visitor<'de> for Elements<T, LIMIT> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {LIMIT} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            if list.len() == LIMIT {
                return Err(A::Error::custom(format!("a list of more than {LIMIT} elements")));
            }
            list.push(element);
        }
        Ok(list)
    }
}
