//! Digests that name credentials without holding them.

use std::fmt;

use ring::hmac;
use ring::rand::SystemRandom;

use super::Credentials;

/// Names credentials, or whatever else was signed, without holding them. Of use
/// beside others of the same [`DigestKey`] only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest")
    }
}

#[cfg(test)]
impl Digest {
    /// A digest for tests.
    pub fn of(octets: [u8; 32]) -> Self {
        Self(octets)
    }
}

/// A key that is made anew in each process, and never leaves it.
#[derive(Debug)]
pub struct DigestKey(hmac::Key);

impl DigestKey {
    /// A random key. Fails where the system gives no random numbers.
    pub fn generate() -> Result<Self, ring::error::Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        Ok(Self(key))
    }

    /// The digest of all that credentials are made of.
    pub fn credentials(&self, credentials: &Credentials) -> Digest {
        self.fields(&fields(credentials))
    }

    /// The same for the users of a realm: those of another one may be called alike.
    pub fn credentials_in(&self, realm: &str, credentials: &Credentials) -> Digest {
        self.fields(&[&["realm", realm], &*fields(credentials)].concat())
    }

    /// The digest of these fields, in this order. Where one ends and the next
    /// begins makes a difference.
    pub fn fields(&self, fields: &[&str]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for field in fields {
            context.update(&(field.len() as u64).to_be_bytes());
            context.update(field.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        Digest(digest)
    }
}

/// What credentials are made of, secrets included.
fn fields(credentials: &Credentials) -> Vec<&str> {
    match credentials {
        Credentials::Password {
            user,
            authorize_as: None,
            password,
        } => vec!["password", user, password.reveal()],
        Credentials::Password {
            user,
            authorize_as: Some(authorize_as),
            password,
        } => vec!["password", user, authorize_as, password.reveal()],
        Credentials::Bearer { user, token } => vec!["bearer", user, token.reveal()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, authorize_as: Option<&str>, password: &str) -> Credentials {
        Credentials::Password {
            user: user.to_owned(),
            authorize_as: authorize_as.map(str::to_owned),
            password: password.into(),
        }
    }

    #[test]
    fn digests_do_not_run_fields_together() {
        let key = DigestKey::generate().unwrap();
        let one = key.credentials(&password("ab", None, "c"));
        assert_eq!(one, key.credentials(&password("ab", None, "c")));
        assert_ne!(one, key.credentials(&password("a", None, "bc")));
    }

    #[test]
    fn all_of_the_credentials_matter() {
        let key = DigestKey::generate().unwrap();
        let token = |user: &str, token: &str| Credentials::Bearer {
            user: user.to_owned(),
            token: token.into(),
        };
        let different = [
            password("alice", None, "pw"),
            password("alice", None, "pw "),
            password("Alice", None, "pw"),
            password("alice", Some("bob"), "pw"),
            password("alice", Some(""), "pw"),
            token("alice", "pw"),
            token("alice", "pw2"),
        ];
        for (at, one) in different.iter().enumerate() {
            for (other_at, other) in different.iter().enumerate() {
                let same = key.credentials(one) == key.credentials(other);
                assert_eq!(same, at == other_at, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn another_process_has_another_digest() {
        let digest = || {
            let key = DigestKey::generate().unwrap();
            key.credentials(&password("alice", None, "pw"))
        };
        assert_ne!(digest(), digest());
    }
}
