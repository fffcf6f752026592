//! When messages are marked as read.

use crate::scenarios;
use crate::site::{Site, delete};
use crate::support::messages;

scenarios! {
    never,
    on_retr,
    on_quit,
    half_a_message_was_not_read,
}

fn never(site: &Site) {
    for config in ["", "seen = \"never\""] {
        let before = site.mail(3);
        let popgate = site.popgate(config);
        let mut pop3 = popgate.alice();
        pop3.retrieve(1);
        pop3.lines("TOP 2 10");
        assert!(pop3.quit().starts_with("+OK"));
        site.assert_changes(&before, &[], "never");
    }
}

/// At once, and whether or not QUIT follows.
fn on_retr(site: &Site) {
    let before = site.mail(4);
    let popgate = site.popgate("seen = \"on-retr\"");
    let mut pop3 = popgate.alice();
    pop3.retrieve(2);
    pop3.lines("TOP 3 10");
    pop3.retrieve(4);
    // The mark is set before the next reply.
    pop3.expect_ok("NOOP");
    site.assert_changes(&before, &["INBOX 2 +\\Seen", "INBOX 4 +\\Seen"], "on-retr");
    drop(pop3);
    let mut pop3 = popgate.alice();
    pop3.retrieve(4);
    assert!(pop3.quit().starts_with("+OK"));
    site.assert_changes(&before, &["INBOX 2 +\\Seen", "INBOX 4 +\\Seen"], "on-retr");
}

/// At QUIT, and not without.
fn on_quit(site: &Site) {
    let before = site.mail(5);
    let popgate = site.popgate("seen = \"on-quit\"");
    let mut pop3 = popgate.alice();
    pop3.retrieve(1);
    drop(pop3);
    let mut pop3 = popgate.alice();
    pop3.retrieve(2);
    pop3.lines("TOP 3 10");
    pop3.retrieve(4);
    site.assert_changes(&before, &[], "on-quit, before QUIT");
    assert!(pop3.quit().starts_with("+OK"));
    site.assert_changes(&before, &["INBOX 2 +\\Seen", "INBOX 4 +\\Seen"], "on-quit");
    // With a deletion beside it.
    let popgate = site.popgate("seen = \"on-quit\"\ndelete = \"expunge\"");
    let mut pop3 = popgate.alice();
    pop3.retrieve(1);
    pop3.retrieve(3);
    delete(pop3, &[1, 5]);
    let expected = [
        "INBOX -1",
        "INBOX -5",
        "INBOX 2 +\\Seen",
        "INBOX 3 +\\Seen",
        "INBOX 4 +\\Seen",
    ];
    site.assert_changes(&before, &expected, "on-quit with DELE");
}

/// A client that hangs up in the middle has not read the message, and neither
/// has one whose session ends without its reading on.
fn half_a_message_was_not_read(site: &Site) {
    site.mail(1);
    site.server()
        .append("alice", "INBOX", &messages::plain(2, 8_000_000));
    let before = site.contents();
    for policy in ["on-retr", "on-quit"] {
        let popgate = site.popgate(&format!("seen = \"{policy}\""));
        let mut pop3 = popgate.alice();
        pop3.expect_ok("RETR 2");
        pop3.read_some(100_000);
        pop3.reset();
        let mut pop3 = popgate.alice();
        pop3.expect_ok("RETR 2");
        pop3.read_some(100_000);
        pop3.reset();
        // The maildrop is free again only when the session has ended.
        drop(popgate.alice());
        site.assert_changes(&before, &[], policy);
    }
}
