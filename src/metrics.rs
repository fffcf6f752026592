//! Every metric of popgate in one struct, which is passed down.
//!
//! No label holds a user, an address or other text from outside: the number of
//! series is fixed, and all of them exist from the start.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelSetEncoder,
    LabelValueEncoder, text,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// An enum of label values, with their names.
macro_rules! label {
    (
        $(#[$meta:meta])*
        $key:literal $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)* }

        impl $name {
            /// Every value there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value of the label; also good for logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
                self.as_str().encode(encoder)
            }
        }

        impl EncodeLabelSet for $name {
            fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
                [($key, self.as_str())].encode(encoder)
            }
        }

        impl Labels for $name {
            const VALUES: &[Self] = Self::ALL;
        }
    };
}

label! {
    /// Why a session ended.
    "reason" SessionEnd {
        /// QUIT was answered.
        Quit = "quit",
        /// The client closed the connection, or it broke.
        Disconnected = "disconnected",
        /// Nothing came for too long in TRANSACTION state.
        Idle = "idle",
        /// No login in time.
        LoginTimeout = "login_timeout",
        /// No or a failed TLS handshake.
        Tls = "tls",
        /// Too many bad commands, or a breach of the protocol.
        BadCommands = "bad_commands",
        /// The client read too slowly.
        SlowReader = "slow_reader",
        /// The upstream failed in the middle of a message.
        Upstream = "upstream",
        /// It waited for the answer to a wrong guess, and others needed its place.
        Crowded = "crowded",
        /// A new session took the maildrop over.
        Takeover = "takeover",
        /// popgate was stopped.
        Shutdown = "shutdown",
        /// A defect of popgate.
        Internal = "internal",
    }
}

label! {
    /// What became of a login.
    "result" LoginResult {
        /// The maildrop is open.
        Success = "success",
        /// The upstream refused the credentials.
        Refused = "refused",
        /// They were refused here, as the upstream had refused them before.
        Suppressed = "suppressed",
        /// Another session holds the maildrop, or the upstream says that the
        /// user has too many.
        InUse = "in_use",
        /// The last login was too recent.
        TooEarly = "too_early",
        /// The user name names a folder that is not there, or cannot be.
        NoFolder = "no_folder",
        /// The provider no longer lets popgate in; the client was shown a message
        /// that says so.
        Notice = "notice",
        /// Too many logins from the same network had failed.
        Crowded = "crowded",
        /// The upstream could not be asked, or could not answer.
        Failed = "failed",
    }
}

label! {
    /// What went wrong upstream, as in `UpstreamError`.
    "kind" UpstreamFailure {
        /// It refused the credentials.
        Authentication = "authentication",
        /// An outage, a timeout, a throttle.
        Temporary = "temporary",
        /// The mailbox is in use, or there are too many connections.
        InUse = "in_use",
        /// A setting has to be changed.
        Misconfigured = "misconfigured",
        /// A message was gone.
        Gone = "gone",
        /// It broke its protocol.
        Protocol = "protocol",
    }
}

label! {
    /// How the upstream's mailbox became a maildrop.
    "how" Opening {
        /// All of it was listed.
        Listed = "listed",
        /// The snapshot of an earlier session was brought up to date.
        Refreshed = "refreshed",
        /// A connection at rest vouched for it: nothing was asked.
        Vouched = "vouched",
    }
}

label! {
    /// What became of messages that were fetched before they were asked for.
    "result" Ahead {
        /// The client asked for them.
        Used = "used",
        /// It did not.
        Wasted = "wasted",
    }
}

label! {
    /// How the credentials of an account are.
    "state" TokenState {
        /// Good, and renewed when it is time.
        Ok = "ok",
        /// Good only with a device password: renewed while somebody logs in.
        Locked = "locked",
        /// To end within a week, or ended, and not renewed so far.
        Expiring = "expiring",
        /// The provider refuses: somebody has to sign in again.
        Refused = "refused",
        /// The operator has shut the account.
        Disabled = "disabled",
        /// The provider lets popgate in without anything of the account's own.
        Provider = "provider",
        /// What is stored is no account, or opens with a key that is not there.
        Unreadable = "unreadable",
    }
}

label! {
    /// What became of a request for new tokens.
    "result" RefreshResult {
        /// There are new ones.
        Renewed = "renewed",
        /// The provider gives no more: somebody has to sign in again.
        Refused = "refused",
        /// The provider could not be asked, or could not answer.
        Temporary = "temporary",
        /// A setting has to be changed, here or at the provider.
        Misconfigured = "misconfigured",
        /// There are new ones, and the store could not take them.
        NotStored = "not_stored",
    }
}

label! {
    /// What became of a call that tells that an account has died, or is well.
    "result" AlarmResult {
        /// Told.
        Told = "told",
        /// It failed.
        Failed = "failed",
    }
}

label! {
    /// The limit that refused a connection.
    "limit" ConnectionLimit {
        /// Connections at once.
        Connections = "connections",
        /// Connections at once from one address.
        PerAddress = "per_address",
    }
}

trait Labels: Sized + 'static {
    const VALUES: &[Self];
}

/// All metric families. Counting is cheap and never blocks.
#[derive(Debug)]
pub struct Metrics {
    /// Sessions now.
    pub sessions_active: Gauge,
    /// Sessions that ended, by reason.
    pub sessions: Family<SessionEnd, Counter>,
    /// Logins, by result.
    pub logins: Family<LoginResult, Counter>,
    /// Messages sent whole by RETR.
    pub messages_retrieved: Counter,
    /// Octets of messages sent by RETR and TOP.
    pub octets_retrieved: Counter,
    /// Messages removed upstream, verified.
    pub messages_deleted: Counter,
    /// Failures upstream, by kind.
    pub upstream_errors: Family<UpstreamFailure, Counter>,
    /// Upstream connections now.
    pub upstream_connections: Gauge,
    /// Answers to wrong guesses that wait now.
    pub logins_held_up: Gauge,
    /// Upstream connections at rest now, between sessions.
    pub upstream_resting: Gauge,
    /// Round trips to the upstream, by session: times that an answer was waited
    /// for after something was sent.
    pub upstream_round_trips: Histogram,
    /// Folders opened, by how.
    pub openings: Family<Opening, Counter>,
    /// Octets of messages fetched ahead, by what became of them.
    pub read_ahead: Family<Ahead, Counter>,
    /// TLS handshakes with clients that failed.
    pub tls_handshake_failures: Counter,
    /// Connections refused, by limit.
    pub connections_refused: Family<ConnectionLimit, Counter>,
    /// Accounts of popgate's own, by the state of their tokens.
    pub token_state: Family<TokenState, Gauge>,
    /// When somebody signed in for the longest time ago, in seconds of Unix time;
    /// 0: nobody has.
    pub token_oldest_sign_in: Gauge,
    /// When the first of the accounts' access to a mailbox ends unless it is
    /// renewed, in seconds of Unix time; 0: none does.
    pub token_next_expiry: Gauge,
    /// Requests for new tokens, by what became of them.
    pub token_refreshes: Family<RefreshResult, Counter>,
    /// Calls of the webhook or the command, by what became of them.
    pub token_alarms: Family<AlarmResult, Counter>,
    certificate_expiry: Gauge,
    certificate: Certificate,
    store: Arc<StoreUsable>,
    registry: Registry,
}

/// How the expiry of the certificate in use is asked for.
#[derive(Default)]
struct Certificate(OnceLock<Box<dyn Fn() -> Option<i64> + Send + Sync>>);

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

/// Whether the store can be used: a series only where there is one.
#[derive(Debug, Default)]
struct StoreUsable(OnceLock<bool>);

impl Collector for StoreUsable {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(is_usable) = self.0.get() else {
            return Ok(());
        };
        let gauge = ConstGauge::new(i64::from(*is_usable));
        let help = "Whether the store of the state folder can be used";
        let kind = gauge.metric_type();
        gauge.encode(encoder.encode_descriptor("store_usable", help, None, kind)?)
    }
}

/// Something that a gauge counts, for as long as it is held.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Counts one more in `gauge` until dropped, by a panic too.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// All families, with every series at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("popgate");
        let store = Arc::<StoreUsable>::default();
        registry.register_collector(Box::new(Arc::clone(&store)));
        let r = &mut registry;
        Self {
            sessions_active: gauge(r, "sessions_active", "POP3 sessions now"),
            sessions: family(r, "sessions", "POP3 sessions that ended, by reason"),
            logins: family(r, "logins", "Logins, by result"),
            messages_retrieved: counter(r, "messages_retrieved", "Messages sent whole by RETR"),
            octets_retrieved: counter(
                r,
                "octets_retrieved",
                "Octets of messages sent by RETR and TOP",
            ),
            messages_deleted: counter(r, "messages_deleted", "Messages removed upstream"),
            upstream_errors: family(r, "upstream_errors", "Failures upstream, by kind"),
            upstream_connections: gauge(r, "upstream_connections", "Upstream connections now"),
            logins_held_up: gauge(
                r,
                "logins_held_up",
                "Answers to wrong guesses that wait now",
            ),
            upstream_resting: gauge(
                r,
                "upstream_resting",
                "Upstream connections at rest now, between sessions",
            ),
            upstream_round_trips: histogram(
                r,
                "upstream_round_trips",
                "Round trips to the upstream, by session",
                &[
                    0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0,
                ],
            ),
            openings: family(r, "openings", "Folders opened, by how"),
            read_ahead: family(
                r,
                "read_ahead_octets",
                "Octets of messages fetched ahead, by what became of them",
            ),
            tls_handshake_failures: counter(
                r,
                "tls_handshake_failures",
                "TLS handshakes with clients that failed",
            ),
            connections_refused: family(
                r,
                "connections_refused",
                "Client connections refused, by limit",
            ),
            token_state: gauges(
                r,
                "token_state",
                "Accounts of popgate's own, by the state of their tokens",
            ),
            token_oldest_sign_in: gauge(
                r,
                "token_oldest_sign_in_timestamp_seconds",
                "When somebody signed in for the longest time ago, in seconds since 1970; 0 where nobody has",
            ),
            token_next_expiry: gauge(
                r,
                "token_next_expiry_timestamp_seconds",
                "When the first access token ends unless it is renewed, in seconds since 1970; 0 where none does",
            ),
            token_refreshes: family(
                r,
                "token_refreshes",
                "Requests for new tokens, by what became of them",
            ),
            token_alarms: family(
                r,
                "token_alarms",
                "Calls of the webhook or the command, by what became of them",
            ),
            certificate_expiry: gauge(
                r,
                "certificate_expiry_timestamp_seconds",
                "When the certificate in use expires, in seconds since 1970; 0 where there is none",
            ),
            certificate: Certificate::default(),
            store,
            registry,
        }
    }

    /// Whom to ask when the certificate in use expires. The first one asked to
    /// be is it.
    pub fn watch_certificate(&self, expires_at: impl Fn() -> Option<i64> + Send + Sync + 'static) {
        let _ = self.certificate.0.set(Box::new(expires_at));
    }

    /// There is a store, and it can be used, or not. What is said first stays.
    pub fn store_is_usable(&self, is_usable: bool) {
        let _ = self.store.0.set(is_usable);
    }

    /// OpenMetrics text.
    pub fn encode(&self) -> String {
        if let Some(expires_at) = self.certificate.0.get() {
            self.certificate_expiry
                .set(expires_at().unwrap_or_default());
        }
        let mut encoded = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut encoded, &self.registry);
        encoded
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter: Counter<u64, AtomicU64> = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn histogram(registry: &mut Registry, name: &str, help: &str, bounds: &[f64]) -> Histogram {
    let histogram = Histogram::new(bounds.iter().copied());
    registry.register(name, help, histogram.clone());
    histogram
}

fn gauges<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Gauge>
where
    L: Labels + Clone + Eq + std::hash::Hash + EncodeLabelSet + fmt::Debug + Send + Sync,
{
    let family = Family::<L, Gauge>::default();
    for labels in L::VALUES {
        drop(family.get_or_create(labels));
    }
    registry.register(name, help, family.clone());
    family
}

fn family<L>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Counter>
where
    L: Labels + Clone + Eq + std::hash::Hash + EncodeLabelSet + fmt::Debug + Send + Sync,
{
    let family = Family::<L, Counter>::default();
    for labels in L::VALUES {
        drop(family.get_or_create(labels));
    }
    registry.register(name, help, family.clone());
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_series_exist_from_the_start_and_none_is_added() {
        let metrics = Metrics::new();
        let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        let before = metrics.encode();
        for reason in SessionEnd::ALL {
            assert!(
                before.contains(&format!(
                    "popgate_sessions_total{{reason=\"{reason}\"}} 0\n"
                )),
                "{before}"
            );
            metrics.sessions.get_or_create(reason).inc();
        }
        metrics.logins.get_or_create(&LoginResult::InUse).inc_by(3);
        metrics.octets_retrieved.inc_by(7);
        let after = metrics.encode();
        assert_eq!(series(&before), series(&after));
        assert!(
            after.contains("popgate_logins_total{result=\"in_use\"} 3\n"),
            "{after}"
        );
        assert!(
            after.contains("popgate_octets_retrieved_total 7\n"),
            "{after}"
        );
        assert!(after.contains("popgate_connections_refused_total{limit=\"per_address\"} 0\n"));
        assert!(after.contains("popgate_upstream_errors_total{kind=\"temporary\"} 0\n"));
        assert!(after.contains("popgate_token_state{state=\"refused\"} 0\n"));
        assert!(after.ends_with("# EOF\n"));
    }

    #[test]
    fn a_gauge_counts_what_is_held() {
        let metrics = Metrics::new();
        let held = Counted::new(&metrics.sessions_active);
        assert!(metrics.encode().contains("popgate_sessions_active 1\n"));
        drop(held);
        assert!(metrics.encode().contains("popgate_sessions_active 0\n"));
    }

    #[test]
    fn of_the_store_nothing_is_said_where_there_is_none() {
        let metrics = Metrics::new();
        assert!(!metrics.encode().contains("store_usable"));
        metrics.store_is_usable(false);
        let text = metrics.encode();
        assert!(
            text.contains("# TYPE popgate_store_usable gauge\n"),
            "{text}"
        );
        assert!(text.contains("\npopgate_store_usable 0\n"), "{text}");
    }

    #[test]
    fn the_certificate_is_asked_each_time() {
        let metrics = Metrics::new();
        let line =
            |seconds: i64| format!("popgate_certificate_expiry_timestamp_seconds {seconds}\n");
        assert!(metrics.encode().contains(&line(0)));
        let now = Gauge::<i64>::default();
        let asked = now.clone();
        metrics.watch_certificate(move || Some(asked.get()));
        now.set(1_835_395_200);
        assert!(metrics.encode().contains(&line(1_835_395_200)));
    }
}
