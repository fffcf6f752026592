//! Each misbehaviour at each command of a session.

use std::sync::{Arc, Mutex};

use super::*;
use crate::support::scripted_imap::{Builder, Command, Mailbox};
use crate::support::{Answer, Authority};

/// What the server does instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misdeed {
    No,
    Bad,
    Bye,
    Garbage,
    WrongTag,
    Continuation,
    Close,
    Reset,
    HalfALine,
    Silence,
    /// These two answer in the end.
    FloodOfExists,
    Chatter,
}

const MISDEEDS: [Misdeed; 12] = [
    Misdeed::No,
    Misdeed::Bad,
    Misdeed::Bye,
    Misdeed::Garbage,
    Misdeed::WrongTag,
    Misdeed::Continuation,
    Misdeed::Close,
    Misdeed::Reset,
    Misdeed::HalfALine,
    Misdeed::Silence,
    Misdeed::FloodOfExists,
    Misdeed::Chatter,
];

const CHATTER: &str = "* OK [ALERT] caf\u{e9} {5}\r\n* 0 RECENT\r\n* XYZZY (a {4}\r\nP1 O)\r\n\
    * NO [X-NEW a b] mind\r\n* BAD so\r\n* 1 FETCH (FLAGS (\\Seen))\r\n* FLAGS ()\r\n";

impl Misdeed {
    fn answer(self, command: &Command) -> Answer {
        match self {
            Self::No => Answer::send(command.no("refused")),
            Self::Bad => Answer::send(command.bad("what?")),
            Self::Bye => Answer::Close(b"* BYE going down\r\n".to_vec()),
            Self::Garbage => Answer::send("%$&! no IMAP\r\n"),
            Self::WrongTag => Answer::send("X9 OK done\r\n"),
            Self::Continuation => Answer::send("+ go on\r\n"),
            Self::Close => Answer::Close(Vec::new()),
            Self::Reset => Answer::Reset(b"* OK wait\r\n".to_vec()),
            Self::HalfALine => Answer::Close(format!("{} OK do", command.tag).into_bytes()),
            Self::Silence => Answer::Hang(Vec::new()),
            Self::FloodOfExists => Answer::SendThenUsual(b"* 2 EXISTS\r\n".repeat(2_000)),
            Self::Chatter => Answer::SendThenUsual(CHATTER.into()),
        }
    }

    fn answers_in_the_end(self) -> bool {
        matches!(self, Self::FloodOfExists | Self::Chatter)
    }
}

/// What is to go wrong now: the beginning of the command, and how.
type Plan = Arc<Mutex<Option<(&'static str, Misdeed)>>>;

fn misbehaving(builder: Builder, plan: &Plan) -> ScriptedImap {
    let plan = Arc::clone(plan);
    builder
        .on("", move |command, _| match *plan.lock().unwrap() {
            Some((stage, misdeed)) if command.name_and_arguments().starts_with(stage) => {
                misdeed.answer(command)
            }
            _ => Answer::Usual,
        })
        .start()
}

/// INBOX as at the beginning.
fn refill(server: &ScriptedImap) {
    let mut world = server.world();
    let inbox = world.inbox();
    *inbox = Mailbox::new("INBOX", None);
    inbox.append(messages::plain(1, 500));
    inbox.append(messages::plain(2, 500));
}

struct Stage<'a> {
    server: &'a ScriptedImap,
    plan: &'a Plan,
    front: &'a mut Front,
}

impl Stage<'_> {
    /// Lets `command` go wrong in each way, and checks what the client sees
    /// with `session`; then, that the next client sees nothing of it.
    fn each(&mut self, command: &'static str, session: impl Fn(&Front, Misdeed)) {
        for misdeed in MISDEEDS {
            refill(self.server);
            *self.plan.lock().unwrap() = Some((command, misdeed));
            eprintln!("{command}: {misdeed:?}");
            session(self.front, misdeed);
            *self.plan.lock().unwrap() = None;
            let left = self.server.uids("INBOX").len();
            self.front.serves_the_next(left);
            let mut world = self.server.world();
            let marked = world.inbox().messages.iter().any(|it| it.is_deleted());
            assert!(!marked, "{command}, {misdeed:?}: a message stays marked");
        }
    }
}

const NOT_REMOVED: &str = "-ERR [SYS/TEMP] 1 messages not removed";

fn refused_login(front: &Front, command: &str, misdeed: Misdeed) {
    let mut client = front.connect();
    client.expect_ok("USER alice");
    let reply = client.command("PASS pw-alice");
    let expected = match (command, misdeed) {
        (_, misdeed) if misdeed.answers_in_the_end() => "+OK",
        // Of all these only this one is about the password.
        ("AUTHENTICATE" | "LOGIN", Misdeed::No) => "-ERR [AUTH] ",
        // Without a search the flags tell.
        ("UID SEARCH", Misdeed::No | Misdeed::Bad) => "+OK",
        _ => "-ERR [SYS/TEMP] ",
    };
    assert!(
        reply.starts_with(expected),
        "{command}, {misdeed:?}: {reply}"
    );
}

fn run(builder: Builder, delete: &str, stages: impl FnOnce(&mut Stage<'_>)) {
    run_over(ScriptedImap::plain_url, "", builder, delete, stages);
}

fn run_over(
    url: impl FnOnce(&ScriptedImap) -> String,
    settings: &str,
    builder: Builder,
    delete: &str,
    stages: impl FnOnce(&mut Stage<'_>),
) {
    let plan = Plan::default();
    let server = misbehaving(builder, &plan);
    let mut front = Front::at(&url(&server), delete, "1s", settings);
    stages(&mut Stage {
        server: &server,
        plan: &plan,
        front: &mut front,
    });
    check_wire(&server);
}

#[test]
fn before_and_at_the_login() {
    run(
        ScriptedImap::builder().greeting("* OK ready"),
        "trash",
        |stage| {
            for command in ["CAPABILITY", "AUTHENTICATE"] {
                stage.each(command, |front, misdeed| {
                    refused_login(front, command, misdeed)
                });
            }
            // Flood and chatter are no greeting, as they stand in front of one.
            stage.each("GREETING", |front, misdeed| {
                let mut client = front.connect();
                client.expect_ok("USER alice");
                let reply = client.command("PASS pw-alice");
                let good = misdeed == Misdeed::Chatter || misdeed == Misdeed::Reset;
                let temporary = reply.starts_with("-ERR [SYS/TEMP] ");
                assert!(
                    temporary || good && reply.starts_with("+OK"),
                    "{misdeed:?}: {reply}"
                );
            });
        },
    );
}

#[test]
fn before_tls_begins() {
    let authority = Authority::new();
    let builder = ScriptedImap::builder().starttls(authority.localhost());
    let trust = format!("ca_file = \"{}\"\n", authority.ca_file().display());
    let url = ScriptedImap::starttls_url;
    run_over(url, &trust, builder, "trash", |stage| {
        stage.each("STARTTLS", |front, misdeed| {
            refused_login(front, "STARTTLS", misdeed)
        });
    });
}

#[test]
fn at_a_login_without_sasl() {
    run(
        ScriptedImap::builder().without(&["AUTH=PLAIN"]),
        "trash",
        |stage| {
            stage.each("LOGIN", |front, misdeed| {
                refused_login(front, "LOGIN", misdeed)
            });
        },
    );
}

#[test]
fn while_the_mailbox_is_opened() {
    run(ScriptedImap::builder(), "trash", |stage| {
        for command in ["LIST", "SELECT", "UID FETCH", "UID SEARCH"] {
            stage.each(command, |front, misdeed| {
                refused_login(front, command, misdeed)
            });
        }
    });
}

#[test]
fn while_messages_are_read() {
    run(ScriptedImap::builder(), "trash", |stage| {
        for (wire, command) in [
            ("UID FETCH 1 (UID BODY.PEEK[])", "RETR 1"),
            ("UID FETCH 1 (UID BODY.PEEK[HEADER])", "TOP 1 0"),
            ("UID FETCH 1 (UID BODY.PEEK[])", "TOP 1 3"),
        ] {
            stage.each(wire, |front, misdeed| {
                let mut client = front.login();
                let reply = client.command(command);
                if misdeed.answers_in_the_end() {
                    assert!(reply.starts_with("+OK"), "{misdeed:?}: {reply}");
                    client.multiline();
                } else {
                    assert!(
                        reply.starts_with("-ERR [SYS/TEMP] "),
                        "{misdeed:?}: {reply}"
                    );
                }
                // The session goes on.
                assert_eq!(client.retrieve(2), messages::plain(2, 500));
                assert!(client.quit().starts_with("+OK"));
            });
        }
    });
}

fn deleting(front: &Front, server_answers: bool, misdeed: Misdeed) {
    let mut client = front.login();
    client.expect_ok("DELE 1");
    let reply = client.quit();
    match server_answers || misdeed.answers_in_the_end() {
        true => assert!(reply.starts_with("+OK"), "{misdeed:?}: {reply}"),
        false => assert_eq!(reply, NOT_REMOVED, "{misdeed:?}"),
    }
}

#[test]
fn while_messages_are_expunged() {
    run(ScriptedImap::builder(), "expunge", |stage| {
        for command in ["UID STORE 1 +FLAGS", "UID EXPUNGE", "UID FETCH 1 (UID)"] {
            stage.each(command, |front, misdeed| deleting(front, false, misdeed));
        }
        stage.each("LOGOUT", |front, misdeed| deleting(front, true, misdeed));
        // The mailbox is selected once more before anything is deleted.
        let plan = Arc::clone(stage.plan);
        stage.each("SELECT", move |front, misdeed| {
            *plan.lock().unwrap() = None;
            let mut client = front.login();
            client.expect_ok("DELE 1");
            *plan.lock().unwrap() = Some(("SELECT", misdeed));
            let reply = client.quit();
            match misdeed.answers_in_the_end() {
                true => assert!(reply.starts_with("+OK"), "{misdeed:?}: {reply}"),
                false => assert_eq!(reply, NOT_REMOVED, "{misdeed:?}"),
            }
        });
    });
}

#[test]
fn while_messages_are_moved() {
    run(ScriptedImap::builder(), "trash", |stage| {
        for command in ["UID MOVE", "UID FETCH 1 (UID)"] {
            stage.each(command, |front, misdeed| deleting(front, false, misdeed));
        }
    });
    run(
        ScriptedImap::builder().without(&["MOVE"]),
        "trash",
        |stage| {
            for command in ["UID COPY", "UID STORE 1 +FLAGS", "UID EXPUNGE"] {
                stage.each(command, |front, misdeed| deleting(front, false, misdeed));
            }
        },
    );
}
