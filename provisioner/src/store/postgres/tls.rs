//! TLS to a database server: the authority that its certificate has to come from is named by the operator, and the
//! certificate has to be for the name that the server is reached by. There is no other kind here: encryption towards
//! whoever answers protects from nobody who can answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Most bytes of a file of certificates.
const LONGEST: u64 = 1 << 20;

/// A file of certificates, in PEM, that sign servers' certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority(PathBuf);

impl Authority {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What a connection is made with. The file is read each time, so that a new one counts at once.
    ///
    /// # Errors
    /// One sentence that names the file.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.0)? {
            roots
                .add(certificate)
                .map_err(|e| format!("{}: {e}", self.0.display()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|e| format!("{shown}: {e}"))?;
    if size.len() > LONGEST {
        return Err(format!(
            "{shown}: more than {LONGEST} bytes are no file of certificates"
        ));
    }
    let pem = std::fs::read(path).map_err(|e| format!("{shown}: {e}"))?;
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(format!(
            "{shown}: there is no certificate in it; put the one there that signed the server's, in PEM (-----BEGIN CERTIFICATE-----)"
        )),
        Err(e) => Err(format!("{shown}: {e}")),
    }
}
