//! Secrets at rest: XChaCha20-Poly1305 under a key that is not in the store.
//!
//! A sealed secret is text: the version of this format, the id of the key, and in
//! base64url a nonce and the ciphertext. What it belongs to is the associated data,
//! so that it opens in no other place. Where secrets open only with a device
//! password ([`PasswordLock`]), there is a second layer within.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::Secret;

mod lock;

pub use lock::{Opener, PasswordLock};
pub(super) use lock::{PasswordKey, unlocked};

/// The version of the format, in each sealed secret and its associated data.
const FORMAT: &str = "1";
/// The same, where a device password is needed as well.
const LOCKED_FORMAT: &str = "1p";
/// What a line with a key may begin with.
const PREFIX: &str = "popgate-key:";
/// Octets of a key.
const KEY: usize = 32;
const NONCE: usize = 24;

/// A secret under a key, with what it belongs to sealed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

/// What a sealed secret belongs to: it opens in no other place.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whose it is.
    pub account: &'a str,
    /// The provider, or the URL upstream.
    pub home: &'a str,
    /// What it is: `refresh`, `access`, `password`, `api-token`, or a key.
    pub purpose: &'a str,
    /// [`super::SealedTokens::generation`]; 0 for what has none.
    pub generation: u64,
}

/// The gateway's keys: the first seals, all of them open.
pub struct KeyRing {
    /// The first, then the others.
    keys: Vec<Key>,
}

struct Key {
    id: String,
    octets: Zeroizing<[u8; KEY]>,
}

/// A secret cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// No key is configured.
    #[error("no key for accounts is configured")]
    NoKey,
    /// It was sealed with a key that is not among the configured ones; its id.
    #[error("sealed with another key ({0}), which is not among the configured ones")]
    AnotherKey(String),
    /// It is not what was sealed, or not where it was.
    #[error("damaged, or not where it belongs")]
    Damaged,
    /// Only a device password opens it, and none was shown that does.
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
    /// Reads keys, one a line: 32 octets in base64, `popgate-key:` before them or
    /// not. The first seals. Blank lines do not count, nor do those that begin with
    /// `#`. Errors are [`VaultError::Key`], and repeat nothing of the text.
    pub fn parse(text: &Secret) -> Result<Self, VaultError> {
        let mut keys: Vec<Key> = Vec::new();
        for (line, number) in text.reveal().lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |problem| VaultError::Key(format!("line {number} of the keys: {problem}"));
            let key = key(line).map_err(wrong)?;
            if keys.iter().any(|it| it.octets == key.octets) {
                return Err(wrong("the same key again"));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(VaultError::Key("there is no key".to_owned()));
        }
        Ok(Self { keys })
    }

    /// A new key, as [`KeyRing::parse`] reads it.
    pub fn generate() -> Result<Secret, VaultError> {
        let octets = Zeroizing::new(random::<KEY>()?);
        let text = Zeroizing::new(STANDARD.encode(*octets));
        Ok(Secret::new(format!("{PREFIX}{}", *text)))
    }

    /// The ids of the keys; the first seals. They tell nothing of the keys.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }

    /// Seals a secret.
    pub fn seal(&self, secret: &Secret, context: Context<'_>) -> Result<Sealed, VaultError> {
        self.seal_octets(FORMAT, secret.reveal().as_bytes(), context)
    }

    /// Opens what was sealed there.
    pub fn open(&self, sealed: &Sealed, context: Context<'_>) -> Result<Secret, VaultError> {
        let (format, octets) = self.open_octets(sealed, context)?;
        match format {
            FORMAT => text(octets),
            _ => Err(VaultError::Locked),
        }
    }

    /// Whether the key that seals now has sealed it.
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        let id = sealed.key_id();
        self.ids().next().is_some_and(|first| id == Some(first))
    }

    /// The id of the key that opens it, where it is not among these.
    pub fn missing_for<'a>(&self, sealed: &'a Sealed) -> Option<&'a str> {
        let id = sealed.key_id()?;
        self.ids().all(|own| own != id).then_some(id)
    }

    /// The same secret under the key that seals now. Needs no device password.
    pub fn reseal(&self, sealed: &Sealed, context: Context<'_>) -> Result<Sealed, VaultError> {
        let (format, octets) = self.open_octets(sealed, context)?;
        self.seal_octets(format, &octets, context)
    }

    fn seal_octets(
        &self,
        format: &str,
        octets: &[u8],
        context: Context<'_>,
    ) -> Result<Sealed, VaultError> {
        let key = self.keys.first().ok_or(VaultError::NoKey)?;
        let data = associated_data(format, &key.id, context);
        let nonce = random::<NONCE>()?;
        let sealed = encrypt(&key.octets, nonce, &data, octets)?;
        let sealed = URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        Ok(Sealed(format!("{format}.{}.{sealed}", key.id)))
    }

    fn open_octets<'a>(
        &self,
        sealed: &'a Sealed,
        context: Context<'_>,
    ) -> Result<(&'a str, Zeroizing<Vec<u8>>), VaultError> {
        let (format, id, octets) = sealed.parts().ok_or(VaultError::Damaged)?;
        if format != FORMAT && format != LOCKED_FORMAT {
            return Err(VaultError::Damaged);
        }
        let key = self.keys.iter().find(|key| key.id == id);
        let key = key.ok_or_else(|| match is_id(id) {
            true => VaultError::AnotherKey(id.to_owned()),
            false => VaultError::Damaged,
        })?;
        let octets = URL_SAFE_NO_PAD.decode(octets);
        let octets = octets.map_err(|_| VaultError::Damaged)?;
        let (nonce, ciphertext) = octets.split_first_chunk().ok_or(VaultError::Damaged)?;
        let data = associated_data(format, id, context);
        Ok((format, decrypt(&key.octets, *nonce, &data, ciphertext)?))
    }
}

impl Sealed {
    /// The id of the key that sealed it.
    pub(super) fn key_id(&self) -> Option<&str> {
        self.parts().map(|(_, id, _)| id)
    }

    /// The format, the id of the key, and the rest.
    fn parts(&self) -> Option<(&str, &str, &str)> {
        let (format, rest) = self.0.split_once('.')?;
        let (id, octets) = rest.split_once('.')?;
        Some((format, id, octets))
    }
}

/// Reads the text of a key. Errors are in words.
fn key(text: &str) -> Result<Key, &'static str> {
    let text = text.strip_prefix(PREFIX).unwrap_or(text).trim();
    let octets = STANDARD_NO_PAD
        .decode(text.trim_end_matches('='))
        .or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')))
        .map(Zeroizing::new)
        .map_err(|_| "no base64")?;
    let octets = <[u8; KEY]>::try_from(octets.as_slice())
        .map(Zeroizing::new)
        .map_err(|_| "a key has 32 octets, 44 characters in base64")?;
    if octets.iter().all(|octet| *octet == octets[0]) {
        return Err("a key is made at random");
    }
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    digest.update(b"popgate key id\0");
    digest.update(&*octets);
    let digest = digest.finish();
    let id = digest.as_ref().iter().take(8);
    Ok(Key {
        id: id.map(|octet| format!("{octet:02x}")).collect(),
        octets,
    })
}

/// Whether a text has the form of the id of a key.
fn is_id(text: &str) -> bool {
    text.len() == 16
        && text
            .bytes()
            .all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// What is sealed in: each part with its length before it, so that no two contexts
/// are the same octets.
fn associated_data(format: &str, key: &str, context: Context<'_>) -> Vec<u8> {
    let mut data = b"popgate sealed\0".to_vec();
    let parts = [format, key, context.account, context.home, context.purpose];
    for part in parts {
        data.extend((part.len() as u64).to_be_bytes());
        data.extend(part.as_bytes());
    }
    data.extend(context.generation.to_be_bytes());
    data
}

fn encrypt(
    key: &[u8; KEY],
    nonce: [u8; NONCE],
    data: &[u8],
    octets: &[u8],
) -> Result<Vec<u8>, VaultError> {
    // Room for the tag: what is secret is not moved, and left behind unwiped.
    let mut sealed = Vec::with_capacity(octets.len() + 16);
    sealed.extend_from_slice(octets);
    XChaCha20Poly1305::new(key.into())
        .encrypt_in_place(&XNonce::from(nonce), data, &mut sealed)
        .map_err(|_| VaultError::Damaged)?;
    Ok(sealed)
}

fn decrypt(
    key: &[u8; KEY],
    nonce: [u8; NONCE],
    data: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut octets = Zeroizing::new(sealed.to_vec());
    XChaCha20Poly1305::new(key.into())
        .decrypt_in_place(&XNonce::from(nonce), data, &mut *octets)
        .map_err(|_| VaultError::Damaged)?;
    Ok(octets)
}

fn text(octets: Zeroizing<Vec<u8>>) -> Result<Secret, VaultError> {
    let text = std::str::from_utf8(&octets).map_err(|_| VaultError::Damaged)?;
    Ok(Secret::from(text))
}

/// So many octets at random.
pub(super) fn random<const N: usize>() -> Result<[u8; N], VaultError> {
    let mut octets = [0; N];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| VaultError::Random)?;
    Ok(octets)
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests;
