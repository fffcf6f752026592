//! Providers: where mailboxes are, and how popgate gets into them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::oauth2;
use crate::secret::Secret;

/// A provider as configured (`[provider.NAME]`).
#[derive(Debug)]
pub struct Provider {
    /// As configured.
    pub name: String,
    /// For people.
    pub title: String,
    /// The URL of its mail server.
    pub upstream: String,
    /// How popgate gets in.
    pub entry: Entry,
}

/// How popgate gets into the mailboxes of a provider.
#[derive(Debug)]
pub enum Entry {
    /// By OAuth tokens.
    OAuth(oauth2::Client),
    /// Each account has a password there (an app password).
    Password,
    /// Each account has a token that is shown as it is.
    ApiToken,
    /// One user there may open every mailbox (authorization identity).
    Master {
        /// That user.
        user: String,
        /// Its password.
        password: Secret,
    },
}

impl Entry {
    /// Whether the provider lets popgate in without anything of the account's own.
    pub fn needs_nobody(&self) -> bool {
        match self {
            Self::OAuth(client) => client.registration().grant != oauth2::Grant::User,
            Self::Master { .. } => true,
            Self::Password | Self::ApiToken => false,
        }
    }
}

/// All providers, by name.
pub type Providers = BTreeMap<String, Arc<Provider>>;
