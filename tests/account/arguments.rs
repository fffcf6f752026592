//! What is refused before anything is done.

use super::Site;

/// A site with two providers that need nothing of anybody, and an own upstream that
/// nobody answers at.
fn site() -> Site {
    let site = Site::new(
        "upstream = \"imap+plain://127.0.0.1:1\"\n\
         [provider.one]\nupstream = \"imap+plain://127.0.0.1:2\"\ngrant = \"master\"\nuser = \"root\"\npassword_file = \"master\"\n\
         [provider.two]\nupstream = \"imap+plain://127.0.0.1:3\"\ngrant = \"api-token\"\n\
         [domain.\"example.net\"]\nprovider = \"one\"\nlogin = \"accounts\"\n",
    );
    site.write_secret("master", "secret");
    site
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let site = site();
    for (arguments, code, says) in [
        (
            &["add", "a@example.org"][..],
            1,
            "--provider with one of: one, two",
        ),
        (
            &["add", "a@example.org", "--provider", "three"],
            1,
            "no [provider.three]",
        ),
        (
            &["add", "a@example.org", "--upstream", "ftp://x"],
            1,
            "--upstream: ",
        ),
        (
            &["add", "a@example.org", "--upstream", "imaps://u:pw@x"],
            1,
            "must not hold credentials",
        ),
        (&["add", "", "--provider", "one"], 1, "it is empty"),
        (
            &["add", "a b@example.org", "--provider", "one"],
            1,
            "a space",
        ),
        (
            &["add", "a\x1b[2J@example.org", "--provider", "one"],
            1,
            "control character",
        ),
        (&["add", "a*b", "--provider", "one"], 1, "no plain address"),
        (
            &[
                "add",
                "a@example.org",
                "--provider",
                "one",
                "--delete",
                "burn",
            ],
            1,
            "--delete: ",
        ),
        (
            &[
                "add",
                "a@example.org",
                "--provider",
                "one",
                "--seen",
                "\x1b",
            ],
            1,
            "--seen: ",
        ),
        (
            &["add", "a@example.org", "--provider", "one", "--folder", "*"],
            1,
            "--folder: ",
        ),
        (
            &[
                "add",
                "a@example.org",
                "--provider",
                "one",
                "--device-name",
                "",
            ],
            1,
            "a device has a name",
        ),
        (
            &[
                "add",
                "a@example.org",
                "--provider",
                "one",
                "--device-name",
                "\x07",
            ],
            1,
            "no control characters",
        ),
        // Nobody is there to be asked for a token.
        (
            &["add", "a@example.org", "--provider", "two"],
            78,
            "POPGATE_API_TOKEN_FILE (--api-token-file)",
        ),
        // The domain says where, and nobody answers there.
        (&["add", "a@example.net"], 1, "the mailbox does not open"),
        (
            &["show", "nobody\x1b[31m"],
            1,
            "there is no account nobody\\u{1b}[31m",
        ),
        (&["disable", "nobody"], 1, "there is no account nobody"),
        (&["remove", "nobody"], 1, "there is no account nobody"),
        (
            &["password", "add", "nobody"],
            1,
            "there is no account nobody",
        ),
        (&["reauthorize", "nobody"], 1, "there is no account nobody"),
    ] {
        super::Run::failed(site.run(arguments), code, says);
    }
    assert!(site.run(&["list", "--json"]).objects().is_empty());
}

#[test]
fn no_secret_is_an_argument() {
    let site = site();
    for arguments in [
        &["add", "a@example.org", "--password", "x"][..],
        &["add", "a@example.org", "--api-token", "x"],
        &["password", "add", "a@example.org", "--new-password", "x"],
        &["add", "a@example.org", "secret"],
    ] {
        let run = site.run(arguments);
        assert_eq!(run.code, 78);
        assert!(run.err.contains("unexpected argument"), "{}", run.err);
    }
}

#[test]
fn accounts_need_a_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_popgate"));
    command
        .args(["account", "list"])
        .env_clear()
        .env("POPGATE_UPSTREAM", "imap+plain://127.0.0.1:1")
        .current_dir(folder.path());
    super::run(command).failed(78, "set state");
}

#[test]
fn the_help_names_every_command() {
    let site = site();
    let help = site.run(&["--help"]).ok();
    for command in [
        "add",
        "list",
        "show",
        "disable",
        "enable",
        "remove",
        "password",
        "reauthorize",
        "key",
        "rekey",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command}: {help}"
        );
    }
}
