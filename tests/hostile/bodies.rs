//! Message text that is cut, exaggerated, or another message's.

use std::time::Duration;

use super::*;
use crate::support::Answer;
use crate::support::scripted_imap::Command;

/// Larger than what is held back until it is whole.
const LARGE: usize = 300_000;

/// Messages 1 (small), 2 (large) and 3 (small), where the text of the first two
/// is answered by `answer`, given the text.
fn bodies(answer: impl Fn(&Command, &[u8]) -> Answer + Send + Sync + 'static) -> ScriptedImap {
    let large = messages::plain(2, LARGE);
    ScriptedImap::builder()
        .messages(&[messages::plain(1, 500), large, messages::plain(3, 500)])
        .on("UID FETCH", move |command, world| {
            let uid = command.arguments.split(' ').next().unwrap().to_owned();
            match uid.as_str() {
                "1" | "2" if command.arguments.contains("BODY") => {
                    let uid = uid.parse().unwrap();
                    let text = world.inbox().message(uid).unwrap().octets.clone();
                    answer(command, &text)
                }
                _ => Answer::Usual,
            }
        })
        .start()
}

/// Where a message of so many octets is cut.
type Cut = fn(usize) -> usize;
/// An answer to a FETCH of this text.
type Octets = fn(&Command, &[u8]) -> Vec<u8>;
/// The end of one.
type End = fn(&Command) -> Answer;
/// The beginning of one.
type Start = fn(&Command) -> Vec<u8>;

fn uid(command: &Command) -> u32 {
    let (uid, _) = command.arguments.split_once(' ').unwrap();
    uid.parse().unwrap()
}

/// `* n FETCH (UID n BODY[] {octets}` and `text`, which need not agree.
fn row(command: &Command, octets: usize, text: &[u8]) -> Vec<u8> {
    let uid = uid(command);
    let mut row = format!("* {uid} FETCH (UID {uid} BODY[] {{{octets}}}\r\n").into_bytes();
    row.extend_from_slice(text);
    row
}

/// A small message that goes wrong is refused; a large one ends without its
/// dot. Either way there is no whole message.
fn is_not_delivered(server: &ScriptedImap, what: &str) {
    let mut front = Front::with(server, "trash", "1s", "");
    let mut client = front.login();
    let refusal = client.expect_err("RETR 1");
    assert!(!refusal.starts_with("[AUTH]"), "{what}: {refusal}");
    // The session goes on, on another connection if it must.
    assert_eq!(client.retrieve(3), messages::plain(3, 500), "{what}");
    client.send("RETR 2");
    // The reset that ends it may overtake the reply.
    let reply = client.try_line().ok().flatten().unwrap_or_default();
    assert!(!reply.starts_with(b"-ERR [AUTH]"), "{what}");
    if reply.starts_with(b"+OK") {
        let cut = client.try_multiline();
        let cut = cut.expect_err(&format!("{what}: half a message with its dot"));
        assert!(cut.received.len() < LARGE + 10_000, "{what}");
    }
    assert!(front.gateway.is_running(), "{what}");
    let mut client = front.connect();
    client.login("bob", "pw-bob");
    assert_eq!(client.retrieve(3), messages::plain(3, 500), "{what}");
    check_wire(server);
}

#[test]
fn half_a_message_is_no_message() {
    let cuts: [(&str, Cut); 5] = [
        ("at 0", |_| 0),
        ("at 1", |_| 1),
        ("in the middle", |whole| whole / 2),
        ("before the last octet", |whole| whole - 1),
        ("behind the last octet", |whole| whole),
    ];
    for (what, cut) in cuts {
        let part = move |command: &Command, text: &[u8]| {
            row(command, text.len(), &text[..cut(text.len())])
        };
        is_not_delivered(&bodies(move |it, text| Answer::Close(part(it, text))), what);
        is_not_delivered(&bodies(move |it, text| Answer::Reset(part(it, text))), what);
        is_not_delivered(&bodies(move |it, text| Answer::Hang(part(it, text))), what);
    }
    // All of it, and the end of the row, but no word on the command.
    is_not_delivered(
        &bodies(|command, text| {
            let mut row = row(command, text.len(), text);
            row.extend_from_slice(b")\r\n");
            Answer::Close(row)
        }),
        "without the tagged OK",
    );
}

#[test]
fn text_that_contradicts_itself() {
    let answers: [(&str, Octets); 14] = [
        ("part of a literal, then OK", |it, text| {
            let mut part = row(it, text.len(), &text[..text.len() / 2]);
            part.extend_from_slice(format!(")\r\n{}", it.ok("done")).as_bytes());
            part
        }),
        ("a literal of 4 GiB", |it, text| {
            row(it, 4_294_967_295, text)
        }),
        ("a literal beyond all numbers", |it, text| {
            let mut row = row(it, 0, text);
            let at = row.iter().position(|octet| *octet == b'{').unwrap();
            row.splice(at + 1..at + 2, *b"99999999999999999999999");
            row
        }),
        ("no row", |it, _| it.ok("done").into_bytes()),
        ("a row without text", |it, _| {
            format!("* 1 FETCH (UID {} FLAGS ())\r\n{}", uid(it), it.ok("done")).into_bytes()
        }),
        ("NIL", |it, _| {
            format!(
                "* 1 FETCH (UID {} BODY[] NIL)\r\n{}",
                uid(it),
                it.ok("done")
            )
            .into_bytes()
        }),
        ("an empty string", |it, _| {
            format!(
                "* 1 FETCH (UID {} BODY[] \"\")\r\n{}",
                uid(it),
                it.ok("done")
            )
            .into_bytes()
        }),
        ("an empty literal", |it, _| {
            let mut row = row(it, 0, b"");
            row.extend_from_slice(format!(")\r\n{}", it.ok("done")).as_bytes());
            row
        }),
        ("another UID", |it, text| {
            let row = format!("* 1 FETCH (UID 3 BODY[] {{{}}}\r\n", text.len());
            [row.as_bytes(), text, b")\r\n", it.ok("done").as_bytes()].concat()
        }),
        ("another UID behind the text", |it, text| {
            let row = format!("* 1 FETCH (BODY[] {{{}}}\r\n", text.len());
            [
                row.as_bytes(),
                text,
                b" UID 3)\r\n",
                it.ok("done").as_bytes(),
            ]
            .concat()
        }),
        ("no UID", |it, text| {
            let row = format!("* 1 FETCH (BODY[] {{{}}}\r\n", text.len());
            [row.as_bytes(), text, b")\r\n", it.ok("done").as_bytes()].concat()
        }),
        ("another section", |it, text| {
            let row = format!(
                "* 1 FETCH (UID {} BODY[HEADER] {{{}}}\r\n",
                uid(it),
                text.len()
            );
            [row.as_bytes(), text, b")\r\n", it.ok("done").as_bytes()].concat()
        }),
        ("the text twice", |it, text| {
            let row = [&row(it, text.len(), text)[..], b")\r\n"].concat();
            [&row[..], &row, it.ok("done").as_bytes()].concat()
        }),
        ("another UIDVALIDITY", |it, text| {
            let row = row(it, text.len(), text);
            let news = b"* OK [UIDVALIDITY 5] new\r\n";
            [news, &row[..], b")\r\n", it.ok("done").as_bytes()].concat()
        }),
    ];
    for (what, answer) in answers {
        is_not_delivered(
            &bodies(move |it, text| Answer::Send(answer(it, text))),
            what,
        );
    }
}

#[test]
fn nesting_without_end() {
    let server = bodies(|command, _| {
        let deep = "(".repeat(5000);
        Answer::send(format!(
            "* 1 FETCH (UID 1 BODYSTRUCTURE {deep}\r\n{}",
            command.ok("done")
        ))
    });
    is_not_delivered(&server, "5,000 parentheses");
}

#[test]
fn text_in_unusual_form_is_whole() {
    let text = "a \"quoted\" \\ line\r\n";
    let answers: [fn(&Command, &str) -> String; 5] = [
        |it, text| {
            format!(
                "* 1 FETCH (BODY[] {{{}}}\r\n{text} UID {})\r\n",
                text.len(),
                uid(it)
            )
        },
        |it, text| {
            format!(
                "* 1 fetch (flags () uid {} body[] {{{}}}\r\n{text})\r\n",
                uid(it),
                text.len()
            )
        },
        |it, text| {
            format!(
                "* 1 FETCH (UID {} BODY[] ~{{{}}}\r\n{text})\r\n",
                uid(it),
                text.len()
            )
        },
        |it, text| {
            format!(
                "* 9 EXISTS\r\n* 1 FETCH (FLAGS (\\Seen))\r\n* 1 FETCH (X (\"a\" (b {{3}}\r\n))))) UID {} BODY[] {{{}}}\r\n{text})\r\n* OK [ALERT] x\r\n* 4 EXPUNGE\r\n",
                uid(it),
                text.len()
            )
        },
        |it, text| {
            format!(
                "* 1 FETCH (UID {} RFC822 {{{}}}\r\n{text})\r\n",
                uid(it),
                text.len()
            )
        },
    ];
    for answer in answers {
        let server = bodies(move |it, _| {
            Answer::Slices((answer(it, text) + &it.ok("done")).into_bytes(), 1)
        });
        let front = Front::new(&server, "trash");
        let mut client = front.login();
        assert_eq!(client.retrieve(1), text.as_bytes());
        // The true size is kept, for this session and the next.
        assert_eq!(client.sizes()[0], text.len());
        assert!(client.quit().starts_with("+OK"));
        assert_eq!(front.login().sizes()[0], text.len());
    }
}

#[test]
fn sizes_may_be_estimates() {
    for claimed in [1, 499, 501, 100_000, 200_000, 4_000_000_000] {
        let server = builder(2)
            .world(|world| world.inbox().messages[0].claimed_size = Some(claimed))
            .start();
        let more = "[upstream_limits]\nliteral = \"5 GiB\"\n";
        let front = Front::with(&server, "trash", "2s", more);
        let mut client = front.login();
        let whole = messages::plain(1, 500);
        client.expect_ok("TOP 1 2");
        let top = client.multiline();
        assert!(whole.starts_with(&top), "{claimed}");
        assert_eq!(client.retrieve(1), whole, "{claimed}");
        assert_eq!(client.sizes()[0], whole.len());
    }
}

#[test]
fn a_part_may_be_answered_with_all() {
    let whole = messages::plain(2, LARGE);
    let server = bodies(|command, text| {
        let mut row = row(command, text.len(), text);
        row.extend_from_slice(format!(")\r\n{}", command.ok("done")).as_bytes());
        Answer::Send(row)
    });
    let front = Front::new(&server, "trash");
    let mut client = front.login();
    for lines in [1, 10, 1000] {
        client.expect_ok(&format!("TOP 2 {lines}"));
        let top = client.multiline();
        assert!(whole.starts_with(&top), "{lines}");
        let body = top.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
        let count = top[body..].iter().filter(|octet| **octet == b'\n').count();
        assert_eq!(count, lines);
    }
    client.expect_ok("TOP 2 1000000");
    assert_eq!(client.multiline(), whole);
    assert_eq!(client.retrieve(3), messages::plain(3, 500));
}

#[test]
fn a_part_that_was_not_asked_for() {
    for part in ["BODY[]<7>", "BODY[]<16384>", "BODY[HEADER]<0>"] {
        let server = bodies(move |command, _| {
            let row = format!("* 1 FETCH (UID {} {part} {{3}}\r\nabc)\r\n", uid(command));
            Answer::send(row + &command.ok("done"))
        });
        let front = Front::new(&server, "trash");
        let mut client = front.login();
        let refusal = client.expect_err("TOP 2 3");
        assert!(is_temporary(&refusal), "{part}: {refusal}");
        assert_eq!(client.retrieve(3), messages::plain(3, 500));
    }
}

#[test]
fn what_was_not_read_of_one_message_is_not_the_next() {
    // TOP stops early, and RETR follows at once, again and again.
    let large: Vec<Vec<u8>> = (1..=4).map(|n| messages::plain(n, 60_000 * n)).collect();
    let server = ScriptedImap::builder().messages(&large).start();
    let front = Front::new(&server, "trash");
    let mut client = front.login();
    for lines in [0, 1, 7, 400] {
        for (at, whole) in large.iter().enumerate() {
            client.expect_ok(&format!("TOP {} {lines}", at + 1));
            assert!(whole.starts_with(&client.multiline()));
            let next = (at + 1) % large.len();
            assert_eq!(client.retrieve(next + 1), large[next]);
        }
    }
    check_wire(&server);
}

#[test]
fn a_client_that_leaves_in_the_middle_disturbs_nobody() {
    let large: Vec<Vec<u8>> = (1..=2).map(|n| messages::plain(n, 2_000_000)).collect();
    let server = ScriptedImap::builder().messages(&large).start();
    let mut front = Front::new(&server, "trash");
    for _ in 0..3 {
        let mut client = front.login();
        client.send("RETR 1");
        client.read_some(1000);
        client.reset();
        server.wait_until_closed();
    }
    front.serves_the_next(2);
}

#[test]
fn a_body_that_drips_comes_to_an_end() {
    let often = Duration::from_millis(20);
    let endless: [(&str, Start, &[u8]); 3] = [
        ("octets of the text", |it| row(it, 400, b""), b"x"),
        (
            "lines in front of it",
            |_| Vec::new(),
            b"* 1 RECENT\r\n* OK wait\r\n",
        ),
        ("rows", |_| Vec::new(), b"* 3 FETCH (FLAGS ())\r\n"),
    ];
    for (what, start, drop) in endless {
        let server = builder(1)
            .on("UID FETCH 1 (UID BODY", move |command, _| {
                let start = start(command);
                match start.is_empty() {
                    true => Answer::Endless(drop.to_vec(), often),
                    false => Answer::Slices([start, drop.repeat(100)].concat(), 1),
                }
            })
            .start();
        let front = Front::with(&server, "trash", "1s", "");
        let mut client = front.login();
        let refusal = client.expect_err("RETR 1");
        assert!(is_temporary(&refusal), "{what}: {refusal}");
    }
}

#[test]
fn a_substitute_for_a_message_that_is_gone() {
    let header = "From: System Administrator <root@localhost>\r\n\
        Subject: message unavailable\r\n\r\n";
    let substitute = format!("{header}This message is no longer available on the server.\r\n");
    let whole = substitute.clone();
    let server = ScriptedImap::builder()
        .messages(&[1, 2, 3].map(|n| messages::plain(n, 500)))
        .world(|world| world.inbox().messages[1].claimed_size = Some(LARGE as u64))
        .on("UID FETCH", move |command, _| {
            let (uid, items) = command.arguments.split_once(' ').unwrap();
            if !["1", "2"].contains(&uid) || !items.contains("BODY") {
                return Answer::Usual;
            }
            let (section, text) = match items.contains("HEADER") {
                true => ("BODY[HEADER]", header),
                false => ("BODY[]", whole.as_str()),
            };
            let part = if items.contains('<') { "<0>" } else { "" };
            let length = text.len();
            let row =
                format!("* {uid} FETCH (UID {uid} {section}{part} {{{length}}}\r\n{text})\r\n");
            Answer::Slices((row + &command.ok("done")).into_bytes(), 7)
        })
        .start();
    let front = Front::new(&server, "trash");
    let mut client = front.login();
    for uid in [1, 2] {
        server.world().inbox().remove(uid);
    }
    for command in [
        "RETR 1", "TOP 1 0", "TOP 1 9", "RETR 2", "TOP 2 0", "TOP 2 9",
    ] {
        assert_eq!(
            client.expect_err(command),
            "the message is no longer there",
            "{command}"
        );
    }
    assert_eq!(client.retrieve(3), messages::plain(3, 500));

    // Whoever really sent that is read.
    let server = ScriptedImap::with_messages(&[substitute.as_bytes()]);
    let front = Front::new(&server, "trash");
    assert_eq!(front.login().retrieve(1), substitute.as_bytes());
}

/// The client has all of a TOP before the answer upstream is at its end.
#[test]
fn a_top_is_confirmed_before_it_is_given() {
    let ends: [(&str, End); 4] = [
        ("another UID", |it| {
            Answer::send(format!(" UID 3)\r\n{}", it.ok("done")))
        }),
        ("no UID", |it| {
            Answer::send(format!(")\r\n{}", it.ok("done")))
        }),
        ("NO", |it| {
            Answer::send(format!(" UID {})\r\n{}", uid(it), it.no("no")))
        }),
        ("the end", |it| {
            Answer::Close(format!(" UID {})\r\n", uid(it)).into_bytes())
        }),
    ];
    for (what, end) in ends {
        let server = bodies(move |command, text| {
            let (section, text) = match command.arguments.contains("HEADER") {
                true => ("BODY[HEADER]", &b"Subject: x\r\n\r\n"[..]),
                false => ("BODY[]", text),
            };
            let row = format!("* 1 FETCH ({section} {{{}}}\r\n", text.len());
            let start = [row.as_bytes(), text].concat();
            match end(command) {
                Answer::Send(end) => Answer::Send([start, end].concat()),
                Answer::Close(end) => Answer::Close([start, end].concat()),
                other => other,
            }
        });
        let front = Front::new(&server, "trash");
        let mut client = front.login();
        for command in ["TOP 1 0", "TOP 1 1"] {
            let refusal = client.expect_err(command);
            assert!(is_temporary(&refusal), "{what}, {command}: {refusal}");
        }
        assert_eq!(client.retrieve(3), messages::plain(3, 500), "{what}");
    }
}
