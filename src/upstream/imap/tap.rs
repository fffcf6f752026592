//! The layer between a server's octets and async-imap's decoder.
//!
//! Reading, it shows the decoder one vetted response at a time and keeps the
//! rest as items for the connection above. Writing, it gathers octets until
//! they are flushed, so that a command, or several, go out in one write.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;
use zeroize::{Zeroize, Zeroizing};

use super::command::append;
use super::config::Limits;
use super::framing::{Data, Framer, Item};

/// Octets asked of the socket at a time.
const READ: usize = 16 * 1024;

pub(super) struct Tap<S> {
    stream: S,
    framer: Framer,
    inbound: BytesMut,
    items: VecDeque<Item>,
    /// A response on its way to the decoder.
    vetted: Bytes,
    /// The decoder has a whole response and has not yet made anything of it.
    with_decoder: bool,
    /// May hold a password.
    outbound: Zeroizing<Vec<u8>>,
}

impl<S> Tap<S> {
    pub fn new(stream: S, limits: Limits) -> Self {
        Self {
            stream,
            framer: Framer::new(limits),
            inbound: BytesMut::new(),
            items: VecDeque::new(),
            vetted: Bytes::new(),
            with_decoder: false,
            outbound: Zeroizing::default(),
        }
    }

    /// What is not for the decoder, if its turn has come.
    pub fn pop(&mut self) -> Option<Data> {
        match self.items.pop_front()? {
            Item::Data(data) => Some(data),
            vetted => {
                self.items.push_front(vetted);
                None
            }
        }
    }

    /// The decoder made a response of what it was shown. Often it is the last
    /// one for a while: a resting connection keeps no buffers.
    pub fn decoded(&mut self) {
        self.with_decoder = false;
        if self.inbound.is_empty() && self.items.is_empty() {
            self.inbound = BytesMut::new();
            self.items = VecDeque::new();
        }
    }

    /// Queues octets; [`AsyncWrite::poll_flush`] sends them.
    pub fn queue(&mut self, octets: &[u8]) {
        append(&mut self.outbound, octets);
    }

    /// Whether octets are queued that were not sent.
    pub fn is_writing(&self) -> bool {
        !self.outbound.is_empty()
    }

    /// Whether octets came that no response has used up: behind the answer to
    /// STARTTLS they are an injection.
    pub fn has_leftovers(&self) -> bool {
        !self.inbound.is_empty()
            || !self.items.is_empty()
            || !self.vetted.is_empty()
            || self.framer.is_mid_response()
    }

    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S> fmt::Debug for Tap<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither mail nor credentials are for printing.
        f.write_str("Tap")
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    /// Shows the decoder its next response. Pending without a waker means that
    /// an item is waiting: the connection, which alone polls the decoder, looks
    /// for one each time.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.vetted.is_empty() {
                let here = this.vetted.len().min(buffer.remaining());
                buffer.put_slice(&this.vetted[..here]);
                this.vetted.advance(here);
                this.with_decoder = this.vetted.is_empty();
                return Poll::Ready(Ok(()));
            }
            if this.with_decoder {
                let unread = "a response that the decoder cannot read";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, unread)));
            }
            match this.items.pop_front() {
                Some(Item::Vetted(response)) => {
                    this.vetted = response;
                    continue;
                }
                Some(other) => {
                    this.items.push_front(other);
                    return Poll::Pending;
                }
                None => {}
            }
            this.inbound.reserve(READ);
            let stream = Pin::new(&mut this.stream);
            let read = match poll_read_buf(stream, cx, &mut this.inbound) {
                Poll::Ready(read) => read?,
                Poll::Pending => {
                    if this.inbound.is_empty() {
                        // A resting connection keeps no buffer.
                        this.inbound = BytesMut::new();
                    }
                    return Poll::Pending;
                }
            };
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            this.framer
                .advance(&mut this.inbound, &mut this.items)
                .map_err(io::Error::other)?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().queue(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.outbound.is_empty() {
            let written = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.outbound))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // What went out may have been a password.
            this.outbound[..written].zeroize();
            this.outbound.drain(..written);
        }
        // A resting connection keeps no buffer.
        *this.outbound = Vec::new();
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use async_imap::imap_proto::Response;
    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt, DuplexStream};

    use super::*;

    fn decoder(limits: Limits) -> (DuplexStream, async_imap::Client<Tap<DuplexStream>>) {
        let (server, client) = tokio::io::duplex(64 * 1024);
        (server, async_imap::Client::new(Tap::new(client, limits)))
    }

    #[tokio::test]
    async fn a_response_that_the_decoder_wants_more_of_is_an_error() {
        let (mut server, mut decoder) = decoder(Limits::default());
        server
            .write_all(b"* OK [BADCHARSET ({10}\r\nP1 OK it is done\r\n")
            .await
            .unwrap();
        let error = decoder.read_response().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_secret_that_was_not_sent_is_not_printed() {
        let (_server, mut decoder) = decoder(Limits::default());
        decoder.get_mut().queue(b"P1 LOGIN alice hunter2\r\n");
        assert!(!format!("{:?}", decoder.get_ref()).contains("hunter2"));
    }

    /// What the framer makes of a server's line, as the decoder sees it.
    fn vetted(line: &[u8]) -> Option<Bytes> {
        let mut items = VecDeque::new();
        let mut inbound = BytesMut::from([line, b"\r\n"].concat().as_slice());
        let mut framer = Framer::new(Limits::default());
        framer.advance(&mut inbound, &mut items).ok()?;
        match items.pop_front() {
            Some(Item::Vetted(response)) => Some(response),
            _ => None,
        }
    }

    /// The decoder may refuse a line or want more; it must not panic, and must
    /// not stop in the middle: the rest would be taken for a response.
    fn decode(line: &[u8]) {
        if let Some(response) = vetted(line)
            && let Ok((rest, _)) = Response::parse(&response)
        {
            assert!(rest.is_empty(), "{response:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_decoder_takes_any_status(
            start in "(\\* (OK|NO|BAD|BYE|PREAUTH|[0-9]{1,12} EXISTS|[0-9]{1,12} EXPUNGE)|\\+|P1 (OK|NO|BAD)) ?",
            code in "(\\[(ALERT|BADCHARSET|CAPABILITY|PARSE|PERMANENTFLAGS|UIDVALIDITY|UIDNEXT|UNSEEN|HIGHESTMODSEQ|APPENDUID|COPYUID|METADATA LONGENTRIES|METADATA MAXSIZE)?[ 0-9:,(){}\"\\\\A-Z*=]{0,30}\\]?)?",
            text in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            decode(&[start.as_bytes(), code.as_bytes(), &text].concat());
        }

        #[test]
        fn the_decoder_takes_any_line(line in prop::collection::vec(any::<u8>(), 0..100)) {
            decode(&line);
            decode(&[b"* OK ", line.as_slice()].concat());
            decode(&[b"+ ", line.as_slice()].concat());
        }
    }

    #[test]
    fn the_decoder_takes_nesting_without_end() {
        for start in [
            "* OK [",
            "* OK [BADCHARSET ",
            "* OK [PERMANENTFLAGS ",
            "+ ",
            "P1 NO [",
        ] {
            decode(format!("{start}{}", "(".repeat(100_000)).as_bytes());
        }
    }
}
