//! Whose password it is.
//!
//! What is done for an account that is there, for one that is not, and for a wrong
//! password is the same work, so that the time tells nothing:
//!
//! - quick digests: one for each device that an account can have, whether it has it
//!   or not;
//! - one slow hash, if any account of this gateway has a password that a person
//!   chose, whether this one has or not. All chosen passwords of an account have one
//!   salt, so that one hash compares with all of them. Where every password is
//!   generated, as most are, nobody pays for a slow hash that would only pretend.
//!
//! Only a password that is good may take less: whoever has it knows that it is.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use super::device_password::MOST_DEVICES;
use super::hashing::{self, Recipe, equal, parts, typed};
use super::vault::Opener;
use super::{Account, Accounts, AccountsError, Device, Secret, Verifier, key, now};

/// What a device password says of who shows it.
#[derive(Debug)]
pub enum Verdict {
    /// There is no account of that name. It took as long as to refuse.
    Unknown,
    /// The password is none of this account's.
    Refused,
    /// The password is good.
    Admitted(Box<Admitted>),
}

/// An account, opened by one of its device passwords, or by a master's.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Whose mailbox it is. It may be disabled, or in trouble.
    pub account: Account,
    /// The id of the device: the account's own, or the master's.
    pub by: String,
    /// What the password opens.
    pub opener: Opener,
}

impl Accounts {
    /// Compares a password with those of an account. It takes as long for an
    /// account that does not exist. `as_whom`: a master account logs in as this
    /// other account; that is refused to all others, to a master who is disabled,
    /// and for an account that does not exist. A master alone has no mailbox, and is
    /// refused. [`AccountsError::Busy`]: too many passwords are being compared.
    pub async fn authenticate(
        &self,
        address: &str,
        password: &Secret,
        as_whom: Option<&str>,
    ) -> Result<Verdict, AccountsError> {
        let address = key(address);
        let account = self.find(&address).await?;
        let whom = as_whom.map(key).filter(|whom| *whom != address);
        let other = match &whom {
            Some(whom) => self.find(whom).await?,
            None => None,
        };
        let nobody = Account::nobody(&address);
        let device = self
            .matching(account.as_ref().unwrap_or(&nobody), password)
            .await?;
        let Some(account) = &account else {
            return Ok(Verdict::Unknown);
        };
        let admitted = match (device, whom, other) {
            (Some(device), None, _) if !account.master => Admitted {
                account: account.clone(),
                by: device.id.clone(),
                opener: self
                    .opener(account, device, password)
                    .await?
                    .unwrap_or_default(),
            },
            (Some(device), Some(_), Some(other)) if account.master && !account.disabled => {
                Admitted {
                    account: other,
                    by: device.id.clone(),
                    opener: Opener::default(),
                }
            }
            _ => return Ok(Verdict::Refused),
        };
        Ok(Verdict::Admitted(Box::new(admitted)))
    }

    /// The device whose password it is.
    pub(super) async fn matching<'a>(
        &self,
        account: &'a Account,
        password: &Secret,
    ) -> Result<Option<&'a Device>, AccountsError> {
        let typed = typed(password);
        let mut found = None;
        let (mut recipe, mut chosen) = (None, Vec::new());
        let mut quick = 0;
        for device in &account.devices {
            match &device.verifier {
                Verifier::Generated { salt, digest } => {
                    let Some((salt, digest)) = parts(salt, digest) else {
                        continue;
                    };
                    quick += 1;
                    let shown = self.hashing.quick(&account.address, &salt, &typed);
                    if equal(&shown, &digest) {
                        found = Some(device);
                    }
                }
                Verifier::Chosen(phc) => {
                    if let Some((of, hash)) = Recipe::of(phc) {
                        chosen.push((device, of.clone(), hash));
                        recipe = recipe.or(Some(of));
                    }
                }
            }
        }
        for _ in quick..MOST_DEVICES {
            std::hint::black_box(self.hashing.quick(&account.address, &[0; 16], &typed));
        }
        if found.is_some() {
            return Ok(found);
        }
        if recipe.is_some() {
            self.any_chosen.store(true, Ordering::Relaxed);
        } else if self.has_any_chosen().await? {
            recipe = Some(Recipe::new()?);
        }
        // More than one only where it was decided since to hash harder.
        while let Some(now) = recipe.take() {
            let shown = self
                .hashing
                .slow(now.clone(), &account.address, password)
                .await?;
            chosen.retain(|(device, of, hash)| {
                let is_of = *of == now;
                if is_of && equal(&*shown, hash) {
                    found = Some(device);
                }
                !is_of
            });
            recipe = chosen.first().map(|(_, of, _)| of.clone());
        }
        Ok(found)
    }

    /// What a device's password opens of the account's keys.
    pub(super) async fn opener(
        &self,
        account: &Account,
        device: &Device,
        password: &Secret,
    ) -> Result<Option<Opener>, AccountsError> {
        let Some(lock) = &account.lock else {
            return Ok(None);
        };
        let key =
            hashing::password_key(&self.hashing, &device.verifier, &account.address, password);
        let opened = lock.take(self.keys()?, (&account.address, &device.id), &key.await?);
        match opened {
            Ok(opener) => Ok(Some(opener)),
            Err(error) => {
                // Whoever needs a secret of the account is told; some do not.
                tracing::warn!(account = %account.address, "the account's keys: {error}");
                Ok(None)
            }
        }
    }

    /// Whether any account has a password that a person chose. Once it is so, it
    /// stays.
    async fn has_any_chosen(&self) -> Result<bool, AccountsError> {
        if self.any_chosen.load(Ordering::Relaxed) {
            return Ok(true);
        }
        if self.all_seen.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let rows = self.access.accounts().await?;
        let any = tokio::task::spawn_blocking(move || {
            rows.iter().any(|(_, row)| {
                let account = serde_json::from_slice::<Account>(&row.value);
                account.is_ok_and(|it| {
                    let mut devices = it.devices.iter();
                    devices.any(|it| matches!(it.verifier, Verifier::Chosen(_)))
                })
            })
        });
        let any = any.await.map_err(|_| AccountsError::Busy)?;
        self.any_chosen.fetch_or(any, Ordering::Relaxed);
        self.all_seen.store(true, Ordering::Relaxed);
        Ok(any)
    }

    /// Notes that a device of this account, which is the master's where one logged in
    /// as somebody else, was used now. It may be lost.
    pub fn used(&self, address: &str, admitted: &Admitted) {
        self.access.note_use(&key(address), &admitted.by, now());
    }

    /// When the devices of an account were last used, by id, in seconds of Unix
    /// time.
    pub async fn last_used(&self, address: &str) -> Result<BTreeMap<String, i64>, AccountsError> {
        let uses = self.access.uses(&key(address)).await?;
        Ok(uses.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
