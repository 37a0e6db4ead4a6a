//! The passphrase of the client key: from a file, the environment, or the terminal.

use std::env::VarError;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use age::secrecy::SecretString;
use clap::Args;
use zeroize::Zeroizing;

const ENVIRONMENT: &str = "CIPHERSCORE_PASSPHRASE";

/// Where the passphrase comes from.
#[derive(Clone, Args)]
pub(crate) struct PassphraseSource {
    /// File whose first line is the passphrase of the client key. Without it, the environment
    /// variable CIPHERSCORE_PASSPHRASE is used, else the terminal is asked.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl PassphraseSource {
    /// Whether there is one without asking.
    pub(crate) fn is_given(&self) -> bool {
        self.passphrase_file.is_some() || std::env::var_os(ENVIRONMENT).is_some()
    }

    /// The passphrase of an existing key; none when there is nobody to ask.
    pub(crate) fn existing(&self) -> io::Result<Option<SecretString>> {
        match self.given()? {
            None if io::stdin().is_terminal() => ask("Passphrase of the client key: ").map(Some),
            given => Ok(given),
        }
    }

    /// A passphrase for a new key, asked twice on a terminal.
    pub(crate) fn new_passphrase(&self) -> io::Result<SecretString> {
        if let Some(given) = self.given()? {
            return Ok(given);
        }
        if !io::stdin().is_terminal() {
            return Err(io::Error::other(format!(
                "no passphrase: give --passphrase-file or set {ENVIRONMENT}"
            )));
        }
        let first = rpassword::prompt_password("New passphrase for the client key: ")?;
        let first = Zeroizing::new(first);
        let again = Zeroizing::new(rpassword::prompt_password("The same again: ")?);
        match first == again && !first.is_empty() {
            true => Ok(SecretString::from(first.as_str())),
            false => Err(io::Error::other("the passphrases differ or are empty")),
        }
    }

    fn given(&self) -> io::Result<Option<SecretString>> {
        let text = match &self.passphrase_file {
            Some(path) => {
                let named = |error| io::Error::other(format!("{}: {error}", path.display()));
                std::fs::read_to_string(path).map_err(named)?
            }
            None => match std::env::var(ENVIRONMENT) {
                Ok(text) => text,
                Err(VarError::NotPresent) => return Ok(None),
                Err(VarError::NotUnicode(_)) => {
                    return Err(io::Error::other(format!("{ENVIRONMENT} is not UTF-8")));
                }
            },
        };
        let text = Zeroizing::new(text);
        match text.lines().next().filter(|line| !line.is_empty()) {
            Some(line) => Ok(Some(SecretString::from(line))),
            None => Err(io::Error::other("the passphrase is empty")),
        }
    }
}

fn ask(prompt: &str) -> io::Result<SecretString> {
    Ok(SecretString::from(Zeroizing::new(rpassword::prompt_password(prompt)?).as_str()))
}
