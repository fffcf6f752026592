//! Unique ids (RFC 1939 §7, UIDL).

use std::fmt;

use base64::Engine as _;
use ring::digest;

mod format;

pub use format::{Ingredient, Ingredients, UniqueIdFormat, UniqueIdFormatError};

/// A unique id: 1 to 70 octets in the range 0x21 to 0x7E (RFC 1939 §7).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UniqueId(String);

/// The most octets a unique id may have (RFC 1939 §7).
pub const MAX_OCTETS: usize = 70;

impl UniqueId {
    /// `text` as a unique id, where it is one.
    pub fn new(text: String) -> Option<Self> {
        fits(&text).then_some(Self(text))
    }

    /// `text` where it can be a unique id, else its SHA-256 in base64url (43
    /// octets): the same each time.
    pub fn of(text: String) -> Self {
        if fits(&text) {
            Self(text)
        } else {
            Self(hashed(&text))
        }
    }

    /// Another unique id made of this one by a suffix, for what would have the
    /// same otherwise.
    pub fn with_suffix(&self, suffix: &str) -> Self {
        let mut text = format!("{}{suffix}", self.0);
        if text.len() > MAX_OCTETS {
            text = format!("{}{suffix}", hashed(&self.0));
        }
        Self::of(text)
    }

    /// The octets as they go out.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn fits(text: &str) -> bool {
    (1..=MAX_OCTETS).contains(&text.len())
        && text.bytes().all(|octet| (0x21..=0x7e).contains(&octet))
}

/// SHA-256 in base64url.
fn hashed(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash)
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unique_id_may_be() {
        assert!(UniqueId::new("a".repeat(70)).is_some());
        assert!(UniqueId::new("a".repeat(71)).is_none());
        assert!(UniqueId::new(String::new()).is_none());
        assert!(UniqueId::new("a b".into()).is_none());
        assert!(UniqueId::new("ä".into()).is_none());
    }

    #[test]
    fn what_is_none_is_hashed() {
        assert_eq!(UniqueId::of("a".repeat(70)).as_str(), "a".repeat(70));
        let long = UniqueId::of("a".repeat(71));
        assert_eq!(long.as_str().len(), 43);
        assert_ne!(long, UniqueId::of("a".repeat(72)));
        assert_eq!(UniqueId::of("a b".into()), UniqueId::of("a b".into()));
    }

    #[test]
    fn suffixes_always_fit() {
        let id = |text: &str| UniqueId::new(text.to_owned()).unwrap();
        assert_eq!(id("abc").with_suffix("-2").as_str(), "abc-2");
        let long = id(&"a".repeat(69)).with_suffix("-2");
        assert!(long.as_str().len() <= MAX_OCTETS && long.as_str().ends_with("-2"));
        assert_ne!(long, id(&"a".repeat(70)).with_suffix("-2"));
    }
}
