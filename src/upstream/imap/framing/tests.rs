use proptest::prelude::*;

use super::*;
use crate::upstream::imap::fetch::{Details, Flags, Section};

fn limits() -> Limits {
    Limits {
        literal: 1000,
        line: 2000,
        messages: 100,
    }
}

/// Feeds `octets` in pieces of the given sizes, over and over.
fn frame(octets: &[u8], sizes: &[usize]) -> Result<Vec<Item>, WireError> {
    let mut framer = Framer::new(limits());
    let mut inbound = BytesMut::new();
    let mut items = VecDeque::new();
    let mut sizes = sizes.iter().copied().cycle();
    let mut rest = octets;
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
        let (piece, after) = rest.split_at(size);
        inbound.extend_from_slice(piece);
        framer.advance(&mut inbound, &mut items)?;
        rest = after;
    }
    Ok(join(items))
}

/// Runs of chunks as one, since their cuts depend on the pieces.
fn join(items: VecDeque<Item>) -> Vec<Item> {
    let mut joined: Vec<Item> = Vec::new();
    for item in items {
        match (joined.last_mut(), item) {
            (Some(Item::Data(Data::Chunk(before))), Item::Data(Data::Chunk(chunk))) => {
                *before = [&before[..], &chunk[..]].concat().into();
            }
            (_, item) => joined.push(item),
        }
    }
    joined
}

fn whole(text: &str) -> Result<Vec<Item>, WireError> {
    frame(text.as_bytes(), &[text.len()])
}

fn row(seq: u32, uid: Option<u32>, octets: Option<u64>) -> Row {
    Row {
        seq,
        uid,
        octets,
        ..Row::default()
    }
}

fn vetted_text(items: &[Item]) -> Vec<String> {
    let text = |item: &Item| match item {
        Item::Vetted(text) => Some(String::from_utf8_lossy(text).into_owned()),
        Item::Data(_) => None,
    };
    items.iter().filter_map(text).collect()
}

#[test]
fn rows_of_a_listing() {
    let items = whole("* 1 FETCH (UID 7 RFC822.SIZE 1234)\r\n").unwrap();
    assert_eq!(items, [Item::Data(Data::Row(row(1, Some(7), Some(1234))))]);
    let reversed = whole("* 1 fetch (rfc822.size 1234 uid 7 )\r\n").unwrap();
    assert_eq!(reversed, items);
    let flags = whole("* 2 FETCH (FLAGS (\\Seen \\deleted) UID 8 MODSEQ (12))\r\n").unwrap();
    let expected = Row {
        flags: Some(Flags {
            deleted: true,
            seen: true,
            hidden: false,
        }),
        ..row(2, Some(8), None)
    };
    assert_eq!(flags, [Item::Data(Data::Row(expected))]);
}

fn details(text: &str) -> Details {
    match whole(text).unwrap().pop() {
        Some(Item::Data(Data::Row(Row {
            details: Some(details),
            ..
        }))) => *details,
        other => panic!("{other:?}"),
    }
}

#[test]
fn details_in_every_form() {
    let told = details(
        "* 1 FETCH (INTERNALDATE \"01-Jan-1970 00:00:09 +0000\" X-GUID 5f \
         EMAILID (M1) X-GM-MSGID 1278455344230334865 UID 7)\r\n",
    );
    let expected = Details {
        arrival: Some(9),
        guid: Some("5f".into()),
        email_id: Some("M1".into()),
        gmail_id: Some(1_278_455_344_230_334_865),
    };
    assert_eq!(told, expected);
    let quoted = details("* 1 FETCH (X-GUID \"a \\\"b\" UID 7)\r\n");
    assert_eq!(quoted.guid.as_deref(), Some("a \"b"));
    let literal = details("* 1 FETCH (X-GUID {3}\r\na)b UID 7)\r\n");
    assert_eq!(literal.guid.as_deref(), Some("a)b"));
    let last = details("* 1 FETCH (UID 7 X-GUID {3}\r\na)b)\r\n");
    assert_eq!(last.guid.as_deref(), Some("a)b"));
}

#[test]
fn details_that_make_no_sense_are_none() {
    for item in [
        "INTERNALDATE \"yesterday\"".to_owned(),
        "X-GUID \"\"".to_owned(),
        "X-GUID NIL".to_owned(),
        format!("X-GUID {}", "x".repeat(256)),
        "X-GM-MSGID 18446744073709551616".to_owned(),
        "EMAILID (NIL)".to_owned(),
    ] {
        let told = details(&format!("* 1 FETCH (UID 7 {item})\r\n"));
        assert_eq!(told, Details::default(), "{item}");
    }
}

#[test]
fn the_keyword_of_hidden_messages() {
    let items = whole("* 2 FETCH (UID 8 FLAGS (\\Seen $pop3deleted x))\r\n").unwrap();
    let Some(Item::Data(Data::Row(row))) = items.first() else {
        panic!("{items:?}")
    };
    let expected = Flags {
        deleted: false,
        seen: true,
        hidden: true,
    };
    assert_eq!(row.flags, Some(expected));
}

#[test]
fn message_text_is_passed_on_exactly() {
    let text = "* 3 FETCH (UID 9 BODY[] {12}\r\nab\r\n) * {3}\r FLAGS ())\r\n";
    let items = whole(text).unwrap();
    let start = BodyStart {
        seq: 3,
        uid: Some(9),
        section: Section::Whole,
        origin: None,
        octets: 12,
    };
    let expected = Row {
        with_body: true,
        flags: Some(Flags::default()),
        ..row(3, Some(9), None)
    };
    assert_eq!(
        items,
        [
            Item::Data(Data::BodyStart(start)),
            Item::Data(Data::Chunk(Bytes::from_static(b"ab\r\n) * {3}\r"))),
            Item::Data(Data::BodyEnd),
            Item::Data(Data::Row(expected)),
        ]
    );
}

#[test]
fn message_text_may_be_quoted_and_in_front_of_the_uid() {
    let items = whole("* 3 FETCH (BODY[HEADER]<5> \"a\\\"b\" UID 9)\r\n").unwrap();
    let Some(Item::Data(Data::BodyStart(start))) = items.first() else {
        panic!("{items:?}")
    };
    assert_eq!((start.uid, start.origin, start.octets), (None, Some(5), 3));
    assert_eq!(
        items[1],
        Item::Data(Data::Chunk(Bytes::from_static(b"a\"b")))
    );
    let expected = Row {
        with_body: true,
        ..row(3, Some(9), None)
    };
    assert_eq!(items[3], Item::Data(Data::Row(expected)));
}

#[test]
fn nested_items_and_their_literals_are_passed_over() {
    let text = "* 1 FETCH (ENVELOPE (NIL {3}\r\na(b ((\"x)\" {2}\r\n\r\n))) UID 4)\r\n";
    assert_eq!(
        whole(text).unwrap(),
        [Item::Data(Data::Row(row(1, Some(4), None)))]
    );
}

#[test]
fn responses_for_the_decoder_are_ascii() {
    let items = whole("* OK [ALERT] gr\u{fc}n\t{5}\r\n+ \r\nP1 NO\r\n* 3 EXPUNGED\r\n").unwrap();
    let expected = [
        "* OK [ALERT] gr??n?{5}\r\n",
        "+ \r\n",
        "P1 NO\r\n",
        "* 3 EXPUNGE\r\n",
    ];
    assert_eq!(vetted_text(&items), expected);
    let long = format!("* OK {}\r\n", "x".repeat(1900));
    assert_eq!(vetted_text(&whole(&long).unwrap()), [long]);
}

#[test]
fn text_without_end_is_cut_for_the_decoder() {
    let Item::Vetted(cut) = vetted(&[b'x'; 10 * LONGEST_VETTED]) else {
        panic!("vetted() vets")
    };
    assert_eq!(cut.len(), LONGEST_VETTED + 2);
}

#[test]
fn mailboxes_with_literals_of_any_length() {
    for name in ["Trash", "", "Trash  ", "a\r\n* BYE"] {
        let text = format!("* list () \"/\" {{{}}}\r\n{name}\r\n", name.len());
        let items = whole(&text).unwrap();
        let Some(Item::Data(Data::List(listed))) = items.first() else {
            panic!("{items:?}")
        };
        assert_eq!((listed.name.as_str(), items.len()), (name, 1));
    }
}

#[test]
fn capabilities_need_not_be_those_of_rev1() {
    let items = whole("* CAPABILITY IMAP4rev2 AUTH=PLAIN\r\n").unwrap();
    let names = ["IMAP4rev2", "AUTH=PLAIN"].map(str::to_owned).to_vec();
    assert_eq!(items, [Item::Data(Data::Capability(names))]);
}

#[test]
fn what_popgate_has_no_use_for_is_dropped() {
    let text = "* XLARGE (a {4}\r\nP1 O) b\r\n* 5 RECENT\r\n* QUOTAROOT INBOX x\r\n\
        * 5 XMETA {12}\r\nP1 OK done\r\n b\r\n";
    assert_eq!(whole(text).unwrap(), []);
}

#[test]
fn searches() {
    let found = |ranges: &[(u32, u32)]| {
        Item::Data(Data::Found(
            ranges.iter().map(|(first, last)| *first..=*last).collect(),
        ))
    };
    assert_eq!(
        whole("* SEARCH 2 5 (MODSEQ 9)\r\n").unwrap(),
        [found(&[(2, 2), (5, 5)])]
    );
    assert_eq!(whole("* SEARCH\r\n").unwrap(), [found(&[])]);
    let esearch = whole("* ESEARCH (TAG \"P5\") UID ALL 2,10:15,20:18\r\n").unwrap();
    assert_eq!(esearch, [found(&[(2, 2), (10, 15), (18, 20)])]);
}

#[test]
fn messages_that_have_vanished() {
    let vanished = |is_earlier: bool, ranges: &[(u32, u32)]| {
        Item::Data(Data::Vanished(Vanished {
            is_earlier,
            uids: ranges.iter().map(|(first, last)| *first..=*last).collect(),
        }))
    };
    // RFC 7162 §3.2.10.1 and §3.2.10.2.
    assert_eq!(
        whole("* VANISHED (EARLIER) 41,43:116,118,120:211\r\n").unwrap(),
        [vanished(
            true,
            &[(41, 41), (43, 116), (118, 118), (120, 211)]
        )]
    );
    assert_eq!(
        whole("* vanished 505,508:507\r\n").unwrap(),
        [vanished(false, &[(505, 505), (507, 508)])]
    );
    assert_eq!(
        whole("* Vanished  (earlier)  4294967295 \r\n").unwrap(),
        [vanished(true, &[(u32::MAX, u32::MAX)])]
    );
    let many: Vec<String> = (1..=400).map(|uid| (2 * uid).to_string()).collect();
    let items = whole(&format!("* VANISHED {}\r\n", many.join(","))).unwrap();
    let Some(Item::Data(Data::Vanished(told))) = items.first() else {
        panic!("{items:?}")
    };
    assert_eq!(told.uids.len(), 400);
    for set in [
        "",
        "(EARLIER)",
        "(EARLIER) ",
        "(LATER) 1",
        "EARLIER 1",
        "1,",
        "1:",
        ":1",
        "1:*",
        "4294967296",
        "-1",
        "1 2",
        "(EARLIER) 1 2",
        "1 (EARLIER)",
        "{1}",
    ] {
        let text = format!("* VANISHED {set}\r\n");
        assert_eq!(whole(&text), Err(WireError::Garbage), "{text}");
    }
}

#[test]
fn mod_sequences_of_messages_are_passed_over() {
    for modseq in [
        "(624140003)",
        "(9223372036854775807)",
        "()",
        "(x {2}\r\n) y)",
    ] {
        let text = format!("* 1 FETCH (UID 7 MODSEQ {modseq} RFC822.SIZE 9)\r\n");
        let expected = row(1, Some(7), Some(9));
        assert_eq!(whole(&text).unwrap(), [Item::Data(Data::Row(expected))]);
    }
}

#[test]
fn what_was_enabled_is_not_asked_for() {
    let text = "* ENABLED QRESYNC CONDSTORE\r\n* ENABLED\r\nP1 OK done\r\n";
    assert_eq!(vetted_text(&whole(text).unwrap()), ["P1 OK done\r\n"]);
}

#[test]
fn what_is_no_imap_or_too_much_of_it() {
    assert_eq!(whole("220 smtp.example.org\r\n"), Err(WireError::Garbage));
    assert_eq!(whole("* 1 FETCH (UID 0)\r\n"), Err(WireError::Garbage));
    assert_eq!(whole("* 1 FETCH (UID 1\r\n"), Err(WireError::Garbage));
    assert_eq!(whole("* 1 FETCH (UID 1))\r\n"), Err(WireError::Garbage));
    assert_eq!(whole("* 1 FETCH (UID 1) x\r\n"), Err(WireError::Garbage));
    assert_eq!(
        whole("* 1 FETCH (UID 4294967296)\r\n"),
        Err(WireError::Garbage)
    );
    assert_eq!(
        whole("* 1 FETCH (UID 1 UID 2)\r\n"),
        Err(WireError::Garbage)
    );
    let deep = format!("* 1 FETCH (BODYSTRUCTURE {}\r\n", "(".repeat(1900));
    assert_eq!(whole(&deep), Err(WireError::Garbage));
    assert_eq!(whole(&"x".repeat(2001)), Err(WireError::LineTooLong));
    let huge = "* 1 FETCH (BODY[] {4294967295}\r\n";
    assert_eq!(whole(huge), Err(WireError::LiteralTooLarge));
    assert_eq!(whole("* X {99999999999999999999}\r\n"), Ok(vec![]));
    assert_eq!(
        whole("* LIST () \"/\" {65537}\r\n"),
        Err(WireError::LiteralTooLarge)
    );
}

const CONVERSATION: &str = "* OK [CAPABILITY IMAP4rev1] hi\r\n\
    * 1 FETCH (UID 7 RFC822.SIZE 1234)\r\n\
    * 2 FETCH (UID 8 BODY[] {19}\r\n0123456789\r\n.\r\nabcd)\n\
    * LIST (\\Trash) \"/\" {5}\r\nTrash\r\n\
    * SEARCH 1 2 3\r\n\
    * VANISHED (EARLIER) 1:3,5\r\n\
    * BOGUS {3}\r\n\r\n\r x\r\n\
    * 3 FETCH (X (a {3}\r\n)\r\n b) BODY[HEADER] \"q\" UID 9)\r\n\
    P1 OK done\r\n";

proptest! {
    #[test]
    fn slices_make_no_difference(sizes in prop::collection::vec(1usize..40, 1..20)) {
        let expected = whole(CONVERSATION).unwrap();
        prop_assert_eq!(frame(CONVERSATION.as_bytes(), &sizes).unwrap(), expected);
    }

    #[test]
    fn no_octets_make_it_panic(
        octets in prop::collection::vec(any::<u8>(), 0..500),
        sizes in prop::collection::vec(1usize..40, 1..20),
    ) {
        let _ = frame(&octets, &sizes);
    }

    #[test]
    fn no_vanished_makes_it_panic(text in "\\* VANISHED ?(\\(EARLIER\\) )?[0-9:,* (){}]{0,60}\r\n") {
        let _ = whole(&text);
    }

    #[test]
    fn no_fetch_makes_it_panic(text in "\\* 1 FETCH \\([A-Za-z0-9 \\[\\]<>(){}\"\\\\.~+-]{0,60}\r\n") {
        let _ = whole(&text);
    }
}
