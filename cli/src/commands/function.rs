//! Values of a function's arguments: tables in, ciphertexts out, and back.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use cipherscore_concrete::function::Argument;
use cipherscore_producer::client_zip::FunctionEncryption;
use cipherscore_producer::files::{Access, write_atomically};
use cipherscore_producer::model::Features;
use cipherscore_producer::rows::{FirstLine, RowReader};
use serde::Serialize;

use super::{is_standard, open_input, read_bounded, write_output};

/// Largest encrypted value, in bytes.
const MAX_VALUE_BYTES: usize = 1 << 30;

/// What became of one argument's table or value.
#[derive(Debug, Serialize)]
pub(super) struct Converted {
    pub(super) argument: String,
    pub(super) files: Vec<PathBuf>,
}

/// A file and the argument that it holds.
struct Assigned<'a> {
    argument: &'a Argument,
    path: PathBuf,
}

/// Gives each file its argument: by `NAME=FILE` for all of them, or by their order, in which every
/// argument has its file.
fn assign<'a>(arguments: &'a [Argument], files: &[PathBuf]) -> anyhow::Result<Vec<Assigned<'a>>> {
    let named: Vec<_> = files.iter().filter_map(|file| by_name(arguments, file)).collect();
    if named.len() == files.len() {
        return Ok(named);
    }
    let names: Vec<_> = arguments.iter().map(|argument| argument.name.as_str()).collect();
    let names = names.join(", ");
    ensure!(
        named.is_empty(),
        "some files are given as NAME=FILE and some are not, where names are: {names}"
    );
    let (found, count) = (files.len(), arguments.len());
    ensure!(
        found.is_multiple_of(count),
        "{found} files of --input, where the function has {count} arguments here: {names}. Give \
         one for each in this order, or name them (such as {}=FILE) to give some of them",
        arguments[0].name
    );
    let in_order = arguments.iter().cycle().zip(files.iter().cloned());
    Ok(in_order.map(|(argument, path)| Assigned { argument, path }).collect())
}

/// The argument of `NAME=FILE`; none where the text before `=` is no argument's name.
fn by_name<'a>(arguments: &'a [Argument], file: &Path) -> Option<Assigned<'a>> {
    let (name, path) = file.to_str()?.split_once('=')?;
    let argument = arguments.iter().find(|argument| argument.name == name)?;
    Some(Assigned { argument, path: path.into() })
}

/// Encrypts tables, each of one value of its argument or of several, one below the other. Nothing
/// is written before all tables are read and fit.
pub(super) fn encrypt(
    encryption: &FunctionEncryption,
    inputs: &[PathBuf],
    first_line: FirstLine,
    outputs: &[PathBuf],
) -> anyhow::Result<Vec<Converted>> {
    let assigned = assign(encryption.function().inputs(), inputs)?;
    require_once(&assigned)?;
    let mut tables = Vec::with_capacity(assigned.len());
    for Assigned { argument, path } in &assigned {
        let named = || {
            let (name, lines, columns) = (&argument.name, argument.lines(), argument.columns());
            format!("{}, of {name} ({lines} lines of {columns} columns)", path.display())
        };
        let values = read_values(argument, path, first_line).with_context(named)?;
        for value in &values {
            argument.quantise(value).with_context(named)?;
        }
        tables.push((*argument, values));
    }
    let mut paths = paths(&tables, outputs)?.into_iter();
    let mut converted = Vec::with_capacity(tables.len());
    for (argument, values) in tables {
        let files: Vec<_> = paths.by_ref().take(values.len()).collect();
        for (value, path) in values.iter().zip(&files) {
            let bytes = encryption.encrypt(argument, value)?;
            write_atomically(path, Access::Default, |file| file.write_all(&bytes))
                .with_context(|| path.display().to_string())?;
        }
        converted.push(Converted { argument: argument.name.clone(), files });
    }
    Ok(converted)
}

/// Two tables of one argument would be written to the same files, and standard input ends once.
fn require_once(assigned: &[Assigned<'_>]) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for Assigned { argument, .. } in assigned {
        ensure!(
            seen.insert(&argument.name),
            "two tables of {}; put all of its values into one, one below the other",
            argument.name
        );
    }
    let standard = assigned.iter().filter(|file| is_standard(&file.path)).count();
    ensure!(standard <= 1, "standard input can be one of the tables only");
    Ok(())
}

/// The values of a table, row-major.
fn read_values(
    argument: &Argument,
    path: &Path,
    first_line: FirstLine,
) -> anyhow::Result<Vec<Vec<f64>>> {
    let (lines, columns) = (argument.lines(), argument.columns());
    let features = Features::unnamed(columns);
    let mut reader = RowReader::new(open_input(path)?, &features, first_line)?;
    let table = reader.take(usize::MAX)?;
    let found = table.len();
    if table.is_empty() || !found.is_multiple_of(lines) {
        bail!("{found} lines below the header, where each value has {lines}");
    }
    Ok(table.values().chunks_exact(lines * columns).map(<[f64]>::to_vec).collect())
}

/// A file for each value: numbered in a folder, or as given.
fn paths(
    tables: &[(&Argument, Vec<Vec<f64>>)],
    outputs: &[PathBuf],
) -> anyhow::Result<Vec<PathBuf>> {
    let values: usize = tables.iter().map(|(_, values)| values.len()).sum();
    let Some(folder) = only_folder(outputs) else {
        ensure!(
            outputs.len() == values,
            "{values} values, but {} files of --output; a folder takes any number",
            outputs.len()
        );
        return Ok(outputs.to_vec());
    };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let of = |(argument, values): &(&Argument, Vec<_>)| {
        let name = argument.name.clone();
        (0..values.len()).map(move |value| folder.join(format!("{name}-{value:06}.bin")))
    };
    Ok(tables.iter().flat_map(of).collect())
}

/// The folder, where --output is one: it is there, or its name ends like one.
pub(super) fn only_folder(outputs: &[PathBuf]) -> Option<&Path> {
    let is_folder =
        |path: &&PathBuf| path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    match outputs {
        [only] => Some(only).filter(is_folder).map(PathBuf::as_path),
        _ => None,
    }
}

/// Decrypts values, each into a table of its own.
pub(super) fn decrypt(
    encryption: &FunctionEncryption,
    inputs: &[PathBuf],
    outputs: &[PathBuf],
    integers: bool,
) -> anyhow::Result<Vec<Converted>> {
    let assigned = assign(encryption.function().outputs(), inputs)?;
    ensure!(
        assigned.len() == outputs.len(),
        "{} files of --input and {} of --output; each encrypted value of a function becomes \
         a table",
        assigned.len(),
        outputs.len()
    );
    let standard = outputs.iter().filter(|path| is_standard(path)).count();
    ensure!(standard <= 1, "standard output takes one table only");
    let decrypt = |Assigned { argument, path }: Assigned<'_>| {
        let bytes = read_bounded(&path, MAX_VALUE_BYTES)?;
        let value = encryption.decrypt(argument, &bytes);
        let value = value.with_context(|| format!("{}, of {}", path.display(), argument.name))?;
        Ok(match integers {
            true => table(argument, &value),
            false => table(argument, &argument.dequantise(&value)?),
        })
    };
    let names: Vec<_> = assigned.iter().map(|file| file.argument.name.clone()).collect();
    // Nothing is written before everything is decrypted.
    let tables: Vec<_> = assigned.into_iter().map(decrypt).collect::<anyhow::Result<_>>()?;
    let mut converted = Vec::with_capacity(tables.len());
    for ((argument, path), table) in names.into_iter().zip(outputs).zip(tables) {
        write_output(path, |file: &mut dyn Write| Ok(file.write_all(table.as_bytes())?))?;
        converted.push(Converted { argument, files: vec![path.clone()] });
    }
    Ok(converted)
}

/// CSV with a header, in the form that `encrypt` reads. Floats are printed in the shortest form
/// that reads back as the same.
fn table<T: ToString>(argument: &Argument, numbers: &[T]) -> String {
    let columns = argument.columns();
    let header: Vec<_> = match columns {
        1 => vec![argument.name.clone()],
        _ => (0..columns).map(|column| format!("{}_{column}", argument.name)).collect(),
    };
    let line = |line: &[T]| line.iter().map(T::to_string).collect::<Vec<_>>().join(",");
    let lines = numbers.chunks_exact(columns).map(line);
    let lines: Vec<_> = std::iter::once(header.join(",")).chain(lines).collect();
    lines.join("\n") + "\n"
}
