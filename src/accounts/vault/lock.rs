//! Secrets that open only with a device password: sealed to the public key of the
//! account, whose private key is kept under each device's password.
//!
//! Both layers are within one of the gateway's keys, so that it takes both to open
//! a secret, and the gateway's keys can be changed while nobody logs in.

use std::collections::BTreeMap;
use std::fmt;

use ring::hkdf::{self, HKDF_SHA256};
use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{
    Context, FORMAT, KEY, KeyRing, LOCKED_FORMAT, NONCE, Sealed, VaultError, associated_data,
    decrypt, encrypt, random, text,
};
use crate::secret::Secret;

/// The key pair of an account: its private key is under each of its devices'
/// passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordLock {
    /// Sealed as well: nobody puts his own in its place.
    pub public_key: Sealed,
    /// By the id of the device.
    pub private_keys: BTreeMap<String, Sealed>,
}

/// What a device password opens, beside the gateway's keys.
#[derive(Clone, Default)]
pub struct Opener(Option<Zeroizing<[u8; KEY]>>);

/// A key made of a device password.
pub(in crate::accounts) struct PasswordKey(pub Zeroizing<[u8; KEY]>);

/// The purpose of a public key.
const PUBLIC: &str = "public-key";

impl PasswordLock {
    /// A new key pair, and what opens with it. No device has it yet.
    pub(in crate::accounts) fn new(
        keys: &KeyRing,
        account: &str,
    ) -> Result<(Self, Opener), VaultError> {
        let private = Zeroizing::new(random::<KEY>()?);
        let public = PublicKey::from(&StaticSecret::from(*private));
        let lock = Self {
            public_key: keys.seal_octets(FORMAT, public.as_bytes(), of_lock(account, PUBLIC))?,
            private_keys: BTreeMap::new(),
        };
        Ok((lock, Opener(Some(private))))
    }

    /// Whether any device has the private key.
    pub(in crate::accounts) fn is_held(&self) -> bool {
        !self.private_keys.is_empty()
    }

    /// Gives the private key to a device.
    pub(in crate::accounts) fn give(
        &mut self,
        keys: &KeyRing,
        (account, device): (&str, &str),
        password: &PasswordKey,
        opener: &Opener,
    ) -> Result<(), VaultError> {
        let private = opener.0.as_ref().ok_or(VaultError::Locked)?;
        let purpose = private_key_of(device);
        let context = of_lock(account, &purpose);
        let nonce = random::<NONCE>()?;
        let data = associated_data("device", "", context);
        let inner = encrypt(&password.0, nonce, &data, &private[..])?;
        let inner = [&nonce[..], &inner].concat();
        let sealed = keys.seal_octets(LOCKED_FORMAT, &inner, context)?;
        self.private_keys.insert(device.to_owned(), sealed);
        Ok(())
    }

    /// The private key, with the password of a device.
    pub(in crate::accounts) fn take(
        &self,
        keys: &KeyRing,
        (account, device): (&str, &str),
        password: &PasswordKey,
    ) -> Result<Opener, VaultError> {
        let sealed = self.private_keys.get(device).ok_or(VaultError::Locked)?;
        let purpose = private_key_of(device);
        let context = of_lock(account, &purpose);
        let (_, inner) = keys.open_octets(sealed, context)?;
        let (nonce, inner) = inner.split_first_chunk().ok_or(VaultError::Damaged)?;
        let data = associated_data("device", "", context);
        let private = decrypt(&password.0, *nonce, &data, inner)?;
        let private = <[u8; KEY]>::try_from(private.as_slice());
        let private = private.map_err(|_| VaultError::Damaged)?;
        Ok(Opener(Some(Zeroizing::new(private))))
    }

    /// Seals a secret so that it opens only with a device password. Needs none.
    pub(in crate::accounts) fn seal(
        &self,
        keys: &KeyRing,
        secret: &Secret,
        context: Context<'_>,
    ) -> Result<Sealed, VaultError> {
        let public = of_lock(context.account, PUBLIC);
        let (_, public) = keys.open_octets(&self.public_key, public)?;
        let public = <[u8; KEY]>::try_from(public.as_slice()).map_err(|_| VaultError::Damaged)?;
        let public = PublicKey::from(public);
        let once = StaticSecret::from(*Zeroizing::new(random::<KEY>()?));
        let shown = PublicKey::from(&once);
        let key = agreed(&once, &public, [&shown, &public])?;
        // The key is used once: the nonce need not be another.
        let data = associated_data("locked", "", context);
        let inner = encrypt(&key, [0; NONCE], &data, secret.reveal().as_bytes())?;
        let inner = [public.as_bytes(), shown.as_bytes(), inner.as_slice()].concat();
        keys.seal_octets(LOCKED_FORMAT, &inner, context)
    }

    /// Puts what is not under the gateway's first key there. Returns whether there
    /// was something.
    pub(in crate::accounts) fn reseal(
        &mut self,
        keys: &KeyRing,
        account: &str,
    ) -> Result<bool, VaultError> {
        let mut any = false;
        if !keys.is_current(&self.public_key) {
            self.public_key = keys.reseal(&self.public_key, of_lock(account, PUBLIC))?;
            any = true;
        }
        for (device, sealed) in &mut self.private_keys {
            if !keys.is_current(sealed) {
                let purpose = private_key_of(device);
                *sealed = keys.reseal(sealed, of_lock(account, &purpose))?;
                any = true;
            }
        }
        Ok(any)
    }
}

/// Opens a secret, with the gateway's key alone where that is enough.
pub(in crate::accounts) fn unlocked(
    keys: &KeyRing,
    sealed: &Sealed,
    context: Context<'_>,
    opener: &Opener,
) -> Result<Secret, VaultError> {
    let (format, inner) = keys.open_octets(sealed, context)?;
    if format == FORMAT {
        return text(inner);
    }
    let private = opener.0.as_ref().ok_or(VaultError::Locked)?;
    let private = StaticSecret::from(**private);
    let own = PublicKey::from(&private);
    let (public, inner) = inner
        .split_first_chunk::<KEY>()
        .ok_or(VaultError::Damaged)?;
    if public != own.as_bytes() {
        // For a key pair that the account had before.
        return Err(VaultError::Locked);
    }
    let (shown, inner) = inner
        .split_first_chunk::<KEY>()
        .ok_or(VaultError::Damaged)?;
    let shown = PublicKey::from(*shown);
    let key = agreed(&private, &shown, [&shown, &own])?;
    let data = associated_data("locked", "", context);
    text(decrypt(&key, [0; NONCE], &data, inner)?)
}

/// The key that both sides of an agreement come to (X25519, RFC 7748 §6.1; HKDF,
/// RFC 5869), with both public keys in it.
fn agreed(
    own: &StaticSecret,
    other: &PublicKey,
    both: [&PublicKey; 2],
) -> Result<Zeroizing<[u8; KEY]>, VaultError> {
    let shared = own.diffie_hellman(other);
    if !shared.was_contributory() {
        return Err(VaultError::Damaged);
    }
    let salt = both.map(|it| *it.as_bytes()).concat();
    expand(&salt, shared.as_bytes(), b"popgate locked secret")
}

impl PasswordKey {
    /// Of a password that needs no slow hash.
    pub fn of_strong(salt: &[u8], password: &[u8]) -> Result<Self, VaultError> {
        expand(salt, password, b"popgate device password").map(Self)
    }
}

fn expand(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Zeroizing<[u8; KEY]>, VaultError> {
    let mut key = Zeroizing::new([0; KEY]);
    hkdf::Salt::new(HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], HKDF_SHA256)
        .and_then(|it| it.fill(&mut *key))
        .map_err(|_| VaultError::Damaged)?;
    Ok(key)
}

/// What the keys of an account belong to: to no home, which may change.
fn of_lock<'a>(account: &'a str, purpose: &'a str) -> Context<'a> {
    Context {
        account,
        home: "",
        purpose,
        generation: 0,
    }
}

fn private_key_of(device: &str) -> String {
    format!("private-key {device}")
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}
