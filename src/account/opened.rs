//! What opens the mailbox of an account, for `popgate check` and `popgate uidl`.

use super::AccountError;
use super::output::shown;
use crate::accounts::{Account, Accounts, Admitted, Opener, Verdict};
use crate::sasl::Credentials;
use crate::secret::Secret;
use crate::server::policies::{Policies, Rules, Source};

/// An account, and the way into its mailbox.
#[derive(Debug)]
pub struct Opened {
    /// The account.
    pub admitted: Admitted,
    /// What its mailbox server is shown.
    pub credentials: Credentials,
    /// What a login under the name comes under.
    pub rules: Rules,
    /// Whose the general ones are.
    pub source: Source,
}

/// The account that a user name means, as a client gives it, be it with a folder.
pub async fn account_of(
    accounts: &Accounts,
    policies: &Policies,
    user: &str,
) -> Result<Option<Account>, AccountError> {
    for name in policies.names(user) {
        if let Some(account) = accounts.find(&name).await? {
            return Ok(Some(account));
        }
    }
    Ok(None)
}

/// What opens the mailbox of an account to a login under this name. No device
/// password is needed, unless the secrets open only with one.
pub async fn opened(
    accounts: &Accounts,
    policies: &Policies,
    user: &str,
    account: Account,
    device: Option<&Secret>,
) -> Result<Opened, AccountError> {
    let address = account.address.clone();
    let failed = |problem: String| {
        let address = shown(&address);
        AccountError::Enrolment(format!("the account {address}: {}", shown(&problem)))
    };
    if account.master {
        return Err(failed("a master has no mailbox".to_owned()));
    }
    let (rules, source) = policies
        .of_account(&account, user)
        .map_err(|error| failed(error.to_string()))?;
    let admitted = match device.filter(|_| account.lock.is_some()) {
        Some(password) => match accounts.authenticate(&address, password, None).await? {
            Verdict::Admitted(admitted) => *admitted,
            Verdict::Unknown | Verdict::Refused => {
                return Err(failed("the password is of none of its devices".to_owned()));
            }
        },
        None => Admitted {
            account,
            by: "a command".to_owned(),
            opener: Opener::default(),
        },
    };
    let credentials = accounts.credentials(&admitted).await;
    let credentials = credentials.map_err(|error| failed(error.to_string()))?;
    Ok(Opened {
        admitted,
        credentials,
        rules,
        source,
    })
}
