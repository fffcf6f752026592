//! What stands between guesses and the passwords: delays after failures, a bound on
//! failures a minute, and a memory of what upstreams have refused.
//!
//! Nobody is banned. An answer to a failure waits; over the rate of a network the
//! next guess from there waits before it is judged. Whoever shows what was good
//! lately does neither: a flood of guesses does not shut the owner out.

use std::net::IpAddr;
use std::time::Duration;

use crate::maildrop::FolderName;
use crate::sasl::{Credentials, Digest, DigestKey};

mod breaker;
mod held;
pub(super) mod network;
mod penalty;
mod proven;
mod rate;

use super::config::Limits;
use breaker::Breakers;
pub(super) use breaker::{Attempt, State};
pub(super) use held::HeldUp;
use penalty::Penalties;
use proven::Proven;
use rate::{Leave, Rates};

/// Failed logins, by address, by user, by network and by what was refused upstream.
#[derive(Debug)]
pub(super) struct Guard {
    key: DigestKey,
    penalties: Penalties,
    rates: Rates,
    proven: Proven,
    breakers: Breakers,
}

/// A login that may be judged now.
#[derive(Debug)]
pub(super) struct Guess<'a> {
    guard: &'a Guard,
    client: IpAddr,
    credentials: Digest,
    is_proven: bool,
    /// `None`: it does not count for the networks, or not yet.
    leave: Option<Leave<'a>>,
    /// Should it be wrong, it counts all the same.
    owes_leave: bool,
}

impl Guess<'_> {
    /// Whether these credentials were good lately.
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// It was wrong. Whoever was judged without leave waits for it now, as long as he
    /// would have before if there were no such user; `false`: that is too long.
    pub async fn is_wrong(&mut self) -> bool {
        if self.owes_leave {
            self.owes_leave = false;
            self.leave = self.guard.rates.leave(self.client).await;
            return self.leave.is_some();
        }
        true
    }

    /// It was wrong: how long its answer is to wait, from when it was begun to be
    /// judged.
    pub fn failed(self, user: Digest) -> Duration {
        self.guard.proven.remove(self.credentials);
        let penalties = &self.guard.penalties;
        let penalty = penalties.failed(self.client, user, self.credentials);
        if let Some(leave) = self.leave
            && !penalty.is_repeated
        {
            leave.failed();
        }
        penalty.delay
    }

    /// It was right.
    pub fn succeeded(self) {
        self.guard.proven.add(self.credentials);
    }
}

impl Guard {
    /// A guard with these limits.
    pub fn new(limits: &Limits) -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            key: DigestKey::generate()?,
            penalties: Penalties::default(),
            rates: Rates::new(limits.failures_per_minute),
            proven: Proven::default(),
            breakers: Breakers::new(limits.upstream_refusals),
        })
    }

    /// The digest of credentials.
    pub fn digest(&self, credentials: &Credentials) -> Digest {
        self.key.credentials(credentials)
    }

    /// The digest of credentials that are passed on to a realm.
    pub fn digest_in(&self, realm: Option<&str>, credentials: &Credentials) -> Digest {
        match realm {
            Some(realm) => self.key.credentials_in(realm, credentials),
            None => self.key.credentials(credentials),
        }
    }

    /// The digest of a user, in any case of letters.
    pub fn user(&self, name: &str) -> Digest {
        self.key.fields(&["user", &name.to_lowercase()])
    }

    /// The digest of an account of popgate's own: of this one, should there be
    /// another of the same name some day.
    pub fn account(&self, address: &str, created: i64) -> Digest {
        self.key.fields(&["account", address, &created.to_string()])
    }

    /// The digest of a state of an account's credentials.
    pub fn state(&self, text: &str) -> Digest {
        self.key.fields(&["state", text])
    }

    /// The digest of a maildrop: a user, and the folders as they were asked
    /// for, in any case of letters.
    pub fn maildrop(&self, user: &str, folders: &[FolderName]) -> Digest {
        let user = user.to_lowercase();
        let folders: Vec<String> = folders
            .iter()
            .map(|it| it.as_str().to_lowercase())
            .collect();
        let mut fields = vec!["maildrop", user.as_str()];
        fields.extend(folders.iter().map(String::as_str));
        self.key.fields(&fields)
    }

    /// Waits until a login from there may be judged; `None`: there are too many that
    /// wait. `is_no_guess`: nobody comes to know of it what he does not know.
    pub async fn guess(
        &self,
        client: IpAddr,
        credentials: Digest,
        is_no_guess: bool,
    ) -> Option<Guess<'_>> {
        // A front or a mail system on this host speaks for many.
        let is_proven = self.proven.has(credentials);
        let is_exempt = client.is_loopback() || is_proven;
        let is_free = is_exempt || is_no_guess;
        let leave = match is_free {
            true => None,
            false => Some(self.rates.leave(client).await?),
        };
        Some(Guess {
            guard: self,
            client,
            credentials,
            is_proven,
            leave,
            owes_leave: is_no_guess && !is_exempt,
        })
    }

    /// Leave to ask the upstream about credentials, or for an account in this
    /// `state`; `None` where it has refused them so often that it is not asked again
    /// for a while. Waits while other attempts could still make it so.
    pub async fn attempt(&self, digest: Digest, state: Option<State>) -> Option<Attempt<'_>> {
        self.breakers.attempt(digest, state, false).await
    }

    /// The same for what has come in the place of credentials that were refused.
    pub async fn attempt_with_newer(&self, digest: Digest, state: State) -> Option<Attempt<'_>> {
        self.breakers.attempt(digest, Some(state), true).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let limits = Limits {
            failures_per_minute: [1, 1, 1],
            ..Limits::default()
        };
        Guard::new(&limits).unwrap()
    }

    fn digest(guard: &Guard, password: &str) -> Digest {
        guard.digest(&Credentials::password("alice", password).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_owner_gets_through_a_flood() {
        let guard = guard();
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let (good, bad) = (digest(&guard, "good"), digest(&guard, "bad"));
        let alice = guard.user("Alice");
        guard.guess(client, good, false).await.unwrap().succeeded();
        let failed = guard.guess(client, bad, false).await.unwrap().failed(alice);
        assert_eq!(failed, Duration::from_secs(2));
        let began = tokio::time::Instant::now();
        guard.guess(client, good, false).await.unwrap().succeeded();
        guard.guess(client, bad, true).await.unwrap().succeeded();
        assert_eq!(began.elapsed(), Duration::ZERO);
        let other = digest(&guard, "other");
        let waits = guard.guess(client, other, false);
        let waits = tokio::time::timeout(Duration::from_secs(30), waits).await;
        assert!(waits.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_guess_waits_no_less_when_he_is_wrong() {
        let guard = guard();
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let alice = guard.user("alice");
        let mut waits = Vec::new();
        for (number, is_no_guess) in [true, false, true, false].into_iter().enumerate() {
            let began = tokio::time::Instant::now();
            let shown = digest(&guard, &number.to_string());
            let mut guess = guard.guess(client, shown, is_no_guess).await.unwrap();
            assert!(guess.is_wrong().await);
            guess.failed(alice);
            waits.push(began.elapsed().as_secs());
        }
        assert_eq!(waits[0], 0);
        assert!(
            waits[1..].iter().all(|it| (55..=60).contains(it)),
            "{waits:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_good_no_longer_is_a_guess_again() {
        let guard = guard();
        let client: IpAddr = "192.0.2.1".parse().unwrap();
        let (good, alice) = (digest(&guard, "good"), guard.user("alice"));
        guard.guess(client, good, false).await.unwrap().succeeded();
        guard
            .guess(client, good, false)
            .await
            .unwrap()
            .failed(alice);
        guard
            .guess(client, digest(&guard, "x"), false)
            .await
            .unwrap()
            .failed(alice);
        let waits = guard.guess(client, good, false);
        let waits = tokio::time::timeout(Duration::from_secs(30), waits).await;
        assert!(waits.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_waits_for_answers_only() {
        let guard = guard();
        let client: IpAddr = "127.0.0.1".parse().unwrap();
        let began = tokio::time::Instant::now();
        let mut delays = Vec::new();
        for number in 0..20 {
            let guess = digest(&guard, &format!("wrong {number}"));
            let guess = guard.guess(client, guess, false).await.unwrap();
            delays.push(guess.failed(guard.user("alice")).as_secs());
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(delays[..5], [2, 4, 8, 15, 15]);
    }

    #[test]
    fn maildrops_are_told_apart_by_user_and_folders() {
        let guard = guard();
        let maildrop = |user: &str, folders: &[&str]| {
            let folders: Vec<_> = folders.iter().map(|it| it.parse().unwrap()).collect();
            guard.maildrop(user, &folders)
        };
        let inbox = maildrop("alice", &["INBOX"]);
        assert_eq!(inbox, maildrop("Alice", &["Inbox"]));
        assert_ne!(inbox, maildrop("bob", &["INBOX"]));
        assert_ne!(inbox, maildrop("alice", &["Junk"]));
        assert_ne!(inbox, maildrop("alice", &["INBOX", "Junk"]));
    }

    #[test]
    fn credentials_are_told_apart_by_realm() {
        let guard = guard();
        let credentials = Credentials::password("info", "x").unwrap();
        let digests = [None, Some("imap a:993"), Some("imap b:993")]
            .map(|realm| guard.digest_in(realm, &credentials));
        assert_ne!(digests[0], digests[1]);
        assert_ne!(digests[1], digests[2]);
    }
}
