//! What a client gets to see of a mailbox, and what it can do to it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{FolderName, UniqueIdFormat};

/// The policies of one login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The folders that make up the maildrop, in this order. At least one.
    pub folders: Vec<FolderName>,
    /// Whose mailbox it is, where another user shares it with this one.
    pub shared: Option<String>,
    /// What DELE and QUIT do.
    pub delete: DeletePolicy,
    /// When messages are marked as read.
    pub seen: SeenPolicy,
    /// Which messages are shown.
    pub window: Window,
    /// Messages that were retrieved so long ago are moved to the Trash at QUIT.
    pub expire_after: Option<Duration>,
    /// How unique ids are made; `None`: as suits the upstream best.
    pub unique_ids: Option<UniqueIdFormat>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            folders: vec![FolderName::inbox()],
            shared: None,
            delete: DeletePolicy::default(),
            seen: SeenPolicy::default(),
            window: Window::default(),
            expire_after: None,
            unique_ids: None,
        }
    }
}

impl Policy {
    /// Nothing upstream is changed: for those who only look.
    pub fn read_only(self) -> Self {
        Self {
            delete: DeletePolicy::Refuse,
            seen: SeenPolicy::Never,
            expire_after: None,
            ..self
        }
    }

    /// Whether a session under these policies may change the upstream mailbox.
    /// `hide` may, where it has a keyword for it.
    pub fn writes(&self) -> bool {
        self.delete.writes() || self.seen != SeenPolicy::Never || self.expire_after.is_some()
    }

    /// Whether something follows from it that a message was delivered.
    pub fn heeds_deliveries(&self) -> bool {
        self.seen != SeenPolicy::Never || self.expire_after.is_some()
    }

    /// Whether the time at which messages arrived decides what is shown.
    pub fn needs_arrival(&self) -> bool {
        self.window.max_age.is_some()
            || (self.window.max_messages.is_some() && self.folders.len() > 1)
    }
}

/// What DELE followed by QUIT does to a message upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeletePolicy {
    /// Not configured: `trash` where the upstream has a Trash, else `expunge`.
    #[default]
    TrashIfThere,
    /// Moved to the upstream's Trash; a login is refused where there is none.
    Trash,
    /// Moved to the upstream's Archive; a login is refused where there is none.
    Archive,
    /// Moved to this folder; a login is refused where there is none.
    Move(FolderName),
    /// Removed for good.
    Expunge,
    /// Marked as read; it stays where it is, and in the maildrop.
    Seen,
    /// Stays upstream for everybody else, and is never shown to this POP3 login
    /// again.
    Hide,
    /// DELE is refused; nothing upstream is ever written.
    Refuse,
}

impl DeletePolicy {
    /// Whether a session under this policy may change the upstream mailbox.
    pub fn writes(&self) -> bool {
        *self != Self::Refuse
    }
}

/// `delete` names no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownPolicy {
    /// None that there is.
    #[error("expected one of: trash, expunge, archive, move:FOLDER, seen, hide, refuse")]
    Name,
    /// `move:` to what cannot be a folder.
    #[error("{0}")]
    Folder(#[from] super::FolderNameError),
}

impl FromStr for DeletePolicy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        if let Some(folder) = name.strip_prefix("move:") {
            return Ok(Self::Move(folder.parse()?));
        }
        match name {
            "trash" => Ok(Self::Trash),
            "archive" => Ok(Self::Archive),
            "expunge" => Ok(Self::Expunge),
            "seen" => Ok(Self::Seen),
            "hide" => Ok(Self::Hide),
            "refuse" => Ok(Self::Refuse),
            _ => Err(UnknownPolicy::Name),
        }
    }
}

impl fmt::Display for DeletePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TrashIfThere => "trash where there is one, else expunge",
            Self::Trash => "trash",
            Self::Archive => "archive",
            Self::Move(folder) => return write!(f, "move:{folder}"),
            Self::Expunge => "expunge",
            Self::Seen => "seen",
            Self::Hide => "hide",
            Self::Refuse => "refuse",
        })
    }
}

/// When a message that was retrieved is marked as read upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeenPolicy {
    /// Not at all.
    #[default]
    Never,
    /// When every octet of it was sent.
    OnRetr,
    /// At QUIT, if every octet of it was sent.
    OnQuit,
}

impl fmt::Display for SeenPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::OnRetr => "on-retr",
            Self::OnQuit => "on-quit",
        })
    }
}

/// `seen` names no policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: never, on-retr, on-quit")]
pub struct UnknownSeenPolicy;

impl FromStr for SeenPolicy {
    type Err = UnknownSeenPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownSeenPolicy> {
        match name {
            "never" => Ok(Self::Never),
            "on-retr" => Ok(Self::OnRetr),
            "on-quit" => Ok(Self::OnQuit),
            _ => Err(UnknownSeenPolicy),
        }
    }
}

/// Which messages of the folders are shown. What lies outside is neither shown
/// nor touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Those that arrived no longer ago.
    pub max_age: Option<Duration>,
    /// So many of those that arrived last.
    pub max_messages: Option<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_for_deleting() {
        for name in [
            "trash",
            "archive",
            "expunge",
            "seen",
            "hide",
            "refuse",
            "move:Old/POP3",
        ] {
            let policy: DeletePolicy = name.parse().unwrap();
            assert_eq!(policy.to_string(), name);
        }
        assert_eq!("Trash".parse::<DeletePolicy>(), Err(UnknownPolicy::Name));
        assert_eq!("move".parse::<DeletePolicy>(), Err(UnknownPolicy::Name));
        assert!(matches!(
            "move:".parse::<DeletePolicy>(),
            Err(UnknownPolicy::Folder(_))
        ));
    }

    #[test]
    fn policies_for_marking_as_read() {
        for name in ["never", "on-retr", "on-quit"] {
            assert_eq!(name.parse::<SeenPolicy>().unwrap().to_string(), name);
        }
        assert_eq!("on_quit".parse::<SeenPolicy>(), Err(UnknownSeenPolicy));
    }

    #[test]
    fn who_only_looks_writes_nothing() {
        assert!(Policy::default().writes());
        assert!(!Policy::default().read_only().writes());
        let marks = Policy {
            seen: SeenPolicy::OnRetr,
            ..Policy::default().read_only()
        };
        assert!(marks.writes());
    }
}
