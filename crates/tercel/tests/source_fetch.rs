//! Fetching from a Hub that misbehaves in every way that networks and servers do.

mod source_support;

use std::time::{Duration, Instant};

use source_support::{Reply, Server, environment, fetch, files_below, noise, notes, sha256};
use tercel::source::{ModelRef, Phase, Store, Token};

const MODEL: &str = "hf:org/repo:m.gguf";
const SIZE: usize = 300_000;

#[test]
fn a_file_is_fetched_once_and_then_found_without_a_request() {
    let bytes = noise(SIZE, 1);
    let server = Server::of_file(bytes.clone());
    let (directory, store) = server.store();

    let (fetched, reports) = fetch(&store, MODEL);
    let fetched = fetched.expect("fetched");
    assert_eq!(std::fs::read(&fetched.path).expect("readable"), bytes);
    assert_eq!(fetched.name, MODEL);
    assert_eq!(fetched.size_bytes, SIZE as u64);
    assert_eq!(fetched.sha256, Some(sha256(&bytes)));
    assert!(!fetched.cached);
    let last = reports.last().expect("there are reports");
    assert_eq!((last.phase, last.fraction), (Phase::Extracting, 0.85));
    let paths: Vec<String> = server.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(paths, ["/org/repo/resolve/main/m.gguf"; 2]);
    let files = files_below(directory.path());
    assert_eq!(files.len(), 2, "the file and its record: {files:?}");

    let (again, reports) = fetch(&store, MODEL);
    let again = again.expect("found");
    assert!(again.cached && again.path == fetched.path);
    assert_eq!(reports, []);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_drop_at_any_point_costs_only_the_missing_bytes() {
    let bytes = noise(SIZE, 2);
    let cuts: Vec<usize> = [0, 1]
        .into_iter()
        .chain((1..10).map(|tenth| tenth * SIZE / 10))
        .chain([SIZE - 1])
        .collect();
    let etag = sha256(&bytes);
    let (data, plan) = (bytes.clone(), cuts.clone());
    // The connection of each GET ends at the next point of the file.
    let server = Server::start(move |request, before| {
        let reply = Reply::file(request, &data, &etag);
        match (request.method.as_str(), plan.get(before)) {
            ("GET", Some(cut)) => {
                let start = data.len() - reply.body.len();
                reply.cut_at(cut - start)
            }
            _ => reply,
        }
    });
    let (_directory, store) = server.store();

    let (fetched, reports) = fetch(&store, MODEL);
    assert_eq!(
        std::fs::read(fetched.expect("fetched").path).expect("readable"),
        bytes
    );
    let expected: Vec<String> = [String::new(), String::new()]
        .into_iter()
        .chain(cuts[1..].iter().map(|cut| format!("bytes={cut}-")))
        .collect();
    assert_eq!(server.ranges(), expected);
    assert_eq!(server.sent(), SIZE as u64, "no byte was sent twice");
    assert!(
        notes(&reports).contains("trying again"),
        "drops are told: {reports:?}"
    );
}

#[test]
fn what_is_not_the_promised_file_is_refused_and_removed() {
    let bytes = noise(SIZE, 4);
    let cases: [(&str, &str, u64, usize); 3] = [
        ("sha256", "another hash", SIZE as u64, SIZE),
        ("size", "shorter than promised", SIZE as u64, SIZE - 1),
        ("size", "longer than promised", SIZE as u64 - 1, SIZE),
    ];
    for (what, case, promised_size, sent_size) in cases {
        let hash = if what == "sha256" {
            "0".repeat(64)
        } else {
            sha256(&bytes)
        };
        let data = bytes[..sent_size].to_vec();
        let server = Server::start(move |request, _| {
            Reply::file(request, &data, "body")
                .with("X-Linked-Etag", format!("\"{hash}\""))
                .with("X-Linked-Size", promised_size)
        });
        let (directory, store) = server.store();
        let (result, _) = fetch(&store, MODEL);
        let error = result.expect_err(case);
        assert_eq!(error.kind(), "checksum_mismatch", "{case}: {error}");
        assert!(error.to_string().contains(what), "{case}: {error}");
        assert_eq!(
            files_below(directory.path()),
            Vec::<String>::new(),
            "{case}"
        );
    }
}

#[test]
fn a_body_without_end_is_cut_off() {
    let endless = vec![5; 50 << 20];
    let server = Server::start(move |request, _| {
        let mut reply = Reply::file(request, &endless, "body")
            .with("X-Linked-Size", 1_000_000)
            .with("X-Linked-Etag", "\"0123\"");
        reply.with_length = false;
        reply
    });
    let (directory, store) = server.store();
    let (result, _) = fetch(&store, MODEL);
    assert_eq!(result.expect_err("refused").kind(), "checksum_mismatch");
    assert!(
        server.sent() < 20 << 20,
        "{} bytes were taken",
        server.sent()
    );
    assert_eq!(files_below(directory.path()), Vec::<String>::new());
}

#[test]
fn a_file_that_changes_between_two_tries_is_fetched_anew() {
    for with_conditions in [true, false] {
        let (old, new) = (noise(SIZE, 6), noise(SIZE + 7, 7));
        let (first, second) = (old.clone(), new.clone());
        let server = Server::start(move |request, before| {
            let is_first = before == 0;
            let bytes = if is_first { &first } else { &second };
            let mut request = request.clone();
            if !with_conditions {
                // A server that knows ranges but ignores If-Range.
                request.headers.remove("if-range");
            }
            let reply = Reply::file(&request, bytes, &sha256(bytes));
            if request.method == "GET" && is_first {
                reply.cut_at(SIZE / 2)
            } else {
                reply
            }
        });
        let (_directory, store) = server.store();
        let (fetched, _) = fetch(&store, MODEL);
        assert_eq!(
            std::fs::read(fetched.expect("fetched").path).expect("readable"),
            new
        );
    }
}

#[test]
fn a_partial_that_cannot_be_continued_is_begun_again() {
    let bytes = noise(SIZE, 8);
    let (data, etag) = (bytes.clone(), sha256(&bytes));
    let server = Server::start(
        move |request, before| match (request.method.as_str(), before) {
            ("GET", 0) => Reply::file(request, &data, &etag).cut_at(1_000),
            ("GET", 1) => Reply::new(416, ""),
            _ => Reply::file(request, &data, &etag),
        },
    );
    let (_directory, store) = server.store();
    let (fetched, _) = fetch(&store, MODEL);
    assert_eq!(
        std::fs::read(fetched.expect("fetched").path).expect("readable"),
        bytes
    );
    assert_eq!(server.ranges(), ["", "bytes=1000-", ""]);
}

#[test]
fn refusals_are_named_and_leave_nothing() {
    for (status, code, token, kind, message, hint) in [
        (
            404,
            "",
            None,
            "model_not_found",
            "org/repo:m.gguf",
            "repository's page",
        ),
        (
            404,
            "EntryNotFound",
            None,
            "model_not_found",
            "file not found",
            "page",
        ),
        (
            404,
            "RevisionNotFound",
            None,
            "model_not_found",
            "revision not found",
            "page",
        ),
        (
            401,
            "RepoNotFound",
            None,
            "model_not_found",
            "repository not found",
            "HF_TOKEN",
        ),
        (
            401,
            "GatedRepo",
            None,
            "gated",
            "org/repo was refused",
            "set HF_TOKEN",
        ),
        (
            403,
            "GatedRepo",
            Some("t"),
            "gated",
            "(HTTP 403)",
            "account of your token",
        ),
        (
            418,
            "",
            None,
            "download_failed",
            "HTTP status 418",
            "network",
        ),
        (
            500,
            "",
            None,
            "download_failed",
            "HTTP status 500",
            "network",
        ),
    ] {
        let server = Server::start(move |_, _| Reply::new(status, "").with("X-Error-Code", code));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut environment = environment();
        environment.hub_endpoint = server.url();
        environment.hub_token = token.and_then(Token::new);
        let attempts = environment.timeouts.attempts as usize;
        let store = Store::with_environment(directory.path(), environment);
        let (result, _) = fetch(&store, MODEL);
        let error = result.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
        assert!(
            error.hint().is_some_and(|text| text.contains(hint)),
            "{:?}",
            error.hint()
        );
        let tries = if status == 500 { attempts } else { 1 };
        assert_eq!(
            server.requests().len(),
            tries,
            "{status}: only a 5xx is tried again"
        );
        assert_eq!(files_below(directory.path()), Vec::<String>::new());
    }
}

#[test]
fn passing_trouble_is_waited_out() {
    let bytes = noise(SIZE, 9);
    let (data, etag) = (bytes.clone(), sha256(&bytes));
    let server = Server::start(move |request, before| {
        match (request.method.as_str(), before) {
            ("HEAD", 0) => Reply::new(503, ""),
            ("GET", 0) => Reply::new(500, "sorry"),
            // Silent for longer than the stall timeout.
            ("GET", 1) => Reply::file(request, &data, &etag)
                .cut_at(9_000)
                .hold(Duration::from_secs(30)),
            _ => Reply::file(request, &data, &etag),
        }
    });
    let (_directory, store) = server.store();
    let start = Instant::now();
    let (fetched, reports) = fetch(&store, MODEL);
    assert_eq!(
        std::fs::read(fetched.expect("fetched").path).expect("readable"),
        bytes
    );
    assert_eq!(server.ranges(), ["", "", "bytes=9000-"]);
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "the stall was not noticed"
    );
    let notes = notes(&reports);
    for told in ["HTTP status 503", "HTTP status 500", "went silent"] {
        assert!(notes.contains(told), "{notes}");
    }
}

#[test]
fn a_server_without_head_still_serves() {
    let bytes = noise(SIZE, 10);
    let data = bytes.clone();
    let server = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => Reply::new(405, ""),
        _ => Reply::file(request, &data, "tag"),
    });
    let (_directory, store) = server.store();
    let (fetched, _) = fetch(&store, MODEL);
    assert_eq!(fetched.expect("fetched").sha256, Some(sha256(&bytes)));
}

#[test]
fn the_token_goes_to_the_endpoint_and_never_to_where_it_redirects() {
    let bytes = noise(SIZE, 11);
    let storage = Server::of_file(bytes.clone());
    let (target, hash) = (storage.url(), sha256(&bytes));
    let hub = Server::start(move |request, _| {
        if request.path.starts_with("/old/") {
            return Reply::new(307, "").with("Location", request.path.replacen("old", "org", 1));
        }
        Reply::new(302, "moved")
            .with("Location", format!("{target}/blob?signature=secret"))
            .with("X-Linked-Etag", format!("\"{hash}\""))
            .with("X-Linked-Size", SIZE)
    });
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut environment = environment();
    environment.hub_endpoint = hub.url();
    environment.hub_token = Token::new("hub-token");
    let store = Store::with_environment(directory.path(), environment);

    let (fetched, _) = fetch(&store, "hf:old/repo:m.gguf");
    assert_eq!(fetched.expect("fetched").sha256, Some(sha256(&bytes)));
    assert_eq!(
        hub.requests().len(),
        4,
        "each of HEAD and GET is redirected once by the Hub"
    );
    for request in hub.requests() {
        assert_eq!(
            request.header("authorization"),
            Some("Bearer hub-token"),
            "{request:?}"
        );
    }
    assert_eq!(storage.requests().len(), 1, "the redirect answers the HEAD");
    for request in storage.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
}

#[test]
fn an_error_does_not_show_the_query_of_a_signed_link() {
    let hub = Server::start(|_, _| {
        Reply::new(302, "").with("Location", "http://127.0.0.1:9/blob?signature=secret")
    });
    let (_directory, store) = hub.store();
    let (result, reports) = fetch(&store, MODEL);
    let error = result.expect_err("nobody listens there").to_string();
    assert!(error.contains("connection refused"), "{error}");
    assert!(
        !error.contains("secret") && !notes(&reports).contains("secret"),
        "{error}"
    );
}

#[test]
fn without_a_file_the_listing_decides_and_is_remembered() {
    let bytes = noise(SIZE, 12);
    let (data, etag) = (bytes.clone(), sha256(&bytes));
    let server = Server::start(move |request, _| {
        if request.path == "/api/models/org/repo/revision/v1?blobs=true" {
            let names = [
                "README.md",
                "m-Q8_0.gguf",
                "m-Q4_K_M.gguf",
                "mmproj-F16.gguf",
            ];
            let siblings = names
                .map(|name| format!("{{\"rfilename\":\"{name}\"}}"))
                .join(",");
            return Reply::new(
                200,
                format!("{{\"siblings\":[{siblings}],\"sha\":\"c0ffee\"}}"),
            );
        }
        Reply::file(request, &data, &etag)
    });
    let (_directory, store) = server.store();

    let (fetched, reports) = fetch(&store, "hf:org/repo@v1");
    let fetched = fetched.expect("fetched");
    assert_eq!(fetched.name, "hf:org/repo@v1:m-Q4_K_M.gguf");
    assert!(notes(&reports).contains("chose m-Q4_K_M.gguf"));
    let (quantized, _) = fetch(&store, "org/repo@v1:q8_0");
    assert_eq!(
        quantized.expect("fetched").name,
        "hf:org/repo@v1:m-Q8_0.gguf"
    );

    let requests = server.requests().len();
    for (text, path) in [
        ("org/repo@v1", &fetched.path),
        ("hf:org/repo@v1:m-Q4_K_M.gguf", &fetched.path),
    ] {
        let (found, _) = fetch(&store, text);
        let found = found.expect("found");
        assert!(found.cached && found.path == *path, "{text}");
    }
    assert_eq!(
        server.requests().len(),
        requests,
        "what was resolved once needs no network"
    );
}

#[test]
fn a_repository_without_a_usable_file_says_what_it_has() {
    for (files, expected) in [
        (
            "[\"model.safetensors\"]",
            "has neither a GGUF file nor a config.json",
        ),
        ("[\"README.md\"]", "has neither a GGUF file"),
        (
            "[\"m-00001-of-00002.gguf\"]",
            "has no m-00002-of-00002.gguf",
        ),
        (
            "[\"m-00002-of-00002.gguf\"]",
            "no GGUF file that is a language model",
        ),
        (
            "[\"config.json\",\"model.safetensors\"]",
            "has neither tokenizer.json",
        ),
        (
            "[\"config.json\",\"tokenizer.json\"]",
            "nor model.safetensors",
        ),
        (
            "[\"config.json\",\"tokenizer.json\",\"pytorch_model.bin\"]",
            "PyTorch pickles",
        ),
        // What could lead out of the store does not exist.
        (
            "[\"../m.gguf\",\"/m.gguf\",\"a\\nb.gguf\",\"a:b.gguf\"]",
            "has neither a GGUF file",
        ),
    ] {
        let files: Vec<String> = serde_json::from_str(files).expect("names");
        let siblings = files
            .iter()
            .map(|name| serde_json::json!({ "rfilename": name }));
        let siblings: Vec<_> = siblings.collect();
        let body = serde_json::json!({ "siblings": siblings }).to_string();
        let server = Server::start(move |_, _| Reply::new(200, body.clone()));
        let (_directory, store) = server.store();
        let error = fetch(&store, "org/repo").0.expect_err("no model");
        assert_eq!(error.kind(), "no_model_in_repository");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let server = Server::start(|_, _| Reply::new(200, "<html>"));
    let (_directory, store) = server.store();
    let error = fetch(&store, "org/repo").0.expect_err("no list");
    assert!(error.to_string().contains("is no file list"), "{error}");
}

#[test]
fn nobody_listening_fails_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut environment = environment();
    let server = Server::start(|_, _| Reply::new(500, ""));
    environment.hub_endpoint = server.url();
    drop(server);
    let store = Store::with_environment(directory.path(), environment);
    let start = Instant::now();
    let error = fetch(&store, MODEL).0.expect_err("nobody listens");
    assert_eq!(error.kind(), "download_failed");
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "took {:?}",
        start.elapsed()
    );
    assert_eq!(files_below(directory.path()), Vec::<String>::new());
}

#[test]
fn a_name_that_does_not_resolve_fails_within_the_time_for_connections() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut environment = environment();
    // RFC 6761 promises that this name never exists. The password must not be shown.
    environment.hub_endpoint = "http://user:secret@tercel.invalid".to_owned();
    environment.timeouts.connect = Duration::from_millis(800);
    let store = Store::with_environment(directory.path(), environment);
    let start = Instant::now();
    let (result, reports) = fetch(&store, MODEL);
    let error = result.expect_err("no such host").to_string();
    assert!(
        error.starts_with("cannot download from http://tercel.invalid/org/repo: "),
        "{error}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "took {:?}",
        start.elapsed()
    );
    assert_eq!(reports, [], "there is no second try");
}

#[test]
fn stores_and_references_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Store>();
    shared::<ModelRef>();
}
