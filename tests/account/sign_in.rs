//! Signing in: by a device code, and by an address that is pasted.

use url::Url;

use super::provider::Provider;
use super::{Conversation, anywhere};

const ALICE: &str = "alice@example.org";

/// What somebody pastes, of the address that the browser ended on.
type Pasted<'a> = &'a dyn Fn(&Url) -> String;

#[test]
fn by_device_code_to_a_mail_that_is_read() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let mut added = Conversation::start(&site, &["add", "Alice@Example.org"]);
    let sign_in = added.next();
    assert_eq!(sign_in["event"], "sign_in");
    assert_eq!(sign_in["address"], ALICE);
    let rows = sign_in["qr"].as_array().unwrap();
    assert!(rows.len() >= 21);
    assert!(
        rows.iter()
            .all(|row| row.as_str().unwrap().len() == rows.len())
    );
    let code = sign_in["user_code"].as_str().unwrap();
    provider.server.approve(code, ALICE);
    let enrolled = added.next();
    assert_eq!(added.end().code, 0);
    let account = &enrolled["account"];
    assert_eq!(account["state"], "ok");
    assert_eq!(
        (&account["home"], &account["provider"]),
        (&"provider".into(), &"test".into())
    );
    assert_eq!(account["credential"], "oauth");
    assert_eq!(account["token"]["renewable"], true);
    assert_eq!(account["devices"][0]["last_used"], serde_json::Value::Null);
    let password = enrolled["device"]["password"].as_str().unwrap();

    let gateway = site.serve();
    let mut client = gateway.pop3();
    client.login(ALICE, password);
    let message = client.retrieve(1);
    assert!(String::from_utf8_lossy(&message).contains("for alice"));
    client.quit();

    // Nothing that opens anything stands anywhere as it is.
    let shown = [site.run(&["show", ALICE]).ok(), site.run(&["list"]).ok()].concat();
    for secret in provider
        .server
        .issued()
        .iter()
        .map(String::as_str)
        .chain([password])
    {
        if secret.len() >= 8 && secret != code {
            assert!(!shown.contains(secret) && !gateway.logs().contains(secret));
            assert!(!anywhere(&site.path("state"), secret), "{secret}");
        }
    }
}

#[test]
fn by_an_address_that_is_pasted() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    // As a program does it: the address, its query, or the code alone.
    for (user, pasted) in [
        ("alice", (|url: &Url| url.to_string()) as fn(&Url) -> String),
        ("bob", |url| url.query().unwrap().to_owned()),
        ("carol", |url| {
            let pairs = url.query_pairs();
            let code = pairs.into_iter().find(|(name, _)| name == "code");
            code.unwrap().1.into_owned()
        }),
    ] {
        let address = format!("{user}@example.org");
        let mut added = Conversation::start(&site, &["add", &address, "--method", "paste"]);
        let sign_in = added.next();
        assert_eq!(sign_in["method"], "paste");
        assert_eq!(sign_in["redirect_url"], "http://localhost/");
        let url: Url = sign_in["url"].as_str().unwrap().parse().unwrap();
        let back = provider.server.sign_in(&url, &address);
        added.type_line(&pasted(&back));
        let enrolled = added.next();
        assert_eq!(enrolled["event"], "enrolled", "{enrolled}");
        assert_eq!(added.end().code, 0);
    }
    assert_eq!(site.run(&["list", "--json"]).objects().len(), 3);
}

#[test]
fn what_is_pasted_must_answer_what_was_asked() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let with = |url: &Url, name: &str, value: Option<&str>| {
        let mut other = url.clone();
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let kept = pairs.iter().filter(|(it, _)| it != name);
        other.query_pairs_mut().clear().extend_pairs(kept);
        if let Some(value) = value {
            other.query_pairs_mut().append_pair(name, value);
        }
        other.to_string()
    };
    let cases: [(&str, Pasted<'_>); 9] = [
        ("of another sign-in", &|url| with(url, "state", Some("x"))),
        ("no state", &|url| with(url, "state", None)),
        ("another provider", &|url| {
            with(url, "iss", Some("https://evil.example"))
        }),
        ("no code", &|url| with(url, "code", None)),
        ("state twice", &|url| format!("{url}&state=x")),
        ("code twice", &|url| format!("{url}&code=x")),
        ("not the address where the browser ends", &|url| {
            url.to_string()
                .replace("http://localhost/", "https://evil.example/")
        }),
        ("spaces", &|url| format!("{url} and more")),
        ("access_denied", &|url| {
            with(url, "code", None) + "&error=access_denied&error_description=%1b%5b2Jno"
        }),
    ];
    for (says, pasted) in cases {
        let mut added = Conversation::start(&site, &["add", ALICE, "--method", "paste"]);
        let url: Url = added.next()["url"].as_str().unwrap().parse().unwrap();
        added.type_line(&pasted(&provider.server.sign_in(&url, ALICE)));
        let failed = added.next();
        assert_eq!(failed["event"], "failed");
        let error = failed["error"].as_str().unwrap();
        assert!(error.contains(says), "{says}: {error}");
        added.end().failed(1, says);
    }
    // Nor one of another run, whose verifier nobody has.
    let mut other = Conversation::start(&site, &["add", ALICE, "--method", "paste"]);
    let url: Url = other.next()["url"].as_str().unwrap().parse().unwrap();
    let back = provider.server.sign_in(&url, ALICE);
    let code = back
        .query_pairs()
        .find(|(name, _)| name == "code")
        .unwrap()
        .1;
    let mut added = Conversation::start(&site, &["add", ALICE, "--method", "paste"]);
    added.next();
    added.type_line(&code);
    assert_eq!(added.next()["event"], "failed");
    added.end();
    // Nothing was pasted.
    assert_eq!(other.end().code, 1);
    assert!(site.run(&["list", "--json"]).objects().is_empty());
}

#[test]
fn the_mailbox_that_signs_in_is_the_one_that_is_enrolled() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let mut added = Conversation::start(&site, &["add", ALICE]);
    let code = added.next()["user_code"].as_str().unwrap().to_owned();
    provider.server.approve(&code, "mallory@example.org");
    assert_eq!(added.next()["event"], "failed");
    added
        .end()
        .failed(1, "mallory@example.org signed in, not alice@example.org");
    // Nor does it change one that there is.
    let password = provider.enrol(&site, ALICE, &[]);
    let before = site.shown(ALICE);
    let mut again = Conversation::start(&site, &["reauthorize", ALICE]);
    let code = again.next()["user_code"].as_str().unwrap().to_owned();
    provider.server.approve(&code, "mallory@example.org");
    assert_eq!(again.next()["event"], "failed");
    again.end();
    assert_eq!(site.shown(ALICE), before);
    // Nor does who refuses.
    let mut again = Conversation::start(&site, &["reauthorize", ALICE]);
    let code = again.next()["user_code"].as_str().unwrap().to_owned();
    provider.server.deny(&code);
    again.next();
    assert_eq!(again.end().code, 1);
    site.serve().pop3().login(ALICE, &password);
}

#[test]
fn a_token_that_died_is_cured_by_signing_in_again() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let password = provider.enrol(&site, ALICE, &[]);
    provider.server.revoke(ALICE);
    let gateway = site.serve();
    let mut client = gateway.pop3();
    client.expect_ok(&format!("USER {ALICE}"));
    let refused = client.expect_err(&format!("PASS {password}"));
    assert!(refused.starts_with("[AUTH]"), "{refused}");
    let shown = site.run(&["show", ALICE]).ok();
    assert!(shown.contains("somebody has to sign in again"), "{shown}");
    assert_eq!(site.shown(ALICE)["state"], "sign-in-needed");
    assert!(site.run(&["list"]).ok().contains("sign-in-needed"));
    let mut again = Conversation::start(&site, &["reauthorize", ALICE]);
    let code = again.next()["user_code"].as_str().unwrap().to_owned();
    provider.server.approve(&code, ALICE);
    assert_eq!(again.next()["event"], "reauthorized");
    assert_eq!(again.end().code, 0);
    assert_eq!(site.shown(ALICE)["state"], "ok");
    gateway.pop3().login(ALICE, &password);
}

#[test]
fn where_there_are_no_device_codes_an_address_is_pasted() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    provider.server.set(serde_json::json!({
        "discovery": {"device_authorization_endpoint": null},
    }));
    let mut added = Conversation::start(&site, &["add", ALICE]);
    let sign_in = added.next();
    assert_eq!(sign_in["method"], "paste", "{sign_in}");
    added.end();
}

#[test]
fn a_shared_mailbox_is_opened_by_its_delegate() {
    let Some(provider) = Provider::start() else {
        return;
    };
    let site = provider.site("");
    let mut added = Conversation::start(
        &site,
        &[
            "add",
            "team@example.org",
            "--shared-by",
            "Alice@example.org",
        ],
    );
    let sign_in = added.next();
    assert_eq!(sign_in["address"], ALICE);
    let code = sign_in["user_code"].as_str().unwrap();
    // The team itself cannot sign in for it.
    provider.server.approve(code, "team@example.org");
    assert_eq!(added.next()["event"], "failed");
    added
        .end()
        .failed(1, "team@example.org signed in, not alice@example.org");
}
