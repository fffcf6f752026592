//! The way into a mailbox that `popgate check` tries: the server's own, with whoever
//! judges there.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::AccountError;
use super::opened::{opened, opened_to_master};
use super::output::shown;
use crate::accounts::{Accounts, AccountsError, Home, HttpCheck, HttpVerdict};
use crate::cli::PasswordSource;
use crate::maildrop::Policy;
use crate::sasl::Credentials;
use crate::secret::Secret;
use crate::server::config::Config;
use crate::server::policies::Login;
use crate::server::{By, Claim, Closed, LetIn, Unclear};

/// Whom the service is told about that judges passwords.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where a mailbox is, and how it opens.
#[derive(Debug)]
pub struct Way {
    /// Where it is.
    pub home: Home,
    /// What its server is shown.
    pub credentials: Credentials,
    /// What a login comes under.
    pub policy: Arc<Policy>,
    /// In words: whose rules those are, and who lets in.
    pub rules: String,
}

impl Way {
    /// The way of somebody whom a client would call `user`. `known` is who has an
    /// account, where anybody can have one.
    pub async fn of(
        config: &Config,
        accounts: Option<&Accounts>,
        known: Option<&Accounts>,
        user: &str,
        password: PasswordSource,
    ) -> Result<Self, AccountError> {
        let policies = &config.policies;
        let called = Credentials::Password {
            user: user.to_owned(),
            authorize_as: None,
            password: Secret::from(""),
        };
        let claim = Claim::of(policies, known, called).await;
        let claim = claim.map_err(|unclear| match unclear {
            Unclear::Folder(error) => {
                AccountError::Unsuitable(format!("{user:?} names no folder that can be: {error}"))
            }
            Unclear::Accounts(error) => error.into(),
        })?;
        match (claim.judge.clone(), known) {
            (By::Account { address, as_whom }, Some(known)) => {
                let asked = &claim.asked;
                let (opened, by) = match as_whom {
                    Some(whom) => {
                        let master = (address.as_str(), &password.read(&address)?);
                        let opened = opened_to_master(known, policies, asked, master, &whom);
                        (
                            opened.await?,
                            format!(", by the master {}", shown(&address)),
                        )
                    }
                    None => {
                        let account = known.find(&address).await?;
                        let gone = || AccountsError::Missing(address);
                        let account = account.ok_or_else(gone)?;
                        // Else nothing is compared: popgate opens it by itself.
                        let device = match account.lock {
                            Some(_) => Some(password.of_a_device().read(&account.address)?),
                            None => None,
                        };
                        let opened = opened(known, policies, asked, account, device.as_ref());
                        (opened.await?, String::new())
                    }
                };
                Ok(Self {
                    home: opened.admitted.account.home,
                    credentials: opened.credentials,
                    policy: opened.rules.policy,
                    rules: format!("{}; an account of popgate's own{by}", opened.source),
                })
            }
            (By::Upstream(login), _) => {
                let name = claim.credentials.user().to_owned();
                let credentials = Credentials::Password {
                    password: password.read(&name)?,
                    user: name,
                    authorize_as: None,
                };
                let (rules, _, source) = policies.of_anybody(&claim.asked);
                Ok(Self {
                    home: login.home,
                    credentials,
                    policy: rules.policy,
                    rules: source.to_string(),
                })
            }
            (By::Http(login), _) => {
                let password = password.read(claim.credentials.user())?;
                let let_in = let_in(config, accounts, &login, &claim, password).await?;
                let (rules, _, source) = policies.of_anybody(&claim.asked);
                Ok(Self {
                    home: let_in.home,
                    credentials: let_in.credentials,
                    policy: rules.policy,
                    rules: format!("{source}; let in by auth_http"),
                })
            }
            (By::Account { .. }, None) => Err(closed(&claim, &Closed::NoAccount)),
            (By::Nobody(why), _) => Err(closed(&claim, &why)),
        }
    }
}

/// Asks the HTTP service, as the server does.
async fn let_in(
    config: &Config,
    accounts: Option<&Accounts>,
    login: &Login,
    claim: &Claim,
    password: Secret,
) -> Result<LetIn, AccountError> {
    let name = claim.credentials.user();
    let failed = |problem: String| {
        let problem = shown(&problem).to_string();
        AccountError::Enrolment(format!("auth_http: {problem}"))
    };
    let Some(service) = config.http_check.clone() else {
        return Err(failed("none is configured".to_owned()));
    };
    let check = HttpCheck::new(service).map_err(|error| failed(error.to_string()))?;
    let verdict = check.check(name, &password, HERE, 1, true).await;
    match verdict.map_err(|error| failed(error.to_string()))? {
        HttpVerdict::Admitted {
            user,
            password: other,
            upstream,
        } => {
            let name = user.as_deref().unwrap_or(name);
            let password = other.unwrap_or(password);
            let let_in = LetIn::of(accounts, login, upstream, name, &password).await;
            let_in.map_err(|error| failed(error.to_string()))
        }
        HttpVerdict::Refused { .. } => Err(failed(format!(
            "the service does not let {name} in with this password: the upstream is not asked"
        ))),
    }
}

/// Nobody would let him in, whatever the password.
fn closed(claim: &Claim, why: &Closed) -> AccountError {
    let user = shown(claim.credentials.mailbox());
    AccountError::Unsuitable(match why {
        Closed::NoAccount => format!(
            "there is no account {user}, and login = \"accounts\" lets in nobody else: popgate account add {user}"
        ),
        Closed::HasAccount(address) => format!(
            "{address} has an account, which opens by its own device passwords, or to a master of popgate's: {user} is neither",
            address = shown(address)
        ),
        Closed::ByThis => format!("{user} is let in by nobody this way"),
    })
}
