//! The life of an account: enrolled, renewed, revoked, told of, signed in again.

use std::process::Command;

use crate::ALICE;
use crate::site::{Site, dovecot, lines, wait_for_metric};
use crate::support::servers::scripts;
use crate::support::{AuthorizationServer, Gateway};

#[test]
fn from_the_first_sign_in_to_the_second() {
    let Some(server) = AuthorizationServer::start() else {
        return;
    };
    let dovecot = dovecot(&server);
    let told = tempfile::tempdir().unwrap();
    let file = told.path().join("told");
    // Each login asks the mail server.
    let fresh = "[upstream_rest]\nlongest = \"0s\"\n";
    let site = Site::new(server, &dovecot.plain_url(), 3600, fresh);
    let config = site.path("popgate.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, written + &Site::hook(&file)).unwrap();
    let gateway = site.start();

    assert_eq!(site.read(&gateway), 2);
    fetchmail(&site, &gateway);
    assert_eq!(site.server.refreshes(), 0);
    wait_for_metric(&gateway, "popgate_token_state{state=\"ok\"} 1");

    // The access token ends: the next login renews it, those after that need not.
    site.end_access();
    assert_eq!(site.read(&gateway), 2);
    assert_eq!(site.read(&gateway), 2);
    assert_eq!(site.server.refreshes(), 1);

    // The server takes the token back before its end: another one is got at once.
    site.server.revoke(ALICE);
    let refused = site.login(&gateway);
    assert!(refused.starts_with("-ERR [AUTH]"), "{refused}");
    assert_eq!(site.server.refreshes(), 2);
    let trouble = site.account().trouble.unwrap();
    assert!(trouble.reason.contains("invalid_grant"), "{trouble:?}");
    let line = gateway.wait_for_log("THE ACCOUNT CANNOT BE USED");
    assert!(line.contains("popgate account reauthorize"), "{line}");

    // One is told once; nobody asks the provider any more.
    for _ in 0..5 {
        let refused = site.login(&gateway);
        assert!(refused.starts_with("-ERR [AUTH]"), "{refused}");
    }
    assert_eq!(site.server.refreshes(), 2);
    let lines = lines(&file, 1);
    let json: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(json["event"], "sign-in-needed");
    assert_eq!(json["address"], ALICE);
    assert_eq!(json["since"], trouble.since);
    wait_for_metric(&gateway, "popgate_token_state{state=\"refused\"} 1");
    wait_for_metric(
        &gateway,
        "popgate_token_refreshes_total{result=\"refused\"} 1",
    );
    wait_for_metric(&gateway, "popgate_token_alarms_total{result=\"told\"} 1");

    // She signs in again: the phone goes on with the password that it has.
    site.sign_in_again();
    assert_eq!(site.read(&gateway), 2);
    assert_eq!(site.account().trouble, None);
    let said = gateway.logs().matches("THE ACCOUNT CANNOT BE USED").count();
    assert_eq!(said, 1, "{}", gateway.logs());
}

/// A real client, with the password of the device.
pub fn fetchmail(site: &Site, gateway: &Gateway) {
    use std::os::unix::fs::PermissionsExt as _;
    let config = format!(
        "set idfile {dir}/fetchids\nset invisible\nset no bouncemail\n\
         poll localhost protocol POP3 uidl service {port}\n\
         user {ALICE:?} password {password:?} is root here sslproto ''\n\
         no rewrite keep mda \"cat >>{dir}/fetched\"\n",
        dir = site.folder.path().display(),
        port = gateway.address("pop3").port(),
        password = site.password.reveal(),
    );
    let file = site.path("fetchmailrc");
    std::fs::write(&file, config).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let output = Command::new("timeout")
        .args(["--signal=KILL", "30"])
        .arg(scripts().join("run"))
        .args(["fetchmail", "-f"])
        .arg(&file)
        .arg("--pidfile")
        .arg(site.path("fetchmail.pid"))
        .env("HOME", site.folder.path())
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let fetched = std::fs::read(site.path("fetched")).unwrap();
    assert!(fetched.len() > 1000, "{output:?}");
}
