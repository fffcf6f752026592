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
