//! What popgate keeps for itself where the upstream cannot keep it.

use std::fs;

use crate::site::{Popgate, delete, shown};
use crate::support::{Courier, messages};

fn courier_without_keywords() -> Option<Courier> {
    let courier = Courier::with(&[("KEYWORDS", "0")])?;
    for number in 1..=5 {
        courier.append("alice", "INBOX", &messages::plain(number, 600));
    }
    // Courier gives a mailbox its UIDVALIDITY when it is first selected.
    for mailbox in ["Drafts", "Sent", "Trash"] {
        courier.imap("alice").ok(&format!("SELECT INBOX.{mailbox}"));
    }
    Some(courier)
}

/// Where messages can have no keywords, the store hides them; nothing at all
/// changes upstream.
#[test]
fn messages_are_hidden_by_the_store() {
    let Some(courier) = courier_without_keywords() else {
        return;
    };
    let before = courier.contents("alice");
    let mut popgate = Popgate::start(&courier.plain_url(), "delete = \"hide\"");
    delete(popgate.alice(), &[2, 4]);
    popgate.crash();
    let mut pop3 = popgate.alice();
    assert_eq!(shown(&mut pop3), [1, 3, 5]);
    // A crash before QUIT hides nothing.
    pop3.expect_ok("DELE 1");
    popgate.crash();
    assert_eq!(shown(&mut popgate.alice()), [1, 3, 5]);
    delete(popgate.alice(), &[3]);
    popgate.crash();
    assert_eq!(shown(&mut popgate.alice()), [1, 3]);
    assert_eq!(before.changes(&courier.contents("alice")), [""; 0]);
    // Others' messages are not the same, whatever their UIDs.
    for number in 1..=2 {
        courier.append("bob", "INBOX", &messages::plain(number, 600));
    }
    let mut pop3 = popgate.gateway().pop3();
    pop3.login("bob", "pw-bob");
    assert_eq!(shown(&mut pop3), [1, 2]);
}

fn validity_of_passing(courier: &Courier) -> String {
    let mut imap = courier.imap("alice");
    let mut told = imap.ok("STATUS INBOX.Passing (UIDVALIDITY)");
    told.remove(0).text
}

/// What was hidden was a message, not a number: in a folder that was deleted and
/// made again, UIDs begin at 1 again (RFC 3501 §2.3.1.1).
#[test]
fn a_folder_that_is_made_again_hides_nothing() {
    let Some(courier) = courier_without_keywords() else {
        return;
    };
    let config = "delete = \"hide\"\nfolders = [\"Passing\"]";
    let popgate = Popgate::start(&courier.plain_url(), config);
    let make = |first: usize| {
        courier.imap("alice").ok("CREATE INBOX.Passing");
        for number in first..first + 3 {
            courier.append("alice", "INBOX.Passing", &messages::plain(number, 600));
        }
    };
    make(1);
    delete(popgate.alice(), &[1, 2]);
    let mut pop3 = popgate.alice();
    assert_eq!(shown(&mut pop3), [3]);
    let ids = pop3.unique_ids();
    drop(pop3);
    // Courier takes UIDVALIDITY from the clock.
    let validity = validity_of_passing(&courier);
    while validity_of_passing(&courier) == validity {
        courier.imap("alice").ok("DELETE INBOX.Passing");
        make(11);
    }
    let mut pop3 = popgate.alice();
    assert_eq!(shown(&mut pop3), [11, 12, 13]);
    assert!(!pop3.unique_ids().contains(&ids[0]));
}

/// A store that cannot be read is never taken for an empty one: all that was
/// hidden would be there again.
#[test]
fn a_damaged_store_is_no_empty_store() {
    let Some(courier) = courier_without_keywords() else {
        return;
    };
    for (damage, config) in [
        ("cut", "delete = \"hide\""),
        ("garbage", "delete = \"hide\""),
        ("empty", "delete = \"hide\""),
        ("half", "delete = \"hide\""),
        // What it holds of unique ids matters under every policy.
        ("garbage", ""),
    ] {
        let mut popgate = Popgate::start(&courier.plain_url(), config);
        let pop3 = popgate.alice();
        if config.is_empty() {
            drop(pop3);
        } else {
            delete(pop3, &[1]);
        }
        popgate.crash_and(|state| {
            let mut files = 0;
            for entry in fs::read_dir(state).unwrap() {
                let path = entry.unwrap().path();
                if !path.is_file() || path.extension().is_some_and(|it| it == "lock") {
                    continue;
                }
                files += 1;
                let octets = fs::read(&path).unwrap();
                let damaged = match damage {
                    "cut" => octets[..octets.len() - 1000.min(octets.len())].to_vec(),
                    "garbage" => octets.iter().map(|it| it ^ 0x5a).collect(),
                    "half" => octets[..octets.len() / 2].to_vec(),
                    _ => Vec::new(),
                };
                fs::write(&path, damaged).unwrap();
            }
            assert!(files > 0);
        });
        let reply = popgate.refused("alice");
        assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{damage}: {reply}");
        let logs = popgate.gateway().logs();
        assert!(logs.contains("state"), "{damage}: {logs}");
    }
}
