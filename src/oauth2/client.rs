//! The requests, and what their answers mean.

use url::Url;

use super::{AuthorizationRequest, DeviceAuthorization, Registration, TokenError, Tokens};
use crate::secret::Secret;

/// Asks one provider for tokens.
#[derive(Debug)]
pub struct Client {
    registration: Registration,
}

impl Client {
    /// Nothing is asked yet; what `endpoints.issuer` tells is asked when it is
    /// first needed, and kept.
    pub fn new(registration: Registration) -> Result<Self, TokenError> {
        Ok(Self { registration })
    }

    /// The registration.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Where to send somebody who is to sign in (RFC 6749 §4.1.1, PKCE S256).
    /// `address` is a hint.
    pub async fn begin(
        &self,
        _redirect: &Url,
        _address: Option<&str>,
    ) -> Result<AuthorizationRequest, TokenError> {
        todo!()
    }

    /// The code that the browser brought (RFC 6749 §4.1.3). The caller has compared
    /// the state, and seen that it is used once.
    pub async fn finish(
        &self,
        _request: &AuthorizationRequest,
        _redirect: &Url,
        _code: &Secret,
    ) -> Result<Tokens, TokenError> {
        todo!()
    }

    /// A device code (RFC 8628 §3.1).
    pub async fn device(&self) -> Result<DeviceAuthorization, TokenError> {
        todo!()
    }

    /// Waits until the person has signed in elsewhere (RFC 8628 §3.4), or the code
    /// has run out. Cancel-safe.
    pub async fn device_tokens(&self, _device: &DeviceAuthorization) -> Result<Tokens, TokenError> {
        todo!()
    }

    /// New tokens for a refresh token (RFC 6749 §6). [`Tokens::refresh`] is the one
    /// to keep from now on. One request; the caller sees to it that there is one at
    /// a time.
    pub async fn refresh(&self, _refresh: &Secret) -> Result<Tokens, TokenError> {
        todo!()
    }

    /// A token for a mailbox, without its user ([`super::Grant::ClientCredentials`],
    /// [`super::Grant::ServiceAccount`]).
    pub async fn for_mailbox(&self, _mailbox: &str) -> Result<Tokens, TokenError> {
        todo!()
    }
}
