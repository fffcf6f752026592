//! Policies as clients meet them: who may log in how often, and what cannot be
//! a folder.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{Answer, Gateway, Pop3, ScriptedImap};

/// A gateway with these lines in its configuration.
fn configured(imap: &ScriptedImap, lines: &str) -> (Gateway, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let rest = "[upstream_rest]\nlongest = \"0s\"\n";
    let text = format!("allow_cleartext = true\n{lines}\n{rest}");
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    let gateway = Gateway::in_front_of(&imap.plain_url(), &["--config", path]);
    (gateway, file)
}

fn announced(client: &mut Pop3) -> Vec<String> {
    let mut lines = client.lines("CAPA");
    lines.retain(|line| line.starts_with("LOGIN-DELAY") || line.starts_with("EXPIRE"));
    lines
}

fn try_login(client: &mut Pop3, user: &str, password: &str) -> String {
    client.expect_ok(&format!("USER {user}"));
    client.command(&format!("PASS {password}"))
}

#[test]
fn the_next_login_may_not_come_too_soon() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let rules = "login_delay = \"1d\"\n[account.bob]\nlogin_delay = \"0s\"";
    let (gateway, _file) = configured(&imap, rules);

    let mut client = gateway.pop3();
    assert_eq!(announced(&mut client), ["LOGIN-DELAY 86400 USER"]);
    client.login("alice", "pw-alice");
    assert_eq!(announced(&mut client), ["LOGIN-DELAY 86400"]);
    client.quit();
    imap.wait_until_closed();
    let asked = imap.connections();

    let early = "-ERR [LOGIN-DELAY] the last login was too recent, try again in 86";
    let mut client = gateway.pop3();
    for user in ["alice", "recent:alice", "RECENT:alice"] {
        let reply = try_login(&mut client, user, "pw-alice");
        assert!(reply.starts_with(early), "{user}: {reply}");
    }
    assert_eq!(imap.connections(), asked, "the upstream was asked");
    gateway.wait_for_log("login refused: the last one was too recent");

    // Who gives other credentials learns nothing before the upstream said yes.
    let reply = try_login(&mut client, "alice", "guess");
    assert_eq!(reply, "-ERR [AUTH] invalid user name or password");
    let token = STANDARD.encode("user=alice\x01auth=Bearer tok-alice\x01\x01");
    let reply = client.command(&format!("AUTH XOAUTH2 {token}"));
    assert!(reply.starts_with(early), "{reply}");
    assert_eq!(imap.connections(), asked + 2);
    imap.wait_until_closed();

    // Nobody else is held up.
    for _ in 0..2 {
        let mut client = gateway.pop3();
        client.login("bob", "pw-bob");
        assert_eq!(announced(&mut client), ["LOGIN-DELAY 0"]);
        client.quit();
    }
    client.login("carol", "pw-carol");
    client.quit();
}

#[test]
fn a_login_that_fails_holds_nobody_up() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let (gateway, _file) = configured(&imap, "login_delay = \"1d\"");
    let mut client = gateway.pop3();
    let reply = try_login(&mut client, "alice", "guess");
    assert!(reply.starts_with("-ERR [AUTH]"), "{reply}");
    client.login("alice", "pw-alice");
    client.quit();
}

#[test]
fn retention_is_announced() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let state = tempfile::tempdir().unwrap();
    let rules = format!(
        "state = {:?}\nexpire_after = \"90d\"\n[domain.\"example.org\"]\nexpire_after = \"0d\"\n[account.bob]\nexpire_after = \"36h\"",
        state.path().to_str().unwrap()
    );
    let (gateway, _file) = configured(&imap, &rules);
    for (user, own) in [
        ("alice", "EXPIRE 90"),
        ("bob", "EXPIRE 1"),
        ("carol@example.org", "EXPIRE NEVER"),
    ] {
        let mut client = gateway.pop3();
        assert_eq!(announced(&mut client), ["EXPIRE 1 USER"]);
        client.login(user, &format!("pw-{user}"));
        assert_eq!(announced(&mut client), [own], "{user}");
        client.quit();
    }
}

#[test]
fn nothing_is_announced_where_nobody_has_it() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let (gateway, _file) = configured(&imap, "seen = \"never\"");
    let mut client = gateway.pop3();
    assert!(announced(&mut client).is_empty());
    client.login("alice", "pw-alice");
    assert!(announced(&mut client).is_empty());
    client.quit();
}

#[test]
fn what_cannot_be_a_folder_never_goes_upstream() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let (gateway, _file) = configured(&imap, "");
    let long = "x".repeat(256);
    let impossible = "no folder can have that name";
    let mut names = vec![
        ("alice+..".to_owned(), impossible),
        ("alice+a/../b".to_owned(), impossible),
        ("alice+*".to_owned(), impossible),
        ("nobody+%".to_owned(), impossible),
        ("alice+a/*@example.org".to_owned(), impossible),
        ("recent:alice+%".to_owned(), impossible),
        (format!("alice+{long}"), "the folder's name is too long"),
    ];
    for none in ["alice+", "alice+/", "alice+@example.org", "alice+a//b"] {
        let text = "the user name names no folder behind the separator";
        names.push((none.to_owned(), text));
    }
    // All at once: the answers wait as those to guesses do, whoever the user is.
    let ask = |(name, text): (String, &'static str)| {
        let mut client = gateway.pop3();
        client.expect_ok(&format!("USER {name}"));
        client.send("PASS pw-alice");
        client.send("QUIT");
        (client, name, text)
    };
    let asked: Vec<_> = names.into_iter().map(ask).collect();
    for (mut client, name, text) in asked {
        assert_eq!(client.line(), format!("-ERR [SYS/PERM] {text}"), "{name}");
    }
    assert_eq!(imap.connections(), 0);
    gateway.wait_for_log("login refused: a folder's name holds no control characters");
}

#[test]
fn without_a_separator_no_user_name_names_a_folder() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let (gateway, _file) = configured(&imap, "folder_separator = \"\"");
    let mut client = gateway.pop3();
    client.login("alice+*", "pw-alice+*");
    client.quit();
}

/// What is done about a message behind its delivery is no reason to keep its end
/// from the client.
#[test]
fn a_message_does_not_wait_for_its_mark() {
    let imap = ScriptedImap::builder()
        .messages(&[b"\r\na\r\n"])
        .on("UID STORE", |_, _| Answer::Hang(Vec::new()))
        .start();
    let (gateway, _file) = configured(&imap, "seen = \"on-retr\"");
    let mut client = gateway.pop3();
    client.login("alice", "pw-alice");
    assert_eq!(client.retrieve(1), b"\r\na\r\n");
    // It has come before the upstream is given up.
    let silence = "messages are not marked as read";
    assert!(!gateway.logs().contains(silence));
}
