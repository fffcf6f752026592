//! The second stage of bounds and deadlines: each has a least value below
//! which a service could not work.

use std::time::Duration;

use super::values::{Count, Octets, Period};
use super::{ConfigError, Given, Origin, Settings};
use crate::server::config::{Limits, Timeouts};
use crate::upstream::{Economy, ReadAhead, Rest, imap};

/// RFC 1939 §3: an autologout timer must be of at least ten minutes.
const SHORTEST_IDLE: Duration = Duration::from_secs(600);

pub(super) fn upstream_timeouts(settings: &Settings) -> Result<imap::Timeouts, ConfigError> {
    let (default, table) = (imap::Timeouts::default(), &settings.upstream_timeouts);
    let given = |key, written| settings.given(key, written);
    Ok(imap::Timeouts {
        connect: positive(
            given("upstream_timeouts.connect", &table.connect),
            default.connect,
        )?,
        silence: positive(
            given("upstream_timeouts.silence", &table.silence),
            default.silence,
        )?,
        command: positive(
            given("upstream_timeouts.command", &table.command),
            default.command,
        )?,
    })
}

pub(super) fn upstream_limits(settings: &Settings) -> Result<imap::Limits, ConfigError> {
    let (default, table) = (imap::Limits::default(), &settings.upstream_limits);
    let octets = |key, written| settings.given(key, written);
    let messages = settings.given("upstream_limits.messages", &table.messages);
    Ok(imap::Limits {
        literal: octets_from(
            octets("upstream_limits.literal", &table.literal),
            1024,
            default.literal,
        )?,
        // RFC 7162 §4: lines of 8,192 octets must be expected.
        line: octets_from(
            octets("upstream_limits.line", &table.line),
            8192,
            default.line,
        )?,
        messages: at_least_one(messages, default.messages)?,
    })
}

/// What may be spent to save round trips. Zero switches a saving off.
pub(super) fn economy(settings: &Settings) -> Economy {
    let default = Economy::default();
    let rest = &settings.upstream_rest;
    let count = |key, written, default: usize| match settings.given::<Count>(key, written) {
        Some(given) => usize::try_from(given.value.0).unwrap_or(usize::MAX),
        None => default,
    };
    let longest = settings.given("upstream_rest.longest", &rest.longest);
    let ahead = &settings.read_ahead;
    let octets = |key, written, default: u64| match settings.given::<Octets>(key, written) {
        Some(given) => given.value.0,
        None => default,
    };
    Economy {
        rest: Rest {
            longest: longest.map_or(default.rest.longest, |given| given.value.0),
            most: count(
                "upstream_rest.connections",
                &rest.connections,
                default.rest.most,
            ),
            per_account: count(
                "upstream_rest.connections_per_account",
                &rest.connections_per_account,
                default.rest.per_account,
            ),
        },
        read_ahead: ReadAhead {
            session: octets(
                "read_ahead.octets_per_session",
                &ahead.octets_per_session,
                default.read_ahead.session,
            ),
            process: octets(
                "read_ahead.octets",
                &ahead.octets,
                default.read_ahead.process,
            ),
        },
    }
}

pub(super) fn limits(settings: &Settings) -> Result<Limits, ConfigError> {
    let (default, table) = (Limits::default(), &settings.limits);
    let count = |key, written| settings.given::<Count>(key, written);
    let octets = |key, written| settings.given::<Octets>(key, written);
    let per_address = count(
        "limits.connections_per_address",
        &table.connections_per_address,
    );
    let failures = count("limits.failures_per_minute", &table.failures_per_minute);
    let refusals = count("limits.upstream_refusals", &table.upstream_refusals);
    let message = octets(
        "limits.buffered_message_octets",
        &table.buffered_message_octets,
    );
    let slowest = octets("limits.slowest_reader", &table.slowest_reader);
    let buffered = octets("limits.buffered_octets", &table.buffered_octets);
    let limits = Limits {
        connections: at_least_one(
            count("limits.connections", &table.connections),
            default.connections,
        )?,
        connections_per_network: per_network(per_address, default.connections_per_network)?,
        failures_per_minute: per_network(failures, default.failures_per_minute)?,
        buffered_octets: octets_from(buffered.clone(), 1024 * 1024, default.buffered_octets)?,
        buffered_message_octets: octets_from(message.clone(), 0, default.buffered_message_octets)?,
        bad_commands: at_least_one(
            count("limits.bad_commands", &table.bad_commands),
            default.bad_commands,
        )?,
        slowest_reader: octets_from(slowest, 0, default.slowest_reader)?,
        upstream_refusals: at_least_one(refusals, default.upstream_refusals)?,
    };
    if limits.buffered_message_octets > limits.buffered_octets {
        let problem = "limits.buffered_message_octets must not be larger than limits.buffered_octets, which is for all sessions together";
        let blamed = message
            .map(|given| given.origin)
            .or(buffered.map(|given| given.origin));
        let origin = blamed.unwrap_or(Origin::Missing("limits.buffered_octets"));
        return Err(ConfigError::at(origin, problem));
    }
    Ok(limits)
}

pub(super) fn timeouts(settings: &Settings) -> Result<Timeouts, ConfigError> {
    let (default, table) = (Timeouts::default(), &settings.timeouts);
    let given = |key, written| settings.given::<Period>(key, written);
    let idle = given("timeouts.idle", &table.idle);
    if let Some(idle) = idle.as_ref().filter(|idle| idle.value.0 < SHORTEST_IDLE) {
        return Err(idle.wrong("is too short: POP3 asks for at least 10m (RFC 1939 §3)"));
    }
    Ok(Timeouts {
        handshake: positive(
            given("timeouts.handshake", &table.handshake),
            default.handshake,
        )?,
        login: positive(given("timeouts.login", &table.login), default.login)?,
        idle: positive(idle, default.idle)?,
        // Zero ends the sessions at once.
        drain: given("timeouts.drain", &table.drain).map_or(default.drain, |given| given.value.0),
    })
}

fn positive(given: Option<Given<Period>>, default: Duration) -> Result<Duration, ConfigError> {
    match given {
        Some(given) if given.value.0.is_zero() => Err(given.wrong("must be at least 1s")),
        Some(given) => Ok(given.value.0),
        None => Ok(default),
    }
}

fn at_least_one<T: TryFrom<u64>>(
    given: Option<Given<Count>>,
    default: T,
) -> Result<T, ConfigError> {
    let Some(given) = given else {
        return Ok(default);
    };
    if given.value.0 == 0 {
        return Err(given.wrong("must be at least 1"));
    }
    T::try_from(given.value.0).map_err(|_| given.wrong("is too large"))
}

/// What is granted to one address, and three and nine times as many from the networks
/// around it.
fn per_network(given: Option<Given<Count>>, default: [u32; 3]) -> Result<[u32; 3], ConfigError> {
    let [smallest, ..] = default;
    let count: u32 = match given {
        None => return Ok(default),
        given => at_least_one(given, smallest)?,
    };
    Ok([1, 3, 9].map(|times| count.saturating_mul(times)))
}

fn octets_from<T: TryFrom<u64>>(
    given: Option<Given<Octets>>,
    least: u64,
    default: T,
) -> Result<T, ConfigError> {
    let Some(given) = given else {
        return Ok(default);
    };
    if given.value.0 < least {
        return Err(given.wrong(format!("must be at least {least} octets")));
    }
    T::try_from(given.value.0).map_err(|_| given.wrong("is too large"))
}
