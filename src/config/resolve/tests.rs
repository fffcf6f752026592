#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::Origin;
use crate::maildrop::{DeletePolicy, Policy, UniqueIdFormat};
use crate::server::config::{Limits, Timeouts};
use crate::server::policies::Policies;
use crate::upstream::{Rest, imap};

const EXAMPLE: &str = include_str!("../../../deploy/popgate.toml");

fn resolved(text: &str) -> Result<Resolved, String> {
    let settings = Settings::from_text(text).map_err(|error| error.to_string())?;
    resolve(settings, Purpose::Serve).map_err(|error| error.to_string())
}

/// A configuration that is complete, and more lines.
fn with(lines: &str) -> Result<Resolved, String> {
    resolved(&format!(
        "upstream = \"imap+plain://127.0.0.1\"\npop3 = \"127.0.0.1:0\"\n{lines}"
    ))
}

fn policy(config: &Resolved) -> &Policy {
    &config.server.policies.gateway.policy
}

fn imap(config: &Resolved) -> &imap::Config {
    match &config.upstream {
        Some(Upstream::Imap(config)) => config,
        _ => panic!("this is IMAP"),
    }
}

#[test]
fn what_is_not_set_has_its_default() {
    let config = with("").unwrap();
    assert_eq!(config.server.limits, Limits::default());
    assert_eq!(config.server.timeouts, Timeouts::default());
    assert!(!config.server.allow_cleartext && !config.server.session_takeover);
    assert_eq!(imap(&config).limits, imap::Limits::default());
    assert_eq!(imap(&config).timeouts, imap::Timeouts::default());
    assert_eq!(policy(&config).delete, DeletePolicy::TrashIfThere);
    assert_eq!(policy(&config).unique_ids, None);
    assert!(!imap(&config).send_client_address);
    assert_eq!((config.http, config.state), (None, None));
}

#[test]
fn http_speaks_tls_where_there_is_a_listener_and_a_certificate() {
    let problem = |lines: &str| with(lines).unwrap_err();
    assert!(!with("http = \"0\"").unwrap().http_tls);
    let on = with("http = \"0\"\npop3s = \"127.0.0.1:0\"\nhttp_tls = true").unwrap();
    assert!(on.http_tls && on.certificates.is_some());
    let alone = problem("http_tls = true");
    assert!(
        alone.contains("http_tls") && alone.contains("set http "),
        "{alone}"
    );
    let bare = problem("http = \"0\"\nhttp_tls = true");
    assert!(
        bare.contains("http_tls") && bare.contains("set cert and key"),
        "{bare}"
    );
}

#[test]
fn connections_rest_for_who_comes_back_for_them() {
    let text = "upstream = \"imap+plain://127.0.0.1\"\npop3 = \"127.0.0.1:0\"\n";
    for (purpose, rest) in [
        (Purpose::Serve, Rest::default()),
        (Purpose::Check, Rest::OFF),
    ] {
        let config = resolve(Settings::from_text(text).unwrap(), purpose).unwrap();
        assert_eq!(imap(&config).economy.rest, rest);
    }
}

#[test]
fn every_value_arrives_in_its_place() {
    let config = with(
        r#"
        allow_cleartext = true
        session_takeover = true
        delete = "expunge"
        unique_ids = "%v.%u"
        send_client_address = true
        http = "9110"
        limits = { connections = 1, connections_per_address = 2, failures_per_minute = 6, buffered_octets = "3 MiB", buffered_message_octets = 4, bad_commands = 5, slowest_reader = 0, upstream_refusals = 7 }
        timeouts = { handshake = "1s", login = "2s", idle = "11m", drain = "0s" }
        upstream_limits = { literal = "1 GiB", line = "8 KiB", messages = 9 }
        upstream_timeouts = { connect = "3s", silence = "4s", command = "5s" }
        log = { format = "json", level = "debug" }
        "#,
    )
    .unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(
        config.server.limits,
        Limits {
            connections: 1,
            connections_per_network: [2, 6, 18],
            failures_per_minute: [6, 18, 54],
            buffered_octets: 3 * 1024 * 1024,
            buffered_message_octets: 4,
            bad_commands: 5,
            slowest_reader: 0,
            upstream_refusals: 7,
        }
    );
    assert_eq!(
        config.server.timeouts,
        Timeouts {
            handshake: seconds(1),
            login: seconds(2),
            idle: seconds(660),
            drain: seconds(0)
        }
    );
    assert_eq!(
        imap(&config).limits,
        imap::Limits {
            literal: 1 << 30,
            line: 8192,
            messages: 9
        }
    );
    assert_eq!(
        imap(&config).timeouts,
        imap::Timeouts {
            connect: seconds(3),
            silence: seconds(4),
            command: seconds(5)
        }
    );
    assert!(config.server.allow_cleartext && config.server.session_takeover);
    assert!(imap(&config).send_client_address);
    assert_eq!(policy(&config).delete, DeletePolicy::Expunge);
    assert_eq!(policy(&config).unique_ids, "%v.%u".parse().ok());
    assert_eq!(config.http, Some("127.0.0.1:9110".parse().unwrap()));
    assert_eq!(config.log.format, logging::Format::Json);
}

#[test]
fn what_is_refused_and_why() {
    for (lines, says) in [
        (
            "timeouts.idle = \"9m\"",
            "popgate.toml:3: timeouts.idle: is too short: POP3 asks for at least 10m",
        ),
        (
            "timeouts.login = \"0s\"",
            "popgate.toml:3: timeouts.login: must be at least 1s",
        ),
        (
            "upstream_timeouts.connect = \"0s\"",
            "popgate.toml:3: upstream_timeouts.connect: must be at least 1s",
        ),
        (
            "limits.connections = 0",
            "popgate.toml:3: limits.connections: must be at least 1",
        ),
        (
            "limits.bad_commands = 5000000000",
            "popgate.toml:3: limits.bad_commands: is too large",
        ),
        (
            "limits.buffered_octets = 5",
            "popgate.toml:3: limits.buffered_octets: must be at least 1048576 octets",
        ),
        (
            "limits.buffered_message_octets = \"1 GiB\"",
            "popgate.toml:3: limits.buffered_message_octets: limits.buffered_message_octets must not be larger",
        ),
        (
            "upstream_limits.line = 100",
            "popgate.toml:3: upstream_limits.line: must be at least 8192 octets",
        ),
        (
            "upstream_limits.messages = 0",
            "popgate.toml:3: upstream_limits.messages: must be at least 1",
        ),
        (
            "http = \"mail.example.com:80\"",
            "popgate.toml:3: http: \"mail.example.com:80\" is not an address",
        ),
        (
            "pop3s = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "popgate.toml:3: pop3s: 127.0.0.1:1 is configured twice",
        ),
        (
            "http = \"127.0.0.1:1\"\npop3s = \"127.0.0.1:1\"",
            "popgate.toml:4: pop3s: 127.0.0.1:1 is configured twice",
        ),
        (
            "log.format = \"xml\"",
            "popgate.toml:3: log.format: expected text or json",
        ),
        (
            "log.level = \"loud\"",
            "popgate.toml:3: log.level: expected off, error",
        ),
        (
            "log.level = \"async_imap=trace\"",
            "popgate.toml:3: log.level: only popgate's own modules",
        ),
        (
            "cert = \"/nowhere\"",
            "popgate.toml:3: cert: a certificate needs its key",
        ),
        (
            "key = \"/nowhere\"",
            "popgate.toml:3: key: a key needs its certificate",
        ),
        (
            "ca_file = \"/nowhere\"",
            "popgate.toml:3: ca_file: cannot read /nowhere: No such file",
        ),
        (
            "state = \"/nowhere/at/all\"",
            "popgate.toml:3: state: cannot make the folder /nowhere/at/all",
        ),
        (
            "trusted_hosts = [\"files.example.com\"]",
            "popgate.toml:3: trusted_hosts: is for JMAP",
        ),
        (
            "state = \"/dev/null\"",
            "popgate.toml:3: state: /dev/null is not a folder",
        ),
    ] {
        let problem = with(lines).unwrap_err();
        assert!(problem.starts_with(says), "{lines}: {problem}");
    }
}

#[test]
fn a_jmap_upstream_and_what_is_not_for_it() {
    let with = |lines: &str| {
        resolved(&format!(
            "upstream = \"http://127.0.0.1:8080/jmap\"\npop3 = \"127.0.0.1:0\"\n{lines}"
        ))
    };
    let config = with("delete = \"refuse\"\nupstream_limits.literal = \"1 MiB\"").unwrap();
    assert_eq!(policy(&config).delete, DeletePolicy::Refuse);
    let Some(Upstream::Jmap(jmap)) = &config.upstream else {
        panic!("this is JMAP")
    };
    assert_eq!(jmap.name, "http://127.0.0.1:8080/jmap");
    assert_eq!(jmap.limits.message, 1024 * 1024);
    assert!(with("trusted_hosts = []").is_ok());
    for (lines, says) in [
        (
            "trusted_hosts = [\"https://files.example.com\"]",
            "popgate.toml:3: trusted_hosts: \"https://files.example.com\" is not a host",
        ),
        (
            "send_client_address = true",
            "popgate.toml:3: send_client_address: is for IMAP",
        ),
    ] {
        let problem = with(lines).unwrap_err();
        assert!(problem.starts_with(says), "{lines}: {problem}");
    }
}

#[test]
fn a_service_needs_an_upstream_and_a_listener() {
    let problem = resolved("pop3 = \"110\"").unwrap_err();
    assert!(
        problem.starts_with("upstream: no upstream is configured"),
        "{problem}"
    );
    let only_upstream = "upstream = \"imap+plain://127.0.0.1\"";
    let problem = resolved(only_upstream).unwrap_err();
    assert!(
        problem.starts_with("pop3s: no listener is configured"),
        "{problem}"
    );
    let problem = resolved(&format!("{only_upstream}\npop3 = []")).unwrap_err();
    assert!(
        problem.starts_with("pop3s: no listener is configured"),
        "{problem}"
    );

    let settings = Settings::from_text(only_upstream).unwrap();
    let config = resolve(settings, Purpose::Check).unwrap();
    assert!(config.server.listeners.is_empty());
}

#[test]
fn pop3s_without_certificate_makes_one_for_all() {
    let config = with("pop3s = \"127.0.0.1:0\"").unwrap();
    let made = config.certificates.unwrap();
    assert!(made.is_self_signed());
    let [stls, implicit] = config.server.listeners.as_slice() else {
        panic!()
    };
    let shares = |other: &Arc<Certificates>| Arc::ptr_eq(other, &made);
    assert!(matches!(&stls.security, Security::Stls(Some(other)) if shares(other)));
    assert!(matches!(&implicit.security, Security::ImplicitTls(other) if shares(other)));
    assert!(
        config
            .warnings
            .iter()
            .any(|warning| warning.contains("SELF-SIGNED"))
    );
}

#[test]
fn what_is_warned_of() {
    let warned = |text: &str, words: &str| {
        let warnings = resolved(text).unwrap().warnings;
        warnings.iter().any(|warning| warning.contains(words))
    };
    let loopback = "upstream = \"imap+plain://127.0.0.1\"";
    let remote = "upstream = \"imap+plain://mail.example.com\"";
    assert!(warned(
        &format!("{remote}\npop3 = \"0\""),
        "PASSWORDS AND MAIL CROSS"
    ));
    assert!(!warned(
        &format!("{loopback}\npop3 = \"0\""),
        "PASSWORDS AND MAIL CROSS"
    ));
    assert!(warned(
        &format!("{loopback}\npop3 = \"127.0.0.1:0\""),
        "NOBODY CAN LOG IN"
    ));
    let allowed = format!("{loopback}\nallow_cleartext = true");
    assert!(!warned(&format!("{allowed}\npop3 = \"127.0.0.1:0\""), ""));
    assert!(warned(
        &format!("{allowed}\npop3 = \"0\""),
        "allow_cleartext"
    ));
    assert!(warned(
        &format!("{allowed}\npop3 = \"127.0.0.1:0\"\nhttp = \"0.0.0.0:0\""),
        "metrics"
    ));
}

#[test]
fn a_state_folder_is_made_and_left_clean() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    for _ in 0..2 {
        let config = with(&format!("state = {:?}", state.to_str().unwrap())).unwrap();
        assert_eq!(config.state.as_deref(), Some(state.as_path()));
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    }
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
}

/// The example's commented settings, as if they were set, without those that
/// exclude others, or are of accounts.
fn uncommented() -> String {
    let (before, rest) = EXAMPLE.split_once(ACCOUNTS).unwrap();
    let (_, after) = rest.split_once("# --- Bounds").unwrap();
    let excluding = ["default_provider =", "provider =", "login = \"accounts\""];
    let text = all_uncommented(&format!("{before}# {after}"));
    let lines = text.lines();
    lines
        .filter(|line| !excluding.iter().any(|key| line.starts_with(key)))
        .map(|line| format!("{line}\n"))
        .collect()
}

const ACCOUNTS: &str = "# --- Accounts of popgate's own";

fn all_uncommented(text: &str) -> String {
    let setting = |line: &str| {
        let name = line
            .strip_prefix('#')
            .and_then(|line| line.split_once(" = "));
        name.is_some_and(|(name, _)| {
            name.bytes()
                .all(|c| c.is_ascii_lowercase() || c == b'_' || c == b'3')
        })
    };
    let lines = text.lines();
    lines
        .map(|line| {
            let is_set = setting(line) || line.starts_with("#[");
            if is_set { &line[1..] } else { line }
        })
        .filter(|line| {
            !["cert =", "key =", "ca_file =", "state =", "expire_after ="]
                .iter()
                .any(|key| line.starts_with(key))
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn the_example_resolves_and_tells_the_true_defaults() {
    resolved(&EXAMPLE.replace("imaps://", "imap+plain://")).unwrap();
    let config = resolved(&uncommented().replace("imaps://", "imap+plain://")).unwrap();
    assert_eq!(config.server.limits, Limits::default());
    assert_eq!(config.server.timeouts, Timeouts::default());
    assert_eq!(imap(&config).limits, imap::Limits::default());
    assert_eq!(imap(&config).timeouts, imap::Timeouts::default());
    let defaults = Policies::default();
    let Policies {
        gateway,
        separator,
        recent,
        domains,
        accounts,
    } = &config.server.policies;
    assert_eq!(gateway.policy.unique_ids, Some(UniqueIdFormat::default()));
    assert_eq!(gateway.policy.seen, Policy::default().seen);
    assert_eq!(gateway.policy.folders, Policy::default().folders);
    assert_eq!((separator, recent), (&defaults.separator, &defaults.recent));
    assert_eq!((domains.len(), accounts.len()), (1, 1));
    assert!(!config.server.allow_cleartext && !config.server.session_takeover);
    assert!(!imap(&config).send_client_address);
    assert_eq!(config.server.listeners.len(), 3);
    let autoconfig = config.autoconfig.unwrap();
    assert_eq!(autoconfig.user, web::autoconfig::User::default());
    let submission = autoconfig.submission.unwrap();
    assert_eq!(submission.port, web::autoconfig::Submission::IMPLICIT_TLS);
}

#[test]
fn the_example_has_every_key() {
    let mut table = String::new();
    let mut named = Vec::new();
    for line in EXAMPLE.lines() {
        if let Some(header) = line.trim_start_matches('#').strip_prefix('[') {
            let header = header.trim_end_matches(']');
            table = match header.split_once('.') {
                Some((kind, _name)) => format!("{kind}.NAME."),
                None => format!("{header}."),
            };
        } else if let Some((key, _)) = line.trim_start_matches('#').split_once(" = ") {
            named.push(format!("{table}{key}"));
        }
    }
    for key in crate::config::settings::KEYS {
        assert!(named.iter().any(|name| name == key), "{key}");
    }
}

/// Lines that are often nearly right.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(crate::config::settings::KEYS);
    let value = prop_oneof![
        prop::sample::select(vec![
            "trash", "move:x", "on-retr", "INBOX", "%u", "jmap", "1y"
        ])
        .prop_map(|text| format!("{text:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        "[0-9]{1,20}(s|m|h|d| KiB| GiB)?".prop_map(|text| format!("{text:?}")),
        "(imaps|imap\\+plain|jmap|)://.{0,20}".prop_map(|text| format!("{text:?}")),
        "[\\[\\]:0-9a-f.]{0,20}".prop_map(|text| format!("{text:?}")),
        ".{0,20}".prop_map(|text| format!("{text:?}")),
        ".{0,20}",
    ];
    (key, value).prop_map(|(key, value)| format!("{key} = {value}\n"))
}

proptest! {
    #[test]
    fn no_text_panics(text in "(?s).{0,200}") {
        let _ = Settings::from_text(&text);
    }

    #[test]
    fn no_setting_panics_and_errors_name_their_place(lines in prop::collection::vec(line(), 0..6)) {
        // Not to touch the file system.
        let text: String = lines.into_iter().filter(|line| !line.starts_with("state")).collect();
        let error = match Settings::from_text(&text) {
            Ok(settings) => resolve(settings, Purpose::Serve).err(),
            Err(error) => Some(error),
        };
        if let Some(ConfigError { origin: Origin::File { line, .. }, .. }) = error {
            prop_assert!(line <= text.split('\n').count());
        }
    }
}
