//! Migrations from real servers: mail is copied by IMAP as it is, and what their
//! own POP3 listed is served by popgate.

use super::support::{Dovecot, MailServer, Pop3, courier, cyrus, dovecot, messages};
use super::{Uidl, message};

/// The unique ids that a server's own POP3 lists, in its order.
fn listed(server: &MailServer, user: &str) -> Vec<String> {
    let mut client = Pop3::connect(([127, 0, 0, 1], server.pop3_port()).into());
    client.login(user, &format!("pw-{user}"));
    client.unique_ids()
}

/// Copies the mail; no UID is what it was.
fn copy(from: &MailServer, to: &MailServer, user: &str) {
    to.append(user, "INBOX", &message("first", 1));
    to.imap(user).expunge("INBOX", "1");
    for stored in from.mailbox(user, "INBOX") {
        to.append(user, "INBOX", &stored.octets);
    }
}

/// Copies, imports by each way there is to the old server, and compares.
fn migrates(old: &MailServer, new: &Dovecot, url: &str, arguments: &[&str]) {
    let uidl = Uidl::new(&new.imaps_url()).with_ca(&new.ca_file());
    migrates_to(&uidl, old, new, url, arguments);
}

fn migrates_to(uidl: &Uidl, old: &MailServer, new: &MailServer, url: &str, arguments: &[&str]) {
    let expected = listed(old, "alice");
    let before = (old.mailbox("alice", "INBOX"), new.mailbox("alice", "INBOX"));
    let mut dry = vec!["--dry-run"];
    dry.extend(arguments);
    let dry = uidl.imported(url, &dry);
    assert_eq!(dry["frozen"], 0);
    assert_ne!(uidl.served(), expected);
    let report = uidl.imported(url, arguments);
    assert_eq!(report["matched"], expected.len(), "{report}");
    assert_eq!(report["frozen"], expected.len(), "{report}");
    assert_eq!(uidl.served(), expected);
    let again = uidl.imported(url, arguments);
    assert_eq!(again["already_frozen"], expected.len(), "{again}");
    assert_eq!(again["frozen"], 0);
    let after = (old.mailbox("alice", "INBOX"), new.mailbox("alice", "INBOX"));
    assert_eq!(before, after);
}

fn mail() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (1..=40)
        .map(|n| message(&format!("m{n}"), n * 13))
        .collect();
    all.extend(messages::awkward().into_iter().skip(1).take(1));
    // Copies, and messages of one size.
    all.push(all[3].clone());
    all.push(message("one", 100));
    all.push(message("two", 100));
    all
}

#[test]
fn from_dovecots_pop3_by_every_way_in() {
    let (Some(old), Some(new)) = (dovecot(), dovecot()) else {
        return;
    };
    for message in mail() {
        old.append("alice", "INBOX", &message);
    }
    copy(&old, &new, "alice");
    let ca_file = old.ca_file();
    let ca_file = ["--from-ca-file", ca_file.to_str().unwrap()];
    let plain = format!("pop3+plain://127.0.0.1:{}", old.pop3_port());
    let stls = format!("pop3+stls://localhost:{}", old.pop3_port());
    let tls = format!("pop3s://localhost:{}", old.pop3s_port());
    migrates(&old, &new, &plain, &[]);
    migrates(&old, &new, &stls, &ca_file);
    migrates(&old, &new, &tls, &ca_file);
    migrates(&old, &new, &tls, &[ca_file[0], ca_file[1], "--by-header"]);
}

#[test]
fn from_couriers_pop3() {
    let (Some(old), Some(new)) = (courier(), dovecot()) else {
        return;
    };
    for message in mail() {
        old.append("alice", "INBOX", &message);
    }
    copy(&old, &new, "alice");
    let url = format!("pop3+plain://127.0.0.1:{}", old.pop3_port());
    migrates(&old, &new, &url, &[]);
}

#[test]
fn from_cyruss_pop3() {
    let (Some(old), Some(new)) = (cyrus(), dovecot()) else {
        return;
    };
    for message in mail() {
        old.append("alice", "INBOX", &message);
    }
    copy(&old, &new, "alice");
    let url = format!("pop3+plain://127.0.0.1:{}", old.pop3_port());
    migrates(&old, &new, &url, &[]);
}

#[test]
fn to_a_server_that_speaks_jmap() {
    let (Some(old), Some(new)) = (dovecot(), cyrus()) else {
        return;
    };
    // Cyrus has copies of one message only once in a folder.
    let mut mail = mail();
    mail.sort();
    mail.dedup();
    for message in mail {
        old.append("alice", "INBOX", &message);
    }
    copy(&old, &new, "alice");
    let url = format!("pop3+plain://127.0.0.1:{}", old.pop3_port());
    let uidl = Uidl::new(&new.jmap_url());
    migrates_to(&uidl, &old, &new, &url, &[]);
}

#[test]
fn what_has_changed_meanwhile_is_reported_and_the_rest_imported() {
    let (Some(old), Some(new)) = (dovecot(), dovecot()) else {
        return;
    };
    for message in mail() {
        old.append("alice", "INBOX", &message);
    }
    copy(&old, &new, "alice");
    let mut expected = listed(&old, "alice");
    // The new side has lost the second message, and has two new ones.
    new.imap("alice").expunge("INBOX", "3");
    new.append("alice", "INBOX", &message("new", 26));
    new.append("alice", "INBOX", &message("newer", 5000));
    let uidl = Uidl::new(&new.imaps_url()).with_ca(&new.ca_file());
    let url = format!("pop3+plain://127.0.0.1:{}", old.pop3_port());
    let report = uidl.imported(&url, &[]);
    let lost = expected.remove(1);
    assert_eq!(report["matched"], expected.len(), "{report}");
    assert_eq!(report["unmatched_old"][0]["unique_id"], lost.as_str());
    assert_eq!(report["unmatched_new"].as_array().unwrap().len(), 2);
    let served = uidl.served();
    assert_eq!(served[..expected.len()], expected);
    assert_eq!(served.len(), expected.len() + 2);
    // Mail that comes later is only new.
    new.append("alice", "INBOX", &message("latest", 1));
    let later = uidl.served();
    assert_eq!(later[..served.len()], served);
    assert_eq!(later.len(), served.len() + 1);
}

#[test]
fn another_certificate_is_not_believed() {
    let (Some(old), Some(new)) = (dovecot(), dovecot()) else {
        return;
    };
    let uidl = Uidl::new(&new.imaps_url()).with_ca(&new.ca_file());
    let ca_file = new.ca_file();
    for url in [
        format!("pop3s://localhost:{}", old.pop3s_port()),
        format!("pop3+stls://localhost:{}", old.pop3_port()),
    ] {
        let run = uidl.import(&url, &["--from-ca-file", ca_file.to_str().unwrap()]);
        assert_eq!(run.code, 1);
        assert!(run.out.contains("FAILED: old server: TLS"), "{}", run.out);
    }
}
