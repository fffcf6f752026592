#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;

fn refused(text: &str) -> String {
    Settings::from_text(text).unwrap_err().to_string()
}

/// What serde says that a table may hold.
fn fields(table: &str) -> BTreeSet<String> {
    let text = match table {
        "" => "zzz = 1\n".to_owned(),
        table => format!("[{table}]\nzzz = 1\n"),
    };
    let error = toml::from_str::<Document>(&text).unwrap_err();
    let (_, expected) = error.message().split_once("expected").unwrap();
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_list_of_keys_is_complete() {
    let mut keys = BTreeSet::new();
    for field in fields("") {
        if ["domain", "account", "provider"].contains(&field.as_str()) {
            let of_name = format!("{field}.NAME");
            let all = fields(&of_name).into_iter();
            keys.extend(all.map(|key| format!("{of_name}.{key}")));
            continue;
        }
        let table = toml::from_str::<Document>(&format!("{field} = {{}}\n"));
        if table.is_ok() {
            keys.extend(
                fields(&field)
                    .into_iter()
                    .map(|key| format!("{field}.{key}")),
            );
        } else {
            keys.insert(field);
        }
    }
    // They are read there only to say why they cannot be.
    for key in [
        "domain.NAME.shared",
        "account.NAME.upstream",
        "account.NAME.provider",
        "account.NAME.login",
    ] {
        assert!(keys.remove(key), "{key}");
    }
    let known: BTreeSet<String> = KEYS.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(keys, known);
}

#[test]
fn errors_name_file_line_and_key() {
    for (text, says) in [
        (
            "\n\nupsteam = \"x\"",
            "popgate.toml:3: upsteam: unknown key; did you mean upstream?",
        ),
        (
            "[limits]\nconections = 1",
            "popgate.toml:2: limits.conections: unknown key; did you mean limits.connections?",
        ),
        (
            "idle = \"10m\"",
            "popgate.toml:1: idle: unknown key; did you mean timeouts.idle?",
        ),
        (
            "[limits]\nupstream = \"x\"",
            "popgate.toml:2: limits.upstream: unknown key; did you mean upstream (it belongs above the first [table])?",
        ),
        (
            "[accounts]\nlogin = \"http\"",
            "popgate.toml:2: accounts.login: unknown key; did you mean login (it belongs above the first [table])?",
        ),
        (
            "[limts]\nconnections = 1",
            "popgate.toml:1: limts: unknown key; did you mean limits?",
        ),
        (
            "colour = 1",
            "popgate.toml:1: colour: unknown key; deploy/popgate.toml lists all keys",
        ),
        (
            "upstream = 5",
            "popgate.toml:1: upstream: invalid type: integer `5`, expected a string",
        ),
        (
            "pop3 = 110",
            "popgate.toml:1: pop3: invalid type: integer `110`, expected a string or a list of strings",
        ),
        (
            "pop3 = [\n\"127.0.0.1:1\",\n5]",
            "popgate.toml:3: pop3: invalid type: integer `5`, expected a string",
        ),
        (
            "limits = 5",
            "popgate.toml:1: limits: invalid type: integer `5`, expected a table",
        ),
        (
            "[limits]\nconnections = -1",
            "popgate.toml:2: limits.connections: invalid value: integer `-1`, expected a whole number",
        ),
        (
            "limits.connections = \"many\"",
            "popgate.toml:1: limits.connections: invalid type: string \"many\", expected a whole number",
        ),
        (
            "[timeouts]\nlogin = 30",
            "popgate.toml:2: timeouts.login: invalid type: integer `30`, expected a duration like",
        ),
        (
            "[timeouts]\nlogin = \"30\"",
            "popgate.toml:2: timeouts.login: invalid value: string \"30\", expected a duration like",
        ),
        (
            "[timeouts]\nlogin = \"8d\"",
            "popgate.toml:2: timeouts.login: 8d is too long: at most 7d",
        ),
        (
            "[upstream_limits]\nline = \"1 KB\"",
            "popgate.toml:2: upstream_limits.line: invalid value: string \"1 KB\", expected a number of octets like",
        ),
        (
            "allow_cleartext = \"yes\"",
            "popgate.toml:1: allow_cleartext: invalid type: string \"yes\", expected a boolean",
        ),
        (
            "upstream = \"a\"\nupstream = \"b\"",
            "popgate.toml:2: duplicate key",
        ),
        (
            "[domain.\"example.com\"]\ndelte = \"hide\"",
            "popgate.toml:2: domain.\"example.com\".delte: unknown key; did you mean domain.NAME.delete?",
        ),
        (
            "[account.\"a@example.com\"]\nshard = \"hide\"",
            "popgate.toml:2: account.\"a@example.com\".shard: unknown key; did you mean account.NAME.shared?",
        ),
        (
            "[account.\"a@example.com\"]\nrecent = \"1d\"",
            "popgate.toml:2: account.\"a@example.com\".recent: unknown key; did you mean recent (it belongs above the first [table])?",
        ),
        (
            "[domains.\"example.com\"]\ndelete = \"hide\"",
            "popgate.toml:1: domains: unknown key; did you mean domain?",
        ),
        (
            "[domain.example.com]\ndelete = \"hide\"",
            "popgate.toml:1: domain.example.com: unknown key; a name with dots needs quotes: [domain.\"example.com\"]",
        ),
        (
            "[domain]\ndelete = \"hide\"",
            "popgate.toml:2: domain.delete: invalid type: string \"hide\", expected a table of policies, as in [domain.\"example.com\"]",
        ),
        (
            "[domain.\"\\n\"]\ndelete = 5",
            "popgate.toml:2: domain.\"\\n\".delete: invalid type: integer `5`, expected a string",
        ),
        (
            "max_age = \"90\"",
            "popgate.toml:1: max_age: invalid value: string \"90\", expected a time like",
        ),
        (
            "max_age = \"101y\"",
            "popgate.toml:1: max_age: 101y is too long: at most 100y",
        ),
        (
            "login_delay = \"1w1s\"",
            "popgate.toml:1: login_delay: 1w1s is too long: at most 7d",
        ),
        ("upstream = ", "popgate.toml:1: "),
        ("[limits", "popgate.toml:1: "),
        (
            "cert = \"\"",
            "popgate.toml:1: cert: is empty: expected the path of a file",
        ),
    ] {
        let problem = refused(text);
        assert!(problem.starts_with(says), "{text}: {problem}");
        assert_eq!(problem.lines().count(), 1, "{problem}");
    }
}

#[test]
fn each_address_of_a_list_has_its_line() {
    let settings = Settings::from_text("pop3 = [\n  \"a\",\n  \"b\",\n]\npop3s = \"c\"").unwrap();
    let places: Vec<String> = settings
        .pop3
        .iter()
        .chain(&settings.pop3s)
        .map(|given| format!("{} {}", given.value, given.origin))
        .collect();
    assert_eq!(
        places,
        [
            "a popgate.toml:2: pop3",
            "b popgate.toml:3: pop3",
            "c popgate.toml:5: pop3s"
        ]
    );
}

#[test]
fn paths_are_relative_to_the_file() {
    let text = "cert = \"cert.pem\"\nkey = \"/key.pem\"".to_owned();
    let text = Text::new("/etc/popgate/popgate.toml".into(), text);
    let over = Given {
        value: "ca.pem".into(),
        origin: Origin::Flag("--ca-file"),
    };
    let overrides = Overrides {
        ca_file: Some(over),
        ..Overrides::default()
    };
    let settings = Settings::merge(overrides, text).unwrap();
    assert_eq!(
        settings.cert.unwrap().value,
        Path::new("/etc/popgate/cert.pem")
    );
    assert_eq!(settings.key.unwrap().value, Path::new("/key.pem"));
    assert_eq!(settings.ca_file.unwrap().value, Path::new("ca.pem"));
}

#[test]
fn switches_of_flags_and_environment() {
    let switched = |value: &str| {
        let given = Given {
            value: value.to_owned(),
            origin: Origin::Flag("--allow-cleartext"),
        };
        switch(&given)
            .map(|given| given.value)
            .map_err(|error| error.to_string())
    };
    for on in ["true", "TRUE", "yes", "on", "1"] {
        assert_eq!(switched(on), Ok(true));
    }
    for off in ["false", "no", "off", "0"] {
        assert_eq!(switched(off), Ok(false));
    }
    for wrong in ["", "maybe", "2"] {
        assert_eq!(
            switched(wrong),
            Err("--allow-cleartext: expected true or false".to_owned())
        );
    }
}
