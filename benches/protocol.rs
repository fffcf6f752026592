//! What POP3 itself costs: commands parsed, messages stuffed with dots, listings
//! written. `cargo bench`; `cargo bench -- listing` for some of it.

#![allow(clippy::unwrap_used)]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use popgate::maildrop::{Maildrop, MaildropBuilder, UniqueId};
use popgate::pop3::{
    Command, DotStuffer, Expects, Framed, Front, Input, LineBuffer, NulPolicy, Session, Step,
    Terms, octets_of,
};
use popgate::sasl::Mechanism;

fn main() {
    divan::main();
}

const COMMANDS: &[&[u8]] = &[
    b"USER someone@example.org",
    b"PASS a password with spaces",
    b"STAT",
    b"list",
    b"LIST 17",
    b"UIDL",
    b"retr 100000",
    b"TOP 12 0",
    b"DELE 3",
    b"XTND XMIT",
];

#[divan::bench]
fn commands(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(COMMANDS.len())).bench(|| {
        for line in COMMANDS {
            let _ = black_box(Command::parse(black_box(line)));
        }
    });
}

/// Commands that a client has sent at once.
#[divan::bench]
fn pipelined_lines(bencher: Bencher<'_, '_>) {
    const LINES: usize = 200;
    let sent: Vec<u8> = (0..LINES)
        .flat_map(|number| format!("RETR {number}\r\n").into_bytes())
        .collect();
    bencher.counter(ItemsCount::new(LINES)).bench(|| {
        let mut buffer = LineBuffer::new();
        let mut lines = 0;
        // As much as a read brings.
        for piece in sent.chunks(512) {
            buffer.push(piece);
            while let Some(Framed::Line(line)) = buffer.next(Expects::Command) {
                lines += 1;
                black_box(line);
            }
        }
        assert_eq!(lines, LINES);
    });
}

/// A message in which each line has so many octets.
fn message(line: &[u8]) -> Vec<u8> {
    line.repeat((1 << 20) / line.len())
}

#[derive(Clone, Copy, Debug)]
enum Body {
    /// Lines of base64, as attachments have them.
    Base64,
    /// The same, as a file with LF holds them.
    BareLf,
    /// Nothing but lines of dots.
    Dots,
    /// One line.
    Endless,
}

impl Body {
    const ALL: [Self; 4] = [Self::Base64, Self::BareLf, Self::Dots, Self::Endless];

    fn octets(self) -> Vec<u8> {
        let line = [b'x'; 76];
        match self {
            Self::Base64 => message(&[&line[..], b"\r\n"].concat()),
            Self::BareLf => message(&[&line[..], b"\n"].concat()),
            Self::Dots => message(b".\r\n"),
            Self::Endless => message(b"x"),
        }
    }
}

#[divan::bench(args = Body::ALL)]
fn dot_stuffing(bencher: Bencher<'_, '_>, body: Body) {
    let octets = body.octets();
    let mut out = Vec::with_capacity(3 << 20);
    bencher
        .counter(BytesCount::new(octets.len()))
        .bench_local(|| {
            out.clear();
            let mut stuffer = DotStuffer::new(NulPolicy::Keep);
            for chunk in octets.chunks(16 << 10) {
                stuffer.encode(black_box(chunk), &mut out);
            }
            black_box(stuffer.finish(&mut out))
        });
}

#[divan::bench(args = Body::ALL)]
fn counting_octets(bencher: Bencher<'_, '_>, body: Body) {
    let octets = body.octets();
    bencher
        .counter(BytesCount::new(octets.len()))
        .bench(|| octets_of(black_box(&octets)));
}

fn maildrop(messages: usize) -> Maildrop {
    let mut builder = MaildropBuilder::with_capacity(messages);
    for number in 1..=messages {
        let unique_id = UniqueId::new(format!("{number:08X}u5F3A2C1B")).unwrap();
        builder
            .push(1000 + number as u64 % 977, &unique_id)
            .unwrap();
    }
    builder.build().unwrap()
}

/// A session in TRANSACTION state.
fn session(messages: usize) -> Session {
    let front = Front {
        tls_active: true,
        stls_available: false,
        cleartext_login: false,
        mechanisms: vec![Mechanism::Plain],
        bad_command_limit: 20,
        login_delay: None,
        expire: None,
    };
    let mut session = Session::new(front);
    for input in [
        Input::Line(b"USER someone"),
        Input::Line(b"PASS secret"),
        Input::Opened(maildrop(messages), Terms::default()),
    ] {
        session = session.handle(input).0;
    }
    session
}

#[divan::bench(args = [1_000, 100_000])]
fn making_a_maildrop(bencher: Bencher<'_, '_>, messages: usize) {
    bencher
        .counter(ItemsCount::new(messages))
        .bench(|| maildrop(messages));
}

fn listing(bencher: Bencher<'_, '_>, messages: usize, command: &'static [u8]) {
    // A portion is sent before the next one is made.
    const PORTION: usize = 16 << 10;
    let mut session = Some(session(messages));
    let mut out = Vec::with_capacity(2 * PORTION);
    bencher.counter(ItemsCount::new(messages)).bench_local(|| {
        let (after, step) = session.take().unwrap().handle(Input::Line(command));
        let Step::Lines(_, mut lines) = step else {
            panic!("not a listing: {step:?}");
        };
        let mut octets = 0;
        loop {
            out.clear();
            let finished = after.write_lines(&mut lines, &mut out, PORTION);
            octets += black_box(&out).len();
            if finished {
                break;
            }
        }
        session = Some(after);
        assert!(octets > 6 * messages);
    });
}

#[divan::bench(args = [1_000, 100_000])]
fn listing_sizes(bencher: Bencher<'_, '_>, messages: usize) {
    listing(bencher, messages, b"LIST");
}

#[divan::bench(args = [1_000, 100_000])]
fn listing_unique_ids(bencher: Bencher<'_, '_>, messages: usize) {
    listing(bencher, messages, b"UIDL");
}
