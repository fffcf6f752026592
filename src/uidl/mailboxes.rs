//! The way into the mailboxes: by an account of popgate's own, by what a provider
//! lets popgate in with, or by the password that the mail server knows.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use crate::account::{AccountError, opened};
use crate::accounts::{Account, Accounts, AccountsError, Admitted, CredentialError, Entry, Home};
use crate::maildrop::{FolderNameError, Policy};
use crate::sasl::{Credentials, SaslError};
use crate::secret::Secret;
use crate::server::policies::{Judge, Login, Policies};
use crate::server::{By, Claim, Closed, Unclear, as_delegate, share};
use crate::upstream::{Upstream, UpstreamError, UpstreamSession, Upstreams};

/// Whom the upstream is told about, where it is told of clients.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The mailboxes, and what a login to them comes under.
pub struct Mailboxes {
    /// Where they are.
    pub upstreams: Arc<Upstreams>,
    /// As for clients of POP3.
    pub policies: Policies,
    /// Who has something that opens them.
    pub accounts: Accounts,
    /// Where it is kept what is known of them.
    pub state: PathBuf,
}

/// What has to be known to open somebody's mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing: popgate has it, or nothing would help.
    Nothing,
    /// The password of one of the devices of an account.
    DevicePassword,
    /// The password that the mail server knows.
    Password,
}

/// A mailbox does not open.
#[derive(Debug, thiserror::Error)]
pub enum Shut {
    /// The user name asks for a folder that cannot be.
    #[error("{0}")]
    Folder(#[from] FolderNameError),
    /// The account of popgate's own does not open it.
    #[error("{0}")]
    Account(#[from] AccountError),
    /// What the provider lets popgate in with does not open it.
    #[error("{0}")]
    Credentials(#[from] CredentialError),
    /// There is nothing that would open it.
    #[error("{0}")]
    NoWay(String),
    /// The password cannot be sent.
    #[error("{0}")]
    Password(#[from] SaslError),
    /// The upstream's answer.
    #[error("upstream: {0}")]
    Upstream(#[from] UpstreamError),
}

impl From<AccountsError> for Shut {
    fn from(error: AccountsError) -> Self {
        Self::Account(error.into())
    }
}

/// A mailbox, and what opens it.
pub(super) struct Door {
    upstream: Arc<dyn Upstream>,
    credentials: Credentials,
    /// Whose account they are of.
    admitted: Option<Admitted>,
    /// What a login comes under.
    pub policy: Policy,
}

impl Mailboxes {
    /// What somebody has to bring whom clients would call `user`.
    pub async fn wanted(&self, user: &str) -> Result<Wanted, AccountError> {
        if let Some(account) = self.account(user).await? {
            return Ok(match account.lock {
                Some(_) => Wanted::DevicePassword,
                None => Wanted::Nothing,
            });
        }
        let takes_none = match self.policies.admit(called(user, None)) {
            Ok(admission) => self.takes_no_password(&admission.rules.login),
            Err(_) => false,
        };
        Ok(match takes_none {
            true => Wanted::Nothing,
            false => Wanted::Password,
        })
    }

    /// Whose account opens it to a login under this name. It opens by itself here:
    /// whoever names a master, too, is told so before any password is read.
    async fn account(&self, user: &str) -> Result<Option<Account>, AccountError> {
        let claim = Claim::of(&self.policies, Some(&self.accounts), called(user, None));
        let judge = match claim.await {
            Ok(claim) => claim.judge,
            Err(Unclear::Accounts(error)) => return Err(error.into()),
            // The way in says so.
            Err(Unclear::Folder(_)) => return Ok(None),
        };
        match judge {
            By::Account {
                address,
                as_whom: None,
            } => Ok(self.accounts.find(&address).await?),
            By::Account {
                as_whom: Some(address),
                ..
            }
            | By::Nobody(Closed::HasAccount(address)) => {
                let address = address.escape_debug();
                Err(AccountError::Unsuitable(format!(
                    "no master is needed here: name {address} alone"
                )))
            }
            By::Upstream(_) | By::Http(_) | By::Nobody(_) => Ok(None),
        }
    }

    fn entry(&self, home: &Home) -> Option<&Entry> {
        match home {
            Home::Provider(name) => self.accounts.provider(name).map(|it| &it.entry),
            Home::Gateway | Home::Upstream(_) => None,
        }
    }

    /// Whether no password opens the mailbox of somebody without an account.
    fn takes_no_password(&self, login: &Login) -> bool {
        let is_passed_on = login.by == Judge::Upstream;
        let entry = self.entry(&login.home).filter(|_| !is_passed_on);
        entry.is_some_and(|entry| !matches!(entry, Entry::Password))
    }

    /// The way that a login under this name takes in the gateway.
    pub(super) async fn door(&self, user: &str, password: Option<&Secret>) -> Result<Door, Shut> {
        if let Some(account) = self.account(user).await? {
            return self.door_of(user, account, password).await;
        }
        let admission = self.policies.admit(called(user, password))?;
        let (user, rules) = (admission.credentials.user(), admission.rules);
        let home = &rules.login.home;
        let credentials = match (self.takes_no_password(&rules.login), password) {
            (true, _) if self.entry(home).is_some_and(Entry::needs_nobody) => {
                self.accounts.provider_credentials(home, user).await?
            }
            (false, Some(password)) => Credentials::password(user, password.reveal())?,
            (true, _) | (false, None) => return Err(nobody(user)),
        };
        Ok(Door {
            upstream: self.upstream_at(home, user)?,
            credentials,
            admitted: None,
            policy: rules.policy.as_ref().clone(),
        })
    }

    async fn door_of(
        &self,
        user: &str,
        account: Account,
        device: Option<&Secret>,
    ) -> Result<Door, Shut> {
        let asked = self.policies.asked_of(&account, user)?;
        let opened = opened(&self.accounts, &self.policies, &asked, account, device).await?;
        let account = &opened.admitted.account;
        let upstream = self.upstream_at(&account.home, user)?;
        let mut policy = opened.rules.policy;
        share(upstream.as_ref(), account, &mut policy);
        Ok(Door {
            upstream,
            credentials: opened.credentials,
            admitted: Some(opened.admitted),
            policy: policy.as_ref().clone(),
        })
    }

    fn upstream_at(&self, home: &Home, user: &str) -> Result<Arc<dyn Upstream>, Shut> {
        if *home == Home::Gateway {
            let gateway = self.upstreams.gateway().cloned();
            return gateway.ok_or_else(|| {
                Shut::NoWay(format!(
                    "there is no account {}, or its mailbox is at the gateway's own upstream, and none is configured",
                    user.escape_debug()
                ))
            });
        }
        let url = self.accounts.upstream_of(home);
        let url = url.ok_or_else(|| Shut::NoWay("its provider is not configured".to_owned()))?;
        Ok(self.upstreams.at(url)?)
    }

    /// Opens the mailbox. What is refused of an account is renewed once.
    pub(super) async fn login(
        &self,
        door: &Door,
        policy: Policy,
    ) -> Result<Box<dyn UpstreamSession>, Shut> {
        let policy = Arc::new(policy);
        let first = door.login(door.credentials.clone(), &policy).await;
        let mut session = match (first, &door.admitted) {
            (Err(UpstreamError::Authentication), Some(admitted)) => {
                let newer = self.accounts.after_refusal(admitted, &door.credentials);
                let newer = newer.await?.ok_or(UpstreamError::Authentication)?;
                door.login(newer, &policy).await?
            }
            (first, _) => first?,
        };
        if let Some(admitted) = &door.admitted {
            self.accounts.worked(admitted).await;
        }
        session.folders().await?;
        Ok(session)
    }
}

impl Door {
    async fn login(
        &self,
        credentials: Credentials,
        policy: &Arc<Policy>,
    ) -> Result<Box<dyn UpstreamSession>, UpstreamError> {
        let credentials = match &self.admitted {
            Some(it) => as_delegate(self.upstream.as_ref(), &it.account, credentials),
            None => credentials,
        };
        self.upstream
            .login(credentials, HERE, Arc::clone(policy))
            .await
    }
}

/// As a client says who it is.
fn called(user: &str, password: Option<&Secret>) -> Credentials {
    Credentials::Password {
        user: user.to_owned(),
        authorize_as: None,
        password: password.cloned().unwrap_or_else(|| Secret::from("")),
    }
}

fn nobody(user: &str) -> Shut {
    Shut::NoWay(format!(
        "there is no account {}, and no password that opens the mailbox (popgate account add makes accounts)",
        user.escape_debug()
    ))
}
