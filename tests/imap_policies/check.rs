//! `popgate check`: what the policies come to, in words.

use popgate::upstream::Finding;
use popgate::upstream::imap::diagnose;

use super::*;

/// Whether all is well, and what was told.
fn told(server: &MailServer, policy: &Policy, has_store: bool) -> (bool, String) {
    let credentials = Credentials::password("alice", "pw-alice").unwrap();
    let config = imap_config(&server.plain_url());
    let mut lines = Vec::new();
    let tell = |step: &'static str, finding: Finding| {
        lines.push(match finding {
            Finding::Good(told) | Finding::Warning(told) => format!("{step}: {told}"),
            Finding::Bad { seen, advice } => format!("{step}: FAILED {seen} → {advice}"),
        });
    };
    let well = run(diagnose(
        &config,
        policy,
        has_store,
        Some(&credentials),
        tell,
    ));
    (well, lines.join("\n"))
}

#[test]
fn each_folder_and_what_deletion_does_there() {
    for (rig, _) in Rig::all() {
        rig.create("Work");
        rig.create("Work/M&APY-bel");
        rig.deliver("INBOX", 1..=3);
        rig.deliver("Work/M&APY-bel", 4..=5);
        let server = rig.server.get();
        let joined = folders(&["INBOX", "Work/Möbel"]);
        let (well, lines) = told(server, &joined, false);
        assert!(well, "{lines}");
        let written = rig.mailbox("Work/Möbel");
        for words in [
            "mailbox: INBOX, UIDVALIDITY ",
            "3 messages; deleted messages are ",
            &format!("mailbox: {written}, UIDVALIDITY "),
            "2 messages; deleted messages are ",
            "Trash\"",
            "5 messages, ",
            "the first unique id is ",
        ] {
            assert!(lines.contains(words), "{words}: {lines}");
        }
        // It only looks.
        assert!(with_flag(&rig.held("INBOX"), "\\Seen").is_empty());
    }
}

#[test]
fn what_hides_and_what_cannot() {
    let Some(rig) = Rig::dovecot(None) else {
        return;
    };
    let server = rig.server.get();
    for (policy, has_store, expected, words) in [
        (
            policy(DeletePolicy::Hide),
            false,
            true,
            "the keyword $POP3Deleted",
        ),
        (policy(DeletePolicy::Seen), false, true, "marked as read"),
        (policy(DeletePolicy::Refuse), false, true, "read-only"),
        (policy(DeletePolicy::Archive), false, false, "no Archive"),
        (
            folders(&["Nowhere"]),
            false,
            false,
            "Nowhere → check `folders`",
        ),
        (
            Policy {
                shared: Some("bob".to_owned()),
                ..policy(DeletePolicy::Hide)
            },
            false,
            false,
            "shared",
        ),
    ] {
        let (well, lines) = told(server, &policy, has_store);
        assert_eq!(well, expected, "{lines}");
        assert!(lines.contains(words), "{words}: {lines}");
    }
    let expires = Policy {
        expire_after: Some(std::time::Duration::from_secs(30 * 86_400)),
        ..Policy::default()
    };
    let (well, lines) = told(server, &expires, false);
    assert!(!well && lines.contains("--state"), "{lines}");
    let (well, lines) = told(server, &expires, true);
    assert!(well && lines.contains("after 30 days"), "{lines}");
}
