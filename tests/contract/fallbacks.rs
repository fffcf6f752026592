//! What goes over the wire to an IMAP server, with an extension and without. A
//! server that hides an extension still has it, so that only the wire tells.

use std::time::Duration;

use popgate::maildrop::{DeletePolicy, Portion, Update};
use popgate::upstream::UpstreamError;

use crate::imap::{Imap, Protection};
use crate::subject::{CLIENT, Service, Subject, open, plain, read, remove, try_open, whole};
use crate::support::{Answer, ScriptedImap};

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// A whole session: all is read, messages 1 and 3 of 4 leave.
fn session(imap: &Imap, delete: &DeletePolicy) -> Wire {
    imap.deliver(&plain(1..=4));
    run(async {
        let (mut session, _) = open(imap, delete).await;
        for message in 0..4 {
            whole(&mut session, message).await;
            for lines in [0, 3] {
                let portion = Portion::Top { lines };
                read(&mut session, message, portion).await.unwrap();
            }
        }
        if delete.writes() {
            remove(&mut session, &[0, 2]).await;
        }
        session.close().await;
    });
    Wire(imap.commands())
}

struct Wire(Vec<String>);

impl Wire {
    #[track_caller]
    fn says(&self, start: &str) {
        assert!(self.has(start), "no {start} in {:#?}", self.0);
    }

    #[track_caller]
    fn never_says(&self, start: &str) {
        assert!(!self.has(start), "{start} in {:#?}", self.0);
    }

    fn has(&self, start: &str) -> bool {
        self.0.iter().any(|line| line.starts_with(start))
    }

    /// What must not be said to any server: it removes what others marked,
    /// marks mail as read, or names messages by numbers that may shift.
    #[track_caller]
    fn keeps_the_promises(&self) {
        let verbs = [
            "EXPUNGE",
            "CLOSE",
            "STORE",
            "COPY",
            "MOVE",
            "FETCH",
            "SEARCH",
            "APPEND",
            "CREATE",
            "DELETE",
            "SUBSCRIBE",
        ];
        for verb in verbs {
            self.never_says(verb);
        }
        let sets_seen = |line: &&String| line.contains("BODY[") || line.contains("RFC822.TEXT");
        assert_eq!(self.0.iter().find(sets_seen), None);
        assert!(self.0.iter().all(|line| line.len() < 8000));
    }
}

#[test]
fn with_every_extension() {
    let Some(imap) = Imap::dovecot(Protection::None, &[]) else {
        return;
    };
    let wire = session(&imap, &DeletePolicy::Trash);
    wire.keeps_the_promises();
    wire.says("AUTHENTICATE PLAIN ");
    wire.says("LIST (SPECIAL-USE)");
    wire.says("UID SEARCH RETURN (ALL) DELETED");
    wire.says("UID MOVE 1,3 \"Trash\"");
    wire.never_says("UID STORE");
    wire.never_says("UID EXPUNGE");
    wire.says("LOGOUT");
}

#[test]
fn expunging_with_every_extension() {
    let Some(imap) = Imap::dovecot(Protection::None, &[]) else {
        return;
    };
    let wire = session(&imap, &DeletePolicy::Expunge);
    wire.keeps_the_promises();
    wire.says("UID STORE 1,3 +FLAGS.SILENT (\\Deleted)");
    wire.says("UID EXPUNGE 1,3");
    wire.never_says("UID MOVE");
    wire.never_says("UID COPY");
    // No Trash is needed.
    wire.never_says("LIST");
}

#[test]
fn a_session_that_may_not_write_only_looks() {
    let Some(imap) = Imap::dovecot(Protection::None, &[]) else {
        return;
    };
    let wire = session(&imap, &DeletePolicy::Refuse);
    wire.keeps_the_promises();
    wire.says("EXAMINE INBOX");
    for verb in ["SELECT", "UID STORE", "UID MOVE", "UID COPY", "UID EXPUNGE"] {
        wire.never_says(verb);
    }
}

#[test]
fn without_move() {
    let Some(imap) = Imap::dovecot_hiding(&["MOVE"]) else {
        return;
    };
    let wire = session(&imap, &DeletePolicy::Trash);
    wire.keeps_the_promises();
    wire.never_says("UID MOVE");
    wire.says("UID COPY 1,3 \"Trash\"");
    wire.says("UID STORE 1,3 +FLAGS.SILENT (\\Deleted)");
    wire.says("UID EXPUNGE 1,3");
    // Copied first.
    let place = |start: &str| wire.0.iter().position(|line| line.starts_with(start));
    assert!(place("UID COPY") < place("UID STORE"));
}

#[test]
fn without_uidplus() {
    let Some(imap) = Imap::dovecot_hiding(&["UIDPLUS"]) else {
        return;
    };
    let wire = session(&imap, &DeletePolicy::Trash);
    wire.keeps_the_promises();
    wire.says("UID MOVE 1,3 \"Trash\"");
    wire.never_says("UID EXPUNGE");
    wire.never_says("UID STORE");
}

#[test]
fn without_move_and_uidplus_nothing_is_tried() {
    let Some(imap) = Imap::dovecot_hiding(&["MOVE", "UIDPLUS"]) else {
        return;
    };
    imap.deliver(&plain(1..=2));
    for delete in [
        DeletePolicy::TrashIfThere,
        DeletePolicy::Trash,
        DeletePolicy::Expunge,
    ] {
        let upstream = imap.upstream(&delete);
        let refused = run(try_open(&imap, &upstream)).err();
        assert!(
            matches!(refused, Some(UpstreamError::Misconfigured(_))),
            "{delete}: {refused:?}"
        );
    }
    let wire = Wire(imap.commands());
    wire.keeps_the_promises();
    for verb in ["UID MOVE", "UID COPY", "UID STORE", "UID EXPUNGE"] {
        wire.never_says(verb);
    }
}

#[test]
fn without_conveniences() {
    let hidden = ["LITERAL+", "SASL-IR", "ESEARCH", "SPECIAL-USE"];
    let Some(imap) = Imap::dovecot_hiding(&hidden) else {
        return;
    };
    let wire = session(&imap, &DeletePolicy::Trash);
    wire.keeps_the_promises();
    // The response goes on a line of its own.
    wire.never_says("AUTHENTICATE PLAIN ");
    wire.says("AUTHENTICATE PLAIN");
    wire.never_says("LIST (SPECIAL-USE)");
    wire.says("UID SEARCH DELETED");
    wire.never_says("UID SEARCH RETURN");
    wire.says("UID MOVE 1,3 \"Trash\"");
    assert!(!wire.0.iter().any(|line| line.ends_with("+}")));
}

#[test]
fn courier_gets_what_courier_can() {
    let Some(imap) = Imap::courier() else { return };
    let wire = session(&imap, &DeletePolicy::Trash);
    wire.keeps_the_promises();
    wire.says("LOGIN ");
    wire.never_says("AUTHENTICATE");
    wire.says("UID COPY 1,3 \"INBOX.Trash\"");
    wire.says("UID STORE 1,3 +FLAGS.SILENT (\\Deleted)");
    wire.says("UID EXPUNGE 1,3");
    wire.never_says("UID MOVE");
    wire.never_says("UID SEARCH RETURN");
}

/// LOGIN with a password that no quoted string can hold; what was said.
fn login_by_literal(server: &ScriptedImap) -> Vec<String> {
    let upstream = scripted_upstream(server, &DeletePolicy::Refuse);
    let credentials = popgate::sasl::Credentials::password("alice", "gr\u{fc}n").unwrap();
    let refused = run(upstream.login(credentials, CLIENT)).err();
    assert!(
        matches!(refused, Some(UpstreamError::Authentication)),
        "{refused:?}"
    );
    server.commands_starting("LOGIN")
}

fn scripted_upstream(server: &ScriptedImap, delete: &DeletePolicy) -> Service {
    crate::imap::upstream(&server.plain_url(), None, delete)
}

#[test]
fn literals_are_asked_for_unless_the_server_takes_them_unasked() {
    for (announces, braces) in [(true, "{5+}"), (false, "{5}")] {
        let mut hidden = vec!["AUTH=PLAIN", "SASL-IR"];
        if !announces {
            hidden.push("LITERAL+");
        }
        let server = ScriptedImap::builder().without(&hidden).start();
        let said = login_by_literal(&server);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains(braces), "{said:?}");
    }
}

#[test]
fn expunge_waits_for_the_answer_to_store() {
    let server = ScriptedImap::builder()
        .messages(&plain(1..=3))
        .on("UID STORE", |_, _| Answer::Send(Vec::new()))
        .start();
    let upstream = scripted_upstream(&server, &DeletePolicy::Expunge);
    run(async {
        let credentials = popgate::sasl::Credentials::password("alice", "pw-alice").unwrap();
        let mut session = upstream.login(credentials, CLIENT).await.unwrap();
        session.snapshot().await.unwrap();
        let update = Update::new(vec![0]);
        let update = session.update(&update);
        // An EXPUNGE that does not wait would come with the STORE.
        let unfinished = tokio::time::timeout(Duration::from_millis(300), update).await;
        assert!(unfinished.is_err());
    });
    assert_eq!(server.commands_starting("UID STORE").len(), 1);
    assert_eq!(server.commands_starting("UID EXPUNGE").len(), 0);
    assert_eq!(server.uids("INBOX"), [1, 2, 3]);
}
