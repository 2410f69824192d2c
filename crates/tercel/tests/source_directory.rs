//! Models of several files: split GGUF files and checkpoints, from a path, the Hub and its cache.

mod source_support;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use source_support::hub_repository::Repository;
use source_support::{Server, environment, fetch, files_below, noise, notes, sha256};
use tercel::source::{Catalog, Checked, Control, ModelKind, ModelRef, Phase, Store};

/// What a checkpoint on the Hub holds beside what a model needs.
const DUPLICATES: [&str; 6] = [
    "README.md",
    "pytorch_model.bin",
    "onnx/model.onnx",
    "vocab.json",
    "tokenizer.model",
    "model.fp32.safetensors",
];

/// The names of a sharded checkpoint that are to be fetched, sorted.
const WANTED: [&str; 9] = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

fn index(shards: &[&str]) -> Vec<u8> {
    let map: serde_json::Map<_, _> = shards
        .iter()
        .enumerate()
        .map(|(at, shard)| (format!("layer.{at}"), json!(shard)))
        .collect();
    json!({ "metadata": { "total_size": 7 }, "weight_map": map })
        .to_string()
        .into_bytes()
}

/// A sharded checkpoint with all that others put beside it.
fn sharded() -> Repository {
    let mut repository = Repository::new();
    for (at, name) in WANTED.iter().chain(&DUPLICATES).enumerate() {
        let size = if name.contains("-of-") { 40_000 } else { 300 };
        repository.add(name, noise(size + at, at as u64 + 1));
    }
    repository.add(
        "model.safetensors.index.json",
        index(&[WANTED[3], WANTED[4], WANTED[3]]),
    );
    repository
}

fn names(model: &tercel::source::LocalModel) -> Vec<String> {
    let mut names: Vec<String> = model
        .files
        .iter()
        .map(|file| {
            file.path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_is_fetched_with_what_it_needs_and_nothing_else() {
    let repository = sharded();
    let server = repository.clone().serve();
    let (directory, store) = server.store();
    let (fetched, reports) = fetch(&store, "org/repo");
    let fetched = fetched.expect("fetched");
    assert_eq!(fetched.name, "hf:org/repo");
    assert_eq!(fetched.kind, ModelKind::Directory);
    assert_eq!(names(&fetched), WANTED);
    for file in &fetched.files {
        assert_eq!(file.path.parent(), Some(fetched.path.as_path()));
        let name = file.path.file_name().expect("a name").to_string_lossy();
        let bytes = fs::read(&file.path).expect("readable");
        assert_eq!(bytes, repository.bytes(&name), "{name}");
        assert_eq!(file.sha256, Some(sha256(&bytes)), "{name}");
        let wanted = match Repository::is_large(&name) {
            true => Checked::Sha256,
            false => Checked::GitSha1,
        };
        assert_eq!(file.checked, wanted, "{name}");
    }
    let sum: u64 = fetched.files.iter().map(|file| file.size_bytes).sum();
    assert_eq!((fetched.size_bytes, fetched.sha256.as_ref()), (sum, None));
    assert_eq!(files_below(directory.path()).len(), WANTED.len() + 1);

    // Progress is over the sum, and no file is fetched twice or from a moving branch.
    let downloads: Vec<_> = reports
        .iter()
        .filter(|report| report.phase == Phase::Downloading)
        .collect();
    assert_eq!(downloads.last().map(|last| last.done_bytes), Some(sum));
    assert!(
        downloads
            .iter()
            .all(|at| at.total_bytes.is_none_or(|total| total == sum))
    );
    assert_eq!(reports.last().map(|last| last.fraction), Some(0.85));
    assert_eq!(server.sent(), sum + repository.listing().len() as u64);
    for request in server.requests().iter().skip(1) {
        let at_commit = format!("/org/repo/resolve/{}/", Repository::COMMIT);
        assert!(request.path.starts_with(&at_commit), "{request:?}");
    }

    let requests = server.requests().len();
    let (again, reports) = fetch(&store, "hf:org/repo@main");
    let again = again.expect("found");
    assert!(again.cached && again.path == fetched.path && again.files == fetched.files);
    assert_eq!(reports, []);
    assert_eq!(server.requests().len(), requests);
    let model = store.parse("org/repo").expect("a reference");
    store.verify(&model, &mut Control::new()).expect("whole");
    let shard = fetched.path.join(WANTED[4]);
    let mut bytes = fs::read(&shard).expect("readable");
    bytes[77] ^= 1;
    fs::remove_file(&shard).expect("removed");
    fs::write(&shard, bytes).expect("written");
    let error = store
        .verify(&model, &mut Control::new())
        .expect_err("changed");
    assert!(error.to_string().contains(WANTED[4]), "{error}");
    fs::remove_file(&shard).expect("removed");
    assert_eq!(
        store.find(&model).expect("readable"),
        None,
        "not without a shard"
    );
    let damaged = store.damaged().expect("readable");
    assert_eq!(damaged[0].reason, format!("{} is missing", WANTED[4]));
    assert!(
        fetch(&store, "org/repo")
            .0
            .is_ok_and(|repaired| !repaired.cached)
    );
    store.remove(&model).expect("removed");
    assert_eq!(files_below(directory.path()), Vec::<String>::new());
}

#[test]
fn a_checkpoint_in_one_file_and_its_variants() {
    type Change = fn(&mut Repository);
    let cases: [(&str, Change, &[&str]); 4] = [
        (
            "an index that names the one file",
            |repository| {
                repository.add(
                    "model.safetensors.index.json",
                    index(&["model.safetensors"]),
                );
            },
            &[
                "config.json",
                "model.safetensors",
                "model.safetensors.index.json",
                "tokenizer.json",
            ],
        ),
        (
            "no index",
            |_| {},
            &["config.json", "model.safetensors", "tokenizer.json"],
        ),
        (
            "an index that was left behind",
            |repository| {
                let gone = "model-00001-of-00001.safetensors";
                repository.add("model.safetensors.index.json", index(&[gone]));
            },
            &["config.json", "model.safetensors", "tokenizer.json"],
        ),
        (
            "a tokenizer of SentencePiece",
            |repository| {
                repository.remove("tokenizer.json");
                repository.add("tokenizer.model", b"sp".to_vec());
            },
            &["config.json", "model.safetensors", "tokenizer.model"],
        ),
    ];
    for (case, change, expected) in cases {
        let mut repository = Repository::new();
        for name in [
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "model.safetensors.bak",
        ] {
            repository.add(name, noise(500, 3));
        }
        change(&mut repository);
        let server = repository.serve();
        let (_directory, store) = server.store();
        let fetched = fetch(&store, "org/repo").0.expect(case);
        assert_eq!(names(&fetched), expected, "{case}");
    }
}

#[test]
fn an_index_of_the_hub_cannot_lead_anywhere() {
    for (shards, kind, message) in [
        (
            index(&["../m.safetensors"]),
            "invalid_index",
            "names `../m.safetensors`",
        ),
        (
            index(&["/etc/m.safetensors"]),
            "invalid_index",
            "no safetensors file",
        ),
        (
            index(&["config.json"]),
            "invalid_index",
            "no safetensors file",
        ),
        (b"<html>".to_vec(), "invalid_index", "is no index"),
        (
            index(&["model-00009-of-00009.safetensors"]),
            "no_model_in_repository",
            "has no model-00009-of-00009.safetensors, which its index names",
        ),
    ] {
        let mut repository = sharded();
        repository.add("model.safetensors.index.json", shards);
        let server = repository.serve();
        let (directory, store) = server.store();
        let error = fetch(&store, "org/repo").0.expect_err(message);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.to_string().contains("org/repo"), "{error}");
        assert_eq!(store.list().expect("readable"), []);
        let left = files_below(directory.path());
        assert!(
            left.iter().all(|file| file.starts_with("staging")),
            "{left:?}"
        );
    }
}

#[test]
fn an_interrupted_checkpoint_is_continued_and_never_half_visible() {
    let repository = sharded();
    let server = repository
        .clone()
        .cut("model-00002-of-00002.safetensors", 10_000)
        .serve();
    let (directory, store) = server.store();
    let mut impatient = environment();
    impatient.hub_endpoint = server.url();
    impatient.timeouts.attempts = 1;
    let first = Store::with_environment(directory.path(), impatient);
    let error = fetch(&first, "org/repo")
        .0
        .expect_err("the connection breaks");
    assert_eq!(error.kind(), "download_failed", "{error}");
    let model = store.parse("org/repo").expect("a reference");
    assert_eq!(store.find(&model).expect("readable"), None);
    assert_eq!(store.list().expect("readable"), []);
    assert_eq!(store.damaged().expect("readable"), []);

    let before = server.sent();
    let (fetched, _) = fetch(&store, "org/repo");
    let fetched = fetched.expect("fetched");
    assert_eq!(names(&fetched), WANTED);
    let shard = repository.bytes(WANTED[4]);
    assert_eq!(
        fs::read(fetched.path.join(WANTED[4])).expect("readable"),
        shard
    );
    let again = server.sent() - before;
    let listing = repository.listing().len() as u64;
    assert_eq!(
        again,
        shard.len() as u64 - 10_000 + listing,
        "nothing else is sent again"
    );
    assert_eq!(
        server.ranges().last().map(String::as_str),
        Some("bytes=10000-")
    );
    assert_eq!(files_below(directory.path()).len(), WANTED.len() + 1);
}

#[test]
fn files_that_changed_since_the_interruption_are_fetched_anew() {
    let repository = sharded();
    let mut newer = repository.clone();
    newer.add("config.json", noise(333, 99));
    let server = repository
        .cut("model-00002-of-00002.safetensors", 10_000)
        .serve();
    let (directory, _) = server.store();
    let mut first = environment();
    first.hub_endpoint = server.url();
    first.timeouts.attempts = 1;
    let first = Store::with_environment(directory.path(), first);
    fetch(&first, "org/repo")
        .0
        .expect_err("the connection breaks");

    let expected = newer.bytes("config.json");
    let server = newer.serve();
    let mut second = environment();
    second.hub_endpoint = server.url();
    let second = Store::with_environment(directory.path(), second);
    let fetched = fetch(&second, "org/repo").0.expect("fetched");
    assert_eq!(
        fs::read(fetched.path.join("config.json")).expect("readable"),
        expected
    );
    let gets: Vec<String> = server
        .requests()
        .into_iter()
        .filter(|request| request.method == "GET")
        .map(|request| {
            request
                .path
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(gets, ["main?blobs=true", "config.json", WANTED[4]]);
}

#[test]
fn a_small_file_that_is_not_the_promised_one_is_refused() {
    let mut repository = sharded();
    repository.forge("config.json");
    let server = repository.serve();
    let (_directory, store) = server.store();
    let error = fetch(&store, "org/repo").0.expect_err("forged");
    assert_eq!(error.kind(), "checksum_mismatch", "{error}");
    assert!(error.to_string().contains("git sha1"), "{error}");
    assert!(error.to_string().contains("config.json"), "{error}");
    assert_eq!(store.list().expect("readable"), []);
}

#[test]
fn the_disk_is_looked_at_before_the_weights_are_fetched() {
    let mut repository = sharded();
    for shard in [WANTED[3], WANTED[4]] {
        repository.claim(shard, 1 << 39);
    }
    let server = repository.serve();
    let (_directory, store) = server.store();
    let error = fetch(&store, "org/repo").0.expect_err("too large");
    assert_eq!(error.kind(), "disk_full", "{error}");
    assert!(error.to_string().contains("needs 1048"), "the sum: {error}");
    let asked = server.requests();
    assert!(
        !asked.iter().any(|request| request.path.contains("-of-")),
        "{asked:?}"
    );
}

#[test]
fn a_repository_with_gguf_files_gives_one_of_them_as_ever() {
    let mut repository = sharded();
    repository.add("m-Q4_K_M.gguf", noise(700, 50));
    let server = repository.serve();
    let (_directory, store) = server.store();
    let fetched = fetch(&store, "org/repo").0.expect("fetched");
    assert_eq!(fetched.name, "hf:org/repo:m-Q4_K_M.gguf");
    assert_eq!(fetched.kind, ModelKind::SingleGguf);
    assert_eq!(fetched.files.len(), 1);
    let error = fetch(&store, "org/repo:Q8_0").0.expect_err("no such file");
    assert_eq!(error.kind(), "no_model_in_repository", "{error}");
}

#[test]
fn all_parts_of_a_split_file_are_fetched_by_any_of_them() {
    let parts: Vec<String> = (1..=3)
        .map(|at| format!("Q8_0/m-Q8_0-{at:05}-of-00003.gguf"))
        .collect();
    let mut repository = Repository::new();
    for (at, part) in parts.iter().enumerate() {
        repository.add(part, noise(10_000 + at, at as u64));
    }
    let server = repository.clone().serve();
    for asked in [
        "org/repo".to_owned(),
        "org/repo:Q8_0".into(),
        format!("hf:org/repo:{}", parts[1]),
    ] {
        let (directory, store) = server.store();
        let (fetched, reports) = fetch(&store, &asked);
        let fetched = fetched.expect(&asked);
        assert_eq!(fetched.name, format!("hf:org/repo:{}", parts[0]));
        assert_eq!(fetched.kind, ModelKind::SplitGguf);
        assert_eq!(fetched.path, fetched.files[0].path);
        assert!(notes(&reports).contains("-00001-of-00003.gguf"), "{asked}");
        for (file, part) in fetched.files.iter().zip(&parts) {
            assert!(part.ends_with(&*file.path.file_name().expect("a name").to_string_lossy()));
            assert_eq!(
                fs::read(&file.path).expect("readable"),
                repository.bytes(part)
            );
            assert_eq!(file.checked, Checked::Sha256);
        }
        assert_eq!(files_below(directory.path()).len(), 4);
        let (again, _) = fetch(&store, &asked);
        assert!(again.expect("found").cached, "{asked}");
        let opened = store.find(&ModelRef::Path(fetched.files[2].path.clone()));
        let opened = opened.expect("a model").expect("found");
        assert_eq!((opened.path, opened.kind), (fetched.path, fetched.kind));
    }
}

#[test]
fn an_entry_without_a_pin_is_chosen_from_what_its_sources_have() {
    let text = "schema = 1\ndefault = \"tiny:1\"\n[[model]]\nname = \"tiny:1\"\ntitle = \"t\"\n\
                architecture = \"llama\"\nlicence = \"MIT\"\nlicence_url = \"u\"\n\
                [[model.source]]\nkind = \"hub\"\nrepo = \"org/other\"\nunverified = true\n\
                [[model.source]]\nkind = \"hub\"\nrepo = \"org/repo\"\nunverified = true\n";
    let catalog = Catalog::from_toml(text).expect("a catalog");
    assert!(catalog.entries()[0].is_unverified());
    let server = sharded().serve();
    let (_directory, store) = server.store();
    let store = store.with_catalog(catalog);
    for name in ["tiny", "tiny:1"] {
        let (fetched, reports) = fetch(&store, name);
        let fetched = fetched.expect("fetched");
        assert_eq!(
            (fetched.name.as_str(), fetched.source.as_str()),
            ("tiny:1", "hf:org/repo")
        );
        assert_eq!(fetched.licence.as_deref(), Some("MIT"));
        assert_eq!(names(&fetched), WANTED);
        let told = notes(&reports);
        assert_eq!(
            told.contains("hf:org/repo has not been tried before"),
            !fetched.cached
        );
        assert_eq!(
            told.contains("repository not found"),
            !fetched.cached,
            "{told}"
        );
    }
}

fn write(root: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(&path, bytes).expect("written");
    path
}

#[test]
fn a_directory_on_this_machine_is_a_model_when_it_is_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path();
    let one = [
        "one/config.json",
        "one/tokenizer.json",
        "one/model.safetensors",
        "one/notes.txt",
    ];
    let many = [
        "many/config.json",
        "many/a.safetensors",
        "many/b.safetensors",
        "many/c.safetensors",
    ];
    let torn = ["torn/config.json", "torn/a.safetensors"];
    let bare = ["bare/config.json", "bare/tokenizer.json"];
    for name in one.iter().chain(&many).chain(&torn).chain(&bare) {
        write(root, name, b"12345");
    }
    for name in ["many", "torn"] {
        let index_file = format!("{name}/model.safetensors.index.json");
        write(
            root,
            &index_file,
            &index(&["a.safetensors", "b.safetensors"]),
        );
    }
    write(root, "wild/config.json", b"{}");
    write(
        root,
        "wild/model.safetensors.index.json",
        b"{\"weight_map\":{\"a\":\"../x.safetensors\"}}",
    );
    let store = Store::with_environment(root.join("store"), environment());
    let find = |name: &str| store.find(&ModelRef::Path(root.join(name)));

    let found = find("one").expect("a model").expect("found");
    assert_eq!(
        (found.kind, found.path.clone()),
        (ModelKind::Directory, root.join("one"))
    );
    assert_eq!((found.name.as_str(), found.size_bytes), ("one", 15));
    assert_eq!(
        names(&found),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    let found = find("many").expect("a model").expect("found");
    assert_eq!(
        names(&found),
        [
            "a.safetensors",
            "b.safetensors",
            "config.json",
            "model.safetensors.index.json"
        ]
    );
    for (name, kind, message) in [
        ("torn", "missing_file", "b.safetensors is missing, which"),
        (
            "bare",
            "no_model_in_directory",
            "no .safetensors file beside config.json",
        ),
        ("wild", "invalid_index", "names `../x.safetensors`"),
    ] {
        let error = find(name).expect_err(name);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
}

#[test]
fn the_parts_of_a_local_split_file_are_found_by_any_of_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path();
    let parts: Vec<PathBuf> = (1..=3)
        .map(|at| write(root, &format!("dir/m-{at:05}-of-00003.gguf"), &[7; 10]))
        .collect();
    let store = Store::with_environment(root.join("store"), environment());
    let find = |path: &Path| store.find(&ModelRef::Path(path.to_owned()));
    for asked in [&parts[0], &parts[2], &root.join("dir")] {
        let found = find(asked).expect("a model").expect("found");
        assert_eq!(
            (found.kind, found.name.as_str()),
            (ModelKind::SplitGguf, "m")
        );
        assert_eq!((&found.path, found.size_bytes), (&parts[0], 30));
        let paths: Vec<PathBuf> = found.files.into_iter().map(|file| file.path).collect();
        assert_eq!(paths, parts);
    }
    for missing in [1, 0] {
        fs::remove_file(&parts[missing]).expect("removed");
        for asked in [&parts[2], &root.join("dir")] {
            let error = find(asked).expect_err("a part is missing");
            assert_eq!(error.kind(), "missing_file");
            let name = parts[missing].display().to_string();
            assert!(
                error.to_string().starts_with(&format!("{name} is missing")),
                "{error}"
            );
        }
    }
}

#[cfg(unix)]
#[test]
fn a_checkpoint_in_the_cache_of_the_hub_tools_is_found_when_it_is_whole() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let cache = directory.path().join("hub");
    let snapshot = cache.join("models--org--repo/snapshots/c0ffee");
    write(&cache, "models--org--repo/refs/main", b"c0ffee");
    let link = |name: &str| {
        let bytes = noise(100, name.len() as u64);
        let blob = write(
            &cache,
            &format!("models--org--repo/blobs/{}", sha256(&bytes)),
            &bytes,
        );
        fs::create_dir_all(&snapshot).expect("made");
        std::os::unix::fs::symlink(blob, snapshot.join(name)).expect("linked");
    };
    let mut environment = environment();
    environment.hub_cache = Some(cache.clone());
    environment.offline = true;
    let store = Store::with_environment(directory.path().join("store"), environment);
    let model = store.parse("org/repo").expect("a reference");
    for name in ["config.json", "model.safetensors"] {
        link(name);
        assert_eq!(
            store.find(&model).expect("readable"),
            None,
            "not whole with {name}"
        );
    }
    link("tokenizer.json");
    let found = store.find(&model).expect("readable").expect("found");
    assert_eq!(
        (found.name.as_str(), found.kind),
        ("hf:org/repo", ModelKind::Directory)
    );
    assert_eq!((found.path, found.size_bytes), (snapshot, 300));
    assert!(
        found.source.contains("Hugging Face cache"),
        "{}",
        found.source
    );
    store
        .verify(&model, &mut Control::new())
        .expect("unchanged");
}

#[test]
fn a_mirror_that_tells_no_sizes_still_serves() {
    let mut repository = sharded();
    repository.silent = true;
    let server = repository.clone().serve();
    let (_directory, store) = server.store();
    let (fetched, reports) = fetch(&store, "org/repo");
    let fetched = fetched.expect("fetched");
    assert_eq!(names(&fetched), WANTED);
    assert!(
        fetched
            .files
            .iter()
            .all(|file| file.checked == Checked::Size)
    );
    let downloading = reports
        .iter()
        .filter(|report| report.phase == Phase::Downloading);
    assert!(
        downloading
            .clone()
            .all(|report| report.total_bytes.is_none())
    );
    let paths: Vec<String> = server
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert!(paths[1].starts_with("/org/repo/resolve/main/"), "{paths:?}");
}

#[test]
fn threads_that_want_one_checkpoint_fetch_it_once() {
    let repository = sharded();
    let server: Server = repository.serve();
    let (directory, store) = server.store();
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| fetch(&store, "org/repo")))
            .collect();
        for fetch in fetches {
            let fetched = fetch.join().expect("no panic").0.expect("fetched");
            assert_eq!(names(&fetched), WANTED);
        }
    });
    let shards = server.requests();
    let shards = shards
        .iter()
        .filter(|r| r.method == "GET" && r.path.ends_with(WANTED[3]));
    assert_eq!(shards.count(), 1);
    assert_eq!(files_below(directory.path()).len(), WANTED.len() + 1);
}
