//! The connection breaks at each command of a session, before the command is
//! carried out or behind it: what is said to QUIT agrees with the mailbox.

use std::sync::Mutex;

use popgate::maildrop::SeenPolicy;

use super::*;
use support::Answer;

/// When the connection breaks.
#[derive(Clone, Copy, Debug)]
enum Break {
    Before,
    Behind,
}

/// A server whose connection breaks at its `nth` command, counted over all
/// connections; with how many commands it was given.
fn breaking(nth: usize, how: Break) -> (ScriptedImap, Arc<Mutex<usize>>) {
    let all: Vec<Vec<u8>> = (1..=4).map(|it| messages::plain(it, 300)).collect();
    let count = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&count);
    let server = ScriptedImap::builder()
        .messages(&all)
        .world(|world| {
            let mut archive = support::scripted_imap::Mailbox::new("Archive", Some("\\Archive"));
            for number in 5..=6 {
                archive.append(messages::plain(number, 300));
            }
            world.mailboxes.push(archive);
        })
        .on("", move |command, _| {
            if command.name == "GREETING" {
                return Answer::Usual;
            }
            let mut count = counted.lock().unwrap();
            *count += 1;
            match how {
                _ if *count != nth + 1 => Answer::Usual,
                Break::Before => Answer::Close(Vec::new()),
                Break::Behind => Answer::UsualThenClose,
            }
        })
        .start();
    (server, count)
}

/// A session that reads two messages and deletes two, with the connection broken
/// at each command in turn. `is_done` tells of a message by UID whether it was
/// disposed of.
fn holds(policy: &Policy, marked: &[usize], is_done: impl Fn(&ScriptedImap, usize) -> bool) {
    for how in [Break::Before, Break::Behind] {
        for nth in 0.. {
            let (server, count) = breaking(nth, how);
            let store = TempStore::new();
            let gateway = scripted(&server, Some(store.clone()));
            let Ok((mut session, _)) = run(try_open(&gateway, policy)) else {
                // The login itself failed: nothing was touched.
                for message in marked {
                    assert!(!is_done(&server, *message), "{how:?} {nth}");
                }
                continue;
            };
            for message in marked.iter().take(2) {
                // May fail at the break.
                let _ = run(try_retrieve(&mut session, *message));
            }
            let update = Update::with_retrieved(marked.to_vec(), marked.to_vec());
            let outcome = run(session.update(&update));
            let removed = outcome.map_or(Vec::new(), |outcome| outcome.removed);
            for message in marked {
                let told = removed.contains(message);
                let done = is_done(&server, *message);
                assert_eq!(told, done, "{how:?} {nth}: message {message}");
            }
            run(session.close());
            if *count.lock().unwrap() <= nth {
                // Nothing broke: all of it was tried.
                assert_eq!(removed, marked);
                break;
            }
        }
    }
}

fn has_flag(server: &ScriptedImap, message: usize, flag: &str) -> bool {
    let uid = u32::try_from(message + 1).unwrap();
    let mut world = server.world();
    world.inbox().message(uid).unwrap().has_flag(flag)
}

fn is_in(server: &ScriptedImap, message: usize, mailbox: &str) -> bool {
    let mut world = server.world();
    let held = &world.mailbox(mailbox).unwrap().messages;
    held.iter().any(|it| number(&it.octets) == message + 1)
}

#[test]
fn marking_as_read() {
    let sees = policy(DeletePolicy::Seen);
    holds(&sees, &[0, 2], |server, message| {
        has_flag(server, message, "\\Seen")
    });
}

#[test]
fn hiding_by_keyword() {
    let hides = policy(DeletePolicy::Hide);
    holds(&hides, &[0, 2], |server, message| {
        has_flag(server, message, "$POP3Deleted")
    });
}

#[test]
fn archiving_what_was_marked_as_read() {
    let archives = Policy {
        seen: SeenPolicy::OnQuit,
        ..policy(DeletePolicy::Archive)
    };
    holds(&archives, &[0, 2], |server, message| {
        let left = !is_in(server, message, "INBOX");
        assert!(!left || is_in(server, message, "Archive"), "lost");
        left
    });
}

#[test]
fn deleting_from_two_folders() {
    let joined = Policy {
        seen: SeenPolicy::OnRetr,
        ..folders(&["INBOX", "Archive"])
    };
    holds(&joined, &[0, 2, 5], |server, message| {
        let left = !is_in(server, message, "INBOX") && !is_in(server, message, "Archive");
        assert!(!left || is_in(server, message, "Trash"), "lost");
        left
    });
}
