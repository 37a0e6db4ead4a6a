//! Universal Binary JSON, draft 12, as far as XGBoost writes it: a serde deserializer, so that
//! one set of types reads both of XGBoost's formats.
//!
//! Integers and floats are big-endian; every value begins with a marker byte; arrays of numbers
//! are written as `[$` marker `#` count and the bare numbers.

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::reader::ReadError;

/// Containers within containers. XGBoost needs 8.
const MAX_DEPTH: usize = 32;

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ReadError> {
    let mut reader = Reader { bytes, position: 0, depth: 0 };
    let parsed = T::deserialize(Value { reader: &mut reader, marker: None }).and_then(|value| {
        if reader.is_at_end() { Ok(value) } else { Err(Failure::new("more bytes")) }
    });
    parsed.map_err(|error| ReadError::malformed(format!("byte {}", reader.position), error.0))
}

/// What is wrong at the reader's position.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    fn new(reason: &str) -> Self {
        Failure(reason.to_owned())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Failure(message.to_string())
    }
}

struct Reader<'de> {
    bytes: &'de [u8],
    position: usize,
    depth: usize,
}

impl<'de> Reader<'de> {
    fn is_at_end(&self) -> bool {
        self.position == self.bytes.len()
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn take(&mut self, count: usize) -> Result<&'de [u8], Failure> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let taken = rest.get(..count).ok_or_else(|| Failure::new("the file ends too early"))?;
        self.position += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, Failure> {
        Ok(self.array::<1>()?[0])
    }

    /// Takes the next byte if it is the one that is asked for.
    fn follows(&mut self, expected: u8) -> bool {
        let follows = self.bytes.get(self.position) == Some(&expected);
        self.position += usize::from(follows);
        follows
    }

    fn integer(&mut self, marker: u8) -> Result<i64, Failure> {
        match marker {
            b'i' => Ok(i8::from_be_bytes(self.array()?).into()),
            b'U' => Ok(u8::from_be_bytes(self.array()?).into()),
            b'I' => Ok(i16::from_be_bytes(self.array()?).into()),
            b'l' => Ok(i32::from_be_bytes(self.array()?).into()),
            b'L' => Ok(i64::from_be_bytes(self.array()?)),
            other => Err(Failure(format!("{:?} instead of an integer", char::from(other)))),
        }
    }

    /// A length of things of at least `size` bytes each, so that the file has room for them.
    fn length(&mut self, size: usize) -> Result<usize, Failure> {
        let marker = self.byte()?;
        let length = usize::try_from(self.integer(marker)?).unwrap_or(usize::MAX);
        if length > self.remaining() / size {
            return Err(Failure(format!("{length} elements are more than the file has")));
        }
        Ok(length)
    }

    fn text(&mut self) -> Result<&'de str, Failure> {
        let length = self.length(1)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Failure::new("text that is not UTF-8"))
    }

    fn enter(&mut self) -> Result<(), Failure> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(Failure::new("nested too deeply")) } else { Ok(()) }
    }

    /// What follows `[`: the type and number of elements, where they are given.
    fn array_header(&mut self) -> Result<Elements, Failure> {
        let marker = if self.follows(b'$') { Some(self.byte()?) } else { None };
        let size = match marker {
            None | Some(b'i' | b'U') => 1,
            Some(b'I') => 2,
            Some(b'l' | b'd') => 4,
            Some(b'L' | b'D') => 8,
            Some(other) => {
                return Err(Failure(format!("an array of type {:?}", char::from(other))));
            }
        };
        let left = if self.follows(b'#') { Some(self.length(size)?) } else { None };
        if marker.is_some() && left.is_none() {
            return Err(Failure::new("an array with a type and without a length"));
        }
        Ok(Elements { marker, left })
    }
}

/// Elements of an array that are still to come.
struct Elements {
    /// The type that all share.
    marker: Option<u8>,
    /// Unknown where `]` ends the array.
    left: Option<usize>,
}

/// The next value; its marker, where it has been read or is shared.
struct Value<'r, 'de> {
    reader: &'r mut Reader<'de>,
    marker: Option<u8>,
}

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let Value { reader, marker } = self;
        let marker = match marker {
            Some(marker) => marker,
            None => reader.byte()?,
        };
        match marker {
            b'Z' => visitor.visit_unit(),
            b'T' => visitor.visit_bool(true),
            b'F' => visitor.visit_bool(false),
            b'd' => visitor.visit_f32(f32::from_be_bytes(reader.array()?)),
            b'D' => visitor.visit_f64(f64::from_be_bytes(reader.array()?)),
            b'S' => visitor.visit_borrowed_str(reader.text()?),
            b'[' => {
                reader.enter()?;
                let elements = reader.array_header()?;
                let value = visitor.visit_seq(Sequence { reader: &mut *reader, elements })?;
                reader.depth -= 1;
                Ok(value)
            }
            b'{' => {
                reader.enter()?;
                let value = visitor.visit_map(Map { reader: &mut *reader })?;
                reader.depth -= 1;
                Ok(value)
            }
            integer => visitor.visit_i64(reader.integer(integer)?),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let is_null = self.marker.is_none() && self.reader.follows(b'Z');
        if is_null { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Sequence<'r, 'de> {
    reader: &'r mut Reader<'de>,
    elements: Elements,
}

impl<'de> SeqAccess<'de> for Sequence<'_, 'de> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Failure> {
        match &mut self.elements.left {
            Some(0) => return Ok(None),
            Some(left) => *left -= 1,
            None if self.reader.follows(b']') => return Ok(None),
            None => {}
        }
        let value = Value { reader: &mut *self.reader, marker: self.elements.marker };
        seed.deserialize(value).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.elements.left
    }
}

struct Map<'r, 'de> {
    reader: &'r mut Reader<'de>,
}

impl<'de> MapAccess<'de> for Map<'_, 'de> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        if self.reader.follows(b'}') {
            return Ok(None);
        }
        let key = self.reader.text()?;
        seed.deserialize(de::value::BorrowedStrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        seed.deserialize(Value { reader: &mut *self.reader, marker: None })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn refused(bytes: &[u8]) -> String {
        parse::<Json>(bytes).unwrap_err().to_string()
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let bytes = b"{i\x01a[$l#i\x02\0\0\0\x05\xff\xff\xff\xffL\0\0\0\0\0\0\0\x01b[Sl\0\0\0\x01xTFZ]U\x01c[#U\x02d?\x80\0\0I\x01\0}";
        let expected = json!({"a": [5, -1], "b": ["x", true, false, null], "c": [1.0, 256]});
        assert_eq!(parse::<Json>(bytes).unwrap(), expected);
    }

    #[test]
    fn counts_fit_the_file() {
        assert_eq!(
            refused(b"[#l\x7f\xff\xff\xff"),
            "byte 7: 2147483647 elements are more than the file has"
        );
        assert_eq!(
            refused(b"[$L#i\x02\0\0\0\0\0\0\0\0"),
            "byte 6: 2 elements are more than the file has"
        );
        assert!(refused(b"[#i\xff").contains("more than the file has"));
        assert_eq!(refused(b"[$Z#l\x7f\xff\xff\xff"), "byte 3: an array of type 'Z'");
        assert_eq!(
            refused(b"SL\x7f\xff\xff\xff\xff\xff\xff\xff").split(':').next(),
            Some("byte 10")
        );
    }

    #[test]
    fn nesting_ends() {
        assert!(refused(&[b'['; 100_000]).ends_with("nested too deeply"));
        let maps = b"{i\x01a".repeat(100_000);
        assert!(refused(&maps).ends_with("nested too deeply"));
    }

    #[test]
    fn nothing_follows() {
        assert_eq!(refused(b"i\x01i"), "byte 2: more bytes");
        assert_eq!(refused(b"[i\x01"), "byte 3: the file ends too early");
    }
}
