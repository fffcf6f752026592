//! What is sent of user names, passwords and tokens, and what is never told.

use super::*;

#[tokio::test]
async fn a_bad_token_is_refused_in_every_flow() {
    for sasl_ir in [true, false] {
        for (mechanism, other, answer) in [
            ("XOAUTH2", "AUTH=OAUTHBEARER", "+ "),
            ("OAUTHBEARER", "AUTH=XOAUTH2", "+ AQ=="),
        ] {
            let without = if sasl_ir {
                vec![other]
            } else {
                vec![other, "SASL-IR"]
            };
            let server = one_message().without(&without).start();
            let imap = cleartext(&server);
            let error = login_error(&imap, token("alice", "stale")).await;
            assert!(matches!(error, UpstreamError::Authentication), "{error:?}");
            let last = server.commands().pop().unwrap().1;
            assert_eq!(last, answer, "{mechanism}");
            login(&imap, token("alice", "tok-alice")).await.unwrap();
            assert_eq!(
                server
                    .commands_starting(&format!("AUTHENTICATE {mechanism}"))
                    .len(),
                2
            );
        }
    }
}

#[tokio::test]
async fn an_outage_behind_the_failure_challenge_is_no_refusal() {
    let server = ScriptedImap::builder()
        .on("AUTHENTICATE", |command, _| {
            let challenge = "+ eyJzdGF0dXMiOiI0MDAifQ==\r\n";
            let end = command.no("[UNAVAILABLE] the token endpoint is down");
            Answer::send(format!("{challenge}{end}"))
        })
        .start();
    let error = login_error(&cleartext(&server), token("alice", "tok-alice")).await;
    assert!(
        matches!(error, UpstreamError::Temporary { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn challenges_do_not_go_on_for_ever() {
    let server = ScriptedImap::builder()
        .on("AUTHENTICATE", |_, _| {
            Answer::Endless(b"+ bW9yZQ==\r\n".to_vec(), Duration::ZERO)
        })
        .start();
    for credentials in [alice(), token("alice", "tok-alice")] {
        let error = login_error(&cleartext(&server), credentials).await;
        assert!(is_outage(&error), "{error:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_too_long_for_a_command_line_waits_for_the_challenge() {
    let server = ScriptedImap::builder().start();
    let long = "x".repeat(9_000);
    let error = login_error(&cleartext(&server), token("alice", &long)).await;
    assert!(matches!(error, UpstreamError::Authentication), "{error:?}");
    let sent = server.commands_starting("AUTHENTICATE");
    assert_eq!(sent, ["AUTHENTICATE OAUTHBEARER"]);
}

/// Every printable character, and letters beyond ASCII.
fn awkward_passwords() -> Vec<String> {
    let printable: String = (' '..='~').collect();
    vec![
        printable,
        " ".to_owned(),
        "\"\\\"\\".to_owned(),
        "p\u{e4}ssw\u{f6}rd \u{4f60}\u{597d}".to_owned(),
        "tab\there".to_owned(),
        "{3}".to_owned(),
        "long ".repeat(120),
        "longer\u{fc}".repeat(700),
    ]
}

#[tokio::test]
async fn passwords_arrive_as_they_are() {
    for literals in ["", "LITERAL+", "LITERAL-"] {
        for secret in awkward_passwords() {
            let seen: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
            let recorder = Arc::clone(&seen);
            let server = ScriptedImap::builder()
                .capabilities(&format!("IMAP4rev1 UIDPLUS LITERAL+ {literals}"))
                .greeting(&format!("* OK [CAPABILITY IMAP4rev1 {literals}] hello"))
                .on("LOGIN", move |command, _| {
                    recorder.lock().unwrap().push(command.words());
                    Answer::send(command.ok("in"))
                })
                .start();
            login(&cleartext(&server), password("al ice\"", &secret))
                .await
                .unwrap_or_else(|error| panic!("{literals}, {secret:?}: {error}"));
            let expected = ["al ice\"".to_owned(), secret.clone()];
            assert_eq!(*seen.lock().unwrap(), [expected], "{literals}, {secret:?}");
            let sent = server.commands_starting("LOGIN").remove(0);
            let unasked = sent.contains("+}\r\n");
            let is_literal = sent.contains("}\r\n");
            let may_be = match literals {
                "LITERAL+" => true,
                "LITERAL-" => secret.len() <= 4096,
                _ => false,
            };
            assert_eq!(unasked, is_literal && may_be, "{literals}: {sent}");
        }
    }
}

#[tokio::test]
async fn user_names_arrive_as_they_are() {
    for user in awkward_passwords()
        .iter()
        .filter(|name| !name.contains('\t'))
    {
        for without in [
            &[][..],
            &["SASL-IR"],
            &["AUTH=PLAIN"],
            &["AUTH=PLAIN", "LITERAL+"],
        ] {
            let server = ScriptedImap::builder().without(without).start();
            // The server lets in who says `pw-NAME`.
            login(&cleartext(&server), password(user, &format!("pw-{user}")))
                .await
                .unwrap_or_else(|error| panic!("{without:?}, {user:?}: {error}"));
        }
    }
}

#[tokio::test]
async fn a_server_may_refuse_in_the_middle_of_a_login() {
    let server = ScriptedImap::builder()
        .capabilities("IMAP4rev1 UIDPLUS")
        .start();
    let imap = cleartext(&server);
    let error = login_error(&imap, password("\u{e4}", "wr\u{f6}ng")).await;
    assert!(matches!(error, UpstreamError::Authentication), "{error:?}");
}

#[tokio::test]
async fn nothing_that_could_be_taken_for_protocol_is_sent() {
    let server = ScriptedImap::builder().start();
    let imap = cleartext(&server);
    for bad in ["a\r\nP2 LOGOUT", "a\nb", "a\rb", "a\0b"] {
        let other = Credentials::Password {
            user: "alice".to_owned(),
            authorize_as: Some(bad.to_owned()),
            password: "pw-alice".into(),
        };
        for credentials in [
            password("alice", bad),
            password(bad, "pw-alice"),
            other,
            token("alice", bad),
            token(bad, "tok-alice"),
        ] {
            let error = login_error(&imap, credentials).await;
            assert!(matches!(error, UpstreamError::Authentication), "{error:?}");
        }
    }
    assert_eq!((server.connections(), server.commands()), (0, vec![]));
}

#[tokio::test]
async fn text_that_quotes_the_credentials_is_withheld() {
    let secrets = [
        "hunter2",
        "correct horse battery staple",
        "gr\u{fc}n\"\\k\u{f6}hl",
    ];
    for command in COMMANDS {
        for secret in secrets {
            for status in ["NO [UNAVAILABLE]", "BAD", "BYE"] {
                let server = answering(command, move |command| {
                    let line = format!("unknown: {} {}", command.name, command.arguments);
                    let (tag, close) = match status {
                        "BYE" => ("*", true),
                        _ => (command.tag.as_str(), false),
                    };
                    let line = format!("{tag} {status} {line} {secret}\r\n").into_bytes();
                    match close {
                        true => Answer::Close(line),
                        false => Answer::Send(line),
                    }
                });
                let error = login_error(&cleartext(&server), password("alice", secret)).await;
                let told = format!("{error} {error:?}");
                assert!(told.contains("(its text holds the credentials)"), "{told}");
                assert!(!told.contains(&secret[..4]), "{told}");
            }
        }
    }
}
