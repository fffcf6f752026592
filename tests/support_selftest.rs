//! The test support itself: what other tests rely on, tried against real
//! servers and against each other.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use support::pop3::unstuff;
use support::{
    Action, Answer, Authority, Direction, Fault, FaultProxy, Gateway, Identity, ImapClient,
    MailServer, PATIENCE, Place, Pop3, ScriptedImap, messages, utf7,
};

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What is appended comes back octet by octet, in order.
fn keeps_what_is_appended(server: &MailServer) {
    for message in messages::awkward() {
        server.append("alice", "INBOX", &message);
    }
    let stored = server.mailbox("alice", "INBOX");
    assert_eq!(stored.len(), messages::awkward().len());
    for (stored, appended) in stored.iter().zip(messages::awkward()) {
        assert_eq!(stored.octets, appended);
    }
    assert!(stored.is_sorted_by_key(|message| message.uid));
    assert_eq!(server.mailbox("bob", "INBOX"), []);
}

#[test]
fn dovecot_keeps_what_is_appended() {
    let Some(dovecot) = support::dovecot() else {
        return;
    };
    keeps_what_is_appended(&dovecot);
    let mut imap = dovecot.imap("alice");
    imap.expunge("INBOX", "2");
    imap.add_flags("INBOX", "3", "\\Deleted");
    let stored = dovecot.mailbox("alice", "INBOX");
    assert_eq!((stored[0].uid, stored[1].uid), (1, 3));
    assert_eq!(stored[1].flags, ["\\Deleted"]);
}

#[test]
fn courier_keeps_what_is_appended_and_can_little() {
    let Some(courier) = support::courier() else {
        return;
    };
    courier.append("alice", "INBOX", &messages::plain(1, 2000));
    courier.append("alice", "INBOX.Trash", &messages::plain(2, 2000));
    assert_eq!(
        courier.mailbox("alice", "INBOX")[0].octets,
        messages::plain(1, 2000)
    );
    assert_eq!(
        courier.mailbox("alice", "INBOX.Trash")[0].octets,
        messages::plain(2, 2000)
    );
    let answer = courier.imap("alice").ok("CAPABILITY");
    assert!(answer[0].text.contains("UIDPLUS"));
    for missing in ["MOVE", "LITERAL+", "SASL-IR", "ESEARCH"] {
        assert!(!answer[0].text.contains(missing), "{}", answer[0].text);
    }
}

#[test]
fn cyrus_keeps_what_is_appended_and_speaks_jmap() {
    let Some(cyrus) = support::cyrus() else {
        return;
    };
    cyrus.append("alice", "INBOX", &messages::plain(1, 2000));
    assert_eq!(
        cyrus.mailbox("alice", "INBOX")[0].octets,
        messages::plain(1, 2000)
    );
    let url = cyrus.jmap_url();
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut http = TcpStream::connect(host).unwrap();
    http.set_read_timeout(Some(PATIENCE)).unwrap();
    http.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    http.read_to_string(&mut answer).unwrap();
    assert!(answer.contains(" 301 "), "{answer}");
}

#[test]
fn courier_serves_the_same_mail_by_pop3() {
    let Some(courier) = support::courier() else {
        return;
    };
    for number in 1..=3 {
        courier.append("alice", "INBOX", &messages::plain(number, 600));
    }
    let mut pop3 = courier.pop3("alice");
    // Its order is that of file names, which hold microseconds without zeros in front.
    let mut retrieved: Vec<_> = (1..=3).map(|number| pop3.retrieve(number)).collect();
    retrieved.sort();
    let mut stored: Vec<_> = (1..=3).map(|it| messages::plain(it, 600)).collect();
    stored.sort();
    assert_eq!(retrieved, stored);
    let unique_ids = pop3.unique_ids();
    let has_third = unique_ids.iter().any(|it| it.starts_with("UID3-"));
    assert!(has_third, "{unique_ids:?}");
    pop3.expect_ok("DELE 2");
    assert!(pop3.quit().starts_with("+OK"));
    assert_eq!(courier.mailbox("alice", "INBOX").len(), 2);
    assert_eq!(
        courier.pop3("alice").unique_ids(),
        [&*unique_ids[0], &unique_ids[2]]
    );
}

/// What tests with more than an INBOX rely on.
fn has_more_mailboxes(server: &MailServer, of_others: &str) {
    let mut imap = server.imap("alice");
    // Cyrus makes a user's mailboxes at the first login.
    drop(server.imap("bob"));
    imap.create("Gr\u{fc}\u{df}e & \u{4f60}\u{597d} \u{1f4ec}");
    imap.create("Team");
    imap.allow("Team", "bob", "lrswite");
    imap.create_locked("Locked", "alice");
    let refused = imap.command("SELECT Locked");
    let last = &refused.last().unwrap().text;
    assert!(last.contains(" NO "), "{last}");
    imap.append("INBOX", &messages::plain(1, 600));
    imap.append("INBOX", &messages::plain(2, 600));
    imap.append("Team", &messages::plain(3, 600));
    let theirs = format!("\"{of_others}/Team\"");
    assert_eq!(server.mailbox("bob", &theirs).len(), 1);

    let before = server.contents("alice");
    let wire = "Gr&APwA3w-e &- &T2BZfQ- &2D3c7A-";
    assert_eq!(utf7("Gr\u{fc}\u{df}e & \u{4f60}\u{597d} \u{1f4ec}"), wire);
    assert_eq!(before.names("INBOX"), ["1@example.org", "2@example.org"]);
    assert_eq!(before.changes(&server.contents("alice")), [""; 0]);
    imap.ok("SELECT INBOX");
    imap.ok(&format!("UID MOVE 1 \"{wire}\""));
    imap.ok("UID STORE 2 +FLAGS (\\Seen $Later)");
    imap.ok("CREATE New");
    imap.ok("DELETE Team");
    let expected = [
        format!("{wire} +1@example.org"),
        "INBOX -1@example.org".to_owned(),
        "INBOX 2@example.org +$Later +\\Seen".to_owned(),
        "New made".to_owned(),
        "Team gone".to_owned(),
    ];
    assert_eq!(before.changes(&server.contents("alice")), expected);
    imap.ok("SELECT INBOX");
    imap.ok("UID STORE 2 -FLAGS (\\Seen)");
    imap.ok("CREATE Team");
    let changes = before.changes(&server.contents("alice"));
    assert_eq!(
        changes[2..],
        [
            "INBOX 2@example.org +$Later",
            "New made",
            "Team -3@example.org",
            "Team UIDVALIDITY changed"
        ]
    );
}

#[test]
fn dovecot_has_more_mailboxes() {
    let Some(dovecot) = support::Dovecot::with(&[("SHARING", "1")]) else {
        return;
    };
    has_more_mailboxes(&dovecot, "shared/alice");
}

#[test]
fn cyrus_has_more_mailboxes() {
    let Some(cyrus) = support::cyrus() else {
        return;
    };
    has_more_mailboxes(&cyrus, "Other Users/alice");
}

#[test]
fn dovecot_can_be_filled_with_files() {
    let Some(dovecot) = support::dovecot() else {
        return;
    };
    dovecot.fill("carol", 200, 1500);
    let stored = dovecot.mailbox("carol", "INBOX");
    assert_eq!(stored.len(), 200);
    assert_eq!(stored[199].octets, messages::plain(200, 1500));
}

#[test]
fn dovecot_takes_options() {
    let options = [
        ("CAPABILITY", "IMAP4rev1 UIDPLUS"),
        ("MAILBOXES", ""),
        ("OAUTH", "1"),
        ("USERS", "eve:{PLAIN}pw-eve"),
    ];
    let Some(dovecot) = support::Dovecot::with(&options) else {
        return;
    };
    let mut imap = dovecot.imap("eve");
    assert_eq!(
        imap.ok("CAPABILITY")[0].text,
        "* CAPABILITY IMAP4rev1 UIDPLUS"
    );
    assert_eq!(imap.ok("LIST \"\" *").len(), 2);

    use base64::Engine as _;
    let bearer = |token: &str| {
        let response = format!("user=alice\u{1}auth=Bearer {token}\u{1}\u{1}");
        let response = base64::engine::general_purpose::STANDARD.encode(response);
        let mut socket = TcpStream::connect(local(dovecot.imap_port())).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let command = format!("a AUTHENTICATE XOAUTH2 {response}\r\n\r\nb LOGOUT\r\n");
        socket.write_all(command.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    };
    let hour = Duration::from_secs(3600);
    assert!(bearer(&dovecot.token("alice", hour)).contains("a OK "));
    for bad in [
        dovecot.token("bob", hour),
        dovecot.expired_token("alice"),
        "rubbish".to_owned(),
    ] {
        let answer = bearer(&bad);
        assert!(answer.contains("a NO [AUTHENTICATIONFAILED]"), "{answer}");
    }
}

#[test]
fn the_pop3_client_reads_what_dovecot_serves() {
    let Some(dovecot) = support::dovecot() else {
        return;
    };
    for message in messages::awkward() {
        dovecot.append("alice", "INBOX", &message);
    }
    let mut clients = [
        Pop3::connect(local(dovecot.pop3_port())),
        Pop3::connect(local(dovecot.pop3_port())).start_tls(&dovecot.ca_file()),
        Pop3::connect_tls(local(dovecot.pop3s_port()), &dovecot.ca_file()),
    ];
    for client in &mut clients {
        client.expect_err("RETR 1");
        client.login("alice", "pw-alice");
        let sizes = client.sizes();
        assert_eq!(client.unique_ids().len(), messages::awkward().len());
        for (at, message) in messages::awkward().into_iter().enumerate() {
            assert_eq!(sizes[at], message.len());
            // RFC 1939 §3: a line end is there in front of the dot.
            let mut expected = message;
            if !expected.ends_with(b"\r\n") {
                expected.extend_from_slice(b"\r\n");
            }
            assert_eq!(client.retrieve(at + 1), expected);
        }
    }
    let [first, ..] = clients;
    assert!(first.quit().starts_with("+OK"));
}

#[test]
fn dot_stuffing_is_taken_away() {
    assert_eq!(
        unstuff(b"..\r\n...\r\na.\r\n.b\r\n"),
        b".\r\n..\r\na.\r\nb\r\n"
    );
}

#[test]
fn the_proxy_passes_everything_on_in_any_slices() {
    let Some(dovecot) = support::dovecot() else {
        return;
    };
    let proxy = FaultProxy::to_port(dovecot.imap_port(), |_| {
        vec![
            Fault::Slice(Direction::ToClient, 1),
            Fault::Slice(Direction::ToServer, 3),
        ]
    });
    let mut imap = ImapClient::login(proxy.port(), "alice", "pw-alice");
    let message = messages::plain(1, 5000);
    imap.append("INBOX", &message);
    assert_eq!(imap.dump("INBOX")[0].octets, message);
    assert_eq!(proxy.connections(), 1);
    assert!(proxy.octets(Direction::ToServer) > 5000);
    assert!(proxy.octets(Direction::ToClient) > 5000);
}

/// What a client reads through a proxy with this fault, and how it ends.
fn read_through(
    server: u16,
    place: Place,
    action: Action,
) -> (Vec<u8>, Option<std::io::ErrorKind>, FaultProxy) {
    let fault = Fault::At(Direction::ToClient, place, action);
    let proxy = FaultProxy::to_port(server, move |_| vec![fault.clone()]);
    let mut socket = TcpStream::connect(proxy.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut read = Vec::new();
    let mut buffer = [0; 1024];
    let end = loop {
        match socket.read(&mut buffer) {
            Ok(0) => break None,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
            Err(error) => break Some(error.kind()),
        }
    };
    (read, end, proxy)
}

#[test]
fn the_proxy_cuts_at_every_octet() {
    let server = ScriptedImap::builder()
        .greeting("* OK twelve octets")
        .start();
    let whole = b"* OK twelve octets\r\n";
    for count in 0..=whole.len() {
        let place = Place::Behind(u64::try_from(count).unwrap());
        let (read, end, _proxy) = read_through(server.port(), place, Action::Cut);
        assert_eq!((read.as_slice(), end), (&whole[..count], None));
    }
}

#[test]
fn the_proxy_resets() {
    let server = ScriptedImap::builder()
        .greeting("* OK twelve octets")
        .start();
    let (_, end, proxy) = read_through(server.port(), Place::Behind(4), Action::Reset);
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
    assert_eq!(proxy.octets(Direction::ToClient), 4);
    proxy.wait_until_acted(1);
    server.wait_until_closed();
}

#[test]
fn the_proxy_finds_octets_across_slices() {
    // Every octet in a segment of its own, and a false start in front.
    let greeting = Answer::Slices(b"* OK ababac and ababac\r\n".to_vec(), 1);
    let server = ScriptedImap::builder()
        .on("GREETING", move |_, _| greeting.clone())
        .start();
    let at = |nth, behind| Place::Pattern {
        octets: "abac",
        nth,
        behind,
    };
    for (place, expected) in [
        (Place::before("abac"), "* OK ab"),
        (Place::after("abac"), "* OK ababac"),
        (at(2, false), "* OK ababac and ab"),
        (at(2, true), "* OK ababac and ababac"),
    ] {
        let (read, _, _proxy) = read_through(server.port(), place, Action::Cut);
        assert_eq!(String::from_utf8(read).unwrap(), expected);
    }
}

#[test]
fn the_proxy_breaks_one_connection_of_several() {
    let server = ScriptedImap::with_messages(&[]);
    let proxy = FaultProxy::to_port(server.port(), |connection| {
        let fault = Fault::At(Direction::ToServer, Place::before("LOGIN"), Action::Cut);
        if connection == 1 {
            vec![fault]
        } else {
            Vec::new()
        }
    });
    ImapClient::login(proxy.port(), "alice", "pw-alice");
    let mut socket = TcpStream::connect(proxy.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"a LOGIN alice pw-alice\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(!answer.contains("a OK"), "{answer}");
    ImapClient::login(proxy.port(), "alice", "pw-alice");
    assert_eq!((server.connections(), proxy.connections()), (3, 3));
    assert_eq!(server.commands_starting("LOGIN").len(), 2);
}

#[test]
fn a_stall_leaves_the_connection_open() {
    let server = ScriptedImap::builder()
        .greeting("* OK twelve octets")
        .start();
    let fault = || {
        vec![Fault::At(
            Direction::ToClient,
            Place::Behind(7),
            Action::Stall,
        )]
    };
    let proxy = FaultProxy::to_port(server.port(), move |_| fault());
    let mut socket = TcpStream::connect(proxy.address()).unwrap();
    let mut read = [0; 7];
    socket.read_exact(&mut read).unwrap();
    proxy.wait_until_acted(1);
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let error = socket.read(&mut read).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn the_scripted_server_behaves_like_a_server() {
    let awkward = messages::awkward();
    let server = ScriptedImap::builder().messages(&awkward).start();
    let mut imap = ImapClient::login(server.port(), "alice", "pw-alice");
    for (stored, message) in imap.dump("INBOX").iter().zip(&awkward) {
        assert_eq!(&stored.octets, message);
    }
    imap.ok("SELECT INBOX");
    let sizes = imap.ok("UID FETCH 1:* (UID RFC822.SIZE)");
    assert_eq!(sizes.len(), awkward.len() + 1);
    assert_eq!(
        sizes[0].text,
        format!("* 1 FETCH (UID 1 RFC822.SIZE {})", awkward[0].len())
    );
    let part = imap.ok("UID FETCH 1 (BODY.PEEK[]<6.4>)");
    assert_eq!(part[0].text, "* 1 FETCH (UID 1 BODY[]<6> {4})");
    assert_eq!(part[0].literals[0], awkward[0][6..10]);

    imap.ok("UID STORE 2,4 +FLAGS.SILENT (\\Deleted)");
    assert_eq!(imap.ok("UID SEARCH DELETED")[0].text, "* SEARCH 2 4");
    assert_eq!(
        imap.ok("UID SEARCH RETURN () UNDELETED UID 1:5")[0].text,
        "* ESEARCH (TAG \"t9\") UID ALL 1,3,5"
    );
    // Only what is in the set goes.
    assert_eq!(imap.ok("UID EXPUNGE 1:3")[0].text, "* 2 EXPUNGE");
    let moved = imap.ok("UID MOVE 1 Trash");
    assert_eq!(moved[0].text, "* OK [COPYUID 1700000000 1 1] moved");
    assert_eq!(moved[1].text, "* 1 EXPUNGE");
    assert_eq!(server.uids("Trash"), [1]);
    assert_eq!(server.uids("INBOX")[..3], [3, 4, 5]);
    assert_eq!(server.commands_starting("UID EXPUNGE"), ["UID EXPUNGE 1:3"]);
}

#[test]
fn the_scripted_server_holds_to_what_it_announces() {
    let missing = ["UIDPLUS", "MOVE", "ESEARCH", "SASL-IR", "LITERAL+"];
    let server = ScriptedImap::builder()
        .without(&missing)
        .messages(&[b"a\r\n\r\n"])
        .start();
    let mut imap = ImapClient::login(server.port(), "alice", "pw-alice");
    imap.ok("SELECT INBOX");
    for refused in [
        "UID EXPUNGE 1",
        "UID MOVE 1 Trash",
        "UID SEARCH RETURN () ALL",
        "AUTHENTICATE PLAIN AGFsaWNlAHB3LWFsaWNl",
    ] {
        let answer = imap.command(refused);
        assert!(
            answer[0].text.contains(" BAD "),
            "{refused}: {}",
            answer[0].text
        );
    }
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
        .write_all(b"a LOGIN {5+}\r\nalice pw-alice\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(
        answer.ends_with("* BYE LITERAL+ was not announced\r\n"),
        "{answer}"
    );
    // Synchronising literals are always there.
    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
        .write_all(b"a LOGIN {5}\r\nalice {8}\r\npw-alice\r\nb LOGOUT\r\n")
        .unwrap();
    answer.clear();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("a OK logged in\r\n"), "{answer}");
    assert_eq!(
        server.commands_starting("LOGIN {"),
        ["LOGIN {5+}", "LOGIN {5}\r\nalice {8}\r\npw-alice"]
    );
}

#[test]
fn a_test_overrides_what_the_scripted_server_says() {
    let server = ScriptedImap::builder()
        .messages(&[b"a\r\n\r\n", b"b\r\n\r\n"])
        .on("SELECT", |command, world| {
            world.inbox().uid_validity += 1;
            if command.nth == 0 {
                Answer::Usual
            } else {
                Answer::send(command.no("not again"))
            }
        })
        .on("UID FETCH", |_, _| {
            Answer::Reset(b"* 1 FETCH (UID 1 BODY[] {5}\r\na".to_vec())
        })
        .start();
    let mut imap = ImapClient::login(server.port(), "alice", "pw-alice");
    assert!(
        imap.ok("SELECT INBOX")
            .iter()
            .any(|line| line.text.contains("UIDVALIDITY 1700000001"))
    );
    assert_eq!(imap.command("SELECT INBOX")[0].text, "t3 NO not again");
    drop(imap);

    let mut socket = TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"a UID FETCH 1 BODY[]\r\n").unwrap();
    let mut answer = Vec::new();
    let error = socket.read_to_end(&mut answer).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(answer.ends_with(b"{5}\r\na"));
    server.wait_until_closed();
}

#[test]
fn certificates_are_good_or_bad_as_they_are_called() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let handshake = |identity: Identity| {
        let server = ScriptedImap::builder()
            .greeting("+OK in POP3's words")
            .implicit_tls(identity)
            .start();
        Pop3::try_connect_tls(server.address(), &authority.ca_file()).map(|client| client.greeting)
    };
    assert_eq!(handshake(authority.localhost()).unwrap(), "in POP3's words");
    for (bad, why) in [
        (authority.other_host(), "NotValidForName"),
        (authority.expired(), "Expired"),
        (stranger.localhost(), "UnknownIssuer"),
        (Identity::self_signed(), "UnknownIssuer"),
    ] {
        let error = handshake(bad).unwrap_err();
        assert!(format!("{error:?}").contains(why), "{why}: {error:?}");
    }
}

#[test]
fn a_killed_server_leaves_its_mail_and_no_process() {
    let Some(dovecot) = support::dovecot() else {
        return;
    };
    dovecot.append("alice", "INBOX", &messages::plain(1, 100));
    dovecot.kill();
    assert!(TcpStream::connect(local(dovecot.imap_port())).is_err());
    assert!(dovecot.path().join("home/alice/Maildir").is_dir());
}

#[test]
fn the_gateway_starts_in_front_of_the_scripted_server_and_ends() {
    let authority = Authority::new();
    let ca_file = authority.ca_file();
    let trusting = ["--ca-file", ca_file.to_str().unwrap()];
    let plain = || ScriptedImap::builder().messages(&messages::awkward());
    let servers = [
        (
            plain().start(),
            ScriptedImap::plain_url as fn(&ScriptedImap) -> String,
        ),
        (
            plain().starttls(authority.localhost()).start(),
            ScriptedImap::starttls_url,
        ),
        (
            plain().implicit_tls(authority.localhost()).start(),
            ScriptedImap::imaps_url,
        ),
        // As little as a server may have: everything takes the long way round.
        (
            plain()
                .without(&["MOVE", "LITERAL+", "SASL-IR", "ESEARCH", "AUTH=PLAIN"])
                .start(),
            ScriptedImap::plain_url,
        ),
    ];
    for (server, url) in servers {
        let mut gateway = Gateway::with_fresh_connections(&url(&server), &trusting);
        let mut client = gateway.pop3s();
        client.login("alice", "pw-alice");
        assert_eq!(client.sizes().len(), messages::awkward().len());
        assert_eq!(client.retrieve(1), messages::awkward()[0]);
        client.expect_ok("DELE 1");
        assert!(client.quit().starts_with("+OK"));
        assert_eq!(server.uids("INBOX")[0], 2);
        assert_eq!(server.uids("Trash"), [1]);
        server.wait_until_closed();

        let mut client = gateway.pop3_stls();
        client.login("alice", "pw-alice");
        assert_eq!(client.sizes().len(), messages::awkward().len() - 1);
        drop(client);
        assert!(gateway.rss_kib() > 1000 && gateway.peak_rss_kib() >= gateway.rss_kib());
        gateway.terminate();
        assert!(gateway.wait().success(), "{}", gateway.logs());
        assert!(!gateway.is_running());
    }
}
