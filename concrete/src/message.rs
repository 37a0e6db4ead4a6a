//! Which of Concrete's messages some bytes are. Cap'n Proto says no type; what it points to differs.

/// Messages that are files of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConcreteMessage {
    /// `ServerKeyset`: three lists.
    EvaluationKeys,
    /// `ClientKeyset`: one list.
    ClientKeys,
    /// `Value`: three structs.
    Value,
}

/// Low two bits of a pointer to a struct, and to a list.
const STRUCT: u8 = 0;
const LIST: u8 = 1;

impl ConcreteMessage {
    /// By the pointers of its root; none of what is no such message.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let pointers = root_pointers(bytes)?;
        Some(match pointers.as_slice() {
            [STRUCT, STRUCT, STRUCT] => Self::Value,
            [LIST, LIST, LIST] => Self::EvaluationKeys,
            [LIST] => Self::ClientKeys,
            _ => return None,
        })
    }
}

/// Low bits of the pointers of the struct that is the root: of a stream's first segment, behind the
/// table of segments.
fn root_pointers(bytes: &[u8]) -> Option<Vec<u8>> {
    /// Segments of a message, and pointers of a root, are few.
    const MAX_SEGMENTS: u32 = 1 << 16;
    const MAX_POINTERS: u16 = 8;
    let segments = u32::from_le_bytes(*bytes.first_chunk()?).checked_add(1)?;
    if segments > MAX_SEGMENTS {
        return None;
    }
    let table = (4 + 4 * segments as usize).next_multiple_of(8);
    let word = |index: usize| -> Option<&[u8; 8]> {
        bytes.get(index.checked_mul(8)?.checked_add(table)?..)?.first_chunk()
    };
    let root = word(0)?;
    let (low, high) = (u32::from_le_bytes(*root.first_chunk()?), &root[4..]);
    let data = u16::from_le_bytes([high[0], high[1]]);
    let pointers = u16::from_le_bytes([high[2], high[3]]);
    // A struct in this segment, behind the pointer.
    if low & 3 != u32::from(STRUCT) || low >> 31 == 1 || pointers > MAX_POINTERS {
        return None;
    }
    let first = 1 + (low >> 2) as usize + usize::from(data);
    (0..usize::from(pointers)).map(|index| Some(word(first + index)?[0] & 3)).collect()
}
