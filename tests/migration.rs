//! A migration, rehearsed for real: clients have read their mail from an old
//! server's own POP3; the mail moves; popgate takes the old server's place with
//! the unique ids imported, and no client downloads anything again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Courier, Cyrus, Dovecot, Fetcher, Gateway, MailServer, messages};

/// Mail as it lies about: plain, with dots, beyond ASCII, one of 300 KB, and two
/// copies of one.
fn usual_mail() -> Vec<Vec<u8>> {
    let mut mail: Vec<Vec<u8>> = (1..=30)
        .map(|number| messages::plain(number, 500 + number % 7 * 211))
        .collect();
    mail.push(messages::plain(31, 300_000));
    mail.push(mail[4].clone());
    for (number, body) in [
        ".\r\n..\r\n.leading\r\n\r\n.\r\nend\r\n",
        "Gr\u{fc}\u{df}e, \u{4f60}\u{597d}\r\n",
        "no line end at the end",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let header = "From: a@example.org\r\nTo: b@example.org\r\nSubject: folded\r\n line\r\n";
        mail.push(
            format!("{header}Message-ID: <x{number}@example.org>\r\n\r\n{body}").into_bytes(),
        );
    }
    mail
}

/// In the form that clients deliver, sorted.
fn as_delivered(mail: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let deliver = |message: &Vec<u8>| {
        let mut octets: Vec<u8> = message.iter().copied().filter(|it| *it != b'\r').collect();
        if !octets.ends_with(b"\n") {
            octets.push(b'\n');
        }
        octets
    };
    let mut all: Vec<Vec<u8>> = mail.iter().map(deliver).collect();
    all.sort();
    all
}

#[track_caller]
fn assert_delivers(fetcher: &Fetcher, port: u16, mail: &[Vec<u8>], what: &str) {
    let delivered = fetcher.fetch(port);
    let kind = fetcher.kind();
    assert_eq!(delivered.len(), mail.len(), "{what}: {kind:?}");
    assert!(delivered == as_delivered(mail), "{what}: {kind:?}");
}

/// Three clients with their state, that have all mail of the old server.
fn clients_of(old: &MailServer, mail: &[Vec<u8>]) -> [Fetcher; 3] {
    let fetchers = Fetcher::all();
    for fetcher in &fetchers {
        assert_delivers(fetcher, old.pop3_port(), mail, "the old server");
        assert_delivers(fetcher, old.pop3_port(), &[], "the old server, again");
    }
    fetchers
}

/// popgate's configuration, in front of the new server.
fn configure(dir: &Path, upstream: &str) -> PathBuf {
    let file = dir.join("popgate.toml");
    let text = format!(
        "pop3 = \"127.0.0.1:0\"\nallow_cleartext = true\nstate = \"state\"\n\
         upstream = \"{upstream}\"\n"
    );
    fs::create_dir_all(dir.join("state")).unwrap();
    fs::write(&file, text).unwrap();
    file
}

/// `popgate uidl import`, and what it says.
fn import(config: &Path, old: &MailServer, more: &[&str]) -> String {
    let from = format!("pop3+plain://localhost:{}", old.pop3_port());
    let output = Command::new(env!("CARGO_BIN_EXE_popgate"))
        .args(["uidl", "import", "--from", &from, "--user", "alice"])
        .arg("--config")
        .arg(config)
        .args(more)
        .env("POPGATE_PASSWORD", "pw-alice")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let complained = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}{complained}");
    assert!(!said.contains("pw-alice") && !complained.contains("pw-alice"));
    said
}

/// What became of the mail on its way.
struct Moved {
    /// In the order in which it came to the new server.
    mail: Vec<Vec<u8>>,
    /// What of it clients must download: the old server never had it, or had a
    /// unique id for it that no server may hand out.
    again: Vec<Vec<u8>>,
}

/// The mail moves to a Dovecot that is served by IMAP.
fn rehearse(old: &MailServer, moved: &Moved, clients: &[Fetcher]) {
    let Some(new) = Dovecot::start() else { return };
    rehearse_with(old, moved, clients, &new, &new.plain_url());
}

/// The mail moves, the ids are imported, and each client meets popgate.
fn rehearse_with(
    old: &MailServer,
    moved: &Moved,
    clients: &[Fetcher],
    new: &MailServer,
    upstream: &str,
) {
    let ids = old.pop3("alice").unique_ids();
    let before = old.contents("alice");
    // Other mail was there before, so that UIDs differ from the old ones.
    for number in 90..=92 {
        new.append("alice", "INBOX", &messages::plain(number, 600));
    }
    new.imap("alice").expunge("INBOX", "1:*");
    let mut imap = new.imap("alice");
    for (at, message) in moved.mail.iter().enumerate() {
        // In JMAP what arrives within a second has no order.
        let time = format!("01-Jan-2026 00:{at:02}:00 +0000");
        imap.append_at("INBOX", &time, message);
    }
    let dir = tempfile::tempdir().unwrap();
    let config = configure(dir.path(), upstream);
    let on_new = new.contents("alice");
    println!("{}", import(&config, old, &["--dry-run"]));
    println!("{}", import(&config, old, &["--yes"]));
    // Run again, it changes nothing.
    import(&config, old, &["--yes"]);
    // It has written to neither mailbox.
    assert_eq!(before.changes(&old.contents("alice")), [""; 0]);
    assert_eq!(on_new.changes(&new.contents("alice")), [""; 0]);

    let gateway = Gateway::start_expecting(1, &["--config".as_ref(), config.as_os_str()]);
    let port = gateway.address("pop3").port();
    let mut pop3 = gateway.pop3();
    pop3.login("alice", "pw-alice");
    let now = pop3.unique_ids();
    let kept: Vec<&String> = now.iter().filter(|id| ids.contains(id)).collect();
    println!("matched: {} of {}", kept.len(), ids.len());
    // The old order stays.
    let in_order: Vec<&String> = ids.iter().filter(|id| now.contains(id)).collect();
    assert_eq!(kept, in_order);
    assert_eq!(kept.len(), moved.mail.len() - moved.again.len());
    drop(pop3);

    for fetcher in clients {
        assert_delivers(fetcher, port, &moved.again, "popgate");
        assert_delivers(fetcher, port, &[], "popgate, again");
    }
    let news = messages::plain(99, 700);
    new.append("alice", "INBOX", &news);
    for fetcher in clients {
        assert_delivers(fetcher, port, std::slice::from_ref(&news), "new mail");
        assert_delivers(fetcher, port, &[], "after new mail");
    }

    // What is deleted in the old order is what was read in it.
    let on_new = new.contents("alice");
    let mut pop3 = gateway.pop3();
    pop3.login("alice", "pw-alice");
    let message = String::from_utf8(pop3.retrieve(17)).unwrap();
    let name = message.split_once("Message-ID: <").unwrap().1;
    let name = name.split('>').next().unwrap();
    pop3.expect_ok("DELE 17");
    assert!(pop3.quit().starts_with("+OK"));
    let changes = [format!("INBOX -{name}"), format!("Trash +{name}")];
    assert_eq!(on_new.changes(&new.contents("alice")), changes);
}

/// A Dovecot with a format of its own; the mail comes in its order.
#[test]
fn from_dovecot() {
    let extra = [("EXTRA", "pop3_uidl_format = %v.%u")];
    let Some(old) = Dovecot::with(&extra) else {
        return;
    };
    let mail = usual_mail();
    for message in &mail {
        old.append("alice", "INBOX", message);
    }
    let clients = clients_of(&old, &mail);
    let moved = Moved {
        mail,
        again: Vec::new(),
    };
    rehearse(&old, &moved, &clients);
}

/// To a Cyrus that is served by JMAP, where copies of a message are one.
#[test]
fn from_dovecot_to_jmap() {
    let (Some(old), Some(new)) = (Dovecot::start(), Cyrus::start()) else {
        return;
    };
    let mut mail = usual_mail();
    let copy = mail.remove(31);
    assert!(mail.contains(&copy));
    for message in &mail {
        old.append("alice", "INBOX", message);
    }
    let clients = clients_of(&old, &mail);
    let moved = Moved {
        mail,
        again: Vec::new(),
    };
    rehearse_with(&old, &moved, &clients, &new, &new.jmap_url());
}

/// A Courier with ids of three ages, none of which can be computed; the mail
/// comes in any order.
#[test]
fn from_courier() {
    let Some(old) = Courier::start() else { return };
    let mail = usual_mail();
    for message in &mail {
        old.append("alice", "INBOX", message);
    }
    age(&old);
    // Courier gives a mailbox its UIDVALIDITY when it is first selected.
    for mailbox in ["Drafts", "Sent", "Trash"] {
        old.imap("alice").ok(&format!("SELECT INBOX.{mailbox}"));
    }
    let clients = clients_of(&old, &mail);
    let count = mail.len();
    // 7 and the count have no common divisor.
    assert_ne!(count % 7, 0);
    let shuffled = (0..count).map(|at| mail[at * 7 % count].clone()).collect();
    // The name of a file may be longer than RFC 1939 §7 allows.
    let mut pop3 = old.pop3("alice");
    let ids = pop3.unique_ids();
    let too_long = (1..=count).filter(|number| ids[number - 1].len() > 70);
    let again = too_long.map(|number| pop3.retrieve(number)).collect();
    drop(pop3);
    let moved = Moved {
        again,
        mail: shuffled,
    };
    rehearse(&old, &moved, &clients);
}

/// Makes some of Courier's ids as older versions of it did: `UID1`, or the name
/// of the file.
fn age(courier: &Courier) {
    assert!(courier.pop3("alice").quit().starts_with("+OK"));
    let file = courier
        .path()
        .join("home/alice/Maildir/courierpop3dsizelist");
    let text = fs::read_to_string(&file).unwrap();
    let mut lines = text.lines();
    let mut aged = format!("{}\n", lines.next().unwrap());
    for (at, line) in lines.enumerate() {
        let (start, numbers) = line.rsplit_once(' ').unwrap();
        let number = numbers.split(':').next().unwrap();
        let numbers = match at % 3 {
            0 => numbers.to_owned(),
            1 => format!("{number}:0:0"),
            _ => "0:0:0".to_owned(),
        };
        aged.push_str(&format!("{start} {numbers}\n"));
    }
    fs::write(&file, aged).unwrap();
    let ids = courier.pop3("alice").unique_ids();
    assert!(ids.iter().any(|id| !id.starts_with("UID")), "{ids:?}");
    assert!(ids.iter().any(|id| !id.contains('-')), "{ids:?}");
}

/// A Cyrus; one message is lost on the way, and others have come before
/// popgate did.
#[test]
fn from_cyrus() {
    let Some(old) = Cyrus::start() else { return };
    let mail = usual_mail();
    for message in &mail {
        old.append("alice", "INBOX", message);
    }
    let clients = clients_of(&old, &mail);
    let mut on_the_way = mail;
    on_the_way.remove(9);
    let new: Vec<Vec<u8>> = (40..=42)
        .map(|number| messages::plain(number, 600))
        .collect();
    on_the_way.insert(0, new[0].clone());
    on_the_way.insert(17, new[1].clone());
    on_the_way.push(new[2].clone());
    let moved = Moved {
        mail: on_the_way,
        again: new,
    };
    rehearse(&old, &moved, &clients);
}
