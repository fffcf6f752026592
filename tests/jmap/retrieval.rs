//! RETR and TOP: every octet, or no dot.

use std::time::Duration;

use serde_json::json;

use crate::support::scripted_jmap::{API, Answer, Builder, DOWNLOAD, End, Framing, Reply, SESSION};
use crate::support::{Pop3, ScriptedJmap, messages};
use crate::{IMPATIENT, alice, changed, configured, front, instead, plain, slices};

/// Larger than what is fetched whole before `+OK`.
const LARGE: usize = 300_000;

#[test]
fn every_message_as_it_is() {
    for chunked in [false, true] {
        let mut mail = messages::awkward();
        mail.push(messages::plain(1, LARGE));
        let server = ScriptedJmap::builder()
            .messages(&slices(&mail))
            .account(|it| it.chunked = chunked)
            .start();
        let gateway = front(&server, &[]);
        let mut pop3 = alice(&gateway);
        for (at, message) in mail.iter().enumerate() {
            let mut expected = message.clone();
            if !expected.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            assert!(pop3.retrieve(at + 1) == expected, "message {}", at + 1);
        }
    }
}

/// A server that breaks the download of its one message.
fn broken(octets: usize, end: impl Fn(usize) -> End, framing: Framing, at: usize) -> Builder {
    let end = end(at);
    ScriptedJmap::builder()
        .messages(&[&messages::plain(1, octets)])
        .on_request(changed(DOWNLOAD, move |reply| {
            reply.framed(framing).ending(end)
        }))
}

/// The first line of the reply to RETR; None where the connection is broken off
/// so early that not even that arrives.
fn retr(pop3: &mut Pop3) -> Option<String> {
    pop3.send("RETR 1");
    let line = pop3.try_line().ok().flatten()?;
    Some(String::from_utf8(line).unwrap())
}

#[test]
fn downloads_that_break_off() {
    for octets in [1000, LARGE] {
        let message = messages::plain(1, octets);
        let n = message.len();
        for at in [0, 1, n / 2, n - 1, n] {
            for (end, framing) in [
                (End::Cut as fn(usize) -> End, Framing::Length),
                (End::Cut, Framing::Chunked(1000)),
                (End::Cut, Framing::Close),
                (End::Reset, Framing::Length),
                (End::Reset, Framing::Chunked(1000)),
            ] {
                let name = format!("{:?} of {n} by {framing:?}", end(at));
                let server = broken(octets, end, framing, at).start();
                let gateway = front(&server, &[]);
                let mut pop3 = alice(&gateway);
                let reply = retr(&mut pop3);
                // A chunked body is whole behind its last chunk, which is empty.
                let whole = at == n && !matches!(framing, Framing::Chunked(_));
                let Some(reply) = reply else {
                    assert!(octets == LARGE && (!whole || end(at) == End::Reset(at)));
                    continue;
                };
                if reply.starts_with("-ERR") {
                    // A reset may outrun the octets in front of it.
                    assert!(!whole || end(at) == End::Reset(at), "{name}: {reply}");
                    assert!(reply.starts_with("-ERR [SYS/TEMP]"), "{name}: {reply}");
                    pop3.expect_ok("NOOP");
                    continue;
                }
                match pop3.try_multiline() {
                    Ok(received) => {
                        assert!(whole, "{name}: a dot");
                        assert!(received == message, "{name}");
                    }
                    Err(cut) => {
                        assert!(octets == LARGE, "{name}");
                        assert!(!whole || end(at) == End::Reset(at), "{name}");
                        let sent = &message[..cut.received.len()];
                        assert!(cut.received == sent, "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn blobs_of_another_size() {
    for octets in [1000, LARGE] {
        let message = messages::plain(1, octets);
        let n = message.len() as u64;
        for (name, size) in [
            ("longer", n - 1),
            ("shorter", n + 1),
            ("empty", n + LARGE as u64),
            ("full", 0),
        ] {
            for chunked in [false, true] {
                let server = ScriptedJmap::builder()
                    .messages(&[&message])
                    .account(|it| it.chunked = chunked)
                    .on_answer("Email/get", move |_, it| {
                        it["list"][0]["size"] = json!(size)
                    })
                    .start();
                let gateway = front(&server, &[]);
                let mut pop3 = alice(&gateway);
                if retr(&mut pop3).is_none_or(|it| it.starts_with("+OK")) {
                    let large = octets == LARGE || name == "empty";
                    assert!(large && chunked, "{name}: {chunked}");
                    assert!(pop3.try_multiline().is_err(), "{name}: a dot");
                }
            }
        }
        for claimed in [n - 1, n + 1, u64::MAX] {
            let server = ScriptedJmap::builder()
                .messages(&[&message])
                .on_request(changed(DOWNLOAD, move |it| {
                    it.framed(Framing::Claimed(claimed))
                }))
                .start();
            let gateway = front(&server, &[]);
            alice(&gateway).expect_err("RETR 1");
        }
    }
}

#[test]
fn statuses() {
    for (status, expected) in [
        (404, "the message is no longer there"),
        (410, "the message is no longer there"),
        (401, "[SYS/TEMP]"),
        (403, "[SYS/PERM]"),
        (400, "[SYS/TEMP]"),
        (429, "[SYS/TEMP]"),
        (500, "[SYS/TEMP]"),
        (503, "[SYS/TEMP]"),
        (204, "[SYS/TEMP]"),
        (206, "[SYS/TEMP]"),
    ] {
        let server = ScriptedJmap::builder()
            .messages(&slices(&plain(2)))
            .on_request(move |request, _| {
                if request.path.contains("/G1/") {
                    Answer::Send(Reply::status(status))
                } else {
                    Answer::Usual
                }
            })
            .start();
        let gateway = front(&server, &[]);
        let mut pop3 = alice(&gateway);
        let refusal = pop3.expect_err("RETR 1");
        assert!(refusal.starts_with(expected), "{status}: {refusal}");
        // The rest goes on.
        assert_eq!(pop3.retrieve(2), plain(2)[1]);
        assert!(pop3.quit().starts_with("+OK"));
    }
}

#[test]
fn what_is_packed_is_not_unpacked() {
    let server = ScriptedJmap::builder()
        .messages(&slices(&plain(1)))
        .on_request(changed(DOWNLOAD, |it| {
            it.header("Content-Encoding", "gzip")
        }))
        .start();
    let gateway = front(&server, &[]);
    assert!(
        alice(&gateway)
            .expect_err("RETR 1")
            .starts_with("[SYS/TEMP]")
    );
    let asked = server.requests();
    assert!(
        asked
            .iter()
            .all(|it| it.header("accept-encoding") == Some("identity"))
    );
}

#[test]
fn a_message_that_is_gone_and_the_rest() {
    let server = ScriptedJmap::with_messages(&slices(&plain(3)));
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    server.account().change(|emails| {
        emails.remove(1);
    });
    assert_eq!(pop3.expect_err("RETR 2"), "the message is no longer there");
    assert_eq!(pop3.expect_err("TOP 2 0"), "the message is no longer there");
    assert_eq!(pop3.retrieve(3), plain(3)[2]);
    assert_eq!(pop3.unique_ids(), ["G1", "G2", "G3"]);
}

#[test]
fn downloads_that_moved_are_found() {
    let server = ScriptedJmap::builder()
        .messages(&slices(&plain(2)))
        .on_request(|request, account| {
            let moved = account.session_state == "session-2";
            if moved && request.path.starts_with(DOWNLOAD) && !request.path.contains("moved") {
                Answer::Send(Reply::status(404))
            } else {
                Answer::Usual
            }
        })
        .start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    {
        let mut account = server.account();
        account.session_state = "session-2".to_owned();
        let url = format!("{DOWNLOAD}{{accountId}}/{{blobId}}/{{name}}?moved");
        account.patch.push(("/downloadUrl".to_owned(), json!(url)));
    }
    server.forget();
    assert_eq!(pop3.retrieve(1), plain(1)[0]);
    assert_eq!(server.count(SESSION), 1);
    assert_eq!(pop3.retrieve(2), plain(2)[1]);
    assert_eq!(server.count(SESSION), 1);
}

#[test]
fn bare_line_feeds_and_the_true_size() {
    let blob = b"a: b\n\nline\r\nline\nend\n";
    let sent = b"a: b\r\n\r\nline\r\nline\r\nend\r\n";
    let server = ScriptedJmap::with_messages(&[blob, &plain(1)[0]]);
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    assert_eq!(pop3.sizes()[0], blob.len());
    assert_eq!(pop3.expect_ok("RETR 1"), format!("{} octets", sent.len()));
    assert_eq!(crate::support::pop3::unstuff(&pop3.multiline()), sent);
    assert_eq!(pop3.sizes()[0], sent.len());
    pop3.quit();
    // In the next session it is known, and the blob is still whole.
    let mut pop3 = alice(&gateway);
    assert_eq!(pop3.sizes()[0], sent.len());
    assert_eq!(pop3.retrieve(1), sent);
}

#[test]
fn servers_that_stand_still_or_drip() {
    let stuck = ScriptedJmap::builder()
        .messages(&slices(&plain(1)))
        .on_request(changed(DOWNLOAD, |it| it.ending(End::Hang(100))))
        .start();
    let silent = ScriptedJmap::builder()
        .messages(&slices(&plain(1)))
        .on_request(|request, _| {
            if request.path.starts_with(DOWNLOAD) {
                Answer::Hang
            } else {
                Answer::Usual
            }
        })
        .start();
    let drip = ScriptedJmap::builder()
        .messages(&slices(&plain(1)))
        .on_request(changed(DOWNLOAD, |it| {
            it.ending(End::Drip(1, Duration::from_millis(50)))
        }))
        .start();
    for server in [stuck, silent, drip] {
        let gateway = configured(&server, IMPATIENT);
        let mut pop3 = alice(&gateway);
        assert!(pop3.expect_err("RETR 1").starts_with("[SYS/TEMP]"));
        pop3.expect_ok("NOOP");
    }
}

#[test]
fn a_message_over_the_limit() {
    let server = ScriptedJmap::with_messages(&[&messages::plain(1, 3000), &plain(1)[0]]);
    let gateway = configured(&server, "upstream_limits.literal = \"2 KiB\"\n");
    let mut pop3 = alice(&gateway);
    server.forget();
    assert!(pop3.expect_err("RETR 1").starts_with("[SYS/PERM]"));
    assert!(server.requests().is_empty());
    assert_eq!(pop3.retrieve(2), plain(1)[0]);
}

fn top(lines: usize) -> Vec<u8> {
    let message = messages::plain(1, LARGE);
    let text = String::from_utf8(message).unwrap();
    let (header, body) = text.split_once("\r\n\r\n").unwrap();
    let body: String = body.split_inclusive('\n').take(lines).collect();
    format!("{header}\r\n\r\n{body}").into_bytes()
}

#[test]
fn the_top_of_a_large_message() {
    for (ranges, blobs) in [(true, false), (false, true), (true, true), (false, false)] {
        let server = ScriptedJmap::builder()
            .messages(&[&messages::plain(1, LARGE)])
            .account(|it| {
                it.ranges = ranges;
                it.blobs = blobs;
            })
            .start();
        let gateway = front(&server, &[]);
        let mut pop3 = alice(&gateway);
        for lines in [0, 10, 1000] {
            server.forget();
            pop3.expect_ok(&format!("TOP 1 {lines}"));
            assert!(
                pop3.multiline() == top(lines),
                "{lines} lines {ranges} {blobs}"
            );
            let downloads = server.count(DOWNLOAD);
            let gets = server.calls("Blob/get");
            if blobs {
                assert_eq!(downloads, 0);
                let octets: u64 = gets.iter().map(|it| it["length"].as_u64().unwrap()).sum();
                assert!(octets <= top(lines).len() as u64 * 4 + 20_000, "{octets}");
            } else {
                assert!(gets.is_empty());
                let expected = match lines {
                    1000 if ranges => 3,
                    _ => 1,
                };
                assert_eq!(downloads, expected, "{lines} lines {ranges}");
            }
        }
        assert!(pop3.quit().starts_with("+OK"));
    }
}

#[test]
fn a_blob_get_that_does_not_work() {
    // Announced, and not there: another way is taken.
    let builder = || {
        ScriptedJmap::builder()
            .messages(&[&messages::plain(1, LARGE)])
            .account(|it| it.blobs = true)
    };
    let server = builder().failing("Blob/get", "unknownMethod").start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    pop3.expect_ok("TOP 1 3");
    assert!(pop3.multiline() == top(3));
    assert_eq!(server.count(DOWNLOAD), 1);
    // Other octets than were asked for are no top of the message.
    for data in [json!("AAAA"), json!("!"), json!(null), json!(7)] {
        let server = builder()
            .on_answer("Blob/get", move |_, it| {
                it["list"][0]["data:asBase64"] = data.clone();
            })
            .start();
        let gateway = front(&server, &[]);
        assert!(
            alice(&gateway)
                .expect_err("TOP 1 3")
                .starts_with("[SYS/TEMP]")
        );
    }
    let server = builder()
        .on_answer("Blob/get", |_, it| {
            it["list"] = json!([]);
            it["notFound"] = json!(["G1"]);
        })
        .start();
    let gateway = front(&server, &[]);
    assert_eq!(
        alice(&gateway).expect_err("TOP 1 3"),
        "the message is no longer there"
    );
}

#[test]
fn ranges_that_are_others() {
    for range in [
        "bytes 1-16384/300000",
        "bytes 0-99999/300000",
        "bytes */300000",
        "0-1/2",
        "",
    ] {
        let server = ScriptedJmap::builder()
            .messages(&[&messages::plain(1, LARGE)])
            .on_request(instead(DOWNLOAD, move || {
                let mut reply = Reply::of("x".repeat(16_384)).header("Content-Range", range);
                reply.status = 206;
                reply
            }))
            .start();
        let gateway = front(&server, &[]);
        let refusal = alice(&gateway).expect_err("TOP 1 0");
        assert!(refusal.starts_with("[SYS/TEMP]"), "{range}: {refusal}");
    }
    // Less than was asked for is taken, and the rest asked for.
    let server = ScriptedJmap::builder()
        .messages(&[&messages::plain(1, LARGE)])
        .on_request(|request, account| {
            let Some(range) = request.header("range") else {
                return Answer::Usual;
            };
            let first = range
                .trim_start_matches("bytes=")
                .split('-')
                .next()
                .unwrap();
            let first: usize = first.parse().unwrap();
            let part = account.emails[0].octets[first..first + 100].to_vec();
            let range = format!("bytes {first}-{}/*", first + 99);
            let mut reply = Reply::of(part).header("Content-Range", &range);
            reply.status = 206;
            Answer::Send(reply)
        })
        .start();
    let gateway = front(&server, &[]);
    let mut pop3 = alice(&gateway);
    pop3.expect_ok("TOP 1 3");
    assert!(pop3.multiline() == top(3));
}

#[test]
fn logs_hold_no_octet_of_mail_or_passwords() {
    let secret = b"Subject: s3cret-subject\r\n\r\ns3cret-body\r\n";
    let server = ScriptedJmap::builder()
        .messages(&[secret])
        .on_request(|request, account| {
            if request.path == API && account.state > 2 {
                Answer::Send(Reply::of("{\"type\":\"s3cret-answer\"}"))
            } else {
                Answer::Usual
            }
        })
        .start();
    let gateway = front(&server, &["--log-level", "debug"]);
    let mut pop3 = alice(&gateway);
    assert_eq!(pop3.retrieve(1), secret);
    server.account().state = 3;
    pop3.expect_ok("DELE 1");
    assert!(pop3.quit().starts_with("-ERR"));
    gateway.wait_for_log("update failed");
    gateway.wait_for_log("session ended");
    let logs = gateway.logs();
    for word in ["s3cret", "pw-alice", "Basic", "YWxpY2U6"] {
        assert!(!logs.contains(word), "{word} in {logs}");
    }
}
