//! Certificate and key, which can be changed while the service runs.

use crate::config::TlsFiles;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// What new connections are greeted with.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<RwLock<Arc<ServerConfig>>>);

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("cannot read {what} from {}: {}", path.display(), words(source))]
    File { what: &'static str, path: PathBuf, source: pem::Error },
    /// They do not go together, or are of a kind that is not supported.
    #[error("cannot use the certificate {} with the key {}: {source}", certificate.display(), key.display())]
    Unusable { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

impl Tls {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles<'_>) -> Result<Tls, TlsError> {
        Ok(Tls(Arc::new(RwLock::new(Arc::new(load(files)?)))))
    }

    /// Reads the files again. When something is wrong with them, what was read before stays.
    pub(crate) fn reload(&self, files: TlsFiles<'_>) -> Result<(), TlsError> {
        let fresh = Arc::new(load(files)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What holds now.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn load(TlsFiles { certificate, private_key }: TlsFiles<'_>) -> Result<ServerConfig, TlsError> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_file(private_key).map_err(wrong("a private key", private_key))?;
    let unusable = |source| TlsError::Unusable { certificate: certificate.into(), key: private_key.into(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if chain.is_empty() => Err(wrong("a certificate", path)(pem::Error::NoItemsFound)),
        read => read.map_err(wrong("a certificate", path)),
    }
}

fn wrong(what: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    move |source| TlsError::File { what, path: path.to_path_buf(), source }
}

/// What is wrong with a file, without what is in it.
fn words(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(source) => source.to_string(),
        pem::Error::NoItemsFound => "there is none in it (expected PEM)".to_owned(),
        _ => "it is no well-formed PEM".to_owned(),
    }
}
