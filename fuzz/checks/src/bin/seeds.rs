//! Writes the seeds of all targets: `seeds FOLDER` fills `FOLDER/TARGET/`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use cipherscore_common::Digest;

fn main() -> Result<(), Box<dyn Error>> {
    let folder: PathBuf = env::args_os().nth(1).ok_or("usage: seeds FOLDER")?.into();
    for (target, inputs) in cipherscore_fuzz_checks::seeds::seeds()? {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        for input in inputs {
            fs::write(folder.join(Digest::of(&input).to_string()), input)?;
        }
    }
    Ok(())
}
