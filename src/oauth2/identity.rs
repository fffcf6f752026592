//! Who signed in, as the provider says (OpenID Connect Core).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::TokenError;
use super::answer::plain;
use crate::secret::Secret;

/// How wrong clocks may be, in seconds.
const SKEW: i64 = 300;
/// Octets of the longest address (RFC 5321 §4.5.3.1).
const LONGEST: usize = 320;

/// What is said of somebody, in an id token or by the userinfo endpoint.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: Option<String>,
    aud: Option<Value>,
    azp: Option<String>,
    exp: Option<f64>,
    nonce: Option<String>,
    pub sub: Option<String>,
    email: Option<String>,
    email_verified: Option<Value>,
    preferred_username: Option<String>,
    upn: Option<String>,
}

/// What an id token must hold.
pub(super) struct Expected<'a> {
    /// `None`: the provider has not said.
    pub issuer: Option<&'a str>,
    pub client: &'a str,
    /// `None`: none was sent.
    pub nonce: Option<&'a Secret>,
}

impl Claims {
    /// Reads an id token and checks its claims (OpenID Connect Core §3.1.3.7). It came
    /// from the token endpoint itself, over TLS, which stands for its signature.
    pub fn of_id_token(
        token: &Secret,
        expected: &Expected<'_>,
        now: i64,
    ) -> Result<Self, TokenError> {
        let claims = payload(token.reveal())
            .ok_or_else(|| TokenError::Misconfigured("the id token cannot be read".into()))?;
        claims.check(expected, now)?;
        Ok(claims)
    }

    /// What the userinfo endpoint says (§5.3.2).
    pub fn of_userinfo(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    fn check(&self, expected: &Expected<'_>, now: i64) -> Result<(), TokenError> {
        let wrong = |what: String| {
            let reason = format!("the id token is not for this sign-in: {what}");
            Err(TokenError::Misconfigured(reason))
        };
        if let Some(issuer) = expected.issuer {
            let said = self.iss.as_deref().unwrap_or_default();
            if !same_issuer(said, issuer) {
                return wrong(format!("its issuer is {}", plain(said, &[])));
            }
        }
        if !self.is_for(expected.client) {
            return wrong("it is for another client".to_owned());
        }
        match self.exp {
            Some(exp) if exp + SKEW as f64 > now as f64 => {}
            _ => return wrong("it has expired".to_owned()),
        }
        if let Some(nonce) = expected.nonce
            && self.nonce.as_deref() != Some(nonce.reveal())
        {
            let reason = "the id token is of another sign-in";
            return Err(TokenError::NotSignedIn(reason.to_owned()));
        }
        Ok(())
    }

    fn is_for(&self, client: &str) -> bool {
        let named = match &self.aud {
            Some(Value::String(audience)) => audience == client,
            Some(Value::Array(audiences)) => audiences.iter().any(|it| it == client),
            _ => false,
        };
        named && self.azp.as_deref().is_none_or(|azp| azp == client)
    }

    /// Whether something is said about the address, be it that it may be anybody's.
    pub fn speaks(&self) -> bool {
        self.email.is_some() || self.upn.is_some() || self.preferred_username.is_some()
    }

    /// The address of who signed in, in lower case.
    ///
    /// `email` is what the provider has verified, or nobody. Where it does not say
    /// whether it has, as Microsoft, whose users write there what they like, the
    /// name to sign in with comes first.
    pub fn identity(&self) -> Option<String> {
        let email = self.email.as_deref();
        let verified = match &self.email_verified {
            Some(Value::Bool(verified)) => Some(*verified),
            Some(Value::String(verified)) => Some(verified == "true"),
            Some(Value::Null) | None => None,
            Some(_) => Some(false),
        };
        let login = self.upn.as_deref().or(self.preferred_username.as_deref());
        let identity = match verified {
            Some(true) => email.or(login),
            Some(false) => None,
            None => login.or(email),
        };
        identity
            .map(str::trim)
            .filter(|it| !it.is_empty() && it.len() <= LONGEST)
            .filter(|it| !it.chars().any(|c| c.is_control() || c.is_whitespace()))
            .map(str::to_lowercase)
    }
}

/// Whether `said` is our issuer. They are compared as they are written, but a URL
/// that is parsed gains a slash, and Google leaves the scheme out at times.
pub(super) fn same_issuer(said: &str, ours: &str) -> bool {
    let bare = |issuer: &str| issuer.strip_suffix('/').unwrap_or(issuer).to_owned();
    let (said, ours) = (bare(said), bare(ours));
    !said.is_empty() && (said == ours || ours.strip_prefix("https://") == Some(&said))
}

fn payload(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (_head, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn token(claims: &Value) -> Secret {
        let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
        Secret::new(format!("e30.{payload}.c2ln"))
    }

    fn good() -> Value {
        json!({
            "iss": "https://id.example.org", "aud": "us", "exp": NOW + 60, "nonce": "n",
            "email": "Alice@Example.ORG", "email_verified": true,
        })
    }

    fn read(claims: &Value) -> Result<Option<String>, TokenError> {
        let nonce = Secret::from("n");
        let expected = Expected {
            issuer: Some("https://id.example.org/"),
            client: "us",
            nonce: Some(&nonce),
        };
        Claims::of_id_token(&token(claims), &expected, NOW).map(|claims| claims.identity())
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = good();
        claims[name] = value;
        claims
    }

    #[test]
    fn an_id_token_is_for_this_sign_in() {
        let alice = Ok(Some("alice@example.org".to_owned()));
        assert_eq!(read(&good()), alice);
        assert_eq!(read(&with("aud", json!(["them", "us"]))), alice);
        assert_eq!(read(&with("azp", json!("us"))), alice);
        assert_eq!(read(&with("iss", json!("id.example.org"))), alice);
        assert_eq!(read(&with("exp", json!(NOW - SKEW + 1))), alice);
        for (name, value) in [
            ("iss", json!("https://id.example.org.evil.example")),
            ("iss", json!("http://id.example.org")),
            ("iss", json!("")),
            ("iss", Value::Null),
            ("aud", json!("them")),
            ("aud", json!(["them"])),
            ("aud", Value::Null),
            ("azp", json!("them")),
            ("exp", json!(NOW - SKEW)),
            ("exp", Value::Null),
        ] {
            let read = read(&with(name, value.clone()));
            assert!(
                matches!(read, Err(TokenError::Misconfigured(_))),
                "{name} {value}"
            );
        }
        for nonce in [json!("m"), json!(""), Value::Null] {
            let read = read(&with("nonce", nonce));
            assert!(matches!(read, Err(TokenError::NotSignedIn(_))));
        }
    }

    #[test]
    fn id_tokens_that_are_none() {
        let expected = Expected {
            issuer: None,
            client: "us",
            nonce: None,
        };
        for text in ["", "a.b", "a.b.c", "a.e30.c.d", "..", "a.W10.c", "a.e30=.c"] {
            let read = Claims::of_id_token(&text.into(), &expected, NOW);
            assert!(read.is_err(), "{text}");
        }
    }

    #[test]
    fn who_it_is() {
        let identity = |claims: Value| {
            let claims: Claims = serde_json::from_value(claims).unwrap();
            claims.identity()
        };
        let is = |claims: Value, who: &str| {
            assert_eq!(identity(claims.clone()).as_deref(), Some(who), "{claims}");
        };
        is(
            json!({"email": "a@b", "email_verified": true, "preferred_username": "c@d"}),
            "a@b",
        );
        is(json!({"email": "a@b", "email_verified": "true"}), "a@b");
        is(json!({"email": "a@b", "preferred_username": "C@d"}), "c@d");
        is(json!({"upn": "u@d", "preferred_username": "c@d"}), "u@d");
        is(json!({"email": "a@b"}), "a@b");
        is(json!({"preferred_username": "alice"}), "alice");
        for nobody in [
            json!({"email": "a@b", "email_verified": false, "preferred_username": "a@b"}),
            json!({"email": "a@b", "email_verified": "false"}),
            json!({"email": "a@b", "email_verified": 1}),
            json!({"email": ""}),
            json!({"email": "a\r\n@b"}),
            json!({"email": "a b@c"}),
            json!({"email": "a".repeat(321)}),
            json!({"sub": "17"}),
        ] {
            assert_eq!(identity(nobody.clone()), None, "{nobody}");
        }
    }
}
