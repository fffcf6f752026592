//! What a client may say, and how it is read.
//!
//! ```text
//! command = keyword *(SP param) CRLF        ; RFC 2449 §3
//! ```
//!
//! Keywords are read in any case of letters. Where a simple client adds spaces
//! between or behind the arguments they are passed over, except in PASS.

use std::fmt;

use memchr::{memchr, memchr2};

/// A command with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Names the mailbox; PASS follows.
    ///
    /// - State: AUTHORIZATION. Grammar: `USER name`.
    /// - Errors: login needs TLS; the name is empty or has control characters.
    /// - RFC 1939 §7; UTF-8 by RFC 6856 §2.2, before the UTF8 command as well.
    ///
    /// The name is the rest of the line. RFC 1939 knows no space in it, but
    /// directories have such names, and no second argument could be meant.
    User(&'a str),
    /// Gives the password, and opens the maildrop.
    ///
    /// - State: AUTHORIZATION, after USER. Grammar: `PASS string`.
    /// - Errors: no USER before; `[AUTH]`, `[IN-USE]`, `[SYS/TEMP]`,
    ///   `[SYS/PERM]` from opening.
    /// - RFC 1939 §7: the string is all that follows the one space, spaces
    ///   included.
    Pass(Redacted<'a, str>),
    /// Login by a digest of a shared secret.
    ///
    /// - State: AUTHORIZATION. Not supported: the greeting has no timestamp.
    /// - RFC 1939 §7.
    Apop,
    /// Begins a SASL exchange.
    ///
    /// - State: AUTHORIZATION. Grammar: `AUTH mechanism [initial-response]`,
    ///   where the response is base64, and `=` an empty one.
    /// - Errors: unknown mechanism, bad base64, login needs TLS; then as PASS.
    /// - RFC 5034 §4.
    Auth {
        /// The name of the mechanism.
        mechanism: &'a str,
        /// The initial response as sent.
        initial_response: Option<Redacted<'a, [u8]>>,
    },
    /// AUTH without an argument lists the mechanisms. RFC 5034 does not have
    /// it; clients older than CAPA ask so, and servers answer.
    ///
    /// - State: AUTHORIZATION. Grammar: `AUTH`.
    AuthList,
    /// Lists the capabilities.
    ///
    /// - State: AUTHORIZATION, TRANSACTION. Grammar: `CAPA`.
    /// - RFC 2449 §5.
    Capa,
    /// Begins TLS.
    ///
    /// - State: AUTHORIZATION, once. Grammar: `STLS`.
    /// - Errors: TLS is active, or not available.
    /// - RFC 2595 §4.
    Stls,
    /// Asks for UTF-8 mode. Messages pass as they are in either mode.
    ///
    /// - State: AUTHORIZATION. Grammar: `UTF8`.
    /// - RFC 6856 §2.1.
    Utf8,
    /// Chooses the language of texts, or lists what there is.
    ///
    /// - State: AUTHORIZATION, TRANSACTION. Grammar: `LANG [range]`, where `*`
    ///   is the server's choice.
    /// - Errors: another language than `en`.
    /// - RFC 6856 §3.
    Lang(Option<&'a [u8]>),
    /// The number of messages and their octets.
    ///
    /// - State: TRANSACTION. Grammar: `STAT`.
    /// - RFC 1939 §5.
    Stat,
    /// The octets of one message, or of each.
    ///
    /// - State: TRANSACTION. Grammar: `LIST [msg]`.
    /// - Errors: no such message.
    /// - RFC 1939 §5.
    List(Option<MessageNumber>),
    /// Sends a message.
    ///
    /// - State: TRANSACTION. Grammar: `RETR msg`.
    /// - Errors: no such message; `[SYS/TEMP]` and others from fetching.
    /// - RFC 1939 §5.
    Retr(MessageNumber),
    /// Marks a message as deleted; QUIT removes it.
    ///
    /// - State: TRANSACTION. Grammar: `DELE msg`.
    /// - Errors: no such message; `[SYS/PERM]` where the policy refuses it.
    /// - RFC 1939 §5.
    Dele(MessageNumber),
    /// Does nothing.
    ///
    /// - State: TRANSACTION. Grammar: `NOOP`.
    /// - RFC 1939 §5.
    Noop,
    /// Takes all marks back.
    ///
    /// - State: TRANSACTION. Grammar: `RSET`.
    /// - RFC 1939 §5.
    Rset,
    /// Sends the header of a message and the first lines of its body.
    ///
    /// - State: TRANSACTION. Grammar: `TOP msg n`.
    /// - Errors: as RETR.
    /// - RFC 1939 §7.
    Top(MessageNumber, u64),
    /// The unique id of one message, or of each.
    ///
    /// - State: TRANSACTION. Grammar: `UIDL [msg]`.
    /// - Errors: no such message.
    /// - RFC 1939 §7.
    Uidl(Option<MessageNumber>),
    /// Ends the session; in TRANSACTION state it removes what is marked.
    ///
    /// - State: any. Grammar: `QUIT`.
    /// - Errors: `[SYS/TEMP]` when not all marked messages were removed.
    /// - RFC 1939 §4, §6.
    Quit,
}

/// A message number as a client wrote it. Whether there is such a message only
/// the gate in TRANSACTION state knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageNumber(u64);

impl MessageNumber {
    /// The number; one that no integer can hold is `u64::MAX`, which no
    /// message has.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// An argument that `Debug` does not show: it may be a secret.
#[derive(PartialEq, Eq)]
pub struct Redacted<'a, T: ?Sized>(pub &'a T);

impl<T: ?Sized> fmt::Debug for Redacted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A line that is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyntaxError {
    /// The keyword is none that popgate knows. `LAST` is one of them: RFC 1460
    /// had it, RFC 1939 dropped it.
    UnknownCommand,
    /// Arguments are missing, superfluous or garbled; this is how they must be.
    Arguments(&'static str),
    /// NUL or a bare CR is somewhere in the line.
    ForbiddenOctet,
    /// An argument is not UTF-8 (RFC 6856 §2.2).
    NotUtf8,
}

impl SyntaxError {
    /// What the client is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::UnknownCommand => "unknown command",
            Self::Arguments(grammar) => grammar,
            Self::ForbiddenOctet => "NUL or bare CR in a command",
            Self::NotUtf8 => "the argument is not UTF-8",
        }
    }
}

impl<'a> Command<'a> {
    /// Reads a line that came without its line end.
    pub fn parse(line: &'a [u8]) -> Result<Self, SyntaxError> {
        if memchr2(0, b'\r', line).is_some() {
            return Err(SyntaxError::ForbiddenOctet);
        }
        let (keyword, rest) = match memchr(b' ', line) {
            Some(space) => (&line[..space], Some(&line[space + 1..])),
            None => (line, None),
        };
        let mut upper_case = [0; 4];
        let upper_case = upper_case
            .get_mut(..keyword.len())
            .ok_or(SyntaxError::UnknownCommand)?;
        upper_case.copy_from_slice(keyword);
        upper_case.make_ascii_uppercase();
        let arguments = Arguments(rest.unwrap_or_default());
        match &*upper_case {
            b"USER" => user(arguments),
            b"PASS" => pass(rest),
            b"APOP" => Ok(Self::Apop),
            b"AUTH" => auth(arguments),
            b"CAPA" => arguments.none("CAPA takes no argument", Self::Capa),
            b"STLS" => arguments.none("STLS takes no argument", Self::Stls),
            b"UTF8" => arguments.none("UTF8 takes no argument", Self::Utf8),
            b"LANG" => Ok(Self::Lang(arguments.at_most_one("usage: LANG [language]")?)),
            b"STAT" => arguments.none("STAT takes no argument", Self::Stat),
            b"LIST" => Ok(Self::List(
                arguments.optional_message("usage: LIST [message]")?,
            )),
            b"RETR" => Ok(Self::Retr(arguments.message("usage: RETR message")?)),
            b"DELE" => Ok(Self::Dele(arguments.message("usage: DELE message")?)),
            b"NOOP" => arguments.none("NOOP takes no argument", Self::Noop),
            b"RSET" => arguments.none("RSET takes no argument", Self::Rset),
            b"TOP" => top(arguments),
            b"UIDL" => Ok(Self::Uidl(
                arguments.optional_message("usage: UIDL [message]")?,
            )),
            b"QUIT" => arguments.none("QUIT takes no argument", Self::Quit),
            _ => Err(SyntaxError::UnknownCommand),
        }
    }
}

fn user(arguments: Arguments<'_>) -> Result<Command<'_>, SyntaxError> {
    let name = std::str::from_utf8(arguments.0).map_err(|_| SyntaxError::NotUtf8)?;
    match name.trim_matches(' ') {
        "" => Err(SyntaxError::Arguments("usage: USER name")),
        name => Ok(Command::User(name)),
    }
}

fn pass(rest: Option<&[u8]>) -> Result<Command<'_>, SyntaxError> {
    let password = rest.ok_or(SyntaxError::Arguments("usage: PASS password"))?;
    let password = std::str::from_utf8(password).map_err(|_| SyntaxError::NotUtf8)?;
    Ok(Command::Pass(Redacted(password)))
}

fn auth(arguments: Arguments<'_>) -> Result<Command<'_>, SyntaxError> {
    let usage = SyntaxError::Arguments("usage: AUTH mechanism [initial-response]");
    let mut arguments = arguments.iter();
    let Some(mechanism) = arguments.next() else {
        return Ok(Command::AuthList);
    };
    let mechanism = std::str::from_utf8(mechanism).map_err(|_| usage)?;
    let initial_response = arguments.next().map(Redacted);
    match arguments.next() {
        None => Ok(Command::Auth {
            mechanism,
            initial_response,
        }),
        Some(_) => Err(usage),
    }
}

fn top(arguments: Arguments<'_>) -> Result<Command<'_>, SyntaxError> {
    let usage = SyntaxError::Arguments("usage: TOP message lines");
    let mut arguments = arguments.iter();
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(message), Some(lines), None) => {
            let message = number(message).ok_or(usage)?;
            Ok(Command::Top(
                MessageNumber(message),
                number(lines).ok_or(usage)?,
            ))
        }
        _ => Err(usage),
    }
}

/// Digits; a number too great for a `u64` becomes the greatest one.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, octet| {
        let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

/// What follows the keyword and its space.
#[derive(Clone, Copy)]
struct Arguments<'a>(&'a [u8]);

impl<'a> Arguments<'a> {
    fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .split(|&octet| octet == b' ')
            .filter(|argument| !argument.is_empty())
    }

    fn none(self, usage: &'static str, command: Command<'a>) -> Result<Command<'a>, SyntaxError> {
        match self.iter().next() {
            None => Ok(command),
            Some(_) => Err(SyntaxError::Arguments(usage)),
        }
    }

    fn at_most_one(self, usage: &'static str) -> Result<Option<&'a [u8]>, SyntaxError> {
        let mut arguments = self.iter();
        match (arguments.next(), arguments.next()) {
            (argument, None) => Ok(argument),
            _ => Err(SyntaxError::Arguments(usage)),
        }
    }

    fn optional_message(self, usage: &'static str) -> Result<Option<MessageNumber>, SyntaxError> {
        match self.at_most_one(usage)? {
            None => Ok(None),
            Some(digits) => match number(digits) {
                Some(number) => Ok(Some(MessageNumber(number))),
                None => Err(SyntaxError::Arguments(usage)),
            },
        }
    }

    fn message(self, usage: &'static str) -> Result<MessageNumber, SyntaxError> {
        self.optional_message(usage)?
            .ok_or(SyntaxError::Arguments(usage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command<'_>, SyntaxError> {
        Command::parse(line.as_bytes())
    }

    #[test]
    fn keywords_in_any_case() {
        for line in ["STAT", "stat", "sTaT"] {
            assert_eq!(parsed(line), Ok(Command::Stat));
        }
    }

    #[test]
    fn commands_without_arguments() {
        let commands = [
            ("CAPA", Command::Capa),
            ("STLS", Command::Stls),
            ("UTF8", Command::Utf8),
            ("STAT", Command::Stat),
            ("NOOP", Command::Noop),
            ("RSET", Command::Rset),
            ("QUIT", Command::Quit),
        ];
        for (keyword, command) in commands {
            let command = Ok(command);
            assert_eq!(parsed(keyword), command);
            assert_eq!(parsed(&format!("{keyword}  ")), command);
            let with_argument = format!("{keyword} 1");
            assert!(matches!(
                parsed(&with_argument),
                Err(SyntaxError::Arguments(_))
            ));
        }
    }

    #[test]
    fn message_numbers() {
        let number = |line: &str| match parsed(line) {
            Ok(Command::Retr(number)) => Some(number.get()),
            Err(SyntaxError::Arguments("usage: RETR message")) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(number("RETR 1"), Some(1));
        assert_eq!(number("RETR  0017 "), Some(17));
        assert_eq!(number("RETR 0"), Some(0));
        assert_eq!(number("RETR 18446744073709551615"), Some(u64::MAX));
        assert_eq!(number("RETR 18446744073709551617"), Some(u64::MAX));
        assert_eq!(number(&format!("RETR {}", "9".repeat(400))), Some(u64::MAX));
        for bad in [
            "RETR", "RETR ", "RETR +1", "RETR -1", "RETR 1a", "RETR 0x1", "RETR 1 2",
        ] {
            assert_eq!(number(bad), None, "{bad}");
        }
        assert_eq!(number("RETR ١"), None);
        assert_eq!(number("RETR \t1"), None);
    }

    #[test]
    fn optional_message_numbers() {
        assert_eq!(parsed("LIST"), Ok(Command::List(None)));
        assert_eq!(parsed("UIDL 2"), Ok(Command::Uidl(Some(MessageNumber(2)))));
        assert!(matches!(parsed("LIST x"), Err(SyntaxError::Arguments(_))));
        assert!(matches!(parsed("UIDL 1 2"), Err(SyntaxError::Arguments(_))));
    }

    #[test]
    fn top_needs_both_numbers() {
        assert_eq!(parsed("TOP 1 0"), Ok(Command::Top(MessageNumber(1), 0)));
        assert_eq!(
            parsed("top 2  99999999999999999999"),
            Ok(Command::Top(MessageNumber(2), u64::MAX))
        );
        for bad in [
            "TOP",
            "TOP 1",
            "TOP 1 x",
            "TOP x 1",
            "TOP 1 1 1",
            "TOP 1 -1",
        ] {
            assert!(
                matches!(parsed(bad), Err(SyntaxError::Arguments(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_user_name_is_the_rest_of_the_line() {
        assert_eq!(parsed("USER tim"), Ok(Command::User("tim")));
        assert_eq!(
            parsed("USER  DOMAIN/tim taylor "),
            Ok(Command::User("DOMAIN/tim taylor"))
        );
        assert_eq!(parsed("USER jürgen"), Ok(Command::User("jürgen")));
        assert!(matches!(parsed("USER"), Err(SyntaxError::Arguments(_))));
        assert!(matches!(parsed("USER  "), Err(SyntaxError::Arguments(_))));
        assert_eq!(Command::parse(b"USER t\xe4m"), Err(SyntaxError::NotUtf8));
    }

    #[test]
    fn a_password_keeps_its_spaces() {
        assert_eq!(parsed("PASS  a b "), Ok(Command::Pass(Redacted(" a b "))));
        assert_eq!(parsed("PASS "), Ok(Command::Pass(Redacted(""))));
        assert!(matches!(parsed("PASS"), Err(SyntaxError::Arguments(_))));
        assert_eq!(Command::parse(b"PASS \xff"), Err(SyntaxError::NotUtf8));
    }

    #[test]
    fn auth() {
        assert_eq!(parsed("AUTH"), Ok(Command::AuthList));
        assert_eq!(parsed("AUTH "), Ok(Command::AuthList));
        let with = |initial_response| {
            Ok(Command::Auth {
                mechanism: "PLAIN",
                initial_response,
            })
        };
        assert_eq!(parsed("AUTH PLAIN"), with(None));
        assert_eq!(
            parsed("AUTH PLAIN AHRpbQ=="),
            with(Some(Redacted(&b"AHRpbQ=="[..])))
        );
        assert!(matches!(
            parsed("AUTH PLAIN a b"),
            Err(SyntaxError::Arguments(_))
        ));
        assert!(matches!(
            Command::parse(b"AUTH \xff"),
            Err(SyntaxError::Arguments(_))
        ));
    }

    #[test]
    fn what_is_no_command() {
        for line in [
            "",
            " ",
            " STAT",
            "STATUS",
            "LAST",
            "STAT\t",
            "XTND",
            "ST",
            "ÄÄ",
            "GET / HTTP",
        ] {
            assert_eq!(parsed(line), Err(SyntaxError::UnknownCommand), "{line:?}");
        }
    }

    #[test]
    fn nul_and_bare_cr() {
        for line in ["STAT\0", "ST\rAT", "PASS a\0b", "USER a\rb", "\0", "\r"] {
            assert_eq!(parsed(line), Err(SyntaxError::ForbiddenOctet), "{line:?}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!(
            "{:?} {:?}",
            parsed("PASS tanstaaf"),
            parsed("AUTH PLAIN tanstaaf")
        );
        assert!(!shown.contains("tanstaaf"), "{shown}");
    }
}
