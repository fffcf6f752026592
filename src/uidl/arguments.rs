//! From arguments to what an import works on.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;

use zeroize::Zeroizing;

use super::Source;
use crate::cli::ImportAccounts;
use crate::config::{ConfigError, Origin};
use crate::import::accounts::{self, Account};
use crate::import::file::{self, FileError};
use crate::sasl::Credentials;
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

/// Whose unique ids are imported, with their passwords.
pub fn accounts(given: ImportAccounts) -> Result<Vec<Account>, ConfigError> {
    match given {
        ImportAccounts::Many(file) => {
            let wrong = |problem| ConfigError::at(file.origin.clone(), problem);
            let name = file.value.display();
            let csv = fs::read(&file.value).map(Zeroizing::new);
            let csv = csv.map_err(|error| wrong(format!("cannot read {name}: {error}")))?;
            accounts::parse(&csv).map_err(|error| wrong(format!("{name}: {error}")))
        }
        ImportAccounts::One {
            user,
            password,
            from_user,
            from_password,
        } => {
            let other = from_password.read_if_set()?;
            let password = password.read(&user)?;
            let from_user = from_user.as_deref().unwrap_or(&user);
            Ok(vec![Account {
                to: credentials(&user, &password)?,
                from: credentials(from_user, other.as_ref().unwrap_or(&password))?,
            }])
        }
    }
}

/// A user name and a password that may be sent.
pub fn credentials(user: &str, password: &Secret) -> Result<Credentials, ConfigError> {
    Credentials::password(user, password.reveal())
        .map_err(|error| ConfigError::at(Origin::Flag("--user"), error.to_string()))
}
