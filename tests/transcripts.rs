//! Conversations with a session, as `tests/transcripts/README.md` explains.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use popgate::maildrop::{Maildrop, MaildropBuilder, Outcome, Portion, UniqueId};
use popgate::pop3::{
    Announced, Framed, Front, Input, LineBuffer, Refusal, ResponseCode, Session, Step, Terms,
};
use popgate::sasl::{Credentials, Mechanism};

#[test]
fn every_transcript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "pop3")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 50, "only {} transcripts found", files.len());
    let failures: Vec<_> = files
        .iter()
        .filter_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy();
            run(&text).err().map(|failure| format!("{name}:{failure}"))
        })
        .collect();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

#[test]
fn a_transcript_that_is_wrong_fails() {
    let starts = "# Wrong.\nfront: tls\n\n";
    for wrong in [
        "S: +OK popgate read",
        "S: -ERR…",
        "",
        "S: +OK…\nC: QUIT",
        "S: +OK…\nC: QUIT\nS: +OK…",
        "S: +OK…\nC: QUIT\nS: +OK…\n> close\n> close",
        "S: +OK…\n> open",
        "S: +OK…\n< opened\nS: +OK…",
    ] {
        assert!(run(&format!("{starts}{wrong}\n")).is_err(), "{wrong:?}");
    }
    assert!(run("S: +OK…\n").is_err(), "no comment");
    assert_eq!(
        run(&format!("{starts}S: +OK…\nC: QUIT\nS: +OK…\n> close\n")),
        Ok(())
    );
}

/// Runs one transcript; an error is `line: what is wrong`.
fn run(text: &str) -> Result<(), String> {
    if !text.starts_with("# ") {
        return Err("1: a transcript begins with a comment".into());
    }
    let mut header = Header::default();
    let mut conversation: Option<Conversation> = None;
    let mut number = 0;
    for line in text.lines() {
        number += 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let taken = match (kind, &mut conversation) {
            ("front:" | "terms:" | "maildrop:" | "login:", None) => header.take(kind, rest),
            (kind, conversation) => {
                let conversation =
                    conversation.get_or_insert_with(|| Conversation::new(header.clone()));
                conversation.take(kind, rest)
            }
        };
        taken.map_err(|failure| format!("{number}: {failure}"))?;
    }
    let Some(mut conversation) = conversation else {
        return Err("no conversation".into());
    };
    conversation
        .settled()
        .map_err(|failure| format!("{number}: {failure}"))
}

#[derive(Clone)]
struct Header {
    front: Front,
    terms: Terms,
    messages: Vec<(u64, UniqueId)>,
    login: Option<String>,
}

impl Default for Header {
    fn default() -> Self {
        let front = Front {
            tls_active: false,
            stls_available: true,
            cleartext_login: false,
            mechanisms: Mechanism::ALL.to_vec(),
            bad_command_limit: 20,
            login_delay: None,
            expire: None,
        };
        Self {
            front,
            terms: Terms::default(),
            messages: Vec::new(),
            login: None,
        }
    }
}

impl Header {
    fn take(&mut self, kind: &str, rest: &str) -> Result<(), String> {
        match kind {
            "front:" => rest
                .split(", ")
                .try_for_each(|setting| self.front_setting(setting)),
            "terms:" => rest
                .split(", ")
                .try_for_each(|setting| self.terms_setting(setting)),
            "maildrop:" => {
                let (octets, unique_id) = rest.split_once(' ').ok_or("octets and unique id")?;
                let octets = octets.parse().map_err(|_| "octets")?;
                let unique_id = UniqueId::new(unique_id.to_owned()).ok_or("unique id")?;
                self.messages.push((octets, unique_id));
                Ok(())
            }
            _ => {
                self.login = Some(rest.to_owned());
                Ok(())
            }
        }
    }

    fn front_setting(&mut self, setting: &str) -> Result<(), String> {
        let front = &mut self.front;
        match setting.split_once(' ').unwrap_or((setting, "")) {
            ("tls", "") => front.tls_active = true,
            ("no-stls", "") => front.stls_available = false,
            ("cleartext", "") => front.cleartext_login = true,
            ("login-delay", said) => front.login_delay = Some(announced(said)?),
            ("expire", said) => front.expire = Some(announced(said)?),
            ("limit", limit) => front.bad_command_limit = limit.parse().map_err(|_| "limit")?,
            ("mechanisms", "none") => front.mechanisms.clear(),
            ("mechanisms", names) => {
                front.mechanisms = names
                    .split(' ')
                    .filter_map(Mechanism::from_name)
                    .collect::<Vec<_>>();
            }
            _ => return Err(format!("unknown setting {setting}")),
        }
        Ok(())
    }

    fn terms_setting(&mut self, setting: &str) -> Result<(), String> {
        let terms = &mut self.terms;
        let number = |text: &str| text.parse().map_err(|_| format!("a number: {text}"));
        match setting.split_once(' ').unwrap_or((setting, "")) {
            ("deletion-refused", "") => terms.deletion_refused = true,
            ("updates-always", "") => terms.updates_always = true,
            ("login-delay", seconds) => terms.login_delay = Some(number(seconds)?),
            ("expire", days) => terms.expire = Some(number(days)?),
            _ => return Err(format!("unknown setting {setting}")),
        }
        Ok(())
    }

    fn maildrop(&self) -> Maildrop {
        let mut builder = MaildropBuilder::default();
        for (octets, unique_id) in &self.messages {
            builder.push(*octets, unique_id).unwrap();
        }
        builder.build().unwrap()
    }
}

/// `300`, or `300 user` where some users have another value.
fn announced(said: &str) -> Result<Announced, String> {
    let (value, differs) = match said.strip_suffix(" user") {
        Some(value) => (value, true),
        None => (said, false),
    };
    let value = value.parse().map_err(|_| format!("a number: {said}"))?;
    Ok(Announced { value, differs })
}

/// A driver without I/O.
struct Conversation {
    header: Header,
    /// `None` after Close.
    session: Option<Session>,
    input: LineBuffer,
    /// Client lines are collected until something else comes.
    sending: bool,
    /// The session has asked something that is not answered yet.
    asked: bool,
    output: VecDeque<Vec<u8>>,
}

impl Conversation {
    fn new(header: Header) -> Self {
        let session = Session::new(header.front.clone());
        let mut conversation = Self {
            header,
            session: None,
            input: LineBuffer::new(),
            sending: false,
            asked: false,
            output: VecDeque::new(),
        };
        conversation.send(&session.greeting(), b"");
        conversation.session = Some(session);
        if let Some(user) = conversation.header.login.clone() {
            conversation
                .input
                .push(format!("USER {user}\r\nPASS tanstaaf\r\n").as_bytes());
            conversation.drain();
            conversation.answer("opened").unwrap();
            conversation.output.clear();
        }
        conversation
    }

    fn take(&mut self, kind: &str, rest: &str) -> Result<(), String> {
        if kind != "C:" {
            self.drain();
        }
        match kind {
            "C:" => {
                if !self.sending {
                    self.settled()?;
                }
                self.sending = true;
                self.input.push(&octets(rest)?);
                self.input.push(b"\r\n");
                Ok(())
            }
            "S:" => self.expect(octets(rest)?),
            ">" => self.expect(format!("> {rest}").into_bytes()),
            "<" => {
                self.settled()?;
                self.answer(rest)
            }
            _ => Err(format!("unknown line kind {kind}")),
        }
    }

    fn expect(&mut self, expected: Vec<u8>) -> Result<(), String> {
        let shown = |octets: &[u8]| octets.escape_ascii().to_string();
        let Some(found) = self.output.pop_front() else {
            return Err(format!("expected {}, but nothing came", shown(&expected)));
        };
        let as_expected = match expected.strip_suffix("…".as_bytes()) {
            Some(start) => found.starts_with(start),
            None => found == expected,
        };
        if as_expected {
            Ok(())
        } else {
            Err(format!(
                "expected {}, found {}",
                shown(&expected),
                shown(&found)
            ))
        }
    }

    /// All that came out was in the transcript, and nothing is left to read.
    fn settled(&mut self) -> Result<(), String> {
        self.drain();
        if let Some(unexpected) = self.output.front() {
            return Err(format!("unexpected {}", unexpected.escape_ascii()));
        }
        Ok(())
    }

    fn drain(&mut self) {
        self.sending = false;
        while !self.asked {
            let Some(session) = self.session.take() else {
                break;
            };
            let input = match self.input.next(session.expects()) {
                Some(Framed::Line(line)) => Input::Line(line),
                Some(Framed::TooLong) => Input::LineTooLong,
                None => {
                    self.session = Some(session);
                    break;
                }
            };
            let (session, step) = session.handle(input);
            self.step(session, step);
        }
    }

    fn answer(&mut self, answer: &str) -> Result<(), String> {
        let (what, rest) = answer.split_once(' ').unwrap_or((answer, ""));
        let input = match what {
            "tls" => Input::TlsStarted,
            "opened" => Input::Opened(self.header.maildrop(), self.header.terms),
            "refused" => Input::Refused(refusal(rest)),
            "delivered" => Input::Delivered {
                octets: rest.parse().ok(),
            },
            "not-delivered" => Input::NotDelivered(refusal(rest)),
            "updated" => {
                let (removed, remaining) = rest.split_once("remaining").unwrap_or((rest, ""));
                let indices = |numbers: &str| {
                    numbers
                        .split_whitespace()
                        .map(|n| n.parse::<usize>().unwrap() - 1)
                        .collect()
                };
                Input::Updated(Outcome {
                    removed: indices(removed),
                    remaining: indices(remaining),
                    ..Outcome::default()
                })
            }
            _ => return Err(format!("unknown answer {what}")),
        };
        let session = self.session.take().ok_or("the session is closed")?;
        self.asked = false;
        let (session, step) = session.handle(input);
        self.step(session, step);
        self.drain();
        Ok(())
    }

    fn step(&mut self, session: Session, step: Step) {
        let mut closed = false;
        match step {
            Step::Reply(response) => self.send(&response, b""),
            Step::Lines(response, mut lines) => {
                let mut out = Vec::new();
                while !session.write_lines(&mut lines, &mut out, 10) {}
                self.send(&response, &out);
            }
            Step::Continue(challenge) => {
                self.output
                    .push_back([b"+ ", challenge.as_slice()].concat());
            }
            Step::StartTls(response) => {
                self.send(&response, b"");
                self.ask("tls".into());
            }
            Step::Open(Credentials::Password {
                user,
                authorize_as,
                password,
            }) => {
                let other = authorize_as
                    .map(|other| format!(" as {other}"))
                    .unwrap_or_default();
                self.ask(format!(
                    "open {user}{other}, password \"{}\"",
                    password.reveal()
                ));
            }
            Step::Open(Credentials::Bearer { user, token }) => {
                self.ask(format!("open {user}, token {}", token.reveal()));
            }
            Step::Deliver {
                index,
                octets,
                portion,
            } => {
                let portion = match portion {
                    Portion::Whole => "whole".to_owned(),
                    Portion::Top { lines } => format!("top {lines}"),
                };
                self.ask(format!(
                    "deliver {} ({octets} octets), {portion}",
                    index + 1
                ));
            }
            Step::Nothing => {}
            Step::Update(update) => {
                let numbers = |indices: &[usize]| {
                    let numbers = indices.iter().map(|index| format!(" {}", index + 1));
                    numbers.collect::<String>()
                };
                let mut question = format!("update{}", numbers(update.delete()));
                if !update.retrieved().is_empty() {
                    question += &format!(", retrieved{}", numbers(update.retrieved()));
                }
                self.ask(question);
            }
            Step::Close(response) => {
                self.send(&response, b"");
                self.output.push_back(b"> close".to_vec());
                closed = true;
            }
        }
        self.session = (!closed).then_some(session);
    }

    fn ask(&mut self, question: String) {
        self.output.push_back(format!("> {question}").into_bytes());
        self.asked = true;
    }

    fn send(&mut self, response: &popgate::pop3::Response, lines: &[u8]) {
        let mut out = Vec::new();
        response.write_to(&mut out);
        out.extend_from_slice(lines);
        let out = out.strip_suffix(b"\r\n").expect("output ends with CRLF");
        let text = String::from_utf8(out.to_vec()).expect("output is text");
        self.output
            .extend(text.split("\r\n").map(|line| line.as_bytes().to_vec()));
    }
}

fn refusal(text: &str) -> Refusal {
    use ResponseCode::*;
    let codes = [Auth, InUse, LoginDelay, SysTemp, SysPerm, Utf8];
    for code in codes {
        if let Some(text) = text.strip_prefix(code.as_str()) {
            return Refusal::new(Some(code), text.trim_start().to_owned());
        }
    }
    Refusal::new(None, text.to_owned())
}

/// The octets that a `C:` or `S:` line stands for.
fn octets(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(place) = rest.find(['\\', '{']) {
        octets.extend_from_slice(&rest.as_bytes()[..place]);
        let special = &rest[place..];
        if let Some(inner) = special.strip_prefix('{') {
            let (inner, after) = inner.split_once('}').ok_or("no closing brace")?;
            let (what, argument) = inner.split_once(' ').ok_or("{base64 text} or {300 x}")?;
            let argument = self::octets(argument)?;
            if what == "base64" {
                octets.extend_from_slice(BASE64.encode(argument).as_bytes());
            } else {
                let times = what.parse().map_err(|_| format!("{what} times"))?;
                octets.extend_from_slice(&argument.repeat(times));
            }
            rest = after;
        } else {
            let escape = special.get(1..2).ok_or("a backslash at the end")?;
            let mut length = 2;
            octets.push(match escape {
                "0" => 0,
                "r" => b'\r',
                "n" => b'\n',
                "s" => b' ',
                "\\" => b'\\',
                "x" => {
                    length = 4;
                    let hex = special.get(2..4).ok_or("two hex digits")?;
                    u8::from_str_radix(hex, 16).map_err(|_| "two hex digits")?
                }
                _ => return Err(format!("unknown escape {escape}")),
            });
            rest = &special[length..];
        }
    }
    octets.extend_from_slice(rest.as_bytes());
    Ok(octets)
}
