//! What listings ask for where a policy needs it: times of arrival, and what
//! unique ids are made of.

use std::time::Duration;

use popgate::maildrop::Window;

use super::*;

fn ids(format: &str) -> Policy {
    Policy {
        unique_ids: Some(format.parse().unwrap()),
        ..policy(DeletePolicy::Refuse)
    }
}

#[test]
fn guids_are_those_of_the_server() {
    let Some(rig) = Rig::dovecot(None) else {
        return;
    };
    rig.deliver("INBOX", 1..=3);
    let mut client = rig.client();
    client.ok("EXAMINE INBOX");
    let guids: Vec<String> = client
        .ok("UID FETCH 1:* (X-GUID)")
        .iter()
        .filter_map(|response| {
            let (_, rest) = response.text.split_once("X-GUID ")?;
            let guid = rest.split([' ', ')']).next()?;
            Some(guid.trim_matches('"').to_owned())
        })
        .collect();
    assert_eq!(guids.len(), 3);
    for format in ["%g", "%f", "%{guid}"] {
        assert_eq!(unique_ids(&rig.open(&ids(format)).1), guids);
    }
}

#[test]
fn what_the_server_does_not_have_is_refused_in_words() {
    let server = ScriptedImap::builder()
        .messages(&[messages::plain(1, 300)])
        .start();
    let gateway = scripted(&server, None);
    for (format, words) in [
        ("%g", "X-GUID"),
        ("emailid", "OBJECTID"),
        ("gmail", "X-GM-MSGID"),
        ("jmap", "JMAP"),
    ] {
        assert_refused(&gateway, &ids(format), words);
    }
    // Nothing was asked for that the server had not announced.
    assert_eq!(server.commands_starting("UID FETCH").len(), 1);
}

#[test]
fn ids_of_objects_where_they_are_announced() {
    let server = ScriptedImap::builder()
        .announcing("OBJECTID X-GM-EXT-1")
        .messages(&[messages::plain(1, 300), messages::plain(2, 300)])
        .on("UID FETCH 1:*", |command, _| {
            let row = |seq: u32| {
                format!(
                    "* {seq} FETCH (UID {seq} RFC822.SIZE 300 EMAILID (M{seq}) X-GM-MSGID {})\r\n",
                    seq + 1000
                )
            };
            support::Answer::send(row(1) + &row(2) + &command.ok("done"))
        })
        .start();
    let gateway = scripted(&server, None);
    let listed = |format: &str| unique_ids(&run(try_open(&gateway, &ids(format))).unwrap().1);
    assert_eq!(listed("emailid"), ["M1", "M2"]);
    assert_eq!(listed("gmail"), ["GmailId3e9", "GmailId3ea"]);
    assert_eq!(listed("%{emailid}.%u"), ["M1.1", "M2.2"]);
}

fn recent(max_age: u64) -> Policy {
    Policy {
        window: Window {
            max_age: Some(Duration::from_secs(max_age)),
            max_messages: None,
        },
        ..policy(DeletePolicy::TrashIfThere)
    }
}

#[test]
fn only_what_arrived_lately_is_shown() {
    for (rig, _) in Rig::all() {
        let mut client = rig.client();
        for (number, time) in [
            (1, "01-Jan-2020 00:00:00 +0000"),
            (2, "01-Jan-2024 12:00:00 -0500"),
        ] {
            client.append_at("INBOX", time, &messages::plain(number, 300));
        }
        rig.deliver("INBOX", 3..=4);
        let (mut session, maildrop) = rig.open(&recent(86_400));
        assert_eq!(maildrop.len(), 2);
        assert_eq!(number(&retrieve(&mut session, 0)), 3);
        delete(&mut session, &[0]);
        // What is not shown is not touched.
        assert_eq!(numbers(&rig.held("INBOX")), [1, 2, 4]);
    }
}

#[test]
fn a_listing_without_times_is_an_error_where_they_matter() {
    for row in [
        "UID 1 RFC822.SIZE 300",
        "UID 1 RFC822.SIZE 300 INTERNALDATE \"yesterday\"",
        "UID 1 RFC822.SIZE 300 INTERNALDATE \"32-Jan-2020 00:00:00 +0000\"",
        "UID 1 RFC822.SIZE 300 INTERNALDATE NIL",
    ] {
        let server = ScriptedImap::builder()
            .messages(&[messages::plain(1, 300)])
            .on("UID FETCH 1:*", move |command, _| {
                support::Answer::send(format!("* 1 FETCH ({row})\r\n{}", command.ok("done")))
            })
            .start();
        let gateway = scripted(&server, None);
        let error = run(try_open(&gateway, &recent(86_400))).err().unwrap();
        assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
    }
}
