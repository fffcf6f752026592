//! What opens the mailbox of an account, for `popgate check`.

use super::AccountError;
use super::output::shown;
use crate::accounts::{Account, Accounts, Admitted, Opener};
use crate::sasl::Credentials;

/// The account of this name and what its mailbox server is shown; `None`: there is no
/// such account. No device password is needed, unless the secrets open only with one.
pub async fn opened(
    accounts: &Accounts,
    address: &str,
) -> Result<Option<(Account, Credentials)>, AccountError> {
    let Some(account) = accounts.find(address).await? else {
        return Ok(None);
    };
    let admitted = Admitted {
        account,
        by: "popgate check".to_owned(),
        opener: Opener::default(),
    };
    let credentials = accounts.credentials(&admitted).await.map_err(|error| {
        let address = shown(&admitted.account.address);
        AccountError::Enrolment(format!(
            "the account {address}: {}",
            shown(&error.to_string())
        ))
    })?;
    Ok(Some((admitted.account, credentials)))
}
