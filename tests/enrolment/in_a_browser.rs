//! The pages in Chromium: that they work there, by keyboard alone too, on a phone
//! and on a desk, light and dark, without a word in the console. Pictures of all of
//! them are kept in `target/screenshots`.

use popgate::accounts::Trouble;

use super::*;
use crate::support::PATIENCE;
use crate::support::browser::{Browser, ENTER, Look, TAB};

const ALICE: &str = "alice@example.org";

/// A page is as it should be.
fn look_at(browser: &Browser, name: &str) {
    browser.picture(name);
    let overflow = browser.overflow();
    assert_eq!(overflow[0], 0, "{name}: {overflow}");
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{name}: {complaints:?}");
}

/// From the first page to the provider's, and back.
fn sign_in(browser: &Browser, site: &Site, user: &str) {
    browser.open(&format!("{}/enrol", site.url));
    browser.wait_for("Read your mail in the program you already use");
    browser.click("form .offer");
    at_the_provider(browser, site, user);
}

/// What somebody does at the provider: the tests' own asks for a name.
fn at_the_provider(browser: &Browser, site: &Site, user: &str) {
    let issuer = site.provider.issuer();
    browser.wait("the provider's page", |it| it.url().starts_with(&issuer));
    // Its pages are not ours to judge.
    browser.open(&format!("{}&login_as={user}", browser.url()));
    browser.complaints();
}

fn walk(look: Look, kind: &str) {
    let Some(site) = Site::start() else { return };
    let Some(browser) = Browser::start(look) else {
        return;
    };
    let name = |page: &str| format!("{kind}-{page}");

    browser.open(&format!("{}/enrol", site.url));
    browser.wait_for("Read your mail in the program you already use");
    look_at(&browser, &name("1-choose"));
    browser.open(&format!("{}/enrol/provider/app", site.url));
    browser.wait_for("App Password Mail");
    look_at(&browser, &name("2-app-password"));
    browser.type_into("#address", "nobody");
    browser.click("main button");
    browser.wait("a word about it", |it| it.text().contains("whole address"));
    look_at(&browser, &name("3-app-password-wrong"));

    sign_in(&browser, &site, ALICE);
    browser.wait_for("Your mailbox is connected");
    look_at(&browser, &name("4-name-the-device"));
    browser.type_into("#name", "Outlook at work");
    browser.click("main button");
    browser.wait_for("Set up Outlook at work");
    look_at(&browser, &name("5-password"));
    let password = browser.text_of("#password");
    assert!(site.opens(ALICE, &password), "{password}");

    browser.click("[data-copy=password]");
    browser.wait("the copy", |it| {
        it.text_of("[data-copy=password]") != "Copy"
    });
    look_at(&browser, &name("6-copied"));
    browser.click("[href='/enrol/profile/apple']");
    let profile = browser.downloads.join("alice-example.org.mobileconfig");
    browser.wait("the download", |_| profile.exists());
    assert!(
        std::fs::read_to_string(&profile)
            .unwrap()
            .contains(&password)
    );
    browser.click("main .actions a");
    browser.wait_for("Your devices");
    look_at(&browser, &name("7-devices"));
    browser.click(".device summary");
    look_at(&browser, &name("8-remove"));

    site.change(ALICE, |account| {
        account.trouble = Some(Trouble {
            since: 1_795_000_000,
            reason: "invalid_grant: the token was revoked".to_owned(),
            told: true,
        });
    });
    browser.reload();
    browser.wait("the trouble", |it| it.text().contains("connected again"));
    look_at(&browser, &name("9-trouble"));
    operator(&browser, &site, &name);
    browser.open(&format!("{}/enrol/nothing", site.url));
    browser.wait_for("There is no such page");
    browser.picture(&name("13-not-found"));
    // A browser says so itself.
    let complaints = browser.complaints();
    assert!(
        complaints.iter().all(|it| it.contains("404")),
        "{complaints:?}"
    );
}

fn operator(browser: &Browser, site: &Site, name: &impl Fn(&str) -> String) {
    for (user, disabled) in [
        ("bob", false),
        ("carol", true),
        ("a-rather-long-name.of-somebody", false),
    ] {
        let address = format!("{user}@a-long-domain-name.example.org");
        site.add_account(&address, "robot", |it| it.disabled = disabled);
    }
    browser.open(&format!("{}/operator", site.url));
    browser.wait_for("Operator");
    look_at(browser, &name("10-operator-sign-in"));
    browser.type_into("#password", site::OPERATOR);
    browser.click("main button");
    browser.wait_for("Accounts");
    look_at(browser, &name("11-operator"));
    browser.click(".accounts a[href*=alice]");
    browser.wait_for(ALICE);
    look_at(browser, &name("12-operator-account"));
}

#[test]
fn on_a_desk() {
    walk(Look::DESK, "desk-light");
}

#[test]
fn on_a_desk_in_the_dark() {
    walk(Look::DESK.dark(), "desk-dark");
}

#[test]
fn on_a_phone() {
    walk(Look::PHONE, "phone-light");
}

#[test]
fn on_a_phone_in_the_dark() {
    walk(Look::PHONE.dark(), "phone-dark");
}

#[test]
fn by_the_keyboard_alone() {
    let Some(site) = Site::start() else { return };
    let Some(browser) = Browser::start(Look::DESK) else {
        return;
    };
    browser.open(&format!("{}/enrol", site.url));
    browser.wait_for("Read your mail in the program you already use");
    // First of all, past the head of the page.
    browser.keys(TAB);
    assert_eq!(
        browser.run("return document.activeElement.className"),
        "skip"
    );
    browser.picture("keyboard-1-skip");
    browser.tab_to("form .offer");
    browser.picture("keyboard-2-choose");
    browser.keys(ENTER);
    at_the_provider(&browser, &site, ALICE);
    browser.wait_for("Your mailbox is connected");
    // Where there is one thing to do, the focus is there.
    browser.keys("Phone");
    browser.keys(ENTER);
    browser.wait_for("Set up Phone");
    browser.tab_to("[data-copy=password]");
    browser.picture("keyboard-3-copy");
    browser.keys(ENTER);
    browser.wait("the copy", |it| {
        it.text_of("[data-copy=password]") != "Copy"
    });
    browser.tab_to("main .actions a");
    browser.keys(ENTER);
    browser.wait_for("Your devices");
    browser.tab_to(".device summary");
    browser.keys(ENTER);
    browser.tab_to(".device .danger");
    browser.picture("keyboard-4-remove");
    browser.keys(ENTER);
    browser.wait("the removal", |it| {
        it.text().contains("The device was removed")
    });
    assert!(site.account(ALICE).unwrap().devices.is_empty());
    browser.tab_to(".leave button");
    browser.keys(ENTER);
    browser.wait_for("Read your mail in the program you already use");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_page_in_a_strangers_frame_stays_empty() {
    let Some(site) = Site::start() else { return };
    let Some(browser) = Browser::start(Look::DESK) else {
        return;
    };
    let frame = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = frame.local_addr().unwrap();
    let url = site.url.clone();
    let stranger = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = frame.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let html = format!("<h1>Evil</h1><iframe src='{url}/enrol'></iframe>");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            html.len()
        );
        stream.write_all((head + &html).as_bytes()).unwrap();
    });
    browser.open(&format!("http://{address}/"));
    stranger.join().unwrap();
    browser.wait_for("Evil");
    browser.wait("a refusal", |it| {
        let complaints = it.complaints();
        complaints.iter().any(|it| it.contains("frame-ancestors"))
    });
}
