//! `popgate` as operators meet it: what a wrong configuration is answered
//! with, which of flag, environment and file counts, and how it starts and
//! stops.

#![allow(clippy::unwrap_used)]

use std::fs;

use process::{Ended, LOOPBACK, UPSTREAM, pair, popgate, serve};

mod autoconfig;
mod lifecycle;
mod process;

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["check", "-h"]] {
        let Ended {
            code,
            stdout,
            stderr,
        } = popgate(arguments).run();
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(stdout.contains("Usage: popgate"), "{stdout}");
    }
    let Ended { code, stdout, .. } = popgate(&["--version"]).run();
    assert_eq!(
        (code, stdout),
        (Some(0), format!("popgate {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn help_shows_every_flag_and_variable_but_no_value() {
    let mut help = serve(&["--help"]);
    let flags = [
        ("--config", "POPGATE_CONFIG"),
        ("--pop3", "POPGATE_POP3"),
        ("--pop3s", "POPGATE_POP3S"),
        ("--cert", "POPGATE_CERT"),
        ("--key", "POPGATE_KEY"),
        ("--allow-cleartext", "POPGATE_ALLOW_CLEARTEXT"),
        ("--upstream", "POPGATE_UPSTREAM"),
        ("--ca-file", "POPGATE_CA_FILE"),
        ("--delete", "POPGATE_DELETE"),
        ("--http", "POPGATE_HTTP"),
        ("--state", "POPGATE_STATE"),
        ("--accounts-key-file", "POPGATE_ACCOUNTS_KEY_FILE"),
        ("--operator-password-file", "POPGATE_OPERATOR_PASSWORD_FILE"),
        ("--log-format", "POPGATE_LOG_FORMAT"),
        ("--log-level", "POPGATE_LOG"),
    ];
    for (_, variable) in flags {
        help = help.env(variable, "s3cret");
    }
    let help = help.run().stdout;
    // However its lines are broken.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for (flag, variable) in flags {
        assert!(
            help.contains(flag) && help.contains(&format!("[env: {variable}]")),
            "{help}"
        );
    }
    assert!(!help.contains("s3cret"), "{help}");
}

#[test]
fn a_wrong_command_line_is_a_wrong_configuration() {
    for (arguments, says) in [
        (
            &["serve", "--colour"][..],
            "popgate: unexpected argument '--colour'",
        ),
        (
            &["serve", "--pop3"],
            "popgate: a value is required for '--pop3 <ADDR>'",
        ),
        (&["serve", "extra"], "popgate: unexpected argument 'extra'"),
        (&["server"], "popgate: unrecognized subcommand 'server'"),
        (
            &["serve", "--delete", "trash", "--delete", "trash"],
            "popgate: the argument '--delete <POLICY>' cannot be used multiple times",
        ),
        (
            &["check", "--password", "x"],
            "popgate: unexpected argument '--password'",
        ),
        (&[], "A POP3 server"),
    ] {
        let Ended { code, stderr, .. } = popgate(arguments).run();
        assert_eq!(code, Some(78), "{stderr}");
        assert!(stderr.starts_with(says), "{stderr}");
    }
}

#[test]
fn each_key_comes_from_flag_then_environment_then_file() {
    for (key, flag, variable, wrong) in [
        ("pop3", "--pop3", "POPGATE_POP3", "x"),
        ("pop3s", "--pop3s", "POPGATE_POP3S", "x"),
        ("upstream", "--upstream", "POPGATE_UPSTREAM", "x"),
        ("ca_file", "--ca-file", "POPGATE_CA_FILE", "/nowhere"),
        ("delete", "--delete", "POPGATE_DELETE", "x"),
        ("http", "--http", "POPGATE_HTTP", "x"),
        ("state", "--state", "POPGATE_STATE", "/dev/null"),
        ("cert", "--cert", "POPGATE_CERT", "/nowhere"),
        ("key", "--key", "POPGATE_KEY", "/nowhere"),
        (
            "accounts.key_file",
            "--accounts-key-file",
            "POPGATE_ACCOUNTS_KEY_FILE",
            "/nowhere",
        ),
        (
            "enrolment.operator_password_file",
            "--operator-password-file",
            "POPGATE_OPERATOR_PASSWORD_FILE",
            "/nowhere",
        ),
        ("log.format", "--log-format", "POPGATE_LOG_FORMAT", "x"),
        ("log.level", "--log-level", "POPGATE_LOG", "x"),
    ] {
        let file = format!("{key} = {wrong:?}\n");
        let complete = |arguments: &[&str]| {
            let mut invocation = serve(arguments);
            for (other, variable, value) in [
                ("pop3", "POPGATE_POP3", LOOPBACK),
                ("upstream", "POPGATE_UPSTREAM", UPSTREAM),
            ] {
                if other != key {
                    invocation = invocation.env(variable, value);
                }
            }
            invocation.config(&file)
        };
        complete(&[flag, wrong])
            .env(variable, wrong)
            .fails_with(&format!("{flag}: "));
        complete(&[])
            .env(variable, wrong)
            .fails_with(&format!("{variable}: "));
        complete(&[]).fails_with(&format!("popgate.toml:1: {key}: "));
        // An empty variable is one that is not set.
        complete(&[])
            .env(variable, "")
            .fails_with(&format!("popgate.toml:1: {key}: "));
        complete(&[flag, ""])
            .env(variable, wrong)
            .fails_with(&format!("{flag}: "));
    }
}

#[test]
fn what_is_overridden_is_not_looked_at() {
    let no_listener = "pop3s: no listener is configured";
    let file = "upstream = \"x\"\ndelete = \"x\"\nhttp = \"x\"\n";
    serve(&["--upstream", UPSTREAM, "--delete", "refuse", "--http", "0"])
        .env("POPGATE_UPSTREAM", "y")
        .env("POPGATE_DELETE", "y")
        .env("POPGATE_HTTP", "y")
        .config(file)
        .fails_with(no_listener);
    serve(&[])
        .env("POPGATE_UPSTREAM", UPSTREAM)
        .env("POPGATE_DELETE", "refuse")
        .env("POPGATE_HTTP", "0")
        .config(file)
        .fails_with(no_listener);
    // An empty list in the file is overridden like any other.
    serve(&["--upstream", UPSTREAM, "--pop3", "x"])
        .config("pop3 = []")
        .fails_with("--pop3: \"x\"");
}

#[test]
fn cleartext_is_a_switch_everywhere() {
    let wrong = "expected true or false\n";
    serve(&["--allow-cleartext=perhaps"]).fails_with(&format!("--allow-cleartext: {wrong}"));
    serve(&[])
        .env("POPGATE_ALLOW_CLEARTEXT", "perhaps")
        .fails_with(&format!("POPGATE_ALLOW_CLEARTEXT: {wrong}"));
    serve(&["--allow-cleartext"])
        .env("POPGATE_ALLOW_CLEARTEXT", "perhaps")
        .fails_with("upstream: no upstream is configured");
    serve(&["--upstream", UPSTREAM, "--pop3", "x"])
        .config("allow_cleartext = \"true\"")
        .fails_with("popgate.toml:1: allow_cleartext: invalid type");
}

#[test]
fn several_addresses_by_flag_and_by_variable() {
    let wrong = "\"x\" is not an address to listen on";
    serve(&["--upstream", UPSTREAM, "--pop3", LOOPBACK, "--pop3", "x"])
        .fails_with(&format!("--pop3: {wrong}"));
    serve(&["--upstream", UPSTREAM])
        .env("POPGATE_POP3S", "127.0.0.1:0, x")
        .fails_with(&format!("POPGATE_POP3S: {wrong}"));
    serve(&["--upstream", UPSTREAM, "--pop3", "127.0.0.1:7"])
        .env("POPGATE_POP3S", "127.0.0.1:7")
        .fails_with("POPGATE_POP3S: 127.0.0.1:7 is configured twice");
}

#[test]
fn the_file_itself() {
    serve(&["--config", "/nowhere/popgate.toml"])
        .fails_with("--config: cannot read /nowhere/popgate.toml: No such file or directory");
    serve(&[])
        .env("POPGATE_CONFIG", "/")
        .fails_with("POPGATE_CONFIG: cannot read /: Is a directory");
    serve(&["--config", "/dev/zero"]).fails_with("--config: /dev/zero is too large");
    serve(&["--config", ""]).fails_with("--config: is empty");
    serve(&[])
        .config("\n\nupsteam = 1")
        .fails_with("popgate.toml:3: upsteam: unknown key; did you mean upstream?");
    serve(&[]).config("pop3 = [").fails_with("popgate.toml:1: ");
    let latin = serve(&["--config", "latin.toml"]);
    fs::write(latin.path("latin.toml"), b"# ok\n# b\xfcro\n").unwrap();
    latin.fails_with("latin.toml:2: is not UTF-8 text");
    // Neither a file's name nor its text makes a second line.
    serve(&["--config", "a\nb\x1b[2J"]).fails_with("--config: cannot read a\\nb\\u{1b}[2J: ");
    serve(&[])
        .config("\"a\\nb\" = 1")
        .fails_with("popgate.toml:1: \"a\\nb\": unknown key");
}

#[test]
fn an_upstream_that_cannot_be_meant() {
    for (url, says) in [
        (
            "https://alice:s3cret@mail.example.com/jmap",
            "a URL must not hold credentials",
        ),
        ("jmap://mail.example.com/path", "a jmap:// URL has no path"),
        ("jmap://", "has no host"),
        (
            "http://mail.example.com/jmap",
            "http:// is for a JMAP server on loopback only",
        ),
        (
            "imap://mail.example.com",
            "imap:// does not say how it is protected",
        ),
        (
            "imaps://alice:s3cret@mail.example.com",
            "a URL must not hold credentials",
        ),
        ("imaps://mail.example.com/INBOX", "an IMAP URL has no path"),
    ] {
        serve(&["--upstream", url, "--pop3", LOOPBACK]).fails_with(&format!("--upstream: {says}"));
    }
}

#[test]
fn certificates_that_cannot_be_used() {
    let ((cert, key), (other_cert, _)) = (pair(2040), pair(2041));
    let service = |arguments: &[&str]| {
        let mut all = vec!["--upstream", UPSTREAM, "--pop3s", LOOPBACK];
        all.extend(arguments);
        serve(&all)
            .file("cert.pem", &cert)
            .file("key.pem", &key)
            .file("other.pem", &other_cert)
            .file("empty.pem", "")
    };
    service(&["--cert", "cert.pem"]).fails_with("--cert: a certificate needs its key: set key");
    service(&["--key", "key.pem"]).fails_with("--key: a key needs its certificate: set cert");
    service(&["--cert", "none.pem", "--key", "key.pem"])
        .fails_with("--cert: cannot read none.pem: No such file or directory");
    service(&["--cert", "cert.pem", "--key", "none.pem"])
        .fails_with("--key: cannot read none.pem: No such file or directory");
    service(&["--cert", "other.pem", "--key", "key.pem"]).fails_with(
        "--key: the certificate in other.pem and the key in key.pem do not belong together",
    );
    service(&["--cert", "key.pem", "--key", "key.pem"])
        .fails_with("--cert: key.pem holds no certificate");
    service(&["--cert", "cert.pem", "--key", "cert.pem"])
        .fails_with("--key: cert.pem holds no private key");
    service(&["--cert", "empty.pem"])
        .env("POPGATE_KEY", "key.pem")
        .fails_with("--cert: empty.pem holds no certificate");
    service(&["--cert", "cert.pem"])
        .env("POPGATE_KEY", "empty.pem")
        .fails_with("POPGATE_KEY: empty.pem holds no private key");
    service(&["--ca-file", "empty.pem"]).fails_with("--ca-file: empty.pem holds no certificate");
    service(&["--ca-file", "key.pem"]).fails_with("--ca-file: key.pem holds no certificate");
}

#[test]
fn check_needs_an_upstream_and_no_listener() {
    popgate(&["check"]).fails_with("upstream: no upstream is configured");
    popgate(&["check", "--upstream", "x"]).fails_with("--upstream: is not a URL");
    popgate(&["check", "--upstream", UPSTREAM, "--pop3", "x"]).fails_with("--pop3: \"x\" is not");
}

#[test]
fn check_takes_a_password_from_files_and_environment() {
    let check = |arguments: &[&str]| {
        let mut all = vec!["check", "alice", "--upstream", UPSTREAM];
        all.extend(arguments);
        popgate(&all)
    };
    check(&["--password-file", "none"])
        .fails_with("--password-file: cannot read none: No such file");
    check(&["--password-file", "none"])
        .env("POPGATE_PASSWORD", "s3cret")
        .fails_with("--password-file: cannot read none");
    check(&[])
        .env("POPGATE_PASSWORD_FILE", "none")
        .fails_with("POPGATE_PASSWORD_FILE: cannot read none");
    check(&["--password-file", "empty"])
        .file("empty", "\n")
        .fails_with("--password-file: empty is empty");
    check(&["--password-file", "/dev/zero"])
        .fails_with("--password-file: /dev/zero is too long for a password");
}

#[test]
fn check_says_whose_policies_apply() {
    let check = |arguments: &[&str]| {
        let mut all = vec!["check"];
        all.extend(arguments);
        let config = "seen = \"on-quit\"\n[domain.\"example.org\"]\ndelete = \"hide\"\n[account.support]\nfolders = \"Tickets\"\nshared = \"team\"\nmax_messages = 10";
        let config = format!("upstream = \"{UPSTREAM}\"\n{config}");
        popgate(&all).env("POPGATE_PASSWORD", "x").config(&config)
    };
    let gateway = "delete: trash where there is one, else expunge; seen: on-quit";
    for (user, rules, policies) in [
        (None, "gateway", gateway.to_owned()),
        (Some("alice"), "gateway", gateway.to_owned()),
        (
            Some("recent:alice+Junk"),
            "gateway",
            format!("{gateway}; folders: Junk; nothing older than 30d"),
        ),
        (
            Some("Alice@Example.org"),
            "domain example.org",
            "delete: hide; seen: on-quit".to_owned(),
        ),
        (
            Some("support"),
            "account support",
            format!("{gateway}; folders: Tickets; shared by team; the newest 10"),
        ),
    ] {
        let Ended { code, stdout, .. } = check(user.as_slice()).run();
        // Nobody listens there.
        assert_eq!(code, Some(1), "{stdout}");
        let lines: Vec<&str> = stdout.lines().collect();
        let expected = [
            format!("rules          {rules}"),
            format!("policies       {policies}"),
        ];
        assert_eq!(lines[1..3], expected, "{stdout}");
    }
    let Ended { code, stderr, .. } = check(&["alice+*"]).run();
    assert_eq!(code, Some(1), "{stderr}");
    let says = "popgate: \"alice+*\" names no folder that can be: a folder's name holds no control characters, no * and no %";
    assert_eq!(stderr.trim_end(), says);
}
