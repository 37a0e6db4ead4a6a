//! Reads a hostile ELF file into a memory image, in safe code.
//!
//! Program headers decide, as they do for the system's loader; sections are not looked at. Every
//! later step reads tables out of the image through [`Image::bytes`], which knows its bounds.

use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::recorder::RecordError;
use crate::recorder::limits::{MAX_IMAGE_BYTES, MAX_PROGRAM_HEADERS, MAX_SEGMENTS};

/// Size of a page, in bytes. Segments with different rights never share one.
pub(super) const PAGE_BYTES: usize = 4096;

pub(super) const ENDIAN: LittleEndian = LittleEndian;

/// Rights of a segment. Read is implied; there is no writable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    Read,
    Write,
    Execute,
}

/// A range of whole pages of the image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) rights: Rights,
}

impl Segment {
    /// Whether `length` bytes at `address` lie inside.
    fn holds(&self, address: usize, length: usize) -> bool {
        address >= self.start && address.checked_add(length).is_some_and(|end| end <= self.end)
    }
}

/// The object as it lies in memory, at address zero and before relocation.
#[derive(Debug)]
pub(super) struct Image {
    /// Bytes from address zero to the end of the last segment; gaps are zero.
    pub(super) bytes: Vec<u8>,
    /// Segments by increasing address; they do not touch a common page.
    pub(super) segments: Vec<Segment>,
    /// Where the dynamic table is.
    pub(super) dynamic: (usize, usize),
}

pub(super) fn unsupported<T>(why: impl Into<String>) -> Result<T, RecordError> {
    Err(RecordError::UnsupportedObject(why.into()))
}

impl Image {
    /// Checks the headers and lays out the segments.
    pub(super) fn load(file: &[u8]) -> Result<Self, RecordError> {
        let mut image = Self { bytes: Vec::new(), segments: Vec::new(), dynamic: (0, 0) };
        let mut dynamic = None;
        for header in program_headers(file)? {
            match header.p_type(ENDIAN) {
                elf::PT_LOAD => image.add_segment(header, file)?,
                elf::PT_DYNAMIC => dynamic = Some(header),
                elf::PT_TLS => return unsupported("it has thread-local variables"),
                elf::PT_INTERP => return unsupported("it is a program"),
                _ => {}
            }
        }
        let Some(dynamic) = dynamic else { return unsupported("it has no dynamic table") };
        let address = size(dynamic.p_vaddr(ENDIAN))?;
        let length = size(dynamic.p_memsz(ENDIAN))?;
        image.bytes(address, length)?;
        image.dynamic = (address, length);
        Ok(image)
    }

    /// Appends a segment. Segments must ascend, as the ELF specification demands.
    fn add_segment(
        &mut self,
        header: &ProgramHeader64<LittleEndian>,
        file: &[u8],
    ) -> Result<(), RecordError> {
        let address = size(header.p_vaddr(ENDIAN))?;
        let length = size(header.p_memsz(ENDIAN))?;
        let Ok(content) = header.data(ENDIAN, file) else {
            return unsupported("a segment reaches beyond the file");
        };
        let Some(end) = address.checked_add(length).filter(|&end| end <= MAX_IMAGE_BYTES) else {
            return unsupported(format!("a segment ends above {MAX_IMAGE_BYTES} bytes"));
        };
        if content.len() > length {
            return unsupported("a segment is smaller in memory than in the file");
        }
        if header.p_offset(ENDIAN) % PAGE_BYTES as u64 != (address % PAGE_BYTES) as u64 {
            return unsupported("a segment is not aligned to pages");
        }
        let segment = Segment {
            start: address / PAGE_BYTES * PAGE_BYTES,
            end: end.next_multiple_of(PAGE_BYTES),
            rights: rights(header)?,
        };
        if self.segments.last().is_some_and(|last| segment.start < last.end) {
            return unsupported("segments overlap or do not ascend");
        }
        if self.segments.len() == MAX_SEGMENTS {
            return unsupported(format!("it has more than {MAX_SEGMENTS} segments"));
        }
        self.bytes.resize(segment.end, 0);
        self.bytes[address..address + content.len()].copy_from_slice(content);
        self.segments.push(segment);
        Ok(())
    }

    /// Bytes at an address, if one segment holds them all.
    pub(super) fn bytes(&self, address: usize, length: usize) -> Result<&[u8], RecordError> {
        match self.segments.iter().any(|segment| segment.holds(address, length)) {
            true => Ok(&self.bytes[address..address + length]),
            false => unsupported("a table lies outside of its segments"),
        }
    }

    /// Rights of the segment that holds the bytes; none for a place outside.
    pub(super) fn rights(&self, address: usize, length: usize) -> Option<Rights> {
        let mut segments = self.segments.iter();
        segments.find(|segment| segment.holds(address, length)).map(|segment| segment.rights)
    }

    /// Bytes from an address to the end of its segment.
    pub(super) fn bytes_from(&self, address: usize) -> Result<&[u8], RecordError> {
        match self.segments.iter().find(|segment| segment.holds(address, 0)) {
            Some(segment) => Ok(&self.bytes[address..segment.end]),
            None => unsupported("a table lies outside of its segments"),
        }
    }
}

fn program_headers(file: &[u8]) -> Result<&[ProgramHeader64<LittleEndian>], RecordError> {
    if !file.starts_with(&elf::ELFMAG) {
        return unsupported("it is not an ELF file");
    }
    let Ok(header) = FileHeader64::<LittleEndian>::parse(file) else {
        return unsupported("its ELF header is not the one of a 64-bit object");
    };
    if !header.is_little_endian() || header.e_machine(ENDIAN) != elf::EM_X86_64 {
        return unsupported("it is for another processor than x86-64");
    }
    if header.e_type(ENDIAN) != elf::ET_DYN {
        return unsupported("it is not a shared object");
    }
    match header.program_headers(ENDIAN, file) {
        Ok(headers) if headers.len() <= MAX_PROGRAM_HEADERS => Ok(headers),
        Ok(_) => unsupported(format!("it has more than {MAX_PROGRAM_HEADERS} program headers")),
        Err(error) => unsupported(error.to_string()),
    }
}

fn rights(header: &ProgramHeader64<LittleEndian>) -> Result<Rights, RecordError> {
    let flags = header.p_flags(ENDIAN);
    let has = |flag: elf::ProgramFlags| flags.0 & flag.0 != 0;
    match (has(elf::PF_W), has(elf::PF_X)) {
        (true, true) => unsupported("a segment is both writable and executable"),
        (true, false) => Ok(Rights::Write),
        (false, true) => Ok(Rights::Execute),
        (false, false) => Ok(Rights::Read),
    }
}

/// A size or address of the file as a number of bytes in this process.
pub(super) fn size(value: u64) -> Result<usize, RecordError> {
    match usize::try_from(value) {
        Ok(value) if value <= MAX_IMAGE_BYTES => Ok(value),
        _ => unsupported(format!("it claims {value} bytes, more than {MAX_IMAGE_BYTES}")),
    }
}
