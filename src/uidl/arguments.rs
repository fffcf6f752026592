//! From arguments to what an import works on.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;

use zeroize::Zeroizing;

use super::{Mailboxes, Source, Wanted};
use crate::account::AccountError;
use crate::cli::{ImportAccounts, PasswordSource};
use crate::config::{ConfigError, Origin};
use crate::import::accounts::{self, Account};
use crate::import::file::{self, FileError};
use crate::sasl::{Credentials, SaslError};
use crate::secret::Secret;

/// A file of unique ids cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be opened.
    #[error("cannot read {file}: {error}")]
    Unreadable {
        /// Its name.
        file: String,
        /// Why not.
        error: io::Error,
    },
    /// It is not what it should be.
    #[error("{file}: {error}")]
    Wrong {
        /// Its name.
        file: String,
        /// What is wrong with it.
        error: FileError,
    },
}

impl Source {
    /// Reads a file of `popgate uidl export`; `None` is the standard input.
    pub fn read(path: Option<&Path>) -> Result<Self, SourceError> {
        let (file, rows) = match path {
            None => (
                "the standard input".to_owned(),
                file::read(&mut io::stdin().lock()),
            ),
            Some(path) => {
                let file = path.display().to_string();
                match File::open(path) {
                    Ok(opened) => (file, file::read(&mut BufReader::new(opened))),
                    Err(error) => return Err(SourceError::Unreadable { file, error }),
                }
            }
        };
        rows.map(Self::File)
            .map_err(|error| SourceError::Wrong { file, error })
    }
}

/// Whose unique ids are imported from there, with their passwords.
pub async fn accounts(
    mailboxes: &Mailboxes,
    given: ImportAccounts,
    source: &Source,
) -> Result<Vec<Account>, AccountError> {
    match given {
        ImportAccounts::Many(file) => {
            let wrong = |problem| ConfigError::at(file.origin.clone(), problem);
            let name = file.value.display();
            let csv = fs::read(&file.value).map(Zeroizing::new);
            let csv = csv.map_err(|error| wrong(format!("cannot read {name}: {error}")))?;
            let accounts = accounts::parse(&csv);
            Ok(accounts.map_err(|error| wrong(format!("{name}: {error}")))?)
        }
        ImportAccounts::One {
            user,
            password: source_of_password,
            from_user,
            from_password,
        } => {
            let other = from_password.read_if_set()?;
            let wanted = mailboxes.wanted(&user).await?;
            // Not needed here, it may still be the one for the old server.
            let other = match (wanted, other) {
                (Wanted::Nothing, None) => source_of_password.read_if_set()?,
                (_, other) => other,
            };
            let password = read(wanted, source_of_password, &user)?;
            let mut account = Account::new(&user, password).map_err(malformed)?;
            if let Source::File(_) = source {
                return Ok(vec![account]);
            }
            let from_user = from_user.as_deref().unwrap_or(&user);
            let same = account.password.clone();
            // That of a device is nobody else's affair.
            let same = same.filter(|_| wanted != Wanted::DevicePassword);
            let from = match other.or(same) {
                Some(password) => password,
                None => from_password.read(from_user)?,
            };
            let from = Credentials::password(from_user, from.reveal());
            account.from = Some(from.map_err(malformed)?);
            Ok(vec![account])
        }
    }
}

/// The password that opens somebody's mailbox, where one has to be known.
pub async fn password(
    mailboxes: &Mailboxes,
    source: PasswordSource,
    user: &str,
) -> Result<Option<Secret>, AccountError> {
    let wanted = mailboxes.wanted(user).await?;
    let password = read(wanted, source, user)?;
    Account::new(user, password.clone()).map_err(malformed)?;
    Ok(password)
}

fn read(wanted: Wanted, source: PasswordSource, user: &str) -> Result<Option<Secret>, ConfigError> {
    match wanted {
        Wanted::Nothing => Ok(None),
        Wanted::DevicePassword => source.of_a_device().read(user).map(Some),
        Wanted::Password => source.read(user).map(Some),
    }
}

fn malformed(error: SaslError) -> ConfigError {
    ConfigError::at(Origin::Flag("--user"), error.to_string())
}
