//! Other folders than the INBOX: named behind the user name, joined, shared;
//! and names that must not work.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::scenarios;
use crate::site::{Kind, Popgate, Site, delete, shown};
use crate::support::{Courier, Cyrus, Dovecot, ImapClient, messages, utf7};

const GREETINGS: &str = "Gr\u{fc}\u{df}e & \u{4f60}\u{597d} \u{1f4ec}";

scenarios! {
    a_folder_behind_the_user_name,
    another_separator,
    names_beyond_ascii,
    what_deletion_means_in_a_folder,
    joined_folders,
    unique_ids_of_joined_folders_stay,
    hostile_names,
    what_may_not_be_opened,
    a_folder_that_goes_away_during_the_session,
    shared_mailboxes,
    what_the_rights_do_not_allow_is_refused_at_login,
}

fn a_folder_behind_the_user_name(site: &Site) {
    site.mail(2);
    site.deliver("Archive", 3..=5);
    site.deliver("Junk", 6..=6);
    site.imap().command("CREATE Work/Old");
    site.deliver("Work/Old", 7..=8);
    let popgate = site.popgate("");
    for (user, expected) in [
        ("alice", &[1, 2][..]),
        ("alice+INBOX", &[1, 2]),
        ("alice+inbox", &[1, 2]),
        ("alice+Archive", &[3, 4, 5]),
        ("alice+archive", &[3, 4, 5]),
        ("alice+junk", &[6]),
        ("alice+Work/Old", &[7, 8]),
        ("alice+sent", &[]),
    ] {
        let mut pop3 = popgate.login(user);
        assert_eq!(shown(&mut pop3), expected, "{user}, {:?}", site.kind());
    }
}

fn another_separator(site: &Site) {
    site.mail(1);
    site.deliver("Archive", 2..=3);
    let popgate = site.popgate("folder_separator = \"#\"");
    assert_eq!(shown(&mut popgate.login("alice#Archive")), [2, 3]);
    // It is a user of that name now. Cyrus takes that for alice.
    if site.kind() == Kind::Dovecot {
        popgate.refused("alice+Archive");
    }
}

/// `user` as SASL carries it: in UTF-8.
fn plain(popgate: &Popgate, user: &str) -> Result<crate::support::Pop3, String> {
    let mut pop3 = popgate.gateway().pop3();
    let response = STANDARD.encode(format!("\0{user}\0pw-alice"));
    let reply = pop3.command(&format!("AUTH PLAIN {response}"));
    if reply.starts_with("+OK") {
        Ok(pop3)
    } else {
        Err(reply)
    }
}

fn names_beyond_ascii(site: &Site) {
    site.mail(1);
    site.imap()
        .command(&format!("CREATE \"{}\"", utf7(GREETINGS)));
    site.deliver(&format!("\"{}\"", utf7(GREETINGS)), 2..=5);
    let before = site.contents();
    let popgate = site.popgate("");
    let user = format!("alice+{GREETINGS}");
    let mut pop3 = plain(&popgate, &user).unwrap();
    assert_eq!(shown(&mut pop3), [2, 3, 4, 5]);
    delete(pop3, &[2]);
    // By USER, once UTF8 was said (RFC 6856 §2.1).
    let mut pop3 = popgate.gateway().pop3();
    pop3.expect_ok("UTF8");
    pop3.login(&user, "pw-alice");
    assert_eq!(shown(&mut pop3), [2, 4, 5]);
    delete(pop3, &[3]);
    let folder = utf7(GREETINGS);
    let left = [format!("{folder} -3"), format!("{folder} -5")];
    let expected = [&left[0], &left[1], "Trash +3", "Trash +5"];
    site.assert_changes(&before, &expected, "a folder beyond ASCII");
}

/// The policy is about the folder that is open; from the Trash there is no
/// other Trash to go to.
fn what_deletion_means_in_a_folder(site: &Site) {
    site.mail(2);
    site.deliver("Archive", 3..=4);
    let before = site.contents();
    let popgate = site.popgate("delete = \"trash\"");
    delete(popgate.login("alice+Archive"), &[1]);
    site.assert_changes(&before, &["Archive -3", "Trash +3"], "from the Archive");
}

fn joined_folders(site: &Site) {
    site.mail(3);
    site.deliver("Junk", 4..=6);
    site.deliver("Archive", 7..=8);
    let before = site.contents();
    let popgate = site.popgate("folders = [\"INBOX\", \"Junk\", \"Archive\"]\ndelete = \"trash\"");
    let mut pop3 = popgate.alice();
    let order = shown(&mut pop3);
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 2, 3, 4, 5, 6, 7, 8]);
    let mut unique_ids = pop3.unique_ids();
    unique_ids.sort();
    unique_ids.dedup();
    assert_eq!(unique_ids.len(), 8);
    for (at, number) in order.iter().enumerate() {
        assert_eq!(pop3.retrieve(at + 1), messages::plain(*number, 600));
    }
    let at = |number: usize| order.iter().position(|it| *it == number).unwrap() + 1;
    delete(pop3, &[at(2), at(5), at(8)]);
    let expected = [
        "INBOX -2",
        "Junk -5",
        "Archive -8",
        "Trash +2",
        "Trash +5",
        "Trash +8",
    ];
    site.assert_changes(&before, &expected, "joined");
    let left: Vec<usize> = order
        .into_iter()
        .filter(|it| ![2, 5, 8].contains(it))
        .collect();
    assert_eq!(shown(&mut popgate.alice()), left);
}

/// Whatever comes to whichever folder, what was there keeps its unique id; and
/// the INBOX's messages have those that they have on their own.
fn unique_ids_of_joined_folders_stay(site: &Site) {
    site.mail(2);
    site.deliver("Junk", 3..=4);
    let popgate = site.popgate("folders = [\"INBOX\", \"Junk\"]");
    let ids = |popgate: &Popgate| -> Vec<(usize, String)> {
        let mut pop3 = popgate.alice();
        let mut ids: Vec<_> = shown(&mut pop3)
            .into_iter()
            .zip(pop3.unique_ids())
            .collect();
        ids.sort();
        ids
    };
    let first = ids(&popgate);
    assert_eq!(ids(&popgate), first);
    site.deliver("INBOX", 5..=6);
    site.deliver("Junk", 7..=7);
    let second = ids(&popgate);
    assert_eq!(second.len(), 7);
    assert_eq!(second[..4], first);
    assert_eq!(
        ids(&site.popgate("folders = [\"INBOX\", \"Junk\"]")),
        second
    );
}

fn hostile_names(site: &Site) {
    let before = site.mail(2);
    let popgate = site.popgate("");
    // What cannot be a name at all is refused before the password is looked at,
    // slower each time as after a wrong one; more of these are in unit tests.
    for folder in [
        "Archive/../INBOX",
        "~bob",
        "Archive\r\nt DELETE Archive",
        "Archive\n",
        "Archive\"",
        "\"",
        "Archive\\",
        "{5}",
        "{5+}",
        "Arch\u{0}ive",
        "Archive ",
        "+",
        "+Archive",
        "Nowhere",
        "Archive/Nowhere",
        "&",
        "&-",
        "&AOk-",
        "\u{202e}Archive",
    ] {
        let user = format!("alice+{folder}");
        let reply = plain(&popgate, &user).map(|mut pop3| shown(&mut pop3));
        assert!(reply.is_err(), "{folder:?}: {reply:?}, {:?}", site.kind());
        // RFC 3206: the password was right. P5.
        let reply = reply.unwrap_err();
        assert!(reply.starts_with("-ERR"), "{folder:?}: {reply}");
    }
    let long = "x".repeat(5000);
    plain(&popgate, &format!("alice+{long}")).err().unwrap();
    site.assert_changes(&before, &[], "hostile names");
    assert_eq!(shown(&mut popgate.alice()), [1, 2]);
}

fn what_may_not_be_opened(site: &Site) {
    site.mail(1);
    let mut imap = site.imap();
    imap.create_locked("Locked", "alice");
    imap.create("Over/Under");
    let before = site.contents();
    let popgate = site.popgate("");
    for folder in ["Locked", "locked/Nowhere"] {
        let reply = popgate.refused(&format!("alice+{folder}"));
        let expected = "-ERR [SYS/PERM] there is no such folder, or it may not be read";
        assert_eq!(reply, expected, "{folder}");
    }
    if site.kind() == Kind::Dovecot {
        // It is there only as a level of another's name: \Noselect.
        let reply = popgate.refused("alice+Over");
        assert!(reply.starts_with("-ERR [SYS/PERM]"), "{reply}");
    }
    let popgate = site.popgate("folders = [\"INBOX\", \"Locked\"]");
    popgate.refused("alice");
    site.assert_changes(&before, &[], "not to be opened");
    imap.command("SETACL Locked owner lrswipkxtea");
    imap.allow("Locked", "alice", "lrswipkxtea");
    imap.delete_mailbox("Locked");
    imap.delete_mailbox("Over/Under");
    imap.command("DELETE Over");
}

fn a_folder_that_goes_away_during_the_session(site: &Site) {
    site.mail(1);
    let mut imap = site.imap();
    for renamed in [false, true] {
        imap.create("Passing");
        site.deliver("Passing", 2..=4);
        let before = site.contents();
        let popgate = site.popgate("delete = \"trash\"");
        let mut pop3 = popgate.login("alice+Passing");
        pop3.expect_ok("DELE 1");
        pop3.expect_ok("DELE 3");
        if renamed {
            imap.ok("RENAME Passing Passed");
        } else {
            imap.delete_mailbox("Passing");
        }
        let reply = pop3.quit();
        let changes = before.changes(&site.contents());
        if renamed {
            // A server may go on with it under its new name.
            let moved = changes
                .iter()
                .filter(|it| it.starts_with("Trash +"))
                .count();
            assert_eq!(reply.starts_with("+OK"), moved == 2, "{reply}: {changes:?}");
            let kept = site.contents().names("Passed").len();
            assert_eq!(kept + moved, 3, "{changes:?}");
            imap.delete_mailbox("Passed");
        } else {
            assert!(
                reply.starts_with("-ERR [SYS/TEMP]") || reply.starts_with("+OK"),
                "{reply}"
            );
            assert_eq!(changes, ["Passing gone"]);
        }
        assert_eq!(shown(&mut popgate.alice()), [1]);
    }
}

/// Bob reads what alice shares with him, under his own name: by its owner's
/// name, or in IMAP by the name that it has for him.
fn shared_mailboxes(site: &Site) {
    site.mail(1);
    let mut imap = site.imap();
    imap.create("Team");
    imap.allow("Team", "bob", "lrswite");
    site.deliver("Team", 2..=5);
    let name = match site.kind() {
        Kind::Dovecot => "shared/alice/Team",
        _ => "Other Users/alice/Team",
    };
    let by_name = format!("folders = [\"{name}\"]");
    let by_owner = "shared = \"alice\"\nfolders = [\"Team\"]".to_owned();
    for (config, number) in [(by_name, 3), (by_owner, 4)] {
        if site.is_jmap() && number == 3 {
            continue;
        }
        let before = site.contents();
        let config = format!("delete = \"expunge\"\n[account.bob]\n{config}");
        let popgate = site.popgate(&config);
        let mut pop3 = popgate.gateway().pop3();
        pop3.login("bob", "pw-bob");
        let numbers = shown(&mut pop3);
        let at = numbers.iter().position(|it| *it == number).unwrap() + 1;
        assert_eq!(pop3.retrieve(at), messages::plain(number, 600));
        delete(pop3, &[at]);
        site.assert_changes(&before, &[&format!("Team -{number}")], &config);
        // Whoever is not said to share still has mail of their own.
        assert_eq!(shown(&mut popgate.alice()), [1]);
    }
    // What is not shared is not there.
    let config = "[account.bob]\nshared = \"alice\"\nfolders = [\"Archive\"]";
    let popgate = site.popgate(config);
    let mut pop3 = popgate.gateway().pop3();
    pop3.expect_ok("USER bob");
    let reply = pop3.command("PASS pw-bob");
    assert!(reply.starts_with("-ERR [SYS/PERM]"), "{reply}");
    imap.delete_mailbox("Team");
}

/// Bob may read what alice shares with him, and no more. What cannot be done is
/// refused before he marks anything; what needs no rights can be done.
fn what_the_rights_do_not_allow_is_refused_at_login(site: &Site) {
    site.mail(1);
    let mut imap = site.imap();
    imap.create("Team");
    imap.allow("Team", "bob", "lr");
    site.deliver("Team", 2..=4);
    let before = site.contents();
    let config = |policies: &str| {
        format!("{policies}\n[account.bob]\nshared = \"alice\"\nfolders = [\"Team\"]")
    };
    for policies in [
        "delete = \"expunge\"",
        "delete = \"trash\"",
        "delete = \"seen\"",
        "delete = \"refuse\"\nseen = \"on-retr\"",
        "delete = \"refuse\"\nseen = \"on-quit\"",
    ] {
        let popgate = site.popgate(&config(policies));
        let mut pop3 = popgate.gateway().pop3();
        pop3.expect_ok("USER bob");
        let reply = pop3.command("PASS pw-bob");
        assert!(
            reply.starts_with("-ERR [SYS/PERM]"),
            "{policies}, {:?}: {reply}",
            site.kind()
        );
    }
    let mut popgate = site.popgate(&config("delete = \"refuse\""));
    let mut pop3 = popgate.gateway().pop3();
    pop3.login("bob", "pw-bob");
    assert_eq!(pop3.retrieve(2), messages::plain(3, 600));
    assert!(pop3.quit().starts_with("+OK"));
    // Hidden from bob in the store: nobody else sees anything of that.
    popgate = site.popgate(&config("delete = \"hide\""));
    let mut pop3 = popgate.gateway().pop3();
    pop3.login("bob", "pw-bob");
    delete(pop3, &[2]);
    popgate.crash();
    let mut pop3 = popgate.gateway().pop3();
    pop3.login("bob", "pw-bob");
    assert_eq!(shown(&mut pop3), [2, 4]);
    site.assert_changes(&before, &[], "rights");
    imap.delete_mailbox("Team");
}

/// The special use is asked for where no folder has that name.
#[test]
fn special_uses_by_other_names() {
    let extra = "namespace inbox {\n  mailbox Ablage {\n    special_use = \\Archive\n    auto = create\n  }\n}";
    let options = [("MAILBOXES", "Drafts Sent Junk"), ("EXTRA", extra)];
    let Some(dovecot) = Dovecot::with(&options) else {
        return;
    };
    dovecot.append("alice", "Ablage", &messages::plain(1, 600));
    dovecot.append("alice", "INBOX", &messages::plain(2, 600));
    let before = dovecot.contents("alice");
    let popgate = Popgate::start(&dovecot.plain_url(), "");
    assert_eq!(shown(&mut popgate.login("alice+archive")), [1]);
    popgate.refused("alice+trash");
    let popgate = Popgate::start(&dovecot.plain_url(), "delete = \"archive\"");
    delete(popgate.alice(), &[1]);
    let expected = ["Ablage +2@example.org", "INBOX -2@example.org"];
    assert_eq!(before.changes(&dovecot.contents("alice")), expected);
}

/// A name that holds what has a meaning in IMAP.
#[test]
fn names_with_quotes_and_backslashes() {
    let Some(dovecot) = Dovecot::start() else {
        return;
    };
    let name = "R&D \"{3}\" \\Seen (x) ~#";
    dovecot.imap("alice").create(name);
    let quoted = format!("\"{}\"", utf7(name));
    dovecot.append("alice", &quoted, &messages::plain(1, 600));
    let popgate = Popgate::start(&dovecot.plain_url(), "delete = \"expunge\"");
    let pop3 = popgate.login(&format!("alice+{name}"));
    delete(pop3, &[1]);
    assert!(dovecot.mailbox("alice", &quoted).is_empty());
}

/// A user name with a domain in front of the folder.
#[test]
fn folders_of_users_with_a_domain() {
    let options = [("USERS", "alice@example.org:{PLAIN}pw-alice")];
    let Some(dovecot) = Dovecot::with(&options) else {
        return;
    };
    let mut imap = ImapClient::login(dovecot.imap_port(), "alice@example.org", "pw-alice");
    imap.append("Trash", &messages::plain(1, 600));
    let popgate = Popgate::start(&dovecot.plain_url(), "");
    assert_eq!(shown(&mut popgate.login("alice@example.org+Trash")), [1]);
    assert_eq!(shown(&mut popgate.login("alice@example.org")), [0; 0]);
}

/// Courier puts all folders below INBOX.
#[test]
fn courier() {
    let Some(courier) = Courier::start() else {
        return;
    };
    courier.append("alice", "INBOX.Sent", &messages::plain(1, 600));
    courier.append("alice", "INBOX", &messages::plain(2, 600));
    let popgate = Popgate::start(&courier.plain_url(), "");
    for user in ["alice+INBOX.Sent", "alice+Sent", "alice+sent"] {
        assert_eq!(shown(&mut popgate.login(user)), [1], "{user}");
    }
    popgate.refused("alice+INBOX..Sent");
    popgate.refused("alice+INBOX.Nowhere");
}

/// As hosting panels set Dovecot up: all folders below INBOX, levels separated by
/// dots.
#[test]
fn dovecot_with_a_prefix() {
    let extra = "namespace inbox {\n  separator = .\n  prefix = INBOX.\n}";
    let options = [("EXTRA", extra), ("MAILBOXES", "Sent Trash Archive")];
    let Some(dovecot) = Dovecot::with(&options) else {
        return;
    };
    let mut imap = dovecot.imap("alice");
    let deep = format!("INBOX.Work.{}", utf7("B\u{fc}ro"));
    imap.ok(&format!("CREATE \"{deep}\""));
    imap.append(&format!("\"{deep}\""), &messages::plain(1, 600));
    imap.append("INBOX.Sent", &messages::plain(2, 600));
    imap.append("INBOX", &messages::plain(3, 600));
    let before = dovecot.contents("alice");
    let popgate = Popgate::start(&dovecot.plain_url(), "delete = \"trash\"");
    for (folder, number) in [
        ("Work/B\u{fc}ro", 1),
        ("INBOX.Work.B\u{fc}ro", 1),
        ("Work.B\u{fc}ro", 1),
        ("INBOX/Work/B\u{fc}ro", 1),
        ("Sent", 2),
        ("sent", 2),
        ("INBOX.Sent", 2),
        ("INBOX", 3),
    ] {
        let mut pop3 = plain(&popgate, &format!("alice+{folder}")).unwrap();
        assert_eq!(shown(&mut pop3), [number], "{folder}");
    }
    for folder in ["INBOX.", "INBOX..Sent", "Work", "INBOX.INBOX"] {
        plain(&popgate, &format!("alice+{folder}")).err().unwrap();
    }
    delete(plain(&popgate, "alice+Work/B\u{fc}ro").unwrap(), &[1]);
    delete(popgate.alice(), &[1]);
    let popgate = Popgate::start(&dovecot.plain_url(), "delete = \"move:Work/B\u{fc}ro\"");
    delete(plain(&popgate, "alice+Sent").unwrap(), &[1]);
    let mut expected = [
        "INBOX -3@example.org".to_owned(),
        "INBOX.Sent -2@example.org".to_owned(),
        "INBOX.Trash +1@example.org".to_owned(),
        "INBOX.Trash +3@example.org".to_owned(),
        format!("{deep} +2@example.org"),
        format!("{deep} -1@example.org"),
    ];
    expected.sort();
    assert_eq!(before.changes(&dovecot.contents("alice")), expected);
}

/// A name may hold what separates levels elsewhere.
#[test]
fn cyrus_with_dots() {
    let Some(cyrus) = Cyrus::start() else { return };
    cyrus.imap("alice").ok("SELECT INBOX");
    cyrus.imap("alice").ok("CREATE example.org");
    cyrus.append("alice", "example.org", &messages::plain(1, 600));
    for url in [cyrus.plain_url(), cyrus.jmap_url()] {
        let popgate = Popgate::start(&url, "");
        assert_eq!(shown(&mut popgate.login("alice+example.org")), [1]);
    }
}
