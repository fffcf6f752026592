//! An upstream that refuses an update, only pretends to do it, or talks
//! nonsense meanwhile.

use crate::support::scripted_imap::{Command, World};
use crate::support::{Answer, Gateway, Pop3, ScriptedImap, messages};

type Handler = fn(&Command, &mut World) -> Answer;

/// What the upstream may answer to a command of the update.
const ANSWERS: &[(&str, Handler)] = &[
    ("NO", |command, _| Answer::send(command.no("not today"))),
    ("BAD", |command, _| Answer::send(command.bad("what?"))),
    ("OK, undone", |command, _| Answer::send(command.ok("done"))),
    ("[AUTHENTICATIONFAILED]", |command, _| {
        Answer::send(command.no("[AUTHENTICATIONFAILED] who are you"))
    }),
    ("BYE", |_, _| Answer::Close(b"* BYE see you\r\n".to_vec())),
    ("garbage", |_, _| Answer::send("\u{1}\u{2} ((((\r\n")),
    ("another tag", |_, _| Answer::send("XX9 OK done\r\n")),
    ("reset", |_, _| Answer::Reset(Vec::new())),
    ("done, then reset", |_, _| Answer::UsualThenClose),
    ("flood", |_, world| {
        let count = world.inbox().messages.len();
        let flood = format!("* {count} EXISTS\r\n* 0 RECENT\r\n").repeat(2000);
        Answer::SendThenUsual(flood.into_bytes())
    }),
];

/// Policies, what the upstream cannot do, and the commands that this leads to.
const FLOWS: &[(&str, &[&str], &[&str])] = &[
    ("trash", &[], &["UID MOVE"]),
    (
        "trash",
        &["MOVE"],
        &["UID COPY", "UID STORE", "UID EXPUNGE"],
    ),
    ("expunge", &[], &["UID STORE", "UID EXPUNGE"]),
];

fn login(gateway: &Gateway) -> Pop3 {
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    client
}

fn flags(server: &ScriptedImap) -> Vec<(u32, Vec<String>)> {
    let mut world = server.world();
    let messages = &world.inbox().messages;
    messages
        .iter()
        .map(|message| (message.uid, message.flags.clone()))
        .collect()
}

/// Deletes messages 1 and 3 of 4 while a command is answered so, on the first
/// connection or on all of them.
fn delete_beside(
    (policy, lacking): (&str, &[&str]),
    command: &'static str,
    handler: Handler,
    always: bool,
    what: &str,
) {
    let sent: Vec<Vec<u8>> = (1..=4).map(|number| messages::plain(number, 400)).collect();
    let server = ScriptedImap::builder()
        .without(lacking)
        .messages(&sent)
        .on(command, move |command, world| {
            if always || command.connection == 0 {
                handler(command, world)
            } else {
                Answer::Usual
            }
        })
        .start();
    let arguments = ["--allow-cleartext", "--delete", policy];
    let gateway = Gateway::with_fresh_connections(&server.plain_url(), &arguments);
    let mut client = login(&gateway);
    client.expect_ok("DELE 1");
    client.expect_ok("DELE 3");
    let reply = client.quit();

    let now = flags(&server);
    let left: Vec<&(u32, Vec<String>)> = now.iter().filter(|(uid, _)| uid % 2 == 1).collect();
    let others: Vec<&(u32, Vec<String>)> = now.iter().filter(|(uid, _)| uid % 2 == 0).collect();
    assert_eq!(others, [&(2, vec![]), &(4, vec![])], "{what}");
    if reply.starts_with("+OK") {
        assert!(left.is_empty(), "{what}: {reply}: {left:?}");
    } else {
        let count = left.len();
        let expected = format!("-ERR [SYS/TEMP] {count} messages not removed");
        // Where no connection lives long enough, what is gone is not known.
        let unknown = "-ERR [SYS/TEMP] 2 messages not removed".to_owned();
        assert!(
            reply == expected || always && reply == unknown,
            "{what}: {reply}"
        );
        let answered = ["NO", "BAD", "OK, undone"]
            .iter()
            .any(|it| what.contains(it));
        if answered {
            assert!(
                left.iter().all(|(_, flags)| flags.is_empty()),
                "{what}: {left:?}"
            );
        }
    }
    // Nothing goes on behind the reply.
    server.wait_until_closed();
    assert_eq!(flags(&server), now, "{what}");
    // What was said to be there is shown again, and marked no more.
    let visible = login(&gateway).sizes().len();
    let expected = match reply.starts_with("+OK") {
        true => 2,
        false => now.len(),
    };
    assert_eq!(visible, expected, "{what}: {reply}");
    assert!(
        flags(&server).iter().all(|(_, flags)| flags.is_empty()),
        "{what}"
    );
}

#[test]
fn the_reply_agrees_whatever_the_upstream_answers() {
    for (policy, lacking, commands) in FLOWS {
        for command in *commands {
            for (name, handler) in ANSWERS {
                for always in [false, true] {
                    let what = format!("{policy}, {command}: {name}, always: {always}");
                    delete_beside((policy, lacking), command, *handler, always, &what);
                }
            }
        }
    }
}

#[test]
fn a_changed_uidvalidity_deletes_nothing() {
    let sent: Vec<Vec<u8>> = (1..=3).map(|number| messages::plain(number, 400)).collect();
    for policy in ["trash", "expunge"] {
        let server = ScriptedImap::builder().messages(&sent).start();
        let arguments = ["--allow-cleartext", "--delete", policy];
        let gateway = Gateway::with_fresh_connections(&server.plain_url(), &arguments);
        let mut client = login(&gateway);
        client.expect_ok("DELE 1");
        client.expect_ok("DELE 2");
        server.world().inbox().uid_validity += 1;
        assert_eq!(client.quit(), "-ERR [SYS/TEMP] 2 messages not removed");
        assert_eq!(server.uids("INBOX"), [1, 2, 3]);
        for verb in ["UID MOVE", "UID STORE", "UID EXPUNGE", "UID COPY"] {
            assert!(server.commands_starting(verb).is_empty(), "{verb}");
        }
    }
}

#[test]
fn a_changed_uidvalidity_reads_no_other_message() {
    let sent: Vec<Vec<u8>> = (1..=3).map(|number| messages::plain(number, 400)).collect();
    let server = ScriptedImap::builder()
        .messages(&sent)
        .on("UID FETCH 2 ", |command, world| {
            if command.connection > 0 {
                return Answer::Usual;
            }
            // Another mailbox of the same name, when the connection is back.
            world.inbox().uid_validity += 1;
            world.inbox().messages.reverse();
            for (uid, message) in (1..).zip(&mut world.inbox().messages) {
                message.uid = uid;
            }
            Answer::Close(Vec::new())
        })
        .start();
    let gateway = Gateway::with_fresh_connections(&server.plain_url(), &["--allow-cleartext"]);
    let mut client = login(&gateway);
    assert_eq!(client.retrieve(1), sent[0]);
    for number in [2, 1, 3] {
        let refused = client.expect_err(&format!("RETR {number}"));
        assert!(refused.starts_with("[SYS/TEMP]"), "{refused}");
    }
}
