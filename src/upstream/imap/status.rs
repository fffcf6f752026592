//! Status responses (RFC 3501 §7.1, RFC 5530), and who is to blame for them.

use std::time::Duration;

use async_imap::imap_proto::{Capability, Outcome, ResponseCode, Status as ProtoStatus};

use crate::upstream::{Reason, UpstreamError};

/// How a status response begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ok,
    No,
    Bad,
    Bye,
    PreAuth,
}

/// A status response, tagged or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub kind: Kind,
    pub code: Option<Code>,
    pub text: String,
    /// The text holds what was sent in confidence: it is not for quoting.
    pub withheld: bool,
}

/// The response codes that popgate acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Capability(Vec<String>),
    UidValidity(u32),
    /// A forecast of the next UID.
    UidNext(u32),
    /// RFC 7162 §3.1.2.1.
    HighestModSeq(u64),
    /// The mailbox has no mod-sequences (RFC 7162 §3.1.2.2).
    NoModSeq,
    ReadOnly,
    /// Of these, changes last (RFC 3501 §7.1).
    PermanentFlags(Vec<String>),
    /// Any other, its name in upper case.
    Named(String),
}

impl Status {
    pub fn new(kind: &ProtoStatus, outcome: &Outcome<'_>) -> Self {
        let kind = match kind {
            ProtoStatus::Ok => Kind::Ok,
            ProtoStatus::No => Kind::No,
            ProtoStatus::Bad => Kind::Bad,
            ProtoStatus::Bye => Kind::Bye,
            ProtoStatus::PreAuth => Kind::PreAuth,
        };
        let text = outcome.information.as_deref().unwrap_or_default();
        let (code, text) = match &outcome.code {
            Some(code) => (known(code), text),
            None => unknown(text),
        };
        Self {
            kind,
            code,
            text: text.to_owned(),
            withheld: false,
        }
    }

    /// Whether the response code is the one of this name (upper case).
    pub fn is_coded(&self, name: &str) -> bool {
        matches!(&self.code, Some(Code::Named(code)) if code == name)
    }

    /// Whether this NO to SELECT is for good (RFC 5530 §3): the mailbox is not
    /// there, or this user may not read it. Cyrus 3.6 says the latter in words.
    pub fn denies_access(&self) -> bool {
        let in_words =
            || self.code.is_none() && self.text.to_ascii_lowercase().contains("permission denied");
        self.kind == Kind::No
            && (self.is_coded("NONEXISTENT") || self.is_coded("NOPERM") || in_words())
    }

    /// OK, or the error that a refused command means. Not for logins.
    pub fn ok_or_error(self, what: &'static str) -> Result<Self, UpstreamError> {
        match self.kind {
            Kind::Ok => Ok(self),
            Kind::No | Kind::Bye | Kind::Bad | Kind::PreAuth => Err(self.refusal(what)),
        }
    }

    fn reason(&self, what: &str) -> Reason {
        match self.withheld {
            true => Reason::quoting(what, "(its text holds the credentials)"),
            false => Reason::quoting(what, &self.text),
        }
    }

    /// The error that NO, BAD or BYE means. It is never the client's password.
    pub fn refusal(&self, what: &str) -> UpstreamError {
        let reason = self.reason(what);
        // Exchange says this in a BAD.
        if let Some(retry_after) = self.backoff() {
            return UpstreamError::Temporary {
                reason,
                retry_after: Some(retry_after),
            };
        }
        if matches!(self.kind, Kind::Bad | Kind::PreAuth) {
            return UpstreamError::Protocol(reason);
        }
        let name = match &self.code {
            Some(Code::Named(name)) => name.as_str(),
            _ => "",
        };
        match name {
            "AUTHORIZATIONFAILED" | "CONTACTADMIN" | "PRIVACYREQUIRED" | "NOPERM" => {
                UpstreamError::Misconfigured(reason)
            }
            "LIMIT" | "INUSE" => UpstreamError::InUse(reason),
            _ if self.suggests_too_many_connections() => UpstreamError::InUse(reason),
            _ => UpstreamError::temporary(reason),
        }
    }

    /// The error that NO to a login means: `Authentication` only where nothing
    /// suggests that it is anything but the credentials.
    pub fn login_refusal(&self) -> UpstreamError {
        let plain = match &self.code {
            None | Some(Code::Capability(_)) => true,
            Some(Code::Named(name)) => {
                matches!(name.as_str(), "AUTHENTICATIONFAILED" | "EXPIRED" | "ALERT")
            }
            Some(_) => false,
        };
        let certain = self.is_coded("AUTHENTICATIONFAILED") || self.is_coded("EXPIRED");
        let is_refusal = match certain {
            true => !self.is_throttle(),
            false => plain && !self.suggests_outage(),
        };
        if self.kind == Kind::No && is_refusal {
            UpstreamError::Authentication
        } else {
            self.refusal("login")
        }
    }

    /// Gmail: "Too many simultaneous connections"; Dovecot: "Maximum number of
    /// connections from user+IP exceeded"; Courier: "Maximum connection limit
    /// reached".
    fn suggests_too_many_connections(&self) -> bool {
        self.says(&["connection"]) && self.says(&["too many", "maximum", "limit"])
    }

    /// Some say AUTHENTICATIONFAILED to whoever has asked too often. Less may be read
    /// into its words than into those of a NO without a code: "try again" is said of
    /// wrong passwords, too.
    fn is_throttle(&self) -> bool {
        self.backoff().is_some()
            || self.suggests_too_many_connections()
            || self.says(&["throttl", "too many", "rate limit", "temporar"])
    }

    /// Servers that report an outage of their own by a NO without a code:
    /// Exchange ("Server Unavailable", "throttled"), Gmail ("Too many
    /// simultaneous connections"), Cyrus without saslauthd ("generic failure"),
    /// Courier ("Temporary").
    fn suggests_outage(&self) -> bool {
        self.backoff().is_some()
            || self.suggests_too_many_connections()
            || self.says(&[
                "unavailable",
                "temporar",
                "throttled",
                "too many",
                "try again",
                "try later",
                "internal error",
                "server error",
                "generic failure",
                "timed out",
                "timeout",
                "system error",
                "overload",
                "maintenance",
                "not connected",
            ])
    }

    fn says(&self, phrases: &[&str]) -> bool {
        let text = self.text.to_ascii_lowercase();
        phrases.iter().any(|phrase| text.contains(phrase))
    }

    /// Exchange's `Suggested Backoff Time: N milliseconds`.
    fn backoff(&self) -> Option<Duration> {
        let text = self.text.to_ascii_lowercase();
        let (_, rest) = text.split_once("backoff time:")?;
        let digits: String = rest
            .trim_start()
            .chars()
            .take_while(char::is_ascii_digit)
            .take(9)
            .collect();
        digits.parse().ok().map(Duration::from_millis)
    }
}

/// Names of capabilities as the server wrote them.
fn capability_names(capabilities: &[Capability<'_>]) -> Vec<String> {
    let name = |capability: &Capability<'_>| match capability {
        Capability::Imap4rev1 => "IMAP4rev1".to_owned(),
        Capability::Auth(mechanism) => format!("AUTH={mechanism}"),
        Capability::Atom(name) => name.to_string(),
    };
    capabilities.iter().map(name).collect()
}

fn known(code: &ResponseCode<'_>) -> Option<Code> {
    Some(match code {
        ResponseCode::Capabilities(capabilities) => {
            Code::Capability(capability_names(capabilities))
        }
        ResponseCode::UidValidity(uid_validity) => Code::UidValidity(*uid_validity),
        ResponseCode::UidNext(uid) => Code::UidNext(*uid),
        // Older servers say 0 for none; RFC 7162 §7 knows positive ones only.
        ResponseCode::HighestModSeq(0) => Code::NoModSeq,
        ResponseCode::HighestModSeq(modseq) => Code::HighestModSeq(*modseq),
        ResponseCode::ReadOnly => Code::ReadOnly,
        ResponseCode::PermanentFlags(flags) => {
            Code::PermanentFlags(flags.iter().map(|flag| flag.to_string()).collect())
        }
        ResponseCode::Alert => Code::Named("ALERT".to_owned()),
        ResponseCode::TryCreate => Code::Named("TRYCREATE".to_owned()),
        _ => return None,
    })
}

/// A code that the decoder left in the text.
fn unknown(text: &str) -> (Option<Code>, &str) {
    let Some((inside, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return (None, text);
    };
    let mut words = inside.split(' ');
    let name = words.next().unwrap_or_default().to_ascii_uppercase();
    let code = match name.as_str() {
        "CAPABILITY" => Code::Capability(words.map(str::to_owned).collect()),
        "NOMODSEQ" => Code::NoModSeq,
        _ => Code::Named(name),
    };
    (Some(code), rest.trim_start())
}

#[cfg(test)]
mod tests {
    use async_imap::imap_proto::Response;

    use super::*;

    fn no(text: &str) -> Status {
        let outcome = Outcome {
            code: None,
            information: Some(text.into()),
        };
        Status::new(&ProtoStatus::No, &outcome)
    }

    /// As the connection reads a line.
    fn read(line: &str) -> Option<Status> {
        let line = format!("{line}\r\n");
        match Response::parse(line.as_bytes()) {
            Ok(([], Response::Data { status, outcome })) => Some(Status::new(&status, &outcome)),
            Ok((
                [],
                Response::Done {
                    status, outcome, ..
                },
            )) => Some(Status::new(&status, &outcome)),
            _ => None,
        }
    }

    #[test]
    fn codes_that_keep_a_listing_current() {
        for (line, code) in [
            (
                "* OK [UIDNEXT 4392] Predicted next UID",
                Code::UidNext(4392),
            ),
            ("* OK [uidnext 4294967295]", Code::UidNext(u32::MAX)),
            (
                "* OK [HIGHESTMODSEQ 715194045007] Highest",
                Code::HighestModSeq(715_194_045_007),
            ),
            (
                "* OK [HIGHESTMODSEQ 9223372036854775807] Ok",
                Code::HighestModSeq(9_223_372_036_854_775_807),
            ),
            (
                "P7 OK [HIGHESTMODSEQ 20010715194045319] expunged",
                Code::HighestModSeq(20_010_715_194_045_319),
            ),
            ("* OK [HIGHESTMODSEQ 0] none", Code::NoModSeq),
            ("* OK [NOMODSEQ] Sorry, this mailbox", Code::NoModSeq),
            ("* OK [nomodseq]", Code::NoModSeq),
        ] {
            let status = read(line);
            assert_eq!(status.and_then(|it| it.code), Some(code), "{line}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_no_code_to_act_on() {
        for line in [
            "* OK [UIDNEXT 4294967296] x",
            "* OK [UIDNEXT] x",
            "* OK [UIDNEXT x] x",
            "* OK [HIGHESTMODSEQ 18446744073709551616] x",
            "* OK [HIGHESTMODSEQ -1] x",
            "* OK [HIGHESTMODSEQ] x",
        ] {
            let code = read(line).map(|status| status.code);
            assert!(
                matches!(code, Some(Some(Code::Named(_)))),
                "{line}: {code:?}"
            );
        }
    }

    #[test]
    fn only_the_credentials_are_blamed_on_the_client() {
        for text in [
            "Login failed.",
            "[AUTHENTICATIONFAILED] Authentication failed.",
            "[AUTHENTICATIONFAILED] Invalid credentials (Failure)",
            "[EXPIRED] change your password",
            "[AUTHENTICATIONFAILED] Wrong password, please try again",
            "AUTHENTICATE failed.",
            "[CAPABILITY IMAP4rev2 AUTH=PLAIN] LOGIN failed.",
            "",
        ] {
            let error = no(text).login_refusal();
            assert!(
                matches!(error, UpstreamError::Authentication),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn outages_are_not() {
        for text in [
            "[UNAVAILABLE] Temporary authentication failure.",
            "[SERVERBUG] Internal error occurred.",
            "Server Unavailable. 15",
            "[AUTHENTICATIONFAILED] Request is throttled. Suggested Backoff Time: 9 milliseconds",
            "[AUTHENTICATIONFAILED] Too many login failures, try again later",
            "[AUTHENTICATIONFAILED] The account is temporarily locked",
            "Login failed: generic failure",
            "[OVERQUOTA] Account exceeded bandwidth limits.",
            "[SOMETHINGNEW] who knows",
            "[EXPUNGEISSUED] Some messages are gone",
        ] {
            let error = no(text).login_refusal();
            assert!(
                matches!(error, UpstreamError::Temporary { .. }),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn limits_settings_and_throttles_have_their_own_errors() {
        let too_many = no("[ALERT] Too many simultaneous connections. (Failure)");
        assert!(matches!(too_many.login_refusal(), UpstreamError::InUse(_)));
        for text in [
            "[LIMIT] enough",
            "Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)",
            "Maximum connection limit reached",
        ] {
            let error = no(text).login_refusal();
            assert!(
                matches!(error, UpstreamError::InUse(_)),
                "{text}: {error:?}"
            );
        }
        let authorization = no("[AUTHORIZATIONFAILED] not yours");
        assert!(matches!(
            authorization.login_refusal(),
            UpstreamError::Misconfigured(_)
        ));
        let mut throttled = no("Request is throttled. Suggested Backoff Time: 1500 milliseconds");
        for kind in [Kind::No, Kind::Bad, Kind::Bye] {
            throttled.kind = kind;
            for error in [throttled.login_refusal(), throttled.refusal("FETCH")] {
                let UpstreamError::Temporary { retry_after, .. } = error else {
                    panic!("a throttle is temporary: {error:?}");
                };
                assert_eq!(retry_after, Some(Duration::from_millis(1500)));
            }
        }
    }

    #[test]
    fn bad_says_nothing_about_a_password() {
        let mut bad = no("User is authenticated but not connected.");
        bad.kind = Kind::Bad;
        for error in [bad.login_refusal(), bad.refusal("SELECT")] {
            assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
        }
    }
}
