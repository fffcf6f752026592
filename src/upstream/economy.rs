//! What is spent to save round trips: connections that rest between sessions,
//! and messages that are fetched before they are asked for.

use std::time::Duration;

/// How much may be spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Economy {
    /// On connections between sessions.
    pub rest: Rest,
    /// On messages ahead.
    pub read_ahead: ReadAhead,
}

/// Connections that rest after a session, for the next login with the same
/// credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The longest rest; zero: none. How long one rests follows the account's own
    /// poll interval, up to this.
    pub longest: Duration,
    /// Connections that rest at once. Those least recently used go first.
    pub most: usize,
    /// Of these, for one account.
    pub per_account: usize,
}

impl Rest {
    /// Of the descriptors that the process may have, no more than one in so many
    /// is for connections at rest.
    pub const SHARE: u64 = 8;

    /// No more than the process may have descriptors for, beside all else.
    pub fn as_descriptors_allow(self) -> Self {
        self.within(rustix::process::getrlimit(rustix::process::Resource::Nofile).current)
    }

    fn within(self, descriptors: Option<u64>) -> Self {
        let share = descriptors.and_then(|it| usize::try_from(it / Self::SHARE).ok());
        Self {
            most: self.most.min(share.unwrap_or(usize::MAX)),
            ..self
        }
    }

    /// None rests.
    pub const OFF: Self = Self {
        longest: Duration::ZERO,
        most: 0,
        per_account: 0,
    };
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            longest: Duration::from_secs(15 * 60),
            most: 1000,
            per_account: 4,
        }
    }
}

/// Octets of messages that may be on their way before the client asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadAhead {
    /// For one session; zero: none.
    pub session: u64,
    /// For all sessions together.
    pub process: u64,
}

impl ReadAhead {
    /// Nothing is read ahead.
    pub const OFF: Self = Self {
        session: 0,
        process: 0,
    };
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self {
            session: 4 * 1024 * 1024,
            process: 64 * 1024 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_at_rest_leave_descriptors_to_sessions() {
        let most = |descriptors| Rest::default().within(descriptors).most;
        assert_eq!(most(Some(1024)), 128);
        assert_eq!(most(Some(0)), 0);
        assert_eq!(most(Some(1 << 20)), 1000);
        assert_eq!(most(None), 1000);
    }
}
