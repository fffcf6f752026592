//! AUTHORIZATION state (RFC 1939 §4): who is there?

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::capability::{State, capabilities};
use super::command::Command;
use super::line::Expects;
use super::lines::Lines;
use super::response::{Refusal, Response, ResponseCode};
use super::session::{self, BadCommands, Front, Input, Session, Step};
use super::transaction::Transaction;
use crate::sasl::{self, Credentials, Mechanism, Progress, SaslError, ServerExchange};

/// Nobody is logged in yet.
#[derive(Debug)]
pub struct Authorization {
    front: Front,
    bad_commands: BadCommands,
    awaits: Awaits,
}

/// What comes next.
#[derive(Debug)]
enum Awaits {
    /// A command; USER was given, or not.
    Command { user: Option<String> },
    /// The client's response in a SASL exchange.
    Response(ServerExchange),
    /// The client's answer to the challenge that announced failure.
    FailureAnswer(Refusal),
    /// The end of the TLS handshake.
    Tls,
    /// Word from upstream.
    Maildrop { failure: Option<&'static [u8]> },
}

const COMMAND: Awaits = Awaits::Command { user: None };

impl Authorization {
    pub(super) fn new(front: Front) -> Self {
        let bad_commands = BadCommands::new(front.bad_command_limit);
        Self {
            front,
            bad_commands,
            awaits: COMMAND,
        }
    }

    pub(super) fn expects(&self) -> Expects {
        match self.awaits {
            Awaits::Response(_) | Awaits::FailureAnswer(_) => Expects::Continuation,
            Awaits::Command { .. } | Awaits::Tls | Awaits::Maildrop { .. } => Expects::Command,
        }
    }

    pub(super) fn handle(mut self, input: Input<'_>) -> (Session, Step) {
        let step = match (std::mem::replace(&mut self.awaits, COMMAND), input) {
            (Awaits::Command { user }, Input::Line(line)) => self.command(user, line),
            (Awaits::Command { user }, Input::LineTooLong) => {
                self.awaits = Awaits::Command { user };
                self.bad_commands.answer(session::line_too_long())
            }
            (Awaits::Response(exchange), Input::Line(line)) => self.response(exchange, line),
            (Awaits::Response(_), Input::LineTooLong) => {
                self.bad_commands.answer(session::line_too_long())
            }
            // Whatever it is: the exchange has failed.
            (Awaits::FailureAnswer(refusal), Input::Line(_) | Input::LineTooLong) => {
                Step::Reply(refusal.into())
            }
            (Awaits::Tls, Input::TlsStarted) => {
                self.front.tls_active = true;
                Step::Nothing
            }
            (Awaits::Maildrop { .. }, Input::Opened(maildrop, terms)) => {
                let state = Transaction::new(self.front, self.bad_commands, maildrop, terms);
                let welcome = state.welcome();
                return (Session::Transaction(state), Step::Reply(welcome));
            }
            (Awaits::Maildrop { failure }, Input::Refused(refusal)) => {
                self.refused(refusal, failure)
            }
            _ => session::internal_error(),
        };
        (Session::Authorization(self), step)
    }

    fn command(&mut self, user: Option<String>, line: &[u8]) -> Step {
        // RFC 1939 §7 has PASS follow USER at once. Here the user is known
        // until a login is tried: some clients ask CAPA in between.
        let (user, step) = match Command::parse(line) {
            Err(error) => (user, self.bad(Response::err(error.text()))),
            Ok(Command::User(name)) => self.user_command(name),
            Ok(Command::Pass(password)) => return self.pass(user, password.0),
            Ok(Command::Auth {
                mechanism,
                initial_response,
            }) => {
                return self.auth(mechanism, initial_response.map(|response| response.0));
            }
            Ok(Command::AuthList) => (user, self.auth_list()),
            Ok(Command::Stls) if self.front.stls_offered() => {
                // RFC 2595 §4: what was said before is forgotten. RFC 6856 §2.1
                // lets servers refuse STLS after UTF8; that would only keep
                // a client in cleartext.
                self.awaits = Awaits::Tls;
                return Step::StartTls(Response::ok("begin TLS"));
            }
            Ok(Command::Stls) if self.front.tls_active => {
                (user, self.bad(Response::err("TLS is active already")))
            }
            // fetchmail tries STLS without asking CAPA.
            Ok(Command::Stls) => (user, Step::Reply(Response::err("TLS is not available"))),
            Ok(Command::Capa) => {
                let lines = Lines::made(capabilities(&self.front, State::Authorization));
                (user, Step::Lines(Response::ok("capabilities"), lines))
            }
            // Messages pass as they are, so that the mode changes nothing.
            Ok(Command::Utf8) => (user, Step::Reply(Response::ok("UTF-8"))),
            Ok(Command::Lang(range)) => (user, session::language(range)),
            Ok(Command::Apop) => (
                user,
                self.bad(Response::err("APOP is not supported: use USER or AUTH")),
            ),
            Ok(Command::Quit) => (None, Step::Close(Response::ok("bye"))),
            Ok(
                Command::Stat
                | Command::List(_)
                | Command::Retr(_)
                | Command::Dele(_)
                | Command::Noop
                | Command::Rset
                | Command::Top(..)
                | Command::Uidl(_),
            ) => (user, self.bad(Response::err("log in first"))),
        };
        self.awaits = Awaits::Command { user };
        step
    }

    fn user_command(&mut self, name: &str) -> (Option<String>, Step) {
        if let Some(refusal) = self.password_login_refused() {
            return (None, Step::Reply(refusal));
        }
        match sasl::check_user(name) {
            Ok(()) => (
                Some(name.to_owned()),
                Step::Reply(Response::ok("send PASS")),
            ),
            Err(error) => (None, self.bad(malformed(error))),
        }
    }

    fn pass(&mut self, user: Option<String>, password: &str) -> Step {
        if let Some(refusal) = self.password_login_refused() {
            return Step::Reply(refusal);
        }
        let Some(user) = user else {
            return self.bad(Response::err("send USER first"));
        };
        match Credentials::password(&user, password) {
            Ok(credentials) => self.open(credentials, None),
            Err(error) => self.bad(malformed(error)),
        }
    }

    fn auth(&mut self, mechanism: &str, initial_response: Option<&[u8]>) -> Step {
        if !self.front.login_allowed() {
            return Step::Reply(tls_required());
        }
        let known = Mechanism::from_name(mechanism)
            .filter(|mechanism| self.front.mechanisms.contains(mechanism));
        let Some(mechanism) = known else {
            return self.bad(Response::err("unknown mechanism"));
        };
        let initial_response = match initial_response {
            None => None,
            // RFC 5034 §4: an empty initial response.
            Some(b"=") => Some(Zeroizing::new(Vec::new())),
            Some(encoded) => match decoded(encoded) {
                Some(response) => Some(response),
                None => return self.bad(bad_base64()),
            },
        };
        let initial_response = initial_response
            .as_ref()
            .map(|response| response.as_slice());
        self.progress(
            mechanism,
            ServerExchange::start(mechanism, initial_response),
        )
    }

    fn auth_list(&mut self) -> Step {
        if !self.front.login_allowed() {
            return Step::Reply(tls_required());
        }
        let mut lines = Vec::new();
        for mechanism in &self.front.mechanisms {
            lines.extend_from_slice(mechanism.name().as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        Step::Lines(Response::ok("mechanisms"), Lines::made(lines))
    }

    fn response(&mut self, exchange: ServerExchange, line: &[u8]) -> Step {
        let mut line = line;
        while let Some(shorter) = line.strip_suffix(b" ") {
            line = shorter;
        }
        if line == b"*" {
            return Step::Reply(Response::err("cancelled"));
        }
        let Some(response) = decoded(line) else {
            return self.bad(bad_base64());
        };
        self.progress(exchange.mechanism(), exchange.step(&response))
    }

    fn progress(&mut self, mechanism: Mechanism, progress: Result<Progress, SaslError>) -> Step {
        match progress {
            Ok(Progress::Challenge(exchange, challenge)) => {
                self.awaits = Awaits::Response(exchange);
                Step::Continue(BASE64.encode(challenge).into_bytes())
            }
            Ok(Progress::Credentials(credentials)) => self.open(credentials, mechanism.failure()),
            Err(error) => self.bad(malformed(error)),
        }
    }

    fn open(&mut self, credentials: Credentials, failure: Option<&'static [u8]>) -> Step {
        self.awaits = Awaits::Maildrop { failure };
        Step::Open(credentials)
    }

    /// After a refusal the session goes on, and the user must be named again.
    ///
    /// A token that is wrong fails in two steps: RFC 7628 §3.2.2 and Google's
    /// XOAUTH2 have the server say so in a challenge, the client answer with a
    /// dummy, and only then the exchange fail. Clients know that from Gmail,
    /// where OAuth over POP3 comes from; they must not take it for a failure of
    /// the token when the mailbox is in use or the upstream is away.
    fn refused(&mut self, refusal: Refusal, failure: Option<&'static [u8]>) -> Step {
        match failure {
            Some(challenge) if refusal.code() == Some(ResponseCode::Auth) => {
                self.awaits = Awaits::FailureAnswer(refusal);
                Step::Continue(BASE64.encode(challenge).into_bytes())
            }
            _ => Step::Reply(refusal.into()),
        }
    }

    fn password_login_refused(&self) -> Option<Response> {
        if !self.front.login_allowed() {
            Some(tls_required())
        } else if !self.front.password_login() {
            let text = "login by password is not possible here: use AUTH";
            Some(Response::err(text).with_code(ResponseCode::SysPerm))
        } else {
            None
        }
    }

    fn bad(&mut self, response: Response) -> Step {
        self.bad_commands.answer(response)
    }
}

/// `[SYS/PERM]`: somebody has to change a setting. Not `[AUTH]`: the password
/// may be right (RFC 3206 §4).
fn tls_required() -> Response {
    Response::err("login is possible only under TLS").with_code(ResponseCode::SysPerm)
}

fn bad_base64() -> Response {
    Response::err("bad base64")
}

fn malformed(error: SaslError) -> Response {
    match error {
        SaslError::Malformed => Response::err("malformed credentials"),
        SaslError::Empty => {
            Response::err("empty user name or password").with_code(ResponseCode::Auth)
        }
    }
}

/// Decodes base64 into memory that is wiped.
fn decoded(encoded: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut response = Zeroizing::new(vec![0; base64::decoded_len_estimate(encoded.len())]);
    let octets = BASE64.decode_slice(encoded, &mut response).ok()?;
    response.truncate(octets);
    Some(response)
}
