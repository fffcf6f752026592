use super::*;
use crate::upstream::imap::untagged::Namespace;

fn layout(personal: &str, delimiter: &str, others: &[&str]) -> Layout {
    let namespace = |prefix: &str| Namespace {
        prefix: prefix.to_owned(),
        delimiter: Some(delimiter.to_owned()),
    };
    Layout {
        namespaces: Namespaces {
            personal: vec![namespace(personal)],
            others: others.iter().map(|prefix| namespace(prefix)).collect(),
            shared: Vec::new(),
        },
        delimiter: Some(delimiter.to_owned()),
    }
}

fn name(name: &str) -> FolderName {
    name.parse().unwrap()
}

fn candidates(written: &str, layout: &Layout) -> Vec<String> {
    Search::of_name(&name(written), layout, &Capabilities::default()).exact
}

fn listed(names: &[&str]) -> Vec<Listed> {
    let listed = |name: &&str| Listed {
        name: (*name).to_owned(),
        delimiter: Some("/".to_owned()),
        uses: Vec::new(),
        is_selectable: true,
    };
    names.iter().map(listed).collect()
}

fn found<'a>(search: &Search, listed: &'a [Listed]) -> Option<&'a str> {
    search.find(listed, None).map(|it| real_name(&it.name))
}

#[test]
fn names_are_tried_as_written_and_as_the_server_separates_them() {
    let dovecot = layout("", "/", &[]);
    assert_eq!(candidates("Work/Möbel", &dovecot), ["Work/M&APY-bel"]);
    let cyrus = layout("", ".", &[]);
    assert_eq!(candidates("Work/2024", &cyrus), ["Work/2024", "Work.2024"]);
    let courier = layout("INBOX.", ".", &[]);
    assert_eq!(
        candidates("Work/2024", &courier),
        [
            "Work/2024",
            "Work.2024",
            "INBOX.Work/2024",
            "INBOX.Work.2024"
        ]
    );
    assert_eq!(candidates("inbox", &courier), ["INBOX"]);
    // Without NAMESPACE.
    let unknown = Layout {
        delimiter: Some(".".to_owned()),
        ..Layout::default()
    };
    assert_eq!(candidates("Junk", &unknown), ["Junk", "INBOX.Junk"]);
    assert_eq!(candidates("a/b", &Layout::default()), ["a/b"]);
}

#[test]
fn the_first_that_is_there_is_taken() {
    let search = Search::of_name(
        &name("Junk"),
        &layout("INBOX.", ".", &[]),
        &Capabilities::default(),
    );
    let both = listed(&["INBOX.Junk", "Junk", "Junk2"]);
    assert_eq!(found(&search, &both), Some("Junk"));
    assert_eq!(found(&search, &both[..1]), Some("INBOX.Junk"));
    assert_eq!(found(&search, &listed(&["Inbox.Junk"])), Some("Inbox.Junk"));
    assert_eq!(found(&search, &listed(&["inboxes.Junk", "junk2"])), None);
    let mut unselectable = listed(&["Junk"]);
    unselectable[0].is_selectable = false;
    assert_eq!(found(&search, &unselectable), None);
}

#[test]
fn the_names_of_uses_stand_for_them_where_there_is_no_such_folder() {
    let plain = Capabilities::default();
    let archive = Search::of_name(&name("archive"), &layout("", "/", &[]), &plain);
    let mut mailboxes = listed(&["Ablage", "archive"]);
    mailboxes[0].uses = vec![SpecialUse::Archive];
    assert_eq!(found(&archive, &mailboxes), Some("archive"));
    assert_eq!(found(&archive, &mailboxes[..1]), Some("Ablage"));
    // Gmail has none but All Mail.
    mailboxes[0].uses = vec![SpecialUse::All];
    assert_eq!(found(&archive, &mailboxes[..1]), None);
    let gmail = Capabilities::new(&["X-GM-EXT-1".to_owned()]);
    let archive = Search::of_use(SpecialUse::Archive, &gmail);
    assert_eq!(found(&archive, &mailboxes[..1]), Some("Ablage"));
}

#[test]
fn mailboxes_of_others() {
    let of = |user: &str, folder: &str, layout: &Layout| {
        Search::of_other_user(user, &name(folder), layout).map(|search| search.exact)
    };
    let dovecot = layout("", "/", &["shared/"]);
    assert_eq!(
        of("bob", "INBOX", &dovecot).unwrap(),
        ["shared/bob", "shared/bob/INBOX"]
    );
    assert_eq!(
        of("bob", "Work/x", &dovecot).unwrap(),
        ["shared/bob/Work/x"]
    );
    let cyrus = layout("INBOX.", ".", &["user."]);
    // With its domain the user would be two levels.
    assert_eq!(
        of("bob@example.org", "Work", &cyrus).unwrap(),
        ["user.bob.Work"]
    );
    for user in ["b.ob", "..", "b*", "%", ""] {
        let refused = of(user, "INBOX", &cyrus);
        assert!(
            matches!(refused, Err(UpstreamError::Misconfigured(_))),
            "{user}"
        );
    }
    let alone = layout("", "/", &[]);
    let refused = of("bob", "INBOX", &alone).unwrap_err().to_string();
    assert!(refused.contains("NAMESPACE"), "{refused}");
}

#[test]
fn few_mailboxes_of_many_are_kept() {
    let mut finder = Finder::new(vec![
        Search::of_use(SpecialUse::Trash, &Capabilities::default()),
        Search::of_name(&name("a"), &layout("", "/", &[]), &Capabilities::default()),
    ]);
    for mailbox in listed(&["b", "Trash", "a", "a/b", "x/Trash"]) {
        finder.hear(mailbox).unwrap();
    }
    assert_eq!(finder.listed.len(), 2);
    assert_eq!(
        (finder.found(0), finder.found(1)),
        (Some("Trash"), Some("a"))
    );
    let endless = listed(&["a"]).remove(0);
    let heard = (0..MOST_LISTED).try_for_each(|_| finder.hear(endless.clone()));
    assert!(heard.is_err());
}

#[test]
fn whose_a_mailbox_is() {
    let dovecot = layout("", "/", &["shared/"]);
    for (name, is_of_others) in [
        ("INBOX", false),
        ("Trash", false),
        ("shared", true),
        ("shared/bob", true),
        ("shared/bob/Trash", true),
        ("sharedness", false),
    ] {
        assert_eq!(dovecot.is_of_others(name), is_of_others, "{name}");
    }
    // Cyrus: what is nobody's has no prefix.
    let cyrus = layout("INBOX.", ".", &["user.", ""]);
    for (name, is_of_others) in [
        ("INBOX", false),
        ("inbox", false),
        ("INBOX.Trash", false),
        ("user.bob.Trash", true),
        ("Public", true),
    ] {
        assert_eq!(cyrus.is_of_others(name), is_of_others, "{name}");
    }
    assert!(!Layout::default().is_of_others("user.bob"));
}
