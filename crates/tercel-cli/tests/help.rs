//! The help texts, word for word. `TERCEL_UPDATE_SNAPSHOTS=1 cargo test -p tercel-cli --test help`
//! writes them anew.

mod common;

use std::fs;
use std::path::Path;

use common::Place;

#[test]
fn help_texts_are_as_recorded() {
    let place = Place::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let update = std::env::var_os("TERCEL_UPDATE_SNAPSHOTS").is_some_and(|value| value == "1");
    for command in [
        "",
        "run",
        "serve",
        "pull",
        "list",
        "rm",
        "inspect",
        "tokenize",
        "prompt",
        "prompt fit",
        "prompt count",
        "bench",
        "tune",
        "perplexity",
        "convert",
        "verify",
        "validate",
        "fit",
        "kv-size",
        "config",
        "config show",
        "config set",
        "config unset",
        "config path",
        "config check",
    ] {
        let args: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = place.stdout(&args);
        let file = folder.join(if command.is_empty() {
            "tercel.txt".to_owned()
        } else {
            format!("{}.txt", command.replace(' ', "_"))
        });
        if update {
            fs::create_dir_all(&folder).expect("made");
            fs::write(&file, &help).expect("written");
        }
        let recorded = fs::read_to_string(&file)
            .unwrap_or_default()
            .replace("\r\n", "\n");
        assert!(
            help == recorded,
            "{} is not what `{command} --help` prints:\n{help}\n\
             TERCEL_UPDATE_SNAPSHOTS=1 writes it anew",
            file.display()
        );
    }
}

#[test]
fn the_version_is_the_packages() {
    let place = Place::new();
    let version = concat!("tercel ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(place.stdout(&["--version"]), version);
}
