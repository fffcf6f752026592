//! OAuth 2.0 (RFC 6749) as a client: how popgate gets tokens from a provider's
//! authorisation server, and new ones before the old ones end.
//!
//! Nothing here keeps anything: whoever asks for tokens stores them
//! (`accounts`). No token, code or secret is in any error or log line.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use url::Url;

use crate::secret::Secret;

mod answer;
mod assertion;
mod client;
mod device;
mod discovery;
mod flight;
mod form;
#[cfg(fuzzing)]
pub mod fuzzing;
mod http;
mod identity;
mod presets;

pub use client::Client;
pub use http::is_loopback;
pub use presets::{PRESETS, Preset, TenantError, preset};

/// A client's registration at a provider, and where the provider is.
#[derive(Clone, Debug)]
pub struct Registration {
    /// How tokens are got.
    pub grant: Grant,
    /// Where.
    pub endpoints: Endpoints,
    /// As the provider gave it.
    pub client_id: String,
    /// How popgate proves that it is this client.
    pub client_proof: ClientProof,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// More parameters of the authorisation request (`access_type=offline`).
    pub authorization_parameters: Vec<(String, String)>,
    /// Whom the endpoints' certificates must come from.
    pub tls: Arc<rustls::ClientConfig>,
}

/// How tokens are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Somebody signs in: authorisation code with PKCE (RFC 7636), or device code
    /// (RFC 8628); then by refresh token.
    User,
    /// popgate itself may open every mailbox (RFC 6749 §4.4).
    ClientCredentials,
    /// The same for a Google service account (RFC 7523): the JWT names the
    /// mailbox.
    ServiceAccount,
}

/// The authorisation server's URLs: https, or http on loopback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Where people are sent to sign in.
    pub authorization: Option<Url>,
    /// Where tokens come from.
    pub token: Option<Url>,
    /// Where device codes come from (RFC 8628 §3.1).
    pub device: Option<Url>,
    /// Who signed in, where the token response does not say (OpenID Connect).
    pub userinfo: Option<Url>,
    /// What id tokens and callbacks (RFC 9207) must name. Where `authorization` or
    /// `token` is needed and `None`, discovery (OpenID Connect, RFC 8414) fills in
    /// all that is `None`.
    pub issuer: Option<Url>,
}

impl Endpoints {
    /// Each that is known.
    pub fn all(&self) -> impl Iterator<Item = &Url> {
        let Self {
            authorization,
            token,
            device,
            userinfo,
            issuer,
        } = self;
        [authorization, token, device, userinfo, issuer]
            .into_iter()
            .flatten()
    }

    fn are_incomplete(&self, grant: &Grant) -> bool {
        self.token.is_none() || (*grant == Grant::User && self.authorization.is_none())
    }
}

/// How a client proves which one it is.
#[derive(Clone)]
pub enum ClientProof {
    /// A public client.
    None,
    /// The client's secret.
    Secret(Secret),
    /// A private key whose certificate the provider knows: signs assertions
    /// (RFC 7523 §2.2), in PKCS #8 or PKCS #1 PEM.
    Certificate {
        /// In PEM.
        key: Secret,
        /// SHA-1 of the certificate (`x5t`), or the key's id (`kid`).
        thumbprint: String,
    },
}

impl fmt::Debug for ClientProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Secret(_) => "Secret",
            Self::Certificate { .. } => "Certificate",
        })
    }
}

/// 256 random bits, in base64url: a state, a nonce, a verifier (RFC 7636 §4.1).
fn random() -> Result<Secret, TokenError> {
    let mut octets = zeroize::Zeroizing::new([0; 32]);
    let filled = SystemRandom::new().fill(octets.as_mut());
    filled.map_err(|_| http::temporary("the system gives no random numbers"))?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(octets)))
}

/// What an authorisation server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Opens the mailbox.
    pub access: Secret,
    /// When it ends, in seconds of Unix time.
    pub expires_at: i64,
    /// Gets the next ones; `None`: the one that was used stays good, or there is
    /// none.
    pub refresh: Option<Secret>,
    /// Who signed in, where the provider says (OpenID Connect: `email`,
    /// `preferred_username` or `upn`), in lower case.
    pub identity: Option<String>,
}

/// Somebody has been sent to sign in: what is needed when the browser comes back.
#[derive(Clone)]
pub struct AuthorizationRequest {
    /// Where the browser goes.
    pub url: Url,
    /// Comes back unchanged, once.
    pub state: Secret,
    /// Shown with the code (RFC 7636 §4.5).
    pub verifier: Secret,
    /// What the id token must hold.
    pub nonce: Secret,
}

/// The URL holds the state and the nonce.
impl fmt::Debug for AuthorizationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationRequest")
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

/// A device code under way (RFC 8628 §3.2).
#[derive(Clone)]
pub struct DeviceAuthorization {
    /// What the person types.
    pub user_code: String,
    /// Where.
    pub verification_uri: Url,
    /// The same with the code in it, for a QR code.
    pub verification_uri_complete: Option<Url>,
    /// How long the code is good.
    pub expires_in: Duration,
    /// What popgate asks with.
    pub device_code: Secret,
    /// How long to wait between questions.
    pub interval: Duration,
}

/// Whoever has a code could sign in in its place.
impl fmt::Debug for DeviceAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceAuthorization")
            .field("host", &self.verification_uri.host_str())
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// Tokens cannot be had; by who is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The grant is no longer good (`invalid_grant`): somebody has to sign in
    /// again.
    #[error("the provider refused: {0}")]
    Refused(String),
    /// The person said no, or the device code ran out.
    #[error("not signed in: {0}")]
    NotSignedIn(String),
    /// An outage, a timeout, a throttle, `temporary: true`.
    #[error("{reason}")]
    Temporary {
        /// For the operator.
        reason: String,
        /// Not to be asked again before.
        retry_after: Option<Duration>,
    },
    /// A setting must be changed, here or at the provider (`invalid_client`,
    /// `invalid_scope`, a certificate that does not verify).
    #[error("{0}")]
    Misconfigured(String),
}

/// There is no new access token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct NotRefreshed {
    /// Why.
    pub error: TokenError,
    /// The refresh token from now on, where the answer held one beside what is no
    /// access token.
    pub refresh: Option<Secret>,
}

impl From<answer::Problem> for NotRefreshed {
    fn from(problem: answer::Problem) -> Self {
        Self {
            error: problem.meaning,
            refresh: problem.refresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reads_a_sign_in_under_way_from_what_is_printed() {
        let url = |text: &str| Url::parse(text).unwrap();
        let request = AuthorizationRequest {
            url: url("https://id.example.org/?state=canary&nonce=canary"),
            state: "canary".into(),
            verifier: "canary".into(),
            nonce: "canary".into(),
        };
        let device = DeviceAuthorization {
            user_code: "canary".into(),
            verification_uri: url("https://id.example.org/device"),
            verification_uri_complete: Some(url("https://id.example.org/device?code=canary")),
            expires_in: Duration::from_secs(900),
            device_code: "canary".into(),
            interval: Duration::from_secs(5),
        };
        let printed = format!("{request:?} {device:?}");
        assert!(!printed.contains("canary"), "{printed}");
    }
}
