//! A client's octets, framed and handled, with a driver that says yes or no.
//! The first octet chooses how the connection is set up and what the driver
//! answers.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::maildrop::{Maildrop, MaildropBuilder, Outcome, UniqueId};
use popgate::pop3::{
    Announced, Framed, Front, Input, LineBuffer, Refusal, ResponseCode, Session, Step, Terms,
};
use popgate::sasl::Mechanism;

fn maildrop() -> Maildrop {
    let mut builder = MaildropBuilder::default();
    for number in 1..=3 {
        if let Some(id) = UniqueId::new(format!("id{number}")) {
            let _ = builder.push(number * 100, &id);
        }
    }
    builder.build().unwrap_or_default()
}

fn answer(step: &Step, yes: bool, terms: Terms) -> Option<Input<'static>> {
    let no = || Refusal::new(Some(ResponseCode::Auth), "no");
    Some(match step {
        Step::StartTls(_) => Input::TlsStarted,
        Step::Open(_) if yes => Input::Opened(maildrop(), terms),
        Step::Open(_) => Input::Refused(no()),
        Step::Deliver { .. } if yes => Input::Delivered { octets: Some(7) },
        Step::Deliver { .. } => Input::NotDelivered(no()),
        Step::Update(update) if yes => Input::Updated(Outcome {
            removed: update.delete().to_vec(),
            ..Outcome::default()
        }),
        Step::Update(update) => Input::Updated(Outcome {
            remaining: update.delete().to_vec(),
            ..Outcome::default()
        }),
        Step::Reply(_) | Step::Lines(..) | Step::Continue(_) | Step::Nothing | Step::Close(_) => {
            return None;
        }
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((&setup, input)) = input.split_first() else {
        return;
    };
    let terms = Terms {
        deletion_refused: setup & 8 != 0,
        updates_always: setup & 32 != 0,
        login_delay: (setup & 64 != 0).then_some(300),
        expire: (setup & 128 != 0).then_some(30),
    };
    let announced = (setup & 192 != 0).then_some(Announced {
        value: 7,
        differs: setup & 1 != 0,
    });
    let mut session = Session::new(Front {
        tls_active: setup & 1 != 0,
        stls_available: setup & 2 != 0,
        cleartext_login: setup & 4 != 0,
        mechanisms: Mechanism::ALL.to_vec(),
        bad_command_limit: u32::from(setup),
        login_delay: announced,
        expire: announced,
    });
    let mut buffer = LineBuffer::new();
    let mut out = Vec::new();
    for slice in input.chunks(1 + usize::from(setup >> 4) * 100) {
        buffer.push(slice);
        while let Some(frame) = buffer.next(session.expects()) {
            let input = match frame {
                Framed::Line(line) => Input::Line(line),
                Framed::TooLong => Input::LineTooLong,
            };
            let (next, mut step) = session.handle(input);
            session = next;
            while let Some(input) = answer(&step, setup & 16 != 0, terms) {
                (session, step) = session.handle(input);
            }
            match step {
                Step::Reply(response) => response.write_to(&mut out),
                Step::Lines(response, mut lines) => {
                    response.write_to(&mut out);
                    while !session.write_lines(&mut lines, &mut out, 100) {}
                }
                Step::Close(_) => return,
                _ => {}
            }
            assert!(out.is_empty() || out.ends_with(b"\r\n"));
            out.clear();
        }
    }
});
