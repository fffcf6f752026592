//! The end of the program while somebody is at the pages.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use popgate::accounts::KeyRing;

use crate::support::{Answer, Gateway, PATIENCE, ScriptedImap};
use crate::{Gate, plain};

/// Sends a request, whose answer ends the connection.
fn ask(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What is between these two.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap();
    rest.split_once(end).unwrap().0
}

#[test]
fn who_is_signing_in_is_answered_before_the_end() {
    let gate = Gate::default();
    let closed = gate.clone();
    let imap = ScriptedImap::builder()
        .messages(&[&plain(1, 100)])
        .on("AUTHENTICATE", move |_, _| {
            closed.pass();
            Answer::Usual
        })
        .start();
    // Free a moment ago: the page's own address must be known before it is served.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("key"), KeyRing::generate().unwrap().reveal()).unwrap();
    fs::create_dir(path("state")).unwrap();
    let config = format!(
        "state = {:?}\npop3 = \"127.0.0.1:0\"\nhttp = \"{address}\"\nallow_cleartext = true\n\
         login = \"accounts\"\n[accounts]\nkey_file = {:?}\n\
         [provider.mail]\nupstream = {:?}\ngrant = \"password\"\n\
         [enrolment]\npublic_url = \"http://{address}\"\ndomains = [\"example.org\"]\n\
         host = \"localhost\"\n",
        path("state"),
        path("key"),
        imap.plain_url(),
    );
    fs::write(path("popgate.toml"), config).unwrap();
    let config = path("popgate.toml");
    let mut gateway = Gateway::start_expecting(2, &["--config", config.to_str().unwrap()]);

    let page = "/enrol/provider/mail";
    let head = format!("HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let form = answer(ask(address, &format!("GET {page} {head}\r\n")));
    let cookie = between(&form, "set-cookie: ", ";");
    let csrf = between(&form, "name=\"csrf\" value=\"", "\"");
    let body = format!("csrf={csrf}&address=alice@example.org&secret=pw-alice@example.org");
    let request = format!(
        "POST {page} {head}Origin: http://{address}\r\nCookie: {cookie}\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
        body.len()
    );
    let signing_in = ask(address, &request);
    gate.wait_until_reached();
    gateway.terminate();
    // With the last session the control socket goes.
    while path("state").join("control.sock").exists() {
        std::thread::yield_now();
    }
    gate.open();
    let answer = answer(signing_in);
    assert!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
    assert!(gateway.wait().success());
}
