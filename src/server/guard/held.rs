//! Connections that wait for the answer to a wrong guess. Where there is no room for
//! another connection, they are the ones that make it: a flood of guesses does not keep
//! others from the door.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// All that wait, in the order in which they began to.
#[derive(Debug, Default)]
pub(in crate::server) struct HeldUp(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    all: BTreeMap<u64, CancellationToken>,
    next: u64,
}

/// One that waits, until dropped.
#[derive(Debug)]
pub(in crate::server) struct Held<'a> {
    held_up: &'a HeldUp,
    number: u64,
    gives_way: CancellationToken,
}

impl HeldUp {
    /// Another one that waits.
    pub fn enter(&self) -> Held<'_> {
        let mut waiting = self.waiting();
        let number = waiting.next;
        waiting.next += 1;
        let gives_way = CancellationToken::new();
        waiting.all.insert(number, gives_way.clone());
        Held {
            held_up: self,
            number,
            gives_way,
        }
    }

    /// Has the one give way that has waited longest; `false`: there is none.
    pub fn make_room(&self) -> bool {
        let first = self.waiting().all.pop_first();
        if let Some((_, first)) = &first {
            first.cancel();
        }
        first.is_some()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held<'_> {
    /// Cancelled when it has to give way.
    pub fn gives_way(&self) -> &CancellationToken {
        &self.gives_way
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.held_up.waiting().all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_waited_longest_gives_way() {
        let held_up = HeldUp::default();
        assert!(!held_up.make_room());
        let (first, second) = (held_up.enter(), held_up.enter());
        assert!(held_up.make_room());
        assert!(first.gives_way().is_cancelled() && !second.gives_way().is_cancelled());
        drop(second);
        // Neither is there any more.
        assert!(!held_up.make_room());
    }
}
