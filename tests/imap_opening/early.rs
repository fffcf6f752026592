//! The opening of INBOX is sent behind the login, before that is answered.

use std::time::Duration;

use super::*;

/// The first session shows what the server can do.
async fn acquainted(server: &ScriptedImap) -> Rig {
    let rig = Rig::new(server);
    rig.open(&trash()).await;
    rig
}

#[tokio::test]
async fn the_login_is_not_waited_for() {
    let withheld = std::sync::Mutex::new(Vec::new());
    let server = builder(1)
        .telling_at_login()
        .on("", move |command, _| {
            if command.connection == 0 || command.name == "LOGOUT" {
                return Answer::Usual;
            }
            if command.name == "GREETING" {
                return Answer::Usual;
            }
            let mut withheld = withheld.lock().unwrap();
            withheld.push(command.tag.clone());
            if command.name != "UID SEARCH" {
                return Answer::Send(Vec::new());
            }
            let [login, others @ ..] = &withheld[..] else {
                panic!();
            };
            let mut text = format!(
                "{login} OK [CAPABILITY {}] in\r\n* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n",
                support::scripted_imap::CAPABILITIES
            );
            let [lists @ .., select, fetch, search] = others else {
                panic!();
            };
            for tag in lists.iter().chain([select]) {
                text.push_str(&format!("{tag} OK\r\n"));
            }
            text.push_str("* 1 FETCH (UID 3 RFC822.SIZE 77)\r\n");
            text.push_str(&format!("{fetch} OK\r\n{search} OK\r\n"));
            Answer::send(text)
        })
        .start();
    // Somebody else was there before.
    let rig = Rig::new(&server);
    let bob = Credentials::password("bob", "pw-bob").unwrap();
    let mut session = rig.login_with(bob, &trash()).await.unwrap();
    session.close().await;
    assert_eq!(rig.open(&trash()).await, [77]);
}

#[tokio::test]
async fn everything_takes_one_round_trip() {
    for builder in [
        builder(3),
        builder(3).telling_at_login(),
        builder(3).without(&["AUTH=PLAIN"]).telling_at_login(),
    ] {
        let server = builder.start();
        let rig = acquainted(&server).await;
        for delete in [
            DeletePolicy::TrashIfThere,
            DeletePolicy::Expunge,
            DeletePolicy::Refuse,
            DeletePolicy::Seen,
        ] {
            let trips = rig.round_trips(&policy(delete.clone())).await;
            assert_eq!(trips, 1, "{delete}");
        }
        assert_eq!(rig.open(&trash()).await, sizes(3));
        assert_eq!(server.connections(), 6);
    }
}

#[tokio::test]
async fn a_refusal_is_that_of_the_login() {
    type Check = fn(&UpstreamError) -> bool;
    let cases: [(&str, Check); 5] = [
        ("NO [AUTHENTICATIONFAILED] no", |it| {
            matches!(it, UpstreamError::Authentication)
        }),
        ("NO Login failed.", |it| {
            matches!(it, UpstreamError::Authentication)
        }),
        ("NO [UNAVAILABLE] later", |it| {
            matches!(it, UpstreamError::Temporary { .. })
        }),
        ("NO [LIMIT] enough", |it| {
            matches!(it, UpstreamError::InUse(_))
        }),
        ("BAD what?", |it| matches!(it, UpstreamError::Protocol(_))),
    ];
    for (answer, check) in cases {
        let server = builder(1)
            .telling_at_login()
            .on("AUTHENTICATE", move |command, _| match command.connection {
                0 => Answer::Usual,
                _ => Answer::send(format!("{} {answer}\r\n", command.tag)),
            })
            .start();
        let rig = acquainted(&server).await;
        let error = rig.login(&trash()).await.err().unwrap();
        assert!(check(&error), "{answer}: {error:?}");
        // A password that was judged is not tried again.
        let tries = if answer.starts_with("NO") { 2 } else { 3 };
        assert_eq!(server.commands_starting("AUTHENTICATE").len(), tries);
    }
}

#[tokio::test]
async fn a_wrong_password_is_a_wrong_password() {
    let server = builder(2).telling_at_login().start();
    let rig = acquainted(&server).await;
    let wrong = Credentials::password("alice", "wrong").unwrap();
    let error = rig.login_with(wrong, &trash()).await.err().unwrap();
    assert!(matches!(error, UpstreamError::Authentication), "{error:?}");
    // That is no reason to be more careful.
    assert_eq!(rig.round_trips(&trash()).await, 1);
}

/// What the server tells at the second login, and later: no ESEARCH.
fn changing(tell: impl Fn(&Command) -> Option<String> + Send + Sync + 'static) -> ScriptedImap {
    builder(3)
        .on("AUTHENTICATE", move |command, _| {
            let told = match command.connection {
                0 => Some(support::scripted_imap::CAPABILITIES.to_owned()),
                _ => tell(command),
            };
            let told = told.map(|it| format!("* CAPABILITY {it}\r\n"));
            Answer::SendThenUsual(told.unwrap_or_default().into_bytes())
        })
        .world(|world| {
            let message = world.inbox().message(2).unwrap();
            message.set_flag("\\Deleted", true);
        })
        .start()
}

#[tokio::test]
async fn other_capabilities_than_presumed() {
    let server = changing(|_| Some("IMAP4rev1 AUTH=PLAIN SASL-IR UIDPLUS".to_owned()));
    let rig = acquainted(&server).await;
    let shown = [sizes(3)[0], sizes(3)[2]];
    assert_eq!(rig.open(&trash()).await, shown);
    let second = commands(&server, 1);
    assert_eq!(starting(&second, "SELECT"), 2, "{second:?}");
    assert_eq!(starting(&second, "UID SEARCH DELETED"), 1, "{second:?}");
    // Not all logins are alike there: nothing is sent early for a while.
    assert_eq!(rig.open(&trash()).await, shown);
    let third = commands(&server, 2);
    assert_eq!(starting(&third, "SELECT"), 1);
    assert_eq!(starting(&third, "UID SEARCH RETURN"), 0);
}

#[tokio::test]
async fn no_capabilities_where_they_were_presumed_to_be_told() {
    let server = changing(|_| None);
    let rig = acquainted(&server).await;
    assert_eq!(rig.open(&trash()).await.len(), 2);
    assert_eq!(starting(&commands(&server, 1), "CAPABILITY"), 1);
}

#[tokio::test]
async fn a_server_that_swallows_what_is_sent_early() {
    let server = builder(2)
        .telling_at_login()
        .on("", |command, _| match command.name.as_str() {
            "GREETING" | "AUTHENTICATE" => Answer::Usual,
            _ if command.connection == 1 => Answer::Send(Vec::new()),
            _ => Answer::Usual,
        })
        .start();
    let rig = acquainted(&server).await;
    assert_eq!(rig.open(&trash()).await, sizes(2));
    assert_eq!(server.connections(), 3);
    // It is not asked so again.
    assert!(rig.round_trips(&trash()).await > 1);
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn a_server_that_swallows_the_question_for_capabilities() {
    let server = builder(2)
        .on("", |command, _| match command.name.as_str() {
            "GREETING" | "AUTHENTICATE" => Answer::Usual,
            _ if command.connection == 1 => Answer::Send(Vec::new()),
            _ => Answer::Usual,
        })
        .start();
    let rig = acquainted(&server).await;
    assert_eq!(rig.open(&trash()).await, sizes(2));
    assert_eq!(server.connections(), 3);
    assert!(rig.round_trips(&trash()).await > 1);
}

#[tokio::test]
async fn a_server_that_does_not_take_what_is_sent_early() {
    type Refusal = fn(&Command) -> Answer;
    let refusals: [Refusal; 2] = [
        |it| Answer::send(it.bad("no pipelining here")),
        |_| Answer::send("+ \r\n"),
    ];
    for refusal in refusals {
        let server = builder(2)
            .telling_at_login()
            .on("AUTHENTICATE", move |command, _| match command.connection {
                1 => refusal(command),
                _ => Answer::Usual,
            })
            .start();
        let rig = acquainted(&server).await;
        assert_eq!(rig.open(&trash()).await, sizes(2));
        assert_eq!(server.connections(), 3);
        assert!(rig.round_trips(&trash()).await > 1);
    }
}

#[tokio::test]
async fn a_server_that_answers_the_login_twice() {
    // Cyrus, where it does not say that it is Cyrus.
    let server = builder(2)
        .telling_at_login()
        .on("", |command, _| match command.name.as_str() {
            "LIST" if command.connection == 1 && command.nth == 0 => {
                Answer::send("P1 BAD Already authenticated\r\n")
            }
            _ => Answer::Usual,
        })
        .start();
    let rig = acquainted(&server).await;
    assert_eq!(rig.open(&trash()).await, sizes(2));
    assert_eq!(server.connections(), 3);
    assert!(rig.round_trips(&trash()).await > 1);
}

#[tokio::test]
async fn cyrus_takes_more_behind_login_only() {
    let server = builder(2)
        .greeting("* OK localhost Cyrus IMAP 3.6.1 server ready")
        .telling_at_login()
        .start();
    let rig = acquainted(&server).await;
    assert_eq!(rig.open(&trash()).await, sizes(2));
    assert_eq!(starting(&commands(&server, 0), "AUTHENTICATE"), 1);
    assert_eq!(starting(&commands(&server, 1), "AUTHENTICATE"), 0);
    assert_eq!(starting(&commands(&server, 1), "LOGIN"), 1);
    // Where that is not to be had, nothing is sent early.
    let cannot = builder(2)
        .greeting("* OK localhost Cyrus IMAP 3.6.1 server ready")
        .announcing("LOGINDISABLED")
        .start();
    assert!(!sends_early(&cannot, alice(), &trash(), false).await);
}

#[tokio::test]
async fn a_server_that_goes_where_something_is_sent_early() {
    type Ending = fn(&Command) -> Answer;
    let endings: [(&str, Ending); 5] = [
        ("AUTHENTICATE", |_| Answer::Close(Vec::new())),
        ("AUTHENTICATE", |_| Answer::Reset(Vec::new())),
        ("AUTHENTICATE", |_| Answer::Close(b"* BYE\r\n".to_vec())),
        ("AUTHENTICATE", |_| Answer::UsualThenClose),
        ("LIST", |_| Answer::Close(Vec::new())),
    ];
    for (command, ending) in endings {
        let server = builder(2)
            .telling_at_login()
            .on(command, move |command, _| match command.connection {
                1 => ending(command),
                _ => Answer::Usual,
            })
            .start();
        let rig = acquainted(&server).await;
        // As it is with any server that goes.
        let error = rig.try_open(&trash()).await.err().unwrap();
        assert!(
            matches!(error, UpstreamError::Temporary { .. }),
            "{error:?}"
        );
        assert!(rig.round_trips(&trash()).await > 1, "{command}");
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_where_something_is_sent_early() {
    for command in ["AUTHENTICATE", "SELECT", "UID FETCH"] {
        let server = builder(2)
            .telling_at_login()
            .on(command, move |command, _| match command.connection {
                1 => Answer::Hang(Vec::new()),
                _ => Answer::Usual,
            })
            .start();
        let timeouts = Timeouts {
            silence: Duration::from_secs(6),
            ..Timeouts::default()
        };
        let rig = Rig::over(&server.plain_url(), None, timeouts);
        rig.open(&trash()).await;
        let error = rig.try_open(&trash()).await.err().unwrap();
        assert!(
            matches!(error, UpstreamError::Temporary { .. }),
            "{error:?}"
        );
        assert!(rig.round_trips(&trash()).await > 1, "{command}");
    }
}

#[tokio::test]
async fn a_server_that_takes_the_first_of_what_is_sent_early_only() {
    let server = builder(2)
        .telling_at_login()
        .on("SELECT", |command, _| match command.connection {
            1 => Answer::send(command.bad("what?")),
            _ => Answer::Usual,
        })
        .start();
    let rig = acquainted(&server).await;
    assert_eq!(rig.open(&trash()).await, sizes(2));
    assert_eq!(server.connections(), 3);
    assert!(rig.round_trips(&trash()).await > 1);
}

#[tokio::test]
async fn a_mailbox_that_cannot_be_listed_is_no_reason_to_be_careful() {
    let server = builder(2)
        .telling_at_login()
        .on("UID FETCH", |command, _| match command.connection {
            1 | 2 => Answer::send(command.ok("no rows")),
            _ => Answer::Usual,
        })
        .start();
    let rig = acquainted(&server).await;
    let error = rig.try_open(&trash()).await.err().unwrap();
    assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
    assert_eq!(rig.round_trips(&trash()).await, 1);
}

#[tokio::test]
async fn rows_in_front_of_the_login_are_none() {
    let server = builder(2)
        .telling_at_login()
        .on("AUTHENTICATE", |command, _| match command.connection {
            1 => {
                Answer::SendThenUsual(b"* 2 EXISTS\r\n* 1 FETCH (UID 1 RFC822.SIZE 1)\r\n".to_vec())
            }
            _ => Answer::Usual,
        })
        .start();
    let rig = acquainted(&server).await;
    assert_eq!(rig.open(&trash()).await, sizes(2));
    assert_eq!(starting(&commands(&server, 1), "SELECT"), 2);
}

#[tokio::test]
async fn a_session_that_is_not_opened_ends_the_connection() {
    let server = builder(1).telling_at_login().start();
    let rig = acquainted(&server).await;
    let mut session = rig.login(&trash()).await.unwrap();
    assert_eq!(session.folders().await.unwrap(), ["INBOX"]);
    drop(session);
    let mut session = rig.login(&trash()).await.unwrap();
    session.close().await;
    server.wait_until_closed();
}

/// Whether more is sent than a login, which is all that was asked for. Who goes while
/// answers are under way may take commands along: what is expected is waited for.
async fn sends_early(
    server: &ScriptedImap,
    credentials: Credentials,
    policy: &Policy,
    expected: bool,
) -> bool {
    let rig = acquainted(server).await;
    let login = rig.login_with(credentials, policy).await;
    let mut session = login.unwrap();
    let opened = || {
        let commands = commands(server, 1);
        starting(&commands, "SELECT") + starting(&commands, "EXAMINE") > 0
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while expected && !opened() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    session.close().await;
    server.wait_until_closed();
    opened()
}

#[tokio::test]
async fn nothing_is_sent_early_where_it_could_be_lost_or_another() {
    let token = Credentials::Bearer {
        user: "alice".to_owned(),
        token: "tok-alice".into(),
    };
    let literal = || Credentials::password("\u{e4}", "pw-\u{e4}").unwrap();
    let elsewhere = Policy {
        folders: vec!["INBOX".parse().unwrap(), "Trash".parse().unwrap()],
        ..trash()
    };
    let moving = policy(DeletePolicy::Move("Trash".parse().unwrap()));
    let login = &["AUTH=PLAIN"];
    for (what, builder, credentials, policy, expected) in [
        ("usual", builder(1), alice(), trash(), true),
        ("a token", builder(1), token, trash(), false),
        (
            "Courier",
            builder(1).greeting("* OK Courier-IMAP ready. Copyright"),
            alice(),
            trash(),
            false,
        ),
        (
            "no SASL-IR",
            builder(1).without(&["SASL-IR"]),
            alice(),
            trash(),
            false,
        ),
        (
            "a literal that needs leave",
            builder(1).without(&["AUTH=PLAIN", "LITERAL+"]),
            literal(),
            trash(),
            false,
        ),
        (
            "a literal that needs none",
            builder(1).without(login),
            literal(),
            trash(),
            true,
        ),
        ("LOGIN", builder(1).without(login), alice(), trash(), true),
        ("other folders", builder(1), alice(), elsewhere, false),
        ("a folder by name", builder(1), alice(), moving, false),
    ] {
        let server = builder.start();
        let early = sends_early(&server, credentials, &policy, expected).await;
        assert_eq!(early, expected, "{what}");
    }
}

/// The maildrop is locked behind the login: what was sent behind the login is as
/// it was before.
#[tokio::test]
async fn what_the_session_before_removed_at_its_end_is_not_shown() {
    let server = builder(3).telling_at_login().start();
    let rig = acquainted(&server).await;
    let mut first = rig.login(&trash()).await.unwrap();
    first.folders().await.unwrap();
    assert_eq!(first.snapshot().await.unwrap().len(), 3);
    let mut second = rig.login(&trash()).await.unwrap();
    while starting(&commands(&server, 2), "UID SEARCH") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let update = popgate::maildrop::Update::new(vec![0]);
    assert_eq!(first.update(&update).await.unwrap().removed, [0]);
    first.close().await;
    second.folders().await.unwrap();
    let shown = second.snapshot().await.unwrap();
    let shown: Vec<u64> = shown.iter().map(|message| message.octets).collect();
    assert_eq!(shown, sizes(3)[1..]);
    second.close().await;
    assert_eq!(rig.open(&trash()).await, sizes(3)[1..]);
}
