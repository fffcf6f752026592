//! What is kept of a session for the one line that tells of it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::info;

use super::connection::Context;
use crate::metrics::SessionEnd;
use crate::upstream::Upstream;

/// A session's record. Its line is logged however the session ends, be it by a
/// panic.
pub(super) struct Record {
    context: Arc<Context>,
    client: SocketAddr,
    started: Instant,
    ended: bool,
    /// Who logged in, or tried to.
    pub user: Option<String>,
    /// Where the maildrop is, once it is open.
    pub upstream: Option<Arc<dyn Upstream>>,
    /// Whose maildrop that is, where it is not the user's own.
    pub maildrop: Option<String>,
    /// The folders, by the names they have upstream.
    pub names: Vec<String>,
    /// The same for a log, where they are not the inbox alone.
    folders: Option<String>,
    /// Messages sent whole.
    pub retrieved: u64,
    /// Octets of messages sent.
    pub octets: u64,
    /// Messages removed upstream.
    pub deleted: u64,
}

impl Record {
    /// A session that begins.
    pub fn new(context: Arc<Context>, client: SocketAddr) -> Self {
        Self {
            context,
            client,
            started: Instant::now(),
            ended: false,
            user: None,
            upstream: None,
            maildrop: None,
            names: Vec::new(),
            folders: None,
            retrieved: 0,
            octets: 0,
            deleted: 0,
        }
    }

    /// For a log: who logged in, or tried to, and whose maildrop it is, where that is
    /// not his own.
    pub fn whose(&self) -> (&str, Option<&str>) {
        let user = self.user.as_deref().unwrap_or_default();
        (shown(user), self.maildrop.as_deref().map(shown))
    }

    /// The maildrop is open: its folders, by the names they have upstream, and
    /// whose they are where another user shares them.
    pub fn opened(&mut self, folders: Vec<String>, shared: Option<String>) {
        let is_inbox = |name: &String| name.eq_ignore_ascii_case("INBOX");
        self.folders = (!folders.iter().all(is_inbox)).then(|| folders.join(", "));
        self.names = folders;
        self.maildrop = shared.or(self.maildrop.take());
    }

    /// The folders for a log, where they are not the inbox alone.
    pub fn folders(&self) -> Option<&str> {
        self.folders.as_deref().map(shown)
    }

    /// The session has ended: the one line about it.
    pub fn end(&mut self, end: SessionEnd) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.context.metrics.sessions.get_or_create(&end).inc();
        let upstream = self.upstream.as_ref().map(|it| it.name());
        let (user, maildrop) = self.whose();
        info!(
            user,
            maildrop,
            folders = self.folders(),
            client = %self.client,
            upstream = upstream.unwrap_or_else(|| self.context.upstream_name()),
            retrieved = self.retrieved,
            octets = self.octets,
            deleted = self.deleted,
            duration_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            end = end.as_str(),
            "session ended"
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let end = if std::thread::panicking() {
            SessionEnd::Internal
        } else {
            // The time to end was over before the session was.
            SessionEnd::Shutdown
        };
        self.end(end);
    }
}

/// Characters of text from outside, escapes included, that a log shows.
const LONGEST: usize = 160;

/// As much of text from outside as fits into a log: escaped there, it has at
/// most 160 characters.
pub(super) fn shown(text: &str) -> &str {
    let mut room = LONGEST;
    for (at, character) in text.char_indices() {
        let Some(left) = room.checked_sub(character.escape_debug().count()) else {
            return &text[..at];
        };
        room = left;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_bounded_with_its_escapes() {
        assert_eq!(shown("alice@example.org"), "alice@example.org");
        assert_eq!(shown(&"ä".repeat(500)).chars().count(), LONGEST);
        let escapes = "\u{1b}".repeat(500);
        assert!(shown(&escapes).escape_debug().count() <= LONGEST);
        assert!(shown(&escapes).len() > 20);
    }
}
