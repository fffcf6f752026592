//! How an account comes to its credentials: the same for the command line and the
//! page.

use async_trait::async_trait;

use super::{Account, Accounts, AccountsError, Home, Secret};
use crate::oauth2::Tokens;
use crate::sasl::Credentials;

/// What somebody brings who enrols.
#[derive(Debug)]
pub enum NewCredential {
    /// Nothing: the provider lets popgate in.
    Provider,
    /// A password upstream.
    Password(Secret),
    /// A token without an end.
    ApiToken(Secret),
    /// Somebody has signed in.
    OAuth(Tokens),
}

/// Looks whether a mailbox opens.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Logs in at the server with this URL, and out again.
    async fn probe(&self, upstream: &str, credentials: Credentials) -> Result<(), ProbeError>;
}

/// A mailbox does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The credentials are not good for it.
    #[error("the mail server refuses the credentials")]
    Refused,
    /// The same may succeed later.
    #[error("{0}")]
    Temporary(String),
    /// A setting must be changed.
    #[error("{0}")]
    Misconfigured(String),
}

/// What became of it.
#[derive(Debug)]
pub struct Enrolled {
    /// As it is stored now.
    pub account: Account,
    /// It was there before, and has new credentials.
    pub renewed: bool,
}

/// Somebody cannot be enrolled. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// Another mailbox signed in than the one that is to be enrolled.
    #[error("{signed_in} signed in, not {expected}")]
    AnotherMailbox {
        /// Who signed in.
        signed_in: String,
        /// Who should have.
        expected: String,
    },
    /// The mailbox does not open with what was brought.
    #[error("the mailbox does not open: {0}")]
    Mailbox(#[from] ProbeError),
    /// No tokens.
    #[error(transparent)]
    Token(#[from] crate::oauth2::TokenError),
    /// There is no such provider, or what was brought does not go with it.
    #[error("{0}")]
    Unsuitable(String),
    /// The accounts cannot be changed.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
}

impl Accounts {
    /// Enrols `account` (new, or as it was found) with what was brought, or renews
    /// its credentials: sees that the right mailbox signed in, that it opens, seals
    /// and stores. An account in trouble is cured.
    pub async fn enrol(
        &self,
        _account: Account,
        _brought: NewCredential,
        _probe: &dyn Probe,
    ) -> Result<Enrolled, EnrolmentError> {
        todo!()
    }

    /// A new account, not stored.
    pub fn new_account(&self, _address: &str, _home: Home) -> Result<Account, AccountsError> {
        todo!()
    }
}
