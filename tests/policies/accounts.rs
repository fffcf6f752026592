//! Rules of domains and accounts, each its own.

use crate::site::{Popgate, shown};
use crate::support::{Contents, Dovecot, ImapClient, Pop3, messages};

const USERS: &str = "al@one.example:{PLAIN}pw\nbo@one.example:{PLAIN}pw\ncy@two.example:{PLAIN}pw";

const CONFIG: &str = r#"
delete = "refuse"
seen = "on-retr"

[domain."one.example"]
delete = "trash"

[account."bo@one.example"]
delete = "expunge"
seen = "never"
max_messages = 2
folders = ["INBOX", "Junk"]
"#;

fn login(popgate: &Popgate, user: &str) -> Pop3 {
    let mut pop3 = popgate.gateway().pop3();
    pop3.login(user, "pw");
    pop3
}

#[test]
fn the_nearest_rule_applies() {
    let Some(dovecot) = Dovecot::with(&[("USERS", USERS)]) else {
        return;
    };
    let imap = |user: &str| ImapClient::login(dovecot.imap_port(), user, "pw");
    let contents = |user: &str| Contents::of(&mut imap(user));
    let users = ["al@one.example", "bo@one.example", "cy@two.example"];
    for user in users {
        for number in 1..=3 {
            imap(user).append("INBOX", &messages::plain(number, 600));
        }
        imap(user).append("Junk", &messages::plain(4, 600));
    }
    let before = users.map(contents);
    let popgate = Popgate::start(&dovecot.plain_url(), CONFIG);

    // Of the domain, and what it leaves open of the gateway.
    let mut pop3 = login(&popgate, "AL@One.Example");
    assert_eq!(shown(&mut pop3), [1, 2, 3]);
    pop3.retrieve(1);
    pop3.expect_ok("DELE 2");
    assert!(pop3.quit().starts_with("+OK"));
    let changes = [
        "INBOX -2@example.org",
        "INBOX 1@example.org +\\Seen",
        "Trash +2@example.org",
    ];
    assert_eq!(before[0].changes(&contents(users[0])), changes);

    // Of the account.
    let mut pop3 = login(&popgate, users[1]);
    assert_eq!(shown(&mut pop3), [3, 4]);
    pop3.retrieve(1);
    pop3.expect_ok("DELE 2");
    assert!(pop3.quit().starts_with("+OK"));
    let changes = before[1].changes(&contents(users[1]));
    assert_eq!(changes, ["Junk -4@example.org"]);

    // Of nobody in particular.
    let mut pop3 = login(&popgate, users[2]);
    pop3.retrieve(3);
    pop3.expect_err("DELE 1");
    assert!(pop3.quit().starts_with("+OK"));
    let changes = before[2].changes(&contents(users[2]));
    assert_eq!(changes, ["INBOX 3@example.org +\\Seen"]);
}
