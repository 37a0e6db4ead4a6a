//! Certificates for servers that speak TLS.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

use crate::{TestbedError, fresh, io_error};

/// A certificate authority of our own, with a server's and a client's certificate: PEM files in a
/// private folder, which goes away with the last clone. Keys are PKCS#8, on the curve P-256.
#[derive(Debug, Clone)]
pub struct Certificates {
    folder: Arc<TempDir>,
}

/// That a server has a TLS port beside its plain one.
#[derive(Debug, Clone)]
pub struct Tls {
    /// What the server shows, and whom it trusts.
    pub certificates: Certificates,
    /// Whether a client must show a certificate of the same authority.
    pub require_client_certificate: bool,
}

impl Certificates {
    /// Makes new ones. The server's is for `localhost` and `127.0.0.1`; the client's name is
    /// `cipherscore-client`.
    pub fn make() -> Result<Self, TestbedError> {
        let certificates = Self { folder: Arc::new(fresh::folder("cipherscore-tls-")?) };
        let made = certificates.write_all().map_err(io_error("making certificates"));
        made.map(|()| certificates)
    }

    /// The authority's certificate, by which a client knows the server.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// The server's certificate.
    pub fn server_certificate(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// The server's secret key.
    pub fn server_key(&self) -> PathBuf {
        self.folder.path().join("server.key")
    }

    /// The client's certificate.
    pub fn client_certificate(&self) -> PathBuf {
        self.folder.path().join("client.pem")
    }

    /// The client's secret key.
    pub fn client_key(&self) -> PathBuf {
        self.folder.path().join("client.key")
    }

    /// The authority's own key is not kept.
    fn write_all(&self) -> io::Result<()> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut parameters = named("cipherscore testbed authority", &[])?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key).map_err(io::Error::other)?;
        write_private(&self.authority(), &certificate.pem())?;
        let authority = Issuer::new(parameters, key);

        let mut server = named("localhost", &["localhost", "127.0.0.1"])?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        issue(server, &authority, &self.server_certificate(), &self.server_key())?;

        let mut client = named("cipherscore-client", &[])?;
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        issue(client, &authority, &self.client_certificate(), &self.client_key())
    }
}

fn named(name: &str, addresses: &[&str]) -> io::Result<CertificateParams> {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut parameters = CertificateParams::new(addresses).map_err(io::Error::other)?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    Ok(parameters)
}

fn issue(
    mut parameters: CertificateParams,
    authority: &Issuer<'_, KeyPair>,
    certificate_file: &Path,
    key_file: &Path,
) -> io::Result<()> {
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = parameters.signed_by(&key, authority).map_err(io::Error::other)?;
    write_private(certificate_file, &certificate.pem())?;
    write_private(key_file, &key.serialize_pem())
}

pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
