//! `popgate check` of somebody's mailbox: who would judge a login there, judges it here.

use std::process::{Command, Stdio};

use super::provider::Provider;
use super::support::servers::{Dovecot, dovecot};
use super::{Run, Site, run};

/// `popgate check`, with nobody to ask.
fn command(site: &Site) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
    command
        .arg("check")
        .env_clear()
        .env("POPGATE_CONFIG", site.config())
        .stdin(Stdio::null());
    command
}

/// The same for somebody, with a password in the environment.
fn check(site: &Site, user: &str, password: &str) -> Run {
    let mut command = command(site);
    command.arg(user).env("POPGATE_PASSWORD", password);
    run(command)
}

/// It failed before anything was shown to the upstream.
fn stopped(run: Run, says: &str) {
    assert_eq!(run.out, "");
    run.failed(1, says);
}

/// A site in front of a Dovecot, with these lines.
fn site(dovecot: &Dovecot, lines: &str) -> Site {
    Site::new(&format!("upstream = {:?}\n{lines}", dovecot.plain_url()))
}

fn add(site: &Site, arguments: &[&str]) -> String {
    let mut command = site.command(&["add", "--json"]);
    command.args(arguments).env("POPGATE_PASSWORD", "pw-alice");
    let enrolled = run(command).objects().remove(0);
    enrolled["device"]["password"].as_str().unwrap().to_owned()
}

#[test]
fn who_has_no_account_is_told_where_accounts_alone_are_let_in() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let site = site(&dovecot, "login = \"accounts\"");
    let says = "there is no account bob, and login = \"accounts\" lets in nobody else: popgate account add bob";
    // The password is right at the upstream; who logs in is refused nevertheless.
    stopped(check(&site, "bob", "pw-bob"), says);
    // To look makes no store.
    assert!(!popgate::store::exists(&site.path("state")));
    add(&site, &["alice"]);
    stopped(check(&site, "bob+Junk", "pw-bob"), says);
    let said = check(&site, "alice", "x").ok();
    assert!(said.contains("All is well."), "{said}");
}

#[test]
fn a_masters_password_is_judged_here_and_goes_no_further() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    dovecot.imap("alice").ok("CREATE Work");
    let site = site(&dovecot, "");
    let alices = add(&site, &["alice"]);
    let masters = add(&site, &["root", "--master"]);
    for user in ["alice*root", "Alice+Work*Root", "alice*root+Work"] {
        let said = check(&site, user, &masters).ok();
        assert!(said.contains("by the master root"), "{said}");
        assert_eq!(
            said.contains("folders: Work"),
            user.contains("Work"),
            "{said}"
        );
        assert!(said.contains("All is well."), "{said}");
    }
    for wrong in ["x", &alices] {
        let says = "the account root: the password is of none of this master's devices";
        stopped(check(&site, "alice*root", wrong), says);
    }
    let says = "the account bob: there is none, and masters open no other mailboxes";
    stopped(check(&site, "bob*root", &masters), says);
    stopped(check(&site, "root", &masters), "a master has no mailbox");
    // Nobody's master, and a mailbox that has an account.
    let says = "alice has an account, which opens by its own device passwords";
    stopped(check(&site, "alice*bob", "pw-bob"), says);
    site.run(&["disable", "root"]).ok();
    stopped(check(&site, "alice*root", &masters), "or he is disabled");
}

#[test]
fn where_secrets_open_with_a_device_password_that_is_what_is_asked_for() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let lines = "[accounts]\nkey_file = \"accounts.key\"\nlocked_by_password = true\n";
    let site = provider.site(lines);
    let alice = "alice@example.org";
    let password = provider.enrol(&site, alice, &[]);
    let says = "POPGATE_PASSWORD: no password of a device for alice@example.org";
    let run = check(&site, alice, "");
    assert_eq!(run.out, "");
    run.failed(78, says);
    let says = "the account alice@example.org: the password is of none of its devices";
    stopped(check(&site, alice, "wrong"), says);
    let said = check(&site, alice, &password).ok();
    assert!(said.contains("All is well."), "{said}");
}

#[test]
fn where_all_mailboxes_are_at_providers_somebody_has_to_be_named() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    stopped(run(command(&site)), "popgate check ADDRESS");
    let alice = "alice@example.org";
    stopped(
        check(&site, alice, "x"),
        "there is no account alice@example.org",
    );
    provider.enrol(&site, alice, &[]);
    check(&site, alice, "x").ok();
    // That of everybody is a place to look at.
    site.configure(&format!(
        "default_provider = \"test\"\n{}",
        provider.table("")
    ));
    let said = run(command(&site)).ok();
    assert!(said.contains("All is well."), "{said}");
}
