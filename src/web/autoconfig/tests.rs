#![allow(clippy::unwrap_used)]

use roxmltree::{Document, Node};

use super::*;

fn config() -> Config {
    Config {
        host: "pop.example.com".to_owned(),
        domains: ["example.com", "xn--bcher-kva.example"]
            .map(str::to_owned)
            .into(),
        pop3s_port: Some(995),
        pop3_port: Some(110),
        user: User::Address,
        display_name: "Tom & \"Jerry\" <mail>".to_owned(),
        submission: None,
    }
}

fn smtp(port: u16) -> Config {
    Config {
        submission: Some(Submission {
            host: "smtp.example.net".to_owned(),
            port,
        }),
        ..config()
    }
}

/// Name and text of each element in `node`.
fn fields(node: Node<'_, '_>) -> Vec<(String, String)> {
    node.children()
        .filter(Node::is_element)
        .map(|it| {
            let text = it.text().unwrap_or_default();
            (it.tag_name().name().to_owned(), text.to_owned())
        })
        .collect()
}

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    pairs
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into()
}

fn all<'a, 'input>(document: &'a Document<'input>, name: &str) -> Vec<Node<'a, 'input>> {
    document
        .descendants()
        .filter(|it| it.tag_name().name() == name)
        .collect()
}

fn request(address: &str, schema: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006\">\n\
         <Request><EMailAddress>{address}</EMailAddress>\n\
         <AcceptableResponseSchema>{schema}</AcceptableResponseSchema></Request></Autodiscover>"
    )
}

const SCHEMA: &str =
    "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a";

/// The error's code, in an answer that has all of an error.
#[track_caller]
fn code(body: &str) -> String {
    let answer = outlook::answer(&config(), body.as_bytes());
    let document = Document::parse(&answer).unwrap();
    let [error] = all(&document, "Error")[..] else {
        panic!("{answer}")
    };
    assert_eq!(
        error.parent().unwrap().tag_name().namespace(),
        Some("http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006")
    );
    let time = error.attribute("Time").unwrap();
    assert!(time.len() == 8 && time.split(':').count() == 3, "{time}");
    assert!(error.attribute("Id").unwrap().parse::<u32>().is_ok());
    let [(first, code), (second, message), (third, debug)] = &fields(error)[..] else {
        panic!("{answer}")
    };
    assert_eq!(
        [first, second, third],
        ["ErrorCode", "Message", "DebugData"]
    );
    assert!(!message.is_empty() && debug.is_empty());
    code.clone()
}

#[test]
fn mozilla_has_the_server_twice_and_tls_first() {
    let answer = mozilla::document(&config(), "example.com");
    let document = Document::parse(&answer).unwrap();
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "clientConfig");
    assert_eq!(root.attribute("version"), Some("1.1"));
    let [provider] = all(&document, "emailProvider")[..] else {
        panic!("{answer}")
    };
    assert_eq!(provider.attribute("id"), Some("example.com"));
    assert_eq!(
        fields(provider)[..3],
        pairs([
            ("domain", "example.com"),
            ("displayName", "Tom & \"Jerry\" <mail>"),
            ("displayShortName", "Tom & \"Jerry\" <mail>"),
        ])
    );
    let [implicit, stls] = all(&document, "incomingServer")[..] else {
        panic!("{answer}")
    };
    for (server, port, security) in [(implicit, "995", "SSL"), (stls, "110", "STARTTLS")] {
        assert_eq!(server.attribute("type"), Some("pop3"));
        assert_eq!(
            fields(server),
            pairs([
                ("hostname", "pop.example.com"),
                ("port", port),
                ("socketType", security),
                ("authentication", "password-cleartext"),
                ("username", "%EMAILADDRESS%"),
            ])
        );
    }
    assert_eq!(all(&document, "outgoingServer"), []);
    // What other domains there are is nobody's business.
    assert!(!answer.contains("xn--bcher-kva"), "{answer}");
}

#[test]
fn mozilla_has_what_is_announced_and_no_more() {
    let only = Config {
        pop3_port: None,
        user: User::LocalPart,
        ..config()
    };
    let answer = mozilla::document(&only, "example.com");
    let document = Document::parse(&answer).unwrap();
    let [server] = all(&document, "incomingServer")[..] else {
        panic!("{answer}")
    };
    assert!(fields(server).contains(&("username".to_owned(), "%EMAILLOCALPART%".to_owned())));
    for (port, security) in [(465, "SSL"), (587, "STARTTLS"), (25, "STARTTLS")] {
        let answer = mozilla::document(&smtp(port), "example.com");
        let document = Document::parse(&answer).unwrap();
        let [server] = all(&document, "outgoingServer")[..] else {
            panic!("{answer}")
        };
        assert_eq!(server.attribute("type"), Some("smtp"));
        assert_eq!(
            fields(server),
            pairs([
                ("hostname", "smtp.example.net"),
                ("port", &port.to_string()),
                ("socketType", security),
                ("authentication", "password-cleartext"),
                ("username", "%EMAILADDRESS%"),
            ])
        );
    }
}

#[test]
fn outlook_has_the_server_twice_and_tls_first() {
    let body = request("Alice@Example.COM", SCHEMA);
    let answer = outlook::answer(&smtp(587), body.as_bytes());
    let document = Document::parse(&answer).unwrap();
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "Autodiscover");
    assert_eq!(
        root.tag_name().namespace(),
        Some("http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006")
    );
    let [account] = all(&document, "Account")[..] else {
        panic!("{answer}")
    };
    assert_eq!(account.tag_name().namespace(), Some(SCHEMA));
    assert_eq!(
        fields(account)[..2],
        pairs([("AccountType", "email"), ("Action", "settings")])
    );
    let [implicit, stls, smtp] = all(&document, "Protocol")[..] else {
        panic!("{answer}")
    };
    let common = |kind, server, port, encryption| {
        pairs([
            ("Type", kind),
            ("Server", server),
            ("Port", port),
            ("LoginName", "Alice@Example.COM"),
            ("DomainRequired", "off"),
            ("SPA", "off"),
            ("SSL", "on"),
            ("Encryption", encryption),
            ("AuthRequired", "on"),
        ])
    };
    assert_eq!(
        fields(implicit),
        common("POP3", "pop.example.com", "995", "SSL")
    );
    assert_eq!(
        fields(stls),
        common("POP3", "pop.example.com", "110", "TLS")
    );
    let mut sending = common("SMTP", "smtp.example.net", "587", "TLS");
    sending.extend(pairs([("UsePOPAuth", "on"), ("SMTPLast", "off")]));
    assert_eq!(fields(smtp), sending);
}

#[test]
fn outlook_repeats_an_address_escaped() {
    let body = request(
        " \"&lt;/LoginName&gt;&#x26;'\"@b&#252;cher.example\n",
        SCHEMA,
    );
    let login = |user| {
        let config = Config { user, ..config() };
        let answer = outlook::answer(&config, body.as_bytes());
        let document = Document::parse(&answer).unwrap();
        all(&document, "LoginName")[0].text().unwrap().to_owned()
    };
    assert_eq!(login(User::Address), "\"</LoginName>&'\"@bücher.example");
    assert_eq!(login(User::LocalPart), "\"</LoginName>&'\"");
}

#[test]
fn outlook_learns_why_there_are_no_settings() {
    assert_eq!(code(&request("alice@example.net", SCHEMA)), "500");
    assert_eq!(code(&request("alice@sub.example.com", SCHEMA)), "500");
    let mobile =
        "http://schemas.microsoft.com/exchange/autodiscover/mobilesync/responseschema/2006";
    assert_eq!(code(&request("alice@example.com", mobile)), "601");
    assert_eq!(code(&request("alice@example.com", "&lt;x&gt;")), "601");
    let inner = "<EMailAddress>alice@example.com</EMailAddress>";
    for wrong in [
        "",
        "alice@example.com",
        "{\"Email\": \"alice@example.com\"}",
        &request("", SCHEMA),
        &request("alice", SCHEMA),
        &request("alice&#13;&#10;@example.com", SCHEMA),
        &request("alice&#0;@example.com", SCHEMA),
        &request("alice<b/>@example.com", SCHEMA),
        &request(&format!("{}@example.com", "a".repeat(309)), SCHEMA),
        &format!("<Autodiscover>{inner}</Autodiscover>"),
        &format!("<Other><Request>{inner}</Request></Other>"),
        &format!("<Autodiscover><Request>{inner}{inner}</Request></Autodiscover>"),
        "<Autodiscover><Request><LegacyDN>/o=x</LegacyDN></Request></Autodiscover>",
        &format!("<!DOCTYPE x>{}", request("alice@example.com", SCHEMA)),
    ] {
        assert_eq!(code(wrong), "600", "{wrong}");
    }
}

#[test]
fn a_schema_is_not_needed() {
    let body = "<Autodiscover><Request><EMailAddress>alice@example.com</EMailAddress></Request></Autodiscover>";
    let answer = outlook::answer(&config(), body.as_bytes());
    assert!(answer.contains("<Action>settings</Action>"), "{answer}");
}

#[test]
fn hosts_and_the_domains_they_stand_for() {
    for (host, means) in [
        ("example.com", Some("example.com")),
        ("Autoconfig.EXAMPLE.com", Some("example.com")),
        ("autoconfig.bücher.example", Some("xn--bcher-kva.example")),
        ("pop.example.com", None),
        ("autoconfig.autoconfig.example.com", None),
        ("autoconfig.", None),
        ("", None),
    ] {
        assert_eq!(config().domain_of(host).as_deref(), means, "{host}");
    }
}

#[test]
fn nothing_to_announce_is_no_answer() {
    let silent = Config {
        pop3s_port: None,
        pop3_port: None,
        ..smtp(465)
    };
    assert!(!silent.answers("example.com"));
    assert!(config().answers("example.com") && !config().answers("example.net"));
}
