//! What goes on while nobody logs in: tokens that would die of idleness are
//! renewed, those that could not be stored are, the state of all is counted, and
//! the death of one is told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::alarm::{Event, Message};
use super::renewal::{IDLE, Need, name_of};
use super::{Account, Accounts, AccountsError, Credential, Opener, Trouble, now};
use crate::metrics::{AlarmResult, TokenState};

/// Between two looks at all accounts.
const LOOK: Duration = Duration::from_secs(60);
/// The least time between them.
const BREATH: Duration = Duration::from_millis(100);
/// While there are tokens that could not be stored.
const STORE: Duration = Duration::from_secs(5);
/// Between two rounds of renewals.
const ROUND: Duration = Duration::from_secs(600);
/// Renewals at once that nobody waits for.
const RENEWALS: usize = 2;
/// Alarms at once.
const ALARMS: usize = 4;
/// Whom nobody could be told about is tried again after so long.
const AGAIN: Duration = Duration::from_secs(600);
/// Over so many seconds the renewals of idle tokens are spread.
const SPREAD: i64 = 24 * 3600;
/// Tokens that end within so many seconds, and are not renewed, are expiring.
const SOON: i64 = 7 * 24 * 3600;
/// Seconds after which the provider is asked once more about a dead account.
const MERCY: i64 = 24 * 3600;
/// How long requests under way are waited for when popgate ends.
const FAREWELL: Duration = Duration::from_secs(10);

impl Accounts {
    /// Watches the accounts until `shutdown`; then waits, not for long, until
    /// tokens on their way are stored.
    pub async fn run(&self, shutdown: CancellationToken) {
        self.tell_of_missing_keys().await;
        tokio::join!(self.look(&shutdown), self.renew_idle(&shutdown));
        self.renewals.running.close();
        if timeout(FAREWELL, self.renewals.running.wait())
            .await
            .is_err()
        {
            warn!("a request for tokens did not end in time");
        }
        let lost = self.store_again().await;
        if lost > 0 {
            error!(
                accounts = lost,
                "NEW TOKENS ARE LOST: they could not be stored; somebody may have to sign in again"
            );
        }
    }

    async fn look(&self, shutdown: &CancellationToken) {
        let mut alarms = Alarms::default();
        let mut telling = JoinSet::new();
        loop {
            let unstored = self.store_again().await;
            match self.readable().await {
                Ok((all, unreadable)) => {
                    self.measure(&all, unreadable);
                    alarms.compare(&all, self.config.alarm.sign_in.as_ref());
                    if !self.config.alarm.is_set() {
                        alarms.waiting.clear();
                    }
                }
                Err(error) => warn!(%error, "the accounts cannot be looked at"),
            }
            while telling.len() < ALARMS
                && let Some(message) = alarms.next()
            {
                telling.spawn(self.clone().tell(message));
            }
            let pause = if unstored > 0 { STORE } else { LOOK };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.renewals.news.notified() => {}
                Some(ended) = telling.join_next() => {
                    if let Ok((message, is_told)) = ended {
                        alarms.ended(&message, is_told);
                    }
                }
                () = sleep(pause) => {}
            }
            sleep(BREATH).await;
        }
    }

    /// Tells of a death or a cure, and notes that it is known.
    async fn tell(self, message: Message) -> (Message, bool) {
        let called = self.config.alarm.tell(&message).await;
        for knows in called.each() {
            let result = match knows {
                true => AlarmResult::Told,
                false => AlarmResult::Failed,
            };
            self.metrics.token_alarms.get_or_create(&result).inc();
        }
        let told = called.is_known();
        if told && message.event == Event::SignInNeeded {
            let noted = self
                .change(&message.address, |row| match &mut row.trouble {
                    Some(trouble) if trouble.since == message.since => trouble.told = true,
                    _ => {}
                })
                .await;
            if let Err(error) = noted {
                debug!(account = message.address.as_str(), %error, "it may be told again");
            }
        }
        (message, told)
    }

    /// All accounts that can be read, and how many cannot: one that is damaged is
    /// no reason to leave the others alone.
    async fn readable(&self) -> Result<(Vec<Account>, i64), AccountsError> {
        let mut all = Vec::new();
        let mut unreadable = 0;
        for (address, row) in self.access.accounts().await? {
            match super::account(address, &row) {
                Ok(account) => all.push(account),
                Err(_) => unreadable += 1,
            }
        }
        Ok((all, unreadable))
    }

    /// What `/metrics` says of all accounts.
    fn measure(&self, all: &[Account], unreadable: i64) {
        let now = now();
        let mut states = HashMap::from([(TokenState::Unreadable, unreadable)]);
        let (mut oldest, mut next) = (None::<i64>, None::<i64>);
        for account in all {
            *states.entry(self.token_state(account, now)).or_default() += 1;
            if let Credential::OAuth(tokens) = &account.credential
                && !account.disabled
            {
                oldest = Some(oldest.map_or(tokens.signed_in, |it| it.min(tokens.signed_in)));
                if tokens.expires_at > now && account.trouble.is_none() {
                    next = Some(next.map_or(tokens.expires_at, |it| it.min(tokens.expires_at)));
                }
            }
        }
        for state in TokenState::ALL {
            let count = states.get(state).copied().unwrap_or_default();
            self.metrics.token_state.get_or_create(state).set(count);
        }
        self.metrics
            .token_oldest_sign_in
            .set(oldest.unwrap_or_default());
        self.metrics.token_next_expiry.set(next.unwrap_or_default());
    }

    /// How an account's credentials are, and whether there is a key that opens them.
    fn token_state(&self, account: &Account, now: i64) -> TokenState {
        match account.token_state(now) {
            TokenState::Disabled => TokenState::Disabled,
            _ if !self.missing_keys_of(account).is_empty() => TokenState::Unreadable,
            state => state,
        }
    }

    async fn renew_idle(&self, shutdown: &CancellationToken) {
        let mut last = now();
        loop {
            // Not all gateways of a site at once, and not at their start.
            let pause = ROUND / 2 + ROUND.mul_f64(chance());
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(pause) => {}
            }
            let now = now();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.renew_due(last, now) => {}
            }
            last = now;
        }
    }

    /// Renews what is due now and was not at the `last` look.
    async fn renew_due(&self, last: i64, now: i64) {
        let Ok((all, _)) = self.readable().await else {
            // It was said at the look for the metrics.
            return;
        };
        let due = all.iter().filter_map(|account| {
            let need = account.idle_need(last, now)?;
            Some((account.address.clone(), need))
        });
        futures_util::stream::iter(due.collect::<Vec<_>>())
            .for_each_concurrent(RENEWALS, |(address, need)| async move {
                // What goes wrong is logged and counted there.
                let _ = self.renewed(&address, &Opener::default(), need).await;
            })
            .await;
    }
}

impl Account {
    /// How its credentials are.
    pub fn token_state(&self, now: i64) -> TokenState {
        if self.disabled {
            return TokenState::Disabled;
        }
        if self.trouble.is_some() {
            return TokenState::Refused;
        }
        match &self.credential {
            Credential::Provider => TokenState::Provider,
            Credential::OAuth(tokens) => {
                let lasts = match &tokens.refresh {
                    None => tokens.expires_at.saturating_sub(now) > SOON,
                    // It should have been renewed by now.
                    Some(_) => {
                        self.lock.is_some()
                            || now.saturating_sub(tokens.refreshed) < IDLE + 2 * SPREAD
                    }
                };
                match (lasts, &self.lock) {
                    (false, _) => TokenState::Expiring,
                    (true, Some(_)) => TokenState::Locked,
                    (true, None) => TokenState::Ok,
                }
            }
            Credential::Password(_) | Credential::ApiToken(_) if self.lock.is_some() => {
                TokenState::Locked
            }
            Credential::Password(_) | Credential::ApiToken(_) => TokenState::Ok,
        }
    }

    /// What is to be done for its tokens while nobody logs in. `last`: the time of
    /// the last look.
    fn idle_need(&self, last: i64, now: i64) -> Option<Need> {
        let Credential::OAuth(tokens) = &self.credential else {
            return None;
        };
        if self.disabled || self.lock.is_some() || tokens.refresh.is_none() {
            return None;
        }
        match &self.trouble {
            Some(Trouble { since, .. }) => {
                // Once a day, at the time of its death, whenever popgate started.
                let days = |time: i64| time.saturating_sub(*since).div_euclid(MERCY);
                (days(now) > days(last).max(0)).then_some(Need::Cured)
            }
            None => {
                let mut hash = DefaultHasher::new();
                self.address.hash(&mut hash);
                let spread = i64::try_from(hash.finish() % SPREAD.unsigned_abs()).unwrap_or(0);
                let idle = now.saturating_sub(tokens.refreshed);
                (idle >= IDLE + spread).then_some(Need::Used)
            }
        }
    }
}

/// Who is dead, and who has to be told of it.
#[derive(Debug, Default)]
struct Alarms {
    dead: HashMap<String, Dead>,
    waiting: VecDeque<Message>,
    /// Of whom somebody is being told now: one thing after the other.
    telling: HashSet<String>,
}

#[derive(Debug)]
struct Dead {
    known: Known,
    /// Of the death.
    message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Somebody knows, or is about to.
    Yes,
    /// It was tried in vain, so long ago.
    No(Instant),
}

impl Alarms {
    /// Finds deaths that nobody knows of, and cures.
    fn compare(&mut self, all: &[Account], sign_in: Option<&url::Url>) {
        let mut dead = HashMap::new();
        for account in all.iter().filter(|it| !it.disabled) {
            let before = self.dead.remove(&account.address);
            let Some(trouble) = &account.trouble else {
                if let Some(before) = before.filter(|it| it.known == Known::Yes) {
                    self.waiting.push_back(Message {
                        event: Event::Cured,
                        ..before.message
                    });
                }
                continue;
            };
            let before = before.filter(|it| it.message.since == trouble.since);
            let again = match &before {
                Some(before) => {
                    matches!(before.known, Known::No(tried) if tried.elapsed() >= AGAIN)
                }
                None => !trouble.told,
            };
            let mut now_dead = before.unwrap_or_else(|| Dead {
                known: Known::Yes,
                message: Message {
                    event: Event::SignInNeeded,
                    address: account.address.clone(),
                    delegate: account.delegate.clone(),
                    provider: name_of(&account.home).to_owned(),
                    since: trouble.since,
                    reason: trouble.reason.clone(),
                    sign_in: sign_in.cloned(),
                },
            });
            if again {
                now_dead.known = Known::Yes;
                self.waiting.push_back(now_dead.message.clone());
            }
            dead.insert(account.address.clone(), now_dead);
        }
        // Whoever is left was removed, or shut.
        self.dead = dead;
    }

    /// What is to be told next.
    fn next(&mut self) -> Option<Message> {
        let is_free = |message: &Message| !self.telling.contains(&message.address);
        let message = self.waiting.iter().position(is_free)?;
        let message = self.waiting.remove(message)?;
        self.telling.insert(message.address.clone());
        Some(message)
    }

    /// Somebody was told, or could not be.
    fn ended(&mut self, message: &Message, is_told: bool) {
        self.telling.remove(&message.address);
        // Of the next death nothing was told yet.
        if let Some(dead) = self.dead.get_mut(&message.address)
            && dead.message == *message
            && !is_told
        {
            dead.known = Known::No(Instant::now());
        }
    }
}

/// Between 0 and 1.
fn chance() -> f64 {
    let mut octets = [0; 4];
    // Where there are no random numbers, nothing is spread.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut octets);
    f64::from(u32::from_ne_bytes(octets)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
