//! `popgate state export` and `import`.

use std::io::Write as _;

use super::*;

fn export(folder: &Path) -> String {
    let folder = folder.to_str().unwrap();
    state(&["export", "--state", folder]).succeeded()
}

fn import(folder: &Path, backup: &Path, more: &[&str]) -> Ended {
    let (folder, backup) = (folder.to_str().unwrap(), backup.to_str().unwrap());
    let mut arguments = vec!["import", "--state", folder, backup];
    arguments.extend(more);
    state(&arguments)
}

/// `text` in a file beside the state folder.
fn file(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("backup");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_backup_brings_everything_back() {
    let (old, kept) = filled();
    let text = export(old.path());
    assert_eq!(text.lines().count(), 2 + 2000 + 4);
    assert!(
        text.starts_with("{\"popgate_state\":1,\"hidden\":4,\"frozen\":2000}\n"),
        "{}",
        text.lines().next().unwrap()
    );
    let elsewhere = tempfile::tempdir().unwrap();
    // A folder that is not there yet is made.
    let new = elsewhere.path().join("state");
    let imported = import(&new, &file(&elsewhere, &text), &[]);
    assert!(imported.stderr.contains("4 hidden messages, 2000 frozen"));
    imported.succeeded();
    assert_eq!(alice(&new), kept);
    assert_eq!(export(&new), text);
}

#[test]
fn a_backup_is_taken_while_popgate_runs() {
    let (folder, _) = filled();
    let before = export(folder.path());
    let mut gateway = serve(folder.path());
    assert_eq!(export(folder.path()), before);
    let to = folder.path().join("to-file");
    let arguments = ["--state", folder.path().to_str().unwrap()];
    let output = state(&["export", to.to_str().unwrap(), arguments[0], arguments[1]]);
    assert_eq!(output.succeeded(), "");
    assert_eq!(fs::read_to_string(&to).unwrap(), before);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        fs::metadata(&to).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        state(&["export", "-", arguments[0], arguments[1]]).succeeded(),
        before
    );
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
}

#[test]
fn the_state_folder_is_found_as_by_serve() {
    let (folder, _) = filled();
    let text = export(folder.path());
    let path = folder.path().to_str().unwrap();
    let config = folder.path().join("popgate.toml");
    fs::write(
        &config,
        "state = \".\"\nupstream = \"imaps://mail.example.org\"\n",
    )
    .unwrap();
    assert_eq!(
        state(&["export", "--config", config.to_str().unwrap()]).succeeded(),
        text
    );
    let output = Command::new(env!("CARGO_BIN_EXE_popgate"))
        .args(["state", "export"])
        .env_clear()
        .env("POPGATE_STATE", path)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);

    state(&["export"]).failed(78, &["state: no state folder is configured"]);
    state(&["export", "--state", "/nowhere/at/all"])
        .failed(78, &["--state: there is no folder /nowhere/at/all"]);
    state(&["import"]).failed_before_anything();
    fs::write(&config, "stat = \".\"\n").unwrap();
    state(&["export", "--config", config.to_str().unwrap()]).failed(78, &["popgate.toml:1: stat"]);
    let empty = tempfile::tempdir().unwrap();
    state(&["export", "--state", empty.path().to_str().unwrap()])
        .failed(1, &["there is no store in"]);
    assert!(names(empty.path()).is_empty());
}

impl Ended {
    /// The arguments are wrong.
    fn failed_before_anything(self) {
        assert_eq!(self.code, Some(78));
        assert!(self.stderr.starts_with("popgate: "), "{}", self.stderr);
    }
}

#[test]
fn nothing_is_restored_over_a_running_popgate() {
    let (folder, kept) = filled();
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = file(&elsewhere, &export(folder.path()));
    let mut gateway = serve(folder.path());
    for more in [&[][..], &["--replace"]] {
        import(folder.path(), &backup, more).failed(1, &["another popgate", "stop it first"]);
    }
    gateway.terminate();
    gateway.wait();
    assert_eq!(alice(folder.path()), kept);
}

#[test]
fn nothing_is_overwritten_unless_that_is_said() {
    let (folder, _) = filled();
    let (other, kept) = filled();
    wait(async {
        let store = Store::open(other.path()).unwrap();
        store.hide(&inbox("bob"), vec![message(99)]).await.unwrap();
    });
    let backup = file(&other, &export(other.path()));
    let before = fs::read(durable(folder.path())).unwrap();
    import(folder.path(), &backup, &[]).failed(1, &["is not empty", "--replace"]);
    assert_eq!(fs::read(durable(folder.path())).unwrap(), before);

    import(folder.path(), &backup, &["--replace"]).succeeded();
    assert_eq!(alice(folder.path()), kept);
    assert_eq!(export(folder.path()), export(other.path()));
    let beside = folder.path().join("durable.redb.before-import");
    assert_eq!(fs::read(&beside).unwrap(), before);
    // The way back from the way back; what was there first stays.
    let second = fs::read(durable(folder.path())).unwrap();
    import(folder.path(), &backup, &["--replace"]).succeeded();
    import(folder.path(), &backup, &["--replace"]).succeeded();
    assert_eq!(
        names(folder.path()),
        [
            "cache.redb",
            "durable.redb",
            "durable.redb.before-import",
            "durable.redb.before-import-2",
            "durable.redb.before-import-3",
            "store"
        ]
    );
    assert_eq!(fs::read(&beside).unwrap(), before);
    let beside = folder.path().join("durable.redb.before-import-2");
    assert_eq!(fs::read(beside).unwrap(), second);

    // An empty one is nothing to lose.
    let empty = tempfile::tempdir().unwrap();
    drop(Store::open(empty.path()).unwrap());
    import(empty.path(), &backup, &[]).succeeded();
    assert_eq!(alice(empty.path()), kept);
}

#[test]
fn a_backup_that_is_not_whole_changes_nothing() {
    let (folder, kept) = filled();
    let text = export(folder.path());
    let lines: Vec<&str> = text.lines().collect();
    let without = |number: usize| {
        let mut lines = lines.clone();
        lines.remove(number);
        lines.join("\n") + "\n"
    };
    let wrong = [
        (String::new(), "cut off"),
        (text[..text.len() - 1].to_owned(), "cut off"),
        (text[..text.len() / 2].to_owned(), "cut off"),
        (without(0), "not a backup"),
        (without(1), "its sum is not right"),
        (without(500), "its sum is not right"),
        (without(lines.len() - 1), "cut off"),
        (text.replacen("UID5", "UID6", 1), "its sum is not right"),
        (
            text.replacen("\"frozen\":2000", "\"frozen\":1", 1),
            "its sum is not right",
        ),
        (
            text.replacen("\"popgate_state\":1", "\"popgate_state\":2", 1),
            "version 2",
        ),
        (
            text.replacen("\"rank\":0", "\"rank\":-1", 1),
            "line 6: invalid value",
        ),
        ("{}\n".to_owned(), "not a backup"),
        ("garbage\n".to_owned(), "not a backup"),
    ];
    let elsewhere = tempfile::tempdir().unwrap();
    for (text, words) in wrong {
        let backup = file(&elsewhere, &text);
        import(folder.path(), &backup, &["--replace"]).failed(1, &["nothing was restored", words]);
        assert_eq!(
            names(folder.path()),
            ["cache.redb", "durable.redb", "store"]
        );
    }
    assert_eq!(alice(folder.path()), kept);
}

#[test]
fn a_backup_is_the_way_out_of_damage() {
    let (folder, kept) = filled();
    let elsewhere = tempfile::tempdir().unwrap();
    let backup = file(&elsewhere, &export(folder.path()));
    let whole = fs::read(durable(folder.path())).unwrap();
    let mut broken = whole.clone();
    let middle = 4096..broken.len();
    broken[middle].fill(0x55);
    for damage in [&broken[..], &whole[..5000], &[]] {
        fs::write(durable(folder.path()), damage).unwrap();
        // popgate serves all the same, and touches nothing.
        let mut gateway = serve(folder.path());
        let line = gateway.wait_for_log("THE STORE CANNOT BE USED");
        for word in ["ERROR", "durable.redb is damaged", "popgate state import"] {
            assert!(line.contains(word), "{line}");
        }
        gateway.pop3().quit();
        gateway.terminate();
        assert_eq!(gateway.wait().code(), Some(0));
        assert_eq!(fs::read(durable(folder.path())).unwrap(), damage);
        let path = folder.path().to_str().unwrap();
        state(&["export", "--state", path]).failed(1, &["durable.redb is damaged"]);

        import(folder.path(), &backup, &[]).failed(1, &["damaged", "--replace"]);
        import(folder.path(), &backup, &["--replace"]).succeeded();
        assert_eq!(alice(folder.path()), kept);
        let kept = names(folder.path()).into_iter();
        let kept = kept.filter(|it| it.starts_with("durable.redb.before-import"));
        let mut kept = kept.map(|it| fs::read(folder.path().join(it)).unwrap());
        assert!(kept.any(|it| it == damage));
    }
    // Nothing is left that could be replaced.
    fs::remove_file(durable(folder.path())).unwrap();
    import(folder.path(), &backup, &[]).succeeded();
    assert_eq!(alice(folder.path()), kept);
}

#[test]
fn a_backup_comes_from_the_standard_input_too() {
    let (folder, kept) = filled();
    let text = export(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_popgate"))
        .args(["state", "import", "-", "--state"])
        .arg(elsewhere.path())
        .env_clear()
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert_eq!(alice(elsewhere.path()), kept);
}

#[test]
fn a_backup_that_cannot_be_written_leaves_the_last_one() {
    let (folder, _) = filled();
    let backup = file(&folder, "the last one");
    let path = folder.path().to_str().unwrap();
    fs::create_dir(folder.path().join("backup.new")).unwrap();
    state(&["export", "--state", path, backup.to_str().unwrap()]).failed(1, &["backup"]);
    assert_eq!(fs::read_to_string(&backup).unwrap(), "the last one");
}
