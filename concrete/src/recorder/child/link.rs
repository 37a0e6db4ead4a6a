//! Links an image against the recording runtime, in safe code.
//!
//! All imports are looked at before anything else, so that an object which needs more than the
//! runtime is refused by the name of what it needs. Paths and libraries that the object names
//! belong to the machine where it was compiled, and are ignored.

use object::LittleEndian;
use object::elf::{self, Dyn64, DynamicTag, FileHeader64, Rela64, Sym64};
use object::pod;
use object::read::elf::{Dyn, GnuHashTable, HashTable, Sym};

#[cfg(any(test, fuzzing))]
use super::elf::PAGE_BYTES;
use super::elf::{ENDIAN, Image, Rights, Segment, size, unsupported};
use crate::recorder::RecordError;
use crate::recorder::limits::{MAX_NAME_BYTES, MAX_RELOCATIONS, MAX_SYMBOLS};

/// What the exported function of a circuit is called, before the circuit's own name.
const ENTRY_PREFIX: &str = "_mlir_concrete_";
/// Dataflow functions other than `_dfr_start` and `_dfr_stop`, which every circuit calls.
const DATAFLOW_PREFIX: &str = "_dfr_";

/// Finds the address of a runtime function by name.
pub(super) type Resolve = dyn Fn(&str) -> Option<usize>;

/// An image that is ready to be placed.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) bytes: Vec<u8>,
    pub(super) segments: Vec<Segment>,
    pub(super) patches: Vec<Patch>,
    /// Address of the circuit's function, inside an executable segment.
    pub(super) entry: usize,
}

#[cfg(any(test, fuzzing))]
impl Program {
    /// What the mapping relies on.
    pub(super) fn check(&self) {
        let holds = |rights, address, length| {
            let segments = self.segments.iter().filter(|segment| segment.rights == rights);
            segments.into_iter().any(|segment: &Segment| {
                address >= segment.start && address + length <= segment.end
            })
        };
        assert!(holds(Rights::Execute, self.entry, 1), "the entry is not code");
        for patch in &self.patches {
            assert!(holds(Rights::Write, patch.place, 8), "{patch:?} is not in data");
        }
        let mut before = 0;
        for Segment { start, end, .. } in &self.segments {
            let pages = start.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES);
            assert!(pages && before <= *start && start <= end, "segments share pages");
            before = *end;
        }
        assert_eq!(self.bytes.len(), before);
    }
}

/// A word of the image to be written before it runs; the place is inside a writable segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patch {
    pub(super) place: usize,
    pub(super) target: Target,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// An address inside the image, from its start.
    Image(usize),
    /// An address of the runtime.
    Runtime(usize),
}

pub(super) fn link(
    image: Image,
    circuit_name: &str,
    resolve: &Resolve,
) -> Result<Program, RecordError> {
    let tables = Tables::find(&image)?;
    for symbol in tables.symbols.iter().skip(1).filter(|symbol| symbol.is_undefined(ENDIAN)) {
        tables.import(symbol, resolve)?;
    }
    let entry = tables.entry(&image, &format!("{ENTRY_PREFIX}{circuit_name}"))?;
    let patches = tables
        .relocations
        .iter()
        .flat_map(|table| table.iter())
        .map(|relocation| tables.patch(relocation, &image, resolve))
        .collect::<Result<_, _>>()?;
    Ok(Program { bytes: image.bytes, segments: image.segments, patches, entry })
}

/// The tables that the dynamic table names.
struct Tables<'image> {
    symbols: &'image [Sym64<LittleEndian>],
    strings: &'image [u8],
    relocations: [&'image [Rela64<LittleEndian>]; 2],
}

impl<'image> Tables<'image> {
    fn find(image: &'image Image) -> Result<Self, RecordError> {
        let (address, length) = image.dynamic;
        let Ok(dynamic) =
            pod::slice_from_all_bytes::<Dyn64<LittleEndian>>(image.bytes(address, length)?)
        else {
            return unsupported("its dynamic table is damaged");
        };
        let end = dynamic.iter().position(|entry| entry.tag(ENDIAN) == elf::DT_NULL);
        let dynamic = &dynamic[..end.unwrap_or(dynamic.len())];
        refuse_code_before_the_entry(dynamic)?;

        let value = |tag| match dynamic.iter().find(|entry| entry.tag(ENDIAN) == tag) {
            Some(entry) => size(entry.val(ENDIAN)).map(Some),
            None => Ok(None),
        };
        let count = symbol_count(image, value(elf::DT_HASH)?, value(elf::DT_GNU_HASH)?)?;
        let symbols = value(elf::DT_SYMTAB)?.unwrap_or_default();
        let strings = value(elf::DT_STRTAB)?.unwrap_or_default();
        let relocations = |address, length| -> Result<&[Rela64<LittleEndian>], RecordError> {
            let length = value(length)?.unwrap_or_default();
            match value(address)? {
                Some(address) if length > 0 => {
                    table(image, address, length / size_of::<Rela64<LittleEndian>>())
                }
                _ => Ok(&[]),
            }
        };
        let relocations = [
            relocations(elf::DT_RELA, elf::DT_RELASZ)?,
            relocations(elf::DT_JMPREL, elf::DT_PLTRELSZ)?,
        ];
        if relocations.iter().any(|table| table.len() > MAX_RELOCATIONS) {
            return unsupported(format!("it has more than {MAX_RELOCATIONS} relocations"));
        }
        Ok(Self {
            symbols: table(image, symbols, count)?,
            strings: image.bytes(strings, value(elf::DT_STRSZ)?.unwrap_or_default())?,
            relocations,
        })
    }

    fn name(&self, symbol: &Sym64<LittleEndian>) -> Result<&'image str, RecordError> {
        let start = symbol.st_name.get(ENDIAN) as usize;
        let name = self.strings.get(start..).unwrap_or_default();
        // A million symbols may share a name of megabytes: it is not read beyond what is allowed.
        let name = &name[..name.len().min(2 * MAX_NAME_BYTES + 1)];
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        match str::from_utf8(name) {
            Ok(name) if !name.is_empty() && name.len() <= 2 * MAX_NAME_BYTES => Ok(name),
            _ => unsupported("a symbol has no readable name"),
        }
    }

    /// The runtime function that an undefined symbol stands for.
    fn import(
        &self,
        symbol: &Sym64<LittleEndian>,
        resolve: &Resolve,
    ) -> Result<Target, RecordError> {
        let name = self.name(symbol)?;
        match resolve(name) {
            Some(address) => Ok(Target::Runtime(address)),
            None if name.starts_with(DATAFLOW_PREFIX) => Err(RecordError::Dataflow(name.into())),
            None => Err(RecordError::UnknownImport(name.into())),
        }
    }

    fn entry(&self, image: &Image, name: &str) -> Result<usize, RecordError> {
        for symbol in self.symbols.iter().skip(1).filter(|symbol| !symbol.is_undefined(ENDIAN)) {
            if self.name(symbol) == Ok(name) {
                let address = size(symbol.st_value.get(ENDIAN))?;
                return match image.rights(address, 1) {
                    Some(Rights::Execute) => Ok(address),
                    _ => unsupported(format!("`{name}` is not code")),
                };
            }
        }
        Err(RecordError::MissingEntry(name.into()))
    }

    /// Translates a relocation, if it is of one of the three kinds that Concrete's objects have.
    fn patch(
        &self,
        relocation: &Rela64<LittleEndian>,
        image: &Image,
        resolve: &Resolve,
    ) -> Result<Patch, RecordError> {
        let place = size(relocation.r_offset.get(ENDIAN))?;
        if image.rights(place, 8) != Some(Rights::Write) {
            return Err(relocation_error(format!("a relocation at {place:#x} is not in data")));
        }
        let target = match relocation.r_type(ENDIAN, false) {
            elf::R_X86_64_RELATIVE => {
                Target::Image(size(relocation.r_addend.get(ENDIAN).cast_unsigned())?)
            }
            elf::R_X86_64_JUMP_SLOT | elf::R_X86_64_GLOB_DAT => {
                let index = relocation.r_sym(ENDIAN, false) as usize;
                match self.symbols.get(index).filter(|_| index > 0) {
                    Some(symbol) if symbol.is_undefined(ENDIAN) => self.import(symbol, resolve)?,
                    Some(symbol) => definition(symbol)?,
                    None => return Err(relocation_error(format!("there is no symbol {index}"))),
                }
            }
            other => return Err(relocation_error(format!("a relocation of type {}", other.0))),
        };
        match target {
            Target::Image(address) if image.rights(address, 0).is_none() => {
                Err(relocation_error(format!("{address:#x} is outside of the segments")))
            }
            target => Ok(Patch { place, target }),
        }
    }
}

fn relocation_error(why: String) -> RecordError {
    RecordError::UnsupportedRelocation(why)
}

/// A symbol of the object itself. Indirect functions would run code in order to be linked.
fn definition(symbol: &Sym64<LittleEndian>) -> Result<Target, RecordError> {
    let plain = [elf::STT_NOTYPE, elf::STT_OBJECT, elf::STT_FUNC].contains(&symbol.st_type());
    if !plain || symbol.st_shndx(ENDIAN) == elf::SHN_ABS {
        return Err(relocation_error("a symbol that is neither function nor data".into()));
    }
    Ok(Target::Image(size(symbol.st_value.get(ENDIAN))?))
}

/// Concrete's objects have no constructors, no destructors, and one form of relocations.
fn refuse_code_before_the_entry(dynamic: &[Dyn64<LittleEndian>]) -> Result<(), RecordError> {
    const REFUSED: [(DynamicTag, &str); 8] = [
        (elf::DT_INIT, "it runs code when loaded (DT_INIT)"),
        (elf::DT_FINI, "it runs code when unloaded (DT_FINI)"),
        (elf::DT_INIT_ARRAY, "it runs code when loaded (DT_INIT_ARRAY)"),
        (elf::DT_FINI_ARRAY, "it runs code when unloaded (DT_FINI_ARRAY)"),
        (elf::DT_PREINIT_ARRAY, "it runs code when loaded (DT_PREINIT_ARRAY)"),
        (elf::DT_TEXTREL, "it modifies its own code (DT_TEXTREL)"),
        (elf::DT_REL, "it has relocations without addends (DT_REL)"),
        (elf::DT_RELR, "it has packed relocations (DT_RELR)"),
    ];
    for entry in dynamic {
        if let Some((_, why)) = REFUSED.iter().find(|(tag, _)| *tag == entry.tag(ENDIAN)) {
            return unsupported(*why);
        }
    }
    Ok(())
}

/// The dynamic table does not say how many symbols there are; a hash table does.
fn symbol_count(
    image: &Image,
    hash: Option<usize>,
    gnu_hash: Option<usize>,
) -> Result<usize, RecordError> {
    type Elf = FileHeader64<LittleEndian>;
    let count = match (hash, gnu_hash) {
        (Some(address), _) => HashTable::<Elf>::parse(ENDIAN, image.bytes_from(address)?)
            .ok()
            .map(|table| table.symbol_table_length()),
        (None, Some(address)) => GnuHashTable::<Elf>::parse(ENDIAN, image.bytes_from(address)?)
            .ok()
            .and_then(|table| table.symbol_table_length(ENDIAN)),
        (None, None) => None,
    };
    match count.map(|count| count as usize) {
        Some(count) if count <= MAX_SYMBOLS => Ok(count),
        Some(_) => unsupported(format!("it has more than {MAX_SYMBOLS} symbols")),
        None => unsupported("its symbols cannot be counted"),
    }
}

fn table<T: pod::Pod>(image: &Image, address: usize, count: usize) -> Result<&[T], RecordError> {
    let length = count.saturating_mul(size_of::<T>());
    match pod::slice_from_bytes(image.bytes(address, length)?, count) {
        Ok((table, _)) => Ok(table),
        Err(()) => unsupported("a table is not aligned"),
    }
}
