//! What opens the mailbox of an account, for `popgate check` and `popgate uidl`.

use super::AccountError;
use super::output::shown;
use crate::accounts::{Account, Accounts, Admitted, Opener, Verdict};
use crate::sasl::Credentials;
use crate::secret::Secret;
use crate::server::policies::{Asked, Policies, Rules, Source};

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

/// What opens the mailbox of an account to a login that asks for this. No device
/// password is needed, unless the secrets open only with one.
pub async fn opened(
    accounts: &Accounts,
    policies: &Policies,
    asked: &Asked,
    account: Account,
    device: Option<&Secret>,
) -> Result<Opened, AccountError> {
    let address = account.address.clone();
    if account.master {
        return Err(failed(&address, "a master has no mailbox"));
    }
    let admitted = match device.filter(|_| account.lock.is_some()) {
        Some(password) => match accounts.authenticate(&address, password, None).await? {
            Verdict::Admitted(admitted) => *admitted,
            Verdict::Unknown | Verdict::Refused => {
                let problem = "the password is of none of its devices";
                return Err(failed(&address, problem));
            }
        },
        None => Admitted {
            account,
            by: "a command".to_owned(),
            opener: Opener::default(),
        },
    };
    by_whom_is_admitted(accounts, policies, asked, admitted).await
}

/// The same to a master, who shows the password of a device of his own.
pub(super) async fn opened_to_master(
    accounts: &Accounts,
    policies: &Policies,
    asked: &Asked,
    (master, password): (&str, &Secret),
    whom: &str,
) -> Result<Opened, AccountError> {
    if accounts.find(whom).await?.is_none() {
        let problem = "there is none, and masters open no other mailboxes";
        return Err(failed(whom, problem));
    }
    match accounts.authenticate(master, password, Some(whom)).await? {
        Verdict::Admitted(admitted) => {
            by_whom_is_admitted(accounts, policies, asked, *admitted).await
        }
        Verdict::Unknown | Verdict::Refused => {
            let problem = "the password is of none of this master's devices, or he is disabled";
            Err(failed(master, problem))
        }
    }
}

async fn by_whom_is_admitted(
    accounts: &Accounts,
    policies: &Policies,
    asked: &Asked,
    admitted: Admitted,
) -> Result<Opened, AccountError> {
    let account = &admitted.account;
    let failed = |problem: String| failed(&account.address, &problem);
    let found = policies.of_account(account, asked);
    let (rules, _, source) =
        found.map_err(|error| failed(format!("its rules cannot be read: {error}")))?;
    let credentials = accounts.credentials(&admitted).await;
    let credentials = credentials.map_err(|error| failed(error.to_string()))?;
    Ok(Opened {
        admitted,
        credentials,
        rules,
        source,
    })
}

fn failed(address: &str, problem: &str) -> AccountError {
    let (address, problem) = (shown(address), shown(problem));
    AccountError::Enrolment(format!("the account {address}: {problem}"))
}
