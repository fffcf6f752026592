//! What lies outside the window is neither shown nor touched; how often a client
//! may log in, and how long mail stays.

use std::time::{Duration, Instant, SystemTime};

use crate::scenarios;
use crate::site::{Popgate, Site, delete, shown};
use crate::support::{PATIENCE, messages};

scenarios! {
    max_age,
    max_messages,
    recent,
    expire_is_announced,
    login_delay_is_announced_and_enforced,
    what_was_retrieved_expires,
}

/// Three messages of long ago, and two of now.
fn old_and_new(site: &Site) {
    site.mail(3);
    let mut imap = site.imap();
    for number in 4..=5 {
        let age = Duration::from_secs(600 - 60 * number as u64);
        let date = httpdate::fmt_http_date(SystemTime::now() - age);
        let words: Vec<&str> = date.split(' ').collect();
        let [_, day, month, year, time, _] = words[..] else {
            panic!("{date}");
        };
        let date = format!("{day}-{month}-{year} {time} +0000");
        imap.append_at("INBOX", &date, &messages::plain(number, 600));
    }
}

fn max_age(site: &Site) {
    old_and_new(site);
    let before = site.contents();
    let popgate = site.popgate("max_age = \"30d\"\ndelete = \"expunge\"");
    let mut pop3 = popgate.alice();
    assert_eq!(shown(&mut pop3), [4, 5]);
    assert_eq!(pop3.retrieve(1), messages::plain(4, 600));
    pop3.expect_err("RETR 3");
    delete(pop3, &[1, 2]);
    site.assert_changes(&before, &["INBOX -4", "INBOX -5"], "max_age");
    assert_eq!(shown(&mut popgate.alice()), [0; 0]);
}

/// What comes new pushes the oldest out; what is deleted makes room for it again.
fn max_messages(site: &Site) {
    let before = site.mail(5);
    let popgate = site.popgate("max_messages = 3\ndelete = \"expunge\"");
    let mut pop3 = popgate.alice();
    assert_eq!(shown(&mut pop3), [3, 4, 5]);
    delete(pop3, &[1, 3]);
    site.assert_changes(&before, &["INBOX -3", "INBOX -5"], "max_messages");
    site.deliver("INBOX", 6..=6);
    assert_eq!(shown(&mut popgate.alice()), [2, 4, 6]);
}

/// As at Gmail: the last thirty days, whatever else is configured.
fn recent(site: &Site) {
    old_and_new(site);
    let popgate = site.popgate("");
    assert_eq!(shown(&mut popgate.alice()), [1, 2, 3, 4, 5]);
    assert_eq!(shown(&mut popgate.login("recent:alice")), [4, 5]);
}

fn capabilities(popgate: &Popgate) -> [Vec<String>; 2] {
    let mut pop3 = popgate.gateway().pop3();
    let before = pop3.lines("CAPA");
    pop3.login("alice", "pw-alice");
    [before, pop3.lines("CAPA")]
}

fn announces(popgate: &Popgate, line: &str) -> bool {
    capabilities(popgate)
        .iter()
        .any(|lines| lines.iter().any(|it| it.starts_with(line)))
}

fn expire_is_announced(site: &Site) {
    site.mail(1);
    assert!(!announces(&site.popgate(""), "LOGIN-DELAY"));
    let popgate = site.popgate("expire_after = \"30d\"");
    let [_, after] = capabilities(&popgate);
    assert!(
        after.iter().any(|it| it.starts_with("EXPIRE 30")),
        "{after:?}"
    );
}

fn login_delay_is_announced_and_enforced(site: &Site) {
    site.mail(1);
    let popgate = site.popgate("login_delay = \"1h\"");
    let [before, after] = capabilities(&popgate);
    for lines in [before, after] {
        assert!(
            lines.iter().any(|it| it.starts_with("LOGIN-DELAY 3600")),
            "{lines:?}"
        );
    }
    let reply = popgate.refused("alice");
    assert!(reply.starts_with("-ERR [LOGIN-DELAY]"), "{reply}");
    // Bob has not logged in yet.
    let mut pop3 = popgate.gateway().pop3();
    pop3.login("bob", "pw-bob");
}

/// Not before its time, and then what was retrieved and nothing else.
fn what_was_retrieved_expires(site: &Site) {
    let before = site.mail(4);
    let retrieve = |popgate: &Popgate| {
        let mut pop3 = popgate.alice();
        pop3.retrieve(2);
        pop3.retrieve(3);
        assert!(pop3.quit().starts_with("+OK"));
        assert!(popgate.alice().quit().starts_with("+OK"));
    };
    retrieve(&site.popgate("expire_after = \"30d\""));
    site.assert_changes(&before, &[], "expire_after, too early");

    let mut popgate = site.popgate("expire_after = \"1s\"");
    retrieve(&popgate);
    popgate.restart();
    let deadline = Instant::now() + PATIENCE;
    let expected = ["INBOX -2", "INBOX -3", "Trash +2", "Trash +3"];
    // They may have been retrieved in different seconds, and so expire one by one.
    while before.changes(&site.contents()).len() < expected.len() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        assert!(popgate.alice().quit().starts_with("+OK"));
    }
    site.assert_changes(&before, &expected, "expire_after");
    assert_eq!(shown(&mut popgate.alice()), [1, 4]);
}
