//! All that opens a folder is sent at once.

use super::*;

/// A server that answers nothing behind the login before the last command of the
/// opening has come; then it answers with this, and the tags in this order.
fn withholding(
    count: usize,
    answer: impl Fn(&[String], &mut World) -> String + Send + Sync + 'static,
) -> ScriptedImap {
    let withheld = std::sync::Mutex::new(Vec::new());
    builder(count)
        .on("", move |command, world| {
            let name = command.name_and_arguments();
            let is_opening = ["LIST", "SELECT", "EXAMINE", "UID FETCH", "UID SEARCH"]
                .iter()
                .any(|it| name.starts_with(it));
            if !is_opening {
                return Answer::Usual;
            }
            let mut withheld = withheld.lock().unwrap();
            withheld.push(command.tag.clone());
            match name.starts_with("UID SEARCH") {
                true => Answer::send(answer(&std::mem::take(&mut *withheld), world)),
                false => Answer::Send(Vec::new()),
            }
        })
        .start()
}

const SELECTED: &str = "* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n";
const ROW: &str = "* 1 FETCH (UID 5 RFC822.SIZE 321)\r\n";

#[tokio::test]
async fn nothing_of_it_waits_for_an_answer() {
    let server = withholding(1, |tags, _| {
        let [lists @ .., select, fetch, search] = tags else {
            panic!("{tags:?}");
        };
        let mut text = "* LIST (\\Trash) \"/\" Bin\r\n".to_owned();
        for list in lists {
            text.push_str(&format!("{list} OK\r\n"));
        }
        format!(
            "{text}{SELECTED}{select} OK\r\n{ROW}{fetch} OK\r\n* ESEARCH UID\r\n{search} OK\r\n"
        )
    });
    for policy in [trash(), policy(DeletePolicy::Refuse)] {
        let rig = Rig::new(&server);
        assert_eq!(rig.open(&policy).await, [321]);
        assert_eq!(rig.counted("popgate_openings_total{how=\"listed\"}"), 1);
    }
}

#[tokio::test]
async fn answers_may_come_in_any_order_behind_that_of_select() {
    let server = withholding(1, |tags, _| {
        let [lists @ .., select, fetch, search] = tags else {
            panic!("{tags:?}");
        };
        let mut text =
            format!("{SELECTED}{select} OK\r\n* ESEARCH UID ALL 5\r\n{search} OK\r\n{ROW}");
        text.push_str("* LIST (\\Trash) \"/\" Bin\r\n");
        for list in lists {
            text.push_str(&format!("{list} OK\r\n"));
        }
        format!("{text}{fetch} OK\r\n")
    });
    // The one message is marked deleted.
    for policy in [trash(), policy(DeletePolicy::Refuse)] {
        assert_eq!(Rig::new(&server).open(&policy).await, [0_u64; 0]);
    }
}

#[tokio::test]
async fn a_listing_that_came_too_early_is_asked_for_again() {
    let server = builder(2)
        .on("UID FETCH 1:*", |command, _| match command.nth {
            0 => Answer::send(command.bad("Command received in Invalid state.")),
            _ => Answer::Usual,
        })
        .start();
    let rig = Rig::new(&server);
    assert_eq!(rig.open(&trash()).await, sizes(2));
    assert_eq!(server.commands_starting("UID FETCH 1:*").len(), 2);
}

#[tokio::test]
async fn an_empty_mailbox_may_refuse_to_be_listed() {
    for refusal in ["NO [CLIENTBUG] no messages", "BAD no messages"] {
        let server = builder(0)
            .on("UID FETCH 1:*", move |command, _| {
                Answer::send(format!("{} {refusal}\r\n", command.tag))
            })
            .start();
        let rig = Rig::new(&server);
        assert!(rig.open(&trash()).await.is_empty());
        assert_eq!(server.commands_starting("UID FETCH 1:*").len(), 1);
    }
}

#[tokio::test]
async fn what_select_says_is_what_is_told() {
    type Check = fn(&UpstreamError) -> bool;
    let cases: [(&str, Check); 5] = [
        ("NO [NOPERM] not yours", |it| {
            matches!(it, UpstreamError::Misconfigured(_))
        }),
        ("NO [INUSE] locked", |it| {
            matches!(it, UpstreamError::InUse(_))
        }),
        ("NO not now", |it| {
            matches!(it, UpstreamError::Temporary { .. })
        }),
        ("BAD what?", |it| matches!(it, UpstreamError::Protocol(_))),
        (
            "NO throttled. Suggested Backoff Time: 5000 milliseconds",
            |it| {
                matches!(
                    it,
                    UpstreamError::Temporary {
                        retry_after: Some(_),
                        ..
                    }
                )
            },
        ),
    ];
    for (answer, check) in cases {
        let server = builder(1)
            .on("SELECT", move |command, _| {
                Answer::send(format!("{} {answer}\r\n", command.tag))
            })
            .start();
        let error = Rig::new(&server).try_open(&trash()).await.err().unwrap();
        assert!(check(&error), "{answer}: {error:?}");
    }
}

#[tokio::test]
async fn a_uidvalidity_that_changes_is_an_error() {
    let server = builder(1)
        .on("UID SEARCH", |_, _| {
            Answer::SendThenUsual(b"* OK [UIDVALIDITY 4711] new\r\n".to_vec())
        })
        .start();
    let error = Rig::new(&server).try_open(&trash()).await.err().unwrap();
    assert!(
        matches!(error, UpstreamError::Temporary { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_limits_commands_is_asked_page_by_page() {
    let server = builder(5).announcing("MESSAGELIMIT=2").start();
    let rig = Rig::new(&server);
    assert_eq!(rig.open(&trash()).await, sizes(5));
    assert_eq!(server.commands_starting("UID FETCH 1:*").len(), 0);
    assert_eq!(server.commands_starting("FETCH").len(), 3);
}

#[tokio::test]
async fn opening_takes_one_round_trip() {
    let server = builder(3).start();
    let rig = Rig::new(&server);
    // The login, its capabilities, the opening.
    assert_eq!(rig.round_trips(&trash()).await, 3);
}
