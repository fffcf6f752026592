//! What the fuzz target `old_server` drives: a session at a server that says
//! what it wants.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Wire;
use super::{Session, Timeouts};
use crate::sasl::Credentials;

/// A server's octets, which come line by line, as answers do.
struct Answers<'a>(&'a [u8]);

impl AsyncRead for Answers<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = memchr::memchr(b'\n', self.0).map_or(self.0.len(), |end| end + 1);
        let (now, later) = self.0.split_at(line.min(buffer.remaining()));
        buffer.put_slice(now);
        self.0 = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Answers<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Logs in, lists, and asks for the headers.
///
/// # Panics
///
/// Where the listing is not that of as many messages as were counted.
pub fn import(answers: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let (Ok(runtime), Ok(credentials)) = (runtime, Credentials::password("alice", "pw")) else {
        return;
    };
    runtime.block_on(async {
        let wire = Wire::new(Answers(answers), Timeouts::default());
        let Ok(mut session) = Session::authenticate(wire, &credentials).await else {
            return;
        };
        let Ok(listed) = session.listing().await else {
            return;
        };
        assert_eq!(listed.len(), session.count);
        let places: Vec<usize> = (0..listed.len()).collect();
        if let Ok(headers) = session.headers(&places, &|_| {}).await {
            assert!(headers.keys().all(|place| places.contains(place)));
        }
        session.quit().await;
    });
}
