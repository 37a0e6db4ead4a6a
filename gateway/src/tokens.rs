//! Bearer tokens: a file with their digests, read again when it changes.
//!
//! A token is 32 bytes of the operating system's randomness. What slow hashes such as argon2 are for,
//! guessing a password from its digest, cannot be done with it: one SHA-256 hides it as well, and costs
//! a microsecond at each request instead of a tenth of a second.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cipherscore_common::message::Timestamp;
use cipherscore_common::{Digest, Tenant};
use serde::Serialize;
use subtle::ConstantTimeEq as _;

/// What all tokens begin with, so that who finds one knows what it is.
pub const TOKEN_PREFIX: &str = "cst_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Longest text that may be a token, in characters.
const MAX_TOKEN_LENGTH: usize = 128;
/// Largest file, in bytes: some ten thousand tokens.
const MAX_FILE_BYTES: u64 = 2 << 20;
/// Characters of a token's name in the file.
const NAME_LENGTH: usize = 8;
const HEADER: &str = "# Tokens of the gateway: tenant, SHA-256 of the token, its name, when it was made. A line that is
# taken out is a token that is not valid any more, within seconds. `cipherscore gateway token` writes here.
";

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenLine {
    /// Whose it is.
    pub tenant: Tenant,
    /// SHA-256 of the token.
    #[serde(skip)]
    pub sha256: Digest,
    /// The first digits of its digest, by which it is revoked.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
}

/// The tokens that are valid.
#[derive(Debug, Default)]
pub(crate) struct Tokens(HashMap<Digest, Tenant>);

impl Tokens {
    pub(crate) fn of(lines: Vec<TokenLine>) -> Self {
        Self(lines.into_iter().map(|line| (line.sha256, line.tenant)).collect())
    }

    /// Whose token this is. It is found by its digest, of which who guesses tokens decides nothing; and
    /// compared once more in a time that says nothing.
    pub(crate) fn tenant(&self, token: &str) -> Option<&Tenant> {
        if token.len() > MAX_TOKEN_LENGTH || !token.starts_with(TOKEN_PREFIX) {
            return None;
        }
        let digest = Digest::of(token.as_bytes());
        let (known, tenant) = self.0.get_key_value(&digest)?;
        bool::from(known.to_bytes().ct_eq(&digest.to_bytes())).then_some(tenant)
    }

    /// Everybody who has one.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.0.values()
    }
}

/// Reads the file's text.
pub(crate) fn parse(text: &str) -> anyhow::Result<Vec<TokenLine>> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let [tenant, sha256, name, created_ms] = words[..] else {
            bail!("line {number}: not tenant, digest, name and time");
        };
        let in_line = || format!("line {number}");
        lines.push(TokenLine {
            tenant: tenant.parse().with_context(in_line)?,
            sha256: sha256.parse().with_context(in_line)?,
            name: name.to_owned(),
            created_ms: created_ms.parse().with_context(in_line)?,
        });
    }
    Ok(lines)
}

/// Reads the file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<TokenLine>> {
    let read = || {
        let size = std::fs::metadata(path)?.len();
        ensure!(size <= MAX_FILE_BYTES, "larger than {MAX_FILE_BYTES} bytes");
        parse(&std::fs::read_to_string(path)?)
    };
    read().with_context(|| format!("tokens, {}", path.display()))
}

/// The file, for who changes it.
pub struct TokenFile(PathBuf);

impl TokenFile {
    /// Names a file, which need not be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// All tokens.
    pub fn list(&self) -> anyhow::Result<Vec<TokenLine>> {
        match self.0.try_exists().with_context(|| self.0.display().to_string())? {
            true => read(&self.0),
            false => Ok(Vec::new()),
        }
    }

    /// Makes a token and writes its digest. The token itself is nowhere but in what this returns.
    pub fn add(&self, tenant: &Tenant) -> anyhow::Result<(String, TokenLine)> {
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random).context("the system gives no random numbers")?;
        let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let sha256 = Digest::of(token.as_bytes());
        let name = sha256.to_string()[..NAME_LENGTH].to_owned();
        let created_ms = Timestamp::now().millis();
        let line = TokenLine { tenant: tenant.clone(), sha256, name, created_ms };
        let mut lines = self.list()?;
        lines.push(line.clone());
        self.write(&lines)?;
        Ok((token, line))
    }

    /// Takes the tokens of these names out.
    pub fn revoke(&self, names: &[String]) -> anyhow::Result<Vec<TokenLine>> {
        let lines = self.list()?;
        for name in names {
            ensure!(lines.iter().any(|line| line.name == *name), "there is no token {name}");
        }
        let (gone, left): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|line| names.contains(&line.name));
        self.write(&left)?;
        Ok(gone)
    }

    /// Whole or not at all, for its owner and group alone.
    fn write(&self, lines: &[TokenLine]) -> anyhow::Result<()> {
        let mut text = HEADER.to_owned();
        for TokenLine { tenant, sha256, name, created_ms } in lines {
            let _ = writeln!(text, "{tenant} {sha256} {name} {created_ms}");
        }
        let write = || {
            let folder = self.0.parent().filter(|folder| !folder.as_os_str().is_empty());
            let mut builder = tempfile::Builder::new();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
            let mut file =
                builder.permissions(mode).tempfile_in(folder.unwrap_or(Path::new(".")))?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&self.0)?;
            anyhow::Ok(())
        };
        write().with_context(|| self.0.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    fn file() -> (tempfile::TempDir, TokenFile) {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::new(folder.path().join("tokens"));
        (folder, file)
    }

    #[test]
    fn a_token_is_its_tenants_until_it_is_revoked() {
        let (folder, file) = file();
        let [bank, shop] = ["bank", "shop"].map(|name| name.parse::<Tenant>().unwrap());
        let (first, _) = file.add(&bank).unwrap();
        let (second, line) = file.add(&bank).unwrap();
        let (third, _) = file.add(&shop).unwrap();
        let tokens = Tokens::of(file.list().unwrap());
        for (token, tenant) in [(&first, &bank), (&second, &bank), (&third, &shop)] {
            assert_eq!(tokens.tenant(token), Some(tenant));
        }
        let text = std::fs::read_to_string(folder.path().join("tokens")).unwrap();
        assert!([&first, &second, &third].iter().all(|token| !text.contains(&token[4..])));
        assert_eq!(
            file.revoke(std::slice::from_ref(&line.name)).unwrap(),
            std::slice::from_ref(&line)
        );
        let tokens = Tokens::of(file.list().unwrap());
        assert_eq!((tokens.tenant(&first), tokens.tenant(&second)), (Some(&bank), None));
        assert!(file.revoke(&[line.name]).is_err(), "it is gone");
    }

    #[test]
    fn what_is_no_token_is_nobodys() {
        let (_folder, file) = file();
        let (token, _) = file.add(&Tenant::default()).unwrap();
        assert!(token.len() > 40);
        let tokens = Tokens::of(file.list().unwrap());
        let digest = Digest::of(token.as_bytes()).to_string();
        let long = format!("{token}{}", "x".repeat(MAX_TOKEN_LENGTH));
        for wrong in ["", "cst_", &token[..token.len() - 1], &token[4..], &digest, &long] {
            assert_eq!(tokens.tenant(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        let digest = Digest::of(b"token");
        for wrong in ["bank", &format!("Bank {digest} n 1"), "bank 00 n 1", "bank"] {
            let error = parse(&format!("# fine\n\n{wrong}")).unwrap_err().to_string();
            assert!(error.starts_with("line 3"), "{error}");
        }
        assert_eq!(parse(&format!("bank {digest} n 1\n# no\n")).unwrap().len(), 1);
    }
}
