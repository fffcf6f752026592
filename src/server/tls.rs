//! The certificate popgate shows to POP3 clients, reloaded while it runs.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

mod validity;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(5);

/// A PEM file larger than this is not what was meant.
const LARGEST_FILE: u64 = 1024 * 1024;

/// The ALPN protocol id of POP3 (RFC 7301, IANA). A client that offers only
/// others is talking to the wrong server and is refused; one that offers none
/// passes.
const ALPN: &[u8] = b"pop3";

/// A certificate chain and its key, shared by all listeners.
///
/// New handshakes use what was loaded last. A pair that cannot be loaded never
/// replaces one that could.
pub struct Certificates {
    files: Option<Files>,
    current: Arc<Current>,
    server_config: Arc<rustls::ServerConfig>,
}

/// Why a certificate cannot be used, by the file to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The certificate file.
    #[error("{0}")]
    Certificate(String),
    /// The key file.
    #[error("{0}")]
    Key(String),
    /// Both can be read, but the key is another certificate's.
    #[error("the certificate in {cert} and the key in {key} do not belong together")]
    Mismatch {
        /// The certificate's file.
        cert: String,
        /// The key's file.
        key: String,
    },
    /// A self-signed certificate could not be made, or TLS not be set up.
    #[error("{0}")]
    Internal(String),
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What a file was when it was read: another one has another fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fingerprint([Option<FileState>; 2]);

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    octets: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

struct Loaded {
    key: Arc<CertifiedKey>,
    expires: Option<i64>,
    fingerprint: Option<Fingerprint>,
}

/// Hands the pair loaded last to each handshake.
struct Current(ArcSwap<Loaded>);

impl Certificates {
    /// Reads a chain (the server's own certificate first) and its unencrypted
    /// key (PKCS#8, PKCS#1 or SEC1) from PEM files.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = Files {
            cert: cert.to_owned(),
            key: key.to_owned(),
        };
        let loaded = files.load()?;
        Self::new(Some(files), loaded)
    }

    /// Makes a certificate that nobody has reason to trust, for trying out.
    pub fn self_signed() -> Result<Self, CertificateError> {
        let internal = |error: rcgen::Error| {
            CertificateError::Internal(format!("no self-signed certificate: {error}"))
        };
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = rcgen::CertificateParams::new(names).map_err(internal)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(
            rcgen::DnType::CommonName,
            "popgate self-signed, for trying out",
        );
        let key = rcgen::KeyPair::generate().map_err(internal)?;
        let cert = params.self_signed(&key).map_err(internal)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let pair = CertifiedKey::from_der(vec![cert.der().clone()], key, &provider())
            .map_err(|error| CertificateError::Internal(error.to_string()))?;
        let expires = validity::not_after(cert.der());
        Self::new(
            None,
            Loaded {
                key: Arc::new(pair),
                expires,
                fingerprint: None,
            },
        )
    }

    fn new(files: Option<Files>, loaded: Loaded) -> Result<Self, CertificateError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(loaded)));
        let mut server_config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| CertificateError::Internal(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        server_config.alpn_protocols = vec![ALPN.to_vec()];
        // A command must not be replayed: no 0-RTT.
        server_config.max_early_data_size = 0;
        Ok(Self {
            files,
            current,
            server_config: Arc::new(server_config),
        })
    }

    /// TLS 1.2 and 1.3 with the certificate loaded last, whichever that is at
    /// the time of the handshake.
    pub fn server_config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.server_config)
    }

    /// When the server's certificate expires, in seconds since 1970.
    pub fn expires_at(&self) -> Option<i64> {
        self.current.0.load().expires
    }

    /// Whether the certificate was made by popgate itself.
    pub fn is_self_signed(&self) -> bool {
        self.files.is_none()
    }

    /// Reads the files again. If they cannot be used, the old pair stays and
    /// the log says so. A self-signed certificate stays as it is.
    pub fn reload(&self) {
        let Some(files) = &self.files else { return };
        match files.load() {
            Ok(loaded) => self.replace(loaded),
            Err(problem) => complain(&problem),
        }
    }

    /// Reads the files again whenever they change, until `shutdown`.
    pub async fn watch(self: Arc<Self>, shutdown: CancellationToken) {
        if self.files.is_none() {
            return;
        }
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failure = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || this.look(failure)).await;
            failure = looked.unwrap_or_default();
        }
    }

    /// Loads the files if they are no longer those that are in use.
    fn look(&self, last: Option<Failure>) -> Option<Failure> {
        let files = self.files.as_ref()?;
        let fingerprint = files.fingerprint();
        if self.current.0.load().fingerprint.as_ref() == Some(&fingerprint) {
            return None;
        }
        match files.load() {
            Ok(loaded) => {
                self.replace(loaded);
                None
            }
            Err(problem) => Some(Failure::report(fingerprint, problem, last)),
        }
    }

    fn replace(&self, loaded: Loaded) {
        info!(expires_at = loaded.expires, "certificate loaded");
        self.current.0.store(Arc::new(loaded));
    }
}

/// Files that could not be loaded when last looked at.
struct Failure {
    fingerprint: Fingerprint,
    problem: CertificateError,
    reported: bool,
}

impl Failure {
    /// Certificate and key are replaced one after the other, so a pair that
    /// does not fit may only be half written: what is still wrong at the next
    /// look is an error.
    fn report(fingerprint: Fingerprint, problem: CertificateError, last: Option<Self>) -> Self {
        match last {
            Some(last) if last.fingerprint == fingerprint && last.problem == problem => {
                if !last.reported {
                    complain(&problem);
                }
                Self {
                    reported: true,
                    ..last
                }
            }
            _ => {
                warn!("certificate files changed, but are not usable yet: {problem}");
                Self {
                    fingerprint,
                    problem,
                    reported: false,
                }
            }
        }
    }
}

fn complain(problem: &CertificateError) {
    error!("CERTIFICATE NOT RELOADED, the old one stays in use: {problem}");
}

/// TLS by ring, the one provider that is built in.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Files {
    fn load(&self) -> Result<Loaded, CertificateError> {
        // Taken first: a file that changes while it is read is read again.
        let fingerprint = self.fingerprint();
        let chain = self.chain().map_err(CertificateError::Certificate)?;
        let key = self.private_key().map_err(CertificateError::Key)?;
        let expires = chain
            .first()
            .and_then(|certificate| validity::not_after(certificate));
        let pair = CertifiedKey::from_der(chain, key, &provider());
        let pair = pair.map_err(|problem| match problem {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch {
                cert: self.cert.display().to_string(),
                key: self.key.display().to_string(),
            },
            rustls::Error::InvalidCertificate(problem) => CertificateError::Certificate(format!(
                "{} is not an X.509 certificate: {problem:?}",
                self.cert.display()
            )),
            other => CertificateError::Key(format!("{}: {other}", self.key.display())),
        })?;
        Ok(Loaded {
            key: Arc::new(pair),
            expires,
            fingerprint: Some(fingerprint),
        })
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let name = self.cert.display();
        let pem = read(&self.cert)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|error| format!("{name} is not whole PEM: {error}"))?;
        if chain.is_empty() {
            return Err(format!(
                "{name} holds no certificate in PEM (BEGIN CERTIFICATE)"
            ));
        }
        Ok(chain)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let name = self.key.display();
        let pem = read(&self.key)?;
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
            pem::Error::NoItemsFound => format!(
                "{name} holds no private key in PEM (BEGIN PRIVATE KEY); an encrypted one must be decrypted first"
            ),
            // The error could quote the key.
            _ => format!("{name} is not whole PEM"),
        })
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint([&self.cert, &self.key].map(|path| FileState::of(path).ok()))
    }
}

impl FileState {
    /// Of the file behind `path`, symbolic links followed.
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            octets: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The octets of a PEM file, wiped when dropped: it may be a key.
fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
    let name = path.display();
    let metadata = fs::metadata(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    if !metadata.is_file() || metadata.len() > LARGEST_FILE {
        return Err(format!("{name} is not a PEM file"));
    }
    let pem = fs::read(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    Ok(zeroize::Zeroizing::new(pem))
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("cert", &self.files.as_ref().map(|files| &files.cert))
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
