//! `cargo xtask generate`: the Rust code of Concrete's Cap'n Proto schema.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use cipherscore_testbed::find_or_install;

/// The schema's folder and name, from the root.
const SCHEMA_FOLDER: &str = "concrete/schema";
const SCHEMA: &str = "concrete.capnp";
/// What is made of it.
const GENERATED: &str = "concrete/generated/concrete_capnp.rs";
/// Line of the generator that names the compiler's version, on which nothing else depends.
const COMPILER_VERSION: &str = "// capnp binary version";
/// First line of what is made.
const HEADER: &str = "// Made by `cargo xtask generate` from concrete/schema/concrete.capnp.\n";

/// Makes the file anew or, with `--check`, compares it with what would be made.
pub(crate) fn generate(root: &Path, arguments: &[String]) -> anyhow::Result<()> {
    let check = match arguments {
        [] => false,
        [word] if word == "--check" => true,
        _ => anyhow::bail!("usage: cargo xtask generate [--check]"),
    };
    let path = root.join(GENERATED);
    let made = make(root)?;
    if !check {
        return fs::write(&path, made).with_context(|| GENERATED.to_owned());
    }
    let found = fs::read_to_string(&path).with_context(|| GENERATED.to_owned())?;
    ensure!(found == made, "{GENERATED} is not of its schema; run `cargo xtask generate`");
    println!("generated code: of its schema");
    Ok(())
}

fn make(root: &Path) -> anyhow::Result<String> {
    let compiler = find_or_install("capnp", "capnproto", find_compiler)?;
    let folder = root.join("target/generated");
    fs::create_dir_all(&folder)?;
    let schemas = root.join(SCHEMA_FOLDER);
    capnpc::CompilerCommand::new()
        .capnp_executable(compiler)
        .src_prefix(&schemas)
        .file(schemas.join(SCHEMA))
        .output_path(&folder)
        .run()
        .context("capnp compile")?;
    let path = folder.join("concrete_capnp.rs");
    let code = fs::read_to_string(&path)?;
    let lines = code.lines().filter(|line| !line.starts_with(COMPILER_VERSION));
    let code = lines.fold(HEADER.to_owned(), |code, line| code + line + "\n");
    fs::write(&path, code)?;
    let status = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(root.join("rustfmt.toml"))
        .arg(&path)
        .status()
        .context("rustfmt")?;
    ensure!(status.success(), "rustfmt refuses what was generated");
    Ok(fs::read_to_string(&path)?)
}

fn find_compiler() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|path| path.join("capnp")).find(|path| path.is_file())
}
