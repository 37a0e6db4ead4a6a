//! Files in a folder that others may write to.

use std::ffi::OsStr;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, ensure};
use cipherscore_producer::files::{Access, replace_atomically};
use rustix::fs::OFlags;

use crate::commands::evaluate::MAX_INPUT_BYTES;
use crate::commands::size;

/// The call and the number of the input that a file is, or why it is none.
pub(super) fn input_of(
    name: &OsStr,
    file_type: FileType,
    ending: &str,
    inputs: usize,
) -> Result<(String, usize), String> {
    if !file_type.is_file() {
        return Err("it is no regular file".into());
    }
    let name = name.to_str().ok_or("its name is not UTF-8")?;
    let name = name.strip_suffix(ending).unwrap_or(name);
    if inputs == 1 {
        return Ok((name.to_owned(), 0));
    }
    let input = name.rsplit_once('.').and_then(|(call, text)| {
        let number = text.parse::<usize>().ok().filter(|number| *number < inputs)?;
        // One name for each input: neither 00 nor +0.
        (number.to_string() == text).then(|| (call.to_owned(), number))
    });
    input.ok_or_else(|| format!("name it CALL.NUMBER{ending}, of the inputs 0 to {}", inputs - 1))
}

/// Opens a file that is no link, directory, pipe or device, without waiting for anybody.
pub(super) fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

pub(super) fn read_regular(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_regular(OpenOptions::new().read(true), path)?;
    let read = file.take(MAX_INPUT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    ensure!(read <= MAX_INPUT_BYTES, "larger than {}", size(MAX_INPUT_BYTES));
    Ok(bytes)
}

pub(super) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    replace_atomically(path, Access::Default, |file| file.write_all(bytes))
        .with_context(|| path.display().to_string())
}

/// Whoever put it there may have taken it back.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_input_of_a_call_has_one_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let kind = |path: &Path| fs::symlink_metadata(path).unwrap().file_type();
        let file = kind(&folder.path().join("file"));
        let input = |name: &str, inputs| input_of(OsStr::new(name), file, ".in", inputs).ok();
        let is = |call: &str, number| Some((call.to_owned(), number));
        assert_eq!(input("a.in", 1), is("a", 0));
        assert_eq!(input("a.0.in", 1), is("a.0", 0));
        assert_eq!(input("a.0.in", 2), is("a", 0));
        assert_eq!(input("a.b.1.in", 2), is("a.b", 1));
        for wrong in ["a.in", "a.2.in", "a.00.in", "a.01.in", "a.+0.in", "a.-0.in", "a..in"] {
            assert_eq!(input(wrong, 2), None, "{wrong}");
        }
        assert!(input_of(OsStr::new("a.in"), kind(folder.path()), ".in", 1).is_err());
    }
}
