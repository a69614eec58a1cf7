//! Certificates and keys from PEM files, for both roles (PS3.15 B.12: TLS 1.2 and 1.3, both sides may show certificates).
//! The cryptography is always ring, named explicitly: no process-wide default has to be installed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::WebPkiClientVerifier,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{Error as PemError, PemObject},
};

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Our certificate chain.
    pub certificate: PathBuf,
    /// Our private key.
    pub key: PathBuf,
    /// Authorities of the other side's certificates; a receiver asks for none if absent, a sender needs it.
    pub authorities: Option<PathBuf>,
}

impl Files {
    /// What a receiver needs: our certificate and key and, if `authorities` is set, the demand that every client shows a
    /// certificate which one of them signed. The error names the file and what is wrong with it.
    pub fn server(&self) -> Result<Arc<ServerConfig>, String> {
        let (chain, key) = self.identity()?;
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let builder = match &self.authorities {
            Some(path) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities(path)?.into(), provider)
                    .build()
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        builder.with_single_cert(chain, key).map(Arc::new).map_err(|error| self.unfit(&error))
    }

    /// What a sender needs: the authorities that the receiver's certificate must come from, and our certificate and key to show
    /// when the receiver asks. The error names the file and what is wrong with it.
    pub fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let path = self.authorities.as_ref().ok_or(
            "a sender needs the certificates of the authorities that it trusts, and no file of them is given: name one",
        )?;
        let (chain, key) = self.identity()?;
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(authorities(path)?)
            .with_client_auth_cert(chain, key)
            .map(Arc::new)
            .map_err(|error| self.unfit(&error))
    }

    fn identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        let chain = certificates(&self.certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable(&self.key, "private key", &error))?;
        Ok((chain, key))
    }

    fn unfit(&self, error: &rustls::Error) -> String {
        format!("{} with {}: {error}", self.certificate.display(), self.key.display())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error| unreadable(path, "certificate", &error);
    let found = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if found.is_empty() { Err(wrong(PemError::NoItemsFound)) } else { Ok(found) }
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(store)
}

fn unreadable(path: &Path, wanted: &str, error: &PemError) -> String {
    let found = match error {
        PemError::NoItemsFound => format!("no PEM section with a {wanted}: expected one in this file"),
        PemError::Io(error) => format!("cannot be read: {error}"),
        error => format!("expected a {wanted} in PEM: {error}"),
    };
    format!("{}: {found}", path.display())
}
