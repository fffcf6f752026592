//! What a session asks of the upstream: parts of messages while it lasts, and
//! the removal of marked messages when it ends.

use std::collections::HashMap;

use super::MessageIndex;

/// How much of a message a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// RETR: every octet (RFC 1939 §5).
    Whole,
    /// TOP: the header, the blank line, and so many lines of the body
    /// (RFC 1939 §7).
    Top {
        /// Lines of the body, counted behind the blank line.
        lines: u64,
    },
}

/// The work of the UPDATE state (RFC 1939 §6): the messages that were marked
/// when QUIT came, and those that were retrieved. It exists only once QUIT was
/// given in TRANSACTION state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    delete: Vec<MessageIndex>,
    retrieved: Vec<MessageIndex>,
}

impl Update {
    /// An update that removes `delete`, in ascending order and without
    /// repetition.
    pub fn new(delete: Vec<MessageIndex>) -> Self {
        Self::with_retrieved(delete, Vec::new())
    }

    /// The same, when the messages `retrieved` were sent whole.
    pub fn with_retrieved(delete: Vec<MessageIndex>, retrieved: Vec<MessageIndex>) -> Self {
        let ascending = |mut messages: Vec<MessageIndex>| {
            messages.sort_unstable();
            messages.dedup();
            messages
        };
        Self {
            delete: ascending(delete),
            retrieved: ascending(retrieved),
        }
    }

    /// The messages to remove, ascending.
    pub fn delete(&self) -> &[MessageIndex] {
        &self.delete
    }

    /// Of the messages that were first retrieved at some time, in seconds since
    /// 1970, those for which that was at `oldest` or before, ascending. What is
    /// removed anyway is not among them.
    pub fn expired(
        &self,
        retrieved: &HashMap<MessageIndex, i64>,
        oldest: i64,
    ) -> Vec<MessageIndex> {
        let is_due = |(message, time): (&MessageIndex, &i64)| {
            let due = *time <= oldest && self.delete.binary_search(message).is_err();
            due.then_some(*message)
        };
        let mut expired: Vec<MessageIndex> = retrieved.iter().filter_map(is_due).collect();
        expired.sort_unstable();
        expired
    }

    /// The messages that were sent whole during the session, ascending.
    pub fn retrieved(&self) -> &[MessageIndex] {
        &self.retrieved
    }
}

/// What an update achieved, as verified upstream afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Gone from the mailbox.
    pub removed: Vec<MessageIndex>,
    /// Still there, or not known to be gone.
    pub remaining: Vec<MessageIndex>,
    /// Not deleted by the client, but moved to the Trash because they were
    /// retrieved long enough ago.
    pub expired: Vec<MessageIndex>,
}
