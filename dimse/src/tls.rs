//! Certificates and keys from PEM files, for both roles.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
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
    /// For a receiver. With authorities, callers must show a certificate of theirs.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn server(&self) -> Result<Arc<ServerConfig>, String> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = match &self.authorities {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::new(default_provider()));
                builder.with_client_cert_verifier(verifier.build().map_err(|error| fault(path, &error))?)
            }
        };
        let config = builder.with_single_cert(chain(&self.certificate)?, key(&self.key)?);
        config.map(Arc::new).map_err(|error| fault(&self.certificate, &error))
    }

    /// For a sender, who shows our certificate.
    ///
    /// # Errors
    /// The file and what is wrong with it.
    pub fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let Some(authorities) = &self.authorities else {
            return Err(
                "tls.authorities: expected a PEM file with the authorities of the destination's certificate".into()
            );
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = builder.with_root_certificates(roots(authorities)?);
        let config = builder.with_client_auth_cert(chain(&self.certificate)?, key(&self.key)?);
        config.map(Arc::new).map_err(|error| fault(&self.certificate, &error))
    }
}

fn fault(path: &Path, error: &impl Display) -> String {
    format!("{}: {error}", path.display())
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| fault(path, &error))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| fault(path, &error))?;
    match certificates.is_empty() {
        false => Ok(certificates),
        true => Err(fault(path, &"no certificate: expected PEM with BEGIN CERTIFICATE")),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| fault(path, &error))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(path)? {
        roots.add(certificate).map_err(|error| fault(path, &error))?;
    }
    Ok(roots)
}
