//! The names of folders, as people write them.

use std::fmt;
use std::str::FromStr;

/// The most octets of a folder's name.
const LONGEST: usize = 255;

/// A folder as a user name, `folders` or `move:` names it: UTF-8, its levels
/// separated by `/` or as the upstream does. It holds nothing that a protocol
/// could take for a pattern, for another level or for its own syntax.
///
/// A name is first looked for as it is. The names of special uses stand for
/// the folder with that use where there is no folder of that very name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FolderName(String);

/// What may not be the name of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FolderNameError {
    /// Nothing at all, or an empty level.
    #[error("a folder's name, and each of its levels, needs at least one character")]
    Empty,
    /// More than 255 octets.
    #[error("a folder's name has at most 255 octets")]
    TooLong,
    /// A control character, `*` or `%`.
    #[error("a folder's name holds no control characters, no * and no %")]
    Forbidden,
    /// `.` or `..` as a level.
    #[error("a folder's name has no level . or ..")]
    Dots,
}

/// What a folder is for (RFC 6154 §2; the roles of RFC 8621 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpecialUse {
    /// Every message there is.
    All,
    /// Kept out of the way.
    Archive,
    /// Being written.
    Drafts,
    /// Marked by the user.
    Flagged,
    /// Deemed to be spam.
    Junk,
    /// Sent by the user.
    Sent,
    /// Deleted, or about to be.
    Trash,
}

impl SpecialUse {
    /// Each of them.
    pub const ALL: [Self; 7] = [
        Self::All,
        Self::Archive,
        Self::Drafts,
        Self::Flagged,
        Self::Junk,
        Self::Sent,
        Self::Trash,
    ];

    /// The role of JMAP, in lower case; IMAP's attribute is the same word
    /// behind a backslash, in any case of letters.
    pub fn role(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Archive => "archive",
            Self::Drafts => "drafts",
            Self::Flagged => "flagged",
            Self::Junk => "junk",
            Self::Sent => "sent",
            Self::Trash => "trash",
        }
    }
}

impl FolderName {
    /// The inbox, whatever the upstream calls it.
    pub fn inbox() -> Self {
        Self("INBOX".to_owned())
    }

    /// Whether it is the inbox (RFC 3501 §5.1: in any case of letters).
    pub fn is_inbox(&self) -> bool {
        self.0.eq_ignore_ascii_case("INBOX")
    }

    /// The special use that it is the name of.
    pub fn special_use(&self) -> Option<SpecialUse> {
        SpecialUse::ALL
            .into_iter()
            .find(|it| self.0.eq_ignore_ascii_case(it.role()))
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its levels, where they are separated by `/`.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FolderName {
    type Err = FolderNameError;

    fn from_str(name: &str) -> Result<Self, FolderNameError> {
        if name.len() > LONGEST {
            return Err(FolderNameError::TooLong);
        }
        if name
            .chars()
            .any(|c| c.is_control() || matches!(c, '*' | '%'))
        {
            return Err(FolderNameError::Forbidden);
        }
        for level in name.split('/') {
            if level.trim().is_empty() {
                return Err(FolderNameError::Empty);
            }
            if matches!(level, "." | "..") {
                return Err(FolderNameError::Dots);
            }
        }
        // Where the upstream separates levels by dots, two of them enclose none.
        if name.contains("..") {
            return Err(FolderNameError::Dots);
        }
        Ok(Self(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders() {
        for name in [
            "INBOX",
            "Work/2024",
            "Entwürfe",
            "a.b",
            "日本語",
            "[Gmail]/All Mail",
        ] {
            assert_eq!(name.parse::<FolderName>().unwrap().as_str(), name);
        }
        for (name, error) in [
            ("", FolderNameError::Empty),
            (" ", FolderNameError::Empty),
            ("/etc", FolderNameError::Empty),
            ("Work//x", FolderNameError::Empty),
            ("Work/", FolderNameError::Empty),
            ("..", FolderNameError::Dots),
            ("a/../b", FolderNameError::Dots),
            ("a..b", FolderNameError::Dots),
            (".", FolderNameError::Dots),
            ("a*", FolderNameError::Forbidden),
            ("%", FolderNameError::Forbidden),
            ("a\rb", FolderNameError::Forbidden),
            ("a\0b", FolderNameError::Forbidden),
            ("a\u{85}b", FolderNameError::Forbidden),
        ] {
            assert_eq!(name.parse::<FolderName>(), Err(error), "{name:?}");
        }
        assert_eq!(
            "x".repeat(256).parse::<FolderName>(),
            Err(FolderNameError::TooLong)
        );
    }

    #[test]
    fn names_of_special_uses() {
        let special_use = |name: &str| name.parse::<FolderName>().unwrap().special_use();
        assert_eq!(special_use("archive"), Some(SpecialUse::Archive));
        assert_eq!(special_use("Junk"), Some(SpecialUse::Junk));
        assert_eq!(special_use("inbox"), None);
        assert_eq!(special_use("archives"), None);
        assert!("inbox".parse::<FolderName>().unwrap().is_inbox());
    }
}
