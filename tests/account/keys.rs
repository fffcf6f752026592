//! What seals: keys, their change, and device passwords.

use std::fs;

use super::provider::Provider;
use super::support::servers::dovecot;
use super::{Conversation, Site, key, run};

const ALICE: &str = "alice@example.org";

#[test]
fn another_key_takes_over() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let password = provider.enrol(&site, ALICE, &[]);
    let old = fs::read_to_string(site.path("accounts.key")).unwrap();
    let new = key();
    assert_ne!(old, new);
    site.write_secret("accounts.key", &format!("{new}{old}"));
    let rekeyed = site.run(&["rekey", "--json"]).objects().remove(0);
    let expected = serde_json::json!({"resealed": 1, "current": 0, "failed": []});
    assert_eq!(rekeyed, expected);
    assert!(site.run(&["rekey"]).ok().starts_with("0 sealed"));
    site.write_secret("accounts.key", &new);
    site.serve().pop3().login(ALICE, &password);
    // Without the key, nothing is lost, and it says what is missing.
    site.write_secret("accounts.key", &key());
    let failed = site.run(&["rekey"]);
    assert_eq!(failed.code, 1);
    assert!(failed.out.contains("another key"), "{}", failed.out);
    assert_eq!(site.shown(ALICE)["state"], "key-missing");
    let shown = site.run(&["show", ALICE]).ok();
    assert!(shown.contains("a key that is not among those"), "{shown}");
    site.write_secret("accounts.key", &new);
    assert_eq!(site.shown(ALICE)["state"], "ok");
    site.serve().pop3().login(ALICE, &password);
    // Who has lost it signs in again.
    site.write_secret("accounts.key", &key());
    let mut again = Conversation::start(&site, &["reauthorize", ALICE]);
    let code = again.next()["user_code"].as_str().unwrap().to_owned();
    provider.server.approve(&code, ALICE);
    assert_eq!(again.next()["event"], "reauthorized");
    assert_eq!(again.end().code, 0);
    assert_eq!(site.shown(ALICE)["state"], "ok");
    site.serve().pop3().login(ALICE, &password);
}

#[test]
fn nothing_is_sealed_with_a_key_that_the_running_popgate_does_not_have() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let upstream = format!("upstream = {:?}\n", dovecot.plain_url());
    let locked = "[accounts]\nkey_file = \"accounts.key\"\nlocked_by_password = true\n";
    let site = Site::new(&format!("{upstream}{locked}"));
    site.write_secret("right", "pw-alice\n");
    let file = site.path("right").to_str().unwrap().to_owned();
    let add = |address: &str| {
        site.run(&[
            "add",
            address,
            "--user",
            "alice",
            "--password-file",
            &file,
            "--json",
        ])
    };
    let password_of = |enrolled: serde_json::Value| {
        let password = enrolled["device"]["password"].as_str();
        password.unwrap().to_owned()
    };
    let locked = password_of(add("locked@example.org").objects().remove(0));
    site.configure(&upstream);
    let password = password_of(add(ALICE).objects().remove(0));
    let old = fs::read_to_string(site.path("accounts.key")).unwrap();
    let mut gateway = site.serve();
    site.write_secret("accounts.key", &format!("{}{old}", key()));
    let first = "restart popgate first: the one that is running does not have";
    site.run(&["rekey"]).failed(1, first);
    let added = add("bob@example.org");
    assert_eq!(added.code, 1, "{}", added.out);
    assert!(added.err.contains(first), "{}", added.err);
    site.run(&["reauthorize", ALICE, "--password-file", &file])
        .failed(1, first);
    let mut one_more = site.command(&["password", "add", "locked@example.org"]);
    one_more.env("POPGATE_DEVICE_PASSWORD", &locked);
    run(one_more).failed(1, first);
    // What seals nothing is done all the same.
    site.run(&["password", "add", ALICE, "--device-name", "phone"])
        .ok();
    site.run(&["disable", ALICE]).ok();
    site.run(&["enable", ALICE]).ok();
    gateway.pop3().login(ALICE, &password);
    gateway.pop3().login("locked@example.org", &locked);
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
    let gateway = site.serve();
    let rekeyed = site.run(&["rekey"]).ok();
    assert!(rekeyed.starts_with("2 sealed"), "{rekeyed}");
    gateway.pop3().login(ALICE, &password);
    gateway.pop3().login("locked@example.org", &locked);
}

#[test]
fn where_secrets_open_with_a_device_password_a_further_device_needs_one() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site =
        provider.site("[accounts]\nkey_file = \"accounts.key\"\nlocked_by_password = true\n");
    let first = provider.enrol(&site, ALICE, &[]);
    assert_eq!(site.shown(ALICE)["locked_by_password"], true);
    let add = |password: Option<&str>| {
        let mut command =
            site.command(&["password", "add", ALICE, "--device-name", "phone", "--json"]);
        command.envs(password.map(|it| ("POPGATE_DEVICE_PASSWORD", it)));
        run(command)
    };
    assert_ne!(add(None).code, 0);
    add(Some("wrong")).failed(1, "open only with the password of one of its devices");
    let second = add(Some(&first)).objects().remove(0);
    let second = second["device"]["password"].as_str().unwrap();
    let gateway = site.serve();
    gateway.pop3().login(ALICE, second);
    gateway.pop3().login(ALICE, &first);
}

#[test]
fn without_a_key_it_is_said_how_to_make_one() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("[accounts]\nlocked_by_password = false\n");
    site.run(&["list"])
        .failed(78, "`popgate account key` makes a key");
}
