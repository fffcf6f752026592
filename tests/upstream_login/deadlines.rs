//! No answer takes longer than a command may.

use super::*;

/// Octets without end, and without an answer in them.
fn endless() -> [(&'static str, Answer); 4] {
    let often = Duration::from_millis(20);
    [
        ("single octets", Answer::Endless(b"*".to_vec(), often)),
        ("lines", Answer::Endless(b"* OK wait\r\n".to_vec(), often)),
        (
            "a flood",
            Answer::Endless(b"* 1 RECENT\r\n* OK wait\r\n".repeat(1000), Duration::ZERO),
        ),
        ("nothing", Answer::Hang(Vec::new())),
    ]
}

fn impatient(server: &ScriptedImap) -> Imap {
    let short = Duration::from_millis(400);
    let config = Config {
        timeouts: Timeouts {
            connect: short,
            silence: short,
            command: short,
        },
        ..config(server.port(), Security::Cleartext, &Authority::new())
    };
    Imap::new(config, None)
}

#[tokio::test]
async fn no_answer_to_a_login_takes_longer_than_a_command_may() {
    for stage in ["GREETING", "CAPABILITY", "AUTHENTICATE"] {
        for (what, answer) in endless() {
            let mut builder = ScriptedImap::builder();
            if stage == "CAPABILITY" {
                builder = builder.greeting("* OK hello");
            }
            let server = builder.on(stage, move |_, _| answer.clone()).start();
            let error = login_error(&impatient(&server), alice()).await;
            // A flood before the greeting may be one: then CAPABILITY is late.
            assert!(is_outage(&error), "{stage}, {what}: {error:?}");
        }
    }
}

#[tokio::test]
async fn no_listing_takes_longer_than_a_command_may() {
    for stage in ["LIST", "SELECT", "UID FETCH", "UID SEARCH"] {
        for (what, answer) in endless() {
            let server = one_message().on(stage, move |_, _| answer.clone()).start();
            let mut session = login(&impatient(&server), alice()).await.unwrap();
            let listing = tokio::time::timeout(PATIENCE, session.snapshot());
            let error = listing
                .await
                .expect("the listing does not end")
                .unwrap_err();
            assert!(is_outage(&error), "{stage}, {what}: {error:?}");
        }
    }
}
