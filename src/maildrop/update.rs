//! What a session asks of the upstream: parts of messages while it lasts, and
//! the removal of marked messages when it ends.

use std::fmt;
use std::str::FromStr;

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

/// What DELE followed by QUIT does to a message upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletePolicy {
    /// Not configured: `trash` where the upstream has a Trash, else `expunge`.
    #[default]
    TrashIfThere,
    /// Moved to the upstream's Trash; a login is refused where there is none.
    Trash,
    /// Removed for good.
    Expunge,
    /// DELE is refused; nothing upstream is ever written.
    Refuse,
}

impl DeletePolicy {
    /// Whether a session under this policy may change the upstream mailbox.
    pub fn writes(self) -> bool {
        self != Self::Refuse
    }
}

/// `delete` names no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: trash, expunge, refuse")]
pub struct UnknownPolicy;

impl FromStr for DeletePolicy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        match name {
            "trash" => Ok(Self::Trash),
            "expunge" => Ok(Self::Expunge),
            "refuse" => Ok(Self::Refuse),
            _ => Err(UnknownPolicy),
        }
    }
}

impl fmt::Display for DeletePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TrashIfThere => "trash where there is one, else expunge",
            Self::Trash => "trash",
            Self::Expunge => "expunge",
            Self::Refuse => "refuse",
        })
    }
}

/// The work of the UPDATE state (RFC 1939 §6): the messages that were marked
/// when QUIT came. It exists only once QUIT was given in TRANSACTION state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    delete: Vec<MessageIndex>,
}

impl Update {
    /// An update that removes `delete`, in ascending order and without
    /// repetition.
    pub fn new(mut delete: Vec<MessageIndex>) -> Self {
        delete.sort_unstable();
        delete.dedup();
        Self { delete }
    }

    /// The messages to remove, ascending.
    pub fn delete(&self) -> &[MessageIndex] {
        &self.delete
    }

    /// Nothing was marked: the upstream is not touched.
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty()
    }
}

/// What an update achieved, as verified upstream afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Gone from the mailbox.
    pub removed: Vec<MessageIndex>,
    /// Still there, or not known to be gone.
    pub remaining: Vec<MessageIndex>,
}
