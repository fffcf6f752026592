//! Keywords of an Email (RFC 8621 §4.1.1), as far as they matter here.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// A keyword that popgate sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    /// Marked as read (RFC 8621 §4.1.1).
    Seen,
    /// Deleted by POP3: never shown there again.
    Hidden,
}

impl Keyword {
    /// As JMAP writes it: in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seen => "$seen",
            Self::Hidden => "$pop3deleted",
        }
    }
}

/// Those of an Email; however many others it has, they take no memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keywords {
    seen: bool,
    hidden: bool,
}

impl Keywords {
    pub fn has(self, keyword: Keyword) -> bool {
        match keyword {
            Keyword::Seen => self.seen,
            Keyword::Hidden => self.hidden,
        }
    }
}

impl<'de> Deserialize<'de> for Keywords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Set;
        impl<'de> Visitor<'de> for Set {
            type Value = Keywords;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keywords")
            }

            fn visit_unit<E: Error>(self) -> Result<Keywords, E> {
                Ok(Keywords::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keywords, A::Error> {
                let mut keywords = Keywords::default();
                while let Some((name, is_set)) = map.next_entry::<Cow<'_, str>, bool>()? {
                    let is = |keyword: Keyword| name.eq_ignore_ascii_case(keyword.as_str());
                    keywords.seen |= is_set && is(Keyword::Seen);
                    keywords.hidden |= is_set && is(Keyword::Hidden);
                }
                Ok(keywords)
            }
        }
        deserializer.deserialize_any(Set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_among_others() {
        let read = |json: &str| serde_json::from_str::<Keywords>(json).unwrap();
        let keywords = read(r#"{"$flagged":true,"$Seen":true,"$pop3deleted":false}"#);
        assert!(keywords.has(Keyword::Seen) && !keywords.has(Keyword::Hidden));
        assert!(read(r#"{"$POP3Deleted":true}"#).has(Keyword::Hidden));
        assert_eq!(read("{}"), read("null"));
        for bad in [r#"["$seen"]"#, r#"{"$seen":1}"#, "7"] {
            assert!(serde_json::from_str::<Keywords>(bad).is_err(), "{bad}");
        }
    }
}
