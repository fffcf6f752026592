//! Whose password it is.

use super::{Account, Accounts, AccountsError, Opener, Secret};

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
    /// The id of the device, or the master's address.
    pub by: String,
    /// What the password opens.
    pub opener: Opener,
}

impl Accounts {
    /// Compares a password with those of an account. It takes as long for an
    /// account that does not exist. `as_whom`: a master account logs in as this
    /// other account.
    pub async fn authenticate(
        &self,
        _address: &str,
        _password: &Secret,
        _as_whom: Option<&str>,
    ) -> Result<Verdict, AccountsError> {
        todo!()
    }

    /// Notes that a device was used now. It may be lost.
    pub fn used(&self, _admitted: &Admitted) {
        todo!()
    }

    /// When the devices of an account were last used, by id, in seconds of Unix
    /// time.
    pub async fn last_used(
        &self,
        _address: &str,
    ) -> Result<std::collections::BTreeMap<String, i64>, AccountsError> {
        todo!()
    }
}
