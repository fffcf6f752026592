//! A message in pieces comes out as it does whole, and TOP is its prefix. The
//! first octet is the size of the pieces, the second the lines of TOP.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popgate::pop3::{DotStuffer, NulPolicy, TopLimiter, octets_of};

fn encoded<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, u64) {
    let mut stuffer = DotStuffer::new(NulPolicy::Keep);
    let mut wire = Vec::new();
    for piece in pieces {
        stuffer.encode(piece, &mut wire);
    }
    let octets = stuffer.finish(&mut wire);
    (wire, octets)
}

fuzz_target!(|input: &[u8]| {
    let [size, lines, message @ ..] = input else {
        return;
    };
    let pieces = || message.chunks(usize::from(*size).max(1));
    let (wire, octets) = encoded(pieces());
    assert_eq!((wire, octets), encoded(std::iter::once(message)));
    assert_eq!(octets, octets_of(message));

    let mut whole = TopLimiter::new(u64::from(*lines));
    let end = whole.take(message);
    let mut limiter = TopLimiter::new(u64::from(*lines));
    assert_eq!(
        pieces().map(|piece| limiter.take(piece)).sum::<usize>(),
        end
    );
    assert_eq!(limiter.is_complete(), whole.is_complete());
});
