//! Fetches that are cancelled, killed, left behind, or made by several at once.

mod source_support;

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use source_support::{Reply, Server, environment, fetch, files_below, noise, notes, sha256};
use tercel::source::{Control, Store};

const MODEL: &str = "hf:org/repo:m.gguf";
const SIZE: usize = 300_000;

#[test]
fn a_cancelled_fetch_stops_at_once_and_is_continued_by_the_next() {
    const SENT: usize = 100_000;
    let bytes = noise(SIZE, 3);
    let (data, etag) = (bytes.clone(), sha256(&bytes));
    let server = Server::start(move |request, before| {
        let reply = Reply::file(request, &data, &etag);
        if request.method == "GET" && before == 0 {
            reply.cut_at(SENT).hold(Duration::from_secs(20))
        } else {
            reply
        }
    });
    let (directory, store) = server.store();
    let model = store.parse(MODEL).expect("a reference");
    let mut environment = environment();
    environment.hub_endpoint = server.url();
    environment.timeouts.stall = Duration::from_secs(15);
    let patient = Store::with_environment(directory.path(), environment);

    let cancelled = AtomicBool::new(false);
    let seen = Mutex::new(None);
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let start = Instant::now();
            while partial_bytes(&store) < SENT as u64 && start.elapsed().as_secs() < 10 {
                thread::sleep(Duration::from_millis(5));
            }
            *seen.lock().expect("the time") = Some(Instant::now());
            cancelled.store(true, Ordering::SeqCst);
        });
        let cancel = || cancelled.load(Ordering::SeqCst);
        patient
            .fetch(&model, &mut Control::new().cancel_when(&cancel))
            .expect_err("cancelled")
    });
    let waited = seen.lock().expect("the time").expect("set").elapsed();
    assert_eq!(error.kind(), "cancelled");
    assert!(waited < Duration::from_secs(3), "took {waited:?} to stop");
    assert_eq!(
        store.find(&model).expect("readable"),
        None,
        "a half file is no model"
    );
    assert_eq!(store.list().expect("readable"), []);

    let (fetched, _) = fetch(&store, MODEL);
    assert_eq!(
        std::fs::read(fetched.expect("fetched").path).expect("readable"),
        bytes
    );
    assert_eq!(server.ranges(), ["", &format!("bytes={SENT}-")]);
}

#[test]
fn threads_that_want_one_model_fetch_it_once() {
    let bytes = noise(SIZE, 13);
    let (data, etag) = (bytes.clone(), sha256(&bytes));
    let server = Server::start(move |request, _| {
        let mut reply = Reply::file(request, &data, &etag);
        reply.pace = Duration::from_millis(10);
        reply
    });
    let (directory, store) = server.store();
    let results: Vec<_> = thread::scope(|scope| {
        let fetches: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| fetch(&store, MODEL)))
            .collect();
        fetches
            .into_iter()
            .map(|fetch| fetch.join().expect("no panic"))
            .collect()
    });
    assert_eq!(server.ranges().len(), 1, "one download for all");
    let mut waited = 0;
    for (result, reports) in results {
        assert_eq!(
            std::fs::read(result.expect("fetched").path).expect("readable"),
            bytes
        );
        waited += usize::from(notes(&reports).contains("waiting for it"));
    }
    assert_eq!(waited, 3, "those that wait are told");
    assert_eq!(files_below(directory.path()).len(), 2);
}

#[test]
fn processes_that_want_one_model_fetch_it_once() {
    let bytes = noise(SIZE, 14);
    let (data, etag) = (bytes.clone(), sha256(&bytes));
    let server = Server::start(move |request, _| {
        let mut reply = Reply::file(request, &data, &etag);
        reply.pace = Duration::from_millis(10);
        reply
    });
    let (directory, store) = server.store();
    let mut children: Vec<_> = (0..3).map(|_| child(&server, directory.path())).collect();
    for child in &mut children {
        assert!(child.wait().expect("ended").success());
    }
    assert_eq!(server.ranges().len(), 1, "one download for all");
    let found = store
        .find(&store.parse(MODEL).expect("a reference"))
        .expect("readable");
    assert_eq!(
        std::fs::read(found.expect("found").path).expect("readable"),
        bytes
    );
    assert_eq!(files_below(directory.path()).len(), 2);
}

#[test]
fn a_killed_process_leaves_what_the_next_one_continues() {
    const SENT: usize = 200_000;
    let bytes = noise(SIZE, 15);
    let (data, etag) = (bytes.clone(), sha256(&bytes));
    let server = Server::start(move |request, before| {
        let reply = Reply::file(request, &data, &etag);
        if request.method == "GET" && before == 0 {
            reply.cut_at(SENT).hold(Duration::from_secs(20))
        } else {
            reply
        }
    });
    let (directory, store) = server.store();
    let mut victim = child(&server, directory.path());
    let start = Instant::now();
    while partial_bytes(&store) < SENT as u64 {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the download does not start"
        );
        thread::sleep(Duration::from_millis(5));
    }
    victim.kill().expect("killed");
    victim.wait().expect("ended");
    assert_eq!(
        store.list().expect("readable"),
        [],
        "a half file is no model"
    );

    let (fetched, _) = fetch(&store, MODEL);
    assert_eq!(
        std::fs::read(fetched.expect("fetched").path).expect("readable"),
        bytes
    );
    assert_eq!(server.ranges(), ["", &format!("bytes={SENT}-")]);
    assert_eq!(files_below(directory.path()).len(), 2);
}

#[test]
fn what_nobody_came_back_for_is_removed_by_a_later_fetch() {
    let server = Server::of_file(noise(1_000, 16));
    let (directory, store) = server.store();
    let staging = directory.path().join("staging");
    for (name, days) in [("old", 30), ("recent", 1), ("locked", 30)] {
        let abandoned = staging.join(name);
        std::fs::create_dir_all(&abandoned).expect("made");
        std::fs::write(abandoned.join("download.partial"), b"half").expect("written");
        let then = std::time::SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        let handle = std::fs::File::open(&abandoned).expect("opened");
        handle.set_modified(then).expect("set");
    }
    let lock = std::fs::File::create(staging.join("locked.lock")).expect("made");
    lock.lock().expect("locked");
    fetch(&store, MODEL).0.expect("fetched");
    let left = files_below(&staging);
    assert_eq!(
        left,
        [
            "locked.lock",
            "locked/download.partial",
            "recent/download.partial"
        ]
    );
}

/// The body of the children of the tests above.
#[test]
#[ignore = "runs in a child process"]
fn child_process() {
    let variable = |name| std::env::var(name).expect("set by the parent");
    let mut environment = environment();
    environment.hub_endpoint = variable("TERCEL_TEST_ENDPOINT");
    environment.timeouts.stall = Duration::from_secs(15);
    let store = Store::with_environment(variable("TERCEL_TEST_STORE"), environment);
    fetch(&store, MODEL).0.expect("fetched");
}

fn child(server: &Server, store: &std::path::Path) -> std::process::Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child_process", "--ignored"])
        .env("TERCEL_TEST_ENDPOINT", server.url())
        .env("TERCEL_TEST_STORE", store)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

/// Bytes of the download that has begun.
fn partial_bytes(store: &Store) -> u64 {
    let staging = store.root().join("staging");
    files_below(&staging)
        .iter()
        .filter(|file| file.ends_with("download.partial"))
        .filter_map(|file| staging.join(file).metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
