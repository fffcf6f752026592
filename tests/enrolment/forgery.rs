//! What hostile sites, browsers and providers send.

use url::Url;

use super::*;

const ALICE: &str = "alice@example.org";

fn parameter(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(it, _)| it == name);
    found.unwrap().1.into_owned()
}

fn with_parameter(url: &Url, name: &str, value: &str) -> Url {
    let mut changed = url.clone();
    let pairs = url.query_pairs().filter(|(it, _)| it != name);
    let pairs: Vec<(String, String)> = pairs
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    changed
        .query_pairs_mut()
        .clear()
        .extend_pairs(pairs)
        .append_pair(name, value);
    changed
}

#[test]
fn callbacks_swapped_between_two_browsers_sign_nobody_in() {
    let Some(site) = Site::start() else { return };
    let (mut alice, mut mallory) = (Visitor::new(&site), Visitor::new(&site));
    let (of_alice, of_mallory) = (alice.leave("mail", ""), mallory.leave("mail", ""));
    let of_alice = site.provider.sign_in(&of_alice, ALICE);
    let of_mallory = site.provider.sign_in(&of_mallory, "mallory@example.org");
    for (browser, url) in [(&mut alice, &of_mallory), (&mut mallory, &of_alice)] {
        let answer = browser.come_back(url);
        assert_eq!(answer.status, 400);
        assert!(answer.says("no longer valid"), "{}", answer.text());
        assert_eq!(browser.get("/enrol/devices").header("location"), "/enrol");
    }
    // Nor does his code with the victim's state.
    let mut victim = Visitor::new(&site);
    let url = victim.leave("mail", "");
    let honest = site.provider.sign_in(&url, ALICE);
    let mut attacker = Visitor::new(&site);
    let injected = attacker.leave("mail", "");
    let injected = site.provider.sign_in(&injected, "mallory@example.org");
    let mixed = with_parameter(&honest, "code", &parameter(&injected, "code"));
    let answer = victim.come_back(&mixed);
    assert!(answer.says("no longer valid"), "{}", answer.text());
    assert_eq!(site.mailboxes.tried().len(), 0);
}

#[test]
fn a_state_is_good_once_and_a_made_up_one_never() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    let url = alice.leave("mail", "");
    let back = site.provider.sign_in(&url, ALICE);
    assert_eq!(alice.come_back(&back).status, 303);
    let replayed = alice.come_back(&back);
    assert_eq!(replayed.status, 400, "{}", replayed.text());
    // Only looking uses up nothing.
    let mut other = Visitor::new(&site);
    let url = other.leave("mail", "");
    let back = site.provider.sign_in(&url, ALICE);
    let line = format!("HEAD {}?{}", back.path(), back.query().unwrap());
    assert_eq!(other.request(&line, "", "").status, 400);
    assert_eq!(other.come_back(&back).status, 303);
    for query in [
        "",
        "?code=x",
        "?state=&code=x",
        "?state=made-up&code=x",
        "?state=a&state=b&code=x",
    ] {
        let answer = alice.get(&format!("/enrol/callback/mail{query}"));
        assert_eq!(answer.status, 400, "{query}");
    }
    assert_eq!(
        alice.get("/enrol/callback/nobody?state=a&code=b").status,
        404
    );
}

#[test]
fn one_providers_answer_is_not_taken_for_anothers() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    // Each has a place of its own to come back to.
    let url = alice.leave("mail", "");
    assert!(parameter(&url, "redirect_uri").ends_with("/enrol/callback/mail"));
    let mut back = site.provider.sign_in(&url, ALICE);
    back.set_path("/enrol/callback/silent");
    assert_eq!(alice.come_back(&back).status, 400);

    let url = alice.leave("mail", "");
    let back = site.provider.sign_in(&url, ALICE);
    let answer = alice.come_back(&with_parameter(&back, "iss", "https://evil.example"));
    assert!(answer.says("another provider"), "{}", answer.text());
    assert!(site.mailboxes.tried().is_empty());
}

#[test]
fn what_a_provider_says_of_an_error_is_not_shown() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    let url = alice.leave("mail", "");
    let back = site.provider.refuse_sign_in(&url);
    let answer = alice.come_back(&back);
    assert!(answer.says("You were not signed in"), "{}", answer.text());
    for error in [
        "<script>alert(1)</script>",
        "server_error",
        "invalid_scope\r\nX: y",
    ] {
        let url = alice.leave("mail", "");
        let (state, iss) = (parameter(&url, "state"), site.provider.issuer());
        let mut back: Url = format!("{}/enrol/callback/mail", site.url).parse().unwrap();
        back.query_pairs_mut()
            .append_pair("state", &state)
            .append_pair("iss", &iss)
            .append_pair("error", error)
            .append_pair("error_description", "<script>call 555-0100</script>");
        let answer = alice.come_back(&back);
        assert!(answer.status >= 500, "{}", answer.text());
        assert!(!answer.body.contains("555-0100") && !answer.body.contains("alert"));
    }
}

#[test]
fn forms_of_other_sites_change_nothing() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    alice.sign_in(ALICE);
    let csrf = alice.get("/enrol/devices").field("csrf");
    let mut operator = Visitor::new(&site);
    operator.operate();
    let other = Visitor::new(&site).get("/enrol").field("csrf");
    let operators = operator.get("/operator").field("csrf");
    let own = alice.origin();
    let own = format!("Origin: {own}\r\n");
    let own = own.as_str();
    let cases: [(&str, &str, &str); 10] = [
        (
            "a foreign origin",
            "Origin: https://evil.example\r\n",
            &csrf,
        ),
        ("no origin that can be named", "Origin: null\r\n", &csrf),
        (
            "a longer host",
            "Origin: http://127.0.0.1.evil.example\r\n",
            &csrf,
        ),
        ("another site", "Sec-Fetch-Site: cross-site\r\n", &csrf),
        ("a sister site", "Sec-Fetch-Site: same-site\r\n", &csrf),
        ("no token", own, ""),
        ("a made-up token", own, "AAAA"),
        ("another browser's token", own, &other),
        ("the operator's token", own, &operators),
        ("half of a token", own, &csrf[..20]),
    ];
    for (what, more, token) in cases {
        let fields = [("csrf", token), ("name", "Mallory's")];
        let answer = alice.post_with("/enrol/devices/add", more, &fields);
        assert_eq!(answer.status, 403, "{what}");
        assert!(answer.says("nothing was done"), "{what}: {}", answer.text());
    }
    // Nor as anything but a form, twice, or much too long.
    let json = format!("{own}Content-Type: text/plain\r\nContent-Length: 2\r\n");
    let answer = alice.request("POST /enrol/devices/add", &json, "{}");
    assert_eq!(answer.status, 400);
    let twice = [("csrf", csrf.as_str()), ("name", "a"), ("name", "b")];
    assert_eq!(alice.post("/enrol/devices/add", &twice).status, 400);
    let long = "x".repeat(20_000);
    let long = [("csrf", csrf.as_str()), ("name", long.as_str())];
    assert_eq!(alice.post("/enrol/devices/add", &long).status, 413);
    assert_eq!(site.account(ALICE).unwrap().devices.len(), 0);
    // The form of a page of ours does.
    let fields = [("csrf", csrf.as_str()), ("name", "Mine")];
    assert_eq!(alice.post("/enrol/devices/add", &fields).status, 303);
}

#[test]
fn nothing_is_changed_by_a_link() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    alice.sign_in(ALICE);
    for path in ["start", "devices/add", "devices/remove", "sign-out"] {
        let answer = alice.get(&format!("/enrol/{path}?name=x"));
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.header("allow"), "POST");
        assert!(answer.says("Please start again"), "{}", answer.text());
    }
    let csrf = alice.get("/enrol/devices").field("csrf");
    let made = alice.post("/enrol/devices/add", &[("csrf", &csrf), ("name", "x")]);
    assert_eq!(made.status, 303);
    // A link elsewhere does not use up what is shown once, nor does whoever looks
    // what there would be.
    for path in ["/enrol/password", "/enrol/profile/apple"] {
        for (method, more) in [
            ("GET", "Sec-Fetch-Site: cross-site\r\n"),
            ("GET", "Sec-Purpose: prefetch;prerender\r\n"),
            ("HEAD", ""),
        ] {
            let led = alice.request(&format!("{method} {path}"), more, "");
            assert_eq!(led.status, 403, "{method} {more}");
        }
    }
    assert!(!alice.get("/enrol/password").setting("password").is_empty());
}

#[test]
fn the_id_is_rotated_and_one_that_was_planted_is_worth_nothing() {
    let Some(site) = Site::start() else { return };
    let mut alice = Visitor::new(&site);
    alice.get("/enrol");
    let planted = alice.cookies.clone();
    alice.sign_in(ALICE);
    assert_ne!(alice.cookies, planted);
    let mut mallory = Visitor::new(&site);
    mallory.cookies = planted;
    assert_eq!(mallory.get("/enrol/devices").header("location"), "/enrol");
    // Two cookies of one name are none; nor is one of somebody's making.
    let id = alice.cookies["popgate"].clone();
    for cookie in [
        format!("popgate={id}; popgate={id}"),
        "popgate=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        "popgate=; popgate-operator=x".to_owned(),
    ] {
        let mut mallory = Visitor::new(&site);
        let more = format!("Cookie: {cookie}\r\n");
        let answer = mallory.request("GET /enrol/devices", &more, "");
        assert_eq!(answer.header("location"), "/enrol", "{cookie}");
    }
    // What others on the same host keep beside it is their affair.
    for other in ["city=Köln", "a", "=", "b=\"x; y\""] {
        let mut same = Visitor::new(&site);
        let more = format!("Cookie: {other}; popgate={id}; c=d\r\n");
        assert_eq!(same.request("GET /enrol/devices", &more, "").status, 200);
    }
    // A person is no operator.
    let mut crossed = Visitor::new(&site);
    crossed.cookies.insert("popgate-operator".into(), id);
    assert!(crossed.get("/operator").says("Operator password"));
}

#[test]
fn pages_are_at_one_address_whatever_the_host_says() {
    let Some(site) = Site::start() else { return };
    let mut visitor = Visitor::new(&site);
    let own = format!("127.0.0.1:{}", site.address.port());
    for host in [
        "evil.example".to_owned(),
        "127.0.0.1".to_owned(),
        "127.0.0.1:1".to_owned(),
        format!("{own}@evil.example"),
        format!("evil.example/{own}"),
        format!("{own}\r\nHost: evil.example"),
        String::new(),
    ] {
        let answer = visitor.request("GET /enrol", &format!("Host: {host}\r\n"), "");
        assert!(matches!(answer.status, 400 | 421), "{host}: {answer:?}");
        assert!(!answer.body.contains("evil.example"));
    }
    let line = "GET http://evil.example/enrol";
    assert_eq!(visitor.request(line, "", "").status, 421);
    // What else there is does not ask for it, as ever.
    let answer = visitor.request("GET /live", "Host: evil.example\r\n", "");
    assert_eq!(answer.status, 200);
}

#[test]
fn every_answer_forbids_frames_sniffing_and_what_is_not_ours() {
    let Some(site) = Site::start() else { return };
    let mut visitor = Visitor::new(&site);
    let style = visitor.get("/enrol");
    let (_, style) = style.body.split_once("stylesheet\" href=\"").unwrap();
    let style = style.split('"').next().unwrap().to_owned();
    let (found, missing) = (
        ["/enrol", "/operator", &style],
        ["/enrol/nothing", "/operator/x"],
    );
    for path in found.into_iter().chain(missing) {
        let answer = visitor.get(path);
        assert_eq!(answer.status == 404, missing.contains(&path), "{path}");
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        // Over http on loopback: a browser would be locked out of the port.
        assert!(answer.headers("strict-transport-security").is_empty());
        let cache = answer.header("cache-control");
        assert_eq!(cache == "no-store", path != style, "{path}: {cache}");
        // No style, script or handler of the page's own.
        for inline in ["<style", " style=", "onclick", "javascript:", "<script>"] {
            assert!(!answer.body.contains(inline), "{path}: {inline}");
        }
    }
}

#[test]
fn what_people_type_is_text() {
    let title = "<img src=x onerror=alert(1)>";
    let options = Options {
        title: Some(title),
        ..Options::default()
    };
    let Some(site) = Site::with(options) else {
        return;
    };
    let mut alice = Visitor::new(&site);
    let name = "\"><script>alert(1)</script>";
    alice.sign_in("o'neil@example.org");
    let made = alice.add_device(name);
    let list = alice.get("/enrol/devices");
    let mut operator = Visitor::new(&site);
    operator.operate();
    let search = operator.get("/operator?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E");
    let account = operator.get("/operator/account?address=o'neil@example.org");
    assert!(account.says("o'neil@example.org"), "{}", account.text());
    let mut visitor = Visitor::new(&site);
    let csrf = visitor.get("/enrol/provider/app").field("csrf");
    let typed = [("csrf", csrf.as_str()), ("address", name), ("secret", "x")];
    let typed = visitor.post("/enrol/provider/app", &typed);
    for page in [made, list, search, account, typed] {
        assert_eq!(page.status, 200);
        for raw in ["<script>", "<img", "onerror=alert(1)>"] {
            assert!(!page.body.contains(raw), "{}", page.body);
        }
    }
}

#[test]
fn nobody_is_sent_elsewhere() {
    let Some(site) = Site::start() else { return };
    let mut visitor = Visitor::new(&site);
    for path in [
        "/enrol?next=https://evil.example",
        "/enrol/devices?to=//evil.example",
        "/enrol//evil.example",
        "/enrol/%2f%2fevil.example",
        "/operator/account?address=https://evil.example",
        "/enrol/provider/https:%2F%2Fevil.example",
    ] {
        let answer = visitor.get(path);
        assert!(!answer.header("location").contains("evil"), "{path}");
        assert!(!answer.body.contains("href=\"https://evil"), "{path}");
        assert!(!answer.body.contains("url=https://evil"), "{path}");
    }
}

#[test]
fn cookies_are_nobody_elses_over_https() {
    let Some(site) = Site::with(Options {
        public_url: Some("https://pop.example.org"),
        ..Options::default()
    }) else {
        return;
    };
    // Behind a reverse proxy that ends TLS.
    let mut visitor = Visitor::new(&site);
    let answer = visitor.get("/enrol");
    assert_eq!(answer.status, 200);
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-popgate="), "{cookie}");
    for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
    assert!(
        answer
            .header("strict-transport-security")
            .starts_with("max-age=")
    );
    visitor.cookies.clear();
    let answer = visitor.request("GET /enrol", "Host: pop.example.org:443\r\n", "");
    assert_eq!(answer.status, 200);
    let url = visitor.leave("mail", "");
    assert_eq!(
        parameter(&url, "redirect_uri"),
        "https://pop.example.org/enrol/callback/mail"
    );
}

#[test]
fn a_flood_of_starts_from_one_address_is_refused() {
    let Some(site) = Site::start() else { return };
    let mut visitor = Visitor::new(&site);
    let csrf = visitor.get("/enrol").field("csrf");
    let origin = visitor.origin();
    let mut start = |from: &str| {
        let more = format!("Origin: {origin}\r\nX-Forwarded-For: 192.0.2.9, {from}\r\n");
        let fields = [("csrf", csrf.as_str()), ("provider", "mail")];
        visitor.post_with("/enrol/start", &more, &fields).status
    };
    let answers: Vec<u16> = (0..25).map(|_| start("198.51.100.1")).collect();
    assert_eq!(answers.iter().filter(|it| **it == 200).count(), 20);
    assert_eq!(answers.last(), Some(&429));
    assert_eq!(start("198.51.100.2"), 200);
}
