//! Who lets somebody in: popgate by a device password, an HTTP service, or the
//! upstream; and where that leads.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use super::account_entry::{Shut, Visit, maildrop_of, share, unusable};
use super::claim::{By, Claim, Unclear};
use super::guard::Guess;
use super::opening::{Entered, Opening, Refused, UpstreamConnection};
use super::policies::Login;
use super::record::shown;
use super::refusal;
use crate::accounts::{Accounts, AccountsError, Verdict};
use crate::metrics::LoginResult;
use crate::sasl::Credentials;
use crate::upstream::{UpstreamError, account_in};

/// While too many passwords are being compared: between two tries of somebody who is
/// known, how long he tries, and how long the answer to others waits.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
const BUSY_PATIENCE: Duration = Duration::from_secs(30);
const BUSY_DELAY: Duration = Duration::from_secs(2);

/// A claim that is being judged.
pub(super) struct Case<'a> {
    /// As the client wrote it.
    pub user: &'a str,
    pub claim: Claim,
    pub guess: Guess<'a>,
    /// When it was begun to be judged.
    pub began: Instant,
}

impl Opening {
    /// Opens the door of the mailbox that somebody asks for, or says why not.
    pub(super) async fn enter(
        &self,
        user: &str,
        credentials: &Credentials,
        claimed: Result<Claim, Unclear>,
    ) -> Result<Entered, Refused> {
        let guard = &self.context.guard;
        let is_no_guess = claimed.as_ref().is_ok_and(|claim| claim.is_no_guess);
        // The same password for another folder is no other guess.
        let shown = match &claimed {
            Ok(claim) => guard.digest(&claim.credentials),
            Err(_) => guard.digest(credentials),
        };
        let Some(guess) = guard.guess(self.client, shown, is_no_guess).await else {
            self.log(user, format_args!("too many logins from there have failed"));
            self.count(LoginResult::Crowded);
            return Err(refusal::crowded().into());
        };
        let began = Instant::now();
        let claim = match claimed {
            Ok(claim) => claim,
            // Whoever the user is: this says nothing about him.
            Err(Unclear::Folder(error)) => {
                self.log(user, format_args!("{error}"));
                self.count(LoginResult::NoFolder);
                let delay = guess.failed(guard.user(user));
                return Err(Refused {
                    refusal: refusal::folder(error),
                    not_before: Some(began + delay),
                });
            }
            Err(Unclear::Accounts(error)) => {
                return Err(self.failed(user, "accounts", &unusable(&error)));
            }
        };
        let case = Case {
            user,
            claim,
            guess,
            began,
        };
        match case.claim.judge.clone() {
            By::Account { address, as_whom } => {
                self.by_account(case, &address, as_whom.as_deref()).await
            }
            By::Upstream(login) => self.pass_on(case, &login).await,
            By::Http(login) => self.by_http(case, &login).await,
            By::Nobody(_) => self.by_nobody(case).await,
        }
    }

    /// There is no such user. It takes as long to say so as if there were.
    async fn by_nobody(&self, case: Case<'_>) -> Result<Entered, Refused> {
        if let (Some(accounts), Credentials::Password { user, .. }) =
            (&self.context.accounts, &case.claim.credentials)
        {
            // Whatever it says: nobody can log in so.
            self.compare(accounts, &case, user, None).await?;
        }
        self.log(case.user, format_args!("no such user, or no such way in"));
        self.count(LoginResult::Refused);
        Err(self.wrong(case).await)
    }

    /// A device password decides, or a master's; then the account's own credentials
    /// open the mailbox.
    async fn by_account(
        &self,
        case: Case<'_>,
        address: &str,
        as_whom: Option<&str>,
    ) -> Result<Entered, Refused> {
        let context = &self.context;
        let (user, policies) = (case.user, &context.config.policies);
        let Some(accounts) = &context.accounts else {
            return self.by_nobody(case).await;
        };
        let admitted = match self.compare(accounts, &case, address, as_whom).await? {
            Verdict::Admitted(admitted) => admitted,
            Verdict::Unknown | Verdict::Refused => {
                self.log(user, format_args!("the password is none of the account's"));
                self.count(LoginResult::Refused);
                return Err(self.wrong(case).await);
            }
        };
        case.guess.succeeded();
        accounts.used(address, &admitted);
        let account = &admitted.account;
        if account.disabled {
            self.log(user, format_args!("the account is disabled"));
            self.count(LoginResult::Failed);
            return Err(refusal::disabled().into());
        }
        let (mut rules, terms, _) = match policies.of_account(account, &case.claim.asked) {
            Ok(found) => found,
            Err(problem) => {
                error!(
                    user = shown(user),
                    account = shown(&account.address),
                    "the account's rules cannot be read: {}",
                    shown(&problem.to_string())
                );
                self.count(LoginResult::Failed);
                return Err(refusal::unreadable_rules().into());
            }
        };
        let upstream = context
            .upstream_of(&account.home)
            .map_err(|error| self.failed(user, "accounts", &error))?;
        share(upstream.as_ref(), account, &mut rules.policy);
        let guard = &context.guard;
        let mailbox = account.mailbox().to_owned();
        let maildrop = account_in(upstream.realm(), &mailbox);
        let maildrop = guard.maildrop(&maildrop, &rules.policy.folders);
        if let Some(wait) = context.delays.early(maildrop) {
            return Err(self.early(user, wait));
        }
        let visit = Visit {
            user,
            accounts,
            admitted: &admitted,
            upstream: &upstream,
            policy: &rules.policy,
        };
        let upstream = match self.enter_account(&visit).await {
            Ok(session) => {
                let upstream = Arc::clone(&upstream);
                let policy = &rules.policy;
                let mut upstream = UpstreamConnection::new(context, upstream, session, policy);
                let is_kept = context.config.notice;
                upstream.listing =
                    is_kept.then(|| maildrop_of(account, visit.upstream.realm(), policy));
                upstream
            }
            Err(Shut::Dead) => match self.notice(&visit).await {
                Some(notice) => notice,
                None => {
                    let link = accounts.config().alarm.sign_in.as_ref();
                    return Err(refusal::sign_in(link).into());
                }
            },
            Err(Shut::Refused(refused)) => return Err(refused),
        };
        Ok(Entered {
            upstream,
            rules,
            terms,
            mailbox,
            maildrop,
            credentials: guard.digest(&case.claim.credentials),
        })
    }

    /// The upstream decides: the credentials go there as they are.
    async fn pass_on(&self, case: Case<'_>, login: &Login) -> Result<Entered, Refused> {
        let context = &self.context;
        let (user, guard) = (case.user, &context.guard);
        let upstream = context
            .upstream_of(&login.home)
            .map_err(|error| self.failed(user, "none", &error))?;
        let credentials = case.claim.credentials.clone();
        let (rules, terms, _) = context.config.policies.of_anybody(&case.claim.asked);
        let policy = &rules.policy;
        let digest = guard.digest_in(upstream.realm(), &credentials);
        let mailbox = credentials.mailbox().to_owned();
        let maildrop = account_in(upstream.realm(), &mailbox);
        let maildrop = guard.maildrop(&maildrop, &policy.folders);
        if let Some(wait) = context.delays.early_again(maildrop, digest) {
            return Err(self.early(user, wait));
        }
        let Some(attempt) = guard.attempt(digest, None).await else {
            self.log(user, format_args!("as by the upstream before"));
            self.count(LoginResult::Suppressed);
            return Err(self.wrong(case).await);
        };
        match upstream
            .login(credentials, self.client, Arc::clone(policy))
            .await
        {
            Ok(session) => {
                attempt.accepted();
                case.guess.succeeded();
                Ok(Entered {
                    upstream: UpstreamConnection::new(context, upstream, session, policy),
                    rules,
                    terms,
                    mailbox,
                    maildrop,
                    credentials: digest,
                })
            }
            Err(UpstreamError::Authentication) => {
                attempt.refused(None);
                self.failed(user, upstream.name(), &UpstreamError::Authentication);
                Err(self.wrong(case).await)
            }
            Err(error) => Err(self.failed(user, upstream.name(), &error)),
        }
    }

    /// Compares the password with those of an account. While too many are being
    /// compared, those that were good lately are waited for, and others are told to
    /// come again.
    async fn compare(
        &self,
        accounts: &Accounts,
        case: &Case<'_>,
        address: &str,
        as_whom: Option<&str>,
    ) -> Result<Verdict, Refused> {
        let Credentials::Password { password, .. } = &case.claim.credentials else {
            return Ok(Verdict::Refused);
        };
        loop {
            match accounts.authenticate(address, password, as_whom).await {
                Ok(verdict) => return Ok(verdict),
                Err(AccountsError::Busy)
                    if case.guess.is_proven() && case.began.elapsed() < BUSY_PATIENCE =>
                {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(error) => {
                    let is_busy = error == AccountsError::Busy;
                    let refused = self.failed(case.user, "accounts", &unusable(&error));
                    return Err(Refused {
                        not_before: is_busy.then(|| case.began + BUSY_DELAY),
                        ..refused
                    });
                }
            }
        }
    }

    /// The answer to wrong credentials, whoever found out: it leaves at a time that
    /// depends on what was guessed before, and not on whether there is such a user.
    pub(super) async fn wrong(&self, mut case: Case<'_>) -> Refused {
        let asked = Instant::now();
        if !case.guess.is_wrong().await {
            self.log(
                case.user,
                format_args!("too many logins from there have failed"),
            );
            self.count(LoginResult::Crowded);
            return refusal::crowded().into();
        }
        let began = case.began + asked.elapsed();
        let guesser = self.context.guard.user(case.claim.credentials.user());
        Refused {
            refusal: refusal::refusal(&UpstreamError::Authentication),
            not_before: Some(began + case.guess.failed(guesser)),
        }
    }
}
