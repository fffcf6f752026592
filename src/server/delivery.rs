//! RETR and TOP: a message on its way from the upstream to the client.
//!
//! A message that fits into a small buffer is fetched whole before `+OK`, so
//! that a failure can still be said. A larger one is passed on as it comes; if
//! it breaks off, the connection is broken off too, without the dot that would
//! make half a message whole.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::client::{Client, Gone};
use super::connection::Context;
use crate::maildrop::{MessageIndex, Portion};
use crate::pop3::{DotStuffer, NulPolicy, Response, TopLimiter, octets_of};
use crate::upstream::{Body, UpstreamError, UpstreamSession};

/// A message that takes longer than this is passed on as it comes, however
/// small: clients wait for an answer no longer than a minute or so.
const PATIENCE: Duration = Duration::from_secs(20);
/// Octets encoded at a time.
const PIECE: usize = 8 * 1024;

/// What became of a delivery that did not simply succeed.
pub(super) enum Failure {
    /// The client was told nothing yet.
    BeforeReply(UpstreamError),
    /// The client has part of the message.
    Midway(UpstreamError),
    /// There is no client any more.
    Client(Gone),
}

/// What was delivered.
pub(super) struct Delivered {
    /// Octets of the message, with CRLF line ends, before dot-stuffing.
    pub octets: u64,
}

/// Fetches a message, or its top, and sends it behind `+OK`.
pub(super) async fn deliver(
    context: &Context,
    upstream: &mut dyn UpstreamSession,
    client: &mut Client,
    message: MessageIndex,
    listed: u64,
    portion: Portion,
) -> Result<Delivered, Failure> {
    let began = Instant::now();
    let mut body = client
        .attend(upstream.retrieve(message, portion))
        .await
        .map_err(Failure::Client)?
        .map_err(Failure::BeforeReply)?;
    let mut source = Source::new(&mut *body, portion);
    let permit = reserve(context, source.body.announced().unwrap_or(listed), portion);
    let mut held = Vec::new();
    let mut whole = false;
    if let Some((limit, _)) = &permit {
        while held.len() <= *limit && began.elapsed() < PATIENCE {
            let next = client.attend(source.next()).await;
            match next
                .map_err(Failure::Client)?
                .map_err(Failure::BeforeReply)?
            {
                Some(octets) => held.extend_from_slice(&octets),
                None => {
                    whole = true;
                    break;
                }
            }
        }
    }
    let octets = match (whole, portion) {
        (true, _) => octets_of(&held),
        (false, Portion::Whole) => source.body.announced().unwrap_or(listed),
        (false, Portion::Top { .. }) => 0,
    };
    let text = match portion {
        Portion::Whole => format!("{octets} octets"),
        Portion::Top { .. } => "top of message follows".to_owned(),
    };
    let mark = client.mark();
    Response::ok(text).write_to(client.out());
    let nul = if context.config.replace_nul {
        NulPolicy::Replace
    } else {
        NulPolicy::Keep
    };
    let mut stuffer = DotStuffer::new(nul);
    for piece in held.chunks(PIECE) {
        stuffer.encode(piece, client.out());
        client.flush_if_large().await.map_err(Failure::Client)?;
    }
    drop((held, permit));
    if !whole {
        pass_on(&mut source, &mut stuffer, client)
            .await
            .map_err(|failure| match failure {
                // Nothing of it has left: it can still be said.
                Failure::Midway(error) if client.take_back(&mark) => Failure::BeforeReply(error),
                other => other,
            })?;
    }
    let octets = stuffer.finish(client.out());
    Ok(Delivered { octets })
}

/// Sends the rest of a message as it comes.
async fn pass_on(
    source: &mut Source<'_>,
    stuffer: &mut DotStuffer,
    client: &mut Client,
) -> Result<(), Failure> {
    loop {
        let next = client.attend(source.next()).await;
        let Some(octets) = next.map_err(Failure::Client)?.map_err(Failure::Midway)? else {
            return Ok(());
        };
        for piece in octets.chunks(PIECE) {
            stuffer.encode(piece, client.out());
            client.flush_if_large().await.map_err(Failure::Client)?;
        }
    }
}

/// Room to hold a message whole: how many octets, and the leave to take them.
/// None where the message is too large, or too many are held already.
fn reserve(
    context: &Context,
    expected: u64,
    portion: Portion,
) -> Option<(usize, OwnedSemaphorePermit)> {
    let most = context.config.limits.buffered_message_octets;
    let room = match portion {
        Portion::Whole => usize::try_from(expected)
            .ok()
            .filter(|octets| *octets <= most)?,
        Portion::Top { .. } => most,
    };
    let permits = u32::try_from(room.div_ceil(1024)).ok()?;
    let permit = context
        .budget
        .clone()
        .try_acquire_many_owned(permits)
        .ok()?;
    Some((room, permit))
}

/// The octets that the client asked for: all, or the top.
struct Source<'a> {
    body: &'a mut (dyn Body + Send + 'a),
    limiter: Option<TopLimiter>,
}

impl<'a> Source<'a> {
    fn new(body: &'a mut (dyn Body + Send + 'a), portion: Portion) -> Self {
        let limiter = match portion {
            Portion::Whole => None,
            Portion::Top { lines } => Some(TopLimiter::new(lines)),
        };
        Self { body, limiter }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let Some(limiter) = &mut self.limiter else {
            return self.body.chunk().await;
        };
        if limiter.is_complete() {
            return Ok(None);
        }
        let Some(mut octets) = self.body.chunk().await? else {
            return Ok(None);
        };
        octets.truncate(limiter.take(&octets));
        if limiter.is_complete() {
            self.body.abandon().await;
        }
        Ok(Some(octets))
    }
}
