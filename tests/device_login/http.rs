//! An HTTP service that judges passwords, and says where the mailbox is.

use std::fs;
use std::process::{Command, Output, Stdio};

use popgate::accounts::Home;
use popgate::server::policies::Judge;

use super::support::Gateway;
use super::support::servers::{Dovecot, dovecot};
use super::upstreams::Judging;
use super::{Setup, WRONG, World, judged};

const OK: &str = "Auth-Status: OK\r\n";
const NO: &str = "Auth-Status: Invalid login or password\r\nAuth-Wait: 1\r\n";

fn world(service: &Judging) -> World {
    World::with(Setup {
        policies: judged(Judge::Http, Home::Gateway),
        http: Some(service.url.clone()),
        ..Setup::default()
    })
}

#[test]
fn who_is_let_in_opens_the_mailbox_with_the_password() {
    let service = Judging::start(OK);
    let world = world(&service);
    world.own.opens("alice", &["x"]);
    world.login("alice+Junk", "x").unwrap().quit();
    assert_eq!(world.own.logins(), ["alice: x"]);
    let request = service.requests().remove(0);
    for header in [
        "auth-user: alice\r",
        "auth-pass: x\r",
        "client-ip: 127.0.0.1\r",
    ] {
        assert!(request.contains(header), "{header} is not in {request}");
    }
    // Somebody else's proof is not asked about.
    assert_eq!(world.plain("bob", "alice", "x").err().unwrap(), WRONG);
    assert_eq!(service.requests().len(), 1);
}

#[test]
fn who_is_not_let_in_never_reaches_the_upstream() {
    let service = Judging::start(NO);
    let world = world(&service);
    world.own.opens("alice", &["x"]);
    for _ in 0..5 {
        assert_eq!(world.refused("alice", "x"), WRONG);
    }
    assert!(world.own.logins().is_empty());
    // The service is spared what it has refused three times.
    assert_eq!(service.requests().len(), 3);
}

#[test]
fn the_service_may_say_who_it_is_and_where() {
    let other = "Auth-Status: OK\r\nAuth-User: a.smith\r\nAuth-Pass: upstream\r\nAuth-Server: 127.0.0.2\r\nAuth-Port: 993\r\n";
    let service = Judging::start(other);
    let world = world(&service);
    world.other.opens("a.smith", &["upstream"]);
    world.login("alice", "x").unwrap().quit();
    assert_eq!(world.other.logins(), ["a.smith: upstream"]);
    assert!(world.own.logins().is_empty());
}

#[test]
fn an_account_of_popgates_own_is_not_asked_about() {
    let service = Judging::start(OK);
    let world = world(&service);
    world.other.opens("alice@example.org", &["token access-1"]);
    let password = world.enrolled("alice@example.org", "access-1");
    world.login("alice@example.org", &password).unwrap().quit();
    assert_eq!(world.refused("alice@example.org", "x"), WRONG);
    assert!(service.requests().is_empty());
}

#[test]
fn a_service_that_makes_no_sense_refuses_nobody() {
    let service = Judging::start("");
    let world = world(&service);
    world.own.opens("alice", &["x"]);
    let told = world.refused("alice", "x");
    assert!(told.starts_with("-ERR [SYS/TEMP]"), "{told}");
    assert!(world.own.logins().is_empty());
    service.answers(OK);
    world.login("alice", "x").unwrap().quit();
}

/// The settings that docs/accounts.md names for it, with the service at this URL.
fn as_documented(service: &Judging) -> String {
    let docs = include_str!("../../docs/accounts.md");
    let (_, section) = docs
        .split_once("\n## Passwords that your own service judges\n")
        .unwrap();
    let (_, settings) = section.split_once("```toml\n").unwrap();
    let (settings, _) = settings.split_once("```").unwrap();
    settings.replace("http://127.0.0.1:9000/auth", service.url.as_str())
}

/// The program itself, with these settings: nobody has an account, and there is no
/// folder to keep any in.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn new(dovecot: &Dovecot, service: &Judging) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "pop3 = \"127.0.0.1:0\"\nallow_cleartext = true\nupstream = {:?}\n{}",
            dovecot.plain_url(),
            as_documented(service),
        );
        fs::write(folder.path().join("popgate.toml"), text).unwrap();
        Self { folder }
    }

    fn config(&self) -> String {
        let config = self.folder.path().join("popgate.toml");
        config.to_str().unwrap().to_owned()
    }

    fn check(&self, user: &str, password: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_popgate"))
            .args(["check", user, "--config", &self.config()])
            .env_clear()
            .env("POPGATE_PASSWORD", password)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

#[test]
fn the_service_is_asked_where_there_are_no_accounts() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let service = Judging::start(OK);
    let program = Program::new(&dovecot, &service);
    let gateway = Gateway::start_expecting(1, &["--config", &program.config()]);
    gateway.pop3().login("alice", "pw-alice");
    assert_eq!(service.requests().len(), 1);
    service.answers(NO);
    let mut client = gateway.pop3();
    client.expect_ok("USER bob");
    assert!(client.expect_err("PASS pw-bob").starts_with("[AUTH]"));
    assert_eq!(service.requests().len(), 2);
}

#[test]
fn a_check_asks_the_service_first_as_a_login_does() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let service = Judging::start(OK);
    let program = Program::new(&dovecot, &service);
    let well = |password: &str| {
        let Output { status, stdout, .. } = program.check("alice", password);
        let said = String::from_utf8(stdout).unwrap();
        assert!(status.success() && said.contains("All is well."), "{said}");
        assert!(said.contains("let in by auth_http"), "{said}");
    };
    well("pw-alice");
    assert!(service.requests()[0].contains("auth-pass: pw-alice\r"));
    // What is typed is none of the mail server's affair.
    service.answers("Auth-Status: OK\r\nAuth-User: alice\r\nAuth-Pass: pw-alice\r\n");
    well("x");
    for (answer, says) in [
        (NO, "auth_http: the service does not let alice in"),
        ("", "auth_http: the external check: no Auth-Status"),
    ] {
        service.answers(answer);
        let failed = program.check("alice", "pw-alice");
        let error = String::from_utf8(failed.stderr).unwrap();
        assert!(error.contains(says), "{error}");
        assert_eq!((failed.status.code(), failed.stdout), (Some(1), vec![]));
    }
    assert_eq!(service.requests().len(), 4);
}
