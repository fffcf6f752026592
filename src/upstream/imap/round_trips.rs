//! How often a session waited for its server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::connection::Connection;
use crate::metrics::Metrics;

/// The round trips of one session, over all of its connections. They go to the
/// metrics when it ends.
#[derive(Debug)]
pub(super) struct RoundTrips {
    count: Arc<AtomicU32>,
    metrics: Arc<Metrics>,
}

impl RoundTrips {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            count: Arc::default(),
            metrics,
        }
    }

    /// The connection is the session's from now on, with what it took so far.
    pub fn adopt(&self, connection: &mut Connection) {
        let so_far = connection.count_in(Arc::clone(&self.count));
        self.count.fetch_add(so_far, Ordering::Relaxed);
    }
}

impl Drop for RoundTrips {
    fn drop(&mut self) {
        let count = self.count.load(Ordering::Relaxed);
        self.metrics.upstream_round_trips.observe(count.into());
    }
}
