//! What mail clients are told about the server, and what strangers can send
//! to the paths where they ask.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use roxmltree::{Document, Node};

use crate::process::{LOOPBACK, PATIENCE, Running, UPSTREAM, exchange, get, serve};

const WELL_KNOWN: &str = "/.well-known/autoconfig/mail/config-v1.1.xml";
const MAIL: &str = "/mail/config-v1.1.xml";
const OUTLOOK: &str = "/autodiscover/autodiscover.xml";
const SCHEMA: &str =
    "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a";
const ENVELOPE: &str = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006";

/// A popgate that answers for example.com and bücher.example.
fn start(more: &str) -> Running {
    let file = format!(
        "upstream = \"{UPSTREAM}\"\nhttp = \"{LOOPBACK}\"\npop3s = \"{LOOPBACK}\"\npop3 = \"{LOOPBACK}\"\n\
         [autoconfig]\nhost = \"pop.example.com\"\ndomains = [\"example.com\", \"Bücher.example\"]\n{more}"
    );
    serve(&[]).config(&file).start()
}

const PORTS: &str = "pop3s_port = 995\npop3_port = 110\n";

struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn answer(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

fn asked(http: SocketAddr, path: &str) -> Answer {
    answer(&get(http, path))
}

fn asked_of_host(http: SocketAddr, path: &str, host: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    answer(&exchange(http, request.as_bytes()))
}

fn posted(http: SocketAddr, path: &str, body: &str) -> Answer {
    let octets = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: autodiscover.example.com\r\nContent-Type: text/xml\r\nContent-Length: {octets}\r\n\r\n{body}"
    );
    answer(&exchange(http, request.as_bytes()))
}

fn autodiscover(address: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Autodiscover xmlns=\"http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006\"><Request><EMailAddress>{address}</EMailAddress><AcceptableResponseSchema>{SCHEMA}</AcceptableResponseSchema></Request></Autodiscover>"
    )
}

fn texts(document: &Document<'_>, name: &str) -> Vec<String> {
    document
        .descendants()
        .filter(|it| it.tag_name().name() == name)
        .map(|it| it.text().unwrap_or_default().to_owned())
        .collect()
}

fn child<'a>(node: Node<'a, '_>, name: &str) -> &'a str {
    let mut found = node.children().filter(|it| it.tag_name().name() == name);
    let text = found.next().and_then(|it| it.text()).unwrap_or_default();
    assert!(found.next().is_none(), "{name} twice");
    text
}

/// Type, port, protection and user name of each incoming server.
fn mozilla(answer: &Answer) -> Vec<[String; 5]> {
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert!(
        answer.head.contains("content-type: text/xml"),
        "{}",
        answer.head
    );
    let document = Document::parse(&answer.body).unwrap();
    let incoming = document
        .descendants()
        .filter(|it| it.has_tag_name("incomingServer"));
    incoming
        .map(|it| {
            assert_eq!(child(it, "authentication"), "password-cleartext");
            [
                it.attribute("type").unwrap().to_owned(),
                child(it, "hostname").to_owned(),
                child(it, "port").to_owned(),
                child(it, "socketType").to_owned(),
                child(it, "username").to_owned(),
            ]
        })
        .collect()
}

/// Type, host, port, protection and user name of each protocol.
fn outlook(answer: &Answer) -> Vec<[String; 5]> {
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert!(
        answer.head.contains("content-type: text/xml"),
        "{}",
        answer.head
    );
    let document = Document::parse(&answer.body).unwrap();
    let protocols = document
        .descendants()
        .filter(|it| it.has_tag_name((SCHEMA, "Protocol")));
    protocols
        .map(|it| {
            assert_eq!(child(it, "SSL"), "on");
            ["Type", "Server", "Port", "Encryption", "LoginName"]
                .map(|name| child(it, name).to_owned())
        })
        .collect()
}

#[track_caller]
fn fails(answer: &Answer, code: &str) {
    assert_eq!(answer.status, 200, "{}", answer.head);
    let document = Document::parse(&answer.body).unwrap();
    let error = document
        .descendants()
        .find(|it| it.has_tag_name((ENVELOPE, "Error")))
        .unwrap();
    assert_eq!(child(error, "ErrorCode"), code, "{}", answer.body);
    assert_eq!(texts(&document, "Protocol"), [""; 0]);
}

fn servers(rows: [[&str; 5]; 2]) -> Vec<[String; 5]> {
    rows.map(|row| row.map(str::to_owned)).into()
}

#[test]
fn a_client_learns_the_server_by_the_address() {
    let running = start(&format!("{PORTS}display_name = \"A & <B>\"\n"));
    let http = running.http();
    let told = servers([
        ["pop3", "pop.example.com", "995", "SSL", "%EMAILADDRESS%"],
        [
            "pop3",
            "pop.example.com",
            "110",
            "STARTTLS",
            "%EMAILADDRESS%",
        ],
    ]);
    for path in [MAIL, WELL_KNOWN] {
        for address in [
            "alice@example.com",
            "alice%40EXAMPLE.COM",
            "alice+news@example.com",
            "alice@b%C3%BCcher.example",
            "alice@xn--bcher-kva.example&x=y",
        ] {
            let answer = asked(http, &format!("{path}?emailaddress={address}"));
            assert_eq!(mozilla(&answer), told, "{address}");
            let document = Document::parse(&answer.body).unwrap();
            assert_eq!(texts(&document, "displayName"), ["A & <B>"]);
            assert_eq!(texts(&document, "outgoingServer"), [""; 0]);
        }
    }
    for path in [
        OUTLOOK,
        "/Autodiscover/Autodiscover.xml",
        "/AutoDiscover/AutoDiscover.XML",
    ] {
        let answer = posted(http, path, &autodiscover("Alice+news@Example.com"));
        let login = "Alice+news@Example.com";
        assert_eq!(
            outlook(&answer),
            servers([
                ["POP3", "pop.example.com", "995", "SSL", login],
                ["POP3", "pop.example.com", "110", "TLS", login],
            ])
        );
    }
    // The operator's paths are what they were, and one request a connection.
    assert!(get(http, "/live").starts_with("HTTP/1.1 200 "));
    assert!(get(http, "/metrics").ends_with("# EOF\n"));
    running.stop();
}

#[test]
fn local_parts_and_a_server_for_outgoing_mail() {
    let running = start(&format!(
        "{PORTS}user = \"local-part\"\nsmtp_host = \"smtp.example.net\"\nsmtp_port = 587\n"
    ));
    let http = running.http();
    let answer = asked(http, &format!("{MAIL}?emailaddress=alice@example.com"));
    assert!(
        mozilla(&answer)
            .iter()
            .all(|it| it[4] == "%EMAILLOCALPART%")
    );
    let document = Document::parse(&answer.body).unwrap();
    let outgoing = document
        .descendants()
        .find(|it| it.has_tag_name("outgoingServer"))
        .unwrap();
    assert_eq!(outgoing.attribute("type"), Some("smtp"));
    assert_eq!(
        ["hostname", "port", "socketType", "username"].map(|name| child(outgoing, name)),
        ["smtp.example.net", "587", "STARTTLS", "%EMAILLOCALPART%"]
    );
    let answer = posted(http, OUTLOOK, &autodiscover("alice@example.com"));
    let protocols = outlook(&answer);
    assert!(protocols.iter().all(|it| it[4] == "alice"), "{protocols:?}");
    assert_eq!(
        protocols[2][..4],
        ["SMTP", "smtp.example.net", "587", "TLS"]
    );
    running.stop();
}

#[test]
fn ports_of_listeners_are_told_unless_they_were_chosen_by_the_system() {
    let running = start("pop3s_port = 9950\n");
    let answer = asked(
        running.http(),
        &format!("{MAIL}?emailaddress=alice@example.com"),
    );
    let ports: Vec<String> = mozilla(&answer)
        .into_iter()
        .map(|it| it[2].clone())
        .collect();
    assert_eq!(ports, ["9950"]);
    running.stop();

    let running = start("");
    running.logs(&[" WARN ", "autoconfig has no port to announce"]);
    let http = running.http();
    assert_eq!(
        asked(http, &format!("{MAIL}?emailaddress=alice@example.com")).status,
        404
    );
    fails(
        &posted(http, OUTLOOK, &autodiscover("alice@example.com")),
        "500",
    );
    running.stop();
}

#[test]
fn without_an_address_the_host_tells_the_domain() {
    let running = start(PORTS);
    let http = running.http();
    for host in [
        "example.com",
        "autoconfig.example.com",
        "AutoConfig.Example.COM:8080",
        "autoconfig.xn--bcher-kva.example",
        "example.com.",
    ] {
        for path in [MAIL, WELL_KNOWN, &format!("{MAIL}?emailaddress=")] {
            let answer = asked_of_host(http, path, host);
            assert_eq!(mozilla(&answer).len(), 2, "{host}");
            let document = Document::parse(&answer.body).unwrap();
            let domain = texts(&document, "domain");
            let expected = host.to_ascii_lowercase();
            assert!(expected.contains(&domain[0]), "{host}: {domain:?}");
        }
    }
    for host in [
        "",
        "pop.example.com",
        "autoconfig.example.net",
        "autoconfig.example.com.example.net",
        "127.0.0.1:80",
        "[::1]",
        "example.com@example.net",
        "example%2ecom",
        "<example.com>",
    ] {
        let status = asked_of_host(http, WELL_KNOWN, host).status;
        assert!(matches!(status, 400 | 404), "{host}: {status}");
    }
    // Which of two would be meant?
    let answer = asked_of_host(http, MAIL, "example.com\r\nHost: example.com");
    assert!(matches!(answer.status, 400 | 404), "{}", answer.status);
    running.stop();
}

#[test]
fn other_domains_and_paths_are_not_answered() {
    let running = start(PORTS);
    let http = running.http();
    for address in [
        "alice@example.net",
        "alice@sub.example.com",
        "alice@example.com.example.net",
        "alice@example.com@example.net",
    ] {
        let path = format!("{WELL_KNOWN}?emailaddress={address}");
        assert_eq!(asked_of_host(http, &path, "example.com").status, 404);
        fails(&posted(http, OUTLOOK, &autodiscover(address)), "500");
    }
    for path in [
        "/",
        "/mail/",
        "/mail/config-v1.0.xml",
        "/MAIL/config-v1.1.xml",
        "/mail/../mail/config-v1.1.xml",
        "/autodiscover/autodiscover.json",
        "/autodiscover/autodiscover.xml/",
        "/autodiscover/",
    ] {
        assert_eq!(
            asked_of_host(http, path, "example.com").status,
            404,
            "{path}"
        );
        let body = autodiscover("alice@example.com");
        assert_eq!(posted(http, path, &body).status, 404, "{path}");
    }
    running.stop();
}

#[test]
fn without_configuration_there_is_nothing() {
    let running = serve(&[
        "--upstream",
        UPSTREAM,
        "--pop3s",
        LOOPBACK,
        "--http",
        LOOPBACK,
    ])
    .start();
    let http = running.http();
    for path in [MAIL, WELL_KNOWN] {
        let path = format!("{path}?emailaddress=alice@example.com");
        assert_eq!(asked(http, &path).status, 404);
    }
    let body = autodiscover("alice@example.com");
    assert_eq!(posted(http, OUTLOOK, &body).status, 404);
    running.stop();
}

#[test]
fn wrong_methods() {
    let running = start(PORTS);
    let http = running.http();
    for path in [MAIL, WELL_KNOWN] {
        let answer = posted(http, path, &autodiscover("alice@example.com"));
        assert_eq!(answer.status, 405);
        assert!(answer.head.contains("\r\nallow: get"), "{}", answer.head);
    }
    let answer = asked(http, OUTLOOK);
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("\r\nallow: post"), "{}", answer.head);
    let head = format!("HEAD {MAIL} HTTP/1.1\r\nHost: example.com\r\n\r\n");
    let answer = answer_without_body(http, &head);
    assert_eq!(answer.status, 200);
    running.stop();
}

fn answer_without_body(http: SocketAddr, request: &str) -> Answer {
    let answer = answer(&exchange(http, request.as_bytes()));
    assert_eq!(answer.body, "");
    answer
}

#[test]
fn addresses_that_are_none() {
    let running = start(PORTS);
    let http = running.http();
    let longest = format!("{}@example.com", "a".repeat(308));
    for path in [MAIL, WELL_KNOWN] {
        let status = |address: &str| {
            let path = format!("{path}?emailaddress={address}");
            asked_of_host(http, &path, "example.com").status
        };
        assert_eq!(status(&longest), 200);
        assert_eq!(status("%22%3Cb%3E%26%22@example.com"), 200);
        for wrong in [
            "alice",
            "@example.com",
            "alice@",
            "alice%0D%0ASet-Cookie:x@example.com",
            "alice%00@example.com",
            "alice%C2%85@example.com",
            "alice%FF@example.com",
            "alice@exam%0D%0Aple.com",
            "alice@example%252ecom",
            &format!("a{longest}"),
            "alice@example.com&emailaddress=bob@example.com",
        ] {
            assert_eq!(status(wrong), 400, "{wrong}");
        }
    }
    running.stop();
}

#[test]
fn what_outlook_is_told_is_escaped() {
    let running = start(PORTS);
    let http = running.http();
    let hostile = "\"'&lt;/LoginName&gt;&lt;Server&gt;evil&amp;\"@example.com";
    let answer = posted(http, OUTLOOK, &autodiscover(hostile));
    for protocol in outlook(&answer) {
        assert_eq!(protocol[1], "pop.example.com");
        assert_eq!(protocol[4], "\"'</LoginName><Server>evil&\"@example.com");
    }
    assert!(!answer.body.contains("<Server>evil"), "{}", answer.body);
    let other = autodiscover("alice@example.com").replace(SCHEMA, "http://evil.example/schema");
    let answer = posted(http, OUTLOOK, &other);
    fails(&answer, "601");
    assert!(!answer.body.contains("evil"), "{}", answer.body);
    running.stop();
}

#[test]
fn documents_that_expand_or_are_none() {
    let running = start(PORTS);
    let http = running.http();
    let with_entities = |entities: &str, address: &str| {
        autodiscover(address).replace(
            "<Autodiscover ",
            &format!("<!DOCTYPE Autodiscover [{entities}]><Autodiscover "),
        )
    };
    let mut laughs = "<!ENTITY l0 \"ha\">".to_owned();
    for level in 1..10 {
        let before = format!("&l{};", level - 1).repeat(10);
        laughs += &format!("<!ENTITY l{level} \"{before}\">");
    }
    for wrong in [
        with_entities(
            "<!ENTITY x SYSTEM \"file:///etc/passwd\">",
            "&x;@example.com",
        ),
        with_entities(
            "<!ENTITY % x SYSTEM \"http://127.0.0.1:1/x.dtd\"> %x;",
            "alice@example.com",
        ),
        with_entities(&laughs, "&l9;@example.com"),
        with_entities("", "alice@example.com"),
        autodiscover("&x;@example.com"),
        autodiscover("alice&#13;&#10;@example.com"),
        autodiscover("alice"),
        autodiscover(&format!("{}@example.com", "a".repeat(309))),
        autodiscover("alice@example.com") + "<x/>",
        autodiscover("alice@example.com").replace("</Request>", ""),
        format!("{}{}", "<a>".repeat(2000), "</a>".repeat(2000)),
        "{}".to_owned(),
        String::new(),
    ] {
        let answer = posted(http, OUTLOOK, &wrong);
        fails(&answer, "600");
        assert!(!answer.body.contains("root:"), "{}", answer.body);
    }
    running.stop();
}

#[test]
fn bodies_are_bounded() {
    let running = start(PORTS);
    let http = running.http();
    let padded = |octets: usize| {
        let body = autodiscover("alice@example.com");
        let padding = " ".repeat(octets - body.len());
        body + &padding
    };
    let largest = 16 * 1024;
    assert_eq!(outlook(&posted(http, OUTLOOK, &padded(largest))).len(), 2);
    assert_eq!(posted(http, OUTLOOK, &padded(largest + 1)).status, 413);
    assert_eq!(posted(http, OUTLOOK, &padded(600_000)).status, 413);

    // One that claims to be larger is not waited for.
    let claim = format!(
        "POST {OUTLOOK} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
    );
    let answer = answer(&exchange(http, claim.as_bytes()));
    assert_eq!(answer.status, 413);

    // One that never ends is cut.
    let mut stream = TcpStream::connect(http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "POST {OUTLOOK} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    // 64 MiB, had they been taken.
    let taken = (0..1024)
        .take_while(|_| stream.write_all(chunk.as_bytes()).is_ok())
        .count();
    assert!(taken < 1024);
    let _ = stream.read_to_end(&mut Vec::new());
    assert!(get(http, "/live").starts_with("HTTP/1.1 200 "));
    running.stop();
}

#[test]
fn a_host_with_line_ends_adds_no_header() {
    let running = start(PORTS);
    let http = running.http();
    for host in [
        "example.com\r\n Set-Cookie: x=y",
        "example.com\rSet-Cookie: x=y",
        "example.com\0",
    ] {
        let answer = asked_of_host(http, WELL_KNOWN, host);
        assert!(
            answer.status == 400 && !answer.head.contains("set-cookie"),
            "{host:?}: {}",
            answer.head
        );
    }
    running.stop();
}

#[test]
fn a_configuration_that_cannot_be_meant() {
    let base = "upstream = \"imap+plain://127.0.0.1:1\"\npop3s = \"127.0.0.1:0\"\n";
    let says = "popgate.toml:4: autoconfig.host: autoconfig is served by http";
    serve(&[])
        .config(&format!(
            "{base}[autoconfig]\nhost = \"pop.example.com\"\ndomains = \"example.com\"\n"
        ))
        .fails_with(says);
    let says = "popgate.toml:4: autoconfig.domains: needs autoconfig.host";
    serve(&["--http", LOOPBACK])
        .config(&format!("{base}[autoconfig]\ndomains = \"example.com\"\n"))
        .fails_with(says);
    let says = "popgate.toml:4: autoconfig.hots: unknown key; did you mean autoconfig.host?";
    serve(&["--http", LOOPBACK])
        .config(&format!("{base}[autoconfig]\nhots = \"pop.example.com\"\n"))
        .fails_with(says);
}
