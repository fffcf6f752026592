//! What a login claims: who somebody is, whose mailbox he wants, and who has to
//! judge that.

use super::policies::{Asked, Judge, Login, Policies, without_recent};
use crate::accounts::{Account, Accounts, AccountsError, Verifier};
use crate::maildrop::FolderNameError;
use crate::sasl::Credentials;

/// A login that nobody has judged.
#[derive(Debug)]
pub struct Claim {
    /// Without folder and window.
    pub credentials: Credentials,
    /// The mailbox, and what of it.
    pub asked: Asked,
    /// Who has to judge it.
    pub judge: By,
    /// Right credentials cannot be found by trying.
    pub is_no_guess: bool,
}

/// Who has to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// The device passwords of an account.
    Account {
        /// Its address.
        address: String,
        /// It asks for the mailbox of this other one.
        as_whom: Option<String>,
    },
    /// The upstream.
    Upstream(Login),
    /// The HTTP service.
    Http(Login),
    /// Nobody: there is no such user, or no such way in.
    Nobody(Closed),
}

/// Why nobody could let a login in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The mailbox has this account: it opens by that, or by a master of popgate's.
    HasAccount(String),
    /// The rules let in who has an account.
    NoAccount,
    /// Not by what was shown: a token, or a proof of somebody else's.
    ByThis,
}

/// A login cannot even be judged.
#[derive(Debug)]
pub enum Unclear {
    /// The user name asks for a folder that cannot be.
    Folder(FolderNameError),
    /// The accounts cannot be read.
    Accounts(AccountsError),
}

impl From<AccountsError> for Unclear {
    fn from(error: AccountsError) -> Self {
        Self::Accounts(error)
    }
}

/// Who logs in, and whose maildrop he asks for where it is not his own, for logs: the
/// same however a master says it.
pub(super) fn named<'a>(
    typed: &'a Credentials,
    claimed: &'a Result<Claim, Unclear>,
) -> (&'a str, Option<&'a str>) {
    match claimed.as_ref().map(|claim| &claim.judge) {
        Ok(By::Account {
            address,
            as_whom: Some(whom),
        }) => (address, Some(whom)),
        _ => (typed.user(), typed.authorized_as()),
    }
}

impl Claim {
    /// Takes a login apart. Nothing is compared, or asked of anybody, for it.
    pub async fn of(
        policies: &Policies,
        accounts: Option<&Accounts>,
        credentials: Credentials,
    ) -> Result<Self, Unclear> {
        let credentials = match accounts {
            Some(accounts) => split_master(accounts, credentials).await?,
            None => credentials,
        };
        let (_, name) = without_recent(credentials.mailbox());
        let is_whole = match accounts {
            Some(accounts) if policies.may_name_folder(name) => accounts.find(name).await?,
            _ => None,
        };
        let mut asked = policies
            .asked(credentials.mailbox(), is_whole.is_some())
            .map_err(Unclear::Folder)?;
        let mut credentials = credentials.for_mailbox(asked.user.clone());
        if let Some(accounts) = accounts {
            // The folder may stand behind the master's name.
            credentials = split_master(accounts, credentials).await?;
            asked.user = credentials.mailbox().to_owned();
        }
        let (judge, is_no_guess) = match accounts {
            Some(accounts) => judge(policies, accounts, &credentials).await?,
            None => (by_rules(policies, &credentials), false),
        };
        Ok(Self {
            credentials,
            asked,
            judge,
            is_no_guess,
        })
    }
}

/// `user*master`, where there is a master of that name: as PLAIN with `user` for the
/// authorization identity.
async fn split_master(
    accounts: &Accounts,
    credentials: Credentials,
) -> Result<Credentials, AccountsError> {
    let Credentials::Password {
        user: name,
        authorize_as: None,
        password,
    } = &credentials
    else {
        return Ok(credentials);
    };
    let Some((user, master)) = name.rsplit_once('*') else {
        return Ok(credentials);
    };
    let is_master = |account: Account| account.master;
    if user.is_empty() || !accounts.find(master).await?.is_some_and(is_master) {
        return Ok(credentials);
    }
    Ok(Credentials::Password {
        user: master.to_owned(),
        authorize_as: Some(user.to_owned()),
        password: password.clone(),
    })
}

/// If there is an account, its device passwords alone decide: a wrong one is never
/// passed on, nor is a token.
async fn judge(
    policies: &Policies,
    accounts: &Accounts,
    credentials: &Credentials,
) -> Result<(By, bool), AccountsError> {
    let Some(account) = accounts.find(credentials.user()).await? else {
        // A mailbox that has an account opens by that, or by a master of popgate's.
        let before_star = || credentials.user().rsplit_once('*').map(|(other, _)| other);
        let hers = match credentials.authorized_as().or_else(before_star) {
            Some(other) => accounts.find(other).await?,
            None => None,
        };
        let judge = match hers {
            Some(account) => By::Nobody(Closed::HasAccount(account.address)),
            None => by_rules(policies, credentials),
        };
        return Ok((judge, false));
    };
    if matches!(credentials, Credentials::Bearer { .. }) {
        return Ok((By::Nobody(Closed::ByThis), false));
    }
    let as_whom = credentials.authorized_as().map(str::to_lowercase);
    let mut verifiers = account.devices.iter().map(|device| &device.verifier);
    let is_no_guess = verifiers.all(|it| matches!(it, Verifier::Generated { .. }));
    let judge = By::Account {
        as_whom: as_whom.filter(|other| *other != account.address),
        address: account.address,
    };
    Ok((judge, is_no_guess))
}

/// Who judges somebody without an account.
fn by_rules(policies: &Policies, credentials: &Credentials) -> By {
    let login = &policies.of(credentials.mailbox()).login;
    if credentials.authorized_as().is_some() && policies.of(credentials.user()).login != *login {
        return By::Nobody(Closed::ByThis);
    }
    match (login.by, credentials) {
        (Judge::Upstream, _) => By::Upstream(login.clone()),
        (
            Judge::Http,
            Credentials::Password {
                authorize_as: None, ..
            },
        ) => By::Http(login.clone()),
        (Judge::Accounts, _) => By::Nobody(Closed::NoAccount),
        (Judge::Http, _) => By::Nobody(Closed::ByThis),
    }
}
