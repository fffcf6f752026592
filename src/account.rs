//! `popgate account`: accounts of popgate's own on the command line, while popgate
//! runs or not.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

use serde_json::json;
use url::Url;

use crate::accounts::{Account, Accounts, AccountsError, EnrolmentError, KeyRing, VaultError};
use crate::cli::{AccountCommand, confirmed, somebody_is_there};
use crate::config::ConfigError;
use crate::oauth2::TokenError;
use crate::server::UpstreamProbe;
use crate::server::policies::Policies;
use crate::web::enrolment::Reached;

mod add;
mod devices;
mod opened;
mod output;
mod qr;
mod report;
mod sign_in;
mod time;
mod way;

pub use opened::{Opened, opened};
use output::{Output, shown};
pub use way::Way;

/// What the commands work on.
#[derive(Debug)]
pub struct Site {
    /// The accounts.
    pub accounts: Accounts,
    /// Where the mailboxes of a domain are.
    pub policies: Policies,
    /// Whether the gateway has an upstream of its own.
    pub has_upstream: bool,
    /// Tries mailboxes.
    pub probe: UpstreamProbe,
    /// Where browsers end, by provider.
    pub redirects: BTreeMap<String, Url>,
    /// Where clients find POP3, as far as is known.
    pub reached: Option<Reached>,
}

/// Why it was not done; nothing was changed, but where it says so.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// A secret, or another setting.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The accounts.
    #[error(transparent)]
    Accounts(AccountsError),
    /// Nobody was enrolled.
    #[error("{0}")]
    Enrolment(String),
    /// What was asked for cannot be.
    #[error("{0}")]
    Unsuitable(String),
    /// Somebody said no.
    #[error("stopped: nothing was changed")]
    Stopped,
    /// It was done, and its password is lost.
    #[error(
        "it was done, but nobody has seen the new password ({0}): popgate account password list ADDRESS shows the device; revoke it, and add another"
    )]
    Unseen(io::Error),
    /// It was done.
    #[error("it was done, but what is to be said of it cannot be written: {0}")]
    Unsaid(io::Error),
    /// The terminal, or the standard input.
    #[error("{0}")]
    Input(#[from] io::Error),
}

impl From<AccountsError> for AccountError {
    fn from(error: AccountsError) -> Self {
        match error {
            AccountsError::Vault(VaultError::NoKey) => Self::Unsuitable(
                "what accounts hold is sealed, and no key is configured: `popgate account key` makes one for accounts.key_file".to_owned(),
            ),
            AccountsError::Vault(VaultError::Locked) => Self::Unsuitable(
                "the secrets of this account open only with the password of one of its devices, and that was none".to_owned(),
            ),
            error => Self::Accounts(error),
        }
    }
}

impl From<TokenError> for AccountError {
    fn from(error: TokenError) -> Self {
        Self::Enrolment(shown(&error.to_string()).to_string())
    }
}

impl From<EnrolmentError> for AccountError {
    fn from(error: EnrolmentError) -> Self {
        match error {
            EnrolmentError::Accounts(error) => error.into(),
            EnrolmentError::AnotherMailbox {
                signed_in,
                expected,
            } => Self::Enrolment(format!(
                "{} signed in, not {}: sign out at the provider, or use another browser; for a mailbox that is shared, `account add` has --shared-by",
                shown(&signed_in),
                shown(&expected),
            )),
            error => Self::Enrolment(shown(&error.to_string()).to_string()),
        }
    }
}

/// Does what was asked for.
pub async fn run(
    site: &Site,
    command: AccountCommand,
    json: bool,
) -> Result<ExitCode, AccountError> {
    let unsaid = OnceLock::new();
    let output = Output {
        json,
        unsaid: &unsaid,
    };
    let is_shown_once = matches!(
        command,
        AccountCommand::Add(_) | AccountCommand::AddPassword { .. }
    );
    let done = site.command(command, output).await;
    if let Err(error) = &done {
        output.failed(&error.to_string());
    }
    match (done, unsaid.into_inner()) {
        (Ok(_), Some(error)) if is_shown_once => Err(AccountError::Unseen(error)),
        // Whoever reads no further has seen enough.
        (Ok(_), Some(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(AccountError::Unsaid(error))
        }
        (done, _) => done,
    }
}

/// `popgate account key`: a new key.
pub fn key() -> Result<ExitCode, AccountError> {
    let key = KeyRing::generate().map_err(AccountsError::from)?;
    writeln!(io::stdout(), "{}", key.reveal())?;
    Ok(ExitCode::SUCCESS)
}

impl Site {
    async fn command(
        &self,
        command: AccountCommand,
        output: Output<'_>,
    ) -> Result<ExitCode, AccountError> {
        match command {
            AccountCommand::Add(new) => self.add(*new, output).await?,
            AccountCommand::Reauthorize { address, sign_in } => {
                self.reauthorize(&address, sign_in, output).await?;
            }
            AccountCommand::List => self.list(output).await?,
            AccountCommand::Show { address } => self.show(&address, output).await?,
            AccountCommand::Disable { address, disabled } => {
                let change = |account: &mut Account| {
                    std::mem::replace(&mut account.disabled, disabled) != disabled
                };
                let (account, changed) = self.accounts.change(&address, change).await?;
                let state = if disabled { "disabled" } else { "enabled" };
                if output.json {
                    let object = self.object(&account).await?;
                    output.object(&json!({"event": state, "account": object}));
                }
                let before = if changed { "" } else { " already" };
                let address = shown(&account.address);
                output.say(format_args!("{address} is {state}{before}"));
            }
            AccountCommand::Remove { address, yes } => self.remove(&address, yes, output).await?,
            AccountCommand::AddPassword { address, device } => {
                self.add_password(&address, device, output).await?;
            }
            AccountCommand::ListPasswords { address } => {
                self.list_passwords(&address, output).await?;
            }
            AccountCommand::RevokePassword { address, device } => {
                self.revoke_password(&address, &device, output).await?;
            }
            AccountCommand::Rekey => return self.rekey(output).await,
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn found(&self, address: &str) -> Result<Account, AccountError> {
        let found = self.accounts.find(address).await?;
        found.ok_or_else(|| AccountsError::Missing(shown(address).to_string()).into())
    }

    async fn remove(
        &self,
        address: &str,
        yes: bool,
        output: Output<'_>,
    ) -> Result<(), AccountError> {
        let account = self.found(address).await?;
        let address = account.address.as_str();
        if !yes {
            if !somebody_is_there() {
                return Err(AccountError::Unsuitable(
                    "nobody is there to be asked: say --yes".to_owned(),
                ));
            }
            output.say(format_args!(
                "{} goes, with {} and what opens its mailbox. The mail stays at its server; so does the permission that was given to popgate there.",
                shown(address),
                report::devices(account.devices.len()),
            ));
            if !confirmed("Remove it? [y/N] ").await {
                return Err(AccountError::Stopped);
            }
        }
        if !self.accounts.remove(address).await? {
            return Err(AccountsError::Missing(shown(address).to_string()).into());
        }
        output.object(&json!({"event": "removed", "address": address}));
        output.say(format_args!("{} is removed", shown(address)));
        Ok(())
    }

    async fn rekey(&self, output: Output<'_>) -> Result<ExitCode, AccountError> {
        if self.accounts.config().keys.is_none() {
            return Err(AccountsError::Vault(VaultError::NoKey).into());
        }
        let done = self.accounts.rekey().await?;
        if output.json {
            let failed: Vec<_> = done
                .failed
                .iter()
                .map(|(address, error)| json!({"address": address, "error": error.to_string()}))
                .collect();
            output.object(&json!({
                "resealed": done.resealed, "current": done.current, "failed": failed,
            }));
        } else {
            output.say(format_args!(
                "{} sealed with the first key now, {} were already, {} failed",
                done.resealed,
                done.current,
                done.failed.len()
            ));
            for (address, error) in &done.failed {
                output.say(format_args!("{}: FAILED: {error}", shown(address)));
            }
        }
        Ok(match done.failed.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}
