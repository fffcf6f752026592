#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::{Purpose, Resolved};

fn resolved(text: &str, purpose: Purpose) -> Result<Resolved, String> {
    let settings = Settings::from_text(text).map_err(|error| error.to_string())?;
    crate::config::resolve(settings, purpose).map_err(|error| error.to_string())
}

const LISTENERS: &str = "upstream = \"imap+plain://127.0.0.1\"\nhttp = \"127.0.0.1:0\"\n";

/// `lines` from line 3 on, in `[autoconfig]` from line 4 on.
fn with(listeners: &str, lines: &str) -> Result<Resolved, String> {
    let text = format!("{LISTENERS}{listeners}\n[autoconfig]\n{lines}");
    resolved(&text, Purpose::Serve)
}

const HOST: &str = "host = \"pop.example.com\"\ndomains = \"example.com\"\n";

fn ports(listeners: &str, lines: &str) -> (Option<u16>, Option<u16>) {
    let config = with(listeners, &format!("{HOST}{lines}"))
        .unwrap()
        .autoconfig
        .unwrap();
    (config.pop3s_port, config.pop3_port)
}

#[test]
fn nothing_is_announced_unless_it_is_asked_for() {
    for table in ["", "[autoconfig]"] {
        let text = format!("{LISTENERS}pop3s = \"127.0.0.1:995\"\n{table}");
        assert_eq!(resolved(&text, Purpose::Serve).unwrap().autoconfig, None);
    }
}

#[test]
fn every_value_arrives_in_its_place() {
    let lines = "host = \"POP.Bücher.example.\"\ndomains = [\"Example.com\", \"bücher.example\"]\n\
                 pop3s_port = 9950\npop3_port = 1100\nuser = \"local-part\"\n\
                 display_name = \" Bücher & Söhne \"\nsmtp_host = \"smtp.example.com\"\nsmtp_port = 587\n";
    let config = with("pop3s = \"127.0.0.1:0\"", lines).unwrap().autoconfig;
    let domains = ["example.com", "xn--bcher-kva.example"];
    assert_eq!(
        config,
        Some(Config {
            host: "pop.xn--bcher-kva.example".to_owned(),
            domains: domains.map(str::to_owned).into(),
            pop3s_port: Some(9950),
            pop3_port: Some(1100),
            user: User::LocalPart,
            display_name: "Bücher & Söhne".to_owned(),
            submission: Some(Submission {
                host: "smtp.example.com".to_owned(),
                port: 587,
            }),
        })
    );
}

#[test]
fn what_is_not_set_has_its_default() {
    let lines = format!("{HOST}smtp_host = \"smtp.example.com\"");
    let config = with("pop3s = \"127.0.0.1:995\"", &lines)
        .unwrap()
        .autoconfig
        .unwrap();
    assert_eq!(config.display_name, "pop.example.com");
    assert_eq!(config.user, User::Address);
    assert_eq!(config.submission.unwrap().port, 465);
    let config = with("pop3s = \"127.0.0.1:995\"", HOST).unwrap().autoconfig;
    assert_eq!(config.unwrap().submission, None);
}

#[test]
fn ports_are_those_of_the_first_listeners() {
    let both = "pop3s = [\"127.0.0.1:9951\", \"127.0.0.1:9952\"]\npop3 = [\"127.0.0.1:1101\", \"127.0.0.1:1102\"]";
    assert_eq!(ports(both, ""), (Some(9951), Some(1101)));
    assert_eq!(
        ports(both, "pop3s_port = 995\npop3_port = 110"),
        (Some(995), Some(110))
    );
    assert_eq!(ports("pop3s = \"127.0.0.1:9951\"", ""), (Some(9951), None));
    let free = "pop3s = \"127.0.0.1:0\"\npop3 = \"127.0.0.1:1101\"";
    assert_eq!(ports(free, ""), (None, Some(1101)));
    // A proxy in front may have the certificate.
    let cleartext = "pop3 = \"127.0.0.1:1101\"";
    assert_eq!(ports(cleartext, "pop3s_port = 995"), (Some(995), None));
}

#[test]
fn nothing_to_announce_is_warned_of() {
    let warned = |listeners: &str| {
        let warnings = with(listeners, HOST).unwrap().warnings;
        warnings.iter().any(|it| it.contains("no port to announce"))
    };
    assert!(warned("pop3 = \"127.0.0.1:110\""));
    assert!(warned("pop3s = \"127.0.0.1:0\""));
    assert!(!warned("pop3s = \"127.0.0.1:995\""));
}

#[test]
fn what_is_refused_and_why() {
    let pop3s = "pop3s = \"127.0.0.1:0\"";
    for (lines, says) in [
        (
            "domains = [\"example.com\"]",
            "popgate.toml:5: autoconfig.domains: needs autoconfig.host",
        ),
        (
            "smtp_port = 465",
            "popgate.toml:5: autoconfig.smtp_port: needs autoconfig.host",
        ),
        (
            "host = \"pop.example.com\"",
            "popgate.toml:5: autoconfig.host: autoconfig.domains names no domain",
        ),
        (
            "host = \"pop.example.com\"\ndomains = []",
            "popgate.toml:6: autoconfig.domains: autoconfig.domains names no domain",
        ),
        (
            "host = \"pop.example.com:995\"\ndomains = \"example.com\"",
            "popgate.toml:5: autoconfig.host: \"pop.example.com:995\" is not a host name",
        ),
        (
            "host = \"\"\ndomains = \"example.com\"",
            "popgate.toml:5: autoconfig.host: \"\" is not a host name",
        ),
        (
            "host = \"pop.example.com\"\ndomains = [\n\"example.com\",\n\"@example.org\"]",
            "popgate.toml:8: autoconfig.domains: \"@example.org\" is not a domain",
        ),
        (
            "host = \"pop.example.com\"\ndomains = [\n\"example.com\",\n\"EXAMPLE.COM.\"]",
            "popgate.toml:8: autoconfig.domains: EXAMPLE.COM. is named twice",
        ),
        (
            &format!("{HOST}pop3s_port = 0"),
            "popgate.toml:7: autoconfig.pop3s_port: is not a port: expected 1 to 65535",
        ),
        (
            &format!("{HOST}pop3_port = 65536"),
            "popgate.toml:7: autoconfig.pop3_port: is not a port: expected 1 to 65535",
        ),
        (
            &format!("{HOST}pop3_port = \"110\""),
            "popgate.toml:7: autoconfig.pop3_port: invalid type: string \"110\", expected a whole number",
        ),
        (
            &format!("{HOST}user = \"name\""),
            "popgate.toml:7: autoconfig.user: expected address or local-part",
        ),
        (
            &format!("{HOST}display_name = \"a\\nb\""),
            "popgate.toml:7: autoconfig.display_name: expected a name of up to 200 characters",
        ),
        (
            &format!("{HOST}smtp_host = \"smtp example\""),
            "popgate.toml:7: autoconfig.smtp_host: \"smtp example\" is not a host name",
        ),
        (
            &format!("{HOST}smtp_port = 587"),
            "popgate.toml:7: autoconfig.smtp_port: needs autoconfig.smtp_host",
        ),
        (
            &format!("{HOST}imap_port = 993"),
            "popgate.toml:7: autoconfig.imap_port: unknown key; did you mean autoconfig.smtp_port?",
        ),
    ] {
        let problem = with(pop3s, lines).unwrap_err();
        assert!(problem.starts_with(says), "{lines}: {problem}");
    }
    let problem = with("pop3 = \"0\"", &format!("{HOST}pop3_port = 110")).unwrap_err();
    let says =
        "popgate.toml:7: autoconfig.pop3_port: is announced with STLS, which needs a certificate";
    assert!(problem.starts_with(says), "{problem}");
}

#[test]
fn it_is_served_by_http() {
    let text =
        format!("upstream = \"imap+plain://127.0.0.1\"\npop3s = \"0\"\n[autoconfig]\n{HOST}");
    let problem = resolved(&text, Purpose::Serve).unwrap_err();
    let says = "popgate.toml:4: autoconfig.host: autoconfig is served by http: set http";
    assert!(problem.starts_with(says), "{problem}");
    // A service may have it as a flag, which a check has not.
    assert!(resolved(&text, Purpose::Check).is_ok());
}
