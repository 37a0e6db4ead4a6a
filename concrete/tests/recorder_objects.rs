//! Records malformed objects: all are refused, and none makes the recorder itself fail.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]

mod recorder_support;

use cipherscore_concrete::recorder::{RecordError, record};
use cipherscore_engine::circuit::Circuit;
use recorder_support::{CIRCUIT, compile, record_source, recorder, signature};

const PROGRAM_HEADERS: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const LOAD: u32 = 1;

fn record_bytes(object: &[u8]) -> Result<Circuit, RecordError> {
    record(&recorder(), object, CIRCUIT, &signature())
}

fn word(object: &[u8], at: usize) -> usize {
    usize::from_le_bytes(object[at..at + 8].try_into().unwrap())
}

/// The object with `bytes` at `at`.
fn changed(object: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    object[at..at + bytes.len()].copy_from_slice(bytes);
    object
}

/// Offsets of the program headers of loadable segments.
fn segments(object: &[u8]) -> Vec<usize> {
    let count = u16::from_le_bytes([object[56], object[57]]) as usize;
    (0..count)
        .map(|index| PROGRAM_HEADERS + index * PROGRAM_HEADER_BYTES)
        .filter(|&at| object[at..at + 4] == LOAD.to_le_bytes())
        .collect()
}

#[track_caller]
fn assert_unsupported(object: &[u8], reason: &str) {
    let error = record_bytes(object).unwrap_err();
    assert!(matches!(error, RecordError::UnsupportedObject(_)), "{error}");
    assert!(error.to_string().contains(reason), "{error}");
}

#[test]
fn other_files_are_refused() {
    record_source("linear").unwrap();
    let object = compile("linear");
    assert_unsupported(b"", "not an ELF file");
    assert_unsupported(b"PK\x03\x04 and so on", "not an ELF file");
    assert_unsupported(b"\x7fELF", "64-bit");
    assert_unsupported(&[0x7f; 1 << 20], "not an ELF file");
    const AARCH64: u8 = 183;
    assert_unsupported(&changed(&object, 4, &[1]), "64-bit"); // ELFCLASS32
    assert_unsupported(&changed(&object, 5, &[2]), "another processor"); // big-endian
    assert_unsupported(&changed(&object, 18, &[AARCH64]), "another processor");
    assert_unsupported(&changed(&object, 16, &[2]), "not a shared object"); // ET_EXEC
}

#[test]
fn claimed_sizes_allocate_nothing() {
    let object = compile("linear");
    let huge = &u64::MAX.to_le_bytes();
    for &segment in &segments(&object) {
        assert_unsupported(&changed(&object, segment + 16, huge), "it claims"); // address
        assert_unsupported(&changed(&object, segment + 32, huge), "beyond the file"); // in file
        assert_unsupported(&changed(&object, segment + 40, huge), "it claims"); // in memory
        let gigabyte = &(1u64 << 30).to_le_bytes();
        assert_unsupported(&changed(&object, segment + 40, gigabyte), "it claims");
    }
    assert_unsupported(&changed(&object, 56, &[0xfe, 0xff]), "rogram header"); // their number
    assert_unsupported(&changed(&object, 32, huge), "rogram header"); // their offset
}

#[test]
fn rights_and_places_of_segments_are_checked() {
    let object = compile("linear");
    let segments = segments(&object);
    const WRITE_AND_EXECUTE: u8 = 3;
    let changed_rights = changed(&object, segments[1] + 4, &[WRITE_AND_EXECUTE]);
    assert_unsupported(&changed_rights, "both writable and executable");
    let first = &object[segments[0] + 8..segments[0] + 24]; // offset and address
    assert_unsupported(&changed(&object, segments[1] + 8, first), "overlap");
    // The entry must be code, and relocations must be data.
    let code_as_data = changed(&object, segments[1] + 4, &[4]);
    assert_unsupported(&code_as_data, "is not code");
    let data_as_constants = changed(&object, *segments.last().unwrap() + 4, &[4]);
    let error = record_bytes(&data_as_constants).unwrap_err();
    assert!(matches!(error, RecordError::UnsupportedRelocation(_)), "{error}");
}

#[test]
fn every_truncation_of_the_segments_is_refused() {
    let object = compile("linear");
    let end = |at: &usize| word(&object, at + 8) + word(&object, at + 32);
    let end = segments(&object).iter().map(end).max().unwrap();
    for length in (0..end).step_by(199).chain([end - 1]) {
        let outcome = record_bytes(&object[..length]);
        assert!(matches!(outcome, Err(RecordError::UnsupportedObject(_))), "{length}: {outcome:?}");
    }
    // Section headers and symbols for debuggers are not needed.
    record_bytes(&object[..end]).unwrap();
}

/// Damages headers, tables and code, one byte at a time. Anything may come out, but the recorder
/// must not panic, and whatever it returns must be an answer.
#[test]
fn damaged_objects_never_make_the_recorder_fail() {
    let object = compile("linear");
    let mut command = recorder();
    command.wall_clock_limit = std::time::Duration::from_secs(2);
    let end = 0x700.min(object.len());
    for at in (0..end).step_by(5).chain((0x1000..0x1200).step_by(11)) {
        for value in [0xff, object[at] ^ 0x80] {
            let outcome = record(&command, &changed(&object, at, &[value]), CIRCUIT, &signature());
            let failed = matches!(
                outcome,
                Err(RecordError::Internal(_) | RecordError::Sandbox(_) | RecordError::Io(_))
            );
            assert!(!failed, "byte {at:#x} = {value:#x}: {outcome:?}");
        }
    }
}

/// An object of two segments, none of them code, and of a dynamic table: so many symbols, all of
/// the same name, which is as long as the file has room and has no end.
fn endless_names(symbols: u32) -> Vec<u8> {
    const PAGE: usize = 4096;
    const SYMBOL_BYTES: usize = 24;
    const NAME_BYTES: usize = 24 << 20;
    const HASH: usize = PAGE;
    const SYMBOLS: usize = 2 * PAGE;
    let names = SYMBOLS + symbols as usize * SYMBOL_BYTES;
    let mut object = vec![0; names];
    object.resize(names + NAME_BYTES, b'a');
    let length = object.len() as u64;
    let mut put = |at: usize, bytes: &[u8]| object[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[3, 0, 62, 0, 1]); // shared object, x86-64, version
    put(32, &[64]); // where program headers are
    put(52, &[64, 0, 56, 0, 2]); // sizes of headers, two program headers
    const DYNAMIC: u32 = 2;
    let table = (PAGE / 2) as u64;
    for (index, kind, start, length) in [(0, LOAD, 0, length), (1, DYNAMIC, table, 6 * 16)] {
        let at = PROGRAM_HEADERS + index * PROGRAM_HEADER_BYTES;
        put(at, &kind.to_le_bytes());
        put(at + 4, &[6]); // read and write
        for (field, word) in [(8, start), (16, start), (32, length), (40, length)] {
            put(at + field, &word.to_le_bytes());
        }
    }
    // DT_HASH, DT_SYMTAB, DT_STRTAB, DT_STRSZ
    let places = [(4, HASH), (6, SYMBOLS), (5, names), (10, NAME_BYTES)];
    for (index, (tag, value)) in places.into_iter().enumerate() {
        put(PAGE / 2 + 16 * index, &[tag]);
        put(PAGE / 2 + 16 * index + 8, &(value as u64).to_le_bytes());
    }
    put(HASH, &0u32.to_le_bytes()); // no buckets, and a chain of all symbols
    put(HASH + 4, &symbols.to_le_bytes());
    for symbol in 1..symbols as usize {
        put(SYMBOLS + symbol * SYMBOL_BYTES + 6, &[1]); // of section 1: defined
    }
    object
}

#[test]
fn names_without_end_take_no_time() {
    // The chain of the hash table lies over the symbols, which nobody minds.
    let outcome = record_bytes(&endless_names(1 << 20));
    assert_eq!(outcome, Err(RecordError::MissingEntry("_mlir_concrete_main".into())));
    let error = record_bytes(&endless_names((1 << 20) + 1)).unwrap_err();
    assert!(error.to_string().contains("more than 1048576 symbols"), "{error}");
}
