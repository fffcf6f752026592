//! Who is there: USER and PASS, AUTH, and what of it reaches the upstream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::ScriptedImap;
use crate::{clients, in_front_of};

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

#[test]
fn every_mechanism_with_and_without_initial_response() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    let exchanges = [
        ("PLAIN", base64("\0alice\0pw-alice")),
        ("PLAIN", base64("alice\0alice\0pw-alice")),
        (
            "XOAUTH2",
            base64("user=alice\x01auth=Bearer tok-alice\x01\x01"),
        ),
        (
            "OAUTHBEARER",
            base64("n,a=alice,\x01auth=Bearer tok-alice\x01\x01"),
        ),
    ];
    for (_, mut client) in clients(&gateway) {
        // Each exchange on the connection of the last, after a failure.
        assert_eq!(client.command("AUTH PLAIN"), "+ ");
        assert_eq!(client.expect_err("*"), "cancelled");
        assert_eq!(client.command("AUTH LOGIN"), "+ VXNlcm5hbWU6");
        assert_eq!(client.expect_err("=bad="), "bad base64");
        client.expect_err("AUTH PLAIN bad!");
        client.expect_err("AUTH PLAIN =");
        client.expect_err("AUTH CRAM-MD5");
        client.expect_err("AUTH GSSAPI dGVzdA==");
        client.expect_err(&format!("AUTH PLAIN {}", base64("\0alice\0")));
        client.quit();
    }
    assert_eq!(imap.connections(), 0);
    for (mechanism, response) in &exchanges {
        for (way, mut client) in clients(&gateway) {
            let reply = client.command(&format!("AUTH {mechanism} {response}"));
            assert_eq!(reply, "+OK 1 message (5 octets)", "{mechanism} {way}");
            client.quit();
        }
        let mut client = gateway.pop3();
        assert_eq!(
            client.command(&format!("auth {}", mechanism.to_lowercase())),
            "+ "
        );
        assert_eq!(client.command(response), "+OK 1 message (5 octets)");
        client.quit();
    }
    for (_, mut client) in clients(&gateway) {
        assert_eq!(client.command("AUTH LOGIN"), "+ VXNlcm5hbWU6");
        assert_eq!(client.command(&base64("alice")), "+ UGFzc3dvcmQ6");
        assert_eq!(
            client.command(&base64("pw-alice")),
            "+OK 1 message (5 octets)"
        );
        client.quit();
    }
    let mut client = gateway.pop3();
    let reply = client.command(&format!("AUTH LOGIN {}", base64("alice")));
    assert_eq!(reply, "+ UGFzc3dvcmQ6");
    assert_eq!(client.expect_err("*"), "cancelled");
    client.quit();
}

/// Who looks later for a message that is gone looks by the owner's name.
#[test]
fn the_log_names_the_owner_of_a_maildrop_that_another_opened() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    client.expect_ok(&format!(
        "AUTH PLAIN {}",
        base64("alice\0shared\0pw-shared")
    ));
    client.expect_ok("DELE 1");
    client.quit();
    for line in ["message removed", "session ended"] {
        let line = gateway.wait_for_log(line);
        assert!(line.contains(" user=shared maildrop=alice "), "{line}");
    }
}

#[test]
fn user_names_and_passwords_of_any_kind() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    client.expect_ok("UTF8");
    client.login("j\u{fc}rgen m", "pw-j\u{fc}rgen m");
    client.quit();
    let mut client = gateway.pop3s();
    let response = base64("\0\u{4f60}\u{597d}\0pw-\u{4f60}\u{597d}");
    client.expect_ok(&format!("AUTH PLAIN {response}"));
    client.quit();
    // USER again: the last one counts.
    let mut client = gateway.pop3();
    client.expect_ok("USER mallory");
    client.login("alice", "pw-alice");
    client.expect_err("USER alice");
    client.expect_err("PASS pw-alice");
    client.expect_err("AUTH PLAIN");
    client.quit();
    let credentials: Vec<String> = imap
        .commands_starting("AUTHENTICATE PLAIN ")
        .iter()
        .map(|line| {
            let response = STANDARD.decode(line.rsplit(' ').next().unwrap());
            String::from_utf8(response.unwrap()).unwrap()
        })
        .collect();
    assert_eq!(
        credentials,
        [
            "\0j\u{fc}rgen m\0pw-j\u{fc}rgen m",
            "\0\u{4f60}\u{597d}\0pw-\u{4f60}\u{597d}",
            "\0alice\0pw-alice",
        ]
    );
}

#[test]
fn a_login_may_be_tried_again_on_the_same_connection() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    let mut client = gateway.pop3();
    client.expect_ok("USER alice");
    assert_eq!(
        client.expect_err("PASS  two  spaces "),
        "[AUTH] invalid user name or password"
    );
    // The user must be named again.
    assert_eq!(client.expect_err("PASS pw-alice"), "send USER first");
    client.expect_ok("USER alice");
    client.expect_ok("PASS pw-alice");
    client.quit();
    let refused = imap.commands_starting("AUTHENTICATE PLAIN ").remove(0);
    assert!(
        refused.ends_with(&base64("\0alice\0 two  spaces ")),
        "{refused}"
    );
}

#[test]
fn an_empty_password_never_goes_upstream() {
    let imap = ScriptedImap::with_messages(&[b"\r\na\r\n"]);
    let gateway = in_front_of(&imap);
    for (_, mut client) in clients(&gateway) {
        client.expect_ok("USER alice");
        assert!(client.expect_err("PASS ").starts_with("[AUTH] "));
        client.expect_ok("USER alice");
        client.expect_err("PASS");
        client.expect_err("USER ");
        client.expect_err("USER");
        client.expect_err(&format!("AUTH PLAIN {}", base64("\0alice\0")));
        client.expect_err(&format!("AUTH PLAIN {}", base64("\0\0pw-alice")));
        client.command("AUTH LOGIN");
        client.command(&base64("alice"));
        client.expect_err("");
        client.expect_err(&format!(
            "AUTH XOAUTH2 {}",
            base64("user=alice\x01auth=Bearer \x01\x01")
        ));
        client.quit();
    }
    assert_eq!(imap.connections(), 0);
}
