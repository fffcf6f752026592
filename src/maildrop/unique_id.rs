//! Unique ids (RFC 1939 §7, UIDL) and the format strings that make them.

use std::fmt::{self, Write as _};
use std::str::FromStr;

/// A unique id: 1 to 70 octets in the range 0x21 to 0x7E (RFC 1939 §7).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UniqueId(String);

/// The most octets a unique id may have (RFC 1939 §7).
pub const MAX_OCTETS: usize = 70;

impl UniqueId {
    /// `text` as a unique id, where it is one.
    pub fn new(text: String) -> Option<Self> {
        let fits = (1..=MAX_OCTETS).contains(&text.len());
        (fits && text.bytes().all(|octet| (0x21..=0x7e).contains(&octet))).then_some(Self(text))
    }

    /// The octets as they go out.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the unique ids of an IMAP mailbox are made, in Dovecot's notation:
/// `%u` is the UID, `%v` the UIDVALIDITY; `%08X` in front pads to eight digits
/// of lower-case hex (`X` and `x` alike, as Dovecot does), `%%` is a percent
/// sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueIdFormat {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Number {
        variable: Variable,
        hex: bool,
        width: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Uid,
    UidValidity,
}

/// A format string that cannot name messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UniqueIdFormatError {
    /// A `%` is not followed by a variable popgate knows.
    #[error("unknown variable {0:?}: known are %u (UID) and %v (UIDVALIDITY), as in %08Xu%08Xv")]
    UnknownVariable(String),
    /// All messages would have the same unique id.
    #[error("the format must contain %u, or all messages would be alike")]
    Constant,
    /// The unique ids would be longer than 70 octets or hold other octets than
    /// 0x21 to 0x7E.
    #[error(
        "unique ids must have 1 to 70 characters, none of them a space, a control or 8-bit character"
    )]
    Invalid,
}

impl UniqueIdFormat {
    /// The unique id of the message with `uid` in a mailbox with `uid_validity`.
    pub fn unique_id(&self, uid: u32, uid_validity: u32) -> UniqueId {
        let mut text = String::with_capacity(16);
        for part in &self.parts {
            // Writing to a String cannot fail.
            let _ = match part {
                Part::Literal(literal) => text.write_str(literal),
                Part::Number {
                    variable,
                    hex,
                    width,
                } => {
                    let number = match variable {
                        Variable::Uid => uid,
                        Variable::UidValidity => uid_validity,
                    };
                    let width = *width;
                    if *hex {
                        write!(text, "{number:0width$x}")
                    } else {
                        write!(text, "{number:0width$}")
                    }
                }
            };
        }
        UniqueId(text)
    }
}

impl Default for UniqueIdFormat {
    /// Dovecot's own default, `%08Xu%08Xv`.
    fn default() -> Self {
        let number = |variable| Part::Number {
            variable,
            hex: true,
            width: 8,
        };
        Self {
            parts: vec![number(Variable::Uid), number(Variable::UidValidity)],
        }
    }
}

impl FromStr for UniqueIdFormat {
    type Err = UniqueIdFormatError;

    fn from_str(format: &str) -> Result<Self, UniqueIdFormatError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = format;
        while let Some(percent) = rest.find('%') {
            literal.push_str(&rest[..percent]);
            rest = &rest[percent + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            let (number, after) = number_part(rest)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(number);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        let names_uid = |part: &Part| {
            matches!(
                part,
                Part::Number {
                    variable: Variable::Uid,
                    ..
                }
            )
        };
        if !parts.iter().any(names_uid) {
            return Err(UniqueIdFormatError::Constant);
        }
        let format = Self { parts };
        let longest = format.unique_id(u32::MAX, u32::MAX);
        UniqueId::new(longest.0).ok_or(UniqueIdFormatError::Invalid)?;
        Ok(format)
    }
}

/// Reads `[0][width][X|x](u|v)`, what may follow a percent sign.
fn number_part(text: &str) -> Result<(Part, &str), UniqueIdFormatError> {
    let unknown = || {
        let shown: String = text.chars().take(8).collect();
        UniqueIdFormatError::UnknownVariable(format!("%{shown}"))
    };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let width: usize = if digits == 0 {
        0
    } else {
        text[..digits].parse().map_err(|_| unknown())?
    };
    if width > MAX_OCTETS {
        return Err(UniqueIdFormatError::Invalid);
    }
    let rest = &text[digits..];
    let (hex, rest) = match rest.strip_prefix(['x', 'X']) {
        Some(after) => (true, after),
        None => (false, rest),
    };
    let variable = match rest.chars().next() {
        Some('u') => Variable::Uid,
        Some('v') => Variable::UidValidity,
        _ => return Err(unknown()),
    };
    Ok((
        Part::Number {
            variable,
            hex,
            width,
        },
        &rest[1..],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_dovecots() {
        let format: UniqueIdFormat = "%08Xu%08Xv".parse().unwrap();
        assert_eq!(format, UniqueIdFormat::default());
        assert_eq!(
            format.unique_id(0xab, 0x6789_abcd).as_str(),
            "000000ab6789abcd"
        );
    }

    #[test]
    fn other_formats() {
        let cyrus: UniqueIdFormat = "%v.%u".parse().unwrap();
        assert_eq!(cyrus.unique_id(7, 42).as_str(), "42.7");
        let percent: UniqueIdFormat = "a%%%u".parse().unwrap();
        assert_eq!(percent.unique_id(7, 42).as_str(), "a%7");
    }

    #[test]
    fn formats_that_cannot_name_messages() {
        let refused = |format: &str| format.parse::<UniqueIdFormat>().unwrap_err();
        assert_eq!(refused("%v"), UniqueIdFormatError::Constant);
        assert_eq!(refused(""), UniqueIdFormatError::Constant);
        assert_eq!(refused("%u %v"), UniqueIdFormatError::Invalid);
        assert_eq!(refused("%071u"), UniqueIdFormatError::Invalid);
        assert!(matches!(
            refused("%q%u"),
            UniqueIdFormatError::UnknownVariable(_)
        ));
        assert!(matches!(
            refused("%u%"),
            UniqueIdFormatError::UnknownVariable(_)
        ));
    }

    #[test]
    fn what_a_unique_id_may_be() {
        assert!(UniqueId::new("a".repeat(70)).is_some());
        assert!(UniqueId::new("a".repeat(71)).is_none());
        assert!(UniqueId::new(String::new()).is_none());
        assert!(UniqueId::new("a b".into()).is_none());
        assert!(UniqueId::new("ä".into()).is_none());
    }
}
