//! The way from the first page to a password that works, and back when a token has
//! died.

use popgate::accounts::{Credential, ProbeError, Trouble};

use super::*;

const ALICE: &str = "alice@example.org";

#[test]
fn somebody_signs_in_names_a_device_and_gets_a_password_once() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    let first = alice.get("/enrol");
    assert!(first.says("Where is your mailbox?"), "{}", first.text());
    assert!(!first.says("Robot"), "it asks nobody who he is");
    let named = alice.sign_in(ALICE);
    assert!(named.says("Your mailbox is connected"), "{}", named.text());
    assert_eq!(site.mailboxes.tried(), [ALICE]);

    let made = alice.add_device("Outlook at work");
    let password = made.setting("password");
    assert_eq!(made.setting("server"), "pop.example.org");
    assert_eq!(made.setting("port"), "995");
    assert_eq!(made.setting("encryption"), "SSL/TLS");
    assert_eq!(made.setting("user"), ALICE);
    assert!(site.opens(ALICE, &password));
    assert_eq!(made.header("cache-control"), "no-store");

    let again = alice.get("/enrol/password");
    let again = alice.follow(&again);
    assert!(
        again.says("The password was shown once"),
        "{}",
        again.text()
    );
    assert!(again.says("Outlook at work"));
    assert!(!again.body.contains(&password));

    let profile = alice.get("/enrol/profile/apple");
    assert_eq!(
        profile.header("content-type"),
        "application/x-apple-aspen-config"
    );
    assert_eq!(profile.header("cache-control"), "no-store");
    assert!(
        profile
            .body
            .contains(&format!("<string>{password}</string>"))
    );
    let again = alice.get("/enrol/profile/apple");
    let again = alice.follow(&again);
    assert!(
        again.says("The profile can be downloaded once"),
        "{}",
        again.text()
    );

    let settings = alice.get("/enrol/profile/thunderbird");
    assert!(
        settings
            .body
            .contains("<hostname>pop.example.org</hostname>")
    );
    assert!(!settings.body.contains(&password));
}

#[test]
fn devices_are_listed_revoked_and_added_and_signing_out_ends_it() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    alice.sign_in(ALICE);
    let phone = alice.add_device("Phone").setting("password");
    let laptop = alice.add_device("Laptop").setting("password");
    let list = alice.get("/enrol/devices");
    assert!(list.says("Phone") && list.says("Laptop") && list.says("Not used yet"));

    let (csrf, device) = (list.field("csrf"), list.field("device"));
    let fields = [("csrf", csrf.as_str()), ("device", device.as_str())];
    let removed = alice.post("/enrol/devices/remove", &fields);
    let list = alice.follow(&removed);
    assert!(list.says("The device was removed"), "{}", list.text());
    assert!(!site.opens(ALICE, &phone));
    assert!(site.opens(ALICE, &laptop));

    let cookies = alice.cookies.clone();
    let out = alice.post("/enrol/sign-out", &[("csrf", &csrf)]);
    assert_eq!(out.header("location"), "/enrol");
    alice.cookies = cookies;
    let kept = alice.get("/enrol/devices");
    assert_eq!((kept.status, kept.header("location")), (303, "/enrol"));
}

#[test]
fn a_button_that_is_pressed_twice_makes_one_device() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    let csrf = alice.sign_in(ALICE).field("csrf");
    let fields = [("csrf", csrf.as_str()), ("name", "Phone")];
    for _ in 0..2 {
        let answer = alice.post("/enrol/devices/add", &fields);
        assert_eq!(answer.header("location"), "/enrol/password");
    }
    let password = alice.get("/enrol/password").setting("password");
    assert!(site.opens(ALICE, &password));
    assert_eq!(site.account(ALICE).unwrap().devices.len(), 1);
    // Nor is one shown that was taken away meanwhile.
    let fields = [("csrf", csrf.as_str()), ("name", "Laptop")];
    alice.post("/enrol/devices/add", &fields);
    site.change(ALICE, |account| account.devices.truncate(1));
    alice.post("/enrol/devices/add", &fields);
    let password = alice.get("/enrol/password").setting("password");
    assert!(site.opens(ALICE, &password));
}

#[test]
fn a_dead_token_is_told_and_signing_in_again_renews_it() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    alice.sign_in(ALICE);
    let password = alice.add_device("Phone").setting("password");
    site.change(ALICE, |account| {
        account.trouble = Some(Trouble {
            since: 1_700_000_000,
            reason: "<i>invalid_grant</i>".to_owned(),
            told: true,
        });
    });
    let list = alice.get("/enrol/devices");
    assert!(
        list.says("Your mailbox has to be connected again"),
        "{}",
        list.text()
    );
    assert!(
        !list.body.contains("invalid_grant"),
        "that is the operator's"
    );

    let (csrf, address) = (list.field("csrf"), list.field("address"));
    let fields = [
        ("csrf", csrf.as_str()),
        ("provider", "mail"),
        ("address", &address),
    ];
    let url = alice.post("/enrol/start", &fields).leads_to();
    assert!(
        url.query()
            .unwrap()
            .contains("login_hint=alice%40example.org")
    );
    let back = site.provider.sign_in(&url, ALICE);
    let back = alice.come_back(&back);
    let list = alice.follow(&back);
    assert!(
        list.says("Your mailbox is connected again"),
        "{}",
        list.text()
    );
    assert!(!list.says("has to be connected"), "{}", list.text());
    assert!(site.account(ALICE).unwrap().trouble.is_none());
    assert!(site.opens(ALICE, &password));
}

#[test]
fn whoever_is_not_asked_by_the_provider_types_his_address() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    let page = alice.get("/enrol/provider/silent");
    let csrf = page.field("csrf");
    for typed in ["", "alice", "alice@", "a b@example.org"] {
        let fields = [
            ("csrf", csrf.as_str()),
            ("provider", "silent"),
            ("address", typed),
        ];
        let answer = alice.post("/enrol/start", &fields);
        assert!(
            answer.says("Please type the whole address"),
            "{}",
            answer.text()
        );
    }
    let url = alice.leave("silent", "Alice@Example.ORG");
    let back = site.provider.sign_in(&url, ALICE);
    let back = alice.come_back(&back);
    assert!(alice.follow(&back).says("Your mailbox is connected"));
    assert_eq!(site.mailboxes.tried(), [ALICE]);
}

#[test]
fn only_accounts_and_the_configured_domains_may_and_only_at_their_own_provider() {
    let Some(site) = Site::start() else { return };
    site.add_account("bob@elsewhere.example", "mail", |_| {});
    site.add_account("carol@example.org", "silent", |_| {});
    site.add_account("dave@example.org", "mail", |it| it.disabled = true);
    site.add_account("root@example.org", "mail", |it| it.master = true);
    let come = |user: &str| {
        let mut visitor = Visitor::new(&site);
        let url = visitor.leave("mail", "");
        let back = site.provider.sign_in(&url, user);
        visitor.come_back(&back)
    };
    assert_eq!(come("bob@elsewhere.example").status, 303);
    for (user, words) in [
        ("eve@elsewhere.example", "This mailbox cannot be used here"),
        ("carol@example.org", "This mailbox cannot be used here"),
        ("root@example.org", "This mailbox cannot be used here"),
        ("dave@example.org", "This account is switched off"),
    ] {
        let answer = come(user);
        assert_eq!(answer.status, 403, "{user}");
        assert!(answer.says(words), "{user}: {}", answer.text());
    }
    assert_eq!(site.mailboxes.tried(), ["bob@elsewhere.example"]);
    assert!(site.account("eve@elsewhere.example").is_none());
}

#[test]
fn another_mailbox_than_the_one_that_is_meant_changes_nothing() {
    let Some(site) = Site::start() else { return };
    site.add_account("shared@example.org", "mail", |it| {
        it.delegate = Some("delegate@example.org".to_owned());
    });
    let mut alice = Visitor::new(&site);
    let url = alice.leave("mail", "shared@example.org");
    let back = site.provider.sign_in(&url, ALICE);
    let answer = alice.come_back(&back);
    assert!(
        answer.says("Another mailbox signed in"),
        "{}",
        answer.text()
    );
    assert!(
        !answer.body.contains("delegate@"),
        "that is nobody's business"
    );
    let account = site.account("shared@example.org").unwrap();
    assert_eq!(account.credential, Credential::Provider);

    let url = alice.leave("mail", "shared@example.org");
    let back = site.provider.sign_in(&url, "delegate@example.org");
    assert_eq!(alice.come_back(&back).status, 303);
    assert_eq!(site.mailboxes.tried(), ["shared@example.org"]);
}

#[test]
fn a_mailbox_that_does_not_open_signs_nobody_in() {
    let Some(site) = Site::start() else { return };
    for (problem, status, words) in [
        (ProbeError::Refused, 400, "The mailbox did not open"),
        (ProbeError::Temporary("<b>".into()), 503, "does not answer"),
        (
            ProbeError::Misconfigured("<b>".into()),
            500,
            "not set up right",
        ),
    ] {
        site.mailboxes.fail(ALICE, problem);
        let mut alice = Visitor::new(&site);
        let url = alice.leave("mail", "");
        let back = site.provider.sign_in(&url, ALICE);
        let answer = alice.come_back(&back);
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(
            answer.says(words) && !answer.body.contains("<b>"),
            "{}",
            answer.text()
        );
        assert_eq!(alice.get("/enrol/devices").header("location"), "/enrol");
        assert!(site.account(ALICE).is_none());
    }
    site.mailboxes.mend();
    let page = Visitor::new(&site).sign_in(ALICE);
    assert!(page.says("Your mailbox is connected"));
}

#[test]
fn an_app_password_is_tried_and_a_wrong_one_says_nothing_of_accounts() {
    let Some(site) = Site::start() else { return };
    site.add_account("dave@example.org", "app", |it| it.disabled = true);
    let mut visitor = Visitor::new(&site);
    let page = visitor.get("/enrol/provider/app");
    let csrf = page.field("csrf");
    let mut try_out = |address: &str, secret: &str| {
        let fields = [
            ("csrf", csrf.as_str()),
            ("provider", "app"),
            ("address", address),
            ("secret", secret),
        ];
        visitor.post("/enrol/provider/app", &fields)
    };
    let body = |answer: Answer, address: &str| {
        assert_eq!(answer.status, 200);
        answer.body.replace(address, "ADDRESS")
    };
    let wrong = body(try_out(ALICE, "wrong"), ALICE);
    assert!(wrong.contains("The mailbox did not open."), "{wrong}");
    for stranger in ["dave@example.org", "eve@elsewhere.example"] {
        assert_eq!(body(try_out(stranger, site::APP_PASSWORD), stranger), wrong);
    }
    // Nothing was asked of the mail server for those.
    assert_eq!(site.mailboxes.tried(), [ALICE]);
    let good = try_out(ALICE, site::APP_PASSWORD);
    assert_eq!(good.status, 303, "{}", good.text());
    let account = site.account(ALICE).unwrap();
    assert!(matches!(account.credential, Credential::Password(_)));
}

#[test]
fn where_a_device_password_locks_the_mailbox_another_one_is_needed_for_the_next() {
    let options = Options {
        locked: true,
        ..Options::default()
    };
    let Some(site) = Site::with(options) else {
        return;
    };
    let mut alice = Visitor::new(&site);
    alice.sign_in(ALICE);
    let first = alice.add_device("Phone").setting("password");
    let csrf = alice.get("/enrol/devices").field("csrf");
    let mut add = |by: &str| {
        let fields = [("csrf", csrf.as_str()), ("name", "Laptop"), ("by", by)];
        alice.post("/enrol/devices/add", &fields)
    };
    for wrong in ["", "wrong"] {
        let answer = add(wrong);
        assert!(
            answer.says("not the password of one of your devices"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(add(&first).status, 303);
    assert_eq!(site.account(ALICE).unwrap().devices.len(), 2);
}

#[test]
fn without_its_last_device_a_locked_mailbox_is_signed_in_to_afresh() {
    let options = Options {
        locked: true,
        ..Options::default()
    };
    let Some(site) = Site::with(options) else {
        return;
    };
    let mut alice = Visitor::new(&site);
    alice.sign_in(ALICE);
    alice.add_device("Phone");
    let list = alice.get("/enrol/devices");
    let fields = [
        ("csrf", &*list.field("csrf")),
        ("device", &*list.field("device")),
    ];
    let removed = alice.post("/enrol/devices/remove", &fields);
    assert_eq!(removed.header("location"), "/enrol");
    alice.sign_in(ALICE);
    let password = alice.add_device("Phone").setting("password");
    let password = popgate::secret::Secret::from(password.as_str());
    let verdict = site.block_on(site.accounts.authenticate(ALICE, &password, None));
    let popgate::accounts::Verdict::Admitted(admitted) = verdict.unwrap() else {
        panic!("not admitted");
    };
    assert!(site.block_on(site.accounts.credentials(&admitted)).is_ok());
}
