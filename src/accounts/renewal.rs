//! Tokens renewed: one request at a time for each account, and what it brings is
//! durable before it is used.
//!
//! A renewal goes on when nobody waits for it any longer: tokens that a provider
//! has given are not lost because a client hung up. The row in the store is
//! claimed first. That keeps other processes from asking at the same time, and
//! shows that the disk takes what is to come; if it fails afterwards all the
//! same, the tokens are held in memory until it does, and not used before: many
//! providers revoke the old refresh token when the new tokens are used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::pauses::{Failure, Pauses};
use super::{
    Account, Accounts, AccountsError, Credential, CredentialError, Credentials, Home, Opener,
    PlainTokens, SealedTokens, Secret, Trouble, now,
};
use crate::metrics::RefreshResult;

/// Tokens are renewed so many seconds before they end; those that live less than
/// twice as long, in the middle of their life.
const EARLY: i64 = 600;
/// Seconds after which tokens that nobody uses are renewed: providers forget what
/// is idle for months, some for weeks.
pub(super) const IDLE: i64 = 6 * 24 * 3600;
/// A token that ends in so many seconds is no good for a login any more.
pub(super) const LAST: i64 = 5;
/// A new token that the upstream refuses is not thrown away for another one
/// before this has passed.
const FORCED: Duration = Duration::from_secs(60);
/// How often the row may change under a renewal.
const ROUNDS: usize = 8;

mod attempt;

use attempt::Attempt;

/// Renewals under way, and what is remembered of earlier ones.
#[derive(Debug)]
pub(super) struct Renewals {
    flights: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Flight>>>>,
    pub pauses: Pauses,
    /// Requests under way.
    pub running: TaskTracker,
    /// An account has died, or has been cured.
    pub news: Notify,
    /// Names this process in claims.
    me: String,
    /// In milliseconds of Unix time.
    started: i64,
}

/// What is known of the renewals of one account.
#[derive(Debug, Default)]
pub(super) struct Flight {
    unstored: Option<Unstored>,
    /// When a new token was got because the upstream had refused one that was
    /// not old.
    pub forced: Option<Instant>,
}

impl Flight {
    pub fn may_force(&self) -> bool {
        self.forced.is_none_or(|it| it.elapsed() >= FORCED)
    }
}

/// Tokens that the provider has given and the store does not have.
#[derive(Debug)]
struct Unstored {
    /// When those were got that they replace, in seconds of Unix time.
    replaced: i64,
    tokens: PlainTokens,
    told: bool,
}

/// What a renewal is for.
#[derive(Clone, Debug)]
pub(super) enum Need {
    /// A token that does not end soon.
    Fresh,
    /// Another token than this one, which the upstream has refused.
    Other(Secret),
    /// Tokens that have not been idle for too long.
    Used,
    /// To see whether the provider has changed its mind.
    Cured,
}

impl Default for Renewals {
    fn default() -> Self {
        let mut name = [0; 8];
        // Without random numbers nothing else works either.
        let _ = SystemRandom::new().fill(&mut name);
        Self {
            flights: Mutex::default(),
            pauses: Pauses::default(),
            running: TaskTracker::new(),
            news: Notify::new(),
            me: format!("{:016x}", u64::from_ne_bytes(name)),
            started: now_in_milliseconds(),
        }
    }
}

impl Renewals {
    /// The renewals of an account, or of whoever else has a token.
    pub(super) fn flight(&self, address: &str) -> Arc<tokio::sync::Mutex<Flight>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(flights.entry(address.to_owned()).or_default())
    }

    /// Forgets accounts of which there is nothing to remember. Gives those whose
    /// tokens are not stored.
    fn sweep(&self) -> Vec<String> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unstored = Vec::new();
        flights.retain(|address, flight| {
            if Arc::strong_count(flight) > 1 {
                return true;
            }
            let Ok(flight) = flight.try_lock() else {
                return true;
            };
            if flight.unstored.is_some() {
                unstored.push(address.clone());
            }
            flight.unstored.is_some() || !flight.may_force()
        });
        unstored
    }
}

impl SealedTokens {
    /// Whether a login should have newer ones.
    pub(super) fn is_due(&self, now: i64) -> bool {
        let life = self.expires_at.saturating_sub(self.refreshed).max(0);
        self.expires_at.saturating_sub(now) <= EARLY.min(life / 2)
    }
}

impl Accounts {
    /// What the account shows to the upstream, renewed as is needed; `None`: there
    /// is nothing newer.
    pub(super) async fn renewed(
        &self,
        address: &str,
        opener: &Opener,
        need: Need,
    ) -> Result<Option<Credentials>, CredentialError> {
        let attempt = Attempt {
            accounts: self.clone(),
            address: address.to_owned(),
            opener: opener.clone(),
            need,
        };
        let task = self.renewals.running.spawn(attempt.run());
        // It fails by a defect, or where the process ends.
        task.await
            .unwrap_or_else(|_| Err(CredentialError::Temporary("the renewal broke off".into())))
    }

    /// Tries once more to store what is not stored. How many accounts are left.
    pub(super) async fn store_again(&self) -> usize {
        let mut left = 0;
        for address in self.renewals.sweep() {
            let flight = self.renewals.flight(&address);
            let mut flight = flight.lock().await;
            if self.settle(&address, &mut flight).await.is_err() {
                left += 1;
            }
        }
        left
    }

    /// Has `store` put other credentials into the row, while no renewal is under
    /// way. Tokens that were not stored go with those that they replace; where
    /// these stay, they are needed.
    pub(super) async fn replacing<T, E>(
        &self,
        address: &str,
        store: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let flight = self.renewals.flight(address);
        let mut flight = flight.lock().await;
        let stored = store.await?;
        flight.forced = None;
        self.renewals.pauses.forget(address);
        self.renewals.news.notify_one();
        Ok(stored)
    }

    /// Stores what the provider gave.
    async fn settle(&self, address: &str, flight: &mut Flight) -> Result<(), AccountsError> {
        let Some(unstored) = &mut flight.unstored else {
            return Ok(());
        };
        match self.store_tokens(address, unstored).await {
            Ok(()) => {
                if unstored.told {
                    info!(account = address, "the new tokens are stored after all");
                }
                flight.unstored = None;
                Ok(())
            }
            Err(error) => {
                self.count(RefreshResult::NotStored);
                if !unstored.told {
                    unstored.told = true;
                    error!(
                        account = address,
                        %error,
                        "NEW TOKENS CANNOT BE STORED: popgate holds them in memory and goes on trying; make room on the disk, and do not stop popgate before"
                    );
                }
                Err(error)
            }
        }
    }

    async fn store_tokens(&self, address: &str, new: &Unstored) -> Result<(), AccountsError> {
        for _ in 0..ROUNDS {
            let Some(mut account) = self.find(address).await? else {
                return Ok(());
            };
            match &account.credential {
                Credential::OAuth(tokens)
                    if tokens.refreshed == new.replaced
                        && tokens.signed_in == new.tokens.signed_in => {}
                // Somebody has signed in meanwhile; or a store that failed has
                // stored them all the same.
                _ => return Ok(()),
            }
            self.set_tokens(&mut account, &new.tokens)?;
            let was_in_trouble = account.trouble.take().is_some();
            match self.save(&mut account).await {
                Ok(()) => {
                    if was_in_trouble {
                        self.renewals.news.notify_one();
                    }
                    return Ok(());
                }
                Err(AccountsError::Changed(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(AccountsError::Changed(address.to_owned()))
    }

    /// The provider gives no more tokens: somebody has to sign in. The tokens are
    /// kept. `tokens`: which ones are no longer good.
    async fn died(&self, account: &Account, tokens: &SealedTokens, reason: String) {
        let (generation, signed_in) = (tokens.generation, tokens.signed_in);
        let stored = self
            .change(&account.address, |row| {
                let Credential::OAuth(now_there) = &mut row.credential else {
                    return false;
                };
                if (now_there.generation, now_there.signed_in) != (generation, signed_in) {
                    return false;
                }
                now_there.claim = None;
                if row.trouble.is_some() {
                    return false;
                }
                row.trouble = Some(Trouble {
                    since: now(),
                    reason: reason.clone(),
                    told: false,
                });
                true
            })
            .await;
        let address = &account.address;
        match stored {
            Ok((_, true)) => self.mourn(account, &reason),
            Ok((_, false)) => {}
            Err(error) => {
                // Not asked again at each login meanwhile.
                let why = Failure::Temporary(format!("the provider refuses: {reason}"));
                self.renewals
                    .pauses
                    .failed(name_of(&account.home), address, why, Some(FORCED));
                error!(account = address.as_str(), %error, reason, "the provider refuses, and that cannot be stored");
            }
        }
    }

    /// Says once that an account has died, and what to do.
    pub(super) fn mourn(&self, account: &Account, reason: &str) {
        let address = account.address.as_str();
        let page = match &self.config.alarm.sign_in {
            Some(page) => format!(", or at {page}"),
            None => String::new(),
        };
        error!(
            account = address,
            provider = name_of(&account.home),
            signs_in = account.signs_in(),
            reason,
            "THE ACCOUNT CANNOT BE USED: somebody has to sign in again, by `popgate account reauthorize {address}`{page}"
        );
        self.renewals.news.notify_one();
    }

    pub(super) fn count(&self, result: RefreshResult) {
        self.metrics.token_refreshes.get_or_create(&result).inc();
    }

    /// Notes why there are no tokens, tells the operator what he has to change, and
    /// gives the error for the login.
    pub(super) fn refresh_failed(
        &self,
        provider: &str,
        account: &str,
        why: Failure,
        retry_after: Option<Duration>,
    ) -> CredentialError {
        self.count(match why {
            Failure::Temporary(_) => RefreshResult::Temporary,
            Failure::Misconfigured(_) => RefreshResult::Misconfigured,
        });
        let pauses = &self.renewals.pauses;
        let is_news = pauses.failed(provider, account, why.clone(), retry_after);
        match &why {
            Failure::Misconfigured(reason) if is_news => {
                error!(
                    provider,
                    account,
                    reason,
                    "NO TOKENS FROM THE PROVIDER: a setting must be changed in [provider.{provider}], or where popgate is registered there"
                );
            }
            Failure::Misconfigured(reason) | Failure::Temporary(reason) => {
                warn!(provider, account, reason, "no tokens from the provider");
            }
        }
        why.into()
    }
}

impl From<Failure> for CredentialError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Temporary(reason) => Self::Temporary(reason),
            Failure::Misconfigured(reason) => Self::Misconfigured(reason),
        }
    }
}

/// What logs call where a mailbox is.
pub(super) fn name_of(home: &Home) -> &str {
    match home {
        Home::Gateway => "gateway",
        Home::Provider(name) => name,
        Home::Upstream(url) => url,
    }
}

fn now_in_milliseconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |it| i64::try_from(it.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
