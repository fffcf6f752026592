//! What is done to accounts that there are, while popgate runs and while it does
//! not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::provider::Provider;
use super::support::servers::{Dovecot, dovecot};
use super::{Site, support};

const ALICE: &str = "alice@example.org";

fn refused(gateway: &support::Gateway, user: &str, password: &str) -> String {
    let mut client = gateway.pop3();
    client.expect_ok(&format!("USER {user}"));
    client.expect_err(&format!("PASS {password}"))
}

#[test]
fn a_running_popgate_sees_each_change_at_once() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let gateway = site.serve();
    assert!(refused(&gateway, ALICE, "x").starts_with("[AUTH]"));
    let first = provider.enrol(&site, ALICE, &["--device-name", "laptop"]);
    gateway.pop3().login(ALICE, &first);
    let added = site.run(&["password", "add", ALICE, "--device-name", "phone", "--json"]);
    let added = added.objects().remove(0);
    assert_eq!(added["event"], "device");
    let second = added["device"]["password"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    gateway.pop3().login(ALICE, &second);
    let listed = site.run(&["password", "list", ALICE, "--json"]).objects();
    let names: Vec<&str> = listed
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["laptop", "phone"]);
    let one = |arguments: &[&str]| {
        let mut objects = site.run(arguments).objects();
        assert_eq!(objects.len(), 1, "{arguments:?}");
        objects.remove(0)
    };
    let revoked = one(&["password", "revoke", ALICE, "laptop", "--json"]);
    assert_eq!(revoked["event"], "revoked");
    assert_eq!(revoked["device"]["name"], "laptop");
    assert_eq!(revoked["account"]["devices"][0]["name"], "phone");
    assert!(refused(&gateway, ALICE, &first).starts_with("[AUTH]"));
    gateway.pop3().login(ALICE, &second);
    site.run(&["disable", ALICE]).ok();
    let disabled = refused(&gateway, ALICE, &second);
    assert!(disabled.starts_with("[SYS/PERM]"), "{disabled}");
    assert_eq!(site.shown(ALICE)["state"], "disabled");
    assert!(site.run(&["disable", ALICE]).ok().contains("already"));
    let disabled = one(&["disable", ALICE, "--json"]);
    assert_eq!(
        (&disabled["event"], &disabled["account"]["state"]),
        (&"disabled".into(), &"disabled".into())
    );
    assert_eq!(one(&["enable", ALICE, "--json"])["event"], "enabled");
    gateway.pop3().login(ALICE, &second);
    let removed = one(&["remove", ALICE, "--yes", "--json"]);
    assert_eq!(
        removed,
        serde_json::json!({"event": "removed", "address": ALICE})
    );
    assert!(refused(&gateway, ALICE, &second).starts_with("[AUTH]"));
    site.run(&["show", ALICE])
        .failed(1, "there is no account alice@example.org");
}

/// A site in front of a Dovecot that takes passwords, without any provider.
fn plain(dovecot: &Dovecot) -> Site {
    Site::new(&format!("upstream = {:?}", dovecot.plain_url()))
}

#[test]
fn an_account_may_have_a_password_upstream() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    dovecot.append("alice", "INBOX", b"Subject: mine\r\n\r\nhello\r\n");
    let site = plain(&dovecot);
    site.write_secret("wrong", "no such password\n");
    site.write_secret("right", "pw-alice\n");
    let file = |name: &str| site.path(name).to_str().unwrap().to_owned();
    let add = |name: &str| {
        let file = file(name);
        let arguments = [
            "add",
            ALICE,
            "--user",
            "alice",
            "--password-file",
            &file,
            "--json",
        ];
        site.run(&arguments)
    };
    add("wrong").failed(1, "refuses the credentials");
    assert!(site.run(&["list", "--json"]).objects().is_empty());
    let enrolled = add("right").objects().remove(0);
    let account = &enrolled["account"];
    assert_eq!(
        (&account["home"], &account["mailbox"]),
        (&"gateway".into(), &"alice".into())
    );
    assert_eq!(account["credential"], "password");
    add("right").failed(1, "there is an account alice@example.org already");
    let gateway = site.serve();
    let password = enrolled["device"]["password"].as_str().unwrap();
    gateway.pop3().login(ALICE, password);
    // The password upstream is not the account's.
    assert!(refused(&gateway, ALICE, "pw-alice").starts_with("[AUTH]"));
    // Whoever has no account is passed on.
    gateway.pop3().login("bob", "pw-bob");
}

#[test]
fn the_log_of_a_running_popgate_has_each_change() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let site = plain(&dovecot);
    site.write_secret("right", "pw-alice\n");
    let file = site.path("right").to_str().unwrap().to_owned();
    let gateway = site.serve();
    for (arguments, changes) in [
        (
            &[
                "add",
                ALICE,
                "--user",
                "alice",
                "--password-file",
                &file,
                "--device-name",
                "laptop",
            ][..],
            "added",
        ),
        (
            &["password", "add", ALICE, "--device-name", "phone"],
            "a device was added",
        ),
        (
            &["password", "revoke", ALICE, "laptop"],
            "a device was revoked",
        ),
        (&["disable", ALICE], "disabled"),
        (&["enable", ALICE], "enabled"),
        (
            &["reauthorize", ALICE, "--password-file", &file],
            "the credential was replaced",
        ),
        (&["remove", ALICE, "--yes"], "removed"),
    ] {
        site.run(arguments).ok();
        let changes = match changes.contains(' ') {
            true => format!("changes={changes:?}"),
            false => format!("changes={changes}"),
        };
        let line = gateway.wait_for_log(&changes);
        assert!(
            line.contains("a command changed") && line.contains(ALICE),
            "{line}"
        );
    }
    // What changes nothing, and who only looks.
    site.run(&["list"]).ok();
    let logs = gateway.logs();
    assert_eq!(logs.matches("a command changed").count(), 7, "{logs}");
    assert!(!logs.contains("pw-alice"), "{logs}");
}

#[test]
fn who_does_not_name_a_device_gets_a_name_that_is_free() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let site = plain(&dovecot);
    let mut add = site.command(&["add", "alice"]);
    add.env("POPGATE_PASSWORD", "pw-alice");
    super::run(add).ok();
    let names = || {
        let listed = site.run(&["password", "list", "alice", "--json"]).objects();
        let names = listed.iter().map(|it| it["name"].as_str().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let said = site.run(&["password", "add", "alice"]).ok();
    assert!(said.contains("device 2"), "{said}");
    let added = site.run(&["password", "add", "alice", "--json"]);
    assert_eq!(added.objects()[0]["device"]["name"], "device 3");
    assert_eq!(names(), ["first device", "device 2", "device 3"]);
    site.run(&["password", "revoke", "alice", "device 2"]).ok();
    site.run(&["password", "add", "alice"]).ok();
    assert_eq!(names(), ["first device", "device 3", "device 4"]);
    site.run(&["password", "revoke", "alice", "first device"])
        .ok();
}

#[test]
fn only_who_adds_an_account_makes_a_state_folder() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let site = plain(&dovecot);
    let commands: [&[&str]; 8] = [
        &["list"],
        &["show", ALICE],
        &["disable", ALICE],
        &["remove", ALICE, "--yes"],
        &["password", "list", ALICE],
        &["password", "add", ALICE],
        &["reauthorize", ALICE],
        &["rekey"],
    ];
    for command in commands {
        site.run(command).failed(78, "there is no folder");
        assert!(!site.path("state").exists(), "{command:?}");
    }
    std::fs::create_dir(site.path("state")).unwrap();
    assert!(site.run(&["list"]).ok().contains("There are no accounts"));
}

#[test]
fn a_chosen_password_is_judged_and_never_shown() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let site = plain(&dovecot);
    let add = |chosen: &str| {
        let mut command = site.command(&["add", "alice", "--chosen", "--json"]);
        command
            .env("POPGATE_PASSWORD", "pw-alice")
            .env("POPGATE_NEW_PASSWORD", chosen);
        super::run(command)
    };
    add("short").failed(1, "at least 12 characters");
    let run = add("correct horse battery staple");
    assert!(!run.out.contains("horse"));
    let enrolled = run.objects().remove(0);
    assert_eq!(enrolled["device"]["password"], serde_json::Value::Null);
    assert_eq!(enrolled["account"]["devices"][0]["chosen"], true);
    site.serve()
        .pop3()
        .login("alice", "correct horse battery staple");
}

#[test]
fn a_password_that_nobody_has_seen_is_told() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let site = plain(&dovecot);
    let lost = |arguments: &[&str]| {
        let mut command = site.command(arguments);
        let full = std::fs::File::options().write(true).open("/dev/full");
        let child = command
            .env("POPGATE_PASSWORD", "pw-alice")
            .stdout(full.unwrap())
            .stderr(std::process::Stdio::piped())
            .spawn();
        super::ended(child.unwrap())
    };
    for arguments in [
        &["add", "alice"][..],
        &["password", "add", "alice", "--json"],
    ] {
        lost(arguments).failed(1, "nobody has seen the new password");
    }
    lost(&["list", "--json"]).failed(1, "cannot be written");
    assert_eq!(site.shown("alice")["devices"].as_array().unwrap().len(), 2);
}

#[test]
fn policies_are_those_of_the_account() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    dovecot.append("alice", "INBOX", b"Subject: mine\r\n\r\nhello\r\n");
    let site = plain(&dovecot);
    let mut command = site.command(&[
        "add", "alice", "--delete", "refuse", "--seen", "on-quit", "--folder", "INBOX", "--json",
    ]);
    command.env("POPGATE_PASSWORD", "pw-alice");
    let enrolled = super::run(command).objects().remove(0);
    let rules = serde_json::json!({"delete": "refuse", "seen": "on-quit", "folders": ["INBOX"]});
    assert_eq!(enrolled["account"]["rules"], rules);
    let gateway = site.serve();
    let mut client = gateway.pop3();
    client.login("alice", enrolled["device"]["password"].as_str().unwrap());
    client.expect_err("DELE 1");
}

#[test]
fn a_master_opens_the_accounts_of_others() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let site = plain(&dovecot);
    let mut command = site.command(&["add", "alice", "--json"]);
    command.env("POPGATE_PASSWORD", "pw-alice");
    super::run(command).ok();
    let enrolled = site
        .run(&["add", "root", "--master", "--json"])
        .objects()
        .remove(0);
    assert_eq!(enrolled["account"]["master"], true);
    let password = enrolled["device"]["password"].as_str().unwrap();
    let gateway = site.serve();
    refused(&gateway, "root", password);
    let last_used = || site.shown("root")["devices"][0]["last_used"].as_i64();
    assert_eq!(last_used(), None);
    // However he says whose mailbox he wants, it is told of in the same way.
    for user in ["alice*root", "Alice+INBOX*Root", "alice*root+INBOX"] {
        dovecot.append("alice", "INBOX", b"Subject: hers\r\n\r\nhello\r\n");
        let mut client = gateway.pop3();
        client.login(user, password);
        client.expect_ok("DELE 1");
        client.quit();
    }
    assert!(last_used().is_some());
    let mut client = gateway.pop3();
    let message = STANDARD.encode(format!("Alice\0Root\0{password}"));
    client.expect_ok(&format!("AUTH PLAIN {message}"));
    client.quit();
    refused(&gateway, "alice*root", "x");
    gateway.wait_for_log("session ended user=root maildrop=alice ");
    gateway.wait_for_log("none of the account's user=root maildrop=alice ");
    let logs = gateway.logs();
    let told = |event: &str| {
        let of_master = |line: &&str| line.contains("user=root maildrop=alice ");
        let lines = logs.lines().filter(|line| line.contains(event));
        lines.map(|line| of_master(&line)).collect::<Vec<_>>()
    };
    assert_eq!(told("message removed"), [true; 3]);
    assert_eq!(told("login refused"), [false, true]);
}

#[test]
fn for_people_there_is_a_table() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let site = plain(&dovecot);
    for user in ["alice", "bob"] {
        let mut command = site.command(&["add", user, "--device-name", "Zoë's\u{a0}phone"]);
        command.env("POPGATE_PASSWORD", format!("pw-{user}"));
        let said = super::run(command).ok();
        assert!(said.contains(&format!("{user} is enrolled")), "{said}");
        assert!(
            said.contains("user name   ") && said.contains("password    "),
            "{said}"
        );
    }
    let table = site.run(&["list"]).ok();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|it| {
            it.split("  ")
                .filter(|it| !it.is_empty())
                .map(str::trim)
                .collect()
        })
        .collect();
    assert_eq!(
        lines[0],
        ["ACCOUNT", "MAILBOX AT", "BY", "DEVICES", "STATE"]
    );
    assert_eq!(
        lines[1],
        ["alice", "the gateway's upstream", "password", "1", "ok"]
    );
    let shown = site.run(&["show", "alice"]).ok();
    for text in [
        "state         ok",
        "alice at the gateway's upstream (imap+plain://",
        "Zoë's",
        "not used yet",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
}

#[test]
fn who_waits_for_somebody_to_sign_in_keeps_nobody_from_the_store() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let mut waiting = super::Conversation::start(&site, &["add", ALICE]);
    let code = waiting.next()["user_code"].as_str().unwrap().to_owned();
    // Another command, and a popgate that starts, and has the store from then on.
    provider.enrol(&site, "bob@example.org", &[]);
    let gateway = site.serve();
    provider.server.approve(&code, ALICE);
    let enrolled = waiting.next();
    assert_eq!(enrolled["event"], "enrolled", "{enrolled}");
    assert_eq!(waiting.end().code, 0);
    let password = enrolled["device"]["password"].as_str().unwrap();
    gateway.pop3().login(ALICE, password);
}

#[test]
fn check_opens_the_mailbox_with_what_the_account_holds() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    provider.enrol(&site, ALICE, &["--delete", "refuse"]);
    let check = |user: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_popgate"));
        command
            .args(["check", user])
            .env_clear()
            .env("POPGATE_CONFIG", site.config())
            .env("POPGATE_PASSWORD", "no such password");
        super::run(command)
    };
    let run = check(ALICE);
    let said = run.ok();
    assert!(said.contains("an account of popgate's own"), "{said}");
    assert!(
        said.contains("delete: refuse") && said.contains("All is well."),
        "{said}"
    );
    // While popgate runs, too.
    let gateway = site.serve();
    check(ALICE).ok();
    drop(gateway);
    provider.server.revoke(ALICE);
    assert_ne!(check(ALICE).code, 0);
}
