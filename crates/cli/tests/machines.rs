//! Images and named machines from outside, in directories of their own: what is kept, what is refused, and what JSON
//! says. No guest starts here; `cargo xtask debian` does that.

use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Stdio},
};

struct User(tempfile::TempDir);

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Exit code and what is on standard output.
    fn isomer(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isomer"));
        command.args(args).stdin(Stdio::null()).env("HOME", self.path()).env_remove("XDG_RUNTIME_DIR");
        for name in ["XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }

    fn json(&self, args: &[&str]) -> (i32, Value) {
        let (code, stdout) = self.isomer(&[args, &["--format", "json"]].concat());
        (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout:?}")))
    }

    #[track_caller]
    fn refused(&self, args: &[&str], code: &str) {
        let (exit, value) = self.json(args);
        assert_eq!((exit, &value["error"]["code"]), (1, &code.into()), "{args:?}: {value}");
        assert!(value["error"]["help"].as_str().is_some_and(|help| !help.is_empty()), "{value}");
    }
}

#[test]
fn an_image_is_imported_used_and_removed() {
    let user = User::new();
    let disk = user.path().join("disk.img");
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let path = disk.to_str().unwrap();
    let wrong = "0".repeat(64);
    user.refused(&["image", "import", path, "--name", "work", "--sha256", &wrong], "isomer::image::digest");
    user.refused(&["image", "import", path, "--name", "../x"], "isomer::image::name");
    user.refused(&["image", "pull", "nowhere"], "isomer::image::not_found");
    let (code, value) = user.json(&["image", "import", path, "--name", "work"]);
    assert_eq!((code, &value["image"]["name"]), (0, &"work".into()), "{value}");
    let id = value["image"]["id"].as_str().unwrap().to_owned();

    user.refused(&["create", "work", "--name", "first"], "isomer::machines::usage");
    let kernel = ["--kernel", "/nowhere/Image"];
    let create = ["create", "work", "--name", "first", "--memory", "256M", "--disk-size", "8M"];
    let (code, value) = user.json(&[&create[..], &kernel].concat());
    assert_eq!((code, &value["state"]), (0, &"stopped".into()), "{value}");
    user.refused(&["create", "work", "--name", "first"], "isomer::machines::exists");
    let wrong = ["create", "work", "--name", "second", "--memory", "much"];
    user.refused(&[&wrong[..], &kernel].concat(), "isomer::machines::spec");
    let (_, value) = user.json(&["list"]);
    assert_eq!(
        value["machines"].as_array().unwrap().len(),
        1,
        "what could not be made is not there: {value}"
    );
    assert_eq!(
        (&value["machines"][0]["spec"]["image"], &value["machines"][0]["spec"]["memory"]),
        (&id.as_str().into(), &"256M".into())
    );
    user.refused(&["image", "rm", "work"], "isomer::image::in_use");
    let (code, value) = user.json(&["image", "list", "--verify"]);
    assert_eq!((code, &value["images"][0]["machines"][0]), (0, &"first".into()), "{value}");

    user.refused(&["stop", "first"], "isomer::machines::not_running");
    // There is no such kernel, which the process in the background finds out.
    user.refused(&["start", "first"], "isomer::machines::start");
    assert_eq!(user.isomer(&["delete", "first"]).0, 0);
    user.refused(&["delete", "first"], "isomer::machines::not_found");
    assert_eq!(user.isomer(&["image", "rm", "work"]).0, 0);
    assert_eq!(user.json(&["image", "list"]).1["images"], Value::Array(Vec::new()));
}

#[test]
fn the_schema_is_printed() {
    let (code, text) = User::new().isomer(&["create", "--schema"]);
    let schema: Value = serde_json::from_str(&text).unwrap();
    assert!(code == 0 && schema["properties"]["publish"].is_object(), "{schema}");
}
