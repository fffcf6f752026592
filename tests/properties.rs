//! Properties of the pure parts: what holds for any input, cut anywhere.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use popgate::maildrop::{Maildrop, MaildropBuilder, Outcome, UniqueId};
use popgate::pop3::{
    DotStuffer, Expects, Framed, Front, Input, LineBuffer, NulPolicy, Refusal, ResponseCode,
    Session, Step, Terms, TopLimiter, octets_of,
};
use popgate::sasl::{
    Credentials, Mechanism, Progress, ServerExchange, check_user, initial_response,
};
use popgate::server::policies::Policies;
use proptest::collection::vec;
use proptest::prelude::*;

/// Text in which everything that lines are made of is frequent.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b".".to_vec()),
        Just(b"\0".to_vec()),
        Just(b"\r\n.\r\n".to_vec()),
        Just(b"a line of text".to_vec()),
        vec(any::<u8>(), 0..5),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// What a client may send: commands, other lines, lines of every length.
fn client_octets() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"AUTH PLAIN ".to_vec()),
        Just(b"STAT\r\nRETR 1\r\n".to_vec()),
        (500_usize..520).prop_map(|octets| vec![b'x'; octets]),
        (16_370_usize..16_390).prop_map(|octets| vec![b'y'; octets]),
        vec(any::<u8>(), 0..20),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Cuts `octets` at places that `cuts` name.
fn slices<'a>(octets: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(octets.len() + 1)).collect();
    places.sort_unstable();
    places.push(octets.len());
    let mut slices = Vec::new();
    let mut start = 0;
    for place in places {
        slices.push(&octets[start..place]);
        start = place;
    }
    slices
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    vec(any::<prop::sample::Index>(), 0..30)
}

/// The lines of an input, all at once: the definition that framing must meet.
fn lines_by_definition(octets: &[u8], limit: impl Fn(&[u8]) -> usize) -> Vec<Option<Vec<u8>>> {
    octets
        .split_inclusive(|&octet| octet == b'\n')
        .filter_map(|line| {
            let complete = line.ends_with(b"\n");
            if line.len() > limit(line) || (!complete && line.len() == limit(line)) {
                return Some(None);
            }
            let line = line.strip_suffix(b"\n")?;
            Some(Some(line.strip_suffix(b"\r").unwrap_or(line).to_vec()))
        })
        .collect()
}

fn command_limit(line: &[u8]) -> usize {
    match line.get(..5) {
        Some(start) if start.eq_ignore_ascii_case(b"AUTH ") => 16 * 1024,
        _ => 512,
    }
}

fn framed(slices: &[&[u8]], expects: Expects) -> Vec<Option<Vec<u8>>> {
    let mut buffer = LineBuffer::new();
    let mut frames = Vec::new();
    for slice in slices {
        buffer.push(slice);
        loop {
            let waiting = buffer.has_line();
            match buffer.next(expects) {
                Some(Framed::Line(line)) => {
                    assert!(waiting);
                    frames.push(Some(line.to_vec()));
                }
                Some(Framed::TooLong) => frames.push(None),
                None => break assert!(!waiting),
            }
        }
        assert!(buffer.len() < 16 * 1024);
    }
    frames
}

/// Takes a multi-line response apart, as a client does (RFC 1939 §3).
fn unstuffed(mut wire: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    loop {
        let end = wire
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .expect("a line end")
            + 2;
        let (line, rest) = wire.split_at(end);
        if line == b".\r\n" {
            assert!(rest.is_empty(), "octets behind the dot");
            return message;
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        wire = rest;
    }
}

/// A message with CRLF line ends and a last line that ends, octet by octet.
fn normalised(message: &[u8]) -> Vec<u8> {
    let mut normal: Vec<u8> = Vec::new();
    for &octet in message {
        if octet == b'\n' && normal.last() != Some(&b'\r') {
            normal.push(b'\r');
        }
        normal.push(octet);
    }
    if !normal.is_empty() && !normal.ends_with(b"\n") {
        normal.extend_from_slice(b"\r\n");
    }
    normal
}

/// Where TOP ends, line by line.
fn top_by_definition(message: &[u8], lines: u64) -> usize {
    let mut end = 0;
    let mut left = None;
    for line in message.split_inclusive(|&octet| octet == b'\n') {
        match &mut left {
            Some(0) => break,
            Some(left) => *left -= 1,
            None if line == b"\r\n" || line == b"\n" => left = Some(lines),
            None => {}
        }
        end += line.len();
    }
    end
}

fn front(cleartext_login: bool) -> Front {
    Front {
        tls_active: false,
        stls_available: true,
        cleartext_login,
        mechanisms: Mechanism::ALL.to_vec(),
        login_delay: None,
        expire: None,
        bad_command_limit: u32::MAX,
    }
}

fn maildrop() -> Maildrop {
    let mut builder = MaildropBuilder::default();
    for octets in [120, 0, 200] {
        builder
            .push(octets, &UniqueId::new(format!("id{octets}")).unwrap())
            .unwrap();
    }
    builder.build().unwrap()
}

/// Commands that lead somewhere, and garbage.
fn client_line() -> impl Strategy<Value = Vec<u8>> {
    let known = [
        "USER tim",
        "PASS tanstaaf",
        "AUTH PLAIN",
        "AUTH LOGIN",
        "AUTH XOAUTH2",
        "AUTH",
        "CAPA",
        "STLS",
        "UTF8",
        "LANG",
        "LANG *",
        "STAT",
        "LIST",
        "LIST 1",
        "LIST 2",
        "RETR 1",
        "RETR 3",
        "RETR 4",
        "RETR 0",
        "DELE 1",
        "DELE 2",
        "DELE 3",
        "NOOP",
        "RSET",
        "TOP 1 2",
        "UIDL",
        "UIDL 3",
        "QUIT",
        "*",
        "",
        "AHRpbQB0",
        "dGlt",
        "dXNlcj10aW0BYXV0aD1CZWFyZXIgdAEB",
        "AUTH PLAIN AHRpbQB0",
        "AUTH XOAUTH2 dXNlcj10aW0BYXV0aD1CZWFyZXIgdAEB",
    ];
    prop_oneof![
        8 => prop::sample::select(known.to_vec()).prop_map(|line| line.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..40),
        1 => "[A-Z]{3,4}( [0-9a-z]{0,22}){0,3}".prop_map(String::into_bytes),
    ]
}

/// How a driver may answer what the session asks: `chance` picks.
fn answer(step: &Step, chance: u8) -> Option<Input<'static>> {
    let refusal = |code| Refusal::new(code, "no");
    Some(match step {
        Step::StartTls(_) => Input::TlsStarted,
        Step::Open(_) => match chance % 4 {
            0 => Input::Refused(refusal(Some(ResponseCode::Auth))),
            1 => Input::Refused(refusal(Some(ResponseCode::SysTemp))),
            _ => Input::Opened(maildrop(), Terms::default()),
        },
        Step::Deliver { .. } => match chance % 3 {
            0 => Input::NotDelivered(refusal(None)),
            1 => Input::Delivered { octets: None },
            _ => Input::Delivered {
                octets: Some(u64::from(chance)),
            },
        },
        Step::Update(update) => match chance % 2 {
            0 => Input::Updated(Outcome {
                remaining: update.delete().to_vec(),
                ..Outcome::default()
            }),
            _ => Input::Updated(Outcome {
                removed: update.delete().to_vec(),
                ..Outcome::default()
            }),
        },
        Step::Reply(_) | Step::Lines(..) | Step::Continue(_) | Step::Nothing | Step::Close(_) => {
            return None;
        }
    })
}

/// What STAT says, read off a copy of the listing.
fn listed(session: &Session, lines: &mut popgate::pop3::Lines, about: usize) -> String {
    let mut out = Vec::new();
    while !session.write_lines(lines, &mut out, about) {}
    String::from_utf8(out).unwrap()
}

proptest! {
    #[test]
    fn framing_does_not_depend_on_slicing(octets in client_octets(), cuts in cuts()) {
        let slices = slices(&octets, &cuts);
        let commands = lines_by_definition(&octets, command_limit);
        prop_assert!(framed(&slices, Expects::Command) == commands);
        let answers = lines_by_definition(&octets, |_| 16 * 1024);
        prop_assert!(framed(&slices, Expects::Continuation) == answers);
    }

    #[test]
    fn dot_stuffing_can_be_undone(message in message(), cuts in cuts()) {
        let mut stuffer = DotStuffer::new(NulPolicy::Keep);
        let mut wire = Vec::new();
        for slice in slices(&message, &cuts) {
            stuffer.encode(slice, &mut wire);
        }
        let octets = stuffer.finish(&mut wire);
        let expected = normalised(&message);
        prop_assert_eq!(octets, expected.len() as u64);
        prop_assert_eq!(octets, octets_of(&message));
        prop_assert_eq!(unstuffed(&wire), expected);
    }

    #[test]
    fn nul_is_replaced_in_place(message in message(), cuts in cuts()) {
        let encode = |policy, slices: Vec<&[u8]>| {
            let mut stuffer = DotStuffer::new(policy);
            let mut wire = Vec::new();
            for slice in slices {
                stuffer.encode(slice, &mut wire);
            }
            stuffer.finish(&mut wire);
            wire
        };
        let mut expected = encode(NulPolicy::Keep, vec![message.as_slice()]);
        for octet in &mut expected {
            if *octet == 0 {
                *octet = 0x80;
            }
        }
        prop_assert_eq!(encode(NulPolicy::Replace, slices(&message, &cuts)), expected);
    }

    #[test]
    fn top_is_the_prefix_of_its_definition(
        message in message(),
        lines in prop_oneof![0_u64..6, Just(u64::MAX)],
        cuts in cuts(),
    ) {
        let mut limiter = TopLimiter::new(lines);
        let mut taken = 0;
        let mut ended = false;
        for slice in slices(&message, &cuts) {
            let octets = limiter.take(slice);
            prop_assert!(!ended || octets == 0);
            taken += octets;
            ended |= octets < slice.len();
            prop_assert!(!ended || limiter.is_complete());
        }
        prop_assert_eq!(taken, top_by_definition(&message, lines));
    }

    #[test]
    fn whatever_a_client_says_the_session_stands(
        lines in vec((client_line(), any::<u8>()), 0..60),
        cleartext in any::<bool>(),
    ) {
        let mut session = Session::new(front(cleartext));
        for (line, chance) in &lines {
            let (next, mut step) = session.handle(Input::Line(line));
            session = next;
            while let Some(input) = answer(&step, *chance) {
                if let Step::Open(credentials) = &step {
                    prop_assert!(!credentials.user().is_empty());
                }
                (session, step) = session.handle(input);
            }
            match step {
                Step::Lines(response, mut listing) => {
                    prop_assert!(response.is_ok());
                    let text = listed(&session, &mut listing, usize::from(*chance));
                    prop_assert!(text.ends_with("\r\n.\r\n") || text == ".\r\n");
                }
                Step::Close(response) => {
                    // Only a QUIT may end a session that is within its limit.
                    prop_assert!(line.trim_ascii().eq_ignore_ascii_case(b"QUIT"));
                    prop_assert!(response.code() != Some(ResponseCode::Auth));
                    break;
                }
                Step::Continue(challenge) => {
                    prop_assert!(challenge.iter().all(u8::is_ascii_graphic));
                    prop_assert_eq!(session.expects(), Expects::Continuation);
                }
                _ => prop_assert_eq!(session.expects(), Expects::Command),
            }
        }
    }

    #[test]
    fn stat_agrees_with_list(lines in vec((client_line(), any::<u8>()), 0..60)) {
        let mut session = Session::new(front(true));
        for line in ["USER tim", "PASS tanstaaf"] {
            session = session.handle(Input::Line(line.as_bytes())).0;
        }
        session = session.handle(Input::Opened(maildrop(), Terms::default())).0;
        for (line, chance) in &lines {
            if line.trim_ascii().eq_ignore_ascii_case(b"QUIT") {
                continue;
            }
            let (next, step) = session.handle(Input::Line(line));
            session = match answer(&step, *chance) {
                Some(input) => next.handle(input).0,
                None => next,
            };
        }
        let (session, stat) = session.handle(Input::Line(b"STAT"));
        let Step::Reply(stat) = stat else { panic!("{stat:?}") };
        let (session, list) = session.handle(Input::Line(b"LIST"));
        let Step::Lines(_, mut list) = list else { panic!("{list:?}") };
        let list = listed(&session, &mut list, 0);
        let sizes: Vec<u64> = list
            .lines()
            .filter_map(|line| line.split_once(' ')?.1.parse().ok())
            .collect();
        let mut expected = Vec::new();
        popgate::pop3::Response::ok(format!("{} {}", sizes.len(), sizes.iter().sum::<u64>()))
            .write_to(&mut expected);
        let mut found = Vec::new();
        stat.write_to(&mut found);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_response_of_a_client_upsets_a_mechanism(response in vec(any::<u8>(), 0..60)) {
        for mechanism in Mechanism::ALL {
            if let Ok(Progress::Challenge(exchange, _)) =
                ServerExchange::start(mechanism, Some(&response))
            {
                let _ = exchange.step(&response);
            }
        }
    }

    #[test]
    fn bearer_credentials_survive_the_way_upstream(
        user in "[^\\pC]{1,20}",
        token in "[A-Za-z0-9._~+/-]{1,40}={0,2}",
    ) {
        let credentials = Credentials::Bearer { user, token: token.as_str().into() };
        for mechanism in [Mechanism::XOauth2, Mechanism::OAuthBearer] {
            let sent = initial_response(mechanism, &credentials, "host", 993).unwrap();
            let progress = ServerExchange::start(mechanism, Some(&sent)).unwrap();
            let Progress::Credentials(understood) = progress else { panic!("{progress:?}") };
            prop_assert_eq!(&understood, &credentials);
        }
    }
}

/// User names that are often nearly right, with folders and windows.
fn user_name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        prop::sample::select(vec![
            "recent:",
            "Recent:",
            "+",
            "@",
            "alice",
            "example.org",
            "Junk",
            "/",
            "..",
            ".",
            "*",
            "%",
            "\u{85}",
            "Möbel",
            " ",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,5}",
    ];
    prop::collection::vec(part, 1..8).prop_map(|parts| parts.concat())
}

proptest! {
    /// Whatever a user name says: what goes upstream is a user name that is
    /// part of it, and a folder that no protocol takes for anything else.
    #[test]
    fn a_user_name_is_taken_apart_or_refused(name in user_name(), separator in "(\\+|--|)") {
        let policies = Policies {
            separator: Some(separator).filter(|it| !it.is_empty()),
            ..Policies::default()
        };
        let Ok(credentials) = Credentials::password(&name, "tanstaaf") else {
            return Ok(());
        };
        let Ok(admission) = policies.admit(credentials) else {
            prop_assert!(policies.separator.is_some_and(|it| name.contains(&it)));
            return Ok(());
        };
        let user = admission.credentials.user();
        prop_assert!(!user.is_empty() && check_user(user).is_ok());
        prop_assert!(user.chars().all(|c| name.contains(c)));
        let [folder] = &admission.rules.policy.folders[..] else {
            panic!("one folder");
        };
        let folder = folder.as_str();
        prop_assert!(folder == "INBOX" || name.contains(folder));
        prop_assert!(!folder.chars().any(|c| c.is_control() || "*%".contains(c)));
        prop_assert!(!folder.contains("..") && !folder.split('/').any(str::is_empty));
        if policies.separator.is_none() {
            let window = admission.rules.policy.window.max_age;
            prop_assert_eq!(folder, "INBOX");
            prop_assert!(user == name || window == Some(policies.recent));
        }
    }
}
