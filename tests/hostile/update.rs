//! The update at QUIT: what leaves the mailbox is what was deleted, the answer
//! is true, and nothing is left half done.

use super::*;
use crate::support::scripted_imap::{Builder, Mailbox};
use crate::support::{Action, Answer, Direction, Fault, FaultProxy, Place};

fn delete_all(front: &Front, count: usize) -> String {
    let mut client = front.login();
    for number in 1..=count {
        client.expect_ok(&format!("DELE {number}"));
    }
    client.quit()
}

fn flagged(server: &ScriptedImap) -> Vec<u32> {
    let mut world = server.world();
    let messages = &world.inbox().messages;
    let deleted = messages.iter().filter(|it| it.is_deleted());
    deleted.map(|it| it.uid).collect()
}

fn count(server: &ScriptedImap, start: &str) -> usize {
    server.commands_starting(start).len()
}

#[test]
fn a_server_that_says_ok_and_removes_nothing_is_not_believed() {
    for (policy, command) in [("expunge", "UID EXPUNGE"), ("trash", "UID MOVE")] {
        let server = builder(3)
            .on(command, |command, _| Answer::send(command.ok("done")))
            .start();
        let mut front = Front::new(&server, policy);
        let reply = delete_all(&front, 2);
        assert_eq!(reply, "-ERR [SYS/TEMP] 2 messages not removed");
        assert_eq!(count(&server, command), 2, "once more and no more");
        assert_eq!((flagged(&server), server.uids("INBOX").len()), (vec![], 3));
        front.serves_the_next(3);
        check_wire(&server);
    }
}

#[test]
fn a_second_try_may_do_it() {
    for without in [&[][..], &["MOVE"]] {
        let server = builder(6)
            .without(without)
            .on("UID MOVE", |command, world| {
                // The first half only, as if another client were in the way.
                if command.nth == 0 {
                    for uid in 1..=3 {
                        let message = world.inbox().remove(uid).unwrap();
                        world.mailbox("Trash").unwrap().receive(message);
                    }
                    return Answer::send(command.ok("moved"));
                }
                Answer::Usual
            })
            .on("UID EXPUNGE", |command, world| {
                if command.nth == 0 {
                    world.inbox().messages.retain(|it| it.uid > 3);
                    return Answer::send(command.ok("done"));
                }
                Answer::Usual
            })
            .start();
        let front = Front::new(&server, "trash");
        assert!(delete_all(&front, 6).starts_with("+OK"));
        assert!(server.uids("INBOX").is_empty());
        // No copy was made twice.
        assert_eq!(server.uids("Trash").len(), 6, "{without:?}");
        check_wire(&server);
    }
}

#[test]
fn what_is_left_is_counted_and_unmarked() {
    let server = builder(5)
        .on("UID EXPUNGE", |command, world| {
            world
                .inbox()
                .messages
                .retain(|it| it.uid != 1 && it.uid != 4);
            Answer::send(command.ok("done"))
        })
        .start();
    let mut front = Front::new(&server, "expunge");
    let reply = delete_all(&front, 4);
    assert_eq!(reply, "-ERR [SYS/TEMP] 2 messages not removed");
    assert_eq!(
        (server.uids("INBOX"), flagged(&server)),
        (vec![2, 3, 5], vec![])
    );
    front.serves_the_next(3);
}

#[test]
fn what_other_clients_marked_stays() {
    for (policy, without) in [("expunge", &[][..]), ("trash", &[]), ("trash", &["MOVE"])] {
        let server = builder(5)
            .without(without)
            .world(|world| {
                world
                    .inbox()
                    .message(3)
                    .unwrap()
                    .set_flag("\\Deleted", true)
            })
            .start();
        let front = Front::new(&server, policy);
        let mut client = front.login();
        assert_eq!(client.sizes().len(), 4);
        client.expect_ok("DELE 1");
        client.expect_ok("DELE 3");
        // Another client marks one of them while the session lasts.
        server
            .world()
            .inbox()
            .message(5)
            .unwrap()
            .set_flag("\\Deleted", true);
        assert!(client.quit().starts_with("+OK"));
        assert_eq!(server.uids("INBOX"), [2, 3, 5]);
        assert_eq!(flagged(&server), [3, 5]);
        check_wire(&server);
    }
}

#[test]
fn nothing_is_written_before_quit() {
    let server = builder(3).start();
    let front = Front::new(&server, "expunge");
    let mut client = front.login();
    for command in ["DELE 1", "DELE 2", "RSET", "DELE 3", "NOOP", "STAT"] {
        client.expect_ok(command);
    }
    client.retrieve(1);
    client.expect_ok("TOP 2 0");
    client.multiline();
    drop(client);
    server.wait_until_closed();
    for write in [
        "UID STORE",
        "UID EXPUNGE",
        "UID MOVE",
        "UID COPY",
        "STORE",
        "EXPUNGE",
        "CLOSE",
    ] {
        assert_eq!(count(&server, write), 0, "{write}");
    }
    assert_eq!((server.uids("INBOX").len(), flagged(&server)), (3, vec![]));
}

#[test]
fn expunge_waits_for_store() {
    // Were they sent together, the second would come all the same.
    let server = builder(2)
        .on("UID STORE 1 +FLAGS", |command, _| {
            Answer::send(command.no("no"))
        })
        .start();
    let front = Front::new(&server, "expunge");
    assert_eq!(
        delete_all(&front, 1),
        "-ERR [SYS/TEMP] 1 messages not removed"
    );
    assert_eq!(count(&server, "UID STORE 1 +FLAGS"), 1);
    assert_eq!(count(&server, "UID EXPUNGE"), 0);
}

#[test]
fn another_uidvalidity_means_other_messages() {
    let server = builder(3).start();
    let mut front = Front::new(&server, "expunge");
    let mut client = front.login();
    client.expect_ok("DELE 1");
    server.world().inbox().uid_validity += 1;
    assert_eq!(client.quit(), "-ERR [SYS/TEMP] 1 messages not removed");
    assert_eq!(
        (server.uids("INBOX").len(), count(&server, "UID STORE")),
        (3, 0)
    );
    front.serves_the_next(3);
}

#[test]
fn another_uidvalidity_after_a_reconnection_means_other_messages() {
    let server = builder(3)
        .on("UID FETCH 1 (UID BODY", |command, _| {
            match command.connection {
                0 => Answer::Close(b"* BYE Session expired\r\n".to_vec()),
                _ => Answer::Usual,
            }
        })
        .start();
    let mut front = Front::new(&server, "expunge");
    let mut client = front.login();
    client.expect_ok("DELE 2");
    server.world().inbox().uid_validity += 1;
    let refusal = client.expect_err("RETR 1");
    assert!(is_temporary(&refusal), "{refusal}");
    assert_eq!(count(&server, "UID FETCH 1 (UID BODY"), 1);
    assert_eq!(client.quit(), "-ERR [SYS/TEMP] 1 messages not removed");
    assert_eq!(server.uids("INBOX").len(), 3);
    front.serves_the_next(3);
}

#[test]
fn a_session_outlives_its_upstream_connection() {
    let server = builder(3)
        .on("UID FETCH 1 (UID BODY", |command, _| {
            match command.connection {
                0 => Answer::Close(b"* BYE Session expired\r\n".to_vec()),
                _ => Answer::Usual,
            }
        })
        .start();
    let front = Front::new(&server, "trash");
    let mut client = front.login();
    assert_eq!(client.retrieve(1), messages::plain(1, 500));
    client.expect_ok("DELE 1");
    assert!(client.quit().starts_with("+OK"));
    assert_eq!(
        (server.uids("INBOX"), server.connections()),
        (vec![2, 3], 2)
    );
}

#[test]
fn a_password_that_is_refused_at_the_reconnection_was_good_before() {
    let server = builder(2)
        .on("UID FETCH 1 (UID BODY", |_, _| Answer::Close(Vec::new()))
        .on("AUTHENTICATE", |command, _| match command.connection {
            0 => Answer::Usual,
            _ => Answer::send(command.no("[AUTHENTICATIONFAILED] no")),
        })
        .start();
    let front = Front::new(&server, "trash");
    let mut client = front.login();
    let refusal = client.expect_err("RETR 1");
    assert!(is_temporary(&refusal), "{refusal}");
}

#[test]
fn a_throttle_during_the_update_leaves_nothing_marked() {
    let server = builder(2)
        .on("UID EXPUNGE", |command, _| {
            Answer::send(
                command.no("Request is throttled. Suggested Backoff Time: 600000 milliseconds"),
            )
        })
        .start();
    let front = Front::new(&server, "expunge");
    assert_eq!(
        delete_all(&front, 1),
        "-ERR [SYS/TEMP] 1 messages not removed"
    );
    assert_eq!((flagged(&server), server.uids("INBOX").len()), (vec![], 2));
    // It is left alone for as long as it asked.
    let refusal = front.login_refusal();
    assert!(is_temporary(&refusal), "{refusal}");
    assert_eq!(server.connections(), 1);
}

#[test]
fn long_sets_are_cut_and_each_part_is_whole() {
    let server = scattered(3000).start();
    let front = Front::new(&server, "trash");
    assert!(delete_all(&front, 3000).starts_with("+OK"));
    assert!(server.uids("INBOX").is_empty());
    assert_eq!(server.uids("Trash").len(), 3000);
    assert!(count(&server, "UID MOVE") > 1);
    check_wire(&server);
}

/// Messages with UIDs so far apart that they make no ranges.
fn scattered(count: u32) -> Builder {
    ScriptedImap::builder().world(|world| {
        let mut inbox = Mailbox::new("INBOX", None);
        for number in 0..count {
            inbox.uid_next = 4_000_000_000 + 2 * number;
            inbox.append(&b"Subject: x\r\n\r\nx\r\n"[..]);
        }
        world.mailboxes[0] = inbox;
    })
}

/// Breaks the connection at each place of the update, and compares the answer
/// with the mailbox.
#[test]
fn whatever_breaks_the_answer_is_true() {
    let places = [
        (Direction::ToServer, "SELECT"),
        (Direction::ToServer, "UID STORE"),
        (Direction::ToServer, "UID EXPUNGE"),
        (Direction::ToServer, "UID MOVE"),
        (Direction::ToServer, "UID FETCH 1:2 (UID)"),
        (Direction::ToClient, " EXPUNGE\r\n"),
        (Direction::ToClient, "COPYUID"),
    ];
    for (direction, octets) in places {
        for behind in [false, true] {
            for action in [Action::Cut, Action::Reset, Action::Stall] {
                for policy in ["expunge", "trash"] {
                    if action == Action::Stall && !behind {
                        // As behind what came before, and slow.
                        continue;
                    }
                    let server = builder(3).start();
                    // The second SELECT belongs to the update.
                    let nth = if octets == "SELECT" { 2 } else { 1 };
                    let place = Place::Pattern {
                        octets,
                        nth,
                        behind,
                    };
                    let proxy =
                        FaultProxy::start(server.address(), move |connection| match connection {
                            0 => vec![Fault::At(direction, place.clone(), action)],
                            _ => Vec::new(),
                        });
                    let front = front_of(&proxy, policy);
                    let reply = delete_all(&front, 2);
                    let left = server.uids("INBOX");
                    let what = format!("{octets:?} {behind} {action:?} {policy}: {reply}");
                    match reply.starts_with("+OK") {
                        true => assert_eq!(left, [3], "{what}"),
                        false => assert!(reply.starts_with("-ERR [SYS/TEMP] "), "{what}"),
                    }
                    assert!(left.contains(&3), "{what}");
                    let trash = server.uids("Trash").len();
                    assert_eq!(
                        trash,
                        if policy == "trash" { 3 - left.len() } else { 0 },
                        "{what}"
                    );
                    assert!(flagged(&server).is_empty(), "{what}");
                    check_wire(&server);
                }
            }
        }
    }
}

fn front_of(proxy: &FaultProxy, policy: &str) -> Front {
    Front::at(
        &format!("imap+plain://127.0.0.1:{}", proxy.port()),
        policy,
        "1s",
        "",
    )
}
