//! What an account shows to its upstream, kept fresh.

use super::{Accounts, AccountsError, Admitted, Credentials, Home};

/// There is nothing to show to the upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Somebody has to sign in again.
    #[error("the provider refuses: sign in again")]
    SignInNeeded,
    /// The same may succeed later.
    #[error("{0}")]
    Temporary(String),
    /// A setting must be changed.
    #[error("{0}")]
    Misconfigured(String),
    /// The operator has shut the account.
    #[error("the account is disabled")]
    Disabled,
    /// The accounts cannot be asked.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
}

impl Accounts {
    /// What opens the mailbox of an account. An access token that ends within ten
    /// minutes is renewed before, one request at a time for each account, and on
    /// disk before it is used.
    pub async fn credentials(&self, _admitted: &Admitted) -> Result<Credentials, CredentialError> {
        todo!()
    }

    /// The upstream refused `used`: something newer to try once, or `None` (then
    /// the account is in trouble if the provider says so, too).
    pub async fn after_refusal(
        &self,
        _admitted: &Admitted,
        _used: &Credentials,
    ) -> Result<Option<Credentials>, CredentialError> {
        todo!()
    }

    /// What opens somebody's mailbox where the provider needs nothing of an account
    /// (`Entry::needs_nobody`): for users whose password was judged elsewhere.
    pub async fn provider_credentials(
        &self,
        _home: &Home,
        _mailbox: &str,
    ) -> Result<Credentials, CredentialError> {
        todo!()
    }
}
