//! Secrets at rest: XChaCha20-Poly1305 under a key that is not in the store.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// A secret under a key, with what it belongs to sealed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

/// The private key of an account, under each of its devices' passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordLock {
    /// In base64.
    pub public_key: String,
    /// By the id of the device.
    pub private_keys: std::collections::BTreeMap<String, Sealed>,
}

/// What a sealed secret belongs to: it opens in no other place.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whose it is.
    pub account: &'a str,
    /// The provider, or the URL upstream.
    pub home: &'a str,
    /// What it is: `refresh`, `access`, `password`, `api-token`.
    pub purpose: &'a str,
    /// [`super::SealedTokens::generation`]; 0 for what has none.
    pub generation: u64,
}

/// The gateway's keys: the first seals, all of them open.
pub struct KeyRing(());

/// What a device password opens, beside the gateway's keys.
#[derive(Clone, Default)]
pub struct Opener(Option<Zeroizing<[u8; 32]>>);

/// A secret cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// No key is configured.
    #[error("no key for accounts is configured")]
    NoKey,
    /// It was sealed with a key that is not among the configured ones.
    #[error("sealed with another key ({0})")]
    AnotherKey(String),
    /// It is not what was sealed, or not where it was.
    #[error("damaged, or not where it belongs")]
    Damaged,
    /// Only a device password opens it, and none was shown.
    #[error("opens only with a device password")]
    Locked,
    /// The system gives no random numbers.
    #[error("no random numbers from the system")]
    Random,
    /// The text of a key is none.
    #[error("{0}")]
    Key(String),
}

impl KeyRing {
    /// Reads keys, one a line; the first seals.
    pub fn parse(_text: &Secret) -> Result<Self, VaultError> {
        todo!()
    }

    /// A new key, as [`KeyRing::parse`] reads it.
    pub fn generate() -> Result<Secret, VaultError> {
        todo!()
    }

    /// Seals a secret.
    pub fn seal(&self, _secret: &Secret, _context: Context<'_>) -> Result<Sealed, VaultError> {
        todo!()
    }

    /// Opens what was sealed there.
    pub fn open(&self, _sealed: &Sealed, _context: Context<'_>) -> Result<Secret, VaultError> {
        todo!()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing")
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}
