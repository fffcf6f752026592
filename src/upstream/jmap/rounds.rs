//! Round trips, counted by what waits for what.

use std::sync::atomic::{AtomicU64, Ordering};

/// The longest chain of requests of a session of which each was sent after the
/// one before it had been answered: as many times the distance to the server
/// was waited for. Requests that are under way together count once.
#[derive(Debug, Default)]
pub(super) struct Rounds(AtomicU64);

impl Rounds {
    /// A request is sent. Returns what [`Rounds::answered`] wants to know.
    pub fn sent(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The answer to a request begins to come.
    pub fn answered(&self, sent: u64) {
        self.0.fetch_max(sent + 1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_together_counts_once() {
        let rounds = Rounds::default();
        let first = rounds.sent();
        rounds.answered(first);
        let (one, other) = (rounds.sent(), rounds.sent());
        rounds.answered(one);
        let next = rounds.sent();
        rounds.answered(other);
        assert_eq!(rounds.count(), 2);
        rounds.answered(next);
        assert_eq!(rounds.count(), 3);
    }
}
