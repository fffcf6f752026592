//! Connections that die at rest, or were never what they seemed. The client of
//! the next session notices none of it.

use std::sync::atomic::{AtomicBool, Ordering};

use support::Answer;

use super::*;

#[tokio::test]
async fn one_that_the_server_closes_is_noticed_at_once() {
    for idle in ["", "IDLE"] {
        let server = builder(2).announcing(idle).start();
        let site = Site::new(&server);
        let before = site.poll().await;
        if !idle.is_empty() {
            eventually(|| !server.commands_starting("IDLE").is_empty()).await;
        }
        server.hang_up();
        site.rests(0).await;
        assert_eq!(site.poll().await, before);
        assert_eq!(logins(&server), 2, "{idle}");
    }
}

#[tokio::test]
async fn what_a_server_says_to_one_at_rest() {
    for (said, ends) in [
        ("* BYE autologout\r\n", true),
        ("P99 OK an answer to nothing\r\n", true),
        ("+ go on\r\n", true),
        ("garbage\r\n", true),
        ("* 5 EXISTS\r\n", false),
        ("* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n", false),
        ("* OK [ALERT] the server goes down tonight\r\n", false),
        ("* OK [UIDVALIDITY 7] another one\r\n", false),
        ("* 1 FETCH (FLAGS (\\Deleted))\r\n", false),
        ("* VANISHED 1:2\r\n", false),
        ("* FLAGS (\\Deleted $POP3Deleted)\r\n", false),
        ("* NO the disk is nearly full\r\n", false),
    ] {
        for idle in ["", "IDLE"] {
            let server = builder(2).announcing(idle).start();
            let site = Site::new(&server);
            let before = site.poll().await;
            if !idle.is_empty() {
                eventually(|| !server.commands_starting("IDLE").is_empty()).await;
                // Behind its `+`.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            server.interject(said.as_bytes());
            if ends {
                site.rests(0).await;
            }
            assert_eq!(site.poll().await, before, "{said} {idle}");
            assert_eq!(logins(&server), 1 + usize::from(ends), "{said} {idle}");
        }
    }
}

/// A server that does this once, on the second of the commands that open a
/// mailbox: on a connection that has rested.
fn failing(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> ScriptedImap {
    let has_failed = AtomicBool::new(false);
    builder(2)
        .on("SELECT", move |command, _| {
            let fails = command.nth == 1 && !has_failed.swap(true, Ordering::SeqCst);
            match fails {
                true => answer(&command.tag),
                false => Answer::Usual,
            }
        })
        .start()
}

#[tokio::test]
async fn one_that_fails_before_the_maildrop_is_open_is_replaced() {
    let answers: Vec<fn(&str) -> Answer> = vec![
        |_| Answer::Hang(Vec::new()),
        |_| Answer::Hang(b"* 2 EXISTS\r\n".to_vec()),
        |_| Answer::Close(Vec::new()),
        |_| Answer::Close(b"* BYE you have been away for too long\r\n".to_vec()),
        |_| Answer::Close(b"* 2 EXI".to_vec()),
        |_| Answer::Reset(Vec::new()),
        |_| Answer::send("garbage\r\n"),
        |_| Answer::send("X1 OK a stray tag\r\n"),
        |tag| Answer::send(format!("{tag} NO not now\r\n")),
        |tag| Answer::send(format!("{tag} NO [AUTHENTICATIONFAILED] who are you\r\n")),
        |tag| Answer::send(format!("{tag} BAD log in first\r\n")),
        |tag| Answer::send(format!("{tag} OK nothing told\r\n")),
        |tag| {
            let told = "* 5 EXISTS\r\n* OK [UIDVALIDITY 1700000000] valid\r\n";
            Answer::send(format!("{told}{tag} OK [READ-WRITE] fewer than that\r\n"))
        },
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let server = failing(answer);
        let site = Site::new(&server);
        let before = site.poll().await;
        let (mut session, maildrop) = site.open().await;
        assert_eq!(ids(&maildrop), before, "{number}");
        assert_eq!(logins(&server), 2, "{number}");
        assert_eq!(
            read(&mut session, 1).await.unwrap(),
            messages::plain(2, 300)
        );
        remove(&mut session, &[0]).await;
        session.close().await;
        assert_eq!(server.uids("INBOX"), [2], "{number}");
        assert_eq!(site.poll().await, before[1..], "{number}");
    }
}

#[tokio::test]
async fn a_pause_that_the_server_asks_for_is_kept_on_one_too() {
    let server = failing(|tag| {
        let text = "Request is throttled. Suggested Backoff Time: 60000 milliseconds";
        Answer::send(format!("{tag} BAD {text}\r\n"))
    });
    let site = Site::new(&server);
    site.poll().await;
    let error = site.try_open(password("alice")).await.err().unwrap();
    let UpstreamError::Temporary { retry_after, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(retry_after, Some(Duration::from_secs(60)));
    assert_eq!(logins(&server), 1);
}

#[tokio::test]
async fn no_outage_is_blamed_on_the_password() {
    let server = builder(1).start();
    let site = Site::new(&server);
    site.poll().await;
    let port = server.port();
    drop(server);
    site.rests(0).await;
    let error = site.try_open(password("alice")).await.err().unwrap();
    assert!(
        matches!(error, UpstreamError::Temporary { .. }),
        "{port}: {error:?}"
    );
}

#[tokio::test]
async fn a_session_that_went_wrong_leaves_nothing_at_rest() {
    let server = builder(2)
        .on("UID EXPUNGE", |command, _| {
            Answer::send(command.no("not today"))
        })
        .start();
    let site = Site::new(&server);
    let (mut session, _) = site.open().await;
    let outcome = session.update(&Update::new(vec![0])).await.unwrap();
    assert_eq!(outcome.remaining, [0]);
    session.close().await;
    assert_eq!(site.resting(), 0);
    server.wait_until_closed();
}

#[tokio::test]
async fn idle_that_is_refused_is_not_tried_again() {
    for refusal in ["NO", "BAD"] {
        let server = builder(1)
            .announcing("IDLE")
            .on("IDLE", move |command, _| {
                Answer::send(format!("{} {refusal} no idling here\r\n", command.tag))
            })
            .start();
        let site = Site::new(&server);
        site.poll().await;
        eventually(|| server.commands_starting("IDLE").len() == 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        for _ in 0..3 {
            site.poll().await;
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        assert_eq!(server.commands_starting("IDLE").len(), 1, "{refusal}");
        assert!(server.commands_starting("DONE").is_empty(), "{refusal}");
        assert_eq!(logins(&server), 1, "{refusal}");
    }
}

#[tokio::test]
async fn done_waits_for_leave_to_idle() {
    let wait = Duration::from_millis(300);
    let server = builder(1).announcing("IDLE").idling_after(wait).start();
    let site = Site::new(&server);
    let before = site.poll().await;
    eventually(|| !server.commands_starting("IDLE").is_empty()).await;
    assert_eq!(site.poll().await, before);
    let commands = server.commands();
    let idle = commands
        .iter()
        .position(|(_, line)| line == "IDLE")
        .unwrap();
    assert_eq!(commands[idle + 1].1, "DONE", "{commands:?}");
    assert_eq!(logins(&server), 1);
}

#[tokio::test]
async fn leave_to_idle_and_its_end_may_come_at_once() {
    let server = builder(1)
        .announcing("IDLE")
        .on("IDLE", |command, _| {
            std::thread::sleep(Duration::from_millis(300));
            let end = command.ok("already done");
            Answer::send(format!("+ idling\r\n* 7 EXISTS\r\n{end}"))
        })
        .start();
    let site = Site::new(&server);
    let before = site.poll().await;
    eventually(|| !server.commands_starting("IDLE").is_empty()).await;
    assert_eq!(site.poll().await, before);
    assert!(!server.commands().iter().any(|(_, line)| line == "DONE"));
    assert_eq!(logins(&server), 1);
}

#[tokio::test]
async fn the_end_of_a_program_closes_them() {
    let server = builder(1).announcing("IDLE").start();
    let site = Site::new(&server);
    site.poll().await;
    let (mut late, _) = site.open().await;
    site.poll().await;
    in_time(site.imap.close()).await;
    assert_eq!(server.commands_starting("LOGOUT").len(), 1);
    assert_eq!(site.resting(), 0);
    // A session that ends behind it leaves nothing.
    late.close().await;
    assert_eq!(site.resting(), 0);
    server.wait_until_closed();
    assert_eq!(server.commands_starting("LOGOUT").len(), 2);
}

#[tokio::test]
async fn nothing_secret_is_printed() {
    let server = builder(1).announcing("IDLE").start();
    let site = Site::new(&server);
    site.poll().await;
    let printed = format!("{:?}", site.imap);
    assert!(printed.contains("alice"), "{printed}");
    // "pw-alice" as it is, and as PLAIN has it.
    for secret in ["pw-alice", "AGFsaWNlAHB3LWFsaWNl"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
