//! An external check of passwords by HTTP, as nginx's mail proxy asks
//! (`auth_http`): a request whose headers say who shows what, and an answer whose
//! headers say whether that is good.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::CredentialError;
use crate::secret::Secret;

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct HttpCheckConfig {
    /// https, or http on loopback.
    pub url: Url,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Whom its certificate must come from.
    pub tls: Arc<rustls::ClientConfig>,
    /// Servers that an answer may name, as `host:port`, with the URL of each. Others
    /// are not followed.
    pub servers: BTreeMap<String, String>,
}

/// Asks an external service about passwords.
#[derive(Debug)]
pub struct HttpCheck {
    _config: HttpCheckConfig,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpVerdict {
    /// The password is good.
    Admitted {
        /// The user name upstream, where it is another.
        user: Option<String>,
        /// The password upstream, where it is another.
        password: Option<Secret>,
        /// The URL of the server that it names, where that is a listed one.
        upstream: Option<String>,
    },
    /// It is not.
    Refused {
        /// How long the client is to wait before it is told.
        wait: Option<Duration>,
    },
}

impl HttpCheck {
    /// Nothing is asked yet. [`CredentialError::Misconfigured`]: the URL will not do.
    pub fn new(config: HttpCheckConfig) -> Result<Self, CredentialError> {
        Ok(Self { _config: config })
    }

    /// Asks whether a password is good. `attempt` counts from 1 in a session; `tls`:
    /// the client's connection is encrypted. Whatever is not a clear answer is
    /// [`CredentialError::Temporary`], never a refusal.
    pub async fn check(
        &self,
        _user: &str,
        _password: &Secret,
        _client: IpAddr,
        _attempt: u32,
        _tls: bool,
    ) -> Result<HttpVerdict, CredentialError> {
        todo!()
    }
}
