//! No token, password, code or key is anywhere that it does not belong.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use crate::ALICE;
use crate::site::{Site, dovecot, lines, login, metrics};
use crate::support::AuthorizationServer;
use crate::support::authorization_server::CLIENT_SECRET;

const WRONG: &str = "canary-wrong-password";

#[test]
fn no_secret_is_in_logs_metrics_the_state_folder_or_what_the_system_shows() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let dovecot = dovecot(&server);
    let site = Site::new(
        server,
        &dovecot.plain_url(),
        3600,
        "[log]\nlevel = \"trace\"\n[upstream_rest]\nlongest = \"0s\"\n",
    );
    let hook = site.path("hook");
    let config = site.path("popgate.toml");
    let written = fs::read_to_string(&config).unwrap();
    fs::write(&config, written + &Site::hook(&hook)).unwrap();
    let mut gateway = site.start();

    // All that can go well, and wrong.
    assert_eq!(site.read(&gateway), 2);
    login(&gateway, WRONG);
    site.end_access();
    assert_eq!(site.read(&gateway), 2);
    for fault in [
        json!({"endpoint": "introspect", "status": 401}),
        json!({"grant": "refresh_token", "status": 500}),
        json!({"grant": "refresh_token", "error": "invalid_client"}),
    ] {
        site.server.fault(fault);
        site.end_access();
        site.login(&gateway);
        site.server.mend();
        site.sign_in_again();
    }
    assert_eq!(site.read(&gateway), 2);
    site.server.revoke(ALICE);
    site.login(&gateway);
    lines(&hook, 1);
    site.sign_in_again();
    assert_eq!(site.read(&gateway), 2);

    assert!(
        gateway.logs().contains("tokens renewed"),
        "{}",
        gateway.logs()
    );
    let mut secrets = site.server.issued();
    assert!(secrets.len() > 10, "{}", secrets.len());
    secrets.extend([
        site.password.reveal().to_owned(),
        WRONG.to_owned(),
        CLIENT_SECRET.to_owned(),
        fs::read_to_string(site.path("key"))
            .unwrap()
            .trim()
            .to_owned(),
    ]);
    let of_process = |name: &str| fs::read(format!("/proc/{}/{name}", gateway.pid()));
    let mut places = vec![
        ("the log".to_owned(), gateway.logs().into_bytes()),
        ("/metrics".to_owned(), metrics(&gateway).into_bytes()),
        ("the hook".to_owned(), fs::read(&hook).unwrap()),
    ];
    for name in ["cmdline", "environ", "comm", "status", "maps", "mountinfo"] {
        places.push((name.to_owned(), of_process(name).unwrap_or_default()));
    }
    files(&site.state(), &mut places);
    assert!(
        places
            .iter()
            .any(|(name, it)| name.ends_with("durable.redb") && it.len() > 1000)
    );
    for (place, octets) in &places {
        for secret in &secrets {
            assert!(!contains(octets, secret), "a secret is in {place}");
        }
        // What a token says in base64 says who it is of.
        assert!(!contains(octets, "eyJ"), "a JSON web token is in {place}");
    }

    // Nor would they be in a core.
    let limits = String::from_utf8(of_process("limits").unwrap()).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");
    let before = entries(Path::new("."));
    gateway.signal(Signal::ABORT);
    gateway.wait();
    assert_eq!(entries(Path::new(".")), before);
    let mut after = Vec::new();
    files(&site.state(), &mut after);
    assert!(after.iter().all(|(name, _)| !name.contains("core")));
}

fn contains(octets: &[u8], text: &str) -> bool {
    memchr::memmem::find(octets, text.as_bytes()).is_some()
}

fn entries(folder: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
}
