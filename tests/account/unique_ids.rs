//! `popgate uidl` for mailboxes that accounts open: what an old server handed out is
//! served to devices, and no password of the mailbox is known.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use popgate::accounts::{Accounts, Alarm, Config, Credential, Providers};
use popgate::store::Access;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::provider::Provider;
use super::support::servers::{Dovecot, dovecot, scripts};
use super::support::{Gateway, messages};
use super::{Run, Site, run};

const ALICE: &str = "alice@example.org";

/// A provider to which alice's mail has moved, in another order, and the old server.
struct Move {
    provider: Provider,
    old: Dovecot,
}

impl Move {
    fn begin() -> Option<Self> {
        let provider = Provider::start()?;
        let old = Dovecot::with(&[("EXTRA", "pop3_uidl_format = %v.%u")])?;
        let moving = Self { provider, old };
        for number in 1..=5 {
            moving.old.append("alice", "INBOX", &message(number));
        }
        for number in [3, 1, 5, 2, 4] {
            let dovecot = &moving.provider.dovecot;
            dovecot.append(ALICE, "INBOX", &message(number));
        }
        Some(moving)
    }

    /// What the old server hands out.
    fn old_ids(&self) -> Vec<String> {
        self.old.pop3("alice").unique_ids()
    }

    fn from(&self) -> String {
        format!("pop3+plain://localhost:{}", self.old.pop3_port())
    }

    /// The command that imports alice's ids with the old server's password alone.
    fn import(&self, site: &Site, more: &[&str]) -> Command {
        let from = self.from();
        let mut all = vec!["import", "--from", &from, "--user", ALICE];
        all.extend(["--from-user", "alice", "--json"]);
        all.extend(more);
        let mut command = uidl(site, &all);
        command.env("POPGATE_FROM_PASSWORD", "pw-alice");
        command
    }
}

fn message(number: usize) -> Vec<u8> {
    messages::plain(number, 400 + number * 10)
}

fn uidl(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_popgate"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POPGATE_") {
            command.env_remove(name);
        }
    }
    command.env("POPGATE_CONFIG", site.config());
    command.arg("uidl").args(arguments);
    command.stdin(Stdio::null());
    command
}

fn report(run: Run) -> Value {
    let mut objects = run.objects();
    assert_eq!(objects.len(), 1);
    objects.remove(0)
}

/// As if alice's access token had come to its end.
fn end_access(site: &Site) {
    let config = Config {
        keys: None,
        locked_by_password: false,
        providers: Providers::new(),
        gateway_upstream: None,
        alarm: Alarm::default(),
    };
    let access = Access::open(&site.path("state")).unwrap();
    let accounts = Accounts::new(access, config, Arc::default());
    let ended = accounts.change(ALICE, |row| {
        if let Credential::OAuth(tokens) = &mut row.credential {
            tokens.expires_at = tokens.refreshed;
        }
    });
    Runtime::new().unwrap().block_on(ended).unwrap();
}

/// What alice's device is served.
fn served(gateway: &Gateway, password: &str) -> Vec<String> {
    let mut pop3 = gateway.pop3();
    pop3.login(ALICE, password);
    let ids = pop3.unique_ids();
    assert!(pop3.quit().starts_with("+OK"));
    ids
}

/// What `popgate uidl export` writes for alice.
fn exported(site: &Site, password: Option<&str>) -> Vec<String> {
    let mut command = uidl(site, &["export", "--user", ALICE]);
    command.envs(password.map(|it| ("POPGATE_PASSWORD", it)));
    let text = run(command).ok();
    let lines: Vec<&str> = text.lines().collect();
    let rows = &lines[1..lines.len() - 1];
    let id = |line: &&str| line.split(' ').nth(1).unwrap().to_owned();
    rows.iter().map(id).collect()
}

#[test]
fn the_old_servers_ids_are_served_for_a_device_password() {
    let Some(moving) = Move::begin() else {
        return;
    };
    let site = moving.provider.site("");
    let password = moving.provider.enrol(&site, ALICE, &[]);
    let mut old = moving.old_ids();
    let before = moving.provider.dovecot.contents(ALICE);

    end_access(&site);
    let dry = report(run(moving.import(&site, &["--dry-run"])));
    assert_eq!((&dry["matched"], &dry["frozen"]), (&5.into(), &0.into()));
    assert_eq!(report(run(moving.import(&site, &[])))["frozen"], 5);
    assert_eq!(moving.provider.server.refreshes(), 1);
    let changes = before.changes(&moving.provider.dovecot.contents(ALICE));
    assert_eq!(changes, [""; 0]);

    let gateway = site.serve();
    let now = served(&gateway, &password);
    // The message that was there before is the only one with another id.
    assert_eq!((now.len(), &now[..5]), (6, &old[..]));
    assert_eq!(exported(&site, None), now);

    // While it runs: more mail was copied.
    moving.old.append("alice", "INBOX", &message(6));
    moving.provider.dovecot.append(ALICE, "INBOX", &message(6));
    old = moving.old_ids();
    end_access(&site);
    let report = report(run(moving.import(&site, &[])));
    assert_eq!(
        (&report["frozen"], &report["already_frozen"]),
        (&1.into(), &5.into())
    );
    let now = served(&gateway, &password);
    assert_eq!((now.len(), &now[..6]), (7, &old[..]));
    assert_eq!(exported(&site, None), now);
    assert_eq!(moving.provider.server.refreshes(), 2);
    drop(gateway);
    assert_eq!(exported(&site, None), now);
}

#[test]
fn a_sign_in_that_the_provider_has_ended_is_named() {
    let Some(moving) = Move::begin() else {
        return;
    };
    let site = moving.provider.site("");
    moving.provider.enrol(&site, ALICE, &[]);
    moving.provider.server.revoke(ALICE);
    let said = report_of_failure(run(moving.import(&site, &[])));
    assert!(said.contains("sign in again"), "{said}");
    assert_eq!(site.shown(ALICE)["state"], "sign-in-needed");
    let export = run(uidl(&site, &["export", "--user", ALICE]));
    export.failed(
        1,
        "the account alice@example.org: the provider refuses: sign in again",
    );
}

fn report_of_failure(run: Run) -> String {
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    let report: Value = serde_json::from_str(&run.out).unwrap();
    report["error"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_missing_is_said() {
    let Some(moving) = Move::begin() else {
        return;
    };
    let site = moving.provider.site("default_provider = \"test\"\n");
    moving.provider.enrol(&site, ALICE, &[]);
    let mut import = moving.import(&site, &[]);
    import.env_remove("POPGATE_FROM_PASSWORD");
    run(import).failed(78, "no password at the old server for alice");
    // With a file, nobody logs in at the old server.
    let file = site.path("ids");
    let file = file.to_str().unwrap();
    run(uidl(&site, &["export", "--user", ALICE, "--output", file])).ok();
    let from_file = ["import", "--from-file", file, "--user", ALICE, "--json"];
    assert_eq!(report(run(uidl(&site, &from_file)))["matched"], 6);
    // Who has no account has no way in.
    let bob = "bob@example.org";
    let export = run(uidl(&site, &["export", "--user", bob]));
    export.failed(1, "there is no account bob@example.org");
    let csv = site.path("accounts.csv");
    let rows = format!(
        "user,password,from_user,from_password\n{ALICE},,alice,pw-alice\n{bob},,bob,pw-bob\n"
    );
    fs::write(&csv, rows).unwrap();
    let from = moving.from();
    let all = [
        "import",
        "--from",
        &from,
        "--accounts",
        csv.to_str().unwrap(),
    ];
    let many = run(uidl(&site, &all));
    assert_eq!(many.code, 1, "{}{}", many.out, many.err);
    let lines: Vec<&str> = many.out.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{ALICE}: 5 old, 6 now, 5 matched")),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with(&format!("{bob}: FAILED: there is no account")),
        "{lines:?}"
    );
    assert!(!many.out.contains("pw-") && !many.err.contains("pw-"));
    // A disabled account stays shut.
    site.run(&["disable", ALICE]).ok();
    let said = report_of_failure(run(moving.import(&site, &[])));
    assert!(said.contains("disabled"), "{said}");
}

#[test]
fn an_account_with_an_app_password_at_another_server_than_the_gateways() {
    let Some(moving) = Move::begin() else {
        return;
    };
    // The gateway's own has a mailbox of that name, too.
    let Some(own) = Dovecot::with(&[("USERS", "alice@example.org:{PLAIN}another")]) else {
        return;
    };
    let provider = &moving.provider.dovecot;
    let site = Site::new(&format!("upstream = {:?}\n", own.plain_url()));
    let url = provider.plain_url();
    let mut add = site.command(&["add", ALICE, "--upstream", &url, "--json"]);
    add.env("POPGATE_PASSWORD", format!("pw-{ALICE}"));
    let enrolled = run(add).objects().remove(0);
    let password = enrolled["device"]["password"].as_str().unwrap();
    assert_eq!(report(run(moving.import(&site, &[])))["frozen"], 5);
    let gateway = site.serve();
    let now = served(&gateway, password);
    assert_eq!(&now[..5], moving.old_ids());
    assert_eq!(exported(&site, None), now);
}

#[test]
fn where_secrets_open_with_a_device_password_it_opens_the_mailbox_and_goes_nowhere_else() {
    let Some(moving) = Move::begin() else {
        return;
    };
    let site = moving
        .provider
        .site("[accounts]\nkey_file = \"accounts.key\"\nlocked_by_password = true\n");
    let password = moving.provider.enrol(&site, ALICE, &[]);
    run(moving.import(&site, &[])).failed(78, "POPGATE_PASSWORD: no password of a device");
    let with = |password: &str| {
        let mut import = moving.import(&site, &[]);
        import.env("POPGATE_PASSWORD", password);
        import
    };
    let said = report_of_failure(run(with("wrong")));
    assert!(said.contains("of none of its devices"), "{said}");
    let mut alone = with(&password);
    alone.env_remove("POPGATE_FROM_PASSWORD");
    run(alone).failed(78, "no password at the old server");
    assert_eq!(report(run(with(&password)))["frozen"], 5);
    let gateway = site.serve();
    let now = served(&gateway, &password);
    assert_eq!(&now[..5], moving.old_ids());
    assert_eq!(exported(&site, Some(&password)), now);
}

#[test]
fn a_masters_password_is_asked_for_by_nobody_and_goes_nowhere() {
    let Some(dovecot) = dovecot() else {
        return;
    };
    let site = Site::new(&format!("upstream = {:?}\n", dovecot.plain_url()));
    let mut add = site.command(&["add", "alice"]);
    add.env("POPGATE_PASSWORD", "pw-alice");
    run(add).ok();
    let root = site.run(&["add", "root", "--master", "--json"]);
    let root = root.objects().remove(0);
    let password = root["device"]["password"].as_str().unwrap();
    for user in ["alice*root", "alice*root+Junk", "alice*bob"] {
        let mut export = uidl(&site, &["export", "--user", user]);
        export.env("POPGATE_PASSWORD", password);
        run(export).failed(1, "no master is needed here: name alice alone");
    }
    let from = format!("pop3+plain://localhost:{}", dovecot.pop3_port());
    let all = ["import", "--from", &from, "--user", "bob*root"];
    let mut import = uidl(&site, &all);
    import.env("POPGATE_PASSWORD", password);
    run(import).failed(1, "name bob alone");
    run(uidl(&site, &["export", "--user", "alice"])).ok();
}

#[test]
fn the_folder_of_a_user_name_counts_above_those_of_the_account() {
    let Some(moving) = Move::begin() else {
        return;
    };
    let site = moving.provider.site("");
    let mut imap = moving.provider.dovecot.imap(ALICE);
    imap.ok("CREATE Old");
    imap.append("Old", &message(2));
    drop(imap);
    let password = moving.provider.enrol(&site, ALICE, &["--folder", "INBOX"]);
    let from = moving.from();
    let junk = format!("{ALICE}+Old");
    let mut import = uidl(
        &site,
        &[
            "import",
            "--from",
            &from,
            "--user",
            &junk,
            "--from-user",
            "alice",
            "--json",
        ],
    );
    import.env("POPGATE_FROM_PASSWORD", "pw-alice");
    assert_eq!(report(run(import))["matched"], 1);
    let gateway = site.serve();
    let mut pop3 = gateway.pop3();
    pop3.login(&junk, &password);
    assert_eq!(pop3.unique_ids(), moving.old_ids()[1..2]);
}

/// popgate itself may open every mailbox: before anybody has an account, and after.
#[test]
fn where_popgate_gets_into_every_mailbox_ids_come_before_the_account() {
    let Some(moving) = Move::begin() else {
        return;
    };
    let Provider { server, dovecot } = &moving.provider;
    let who = "popgate@project.example.org";
    let (key, public_key) = rsa_key();
    server.add_client(json!({"client_id": who, "public_key": public_key, "key_id": "k1"}));
    let site = Site::new(&format!(
        "default_provider = \"own\"\n[provider.own]\ngrant = \"service-account\"\n\
         upstream = {:?}\nca_file = {:?}\ntoken_url = \"{}\"\nscopes = [\"mail\"]\n\
         certificate_key_file = \"service.json\"\n",
        dovecot.imaps_url(),
        dovecot.ca_file(),
        server.url("token"),
    ));
    let file = json!({"client_email": who, "private_key": key, "private_key_id": "k1"});
    site.write_secret("service.json", &file.to_string());
    assert_eq!(report(run(moving.import(&site, &[])))["frozen"], 5);
    let before = exported(&site, None);
    assert_eq!(&before[..5], moving.old_ids());
    let added = site.run(&["add", ALICE, "--json"]).objects().remove(0);
    let password = added["device"]["password"].as_str().unwrap();
    let gateway = site.serve();
    assert_eq!(served(&gateway, password), before);
    assert_eq!(report(run(moving.import(&site, &[])))["already_frozen"], 5);
}

/// Private and public, in PEM.
fn rsa_key() -> (String, String) {
    let openssl = |arguments: &[&str], input: &str| {
        let mut child = Command::new(scripts().join("run"))
            .arg("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "openssl {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let bits = "rsa_keygen_bits:2048";
    let private = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", bits], "");
    let public = openssl(&["pkey", "-pubout"], &private);
    (private, public)
}
