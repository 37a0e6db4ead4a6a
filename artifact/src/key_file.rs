//! Files of a data owner's keys with a section for each form of an artifact.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `CSFORMSK` of secrets, `CSFORMEK` of evaluation keys |
//! | 4 | version, 1 |
//! | 16 | owner id |
//! | 4 | sections |
//! | 12 for each | form (4 bytes: 1 bulk, 2 rows), bytes of the section (8 bytes) |
//! | | the sections, one after the other |
//!
//! Numbers are little-endian. Forms are ascending, and nothing is behind the last section. Artifacts
//! that have the bulk form only have their engine's own files instead.

use cipherscore_engine::bulk::secret::{PUBLIC_MAGIC, PublicKey};
use cipherscore_engine::rows::evaluation_key::ROW_KEY_MAGIC;
use cipherscore_ids::{FormName, OwnerId};
use thiserror::Error;
use zeroize::Zeroizing;

/// First bytes of a file of secrets.
pub const SECRETS_MAGIC: [u8; 8] = *b"CSFORMSK";
/// First bytes of a file of evaluation keys.
pub const EVALUATION_KEYS_MAGIC: [u8; 8] = *b"CSFORMEK";
const VERSION: u32 = 1;
/// Bytes before the list of sections.
const HEADER_BYTES: usize = 32;
/// Bytes of an entry of the list.
const ENTRY_BYTES: usize = 12;
/// Most bytes that such a file has beside its sections.
pub const MAX_KEY_FILE_OVERHEAD: usize = HEADER_BYTES + ENTRY_BYTES * FormName::ALL.len();

/// Bytes that are no file of keys, or not of the form that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyFileError {
    /// Something else, or of another version.
    #[error("not a file of keys with a section for each form, or one of another version")]
    Format,
    /// A form that there is not, or twice, or in another order.
    #[error("a file of keys whose sections are not bulk, rows, or both in this order")]
    Sections,
    /// Sections that end before their length, or bytes behind the last one.
    #[error("a file of keys with {found} bytes, where its sections need {expected}")]
    Length {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: u64,
    },
    /// No section of a form.
    #[error(
        "these keys are not for the form `{0}` of the model: take those that `cipherscore keygen` \
         makes with a client.zip that has it"
    )]
    NoSection(FormName),
    /// A section that says another owner.
    #[error("a file of keys of owner {file}, with a key of {}", .section.map_or_else(|| "nobody".into(), |id| format!("owner {id}")))]
    OtherOwner {
        /// Of the file.
        file: OwnerId,
        /// Of the section.
        section: Option<OwnerId>,
    },
}

/// Which keys a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    Secrets,
    Evaluation,
}

impl Keys {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Secrets => SECRETS_MAGIC,
            Self::Evaluation => EVALUATION_KEYS_MAGIC,
        }
    }
}

/// A section by its form.
pub(crate) type Section<'a> = (FormName, &'a [u8]);

fn code(form: FormName) -> u32 {
    match form {
        FormName::Bulk => 1,
        FormName::Rows => 2,
    }
}

/// A file of secrets.
pub(crate) fn write_secrets(owner: OwnerId, sections: &[Section<'_>]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(write(Keys::Secrets, owner, sections))
}

/// A file of evaluation keys.
pub(crate) fn write_evaluation_keys(owner: OwnerId, sections: &[Section<'_>]) -> Vec<u8> {
    write(Keys::Evaluation, owner, sections)
}

/// Sections in ascending order of their forms.
fn write(keys: Keys, owner: OwnerId, sections: &[Section<'_>]) -> Vec<u8> {
    let bytes = sections.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    // Room for all of it at once: a growing buffer would leave copies of secrets behind.
    let mut file = Vec::with_capacity(HEADER_BYTES + ENTRY_BYTES * sections.len() + bytes);
    file.extend(keys.magic());
    file.extend(VERSION.to_le_bytes());
    file.extend(owner.to_bytes());
    file.extend(u32::try_from(sections.len()).expect("a section for each form").to_le_bytes());
    for (form, bytes) in sections {
        file.extend(code(*form).to_le_bytes());
        file.extend((bytes.len() as u64).to_le_bytes());
    }
    sections.iter().for_each(|(_, bytes)| file.extend_from_slice(bytes));
    file
}

/// What a file of keys holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyFile<'a> {
    pub(crate) owner: OwnerId,
    sections: Vec<Section<'a>>,
}

impl<'a> KeyFile<'a> {
    /// Reads a file of secrets.
    pub(crate) fn of_secrets(file: &'a [u8]) -> Result<Self, KeyFileError> {
        Self::read(Keys::Secrets, file)
    }

    fn read(keys: Keys, file: &'a [u8]) -> Result<Self, KeyFileError> {
        let (header, rest) =
            file.split_first_chunk::<HEADER_BYTES>().ok_or(KeyFileError::Format)?;
        if header[..8] != keys.magic() || header[8..12] != VERSION.to_le_bytes() {
            return Err(KeyFileError::Format);
        }
        let owner = *header[12..].first_chunk().expect("it is longer");
        let owner = OwnerId::from_bytes(owner).ok_or(KeyFileError::Format)?;
        let count = u32::from_le_bytes(*header.last_chunk().expect("it is longer")) as usize;
        if !(1..=FormName::ALL.len()).contains(&count) {
            return Err(KeyFileError::Sections);
        }
        let list = ENTRY_BYTES * count;
        let (list, mut bytes) = rest.split_at_checked(list).ok_or(KeyFileError::Length {
            found: file.len(),
            expected: (HEADER_BYTES + list) as u64,
        })?;
        let entries = list.as_chunks::<ENTRY_BYTES>().0.iter().map(|entry| {
            let (found, length) = entry.split_first_chunk().expect("four of twelve bytes");
            let form = FormName::ALL.into_iter().find(|form| code(*form).to_le_bytes() == *found);
            let length = u64::from_le_bytes(length.try_into().expect("the other eight"));
            Ok((form.ok_or(KeyFileError::Sections)?, length))
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        if !entries.is_sorted_by(|(before, _), (after, _)| before < after) {
            return Err(KeyFileError::Sections);
        }
        let all = entries.iter().fold(0u64, |all, (_, length)| all.saturating_add(*length));
        if all != bytes.len() as u64 {
            let expected = all.saturating_add((HEADER_BYTES + list.len()) as u64);
            return Err(KeyFileError::Length { found: file.len(), expected });
        }
        let sections = entries.into_iter().map(|(form, length)| {
            // Not more than all of them have.
            let (section, rest) = bytes.split_at(usize::try_from(length).unwrap_or(bytes.len()));
            bytes = rest;
            (form, section)
        });
        Ok(Self { owner, sections: sections.collect() })
    }

    /// The section of a form.
    pub(crate) fn section(&self, form: FormName) -> Result<&'a [u8], KeyFileError> {
        let found = self.sections.iter().find(|(name, _)| *name == form);
        found.map(|(_, section)| *section).ok_or(KeyFileError::NoSection(form))
    }
}

/// The evaluation key of a form, of what a data owner's file of evaluation keys holds: the section of
/// this form, or the whole file where it is the engine's own.
///
/// Whose a section is is compared with whose the file says that it is, where the section says it.
pub fn evaluation_key_of(file: &[u8], form: Option<FormName>) -> Result<&[u8], KeyFileError> {
    if !file.starts_with(&EVALUATION_KEYS_MAGIC) {
        return match form {
            Some(FormName::Bulk) if file.starts_with(&ROW_KEY_MAGIC) => {
                Err(KeyFileError::NoSection(FormName::Bulk))
            }
            Some(FormName::Rows) if file.starts_with(&PUBLIC_MAGIC) => {
                Err(KeyFileError::NoSection(FormName::Rows))
            }
            _ => Ok(file),
        };
    }
    let keys = KeyFile::read(Keys::Evaluation, file)?;
    let form = form.unwrap_or(FormName::Bulk);
    let section = keys.section(form)?;
    if form == FormName::Bulk {
        let owner = PublicKey::owner_of(section);
        if owner != Some(keys.owner) {
            return Err(KeyFileError::OtherOwner { file: keys.owner, section: owner });
        }
    }
    Ok(section)
}

/// A serialised evaluation key, and its form if it has a name.
pub type NamedKey<'a> = (Option<FormName>, &'a [u8]);

/// The evaluation keys of a file, by their forms; one without a name, where it is the engine's own.
pub fn evaluation_keys_of(file: &[u8]) -> Result<Vec<NamedKey<'_>>, KeyFileError> {
    if !file.starts_with(&EVALUATION_KEYS_MAGIC) {
        return Ok(vec![(None, file)]);
    }
    let keys = KeyFile::read(Keys::Evaluation, file)?;
    let forms = keys.sections.iter().map(|(form, _)| *form);
    forms.map(|form| Ok((Some(form), evaluation_key_of(file, Some(form))?))).collect()
}

/// Whose a file of evaluation keys says that it is, by its first bytes.
pub(crate) fn owner_of_evaluation_keys(start: &[u8]) -> Option<OwnerId> {
    let rest = start.strip_prefix(&EVALUATION_KEYS_MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    rest.first_chunk().copied().and_then(OwnerId::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: OwnerId = OwnerId::from_bytes(*b"sixteen bytes id").unwrap();

    fn file() -> Vec<u8> {
        write(Keys::Secrets, OWNER, &[(FormName::Bulk, b"bulk!"), (FormName::Rows, b"rows")])
    }

    fn refused(file: &[u8]) -> KeyFileError {
        KeyFile::of_secrets(file).unwrap_err()
    }

    #[test]
    fn golden_bytes() {
        let expected = b"CSFORMSK\x01\0\0\0sixteen bytes id\x02\0\0\0\
            \x01\0\0\0\x05\0\0\0\0\0\0\0\x02\0\0\0\x04\0\0\0\0\0\0\0bulk!rows";
        assert_eq!(file(), expected);
        let read = KeyFile::of_secrets(expected).unwrap();
        assert_eq!(read.owner, OWNER);
        assert_eq!(read.section(FormName::Bulk), Ok(&b"bulk!"[..]));
        assert_eq!(read.section(FormName::Rows), Ok(&b"rows"[..]));
        let rows = write_secrets(OWNER, &[(FormName::Rows, b"rows")]);
        let rows = KeyFile::of_secrets(&rows).unwrap();
        assert_eq!(rows.section(FormName::Bulk), Err(KeyFileError::NoSection(FormName::Bulk)));
    }

    #[test]
    fn every_other_length_is_refused() {
        let file = file();
        for length in 0..HEADER_BYTES {
            assert_eq!(refused(&file[..length]), KeyFileError::Format);
        }
        for length in HEADER_BYTES..file.len() {
            assert!(matches!(refused(&file[..length]), KeyFileError::Length { .. }), "{length}");
        }
        let longer = [&file[..], b"!"].concat();
        let expected = KeyFileError::Length { found: 66, expected: 65 };
        assert_eq!(refused(&longer), expected);
        // Lengths whose sum wraps around.
        let mut huge = file;
        huge[36..44].fill(0xff);
        huge[48..56].fill(0xff);
        assert!(matches!(refused(&huge), KeyFileError::Length { expected: u64::MAX, .. }));
    }

    #[test]
    fn sections_are_each_forms_own_and_in_order() {
        let bulk: Section<'_> = (FormName::Bulk, b"bulk");
        let rows: Section<'_> = (FormName::Rows, b"rows");
        for sections in [&[][..], &[rows, bulk], &[bulk, bulk], &[bulk, rows, rows]] {
            assert_eq!(refused(&write(Keys::Secrets, OWNER, sections)), KeyFileError::Sections);
        }
        let mut unknown = file();
        unknown[44] = 3;
        assert_eq!(refused(&unknown), KeyFileError::Sections);
        let mut version = file();
        version[8] = 2;
        assert_eq!(refused(&version), KeyFileError::Format);
        assert_eq!(refused(&write(Keys::Evaluation, OWNER, &[bulk])), KeyFileError::Format);
    }

    /// A public key's first bytes, of an owner.
    fn public(owner: OwnerId) -> Vec<u8> {
        [&PUBLIC_MAGIC[..], &2u32.to_le_bytes(), &[0; 16], &owner.to_bytes(), b"words"].concat()
    }

    #[test]
    fn evaluation_keys_are_found_by_their_form_and_owner() {
        let (bulk, rows) = (public(OWNER), [&ROW_KEY_MAGIC[..], b"rows"].concat());
        let sections = [(FormName::Bulk, bulk.as_slice()), (FormName::Rows, rows.as_slice())];
        let both = write_evaluation_keys(OWNER, &sections);
        assert_eq!(owner_of_evaluation_keys(&both[..28]), Some(OWNER));
        assert_eq!(owner_of_evaluation_keys(&both[..27]), None);
        for (form, key) in
            [(None, &bulk), (Some(FormName::Bulk), &bulk), (Some(FormName::Rows), &rows)]
        {
            assert_eq!(evaluation_key_of(&both, form), Ok(key.as_slice()));
        }
        let named = sections.map(|(form, key)| (Some(form), key));
        assert_eq!(evaluation_keys_of(&both).unwrap(), named);
        // The engines' own files, and what is none of ours.
        for (file, form, other) in
            [(&bulk, FormName::Bulk, FormName::Rows), (&rows, FormName::Rows, FormName::Bulk)]
        {
            assert_eq!(evaluation_key_of(file, Some(form)), Ok(file.as_slice()));
            assert_eq!(evaluation_key_of(file, None), Ok(file.as_slice()));
            let refused = evaluation_key_of(file, Some(other));
            assert_eq!(refused, Err(KeyFileError::NoSection(other)));
            assert_eq!(evaluation_keys_of(file).unwrap(), [(None, file.as_slice())]);
        }
        assert_eq!(evaluation_key_of(b"concrete's", None), Ok(&b"concrete's"[..]));
    }

    #[test]
    fn keys_in_each_others_sections_or_of_another_owner_are_refused() {
        let (bulk, rows) = (public(OWNER), [&ROW_KEY_MAGIC[..], b"rows"].concat());
        let other = OwnerId::from_bytes([9; 16]).unwrap();
        for (owner, bulk, section) in [
            (other, &bulk, Some(OWNER)),
            (OWNER, &public(other), Some(other)),
            (OWNER, &rows, None),
        ] {
            let file = write_evaluation_keys(owner, &[(FormName::Bulk, bulk)]);
            let refused = evaluation_key_of(&file, Some(FormName::Bulk));
            assert_eq!(refused, Err(KeyFileError::OtherOwner { file: owner, section }));
            assert!(evaluation_keys_of(&file).is_err());
        }
    }
}
