//! Which upstream servers are trusted: roots and parameters of TLS. Chain and
//! host name are always verified; there is no way to switch that off.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt;

/// A bundle of all public roots has about 200 KiB.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// TLS 1.2 and 1.3 that trusts the certificates in `ca_file`, and only those.
pub(super) fn only(ca_file: &Path) -> Result<Arc<ClientConfig>, String> {
    let name = ca_file.display();
    let cannot_read = |error| format!("cannot read {name}: {error}");
    let metadata = fs::metadata(ca_file).map_err(cannot_read)?;
    if !metadata.is_file() || metadata.len() > LARGEST_FILE {
        return Err(format!("{name} is not a PEM file"));
    }
    let pem = fs::read(ca_file).map_err(cannot_read)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate =
            certificate.map_err(|error| format!("{name} is not whole PEM: {error}"))?;
        let refused = |error| format!("{name} holds a certificate that cannot be used: {error}");
        roots.add(certificate).map_err(refused)?;
    }
    if roots.is_empty() {
        return Err(format!(
            "{name} holds no certificate in PEM (BEGIN CERTIFICATE)"
        ));
    }
    Ok(Arc::new(
        builder()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    ))
}

/// TLS 1.2 and 1.3 that trusts what the system trusts; `setting` names another
/// way.
pub(super) fn system(setting: &str) -> Result<Arc<ClientConfig>, String> {
    let verified = builder()?.with_platform_verifier().map_err(|error| {
        format!(
            "this system has no CA certificates to verify the server with ({error}): install its package ca-certificates, or set {setting}"
        )
    })?;
    Ok(Arc::new(verified.with_no_client_auth()))
}

/// TLS that trusts nobody, for an upstream that is reached without.
pub(super) fn nobody() -> Result<Arc<ClientConfig>, String> {
    let roots = RootCertStore::empty();
    Ok(Arc::new(
        builder()?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    ))
}

/// Sessions are resumed, which is rustls's default.
fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())
}
