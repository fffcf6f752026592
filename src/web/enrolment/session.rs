//! Who has signed in, in which browser. All of it is in memory: a restart signs
//! everybody out.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use crate::secret::Secret;

/// Octets of an id.
const OCTETS: usize = 32;

/// A session ends when nothing was asked for so long.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// A session ends, whatever was asked.
const LONGEST: Duration = Duration::from_secs(8 * 60 * 60);

/// How long a new device's password may be shown or downloaded.
const FRESH: Duration = Duration::from_secs(10 * 60);

/// The system gives no random numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoRandom;

/// Names a browser: 256 bits at random, in its cookie. What is kept is a digest,
/// so that comparing tells nothing.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Id(Secret);

/// What an id, or a `state`, is kept as.
pub(super) type Digest = [u8; 32];

impl Id {
    pub(super) fn new() -> Result<Self, NoRandom> {
        let mut octets = [0; OCTETS];
        SystemRandom::new()
            .fill(&mut octets)
            .map_err(|_| NoRandom)?;
        Ok(Self(Secret::new(URL_SAFE_NO_PAD.encode(octets))))
    }

    /// As a browser sent it; `None`: it was never given out.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let octets = URL_SAFE_NO_PAD.decode(text).ok()?;
        (octets.len() == OCTETS).then(|| Self(text.into()))
    }

    pub(super) fn reveal(&self) -> &str {
        self.0.reveal()
    }

    pub(super) fn digest(&self) -> Digest {
        sha256(self.reveal().as_bytes())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id")
    }
}

/// SHA-256.
pub(super) fn sha256(octets: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, octets).as_ref());
    out
}

/// What is said once on the next page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    Renewed,
    DeviceRemoved,
    ShownOnce,
    DownloadedOnce,
    SwitchedOff,
    SwitchedOn,
}

impl Notice {
    /// The class of its colour.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::ShownOnce | Self::DownloadedOnce => "bad",
            _ => "good",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Renewed => {
                "Your mailbox is connected again. Your devices work on with the passwords they have."
            }
            Self::DeviceRemoved => "The device was removed. Its password no longer works.",
            Self::ShownOnce => {
                "The password was shown once, and cannot be shown again. If you did not note it, remove the device and add it anew."
            }
            Self::DownloadedOnce => {
                "The profile can be downloaded once, soon after the password was made. Remove the device and add it anew to get another."
            }
            Self::SwitchedOff => "The account is switched off.",
            Self::SwitchedOn => "The account is switched on again.",
        }
    }
}

/// The password of a device that was just made.
#[derive(Clone, Debug)]
pub(super) struct Fresh {
    /// The id of the device.
    pub(super) device: String,
    /// What its owner calls it.
    pub(super) name: String,
    pub(super) password: Secret,
    /// It was on the page.
    pub(super) shown: bool,
    made: Instant,
}

impl Fresh {
    pub(super) fn new(device: String, name: String, password: Secret) -> Self {
        Self {
            device,
            name,
            password,
            shown: false,
            made: Instant::now(),
        }
    }
}

/// Somebody who has signed in.
#[derive(Debug)]
pub(super) struct Session {
    /// The address of the account; empty for the operator.
    pub(super) account: String,
    pub(super) notice: Option<Notice>,
    fresh: Option<Fresh>,
    made: Instant,
    seen: Instant,
}

impl Session {
    /// The new device, while it may be looked at.
    pub(super) fn fresh(&mut self) -> Option<&mut Fresh> {
        let over = |fresh: &Fresh| fresh.made.elapsed() >= FRESH;
        if self.fresh.as_ref().is_some_and(over) {
            self.fresh = None;
        }
        self.fresh.as_mut()
    }

    /// From now on nobody sees it, or only the one given.
    pub(super) fn set_fresh(&mut self, fresh: Option<Fresh>) {
        self.fresh = fresh;
    }

    fn is_over(&self) -> bool {
        self.seen.elapsed() >= IDLE || self.made.elapsed() >= LONGEST
    }
}

/// Everybody who has signed in, by the digest of the id.
#[derive(Debug)]
pub(super) struct Sessions {
    most: usize,
    all: Mutex<HashMap<Digest, Session>>,
}

impl Sessions {
    /// Of more than `most`, those not seen for longest are signed out.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            all: Mutex::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Digest, Session>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs somebody in, under a new id; the one that the browser had is worth
    /// nothing any more.
    pub(super) fn open(&self, account: String, before: Option<&Id>) -> Result<Id, NoRandom> {
        let id = Id::new()?;
        let now = Instant::now();
        let session = Session {
            account,
            notice: None,
            fresh: None,
            made: now,
            seen: now,
        };
        let mut all = self.all();
        if let Some(before) = before {
            all.remove(&before.digest());
        }
        if all.len() >= self.most {
            all.retain(|_, session| !session.is_over());
        }
        while all.len() >= self.most {
            let oldest = all
                .iter()
                .min_by_key(|(_, session)| session.seen)
                .map(|(digest, _)| *digest);
            match oldest {
                Some(digest) => drop(all.remove(&digest)),
                None => break,
            }
        }
        all.insert(id.digest(), session);
        Ok(id)
    }

    /// Looks at a session, and counts it as used; `None`: it has ended.
    pub(super) fn with<T>(&self, id: &Id, look: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut all = self.all();
        let digest = id.digest();
        let session = all.get_mut(&digest)?;
        if session.is_over() {
            all.remove(&digest);
            return None;
        }
        session.seen = Instant::now();
        Some(look(session))
    }

    /// Signs out.
    pub(super) fn close(&self, id: &Id) {
        self.all().remove(&id.digest());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn account(sessions: &Sessions, id: &Id) -> Option<String> {
        sessions.with(id, |session| session.account.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_it_is_idle_and_when_it_is_old() {
        let sessions = Sessions::new(10);
        let (idle, busy) = (
            sessions.open("idle".into(), None).unwrap(),
            sessions.open("busy".into(), None).unwrap(),
        );
        let almost = IDLE - Duration::from_secs(1);
        for _ in 0..LONGEST.as_secs() / almost.as_secs() {
            tokio::time::advance(almost).await;
            assert_eq!(account(&sessions, &busy).as_deref(), Some("busy"));
        }
        assert_eq!(account(&sessions, &idle), None);
        tokio::time::advance(almost).await;
        assert_eq!(account(&sessions, &busy), None);
    }

    #[tokio::test(start_paused = true)]
    async fn signing_in_leaves_the_old_id_worthless() {
        let sessions = Sessions::new(10);
        let before = sessions.open("a".into(), None).unwrap();
        let after = sessions.open("b".into(), Some(&before)).unwrap();
        assert_eq!(account(&sessions, &before), None);
        assert_eq!(account(&sessions, &after).as_deref(), Some("b"));
        sessions.close(&after);
        assert_eq!(account(&sessions, &after), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_is_bounded_and_whoever_is_away_longest_goes() {
        let sessions = Sessions::new(2);
        let mut ids = Vec::new();
        for name in ["a", "b"] {
            ids.push(sessions.open(name.into(), None).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(account(&sessions, &ids[0]).is_some());
        ids.push(sessions.open("c".into(), None).unwrap());
        let left: Vec<_> = ids.iter().filter_map(|id| account(&sessions, id)).collect();
        assert_eq!(left, ["a", "c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_password_is_forgotten() {
        let sessions = Sessions::new(2);
        let id = sessions.open("a".into(), None).unwrap();
        let fresh = || Fresh::new("1".into(), "phone".into(), "secret".into());
        sessions.with(&id, |session| session.set_fresh(Some(fresh())));
        tokio::time::advance(FRESH - Duration::from_secs(1)).await;
        assert!(
            sessions
                .with(&id, |session| session.fresh().is_some())
                .unwrap()
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(
            sessions
                .with(&id, |session| session.fresh().is_none())
                .unwrap()
        );
    }

    #[test]
    fn ids_are_long_and_never_the_same() {
        let (one, other) = (Id::new().unwrap(), Id::new().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.reveal().len(), 43);
        assert_eq!(Id::parse(one.reveal()), Some(one));
        assert_eq!(Id::parse("AAAA"), None);
        assert_eq!(Id::parse(&"!".repeat(43)), None);
    }
}
