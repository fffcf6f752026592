//! The operator's pages.

use popgate::accounts::Trouble;

use super::*;

#[test]
fn nothing_is_told_before_the_password() {
    let Some(site) = Site::start() else { return };
    site.add_account("alice@example.org", "mail", |_| {});
    let mut stranger = Visitor::new(&site);
    let page = stranger.get("/operator?q=alice");
    assert!(page.says("Operator password") && !page.body.contains("alice"));
    let page = stranger.get("/operator/account?address=alice@example.org");
    assert_eq!(page.status, 401);
    assert!(!page.body.contains("alice"));
    let csrf = stranger.get("/operator").field("csrf");
    for path in ["account/disable", "account/enable", "account/revoke"] {
        let fields = [("csrf", csrf.as_str()), ("address", "alice@example.org")];
        let answer = stranger.post(&format!("/operator/{path}"), &fields);
        assert_eq!(answer.status, 401, "{path}");
    }
    let fields = [("csrf", csrf.as_str()), ("password", "wrong")];
    let answer = stranger.post("/operator/sign-in", &fields);
    assert!(
        answer.says("That is not the operator password"),
        "{}",
        answer.text()
    );
    assert!(!site.account("alice@example.org").unwrap().disabled);
}

#[test]
fn states_are_told_in_words_with_what_to_do() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    alice.sign_in("alice@example.org");
    let password = alice.add_device("Phone").setting("password");
    site.add_account("bob@example.org", "robot", |it| it.disabled = true);
    site.add_account("carol@example.org", "mail", |it| {
        it.trouble = Some(Trouble {
            since: 1_700_000_000,
            reason: "invalid_grant".to_owned(),
            told: true,
        });
    });
    // Sealed with the key of another gateway.
    let Some(other) = Site::start() else { return };
    Visitor::new(&other).sign_in("alice@example.org");
    let foreign = other.account("alice@example.org").unwrap().credential;
    site.add_account("dave@example.org", "mail", |it| it.credential = foreign);
    site.metrics.sessions_active.set(7);
    let mut operator = Visitor::new(&site);
    let page = operator.operate();
    for words in [
        "Key missing",
        "alice@example.org",
        "Connected",
        "renewed just now",
        "Switched off",
        "POP3 sessions now",
        "never",
    ] {
        assert!(page.says(words), "{words}: {}", page.text());
    }
    assert!(page.body.contains("<strong>7</strong>"));

    let trouble = operator.get("/operator?show=trouble");
    assert!(trouble.says("carol@example.org") && !trouble.body.contains("alice@"));
    let carol = operator.get("/operator/account?address=carol@example.org");
    assert!(
        carol.says("invalid_grant") && carol.says("14 Nov 2023, 22:13 UTC"),
        "{}",
        carol.text()
    );

    let page = operator.get("/operator/account?address=alice@example.org");
    assert!(
        page.says("Phone") && page.says("good until"),
        "{}",
        page.text()
    );
    assert!(page.says("Example Mail"));
    let (csrf, device) = (page.field("csrf"), page.field("device"));
    let fields = [
        ("csrf", csrf.as_str()),
        ("address", "alice@example.org"),
        ("device", device.as_str()),
    ];
    let answer = operator.post("/operator/account/disable", &fields);
    let page = operator.follow(&answer);
    assert!(page.says("The account is switched off"), "{}", page.text());
    assert!(site.account("alice@example.org").unwrap().disabled);
    // Whoever is signed in is no longer.
    assert_eq!(alice.get("/enrol/devices").status, 403);
    let answer = operator.post("/operator/account/enable", &fields);
    assert!(operator.follow(&answer).says("switched on again"));
    assert!(site.opens("alice@example.org", &password));
    let answer = operator.post("/operator/account/revoke", &fields);
    assert!(operator.follow(&answer).says("The device was removed"));
    assert!(!site.opens("alice@example.org", &password));

    let nobody = [("csrf", csrf.as_str()), ("address", "nobody@example.org")];
    for path in ["disable", "enable", "revoke"] {
        let answer = operator.post(&format!("/operator/account/{path}"), &nobody);
        assert_eq!(answer.status, 404, "{path}");
    }
    let out = operator.post("/operator/sign-out", &[("csrf", &csrf)]);
    assert!(operator.follow(&out).says("Operator password"));
}

#[test]
fn many_accounts_are_paged_and_found() {
    let Some(site) = Site::start() else { return };
    for number in 0..120 {
        site.add_account(&format!("user{number:03}@example.org"), "robot", |_| {});
    }
    let mut operator = Visitor::new(&site);
    let page = operator.operate();
    assert!(page.says("1–50 of 120") && page.says("user049") && !page.says("user050"));
    assert!(page.body.contains("page=2"));
    let last = operator.get("/operator?q=&show=all&page=999999");
    assert!(last.says("101–120 of 120") && !last.body.contains("rel=\"next\""));
    let found = operator.get("/operator?q=USER11");
    assert!(found.says("1–10 of 10"), "{}", found.text());
    let none = operator.get("/operator?q=nobody");
    assert!(none.says("No account matches"));
}
