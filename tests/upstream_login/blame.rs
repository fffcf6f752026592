//! Who is to blame for a login that failed.

use super::*;

#[tokio::test]
async fn logindisabled_is_believed() {
    let server = ScriptedImap::builder()
        .without(&["AUTH=PLAIN"])
        .announcing("LOGINDISABLED")
        .start();
    let error = login_error(&cleartext(&server), alice()).await;
    assert!(
        matches!(error, UpstreamError::Misconfigured(_)),
        "{error:?}"
    );
    assert_eq!(server.commands(), []);
}

#[tokio::test]
async fn only_a_plain_no_blames_the_credentials() {
    for command in COMMANDS {
        for text in [
            "Login failed.",
            "[AUTHENTICATIONFAILED] Authentication failed.",
            "[EXPIRED] Your password has expired",
            "[ALERT] Invalid credentials",
            "[CAPABILITY IMAP4rev1 AUTH=PLAIN] Login failed.",
            "",
        ] {
            let server = answering(command, move |command| Answer::send(command.no(text)));
            let error = login_error(&cleartext(&server), alice()).await;
            assert!(
                matches!(error, UpstreamError::Authentication),
                "{command}, NO {text}: {error:?}"
            );
        }
    }
}

type Answers = fn(&Command) -> Answer;

#[tokio::test]
async fn nothing_else_blames_the_credentials() {
    let answers: [(&str, Answers); 12] = [
        ("BAD", |it| Answer::send(it.bad("what?"))),
        ("BYE", |_| Answer::Close(b"* BYE Autologout\r\n".to_vec())),
        ("a close", |_| Answer::Close(Vec::new())),
        ("a reset", |_| Answer::Reset(b"* OK wait\r\n".to_vec())),
        ("half an answer", |it| {
            Answer::Close(format!("{} NO Authentication failed", it.tag).into_bytes())
        }),
        ("a stray tag", |_| {
            Answer::send("X1 NO [AUTHENTICATIONFAILED] no\r\n")
        }),
        ("another tag", |_| Answer::send("P9 NO no\r\n")),
        ("garbage", |_| Answer::send("%$&!\r\n")),
        ("PREAUTH", |it| {
            Answer::Close(format!("* PREAUTH hello\r\n{} PREAUTH no\r\n", it.tag).into_bytes())
        }),
        ("UNAVAILABLE", |it| {
            Answer::send(it.no("[UNAVAILABLE] Temporary authentication failure."))
        }),
        ("an outage in words", |it| {
            Answer::send(it.no("Server Unavailable. 15"))
        }),
        ("an unknown code", |it| {
            Answer::send(it.no("[FUTURE] who knows"))
        }),
    ];
    for command in COMMANDS {
        for (what, answer) in answers {
            let server = answering(command, answer);
            let error = login_error(&cleartext(&server), alice()).await;
            assert!(is_outage(&error), "{command}, {what}: {error:?}");
        }
    }
}

#[tokio::test]
async fn limits_and_rights_have_their_own_errors() {
    for command in COMMANDS {
        for text in [
            "[LIMIT] Rate limit hit",
            "[INUSE] locked",
            "[ALERT] Too many simultaneous connections. (Failure)",
        ] {
            let server = answering(command, move |command| Answer::send(command.no(text)));
            let error = login_error(&cleartext(&server), alice()).await;
            assert!(
                matches!(error, UpstreamError::InUse(_)),
                "{text}: {error:?}"
            );
        }
        for text in ["[AUTHORIZATIONFAILED] not yours", "[CONTACTADMIN] call us"] {
            let server = answering(command, move |command| Answer::send(command.no(text)));
            let error = login_error(&cleartext(&server), alice()).await;
            assert!(
                matches!(error, UpstreamError::Misconfigured(_)),
                "{text}: {error:?}"
            );
        }
    }
    let greeting = "* BYE [UNAVAILABLE] Maximum number of connections exceeded";
    let server = ScriptedImap::builder().greeting(greeting).start();
    let error = login_error(&cleartext(&server), alice()).await;
    assert!(matches!(error, UpstreamError::InUse(_)), "{error:?}");
}

#[tokio::test]
async fn an_upstream_that_asks_for_time_is_given_it() {
    for refuse in [Command::no, Command::bad] {
        let text = "Request is throttled. Suggested Backoff Time: 3600000 milliseconds";
        let server = answering("AUTHENTICATE", move |command| match command.connection {
            0 => Answer::send(refuse(command, text)),
            _ => Answer::Usual,
        });
        let imap = cleartext(&server);
        for _ in 0..3 {
            let error = login_error(&imap, alice()).await;
            let UpstreamError::Temporary { retry_after, .. } = error else {
                panic!("{error:?}");
            };
            assert!(retry_after.is_some());
        }
        assert_eq!(server.connections(), 1);
        let bob = login(&imap, password("bob", "pw-bob")).await;
        assert!(bob.is_ok());
    }
}
