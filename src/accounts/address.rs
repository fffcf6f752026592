//! What an account may be called.

use super::AccountsError;

/// Octets of an address (RFC 5321 §4.5.3.1.3, without the brackets).
const LONGEST: usize = 254;
/// What stands only in quoted local parts, in lists of addresses or in headers
/// (RFC 5322 §3.2.3); what divides a user name from more (`recent:user`,
/// `user*master`); and what an URL or a shell would take for its own.
const SPECIAL: &str = "\"\\<>()[],;:*?#`|{}$!&";

/// An address as an account is stored: in lower case. A mere user name is one,
/// too. Whatever has two looks, or none, is refused.
pub(super) fn normalized(address: &str) -> Result<String, AccountsError> {
    let wrong = |problem| Err(AccountsError::Unsuitable(format!("no address: {problem}")));
    let address = address.to_lowercase();
    if address.is_empty() {
        return wrong("it is empty");
    }
    if address.len() > LONGEST {
        return wrong("it is longer than 254 octets");
    }
    if address.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return wrong("it has a space or a control character");
    }
    if address.chars().any(is_unseen) {
        return wrong("it has a character that cannot be seen");
    }
    if address.contains(|c| SPECIAL.contains(c)) {
        return wrong("it has a character that no plain address has");
    }
    let (local, domain) = match address.rsplit_once('@') {
        Some((local, domain)) => (local, Some(domain)),
        None => (address.as_str(), None),
    };
    if local.is_empty() || local.contains('@') {
        return wrong("there is nothing, or another @, before the @");
    }
    if local.starts_with(['+', '-', '.']) {
        return wrong("it begins with a sign");
    }
    match domain {
        Some(domain) if !is_domain(domain) => wrong("what is behind the @ is no domain"),
        _ => Ok(address),
    }
}

/// Labels of letters, digits and hyphens; letters of any script.
fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let is_good = |c: char| c == '-' || c.is_alphanumeric() || is_mark(c);
        (1..=63).contains(&label.chars().count())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(is_good)
    };
    domain.split('.').all(is_label)
}

/// Signs of scripts that write vowels apart: not ASCII, and no punctuation of it.
fn is_mark(c: char) -> bool {
    u32::from(c) >= 0x300
}

/// Formats text, or is seen as nothing.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}' | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (given, stored) in [
            ("Alice@Example.ORG", "alice@example.org"),
            ("alice", "alice"),
            (
                "a.b+c_d-e=f'g/h%i@sub.example.org",
                "a.b+c_d-e=f'g/h%i@sub.example.org",
            ),
            ("jürgen@bücher.example", "jürgen@bücher.example"),
            ("ÄRZTE@example.org", "ärzte@example.org"),
            ("राम@मोहन.ईन्फो", "राम@मोहन.ईन्फो"),
            ("info@xn--bcher-kva.example", "info@xn--bcher-kva.example"),
            ("root@localhost", "root@localhost"),
        ] {
            assert_eq!(normalized(given), Ok(stored.to_owned()));
        }
    }

    #[test]
    fn what_is_no_address() {
        let long = format!("{}@example.org", "a".repeat(250));
        for bad in [
            "",
            "@example.org",
            "alice@",
            "alice@@example.org",
            "a@b@example.org",
            "alice@example..org",
            "alice@.example.org",
            "alice@example.org.",
            "alice@-example.org",
            "alice@exa mple.org",
            "alice@exa_mple.org",
            "alice bob@example.org",
            "alice\r\n@example.org",
            "alice\0@example.org",
            "alice\u{202e}@example.org",
            "alice\u{200b}@example.org",
            "alice@example.org\u{feff}",
            "\"alice\"@example.org",
            "Alice <alice@example.org>",
            "recent:alice@example.org",
            "alice*admin@example.org",
            "+alice",
            "--yes",
            long.as_str(),
        ] {
            assert!(normalized(bad).is_err(), "{bad:?}");
        }
    }
}
