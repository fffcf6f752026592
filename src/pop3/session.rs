//! A session: the states of RFC 1939 §3, consumed by value.
//!
//! The driver feeds [`Input`]s and takes [`Step`]s. It reads no further line
//! while a step that demands an answer is under way (`StartTls`, `Open`,
//! `Deliver`, `Update`).

use std::fmt;

use super::authorization::Authorization;
use super::line::Expects;
use super::lines::{self, Lines};
use super::response::{Refusal, Response, ResponseCode};
use super::transaction::Transaction;
use super::update::UpdateState;
use crate::maildrop::{Maildrop, MessageIndex, Outcome, Portion, Update};
use crate::sasl::{Credentials, Mechanism};

/// What a connection offers, as far as commands and CAPA depend on it.
#[derive(Clone, Debug)]
pub struct Front {
    /// TLS is active.
    pub tls_active: bool,
    /// STLS would work here.
    pub stls_available: bool,
    /// Login is accepted without TLS.
    pub cleartext_login: bool,
    /// The SASL mechanisms whose credentials the upstream takes.
    pub mechanisms: Vec<Mechanism>,
    /// The bad command with this number ends the session.
    pub bad_command_limit: u32,
    /// The longest LOGIN-DELAY of anybody, in seconds (RFC 2449 §6.5); `None`
    /// where nobody has one.
    pub login_delay: Option<Announced>,
    /// The shortest retention of anybody's messages, in days (RFC 2449 §6.7);
    /// `None` where everybody's stay for ever.
    pub expire: Option<Announced>,
}

/// A value that CAPA announces before it is known who logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The one that holds for everybody.
    pub value: u64,
    /// Some users have another, which is told after login.
    pub differs: bool,
}

impl Front {
    /// Whether credentials may be sent now (RFC 2595 §2.3).
    pub(super) fn login_allowed(&self) -> bool {
        self.tls_active || self.cleartext_login
    }

    /// Whether USER and PASS can lead to a login.
    pub(super) fn password_login(&self) -> bool {
        self.login_allowed()
            && self
                .mechanisms
                .iter()
                .any(|mechanism| mechanism.takes_password())
    }

    /// Whether STLS works now.
    pub(super) fn stls_offered(&self) -> bool {
        self.stls_available && !self.tls_active
    }
}

/// What this login may do, as its policies say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// DELE is refused.
    pub deletion_refused: bool,
    /// QUIT leads to an update even where nothing is marked for deletion.
    pub updates_always: bool,
    /// The least time from this login to the next, in seconds (RFC 2449 §6.5).
    pub login_delay: Option<u64>,
    /// Messages may be gone after so many days (RFC 2449 §6.7); `None`: they
    /// stay for ever.
    pub expire: Option<u64>,
}

/// A POP3 session in one of its states.
#[derive(Debug)]
pub enum Session {
    /// The client has yet to say who it is (RFC 1939 §4).
    Authorization(Authorization),
    /// The maildrop is open (RFC 1939 §5).
    Transaction(Transaction),
    /// QUIT was given; what was marked is removed (RFC 1939 §6).
    Update(UpdateState),
}

/// What happened: the client sent something, or a step was taken.
pub enum Input<'a> {
    /// A line, without its line end.
    Line(&'a [u8]),
    /// A line that was too long.
    LineTooLong,
    /// After `StartTls`: the handshake succeeded.
    TlsStarted,
    /// After `Open`: the maildrop is locked and its listing complete.
    Opened(Maildrop, Terms),
    /// After `Open`: it cannot be opened.
    Refused(Refusal),
    /// After `Deliver`: the message was sent, with its terminating dot.
    Delivered {
        /// The message's true size, where all of it passed by.
        octets: Option<u64>,
    },
    /// After `Deliver`: nothing was sent yet, and nothing can be.
    NotDelivered(Refusal),
    /// After `Update`: what became of the marked messages.
    Updated(Outcome),
}

impl fmt::Debug for Input<'_> {
    /// Shows no line: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "Line({} octets)", line.len()),
            Self::LineTooLong => f.write_str("LineTooLong"),
            Self::TlsStarted => f.write_str("TlsStarted"),
            Self::Opened(maildrop, _) => write!(f, "Opened({} messages)", maildrop.len()),
            Self::Refused(refusal) => write!(f, "Refused({refusal:?})"),
            Self::Delivered { octets } => write!(f, "Delivered({octets:?})"),
            Self::NotDelivered(refusal) => write!(f, "NotDelivered({refusal:?})"),
            Self::Updated(outcome) => write!(f, "Updated({outcome:?})"),
        }
    }
}

/// What the driver does next.
#[derive(Debug)]
pub enum Step {
    /// Send this.
    Reply(Response),
    /// Send this, then the lines that [`Session::write_lines`] makes.
    Lines(Response, Lines),
    /// Send `+ `, this challenge (it is in base64) and CRLF.
    Continue(Vec<u8>),
    /// Send this, then begin TLS. What the client has already sent behind the
    /// command came in plaintext: the connection must then end.
    StartTls(Response),
    /// Log in upstream, lock the maildrop and list it. Answered by `Opened` or
    /// `Refused`.
    Open(Credentials),
    /// Send `+OK` and the message, or learn that it cannot be had. Answered by
    /// `Delivered` or `NotDelivered`; a message that breaks off after `+OK` has
    /// no answer: the connection ends without a dot.
    Deliver {
        /// Which message.
        index: MessageIndex,
        /// Its size as far as known.
        octets: u64,
        /// How much of it.
        portion: Portion,
    },
    /// Wait for the client.
    Nothing,
    /// Remove these messages. Answered by `Updated`.
    Update(Update),
    /// Send this, then close the connection.
    Close(Response),
}

impl Session {
    /// A session that begins, in AUTHORIZATION state.
    pub fn new(front: Front) -> Self {
        Self::Authorization(Authorization::new(front))
    }

    /// What the server says first (RFC 1939 §4). No version, and no timestamp
    /// in angle brackets, which would offer APOP.
    pub fn greeting(&self) -> Response {
        Response::ok("popgate ready")
    }

    /// How the next line is to be framed.
    pub fn expects(&self) -> Expects {
        match self {
            Self::Authorization(state) => state.expects(),
            Self::Transaction(_) | Self::Update(_) => Expects::Command,
        }
    }

    /// Takes in what happened. An input that the state does not wait for is a
    /// mistake of the driver: it ends the session, and nothing is deleted.
    pub fn handle(self, input: Input<'_>) -> (Self, Step) {
        match self {
            Self::Authorization(state) => state.handle(input),
            Self::Transaction(state) => state.handle(input),
            Self::Update(state) => state.handle(input),
        }
    }

    /// Whether nobody is logged in yet.
    pub fn is_authorization(&self) -> bool {
        matches!(self, Self::Authorization(_))
    }

    /// The maildrop, once it is open.
    pub fn maildrop(&self) -> Option<&Maildrop> {
        match self {
            Self::Authorization(_) => None,
            Self::Transaction(state) => Some(state.maildrop()),
            Self::Update(state) => Some(state.maildrop()),
        }
    }

    /// Appends roughly `about` octets of a multi-line answer to `out`. Returns
    /// true when the answer is finished, terminating dot included.
    pub fn write_lines(&self, lines: &mut Lines, out: &mut Vec<u8>, about: usize) -> bool {
        let finished = match (&mut lines.0, self) {
            (lines::Kind::Made(made), _) => {
                out.append(made);
                true
            }
            (lines::Kind::Listing { of, next }, Self::Transaction(state)) => {
                state.write_listing(*of, next, out, about)
            }
            (lines::Kind::Listing { .. }, Self::Authorization(_) | Self::Update(_)) => true,
        };
        if finished {
            out.extend_from_slice(lines::END);
        }
        finished
    }
}

/// Counts what a client does wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct BadCommands {
    left: u32,
}

impl BadCommands {
    pub(super) fn new(limit: u32) -> Self {
        Self { left: limit }
    }

    /// Answers a bad command; the last one that is allowed ends the session.
    pub(super) fn answer(&mut self, response: Response) -> Step {
        self.left = self.left.saturating_sub(1);
        match self.left {
            0 => Step::Close(Response::err("too many bad commands")),
            _ => Step::Reply(response),
        }
    }
}

/// The text for a line that was too long.
pub(super) fn line_too_long() -> Response {
    Response::err("line too long")
}

/// The end after a mistake of the driver.
pub(super) fn internal_error() -> Step {
    Step::Close(Response::err("internal error").with_code(ResponseCode::SysTemp))
}

/// LANG, in either state (RFC 6856 §3). The only language is English.
pub(super) fn language(range: Option<&[u8]>) -> Step {
    match range {
        None => Step::Lines(Response::ok("languages"), Lines::made(*b"en English\r\n")),
        Some(b"*") => Step::Reply(Response::ok("en English it is")),
        Some(range) if range.eq_ignore_ascii_case(b"en") => {
            Step::Reply(Response::ok("en English it is"))
        }
        Some(_) => Step::Reply(Response::err("the only language is en")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front() -> Front {
        Front {
            tls_active: false,
            stls_available: true,
            cleartext_login: true,
            mechanisms: Mechanism::ALL.to_vec(),
            bad_command_limit: 20,
            login_delay: None,
            expire: None,
        }
    }

    /// A session that was told `lines`; the driver opened an empty maildrop.
    fn after(lines: &[&str]) -> Session {
        let mut session = Session::new(front());
        for line in lines {
            let (next, step) = session.handle(Input::Line(line.as_bytes()));
            session = match step {
                Step::Open(_) if *line != lines[lines.len() - 1] => {
                    let mut builder = crate::maildrop::MaildropBuilder::default();
                    let id = crate::maildrop::UniqueId::new("a1".into()).unwrap();
                    builder.push(120, &id).unwrap();
                    next.handle(Input::Opened(builder.build().unwrap(), Terms::default()))
                        .0
                }
                _ => next,
            };
        }
        session
    }

    fn answers() -> [Input<'static>; 7] {
        let refusal = || Refusal::new(None, "no");
        [
            Input::Line(b"NOOP"),
            Input::TlsStarted,
            Input::Opened(Maildrop::default(), Terms::default()),
            Input::Refused(refusal()),
            Input::Delivered { octets: None },
            Input::NotDelivered(refusal()),
            Input::Updated(Outcome::default()),
        ]
    }

    /// Which of `answers` a session in this place waits for.
    fn awaited(lines: &[&str]) -> Vec<usize> {
        let mut awaited = Vec::new();
        for index in 0..answers().len() {
            let Some(input) = answers().into_iter().nth(index) else {
                continue;
            };
            let (_, step) = after(lines).handle(input);
            match step {
                Step::Close(response) if response == internal_error_response() => {}
                _ => awaited.push(index),
            }
        }
        awaited
    }

    fn internal_error_response() -> Response {
        match internal_error() {
            Step::Close(response) => response,
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn what_no_state_waits_for_ends_the_session() {
        assert_eq!(awaited(&[]), [0]);
        assert_eq!(awaited(&["USER tim"]), [0]);
        assert_eq!(awaited(&["AUTH PLAIN"]), [0]);
        assert_eq!(awaited(&["STLS"]), [1]);
        let open = ["USER tim", "PASS tanstaaf", "NOOP"];
        assert_eq!(awaited(&open[..2]), [2, 3]);
        assert_eq!(awaited(&open), [0]);
        assert_eq!(awaited(&[&open[..], &["RETR 1"]].concat()), [4, 5]);
        assert_eq!(awaited(&[&open[..], &["TOP 1 0"]].concat()), [4, 5]);
        assert_eq!(awaited(&[&open[..], &["DELE 1", "QUIT"]].concat()), [6]);
        assert!(awaited(&[&open[..], &["QUIT"]].concat()).is_empty());
    }

    #[test]
    fn the_maildrop_is_there_once_it_is_open() {
        assert!(after(&["USER tim", "PASS tanstaaf"]).is_authorization());
        let open = after(&["USER tim", "PASS tanstaaf", "NOOP"]);
        assert!(!open.is_authorization());
        assert_eq!(open.maildrop().map(Maildrop::len), Some(1));
    }

    #[test]
    fn a_listing_comes_in_portions() {
        let mut builder = crate::maildrop::MaildropBuilder::default();
        for number in 0..10_000 {
            let id = crate::maildrop::UniqueId::new(format!("id{number}")).unwrap();
            builder.push(number, &id).unwrap();
        }
        let session = after(&["USER tim", "PASS tanstaaf"]);
        let (session, _) =
            session.handle(Input::Opened(builder.build().unwrap(), Terms::default()));
        let (session, step) = session.handle(Input::Line(b"UIDL"));
        let Step::Lines(_, mut lines) = step else {
            panic!("{step:?}")
        };
        let mut text = String::new();
        let mut portion = Vec::new();
        while !session.write_lines(&mut lines, &mut portion, 4096) {
            assert!((4096..4200).contains(&portion.len()));
            text += std::str::from_utf8(&portion).unwrap();
            portion.clear();
        }
        text += std::str::from_utf8(&portion).unwrap();
        let expected: String = (0..10_000)
            .map(|n| format!("{} id{n}\r\n", n + 1))
            .collect();
        assert_eq!(text, expected + ".\r\n");
    }

    #[test]
    fn debug_shows_no_password() {
        let (session, step) = after(&["USER tim"]).handle(Input::Line(b"PASS tanstaaf"));
        let shown = format!("{:?} {session:?} {step:?}", Input::Line(b"PASS tanstaaf"));
        assert!(!shown.contains("tanstaaf"), "{shown}");
    }
}
