//! Device passwords: generated, or chosen by a person.

use super::hashing::{self, Recipe};
use super::vault::{Opener, PasswordLock, random};
use super::{Account, Accounts, AccountsError, Device, Secret, VaultError, Verifier, now};

/// Letters and digits that nobody takes for others: 32, so that each holds 5 bits.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// A generated password: 7 groups of 4 letters, 140 bits.
const GROUPS: usize = 7;
const GROUP: usize = 4;
/// Letters of a device's id.
const ID: usize = 10;

/// Devices of an account.
pub(super) const MOST_DEVICES: usize = 32;
/// Characters of a password that somebody chose.
const SHORTEST: usize = 12;
/// Octets of it: a command line of POP3 holds it (RFC 2449 §4).
const LONGEST: usize = 200;
/// Characters of a device's name.
const LONGEST_NAME: usize = 64;

/// A new device password. It is shown once.
#[derive(Debug)]
pub struct DevicePassword {
    /// The id of its device.
    pub device: String,
    /// The password.
    pub password: Secret,
}

impl Account {
    /// What a new device is called of which nobody says it: no other is.
    pub fn free_device_name(&self) -> String {
        if self.devices.is_empty() {
            return "first device".to_owned();
        }
        let mut number = self.devices.len();
        loop {
            number += 1;
            let name = format!("device {number}");
            if self.devices.iter().all(|device| device.name != name) {
                return name;
            }
        }
    }
}

impl Accounts {
    /// Gives an account a password for one more device: a generated one of 140
    /// bits, or `chosen`, of at least 12 characters. `by`: the password of a device
    /// that it has, needed where secrets open only with one
    /// ([`VaultError::Locked`]). [`AccountsError::Unsuitable`]: the name or the
    /// password will not do, or there are too many. The account is changed, not
    /// stored; not at all after an error.
    pub async fn add_device(
        &self,
        account: &mut Account,
        name: &str,
        chosen: Option<Secret>,
        by: Option<&Secret>,
    ) -> Result<DevicePassword, AccountsError> {
        let name = device_name(name).map_err(unsuitable)?;
        if account.devices.len() >= MOST_DEVICES {
            let problem = format!("an account has at most {MOST_DEVICES} devices");
            return Err(AccountsError::Unsuitable(problem));
        }
        let mut new = account.clone();
        if self.is_locking(account) {
            self.may_seal().await?;
        }
        let opener = self.lock_opener(&mut new, account, by).await?;
        let (password, verifier) = match chosen {
            None => {
                let password = generate()?;
                let verifier = hashing::generated(&self.hashing, &new.address, &password)?;
                (password, verifier)
            }
            Some(password) => {
                is_good(&password, &new.address).map_err(unsuitable)?;
                let verifier = self.chosen(&new, &password).await?;
                (password, verifier)
            }
        };
        let id = new_id(&new)?;
        if let Some(lock) = &mut new.lock {
            let key =
                hashing::password_key(&self.hashing, &verifier, &new.address, &password).await?;
            let is_new = !lock.is_held();
            lock.give(self.keys()?, (&new.address, &id), &key, &opener)?;
            if is_new {
                match self.seal_again(&mut new, account, &Opener::default()) {
                    // Somebody has to sign in again, or the operator has to bring the
                    // key: the device is welcome all the same.
                    Err(VaultError::Locked | VaultError::AnotherKey(_) | VaultError::Damaged) => {}
                    sealed => sealed?,
                }
            }
        }
        new.devices.push(Device {
            id: id.clone(),
            name,
            created: now(),
            verifier,
        });
        *account = new;
        Ok(DevicePassword {
            device: id,
            password,
        })
    }

    /// Takes the password of a device away. `false`: there is no such device. The
    /// account is changed, not stored. Without its last device, an account whose
    /// secrets open only with one needs new secrets.
    pub fn revoke_device(&self, account: &mut Account, id: &str) -> bool {
        let before = account.devices.len();
        account.devices.retain(|device| device.id != id);
        if let Some(lock) = &mut account.lock {
            lock.private_keys.remove(id);
        }
        account.devices.len() < before
    }

    /// Whether one more device has a key sealed for it.
    fn is_locking(&self, account: &Account) -> bool {
        account.lock.is_some() || (account.devices.is_empty() && self.config.locked_by_password)
    }

    /// What opens the account's private key, for the new device. The first device
    /// of an account makes the key pair, where that is configured.
    async fn lock_opener(
        &self,
        new: &mut Account,
        account: &Account,
        by: Option<&Secret>,
    ) -> Result<Opener, AccountsError> {
        let is_first = account.devices.is_empty();
        match &account.lock {
            Some(lock) if lock.is_held() => {
                let by = by.ok_or(VaultError::Locked)?;
                let opener = match self.matching(account, by).await? {
                    Some(device) => self.opener(account, device, by).await?,
                    None => None,
                };
                Ok(opener.ok_or(VaultError::Locked)?)
            }
            None if !is_first || !self.config.locked_by_password => Ok(Opener::default()),
            // Nobody has the private key any more, if there was one.
            _ => {
                let (lock, opener) = PasswordLock::new(self.keys()?, &account.address)?;
                new.lock = Some(lock);
                Ok(opener)
            }
        }
    }

    /// The verifier of a password that somebody chose. All of an account have one
    /// salt, so that one slow hash tells whether it is any of them.
    async fn chosen(
        &self,
        account: &Account,
        password: &Secret,
    ) -> Result<Verifier, AccountsError> {
        let recipes = account.devices.iter().filter_map(|device| {
            let Verifier::Chosen(phc) = &device.verifier else {
                return None;
            };
            Recipe::of(phc).map(|(recipe, _)| recipe)
        });
        let recipe = match recipes.into_iter().find(Recipe::is_current) {
            Some(recipe) => recipe,
            None => Recipe::new()?,
        };
        let hash = self
            .hashing
            .slow(recipe.clone(), &account.address, password)
            .await?;
        let phc = recipe.phc(&*hash).ok_or(VaultError::Damaged)?;
        Ok(Verifier::Chosen(phc))
    }
}

fn unsuitable(problem: String) -> AccountsError {
    AccountsError::Unsuitable(problem)
}

/// A password at random.
fn generate() -> Result<Secret, VaultError> {
    let octets = zeroize::Zeroizing::new(random::<{ GROUPS * GROUP }>()?);
    let mut password = String::with_capacity(GROUPS * (GROUP + 1));
    for (octet, place) in octets.iter().zip(0..) {
        if place > 0 && place % GROUP == 0 {
            password.push('-');
        }
        password.push(letter(*octet));
    }
    Ok(Secret::new(password))
}

/// Names a device within its account.
fn new_id(account: &Account) -> Result<String, VaultError> {
    loop {
        let id: String = random::<ID>()?.iter().map(|it| letter(*it)).collect();
        if account.devices.iter().all(|device| device.id != id) {
            return Ok(id);
        }
    }
}

/// 32 letters divide 256 octets evenly.
fn letter(octet: u8) -> char {
    char::from(LETTERS[usize::from(octet) % LETTERS.len()])
}

/// A name as it is kept. Errors are in words.
fn device_name(name: &str) -> Result<String, String> {
    let name = name.trim();
    if name.is_empty() {
        return Err("a device has a name".to_owned());
    }
    if name.chars().count() > LONGEST_NAME {
        return Err(format!(
            "a device's name has at most {LONGEST_NAME} characters"
        ));
    }
    if name.chars().any(is_unseen) {
        return Err("a device's name has no control characters".to_owned());
    }
    Ok(name.to_owned())
}

/// Control characters, and those that nobody sees, or that turn the text around.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a password that somebody chose will do. Errors are in words, and repeat
/// nothing of it.
fn is_good(password: &Secret, address: &str) -> Result<(), String> {
    let password = password.reveal();
    if password.chars().count() < SHORTEST {
        return Err(format!("a password has at least {SHORTEST} characters"));
    }
    if password.len() > LONGEST {
        return Err(format!("a password has at most {LONGEST} octets"));
    }
    if password.chars().any(char::is_control) {
        return Err("a password has no control characters".to_owned());
    }
    let first = password.chars().next();
    if password.chars().all(|it| Some(it) == first) {
        return Err("a password is more than one character again and again".to_owned());
    }
    let local = address.split('@').next().unwrap_or_default();
    let rest = password.to_lowercase().replace(address, "");
    let rest = match local.len() >= 4 {
        true => rest.replace(local, ""),
        false => rest,
    };
    if rest.chars().count() < SHORTEST / 2 {
        return Err("a password is not the address".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
