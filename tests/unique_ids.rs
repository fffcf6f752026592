//! Unique ids against the real thing: a mail server's own POP3 and popgate, set
//! to the same format, list one mailbox, line by line alike.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{Cyrus, Dovecot, Gateway, ImapClient, MailServer, messages};

/// popgate in front of `upstream`, with lines of a configuration file. The
/// folder of the file lasts as long as popgate does.
fn popgate(upstream: &str, config: &str) -> (Gateway, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("popgate.toml");
    let text = format!(
        "pop3 = \"127.0.0.1:0\"\nallow_cleartext = true\nupstream = \"{upstream}\"\n{config}\n"
    );
    std::fs::write(&file, text).unwrap();
    let arguments = ["--config".as_ref(), file.as_os_str()];
    (Gateway::start_expecting(1, &arguments), dir)
}

/// A mailbox with gaps, with one message that was delivered twice, and with one
/// that was copied there twice.
fn fill(server: &MailServer) {
    let mut imap = server.imap("alice");
    for number in 1..=14 {
        imap.append("INBOX", &messages::plain(number, 600));
    }
    imap.append("INBOX", &messages::plain(5, 600));
    imap.append("Sent", &messages::plain(15, 600));
    imap.ok("SELECT Sent");
    imap.ok("UID COPY 1 INBOX");
    imap.ok("UID COPY 1 INBOX");
    imap.expunge("INBOX", "3:4,9");
}

/// What the server's own POP3 lists is what popgate lists.
fn assert_same(server: &MailServer, unique_ids: &str) {
    let own = server.pop3("alice").lines("UIDL");
    assert!(own.len() >= 12, "{unique_ids}: {own:?}");
    let config = format!("unique_ids = \"{unique_ids}\"");
    let (gateway, _dir) = popgate(&server.plain_url(), &config);
    let mut pop3 = gateway.pop3();
    pop3.login("alice", "pw-alice");
    assert_eq!(pop3.lines("UIDL"), own, "{unique_ids}");
    let one = pop3.expect_ok("UIDL 7");
    assert_eq!(one, own[6], "{unique_ids}");
}

fn uid_validity(imap: &mut ImapClient) -> String {
    let opened = imap.ok("EXAMINE INBOX");
    let found = opened
        .iter()
        .find_map(|response| response.text.split_once("[UIDVALIDITY "));
    found.unwrap().1.split(']').next().unwrap().to_owned()
}

/// One format of Dovecot's after the other, and what popgate is told so that it
/// makes the same: the format itself pastes over.
fn dovecot(pop3_uidl_format: &str, same: &[&str]) {
    let line = format!("pop3_uidl_format = {pop3_uidl_format}");
    let Some(dovecot) = Dovecot::with(&[("EXTRA", &line)]) else {
        return;
    };
    fill(&dovecot);
    for unique_ids in same {
        assert_same(&dovecot, unique_ids);
    }
}

#[test]
fn dovecot_by_default() {
    let Some(dovecot) = Dovecot::start() else {
        return;
    };
    fill(&dovecot);
    for unique_ids in [
        "%08Xu%08Xv",
        "dovecot",
        "%{uid | hex(8)}%{uidvalidity | hex(8)}",
        "%{uid|hex(8)}%{uidvalidity|hex(8)}",
    ] {
        assert_same(&dovecot, unique_ids);
    }
    // And when nothing is said.
    let own = dovecot.pop3("alice").lines("UIDL");
    let (gateway, _dir) = popgate(&dovecot.plain_url(), "");
    let mut pop3 = gateway.pop3();
    pop3.login("alice", "pw-alice");
    assert_eq!(pop3.lines("UIDL"), own);
}

#[test]
fn dovecot_with_formats_of_uid_and_uidvalidity() {
    dovecot("%v.%u", &["%v.%u", "dovecot-0.99", "cyrus"]);
    dovecot("%u", &["%u", "cyrus-uidonly", "james"]);
    dovecot("%08Xv%08Xu", &["%08Xv%08Xu", "uw"]);
    dovecot("UID%u-%v", &["UID%u-%v"]);
    dovecot("%v-%u", &["%v-%u"]);
    dovecot("%Xu.%Xv", &["%Xu.%Xv"]);
    // Without the zero, a width cuts and does not pad.
    dovecot("%4Xu_%12Xv.%3v", &["%4Xu_%12Xv.%3v"]);
    dovecot("%02u.%04Xv", &["%02u.%04Xv"]);
    dovecot("%v%u", &["%v%u", "stalwart"]);
}

/// A message's GUID, which Dovecot tells over IMAP too. Copies share it; told to,
/// Dovecot renames them.
#[test]
fn dovecot_with_the_guid() {
    dovecot("%g\npop3_uidl_duplicates = rename", &["%g"]);
    dovecot("%g.%u", &["%g.%u", "%{guid}.%{uid}"]);
}

/// The MD5 of a message's header, which Dovecot has for mbox only, and there
/// tells as the GUID.
#[test]
fn dovecot_with_the_md5_of_the_header() {
    dovecot(
        "%m\nmail_location = mbox:~/mail:INBOX=~/mbox",
        &["%m", "%g"],
    );
}

/// The name of a message's file, which no IMAP server tells. The GUID is the
/// same for what was delivered there, and another for what was copied there.
#[test]
fn dovecot_with_the_file_name() {
    let Some(dovecot) = Dovecot::with(&[("EXTRA", "pop3_uidl_format = %f")]) else {
        return;
    };
    fill(&dovecot);
    dovecot.imap("alice").expunge("INBOX", "16:*");
    assert_same(&dovecot, "%f");
}

#[test]
fn cyrus() {
    for (uidl_format, same) in [
        ("", &["cyrus", "%v.%u"][..]),
        ("uidl_format: cyrus", &["cyrus", "%v.%u"]),
        ("uidl_format: uidonly", &["cyrus-uidonly", "%u", "james"]),
        (
            "uidl_format: dovecot",
            &["cyrus-dovecot", "%08Xu%08Xv", "dovecot"],
        ),
        ("uidl_format: courier", &["%v-%u"]),
    ] {
        let Some(cyrus) = Cyrus::with(&[("EXTRA", uidl_format)]) else {
            return;
        };
        fill(&cyrus);
        for unique_ids in same {
            assert_same(&cyrus, unique_ids);
        }
    }
}

/// The preset gives what Cyrus calls `courier`; Courier's own ids are numbers of
/// its own, which can only be imported.
#[test]
fn courier_as_cyrus_has_it() {
    let Some(cyrus) = Cyrus::with(&[("EXTRA", "uidl_format: courier")]) else {
        return;
    };
    fill(&cyrus);
    assert_same(&cyrus, "courier");
    let validity = uid_validity(&mut cyrus.imap("alice"));
    let own = cyrus.pop3("alice").unique_ids();
    assert_eq!(own[0], format!("{validity}-1"));
}

/// EMAILID of IMAP (RFC 8474) and the id of a JMAP Email are the same: whoever
/// goes from the one to the other downloads nothing again.
#[test]
fn emailid_is_the_same_by_imap_and_by_jmap() {
    let Some(cyrus) = Cyrus::start() else { return };
    let mut imap = cyrus.imap("alice");
    for number in 1..=5 {
        let time = format!("01-Jan-2026 00:0{number}:00 +0000");
        imap.append_at("INBOX", &time, &messages::plain(number, 600));
    }
    let lists = [cyrus.plain_url(), cyrus.jmap_url()].map(|url| {
        let (gateway, _dir) = popgate(&url, "unique_ids = \"emailid\"");
        let mut pop3 = gateway.pop3();
        pop3.login("alice", "pw-alice");
        pop3.lines("UIDL")
    });
    assert_eq!(lists[0].len(), 5);
    assert_eq!(lists[0], lists[1]);
}

/// What the upstream does not tell is asked of none, and nothing is served
/// instead.
#[test]
fn presets_that_need_what_is_not_there() {
    let (Some(dovecot), Some(cyrus)) = (Dovecot::start(), Cyrus::start()) else {
        return;
    };
    dovecot.append("alice", "INBOX", &messages::plain(1, 600));
    cyrus.append("alice", "INBOX", &messages::plain(1, 600));
    for (url, unique_ids) in [
        (dovecot.plain_url(), "emailid"),
        (dovecot.plain_url(), "gmail"),
        (cyrus.plain_url(), "gmail"),
        (cyrus.plain_url(), "%g"),
    ] {
        let (gateway, _dir) = popgate(&url, &format!("unique_ids = \"{unique_ids}\""));
        let mut pop3 = gateway.pop3();
        pop3.expect_ok("USER alice");
        let reply = pop3.command("PASS pw-alice");
        assert!(
            reply.starts_with("-ERR [SYS/PERM]"),
            "{unique_ids}: {reply}"
        );
        gateway.wait_for_log("unique_ids needs");
    }
}
