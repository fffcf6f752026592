//! Who the server is: certificates, STARTTLS, PREAUTH.

use super::*;

/// Makes a certificate, by our authority or by another.
type Make = fn(&Authority, &Authority) -> Identity;

#[tokio::test]
async fn no_octet_of_a_credential_goes_to_a_server_that_cannot_prove_itself() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let bad: [(&str, Make); 4] = [
        ("expired", |ours, _| ours.expired()),
        ("for another host", |ours, _| ours.other_host()),
        ("of an unknown authority", |_, other| other.localhost()),
        ("self-signed", |_, _| Identity::self_signed()),
    ];
    for (what, identity) in bad {
        for security in [Security::ImplicitTls, Security::StartTls] {
            let identity = identity(&authority, &stranger);
            let builder = ScriptedImap::builder();
            let server = match security {
                Security::ImplicitTls => builder.implicit_tls(identity).start(),
                _ => builder.starttls(identity).start(),
            };
            let imap = Imap::new(config(server.port(), security, &authority), None);
            let error = login_error(&imap, alice()).await;
            assert!(
                matches!(error, UpstreamError::Misconfigured(_)),
                "{what}: {error:?}"
            );
            let sent = server.commands();
            assert!(
                sent.iter().all(|(_, line)| line == "STARTTLS"),
                "{what}: {sent:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_good_certificate_is_good() {
    let authority = Authority::new();
    for security in [Security::ImplicitTls, Security::StartTls] {
        let identity = authority.localhost();
        let builder = one_message();
        let server = match security {
            Security::ImplicitTls => builder.implicit_tls(identity).start(),
            _ => builder.starttls(identity).start(),
        };
        let imap = Imap::new(config(server.port(), security, &authority), None);
        let mut session = login(&imap, alice()).await.unwrap();
        assert_eq!(session.snapshot().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_handshake_that_breaks_off_is_an_outage() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        // Part of the ClientHello, then the end.
        let mut some = [0; 16];
        socket.read_exact(&mut some).unwrap();
    });
    let imap = Imap::new(config(port, Security::ImplicitTls, &Authority::new()), None);
    let error = login_error(&imap, alice()).await;
    assert!(
        matches!(error, UpstreamError::Temporary { .. }),
        "{error:?}"
    );
    server.join().unwrap();
}

#[tokio::test]
async fn nobody_at_home_is_an_outage() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let imap = Imap::new(config(port, Security::ImplicitTls, &Authority::new()), None);
    let error = login_error(&imap, alice()).await;
    assert!(
        matches!(error, UpstreamError::Temporary { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn starttls_that_was_stripped_is_missed() {
    let server = ScriptedImap::builder().start();
    let imap = Imap::new(
        config(server.port(), Security::StartTls, &Authority::new()),
        None,
    );
    let error = login_error(&imap, alice()).await;
    assert!(
        matches!(error, UpstreamError::Misconfigured(_)),
        "{error:?}"
    );
    assert_eq!(server.commands(), []);
}

#[tokio::test]
async fn starttls_that_is_refused_sends_nothing_in_the_clear() {
    for answer in ["NO not now", "BAD what?", "OK begin\r\n* OK injected"] {
        let authority = Authority::new();
        let server = ScriptedImap::builder()
            .starttls(authority.localhost())
            .on("STARTTLS", move |command, _| {
                Answer::send(format!("{} {answer}\r\n", command.tag))
            })
            .start();
        let imap = Imap::new(config(server.port(), Security::StartTls, &authority), None);
        let error = login_error(&imap, alice()).await;
        assert!(is_outage(&error), "{answer}: {error:?}");
        let sent: Vec<String> = server
            .commands()
            .into_iter()
            .map(|(_, line)| line)
            .collect();
        assert_eq!(sent, ["STARTTLS"], "{answer}");
    }
}

#[tokio::test]
async fn what_was_announced_in_the_clear_is_forgotten_under_tls() {
    let authority = Authority::new();
    let server = one_message()
        .starttls(authority.localhost())
        .greeting("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=XOAUTH2] hello")
        .start();
    let imap = Imap::new(config(server.port(), Security::StartTls, &authority), None);
    login(&imap, alice()).await.unwrap();
    assert_eq!(server.commands_starting("AUTHENTICATE PLAIN").len(), 1);
}

#[tokio::test]
async fn preauth_logs_nobody_in() {
    for security in [Security::Cleartext, Security::StartTls] {
        let authority = Authority::new();
        let server = ScriptedImap::builder()
            .starttls(authority.localhost())
            .greeting("* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] welcome")
            .start();
        let imap = Imap::new(config(server.port(), security, &authority), None);
        let error = login_error(&imap, alice()).await;
        assert!(matches!(error, UpstreamError::Protocol(_)), "{error:?}");
        assert_eq!(server.commands(), []);
    }
}
