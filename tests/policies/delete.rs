//! What DELE and QUIT do.

use crate::scenarios;
use crate::site::{Popgate, Site, delete, shown};
use crate::support::{Courier, Dovecot, utf7};

scenarios! {
    only_what_was_deleted_changes,
    refuse_refuses,
    what_nobody_can_do_is_refused_at_login,
    a_hidden_message_stays_hidden,
    a_target_that_goes_away_during_the_session,
}

/// Five messages, of which the second and the fourth are deleted; the fourth is
/// flagged.
fn only_what_was_deleted_changes(site: &Site) {
    site.imap().command("CREATE Kept");
    let greetings = utf7("Gr\u{fc}\u{df}e");
    site.imap().command(&format!("CREATE \"{greetings}\""));
    let moved = |folder: &str| {
        let folder = utf7(folder);
        vec![
            "INBOX -2".to_owned(),
            "INBOX -4".to_owned(),
            format!("{folder} +2"),
            format!("{folder} +4 \\Flagged"),
        ]
    };
    let marked = |flag: &str| vec![format!("INBOX 2 +{flag}"), format!("INBOX 4 +{flag}")];
    let left = &[1, 3, 5][..];
    let all = &[1, 2, 3, 4, 5][..];
    for (policy, expected, shown_next) in [
        ("trash", moved("Trash"), left),
        ("archive", moved("Archive"), left),
        ("move:Kept", moved("Kept"), left),
        ("move:Gr\u{fc}\u{df}e", moved("Gr\u{fc}\u{df}e"), left),
        ("expunge", vec!["INBOX -2".into(), "INBOX -4".into()], left),
        ("seen", marked("\\Seen"), all),
        ("hide", marked("$POP3Deleted"), left),
    ] {
        site.mail(5);
        site.imap().ok("SELECT INBOX");
        let mut imap = site.imap();
        imap.ok("SELECT INBOX");
        imap.ok("STORE 4 +FLAGS (\\Flagged)");
        let before = site.contents();
        let popgate = site.popgate(&format!("delete = \"{policy}\""));

        // P1: without QUIT, or after RSET, nothing happens.
        let mut pop3 = popgate.alice();
        assert_eq!(shown(&mut pop3), all, "{policy}");
        pop3.expect_ok("DELE 2");
        pop3.expect_ok("RETR 3");
        pop3.multiline();
        drop(pop3);
        let mut pop3 = popgate.alice();
        pop3.expect_ok("DELE 2");
        pop3.expect_ok("RSET");
        pop3.expect_ok("DELE 5");
        pop3.expect_ok("RSET");
        assert!(pop3.quit().starts_with("+OK"));
        site.assert_changes(&before, &[], policy);

        // P2: with it, to these and no others.
        delete(popgate.alice(), &[2, 4]);
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        site.assert_changes(&before, &expected, policy);

        // And that was all, then and in the next session.
        let mut pop3 = popgate.alice();
        assert_eq!(shown(&mut pop3), shown_next, "{policy}");
        assert!(pop3.quit().starts_with("+OK"));
        site.assert_changes(&before, &expected, policy);
    }
}

fn refuse_refuses(site: &Site) {
    let before = site.mail(3);
    let popgate = site.popgate("delete = \"refuse\"");
    let mut pop3 = popgate.alice();
    pop3.expect_err("DELE 2");
    assert_eq!(shown(&mut pop3), [1, 2, 3]);
    pop3.retrieve(1);
    assert!(pop3.quit().starts_with("+OK"));
    site.assert_changes(&before, &[], "refuse");
}

fn what_nobody_can_do_is_refused_at_login(site: &Site) {
    let before = site.mail(2);
    for policy in ["move:Nowhere", "move:Trash/Nowhere"] {
        let popgate = site.popgate(&format!("delete = \"{policy}\""));
        let reply = popgate.refused("alice");
        assert!(reply.starts_with("-ERR [SYS/PERM]"), "{policy}: {reply}");
        site.assert_changes(&before, &[], policy);
    }
}

/// For this login, whatever happens to popgate; everybody else has it still.
fn a_hidden_message_stays_hidden(site: &Site) {
    site.mail(4);
    let mut popgate = site.popgate("delete = \"hide\"");
    delete(popgate.alice(), &[1, 3]);
    popgate.crash();
    let mut pop3 = popgate.alice();
    assert_eq!(shown(&mut pop3), [2, 4]);
    delete(pop3, &[1]);
    site.deliver("INBOX", 5..=6);
    let mut pop3 = popgate.alice();
    assert_eq!(shown(&mut pop3), [4, 5, 6]);
    drop(pop3);
    let names: Vec<String> = (1..=6).map(|n| format!("{n}@example.org")).collect();
    assert_eq!(site.contents().names("INBOX"), names);
    let mut imap = site.imap();
    imap.ok("SELECT INBOX");
    imap.ok("STORE 1:* -FLAGS.SILENT ($POP3Deleted)");
    let mut pop3 = popgate.login("alice");
    assert_eq!(shown(&mut pop3), [1, 2, 3, 4, 5, 6]);
}

/// P4: QUIT does not say that it moved what it could not, and nothing is lost.
fn a_target_that_goes_away_during_the_session(site: &Site) {
    site.mail(3);
    site.imap().command("CREATE Passing");
    let before = site.contents();
    let popgate = site.popgate("delete = \"move:Passing\"");
    let mut pop3 = popgate.alice();
    pop3.expect_ok("DELE 1");
    pop3.expect_ok("DELE 3");
    site.imap().delete_mailbox("Passing");
    let reply = pop3.quit();
    assert_eq!(
        reply,
        "-ERR [SYS/TEMP] 2 messages not removed",
        "{:?}",
        site.kind()
    );
    site.assert_changes(&before, &["Passing gone"], "a target that goes away");
    let reply = popgate.refused("alice");
    assert!(reply.starts_with("-ERR [SYS/PERM]"), "{reply}");
}

#[test]
fn without_an_archive() {
    let options = [("MAILBOXES", "Drafts Sent")];
    let Some(dovecot) = Dovecot::with(&options) else {
        return;
    };
    dovecot.append("alice", "INBOX", &crate::support::messages::plain(1, 600));
    for policy in ["archive", "trash"] {
        let popgate = Popgate::start(&dovecot.plain_url(), &format!("delete = \"{policy}\""));
        let reply = popgate.refused("alice");
        assert!(reply.starts_with("-ERR [SYS/PERM]"), "{policy}: {reply}");
    }
    let popgate = Popgate::start(&dovecot.plain_url(), "");
    delete(popgate.alice(), &[1]);
    assert!(dovecot.mailbox("alice", "INBOX").is_empty());
}

/// Courier's folders have other names, and it can do all the same.
#[test]
fn courier() {
    for (policy, expected) in [
        (
            "trash",
            &["INBOX -2@example.org", "INBOX.Trash +2@example.org"][..],
        ),
        (
            "move:Sent",
            &["INBOX -2@example.org", "INBOX.Sent +2@example.org"],
        ),
        (
            "move:INBOX.Sent",
            &["INBOX -2@example.org", "INBOX.Sent +2@example.org"],
        ),
        ("expunge", &["INBOX -2@example.org"]),
        ("seen", &["INBOX 2@example.org +\\Seen"]),
        ("hide", &["INBOX 2@example.org +$POP3Deleted"]),
    ] {
        let Some(courier) = Courier::start() else {
            return;
        };
        for number in 1..=3 {
            courier.append(
                "alice",
                "INBOX",
                &crate::support::messages::plain(number, 600),
            );
        }
        // Courier gives a mailbox its UIDVALIDITY when it is first selected.
        for mailbox in ["Drafts", "Sent", "Trash"] {
            courier.imap("alice").ok(&format!("SELECT INBOX.{mailbox}"));
        }
        let before = courier.contents("alice");
        let popgate = Popgate::start(&courier.plain_url(), &format!("delete = \"{policy}\""));
        delete(popgate.alice(), &[2]);
        assert_eq!(
            before.changes(&courier.contents("alice")),
            expected,
            "{policy}"
        );
    }
}
