//! What device passwords are compared with, and how much work that may be.
//!
//! A generated password has more entropy than anybody can try: one SHA-256 is
//! enough (NIST SP 800-63B §3.1.1.2 asks for slow hashes of what people remember).
//! One that a person chose gets Argon2id (RFC 9106) with 19 MiB, two passes and one
//! lane, and only so many of these run or wait at a time.

use std::sync::Arc;

use argon2::password_hash::phc::{Ident, Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::vault::{PasswordKey, random};
use super::{AccountsError, Secret, VaultError, Verifier};

/// KiB, passes and lanes.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Octets of an Argon2id hash.
const HASH: usize = 32;
/// Of each kind of verifier.
const SALT: usize = 16;
/// A stored verifier that asks for more memory than this (in KiB) is none.
const MOST_MEMORY: u32 = 64 * 1024;

/// Slow hashes that run at a time, on half of the processors: 76 MiB at most.
const MOST_RUNNING: usize = 4;
/// Slow hashes that wait. Beyond that a login is told to come again.
const MOST_WAITING: usize = 64;

/// Runs slow hashes, a few at a time.
#[derive(Debug)]
pub(super) struct Hashing {
    running: Arc<Semaphore>,
    /// Of those that run or wait.
    places: Arc<Semaphore>,
    #[cfg(test)]
    pub work: Work,
}

/// How much was done, for tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Work {
    pub quick: std::sync::atomic::AtomicU64,
    pub slow: std::sync::atomic::AtomicU64,
}

/// What makes a slow hash.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recipe {
    params: Params,
    salt: Vec<u8>,
}

impl Default for Hashing {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let running = (processors / 2).clamp(1, MOST_RUNNING);
        Self {
            running: Arc::new(Semaphore::new(running)),
            places: Arc::new(Semaphore::new(running + MOST_WAITING)),
            #[cfg(test)]
            work: Work::default(),
        }
    }
}

impl Hashing {
    /// A slow hash, when it is its turn. [`AccountsError::Busy`]: too many wait.
    pub async fn slow(
        &self,
        recipe: Recipe,
        account: &str,
        password: &Secret,
    ) -> Result<Zeroizing<[u8; HASH]>, AccountsError> {
        let places = Arc::clone(&self.places).try_acquire_owned();
        let place = places.map_err(|_| AccountsError::Busy)?;
        let turn = Arc::clone(&self.running).acquire_owned().await;
        let turn = turn.map_err(|_| AccountsError::Busy)?;
        #[cfg(test)]
        self.work
            .slow
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let input = bound(account, password.reveal());
        let hash = tokio::task::spawn_blocking(move || {
            // Whoever asked may have gone: the work is still being done.
            let _held = (place, turn);
            recipe.hash(&input)
        });
        hash.await
            .map_err(|_| AccountsError::Busy)?
            .ok_or(AccountsError::Vault(VaultError::Damaged))
    }

    /// The digest of a generated password.
    pub fn quick(&self, account: &str, salt: &[u8], password: &str) -> [u8; 32] {
        #[cfg(test)]
        self.work
            .quick
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let mut digest = Context::new(&SHA256);
        digest.update(b"popgate device password\0");
        digest.update(&(salt.len() as u64).to_be_bytes());
        digest.update(salt);
        digest.update(&bound(account, password));
        let mut octets = [0; 32];
        octets.copy_from_slice(digest.finish().as_ref());
        octets
    }
}

/// The password with its account before it: a verifier that is put into another's
/// row admits nobody.
fn bound(account: &str, password: &str) -> Zeroizing<Vec<u8>> {
    let length = (account.len() as u64).to_be_bytes();
    Zeroizing::new([&length[..], account.as_bytes(), password.as_bytes()].concat())
}

impl Recipe {
    /// As new passwords are hashed.
    pub fn new() -> Result<Self, VaultError> {
        let params = Params::new(MEMORY, PASSES, LANES, Some(HASH));
        Ok(Self {
            params: params.map_err(|_| VaultError::Damaged)?,
            salt: random::<SALT>()?.to_vec(),
        })
    }

    /// Whether new passwords are hashed so.
    pub fn is_current(&self) -> bool {
        let Self { params, salt } = self;
        (params.m_cost(), params.t_cost(), params.p_cost()) == (MEMORY, PASSES, LANES)
            && salt.len() == SALT
    }

    /// How a stored hash was made, and the hash.
    pub fn of(phc: &str) -> Option<(Self, Vec<u8>)> {
        let stored = PasswordHash::new(phc).ok()?;
        let version = stored.version.and_then(|it| Version::try_from(it).ok());
        if stored.algorithm != ARGON2ID_IDENT || version != Some(Version::V0x13) {
            return None;
        }
        let params = Params::try_from(&stored).ok()?;
        if params.m_cost() > MOST_MEMORY || params.t_cost() > 16 || params.p_cost() > 4 {
            return None;
        }
        let hash = stored.hash?.as_bytes().to_vec();
        let recipe = Self {
            params,
            salt: stored.salt?.as_ref().to_vec(),
        };
        (hash.len() == HASH).then_some((recipe, hash))
    }

    fn hash(&self, input: &[u8]) -> Option<Zeroizing<[u8; HASH]>> {
        let mut hash = Zeroizing::new([0; HASH]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone())
            .hash_password_into(input, &self.salt, &mut *hash)
            .ok()?;
        Some(hash)
    }

    /// As a PHC string.
    pub fn phc(&self, hash: &[u8]) -> Option<String> {
        let phc = PasswordHash {
            algorithm: Ident::new("argon2id").ok()?,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&self.params).ok()?,
            salt: Some(Salt::new(&self.salt).ok()?),
            hash: Some(Output::new(hash).ok()?),
        };
        Some(phc.to_string())
    }
}

/// The verifier of a generated password.
pub(super) fn generated(
    hashing: &Hashing,
    account: &str,
    password: &Secret,
) -> Result<Verifier, VaultError> {
    let salt = random::<SALT>()?;
    let digest = hashing.quick(account, &salt, &typed(password));
    Ok(Verifier::Generated {
        salt: STANDARD.encode(salt),
        digest: STANDARD.encode(digest),
    })
}

/// Salt and digest of a generated password's verifier.
pub(super) fn parts(salt: &str, digest: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((STANDARD.decode(salt).ok()?, STANDARD.decode(digest).ok()?))
}

/// Whether they are the same; it takes as long where they are not.
pub(super) fn equal(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// A generated password however it was typed: it has no capital letters, and hyphens
/// and blanks only for the eye. All its bits are in the rest.
pub(super) fn typed(password: &Secret) -> Zeroizing<String> {
    let password = password.reveal();
    // It does not grow: nothing is left behind unwiped.
    let mut typed = Zeroizing::new(String::with_capacity(password.len()));
    let letters = password.chars().filter(|it| !matches!(it, '-' | ' '));
    typed.extend(letters.map(|it| it.to_ascii_lowercase()));
    typed
}

/// The key that holds the account's private key for a device. It is made as the
/// verifier is, with another salt: what is stored does not open it.
pub(super) async fn password_key(
    hashing: &Hashing,
    verifier: &Verifier,
    account: &str,
    password: &Secret,
) -> Result<PasswordKey, AccountsError> {
    let other = |salt: &[u8]| [b"key", salt].concat();
    match verifier {
        Verifier::Generated { salt, digest } => {
            let (salt, _) = parts(salt, digest).ok_or(VaultError::Damaged)?;
            let input = bound(account, &typed(password));
            Ok(PasswordKey::of_strong(&other(&salt), &input)?)
        }
        Verifier::Chosen(phc) => {
            let (recipe, _) = Recipe::of(phc).ok_or(VaultError::Damaged)?;
            let recipe = Recipe {
                salt: other(&recipe.salt),
                ..recipe
            };
            let hash = hashing.slow(recipe, account, password).await?;
            Ok(PasswordKey(hash))
        }
    }
}
