//! The certificate, read again when its files change.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cipherscore_common::Digest;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::config::TlsSection;

/// How often the files are looked at.
const READ_EVERY: Duration = Duration::from_secs(10);
/// Largest PEM file, in bytes.
const MAX_PEM_BYTES: u64 = 1 << 20;

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: [PathBuf; 2],
    current: RwLock<(Digest, Arc<CertifiedKey>)>,
}

impl Certificate {
    /// Reads the files; `None` where there shall be no TLS.
    pub(crate) fn open(section: &TlsSection) -> anyhow::Result<Option<Arc<Self>>> {
        let files = match (&section.certificate_file, &section.key_file) {
            (Some(certificate), Some(key)) => [certificate.clone(), key.clone()],
            (None, None) => return Ok(None),
            _ => bail!("tls: a certificate and its key are given together"),
        };
        let current = RwLock::new(read(&files)?);
        Ok(Some(Arc::new(Self { files, current })))
    }

    /// What accepts connections.
    pub(crate) fn acceptor(self: &Arc<Self>) -> anyhow::Result<TlsAcceptor> {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("tls")?;
        let resolver = Arc::clone(self);
        let mut config = config.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files again, if they are others. What cannot be read leaves the old ones.
    pub(crate) fn read_again(&self) -> anyhow::Result<bool> {
        let read = read(&self.files)?;
        let is_new = read.0 != self.current.read().0;
        if is_new {
            *self.current.write() = read;
        }
        Ok(is_new)
    }

    /// Looks at the files from time to time.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            sleep(READ_EVERY).await;
            match self.read_again() {
                Ok(false) => {}
                Ok(true) => info!("the certificate was read again"),
                Err(error) => warn!(reason = format!("{error:#}"), "the old certificate stays"),
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().1))
    }
}

fn read(files: &[PathBuf; 2]) -> anyhow::Result<(Digest, Arc<CertifiedKey>)> {
    let [certificate, key] = files;
    let (certificate_pem, key_pem) = (read_bounded(certificate)?, read_bounded(key)?);
    let digest = Digest::of(&[&certificate_pem[..], &key_pem].concat());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_reader_iter(BufReader::new(&certificate_pem[..])).collect();
    let chain = chain.with_context(|| certificate.display().to_string())?;
    if chain.is_empty() {
        bail!("{}: no certificate in PEM form", certificate.display());
    }
    let in_key = || format!("{}: no key in PEM form", key.display());
    let private = PrivateKeyDer::from_pem_slice(&key_pem).with_context(in_key)?;
    let pair = CertifiedKey::from_der(chain, private, &ring::default_provider());
    let pair = pair.with_context(|| format!("{} and its key", certificate.display()))?;
    Ok((digest, Arc::new(pair)))
}

fn read_bounded(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || {
        if std::fs::metadata(path)?.len() > MAX_PEM_BYTES {
            bail!("larger than {MAX_PEM_BYTES} bytes");
        }
        Ok(std::fs::read(path)?)
    };
    read().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

    use super::*;

    fn write(folder: &Path) -> TlsSection {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.join(name));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        TlsSection { certificate_file: Some(certificate), key_file: Some(key), off: false }
    }

    #[test]
    fn a_certificate_is_exchanged_while_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let section = write(folder.path());
        let certificate = Certificate::open(&section).unwrap().unwrap();
        certificate.acceptor().unwrap();
        assert!(!certificate.read_again().unwrap());
        let before = certificate.current.read().1.cert.clone();
        write(folder.path());
        assert!(certificate.read_again().unwrap());
        let after = certificate.current.read().1.cert.clone();
        assert_ne!(after, before);
        std::fs::write(section.key_file.as_ref().unwrap(), "no key").unwrap();
        assert!(certificate.read_again().is_err());
        assert_eq!(certificate.current.read().1.cert, after);
        let half = TlsSection { key_file: None, ..section };
        assert!(Certificate::open(&half).is_err());
        assert!(Certificate::open(&TlsSection::default()).unwrap().is_none());
    }
}
