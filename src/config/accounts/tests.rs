#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::accounts::{Entry, Home, KeyRing};
use crate::config::resolve::{Resolved, resolve};
use crate::config::{Given, Origin, Purpose, Settings};
use crate::oauth2::{ClientProof, Grant};
use crate::secret::Secret;
use crate::server::policies::{Judge, Login};

/// A folder with the files that configurations here name; `FOLDER` in a text is
/// its path.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("key", KeyRing::generate().unwrap().reveal());
    write("secret", "s3cret\n");
    write("empty", "\n");
    folder
}

fn settings(folder: &Path, text: &str) -> Settings {
    let text = text.replace("FOLDER", folder.to_str().unwrap());
    Settings::from_text(&format!("pop3 = \"127.0.0.1:0\"\n{text}")).unwrap()
}

fn resolved(text: &str) -> Result<Resolved, String> {
    let folder = folder();
    let settings = settings(folder.path(), text);
    resolve(settings, Purpose::Serve).map_err(|error| {
        let error = error.to_string();
        assert!(
            !error.contains("s3cret") && error.lines().count() == 1,
            "{error}"
        );
        error.replace(folder.path().to_str().unwrap(), "FOLDER")
    })
}

const STATE: &str = "state = \"FOLDER/state\"\n";
const KEY: &str = "[accounts]\nkey_file = \"FOLDER/key\"\n";
/// A provider at which people sign in.
const USERS: &str = "[provider.users]\nupstream = \"imap+plain://127.0.0.1:1\"\ngrant = \"user\"\nclient_id = \"us\"\nissuer = \"http://127.0.0.1:2\"\n";
/// One that lets popgate in.
const MASTER: &str = "[provider.master]\nupstream = \"imap+plain://127.0.0.1:3\"\ngrant = \"master\"\nuser = \"root\"\npassword_file = \"FOLDER/secret\"\n";
const PASSWORDS: &str =
    "[provider.passwords]\nupstream = \"http://127.0.0.1:4/jmap\"\ngrant = \"password\"\n";
const AUTH: &str = "[auth_http]\nurl = \"http://127.0.0.1:9/auth\"\n";

fn login(by: Judge, home: Home) -> Login {
    Login { by, home }
}

fn at(name: &str) -> Home {
    Home::Provider(name.to_owned())
}

#[test]
fn who_judges_follows_from_where_the_mailboxes_are() {
    let upstream = "upstream = \"imap+plain://127.0.0.1\"\n";
    for (text, expected) in [
        (upstream.to_owned(), login(Judge::Upstream, Home::Gateway)),
        (
            format!("{upstream}login = \"accounts\"\n{STATE}"),
            login(Judge::Accounts, Home::Gateway),
        ),
        (
            format!("{upstream}login = \"http\"\n{AUTH}"),
            login(Judge::Http, Home::Gateway),
        ),
        (
            format!("{STATE}default_provider = \"users\"\n{KEY}{USERS}"),
            login(Judge::Accounts, at("users")),
        ),
        (
            format!("{STATE}default_provider = \"passwords\"\n{PASSWORDS}"),
            login(Judge::Upstream, at("passwords")),
        ),
        (
            format!("{STATE}default_provider = \"master\"\nlogin = \"http\"\n{AUTH}{MASTER}"),
            login(Judge::Http, at("master")),
        ),
        // Nobody but who has an account.
        (
            format!("{STATE}{KEY}{USERS}"),
            login(Judge::Accounts, Home::Gateway),
        ),
    ] {
        let config = resolved(&text).unwrap();
        assert_eq!(config.server.policies.gateway.login, expected, "{text}");
    }
}

#[test]
fn domains_have_mailboxes_and_judges_of_their_own() {
    let config = resolved(&format!(
        "upstream = \"imap+plain://127.0.0.1\"\n{STATE}{KEY}{USERS}\
         [domain.\"a.example\"]\nprovider = \"users\"\n\
         [domain.\"b.example\"]\nupstream = \"imap+plain://127.0.0.2\"\n\
         [domain.\"c.example\"]\nupstream = \"imap+plain://127.0.0.1\"\n\
         [domain.\"d.example\"]\nlogin = \"accounts\"\n\
         [account.\"boss@a.example\"]\ndelete = \"refuse\"\n"
    ))
    .unwrap();
    let login_of = |user: &str| config.server.policies.of(user).login.clone();
    let elsewhere = Home::Upstream("imap+plain://127.0.0.2".to_owned());
    for (user, expected) in [
        ("x@a.example", login(Judge::Accounts, at("users"))),
        ("boss@a.example", login(Judge::Accounts, at("users"))),
        ("x@b.example", login(Judge::Upstream, elsewhere)),
        // It is the gateway's own.
        ("x@c.example", login(Judge::Upstream, Home::Gateway)),
        ("x@d.example", login(Judge::Accounts, Home::Gateway)),
        ("x", login(Judge::Upstream, Home::Gateway)),
    ] {
        assert_eq!(login_of(user), expected, "{user}");
    }
    // What was said for everybody holds where nothing else is.
    let config = resolved(&format!(
        "upstream = \"imap+plain://127.0.0.1\"\nlogin = \"accounts\"\n{STATE}\
         [domain.\"b.example\"]\nupstream = \"imap+plain://127.0.0.2\"\n"
    ))
    .unwrap();
    let by = config.server.policies.of("x@b.example").login.by;
    assert_eq!(by, Judge::Accounts);
}

#[test]
fn what_does_not_fit_is_refused_with_its_key() {
    let upstream = "upstream = \"imap+plain://127.0.0.1\"\n";
    for (text, says) in [
        (String::new(), "upstream: no upstream is configured"),
        (
            "login = \"upstream\"\ndefault_provider = \"gmail\"\n".to_owned(),
            "popgate.toml:3: default_provider: no provider is configured: a table [provider.gmail]",
        ),
        (
            format!("{STATE}default_provider = \"other\"\n{MASTER}"),
            "popgate.toml:3: default_provider: there is no such provider; configured are: master",
        ),
        (
            format!("{upstream}default_provider = \"master\"\n{STATE}{MASTER}"),
            "popgate.toml:3: default_provider: upstream is set, too",
        ),
        (
            format!("{upstream}login = \"pam\"\n"),
            "popgate.toml:3: login: expected \"upstream\", \"accounts\" or \"http\"",
        ),
        (
            format!("{upstream}login = \"accounts\"\n"),
            "popgate.toml:3: login: accounts are kept in the state folder",
        ),
        (
            format!("{upstream}login = \"http\"\n"),
            "popgate.toml:3: login: login = \"http\" asks a service of yours: set auth_http.url",
        ),
        (
            format!("{STATE}login = \"upstream\"\n{MASTER}"),
            "popgate.toml:3: login: there is no mailbox to open",
        ),
        (
            format!("{STATE}default_provider = \"users\"\nlogin = \"http\"\n{AUTH}{KEY}{USERS}"),
            "popgate.toml:4: login: login = \"http\" cannot open mailboxes at the provider users",
        ),
        (
            format!(
                "{upstream}[domain.\"x.example\"]\nupstream = \"imap+plain://127.0.0.2\"\nprovider = \"a\"\n"
            ),
            "popgate.toml:5: domain.\"x.example\".provider: upstream is set, too",
        ),
        (
            format!("{upstream}[domain.\"x.example\"]\nupstream = \"ftp://x\"\n"),
            "popgate.toml:4: domain.\"x.example\".upstream: the scheme is not known",
        ),
        (
            format!("{upstream}[account.\"a@x.example\"]\nlogin = \"accounts\"\n"),
            "popgate.toml:4: account.\"a@x.example\".login: is for domains",
        ),
        (
            format!(
                "{upstream}unique_ids = \"dovecot\"\n[domain.\"x.example\"]\nupstream = \"http://127.0.0.1/jmap\"\n"
            ),
            "popgate.toml:5: domain.\"x.example\".upstream: is there with unique_ids",
        ),
        (
            format!("{STATE}{USERS}"),
            "popgate.toml:3: provider.users: what accounts hold is sealed: `popgate account key`",
        ),
        (
            format!("{KEY}{USERS}"),
            "popgate.toml:4: provider.users: accounts are kept in the state folder",
        ),
        (
            format!("{STATE}[accounts]\nlocked_by_password = true\n{MASTER}"),
            "popgate.toml:4: accounts.locked_by_password: what accounts hold is sealed",
        ),
        (
            format!("{STATE}[accounts]\nkey_file = \"FOLDER/secret\"\n{MASTER}"),
            "popgate.toml:4: accounts.key_file: ",
        ),
        (
            format!("{STATE}[accounts]\nkey_file = \"FOLDER/none\"\n{MASTER}"),
            "popgate.toml:4: accounts.key_file: cannot read FOLDER/none: ",
        ),
        (
            format!("{upstream}[auth_http]\ntimeout = \"1s\"\n"),
            "popgate.toml:4: auth_http.timeout: needs auth_http.url",
        ),
        (
            format!("{upstream}[auth_http]\nurl = \"http://192.0.2.1/auth\"\n"),
            "popgate.toml:4: auth_http.url: http:// is for loopback only",
        ),
        (
            format!(
                "{upstream}{AUTH}servers = [\"imap+plain://127.0.0.1\", \"imap+plain://127.0.0.1:143\"]\n"
            ),
            "popgate.toml:5: auth_http.servers: another server has the same host and port",
        ),
        (
            format!("{upstream}[alarm]\nwebhook = \"http://192.0.2.1/\"\n"),
            "popgate.toml:4: alarm.webhook: http:// is for loopback only",
        ),
        (
            format!("{upstream}[alarm]\ncommand = [\"\"]\n"),
            "popgate.toml:4: alarm.command: is empty",
        ),
        (
            format!("{upstream}[alarm]\npatience = \"0s\"\n"),
            "popgate.toml:4: alarm.patience: must be at least 1s",
        ),
        (
            format!("{upstream}[provider.example.com]\ntitle = \"x\"\n"),
            "popgate.toml:3: provider.example.com: unknown key; a name with dots needs quotes",
        ),
    ] {
        let problem = match Settings::from_text(&format!("pop3 = \"127.0.0.1:0\"\n{text}")) {
            Err(error) => error.to_string(),
            Ok(_) => resolved(&text).unwrap_err(),
        };
        assert!(problem.starts_with(says), "{text}: {problem}");
    }
}

#[test]
fn what_a_provider_lacks_or_cannot_use() {
    let upstream = "upstream = \"imap+plain://127.0.0.1:1\"\n";
    let user = format!("{upstream}grant = \"user\"\nissuer = \"http://127.0.0.1:2\"\n");
    for (table, says) in [
        (String::new(), ": needs upstream"),
        (upstream.to_owned(), ": needs grant"),
        (
            format!("{upstream}grant = \"magic\"\n"),
            ".grant: expected one of user, ",
        ),
        (user.clone(), ": needs client_id"),
        (
            format!("{upstream}grant = \"user\"\nclient_id = \"us\"\n"),
            ": needs token_url",
        ),
        (
            format!(
                "{upstream}grant = \"user\"\nclient_id = \"us\"\ntoken_url = \"http://127.0.0.1/\"\n"
            ),
            ": needs authorization_url",
        ),
        (
            format!(
                "{upstream}grant = \"user\"\nclient_id = \"us\"\nissuer = \"http://192.0.2.1\"\n"
            ),
            ".issuer: http:// is for loopback only",
        ),
        (
            format!("{user}client_id = \"us\"\nuser = \"root\"\n"),
            ".user: is for grant = \"master\"",
        ),
        (
            format!("{user}client_id = \"us\"\nthumbprint = \"ab\"\n"),
            ".thumbprint: is of a certificate",
        ),
        (
            format!("{user}client_id = \"us\"\nauthorization_parameters = [\"state=1\"]\n"),
            ".authorization_parameters: state is popgate's own affair",
        ),
        (
            format!("{user}client_id = \"us\"\nredirect_url = \"ftp://x/\"\n"),
            ".redirect_url: the scheme is not known",
        ),
        (
            format!(
                "{upstream}grant = \"client-credentials\"\nclient_id = \"us\"\ntoken_url = \"http://127.0.0.1/\"\n"
            ),
            ": needs client_secret_file",
        ),
        (
            format!(
                "{upstream}grant = \"service-account\"\nclient_id = \"us\"\ntoken_url = \"http://127.0.0.1/\"\n"
            ),
            ": needs certificate_key_file",
        ),
        (
            format!("{user}client_id = \"us\"\nclient_secret_file = \"FOLDER/empty\"\n"),
            ".client_secret_file: FOLDER/empty is empty",
        ),
        (format!("{upstream}grant = \"master\"\n"), ": needs user"),
        (
            format!("{upstream}grant = \"master\"\nuser = \"root\"\n"),
            ": needs password_file",
        ),
        (
            format!("{upstream}grant = \"password\"\nclient_id = \"us\"\n"),
            ".client_id: is of no use with grant = \"password\"",
        ),
        (
            format!("{upstream}grant = \"api-token\"\nscopes = [\"a\"]\n"),
            ".scopes: is of no use with grant = \"api-token\"",
        ),
        (
            format!("{upstream}grant = \"password\"\ntrusted_hosts = \"x\"\n"),
            ".trusted_hosts: is for JMAP",
        ),
        (
            format!("{upstream}preset = \"hotmail\"\n"),
            ".preset: there is no such preset: ",
        ),
        (
            format!("{upstream}grant = \"password\"\ntitle = \"a\\u001b\"\n"),
            ".title: has control characters",
        ),
    ] {
        let text = format!("{STATE}{KEY}[provider.it]\n{table}");
        let problem = resolved(&text).unwrap_err();
        let says = format!("provider.it{says}");
        assert!(problem.contains(&says), "{text}: {problem}");
    }
    let jmap = "upstream = \"https://mail.example/jmap\"\ngrant = \"password\"\n";
    let twice = format!(
        "{STATE}{KEY}[provider.a]\n{jmap}[provider.b]\n{jmap}trusted_hosts = \"files.example\"\n"
    );
    let problem = resolved(&twice).unwrap_err();
    assert!(
        problem.contains("provider.b.upstream: another provider has the same server, with another"),
        "{problem}"
    );
}

#[test]
fn a_provider_may_have_several_registrations() {
    // Two organisations at Microsoft 365, and one of them without its people; a
    // Workspace beside people at Gmail.
    let config = resolved(&format!(
        "{STATE}{KEY}\
         [provider.one]\npreset = \"microsoft365\"\ntenant = \"one.example\"\nclient_id = \"1\"\n\
         [provider.two]\npreset = \"microsoft365\"\ntenant = \"two.example\"\nclient_id = \"2\"\n\
         [provider.tickets]\npreset = \"microsoft365-app\"\ntenant = \"one.example\"\nclient_id = \"3\"\n\
         client_secret_file = \"FOLDER/secret\"\n\
         [provider.mine]\npreset = \"fastmail\"\ngrant = \"api-token\"\n\
         [provider.theirs]\npreset = \"fastmail\"\nclient_id = \"4\"\n"
    ))
    .unwrap();
    assert_eq!(config.accounts.providers.len(), 5);
}

#[test]
fn a_provider_arrives_whole() {
    let config = resolved(&format!(
        "{STATE}{KEY}{USERS}title = \"Us\"\nclient_secret_file = \"FOLDER/secret\"\nscopes = [\"a b\", \"c\"]\n\
         authorization_parameters = [\"prompt=consent\"]\nredirect_url = \"http://127.0.0.1:5/back\"\n{MASTER}{PASSWORDS}"
    ))
    .unwrap();
    let providers = &config.accounts.providers;
    assert_eq!(providers.len(), 3);
    let users = &providers["users"];
    assert_eq!(
        (users.title.as_str(), users.upstream.as_str()),
        ("Us", "imap+plain://127.0.0.1:1")
    );
    let Entry::OAuth(client) = &users.entry else {
        panic!("by OAuth")
    };
    let registration = client.registration();
    assert_eq!(registration.grant, Grant::User);
    assert_eq!(registration.scopes, ["a", "b", "c"]);
    let parameter = ("prompt".to_owned(), "consent".to_owned());
    assert_eq!(registration.authorization_parameters, [parameter]);
    assert!(
        matches!(&registration.client_proof, ClientProof::Secret(it) if it.reveal() == "s3cret")
    );
    assert_eq!(
        config.redirects["users"].as_str(),
        "http://127.0.0.1:5/back"
    );
    assert!(matches!(&providers["master"].entry, Entry::Master { user, .. } if user == "root"));
    assert!(matches!(providers["passwords"].entry, Entry::Password));
    assert!(config.accounts.keys.is_some());
    // Nothing of it is printed.
    assert!(!format!("{:?}", config.accounts).contains("s3cret"));
}

#[test]
fn the_pages() {
    let http = "http = \"127.0.0.1:0\"\n";
    let enrolment = "[enrolment]\npublic_url = \"https://pop.example.org\"\n";
    let config = resolved(&format!("{http}pop3s = \"127.0.0.1:995\"\n{STATE}{KEY}{USERS}{MASTER}{enrolment}domains = [\"Example.org\"]\n")).unwrap();
    let pages = config.enrolment.unwrap();
    // Not those where whoever asks would get any mailbox.
    assert_eq!(pages.providers, ["users"]);
    assert!(pages.domains.contains("example.org"));
    assert_eq!(
        (pages.pop3.host.as_str(), pages.pop3.pop3s_port),
        ("pop.example.org", Some(995))
    );
    assert_eq!(pages.title, "pop.example.org");
    assert!(pages.operator_password.is_none());
    let back = "https://pop.example.org/enrol/callback/users";
    assert_eq!(config.redirects["users"].as_str(), back);
    let sign_in = config.accounts.alarm.sign_in.clone().unwrap();
    assert_eq!(sign_in.as_str(), "https://pop.example.org/enrol");
    for (lines, says) in [
        (
            "[enrolment]\ntitle = \"x\"\n",
            "enrolment.title: needs enrolment.public_url",
        ),
        (
            "[enrolment]\npublic_url = \"http://pop.example.org\"\n",
            "enrolment.public_url: http:// is for loopback only",
        ),
        (
            "[enrolment]\npublic_url = \"https://pop.example.org/mail\"\n",
            "enrolment.public_url: has a path",
        ),
        (
            "[enrolment]\npublic_url = \"https://u:p@pop.example.org\"\n",
            "enrolment.public_url: a URL must not hold credentials",
        ),
        (
            "[enrolment]\npublic_url = \"https://pop.example.org\"\nproviders = [\"x\"]\n",
            "enrolment.providers: there is no such [provider.NAME]",
        ),
        (
            "[enrolment]\npublic_url = \"https://pop.example.org\"\nproviders = [\"master\"]\n",
            "enrolment.providers: popgate opens every mailbox there",
        ),
        (
            "[enrolment]\npublic_url = \"https://pop.example.org\"\ndomains = [\"a@b\"]\n",
            "enrolment.domains: is not a domain",
        ),
        (
            "[enrolment]\npublic_url = \"https://pop.example.org\"\nhost = \"a b\"\n",
            "enrolment.host: is not a host name",
        ),
        (
            "[enrolment]\npublic_url = \"https://pop.example.org\"\ntitle = \"\"\n",
            "enrolment.title: expected up to",
        ),
        (
            "[enrolment]\npublic_url = \"https://pop.example.org\"\noperator_password_file = \"FOLDER/none\"\n",
            "enrolment.operator_password_file: cannot read",
        ),
    ] {
        let problem = resolved(&format!("{http}{STATE}{KEY}{USERS}{MASTER}{lines}")).unwrap_err();
        assert!(problem.contains(says), "{lines}: {problem}");
    }
    let problem = resolved(&format!("{STATE}{KEY}{USERS}{enrolment}")).unwrap_err();
    assert!(
        problem.contains("enrolment.public_url: the pages are served by http"),
        "{problem}"
    );
    let problem = resolved(&format!("{http}{STATE}{MASTER}{enrolment}")).unwrap_err();
    assert!(problem.contains("nobody could enrol"), "{problem}");
    // Clients may pass passwords on without a key; the pages keep them.
    let problem = resolved(&format!("{http}{STATE}{PASSWORDS}{enrolment}")).unwrap_err();
    assert!(
        problem.contains("provider.passwords: what accounts hold is sealed"),
        "{problem}"
    );
}

#[test]
fn the_key_of_a_flag_beats_the_environment_beats_the_file() {
    let folder = folder();
    let mut settings = settings(folder.path(), &format!("{STATE}{KEY}{MASTER}"));
    let id = |settings: &Settings| {
        let keys = super::keys(settings, &mut Vec::new()).unwrap().unwrap();
        keys.ids().next().unwrap().to_owned()
    };
    let in_file = id(&settings);
    settings.accounts_key = Some(Given {
        value: KeyRing::generate().unwrap(),
        origin: Origin::Environment("POPGATE_ACCOUNTS_KEY"),
    });
    let in_environment = id(&settings);
    assert_ne!(in_environment, in_file);
    let mut file = settings.accounts_key_file.clone().unwrap();
    file.origin = Origin::Flag("--accounts-key-file");
    settings.accounts_key_file = Some(file);
    assert_eq!(id(&settings), in_file);
    settings.accounts_key_file = None;
    settings.accounts_key = Some(Given {
        value: Secret::from("no key"),
        origin: Origin::Environment("POPGATE_ACCOUNTS_KEY"),
    });
    let error = super::keys(&settings, &mut Vec::new()).unwrap_err();
    assert!(
        error.to_string().starts_with("POPGATE_ACCOUNTS_KEY: "),
        "{error}"
    );
}

#[test]
fn secrets_that_everybody_can_read_are_warned_of() {
    let folder = folder();
    let open = fs::Permissions::from_mode(0o644);
    for name in ["key", "secret"] {
        fs::set_permissions(folder.path().join(name), open.clone()).unwrap();
    }
    let settings = settings(folder.path(), &format!("{STATE}{KEY}{MASTER}"));
    let warnings = resolve(settings, Purpose::Serve).unwrap().warnings;
    for key in ["accounts.key_file", "provider.master.password_file"] {
        let warned = |it: &&String| it.contains(key) && it.contains("chmod o-r");
        assert_eq!(warnings.iter().filter(warned).count(), 1, "{warnings:?}");
    }
}

#[test]
fn the_example_s_accounts_resolve() {
    let example = include_str!("../../../deploy/popgate.toml");
    let (_, accounts) = example
        .split_once("# --- Accounts of popgate's own")
        .unwrap();
    let (accounts, _) = accounts.split_once("# --- Bounds").unwrap();
    let folder = folder();
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for file in ["company-ca.pem", "auth-ca.pem", "alerts-ca.pem"] {
        fs::write(folder.path().join(file), authority.cert.pem()).unwrap();
    }
    let key = authority.signing_key.serialize_pem();
    fs::write(folder.path().join("m365.pem"), key).unwrap();
    fs::copy(
        folder.path().join("key"),
        folder.path().join("accounts.key"),
    )
    .unwrap();
    for file in ["gmail.secret", "master.secret", "operator.secret"] {
        fs::write(folder.path().join(file), "s3cret").unwrap();
    }
    let mut text = "http = \"127.0.0.1:0\"\nstate = \"FOLDER/state\"\n".to_owned();
    for line in accounts.lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        let is_set = line.starts_with('[')
            || line
                .split_once(" = ")
                .is_some_and(|(name, _)| name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'));
        if is_set {
            let line = line.replace("/etc/popgate/", "FOLDER/");
            text += &format!("{line}\n");
        }
    }
    // What the system trusts is another matter: a provider may have its own.
    let text = text.replace(
        "preset = \"",
        "ca_file = \"FOLDER/company-ca.pem\"\npreset = \"",
    );
    let settings = settings(folder.path(), &text);
    match resolve(settings, Purpose::Serve) {
        Ok(config) => {
            assert_eq!(config.accounts.providers.len(), 4);
            assert!(config.enrolment.is_some() && config.accounts.alarm.webhook.is_some());
            assert!(config.server.http_check.is_some());
            assert!(!config.accounts.locked_by_password);
        }
        // An elliptic key is none that Microsoft takes.
        Err(error) => assert!(error.to_string().contains("provider.tickets"), "{error}"),
    }
}
