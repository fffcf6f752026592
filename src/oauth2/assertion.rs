//! JSON web tokens that popgate signs: as a client, instead of a secret
//! (RFC 7523 §2.2), and as a Google service account, for a mailbox (§2.1).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::SigningKey;
use serde_json::{Map, Value, json};

use super::TokenError;
use super::random;
use crate::secret::Secret;

/// Seconds that an assertion is good for.
const CLIENT_LIFETIME: i64 = 600;
/// As long as Google allows.
const MAILBOX_LIFETIME: i64 = 3600;

/// Signs with RS256 (RFC 7518 §3.3).
pub(super) struct Signer {
    key: Arc<dyn SigningKey>,
    /// Names the key in each head.
    name: Option<(&'static str, String)>,
}

impl Signer {
    /// `key` in PEM, of a certificate that has this thumbprint, in hexadecimal or
    /// base64; or the key's id.
    pub fn of_client(key: &Secret, thumbprint: &str) -> Result<Self, TokenError> {
        Self::new(key, name(thumbprint))
    }

    /// `key` in PEM, of a service account that knows it by this id, which looks like
    /// a thumbprint; empty: not known.
    pub fn of_account(key: &Secret, id: &str) -> Result<Self, TokenError> {
        let id = id.trim();
        Self::new(key, (!id.is_empty()).then(|| ("kid", id.to_owned())))
    }

    fn new(key: &Secret, name: Option<(&'static str, String)>) -> Result<Self, TokenError> {
        let wrong = |reason: &str| TokenError::Misconfigured(reason.to_owned());
        let der = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
            .map_err(|_| wrong("the provider's key is no private key in PEM"))?;
        let key = rustls::crypto::ring::sign::any_supported_type(&der)
            .map_err(|_| wrong("the provider's key cannot be read"))?;
        let signer = Self { key, name };
        signer.sign(b"")?;
        Ok(signer)
    }

    /// Shows which client asks.
    pub fn as_client(&self, client: &str, token: &str, now: i64) -> Result<Secret, TokenError> {
        self.token(&json!({
            "iss": client,
            "sub": client,
            "aud": token,
            "jti": random()?.reveal(),
            "iat": now,
            "nbf": now,
            "exp": now.saturating_add(CLIENT_LIFETIME),
        }))
    }

    /// Asks for a mailbox.
    pub fn for_mailbox(
        &self,
        account: &str,
        mailbox: &str,
        scope: &str,
        token: &str,
        now: i64,
    ) -> Result<Secret, TokenError> {
        self.token(&json!({
            "iss": account,
            "sub": mailbox,
            "scope": scope,
            "aud": token,
            "iat": now,
            "exp": now.saturating_add(MAILBOX_LIFETIME),
        }))
    }

    fn token(&self, claims: &Value) -> Result<Secret, TokenError> {
        let mut head = Map::new();
        head.insert("alg".to_owned(), "RS256".into());
        head.insert("typ".to_owned(), "JWT".into());
        if let Some((name, value)) = &self.name {
            head.insert((*name).to_owned(), value.as_str().into());
        }
        let head = URL_SAFE_NO_PAD.encode(Value::from(head).to_string());
        let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
        let signed = format!("{head}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes())?);
        Ok(Secret::new(format!("{signed}.{signature}")))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        let signer = self.key.choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256]);
        signer
            .and_then(|signer| signer.sign(message).ok())
            .ok_or_else(|| TokenError::Misconfigured("the provider's key is no RSA key".into()))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// The certificate's SHA-1 or SHA-256 (RFC 7515 §4.1.7, §4.1.8), else the key's id.
fn name(thumbprint: &str) -> Option<(&'static str, String)> {
    let thumbprint = thumbprint.trim();
    let digits: String = thumbprint
        .chars()
        .filter(|c| !matches!(c, ':' | ' '))
        .collect();
    let octets = hexadecimal(&digits);
    match octets.as_deref().map(<[u8]>::len) {
        Some(20) => Some(("x5t", URL_SAFE_NO_PAD.encode(octets?))),
        Some(32) => Some(("x5t#S256", URL_SAFE_NO_PAD.encode(octets?))),
        _ if thumbprint.is_empty() => None,
        _ => match URL_SAFE_NO_PAD
            .decode(thumbprint.trim_end_matches('='))
            .as_deref()
            .map(<[u8]>::len)
        {
            Ok(20) => Some(("x5t", thumbprint.trim_end_matches('=').to_owned())),
            Ok(32) => Some(("x5t#S256", thumbprint.trim_end_matches('=').to_owned())),
            _ => Some(("kid", thumbprint.to_owned())),
        },
    }
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    digits
        .chunks(2)
        .map(|pair| {
            let pair: &[u8; 2] = pair.try_into().ok()?;
            let digit = |c: u8| char::from(c).to_digit(16);
            u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_key() {
        let sha1 = "00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33";
        let x5t = Some(("x5t", "ABEiM0RVZneImaq7zN3u_wARIjM".to_owned()));
        assert_eq!(name(sha1), x5t);
        assert_eq!(name(&sha1.replace(':', "").to_uppercase()), x5t);
        assert_eq!(name("ABEiM0RVZneImaq7zN3u_wARIjM"), x5t);
        assert_eq!(name("ABEiM0RVZneImaq7zN3u_wARIjM="), x5t);
        let sha256 = "ab".repeat(32);
        assert!(matches!(name(&sha256), Some(("x5t#S256", _))));
        assert_eq!(name("key-1"), Some(("kid", "key-1".to_owned())));
        assert_eq!(name(""), None);
    }

    #[test]
    fn keys_that_are_none() {
        for key in [
            "",
            "secret",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            let error = Signer::of_client(&key.into(), "").unwrap_err();
            assert!(matches!(error, TokenError::Misconfigured(_)));
        }
        let curve = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let error = Signer::of_account(&curve.as_str().into(), "").unwrap_err();
        let expected = "the provider's key is no RSA key";
        assert_eq!(error, TokenError::Misconfigured(expected.into()));
    }
}
