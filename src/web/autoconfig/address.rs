//! Mail addresses and domains as strangers write them.

use url::Host;

/// The longest address in octets: 64 before the `@`, 255 after it (RFC 5321
/// §4.5.3.1).
const LONGEST: usize = 320;

/// A mail address that may be answered, and repeated where it is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// As it was written.
    pub whole: String,
    /// As [`domain`] makes it.
    pub domain: String,
}

impl Address {
    /// `None` for what is too long, has no domain, or cannot stand in XML.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST || !text.chars().all(printable) {
            return None;
        }
        let (local, after) = text.rsplit_once('@')?;
        if local.is_empty() {
            return None;
        }
        Some(Self {
            whole: text.to_owned(),
            domain: domain(after)?,
        })
    }

    /// What stands before the `@`.
    pub(super) fn local_part(&self) -> &str {
        self.whole
            .rsplit_once('@')
            .map_or(self.whole.as_str(), |(local, _)| local)
    }
}

/// A domain in the one form that is compared: ASCII (`xn--` for others), lower
/// case, without the dot at the end. `None` for what is no domain name.
pub fn domain(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    // The parser would take percent-encoding as in URLs.
    if name.is_empty() || name.contains('%') {
        return None;
    }
    match Host::parse(name) {
        Ok(Host::Domain(domain)) if domain.len() <= 253 => Some(domain),
        _ => None,
    }
}

/// No control character, none that XML cannot hold, and none that stands for
/// octets that were no UTF-8.
fn printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{FFFD}'..='\u{FFFF}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn domains_have_one_form() {
        for (written, means) in [
            ("example.com", Some("example.com")),
            ("EXAMPLE.Com", Some("example.com")),
            ("example.com.", Some("example.com")),
            ("Bücher.example", Some("xn--bcher-kva.example")),
            ("XN--BCHER-KVA.example", Some("xn--bcher-kva.example")),
            ("example。com", Some("example.com")),
            ("", None),
            (".", None),
            ("example.com..", Some("example.com.")),
            ("example%2ecom", None),
            ("192.0.2.1", None),
            ("[2001:db8::1]", None),
            ("exa mple.com", None),
            ("example.com/x", None),
            ("a@example.com", None),
            ("example.com:25", None),
            ("exa<mple.com", None),
            ("xn--a.example", None),
        ] {
            assert_eq!(domain(written).as_deref(), means, "{written}");
        }
        assert_eq!(domain(&format!("{}com", "a.".repeat(126))), None);
    }

    #[test]
    fn addresses_and_what_is_none() {
        let address = Address::parse("Alice+news@Bücher.example").unwrap();
        assert_eq!(address.whole, "Alice+news@Bücher.example");
        assert_eq!(address.local_part(), "Alice+news");
        assert_eq!(address.domain, "xn--bcher-kva.example");
        let quoted = Address::parse("\"a@b <c>\"@example.com").unwrap();
        assert_eq!(quoted.local_part(), "\"a@b <c>\"");
        for wrong in [
            "",
            "alice",
            "@example.com",
            "alice@",
            "alice@[192.0.2.1]",
            "alice\r\n@example.com",
            "alice\0@example.com",
            "alice\u{85}@example.com",
            "alice\u{FFFD}@example.com",
            "alice\u{FFFF}@example.com",
        ] {
            assert_eq!(Address::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_longest_address() {
        let of = |octets: usize| format!("{}@example.com", "a".repeat(octets - 12));
        assert!(Address::parse(&of(320)).is_some());
        assert!(Address::parse(&of(321)).is_none());
    }
}
