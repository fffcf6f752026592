//! One renewal: from what is stored to what is stored.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::super::pauses::Failure;
use super::super::tokens::changed;
use super::super::{
    Account, Accounts, AccountsError, Claim, Credential, CredentialError, Credentials, Entry,
    OpenedCredential, Opener, PlainTokens, Provider, SealedTokens, Secret, now,
};
use super::{IDLE, LAST, Need, ROUNDS, Unstored, now_in_milliseconds};
use crate::metrics::RefreshResult;
use crate::oauth2::{TokenError, Tokens};
use crate::store::Access;

/// Milliseconds for which the claim of another process counts: longer than a
/// request.
const CLAIMED: i64 = 60_000;
/// How often, and how many times, the row is read while another process asks.
const WAIT: Duration = Duration::from_millis(250);
const WAITS: usize = 60;

/// One renewal, in a task of its own.
pub(super) struct Attempt {
    pub accounts: Accounts,
    pub address: String,
    pub opener: Opener,
    pub need: Need,
}

impl Attempt {
    /// See [`Accounts::renewed`].
    pub async fn run(self) -> Result<Option<Credentials>, CredentialError> {
        let flight = self.accounts.renewals.flight(&self.address);
        let mut flight = flight.lock().await;
        let mut waits = 0;
        let (mut asked, mut refused) = (false, false);
        for _ in 0..ROUNDS + WAITS {
            let unstored = self.accounts.settle(&self.address, &mut flight).await;
            let account = self.account().await?;
            let Credential::OAuth(tokens) = &account.credential else {
                return self.accounts.at_rest(&account, &self.opener).map(Some);
            };
            let (access, refresh) = self.opened(&account)?;
            let there = Credentials::Bearer {
                user: account.mailbox().to_owned(),
                token: access.clone(),
            };
            if self.is_met(&account, tokens, &access) {
                return Ok(Some(there));
            }
            if asked && unstored.is_ok() && account.trouble.is_none() {
                // Even if it ends soon.
                return Ok(self.is_other(&access).then_some(there));
            }
            let spare = self.is_spare(&account, tokens).then_some(there);
            if let Err(error) = unstored {
                return spare.ok_or_else(|| cannot_store(&error)).map(Some);
            }
            if account.trouble.is_some() && !matches!(self.need, Need::Cured) {
                return Err(CredentialError::SignInNeeded);
            }
            let Some(refresh) = refresh else {
                if spare.is_some() {
                    return Ok(spare);
                }
                let reason = "the provider has given no token to renew the access with";
                self.accounts
                    .died(&account, tokens, reason.to_owned())
                    .await;
                return Err(CredentialError::SignInNeeded);
            };
            let forced = matches!(self.need, Need::Other(_));
            if forced && !flight.may_force() {
                return Ok(None);
            }
            let provider = self.accounts.oauth_provider(&account.home)?;
            if self.is_claimed(tokens) {
                if spare.is_some() {
                    return Ok(spare);
                }
                waits += 1;
                if waits > WAITS {
                    break;
                }
                tokio::time::sleep(WAIT).await;
                continue;
            }
            let pauses = &self.accounts.renewals.pauses;
            if let Err(failure) = pauses.check(&provider.name, &self.address) {
                return spare.ok_or_else(|| failure.into()).map(Some);
            }
            match self.claim(&account, tokens, &refresh).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => return spare.ok_or_else(|| cannot_store(&error)).map(Some),
            }
            match self.ask(&provider, access, refresh, tokens).await {
                Ok(unstored) => {
                    flight.unstored = Some(unstored);
                    if forced {
                        flight.forced = Some(Instant::now());
                    }
                    asked = true;
                }
                Err(Unanswered { error, rotated }) => {
                    if rotated.is_some() {
                        flight.unstored = rotated;
                        // Said, and tried again, where that fails.
                        let _ = self.accounts.settle(&self.address, &mut flight).await;
                    }
                    let Some((why, retry_after)) = Failure::of(&error) else {
                        pauses.answered(&provider.name, &self.address);
                        let now_there = self.account().await?;
                        if !refused && now_there.credential_generation() != Some(tokens.generation)
                        {
                            // Another process was quicker.
                            refused = true;
                            continue;
                        }
                        self.accounts.count(RefreshResult::Refused);
                        let reason = reason(&error, tokens, &self.accounts.renewals.me);
                        self.accounts.died(&account, tokens, reason).await;
                        return Err(CredentialError::SignInNeeded);
                    };
                    let error = self.accounts.refresh_failed(
                        &provider.name,
                        &self.address,
                        why,
                        retry_after,
                    );
                    return spare.ok_or(error).map(Some);
                }
            }
        }
        let reason = "other processes keep changing the account";
        Err(CredentialError::Temporary(reason.to_owned()))
    }

    /// The account as it is stored now.
    async fn account(&self) -> Result<Account, CredentialError> {
        let found = self.accounts.find(&self.address).await?;
        let account = found.ok_or_else(|| AccountsError::Missing(self.address.clone()))?;
        if account.disabled {
            return Err(CredentialError::Disabled);
        }
        Ok(account)
    }

    /// The access token, and what renews it.
    fn opened(&self, account: &Account) -> Result<(Secret, Option<Secret>), CredentialError> {
        let opened = self.accounts.open_credential(account, &self.opener);
        match opened.map_err(AccountsError::from)? {
            OpenedCredential::OAuth { access, refresh } => Ok((access, refresh)),
            _ => Err(changed()),
        }
    }

    /// Whether nothing has to be asked for.
    fn is_met(&self, account: &Account, tokens: &SealedTokens, access: &Secret) -> bool {
        match &self.need {
            Need::Used => now().saturating_sub(tokens.refreshed) < IDLE,
            _ if account.trouble.is_some() => false,
            Need::Fresh => !tokens.is_due(now()),
            Need::Other(_) => self.is_other(access),
            Need::Cured => true,
        }
    }

    /// Not the token that the upstream has refused.
    fn is_other(&self, access: &Secret) -> bool {
        !matches!(&self.need, Need::Other(refused) if refused == access)
    }

    /// Whether the token that is stored does for a while yet.
    fn is_spare(&self, account: &Account, tokens: &SealedTokens) -> bool {
        matches!(self.need, Need::Fresh)
            && account.trouble.is_none()
            && tokens.expires_at > now() + LAST
    }

    /// Whether another process is asking now.
    fn is_claimed(&self, tokens: &SealedTokens) -> bool {
        let renewals = &self.accounts.renewals;
        let Some(claim) = tokens.claim.as_ref().filter(|it| it.by != renewals.me) else {
            return false;
        };
        let is_recent = (now_in_milliseconds() - claim.since).abs() < CLAIMED;
        match self.accounts.access {
            // Whoever had the store before is gone.
            Access::Local(_) => is_recent && claim.since > renewals.started,
            Access::Remote(_) | Access::Brief(_) => is_recent,
        }
    }

    /// Says durably that this process is asking. `false`: the account was changed
    /// meanwhile.
    async fn claim(
        &self,
        account: &Account,
        tokens: &SealedTokens,
        refresh: &Secret,
    ) -> Result<bool, AccountsError> {
        // What comes could not be kept otherwise, or not be opened.
        self.accounts.may_seal().await?;
        let same = PlainTokens {
            refresh: Some(refresh.clone()),
            access: refresh.clone(),
            expires_at: tokens.expires_at,
            signed_in: tokens.signed_in,
            refreshed: tokens.refreshed,
        };
        self.accounts.set_tokens(&mut account.clone(), &same)?;
        let mut claimed = account.clone();
        claimed.credential = Credential::OAuth(SealedTokens {
            claim: Some(Claim {
                by: self.accounts.renewals.me.clone(),
                since: now_in_milliseconds(),
            }),
            ..tokens.clone()
        });
        match self.accounts.save(&mut claimed).await {
            Ok(()) => Ok(true),
            Err(AccountsError::Changed(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `there`: the access token that is stored.
    async fn ask(
        &self,
        provider: &Provider,
        there: Secret,
        refresh: Secret,
        tokens: &SealedTokens,
    ) -> Result<Unstored, Unanswered> {
        let Entry::OAuth(client) = &provider.entry else {
            let error = TokenError::Misconfigured("not an OAuth provider".into());
            return Err(Unanswered {
                error,
                rotated: None,
            });
        };
        let got = |access: Secret, expires_at: i64, refresh: Secret| Unstored {
            replaced: tokens.refreshed,
            tokens: PlainTokens {
                refresh: Some(refresh),
                access,
                expires_at,
                signed_in: tokens.signed_in,
                refreshed: now(),
            },
            told: false,
        };
        let Tokens {
            access,
            expires_at,
            refresh: rotated,
            identity: _,
        } = match client.refresh(&refresh).await {
            Ok(tokens) => tokens,
            Err(failed) => {
                let rotated = failed.refresh.filter(|it| *it != refresh);
                return Err(Unanswered {
                    error: failed.error,
                    rotated: rotated.map(|it| got(there, tokens.expires_at, it)),
                });
            }
        };
        self.accounts
            .renewals
            .pauses
            .answered(&provider.name, &self.address);
        self.accounts.count(RefreshResult::Renewed);
        debug!(
            account = self.address.as_str(),
            provider = provider.name.as_str(),
            expires_at,
            rotated = rotated.is_some(),
            "tokens renewed"
        );
        Ok(got(access, expires_at, rotated.unwrap_or(refresh)))
    }
}

/// The provider gave no access token.
struct Unanswered {
    error: TokenError,
    /// The tokens that are stored, with a new refresh token that came all the same.
    rotated: Option<Unstored>,
}

impl Account {
    fn credential_generation(&self) -> Option<u64> {
        match &self.credential {
            Credential::OAuth(tokens) => Some(tokens.generation),
            _ => None,
        }
    }
}

fn cannot_store(error: &AccountsError) -> CredentialError {
    CredentialError::Temporary(format!("tokens cannot be stored: {error}"))
}

/// Why the provider gives no more tokens, as far as is known.
fn reason(error: &TokenError, tokens: &SealedTokens, me: &str) -> String {
    let was_cut = tokens
        .claim
        .as_ref()
        .is_some_and(|claim| claim.by != me && claim.since / 1000 >= tokens.refreshed);
    let more = if was_cut {
        " (popgate ended while it renewed these tokens: the new ones may have been lost)"
    } else {
        ""
    };
    format!("{error}{more}")
}
