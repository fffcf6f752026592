//! The message in front of the maildrop when the provider no longer lets popgate in.

use super::{Setup, World, set_tokens};

const ALICE: &str = "alice@example.org";

fn setup() -> Setup {
    Setup {
        notice: true,
        ..Setup::default()
    }
}

/// Alice has three mails, and has seen them; then her token dies.
fn dead() -> (World, String) {
    let world = World::with(setup());
    world.other.opens(ALICE, &["token access-1"]);
    for (id, text) in [
        ("a1", "\r\none\r\n"),
        ("a2", "\r\ntwo!\r\n"),
        ("a3", "\r\n3\r\n"),
    ] {
        world.other.deliver(ALICE, id, text);
    }
    let password = world.enrolled(ALICE, "access-1");
    let mut client = world.login(ALICE, &password).unwrap();
    assert_eq!(client.unique_ids(), ["a1", "a2", "a3"]);
    client.quit();
    world.other.opens(ALICE, &[]);
    world.tokens.refuses();
    (world, password)
}

#[test]
fn it_says_what_to_do_and_nothing_else_can_be_read() {
    let (world, password) = dead();
    let mut client = world.login(ALICE, &password).unwrap();
    let ids = client.unique_ids();
    assert_eq!(ids[1..], ["a1", "a2", "a3"]);
    assert!(ids[0].starts_with("popgate!notice!"), "{ids:?}");
    let text = client.retrieve(1);
    assert_eq!(client.sizes()[0], text.len());
    assert_eq!(client.sizes()[1..], [7, 8, 5]);
    let text = String::from_utf8(text).unwrap();
    for part in [
        "\r\nFrom: popgate <noreply@pop.example.org>\r\n",
        "\r\nTo: alice@example.org\r\n",
        "\r\nSubject: Please sign in again",
        "https://pop.example.org/enrol",
        "Mail Example no longer lets",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(text.starts_with("Date: "));
    assert!(!text.contains("access-1") && !text.contains("invalid_grant"));
    let top = client.command("TOP 1 0");
    assert!(top.starts_with("+OK"), "{top}");
    client.multiline();
    for command in ["RETR 2", "TOP 3 0"] {
        let told = client.command(command);
        assert!(told.starts_with("-ERR [SYS/TEMP]"), "{told}");
    }
    client.quit();
    assert_eq!(world.count("popgate_logins_total{result=\"notice\"}"), "1");
    assert_eq!(world.count("popgate_upstream_connections"), "0");
}

#[test]
fn it_can_be_deleted_and_mail_cannot() {
    let (world, password) = dead();
    let mut client = world.login(ALICE, &password).unwrap();
    client.expect_ok("DELE 1");
    assert_eq!(client.quit(), "+OK bye");
    let mut client = world.login(ALICE, &password).unwrap();
    client.expect_ok("DELE 1");
    client.expect_ok("DELE 2");
    client.expect_ok("DELE 4");
    assert_eq!(client.quit(), "-ERR [SYS/TEMP] 2 messages not removed");
    assert_eq!(world.other.ids(ALICE), ["a1", "a2", "a3"]);
    assert_eq!(world.count("popgate_messages_deleted_total"), "0");
}

#[test]
fn it_is_the_same_for_the_same_death_and_gone_when_cured() {
    let (world, password) = dead();
    let notice = |world: &World| {
        let mut client = world.login(ALICE, &password).unwrap();
        let ids = client.unique_ids();
        client.quit();
        ids
    };
    let first = notice(&world);
    assert_eq!(notice(&world), first);
    for _ in 0..4 {
        assert_eq!(notice(&world), first);
    }
    let world = world.restarted(setup());
    assert_eq!(notice(&world), first);
    world.other.opens(ALICE, &["token access-9"]);
    let accounts = world.accounts.clone();
    world.change(ALICE, |account| {
        set_tokens(&accounts, account, "access-9", 3600);
        if let popgate::accounts::Credential::OAuth(tokens) = &mut account.credential {
            tokens.signed_in += 1;
        }
        account.trouble = None;
    });
    assert_eq!(notice(&world), ["a1", "a2", "a3"]);
    // The next death is another one.
    world.other.opens(ALICE, &[]);
    let second = notice(&world);
    assert_eq!(second[1..], first[1..]);
    assert_ne!(second[0], first[0]);
}

#[test]
fn what_was_deleted_does_not_come_back() {
    let (world, password) = dead();
    world.other.opens(ALICE, &["token access-1"]);
    world.change(ALICE, |account| account.trouble = None);
    let mut client = world.login(ALICE, &password).unwrap();
    client.expect_ok("DELE 2");
    client.quit();
    world.other.opens(ALICE, &[]);
    let mut client = world.login(ALICE, &password).unwrap();
    assert_eq!(client.unique_ids()[1..], ["a1", "a3"]);
    client.quit();
}

#[test]
fn one_session_at_a_time_sees_it() {
    let (world, password) = dead();
    let first = world.login(ALICE, &password).unwrap();
    let told = world.refused(ALICE, &password);
    assert!(told.starts_with("-ERR [IN-USE]"), "{told}");
    first.quit();
    world.login(ALICE, &password).unwrap().quit();
}

#[test]
fn without_it_or_without_a_listing_the_client_is_refused() {
    let told =
        "-ERR [AUTH] your mail provider asks you to sign in again: https://pop.example.org/enrol";
    let (world, password) = dead();
    // Another view of the mailbox, which was never shown.
    assert_eq!(world.refused(&format!("{ALICE}+Junk"), &password), told);
    assert_eq!(world.refused(&format!("recent:{ALICE}"), &password), told);
    let world = world.restarted(Setup::default());
    assert_eq!(world.refused(ALICE, &password), told);
}

#[test]
fn an_outage_is_no_death() {
    let (world, password) = dead();
    world.other.fails(true);
    let told = world.refused(ALICE, &password);
    assert!(told.starts_with("-ERR [SYS/TEMP]"), "{told}");
}
