//! The configuration, in two stages: settings as they are written (flags,
//! environment, file), then the ready objects that the rest of popgate takes.
//!
//! A flag beats the environment, which beats the file. Nothing is bound or
//! started before everything has resolved. Each error names the key and where
//! it was set.

use std::fmt;
use std::path::PathBuf;

use crate::logging;
use crate::secret::Secret;

mod accounts;
mod address;
mod autoconfig;
mod bounds;
mod enrolment;
mod login;
mod old_server;
mod policies;
mod presets;
mod providers;
mod resolve;
mod secret_file;
mod servers;
mod settings;
mod trust;
mod url;
mod values;

pub use old_server::old_server;
pub use resolve::{Resolved, resolve};
pub use secret_file::{LONGEST_SECRET, read_secret};
pub use servers::{Servers, Upstream};
pub use settings::Settings;

/// A value, and where it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given<T> {
    /// The value.
    pub value: T,
    /// Where it was set.
    pub origin: Origin,
}

impl<T> Given<T> {
    /// The same origin with another value.
    pub fn with<U>(&self, value: U) -> Given<U> {
        Given {
            value,
            origin: self.origin.clone(),
        }
    }

    /// An error to blame on this value.
    fn wrong(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError::at(self.origin.clone(), problem)
    }
}

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    Flag(&'static str),
    /// In an environment variable.
    Environment(&'static str),
    /// In the configuration file.
    File {
        /// Its name as given.
        file: String,
        /// From 1.
        line: usize,
        /// With its table, `limits.connections`; `None` where the text is not
        /// TOML.
        key: Option<String>,
    },
    /// Nowhere, though it is needed.
    Missing(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Environment(name) | Self::Missing(name) => f.write_str(name),
            Self::File {
                file,
                line,
                key: Some(key),
            } => write!(f, "{file}:{line}: {key}"),
            Self::File {
                file,
                line,
                key: None,
            } => write!(f, "{file}:{line}"),
        }
    }
}

/// A wrong configuration: one line that says where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the wrong value was set.
    pub origin: Origin,
    /// What is wrong with it.
    pub problem: String,
}

impl ConfigError {
    /// Something is wrong with what was set at `origin`.
    pub fn at(origin: Origin, problem: impl Into<String>) -> Self {
        Self {
            origin,
            problem: problem.into(),
        }
    }

    /// `key` is needed, and set nowhere.
    fn missing(key: &'static str, problem: impl Into<String>) -> Self {
        Self::at(Origin::Missing(key), problem)
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.problem)
    }
}

/// Whether a mail service is to be started, or only a part of it looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `popgate serve`: listeners are needed.
    Serve,
    /// `popgate check`: listeners are checked where they are configured.
    Check,
    /// `popgate account`: certificates, and the operator's password, are not read:
    /// whoever runs it may not be allowed to.
    Account {
        /// An account is added. Nothing else makes a state folder.
        adds: bool,
    },
}

/// What flags and environment say. `None` or empty: the file decides.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each is the key of its name in the file")]
pub struct Overrides {
    /// The configuration file.
    pub config: Option<Given<PathBuf>>,
    pub pop3: Vec<Given<String>>,
    pub pop3s: Vec<Given<String>>,
    pub cert: Option<Given<PathBuf>>,
    pub key: Option<Given<PathBuf>>,
    pub allow_cleartext: Option<Given<String>>,
    pub upstream: Option<Given<String>>,
    pub ca_file: Option<Given<PathBuf>>,
    pub delete: Option<Given<String>>,
    pub http: Option<Given<String>>,
    pub state: Option<Given<PathBuf>>,
    pub log_format: Option<Given<String>>,
    pub log_level: Option<Given<String>>,
    /// The keys that seal what accounts hold.
    pub accounts_key: Option<Given<Secret>>,
    pub accounts_key_file: Option<Given<PathBuf>>,
    /// The same, where no other way is said.
    pub accounts_key_credential: Option<Given<PathBuf>>,
    pub operator_password: Option<Given<Secret>>,
    pub operator_password_file: Option<Given<PathBuf>>,
}

/// Both stages, for a command that needs only the state folder.
pub fn load_state(
    overrides: Overrides,
    make: bool,
) -> Result<(logging::Config, PathBuf), ConfigError> {
    resolve::state_only(&Settings::read(overrides)?, make)
}

/// Both stages.
pub fn load(overrides: Overrides, purpose: Purpose) -> Result<Resolved, ConfigError> {
    resolve(Settings::read(overrides)?, purpose)
}
