//! The external check: what it is asked, and what its answers mean.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn config(url: &str) -> HttpCheckConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    HttpCheckConfig {
        url: url.parse().unwrap(),
        timeout: Duration::from_millis(500),
        tls: Arc::new(tls),
        servers: [(
            "192.0.2.1:143".to_owned(),
            "imaps://imap.example.org".to_owned(),
        )]
        .into(),
    }
}

/// Answers one request, and gives it back.
async fn ask(
    answer: &str,
    user: &str,
    password: &str,
) -> (Result<HttpVerdict, CredentialError>, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let check = HttpCheck::new(config(&format!("http://127.0.0.1:{port}/auth?site=1"))).unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut octets = [0; 1024];
            let count = stream.read(&mut octets).await.unwrap();
            assert!(count > 0, "cut off");
            request.extend_from_slice(&octets[..count]);
        }
        // The client may have given up by then.
        let _ = stream.write_all(answer.as_bytes()).await;
        (stream, String::from_utf8(request).unwrap())
    };
    let secret = Secret::from(password);
    let client = IpAddr::from(Ipv4Addr::new(192, 0, 2, 42).to_ipv6_mapped());
    let ((stream, request), verdict) =
        tokio::join!(serve, check.check(user, &secret, client, 2, true));
    drop(stream);
    (verdict, request)
}

fn answer(headers: &str) -> String {
    format!(
        "HTTP/1.0 200 OK\r\n{}\r\n\r\n",
        headers.replace('\n', "\r\n")
    )
}

async fn verdict(headers: &str) -> Result<HttpVerdict, CredentialError> {
    ask(&answer(headers), "alice", "secret").await.0
}

fn admitted() -> HttpVerdict {
    HttpVerdict::Admitted {
        user: None,
        password: None,
        upstream: None,
    }
}

#[tokio::test]
async fn it_is_asked_as_nginx_asks() {
    let odd = "p w%+\u{e9}\"\r\nAuth-User: root";
    let (outcome, request) = ask(&answer("Auth-Status: OK"), "alice smith@example.org", odd).await;
    assert_eq!(outcome, Ok(admitted()));
    assert!(
        request.starts_with("GET /auth?site=1 HTTP/1.1\r\n"),
        "{request}"
    );
    let lines: Vec<String> = request.lines().map(str::to_ascii_lowercase).collect();
    let expected = [
        "auth-method: plain",
        "auth-user: alice%20smith@example.org",
        "auth-pass: p%20w%25%2b%c3%a9\"%0d%0aauth-user:%20root",
        "auth-protocol: pop3",
        "auth-login-attempt: 2",
        "client-ip: 192.0.2.42",
        "auth-ssl: on",
    ];
    for line in expected {
        let count = lines.iter().filter(|it| *it == line).count();
        assert_eq!(count, 1, "{line} in\n{request}");
    }
}

#[tokio::test]
async fn an_answer_may_name_another_user_password_and_a_listed_server() {
    let headers =
        "Auth-Status: OK\nAuth-User: a1\nAuth-Pass: s e c\nAuth-Server: 192.0.2.1\nAuth-Port: 143";
    let HttpVerdict::Admitted {
        user,
        password,
        upstream,
    } = verdict(headers).await.unwrap()
    else {
        panic!("refused");
    };
    assert_eq!(user.as_deref(), Some("a1"));
    assert_eq!(password, Some(Secret::from("s e c")));
    assert_eq!(upstream.as_deref(), Some("imaps://imap.example.org"));
    // Nobody else's server is followed.
    for other in [
        "192.0.2.2\nAuth-Port: 143",
        "192.0.2.1\nAuth-Port: 144",
        "192.0.2.1",
    ] {
        let headers = format!("Auth-Status: OK\nAuth-Server: {other}");
        assert_eq!(verdict(&headers).await, Ok(admitted()), "{other}");
    }
}

#[tokio::test]
async fn only_a_text_refuses() {
    let refused = |wait: Option<u64>| {
        let wait = wait.map(Duration::from_secs);
        Ok(HttpVerdict::Refused { wait })
    };
    let text = "Auth-Status: Invalid login or password";
    assert_eq!(verdict(text).await, refused(None));
    let answers = [
        ("3", Some(3)),
        ("0", Some(0)),
        ("100000", Some(60)),
        ("soon", None),
    ];
    for (wait, expected) in answers {
        let headers = format!("{text}\nAuth-Wait: {wait}");
        assert_eq!(verdict(&headers).await, refused(expected), "{wait}");
    }
    // Not as nginx writes it, so it is a text.
    assert_eq!(verdict("Auth-Status: ok").await, refused(None));
    let headers = format!("{text}\nAuth-Error-Code: 535");
    assert_eq!(verdict(&headers).await, refused(None));
}

#[tokio::test]
async fn whatever_is_no_answer_is_an_outage() {
    let answers = [
        answer("Content-Length: 0"),
        answer("Auth-Status:"),
        answer("Auth-Status: WAIT\nAuth-Wait: 1"),
        answer("Auth-Status: OK\nAuth-Status: Invalid"),
        answer("Auth-Status: OK\nAuth-User: a\nAuth-User: b"),
        answer("Auth-Status: Try later\nAuth-Error-Code: 451 4.3.0"),
        "HTTP/1.0 302 Found\r\nLocation: http://127.0.0.1:1/\r\nAuth-Status: OK\r\n\r\n".to_owned(),
        "HTTP/1.0 401 No\r\nAuth-Status: Invalid\r\n\r\n".to_owned(),
        "HTTP/1.0 403 No\r\nAuth-Status: Invalid\r\n\r\n".to_owned(),
        "HTTP/1.0 500 Oh\r\nAuth-Status: OK\r\n\r\n".to_owned(),
        "HTTP/1.0 204 Nothing\r\nAuth-Status: OK\r\n\r\n".to_owned(),
        "* OK not HTTP\r\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\nAuth-Status: O".to_owned(),
        format!(
            "HTTP/1.0 200 OK\r\nX: {}\r\nAuth-Status: OK\r\n\r\n",
            "x".repeat(2 << 20)
        ),
        format!(
            "HTTP/1.0 200 OK\r\n{}Auth-Status: OK\r\n\r\n",
            "X: x\r\n".repeat(1000)
        ),
        String::new(),
    ];
    for answer in answers {
        let (outcome, _) = ask(&answer, "alice", "secret").await;
        match outcome {
            Err(CredentialError::Temporary(reason)) => {
                assert!(
                    !reason.contains("secret") && !reason.contains("alice"),
                    "{reason}"
                );
            }
            other => panic!("{answer:.60}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_is_not_waited_for() {
    let endless = "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 1000000000\r\n\r\n";
    assert_eq!(ask(endless, "alice", "secret").await.0, Ok(admitted()));
}

#[tokio::test]
async fn nobody_there_is_an_outage() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let check = HttpCheck::new(config(&format!("http://127.0.0.1:{port}/"))).unwrap();
    let secret = Secret::from("secret");
    let ask = || check.check("alice", &secret, Ipv6Addr::LOCALHOST.into(), 1, false);
    // It listens, and never answers.
    let silent = ask().await;
    assert!(
        matches!(&silent, Err(CredentialError::Temporary(it)) if it.contains("in time")),
        "{silent:?}"
    );
    drop(listener);
    let gone = ask().await;
    assert!(
        matches!(gone, Err(CredentialError::Temporary(_))),
        "{gone:?}"
    );
}

#[test]
fn passwords_go_over_https_or_stay_on_the_host() {
    for url in [
        "http://auth.example.org/",
        "http://127.0.0.1.example.org/",
        "ftp://127.0.0.1/",
        "https://u:p@auth.example.org/",
    ] {
        let error = HttpCheck::new(config(url)).unwrap_err();
        assert!(matches!(error, CredentialError::Misconfigured(_)), "{url}");
    }
    for url in [
        "https://auth.example.org/",
        "http://localhost:9000/",
        "http://[::1]/",
        "http://127.1.2.3/",
    ] {
        HttpCheck::new(config(url)).unwrap();
    }
}
