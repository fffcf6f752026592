//! Who gets in, where to, and with what.

use std::collections::HashMap;

use popgate::accounts::{Home, Rules as OwnRules};
use popgate::server::policies::{Judge, Login, Policies, Rules};

use super::{OTHER, Setup, WRONG, World, judged, now, set_tokens};

#[test]
fn a_device_password_opens_the_mailbox_at_the_accounts_own_upstream() {
    let world = World::new();
    world.other.opens("alice@example.org", &["token access-1"]);
    world
        .other
        .deliver("alice@example.org", "a1", "\r\nhers\r\n");
    let password = world.enrolled("alice@example.org", "access-1");
    let mut client = world.login("Alice@Example.org", &password).unwrap();
    assert_eq!(client.unique_ids(), ["a1"]);
    client.quit();
    assert_eq!(world.other.logins(), ["alice@example.org: token access-1"]);
    assert!(world.own.logins().is_empty());
    let used = world.accounts.last_used("alice@example.org");
    let used = world.block_on(used).unwrap();
    assert!(
        used.values().all(|at| *at > now() - 600) && used.len() == 1,
        "{used:?}"
    );
}

#[test]
fn a_wrong_device_password_is_never_passed_on() {
    let world = World::new();
    world.own.opens("alice@example.org", &["old password"]);
    world.enrolled("alice@example.org", "access-1");
    // It would be right at the gateway's own upstream.
    assert_eq!(world.refused("alice@example.org", "old password"), WRONG);
    // Nor with a blank that slipped in.
    let slip = world.plain("", "Alice@example.org ", "old password");
    assert_eq!(slip.err().unwrap(), WRONG);
    assert_eq!(
        world.plain("alice@example.org", "bob", "x").err().unwrap(),
        WRONG
    );
    assert!(world.own.logins().is_empty());
    assert!(world.other.logins().is_empty());
    // A token is no device password.
    let mut client = world.connect();
    client.send("AUTH XOAUTH2 dXNlcj1hbGljZUBleGFtcGxlLm9yZwFhdXRoPUJlYXJlciBhYmMBAQ==");
    assert!(client.line().starts_with("+ "));
    assert!(client.command("").starts_with("-ERR [AUTH]"));
    assert!(world.own.logins().is_empty());
}

#[test]
fn who_has_no_account_is_passed_on_as_before() {
    let world = World::new();
    world.own.opens("bob", &["secret"]);
    world.own.deliver("bob", "b1", "\r\nhis\r\n");
    let mut client = world.login("bob", "secret").unwrap();
    assert_eq!(client.unique_ids(), ["b1"]);
    client.quit();
    assert_eq!(world.own.logins(), ["bob: secret"]);
    assert!(world.other.logins().is_empty());
    assert_eq!(world.tokens.asked(), 0);
}

#[test]
fn the_domain_says_who_judges_and_where_the_mailboxes_are() {
    let login = |by, home| Rules {
        login: Login { by, home },
        ..Rules::default()
    };
    let elsewhere = login(Judge::Upstream, Home::Upstream(OTHER.to_owned()));
    let closed = login(Judge::Accounts, Home::Provider("mail".to_owned()));
    let policies = Policies {
        domains: HashMap::from([
            ("there.example".to_owned(), elsewhere),
            ("closed.example".to_owned(), closed),
        ]),
        ..Policies::default()
    };
    let world = World::with(Setup {
        policies,
        ..Setup::default()
    });
    world.own.opens("a@here.example", &["x"]);
    world.other.opens("a@there.example", &["x"]);
    world.own.opens("a@closed.example", &["x"]);
    world.login("a@here.example", "x").unwrap().quit();
    world.login("a@there.example", "x").unwrap().quit();
    assert_eq!(world.refused("a@closed.example", "x"), WRONG);
    // Nor by way of somebody whom the upstream knows.
    let detour = world.plain("a@closed.example", "a@here.example", "x");
    assert_eq!(detour.err().unwrap(), WRONG);
    assert_eq!(world.own.logins(), ["a@here.example: x"]);
    assert_eq!(world.other.logins(), ["a@there.example: x"]);
}

#[test]
fn two_upstreams_may_each_have_a_user_of_the_same_name() {
    let world = World::new();
    world.own.opens("info", &["x"]);
    world.own.deliver("info", "own", "\r\n1\r\n");
    world.other.opens("info", &["app password"]);
    world.other.deliver("info", "other", "\r\n2\r\n");
    let home = Home::Upstream(OTHER.to_owned());
    let password = world.account("desk@example.org", home, |accounts, account| {
        account.mailbox = Some("info".to_owned());
        let app = popgate::secret::Secret::from("app password");
        accounts.set_password(account, &app).unwrap();
    });
    // Both maildrops are open at once: their locks are not one.
    let mut own = world.login("info", "x").unwrap();
    let mut other = world.login("desk@example.org", &password).unwrap();
    assert_eq!(own.unique_ids(), ["own"]);
    assert_eq!(other.unique_ids(), ["other"]);
    let again = world.refused("desk@example.org", &password);
    assert!(again.starts_with("-ERR [IN-USE]"), "{again}");
    own.quit();
    other.quit();
}

#[test]
fn a_master_opens_other_accounts_and_has_no_mailbox() {
    let world = World::new();
    world.other.opens("alice@example.org", &["token access-1"]);
    let alices = world.enrolled("alice@example.org", "access-1");
    let masters = world.account("admin", Home::Gateway, |_, account| account.master = true);
    world
        .plain("alice@example.org", "admin", &masters)
        .unwrap()
        .quit();
    world
        .login("alice@example.org*admin", &masters)
        .unwrap()
        .quit();
    // The folder may be asked for at either end.
    for user in [
        "Alice@example.org+Junk*Admin",
        "alice@example.org*admin+Junk",
    ] {
        world.login(user, &masters).unwrap().quit();
    }
    // A master of the mail server's own opens no mailbox that has an account.
    world.own.opens("alice@example.org*root", &["x"]);
    assert_eq!(world.refused("alice@example.org*root", "x"), WRONG);
    assert!(world.own.logins().is_empty());
    for (user, password) in [
        ("admin", &masters),
        ("nobody@example.org*admin", &masters),
        ("alice@example.org*admin", &alices),
        ("alice@example.org*alice@example.org", &masters),
    ] {
        assert_eq!(world.refused(user, password), WRONG, "{user}");
    }
    assert_eq!(
        world
            .plain("admin", "alice@example.org", &alices)
            .err()
            .unwrap(),
        WRONG
    );
    world.change("admin", |account| account.disabled = true);
    assert_eq!(world.refused("alice@example.org*admin", &masters), WRONG);
    // The asterisk is nothing special where there is no such master.
    world.own.opens("a*b", &["x"]);
    world.login("a*b", "x").unwrap().quit();
}

#[test]
fn a_disabled_account_says_so_to_its_owner_only() {
    let world = World::new();
    let password = world.enrolled("alice@example.org", "access-1");
    world.change("alice@example.org", |account| account.disabled = true);
    let told = world.refused("alice@example.org", &password);
    assert_eq!(
        told,
        "-ERR [SYS/PERM] the account is disabled, ask its operator"
    );
    assert_eq!(world.refused("alice@example.org", "x"), WRONG);
    assert!(world.other.logins().is_empty());
}

#[test]
fn an_accounts_own_rules_stand_above_the_configured_ones() {
    let world = World::new();
    world.other.opens("alice@example.org", &["token access-1"]);
    world.other.deliver("alice@example.org", "a1", "\r\nx\r\n");
    let password = world.enrolled("alice@example.org", "access-1");
    let rules = |delete: &str, folders: &[&str]| OwnRules {
        delete: Some(delete.to_owned()),
        folders: folders.iter().map(|it| (*it).to_owned()).collect(),
        ..OwnRules::default()
    };
    world.change("alice@example.org", |it| {
        it.rules = rules("refuse", &["Junk"])
    });
    let mut client = world.login("alice@example.org", &password).unwrap();
    // Another folder than the one that somebody else has open.
    let mut inbox = world.login("alice@example.org+INBOX", &password).unwrap();
    assert!(client.command("DELE 1").starts_with("-ERR"));
    assert!(inbox.command("DELE 1").starts_with("-ERR"));
    client.quit();
    inbox.quit();
    world.change("alice@example.org", |it| it.rules = rules("shred", &[]));
    let told = world.refused("alice@example.org", &password);
    assert!(told.starts_with("-ERR [SYS/PERM]"), "{told}");
    assert!(!told.contains("shred"));
}

#[test]
fn an_account_may_have_a_plus_in_its_name() {
    let world = World::new();
    world
        .other
        .opens("alice+pop@example.org", &["token access-1"]);
    let password = world.enrolled("alice+pop@example.org", "access-1");
    world
        .login("alice+pop@example.org", &password)
        .unwrap()
        .quit();
    world
        .login("recent:Alice+pop@example.org", &password)
        .unwrap()
        .quit();
    assert_eq!(world.other.logins().len(), 2);
}

#[test]
fn a_delegate_opens_the_mailbox_that_is_shared() {
    for opens_by_token in [false, true] {
        let world = World::with(Setup {
            opens_by_token,
            ..Setup::default()
        });
        let provider = Home::Provider("mail".to_owned());
        let password = world.account("info@example.org", provider, |accounts, account| {
            account.delegate = Some("alice@example.org".to_owned());
            set_tokens(accounts, account, "access-1", 3600);
        });
        for user in ["info@example.org", "alice@example.org"] {
            world.other.opens(user, &["token access-1"]);
        }
        world
            .other
            .deliver("info@example.org", "shared", "\r\nx\r\n");
        let mut client = world.login("info@example.org", &password).unwrap();
        assert_eq!(client.unique_ids(), ["shared"]);
        client.quit();
        let user = if opens_by_token { "alice" } else { "info" };
        let expected = format!("{user}@example.org: token access-1");
        assert_eq!(world.other.logins(), [expected]);
    }
}

#[test]
fn a_token_that_the_upstream_refuses_is_renewed_once() {
    let world = World::new();
    world.other.opens("alice@example.org", &["token access-2"]);
    world.tokens.gives("access-2");
    let password = world.enrolled("alice@example.org", "access-1");
    world.login("alice@example.org", &password).unwrap().quit();
    assert_eq!(
        world.other.logins(),
        [
            "alice@example.org: token access-1",
            "alice@example.org: token access-2"
        ]
    );
    assert_eq!(world.tokens.asked(), 1);
    world.login("alice@example.org", &password).unwrap().quit();
    assert_eq!(world.tokens.asked(), 1);
}

#[test]
fn an_outage_says_nothing_of_the_password() {
    let world = World::new();
    let password = world.enrolled("alice@example.org", "access-1");
    world.other.fails(true);
    for _ in 0..5 {
        let told = world.refused("alice@example.org", &password);
        assert!(told.starts_with("-ERR [SYS/TEMP]"), "{told}");
    }
    world.other.fails(false);
    world.other.opens("alice@example.org", &["token access-1"]);
    world.login("alice@example.org", &password).unwrap().quit();
}

#[test]
fn what_is_announced_is_what_somebody_can_use() {
    let sasl = |world: &World| {
        let lines = world.connect().lines("CAPA");
        let mut lines = lines.into_iter();
        lines.find(|line| line.starts_with("SASL")).unwrap()
    };
    assert_eq!(sasl(&World::new()), "SASL PLAIN LOGIN XOAUTH2 OAUTHBEARER");
    let world = World::with(Setup {
        policies: judged(Judge::Accounts, Home::Gateway),
        ..Setup::default()
    });
    assert_eq!(sasl(&world), "SASL PLAIN LOGIN");
}
