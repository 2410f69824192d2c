//! A host with models made of closures: who loads, who waits, who goes.

mod leaving;

use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use tercel_nn::Memory;

use super::spec::{LoadJob, Loading};
use super::*;
use crate::engine::Engine;
use crate::error::Error;
use crate::files::MemoryUse;
use crate::lifecycle::WarmUp;
use crate::request::Request;
use crate::testing::{Steps, VOCAB_SIZE, chaotic, engine};

/// The longest that a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A model that is loaded as `load` says, with a short warm-up, and how often it was.
fn spec(
    load: impl Fn(LoadJob) -> Result<Engine, Error> + Send + Sync + 'static,
) -> (ModelSpec, Arc<AtomicUsize>) {
    let loads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&loads);
    let spec = ModelSpec::loaded_by(move |job| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Loading {
            engine: load(job)?,
            ready: Box::new(|| {}),
        })
    });
    (spec.warm_up(WarmUp::new().context_tokens(0)), loads)
}

/// A model that says anything.
fn any_model() -> Engine {
    engine(1000, moody).0
}

/// Says anything, but after `X` no number, and after `P` it panics.
fn moody(held: &[u32]) -> Vec<f32> {
    match held.first().copied().and_then(char::from_u32) {
        Some('X') => vec![f32::NAN; VOCAB_SIZE],
        Some('P') => panic!("asked to"),
        _ => chaotic(held),
    }
}

fn plain() -> ModelSpec {
    spec(|_| Ok(any_model())).0
}

/// A model that is loaded once somebody says so.
fn gated() -> (ModelSpec, Sender<()>, Arc<AtomicUsize>) {
    let (open, gate) = channel();
    let gate: Mutex<Receiver<()>> = Mutex::new(gate);
    let (spec, loads) = spec(move |_| {
        let gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = gate.recv_timeout(PATIENCE);
        Ok(any_model())
    });
    (spec, open, loads)
}

/// A model that takes `bytes` of the memory.
fn of_size(bytes: usize) -> ModelSpec {
    spec(move |mut job| {
        (job.room)(&memory(bytes))?;
        Ok(any_model())
    })
    .0
}

fn memory(weights_bytes: usize) -> MemoryUse {
    let memory = Memory {
        weights_bytes,
        ..Memory::default()
    };
    MemoryUse::of(&memory, 0)
}

fn host_of(spec: ModelSpec) -> Host {
    Host::builder().model("m", spec).build().expect("a host")
}

/// Waits until the model is as wanted.
fn until(host: &Host, name: &str, is_so: impl Fn(&ModelStatus) -> bool) {
    let started = Instant::now();
    let shared = &host.inner.shared;
    let mut models = shared.lock();
    loop {
        let status = models.get(name).expect("it is there").status(name);
        if is_so(&status) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "it does not come: {status:?}");
        models = shared.wait(models, Some(PATIENCE));
    }
}

fn ask(prompt: &str) -> Request {
    Request::prompt(prompt).max_new_tokens(2)
}

/// Time that stands still until the test says otherwise.
#[derive(Clone, Default)]
struct Hands(Arc<Mutex<Duration>>);

impl Hands {
    fn advance(&self, seconds: u64) {
        *self.0.lock().expect("no panic") += Duration::from_secs(seconds);
    }
}

impl Clock for Hands {
    fn now(&self) -> Duration {
        *self.0.lock().expect("no panic")
    }
}

/// What ten threads get that ask for `m` at once.
fn ten_callers(host: &Host, at_the_door: impl FnOnce()) -> Vec<Result<Lease, HostError>> {
    let barrier = Barrier::new(11);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    host.get("m")
                })
            })
            .collect();
        barrier.wait();
        at_the_door();
        let results = callers.into_iter().map(thread::ScopedJoinHandle::join);
        results.map(|result| result.expect("no panic")).collect()
    })
}

#[test]
fn ten_first_callers_share_one_load() {
    let (spec, open, loads) = gated();
    let host = host_of(spec);
    let leases = ten_callers(&host, || open.send(()).expect("it waits"));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    for lease in &leases {
        let reply = lease.as_ref().expect("ready").generate(ask("hi"));
        assert_eq!(reply.expect("a reply").usage.generated_tokens, 2);
    }
    let status = host.status("m").expect("known");
    assert_eq!((status.state, status.running), (State::Serving, 10));
    drop(leases);
    let status = host.status("m").expect("known");
    assert_eq!(
        (status.state, status.running, status.loads),
        (State::Ready, 0, 1)
    );
}

#[test]
fn ten_first_callers_share_one_failure_until_it_is_reset() {
    let fails = Arc::new(AtomicBool::new(true));
    let decide = Arc::clone(&fails);
    let (spec, loads) = spec(move |_| {
        if decide.load(Ordering::SeqCst) {
            return Err(Error::EmptyPrompt);
        }
        Ok(any_model())
    });
    let host = host_of(spec);
    let failure_of = |result: Result<Lease, HostError>| match result {
        Err(HostError::Failed { failure, .. }) => failure,
        other => panic!("no failure: {other:?}"),
    };
    let mut failures: Vec<_> = ten_callers(&host, || {})
        .into_iter()
        .map(failure_of)
        .collect();
    // Later callers get it too; it is not tried again, not even when it would succeed.
    fails.store(false, Ordering::SeqCst);
    failures.push(failure_of(host.get("m")));
    assert!(
        failures
            .iter()
            .all(|failure| Arc::ptr_eq(failure, &failures[0]))
    );
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    let error = host.get("m").expect_err("kept");
    assert_eq!(error.kind(), "empty_prompt");
    assert_eq!(error.to_string(), "`m` cannot be used: the prompt is empty");
    assert!(
        error
            .hint()
            .expect("a hint")
            .contains("until the model is reset")
    );
    assert_eq!(host.status("m").expect("known").state, State::Failed);

    host.reset("m").expect("known");
    host.get("m").expect("it loads now");
    assert_eq!(loads.load(Ordering::SeqCst), 2);
}

#[test]
fn one_who_stops_waiting_stops_nothing_for_the_others() {
    let (spec, open, loads) = gated();
    let host = host_of(spec);
    let cancel = host.cancel_wait();
    thread::scope(|scope| {
        let stay = scope.spawn(|| host.get("m"));
        until(&host, "m", |status| status.is_loading);
        let leave = scope.spawn(|| host.get_unless("m", &cancel));
        cancel.cancel();
        let left = leave.join().expect("no panic").expect_err("cancelled");
        assert_eq!(left.kind(), "cancelled");
        let late = host.get_within("m", Duration::from_millis(5));
        let late = late.expect_err("not yet");
        assert_eq!(late.kind(), "model_not_ready");
        assert_eq!(
            late.to_string(),
            "`m` is not ready, it is uninitialized after 5 ms"
        );
        open.send(()).expect("it waits");
        stay.join().expect("no panic").expect("ready");
    });
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn a_caller_who_does_not_wait_starts_the_load_all_the_same() {
    let (spec, open, _) = gated();
    let host = host_of(spec);
    let error = host.get_within("m", Duration::ZERO).expect_err("not ready");
    assert_eq!(error.to_string(), "`m` is not ready, it is uninitialized");
    open.send(()).expect("it waits");
    until(&host, "m", |status| status.state == State::Ready);
    assert!(host.is_loaded("m"));
    host.get_within("m", Duration::ZERO).expect("ready");

    let error = host.get("other").expect_err("unknown");
    assert_eq!(error.to_string(), "no model `other` here (there are: m)");
    assert_eq!(error.kind(), "model_not_found");
    assert!(!host.is_loaded("other"));
}

#[test]
fn failures_of_the_model_restart_it_and_those_of_requests_do_not() {
    let (spec, loads) = spec(|_| Ok(any_model()));
    let host = host_of(spec);
    let fails = |prompt: &str| {
        let lease = host.get("m").expect("ready");
        lease.generate(ask(prompt)).expect_err("it fails").kind()
    };
    let restarted = |n: u64| {
        until(&host, "m", |status| {
            status.state == State::Ready && status.restarts == n
        });
        assert_eq!(loads.load(Ordering::SeqCst) as u64, n + 1);
    };
    for _ in 0..9 {
        assert_eq!(fails(""), "empty_prompt");
    }
    // A success begins a new row.
    for prompt in ["X", "X"] {
        assert_eq!(fails(prompt), "invalid_logits");
    }
    host.get("m")
        .expect("ready")
        .generate(ask("fine"))
        .expect("a reply");
    for prompt in ["X", "X"] {
        assert_eq!(fails(prompt), "invalid_logits");
    }
    assert_eq!(host.status("m").expect("known").faults, 2);
    restarted(0);
    fails("X");
    restarted(1);
    assert_eq!(
        host.status("m").expect("known").unloaded_by,
        Some("generation_failures")
    );
    host.get("m")
        .expect("ready")
        .generate(ask("fine"))
        .expect("a reply");

    // An engine that stopped is no use at all.
    assert_eq!(fails("P"), "internal");
    restarted(2);
    assert_eq!(fails("P"), "internal");
    restarted(3);
    assert_eq!(fails("P"), "internal");
    let error = host.get("m").expect_err("enough");
    assert_eq!(error.kind(), "unhealthy");
    assert!(
        error
            .to_string()
            .contains("restarted 2 times (runtime_fault)"),
        "{error}"
    );
    host.reload("m").expect("it is asked for");
    host.get("m")
        .expect("ready")
        .generate(ask("fine"))
        .expect("a reply");
}

#[test]
fn a_restart_waits_for_what_runs() {
    let (spec, loads) = spec(|_| Ok(any_model()));
    let host = host_of(spec);
    let lease = host.get("m").expect("ready");
    let stream = lease.stream(ask("hi")).expect("it starts");
    drop(lease);
    host.report("m", HealthFault::VerificationMismatch)
        .expect("known");
    let error = host
        .get_within("m", Duration::ZERO)
        .expect_err("it is to go");
    assert_eq!(error.kind(), "model_not_ready");
    assert_eq!(loads.load(Ordering::SeqCst), 1);
    stream.wait().expect("the reply comes to its end");
    host.get("m").expect("ready again");
    assert_eq!(loads.load(Ordering::SeqCst), 2);
    let status = host.status("m").expect("known");
    assert_eq!(status.unloaded_by, Some("verification_mismatch"));
    assert_eq!((status.restarts, status.loads), (1, 2));
}

#[test]
fn a_model_that_fails_its_warm_up_is_never_ready() {
    let ready = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ready);
    let spec = ModelSpec::loaded_by(move |_| {
        let told = Arc::clone(&told);
        Ok(Loading {
            engine: engine(1000, |_| vec![f32::NAN; VOCAB_SIZE]).0,
            ready: Box::new(move || told.store(true, Ordering::SeqCst)),
        })
    });
    let host = host_of(spec);
    let error = host.get("m").expect_err("not ready");
    assert_eq!(error.kind(), "invalid_logits");
    assert!(error.to_string().contains("the warm-up failed"), "{error}");
    assert!(!ready.load(Ordering::SeqCst) && !host.is_loaded("m"));
}

#[test]
fn a_load_that_panics_is_a_failure_like_any_other() {
    let (spec, loads) = spec(|_| panic!("asked to"));
    let host = host_of(spec);
    for result in ten_callers(&host, || {}) {
        assert_eq!(result.expect_err("failed").kind(), "internal");
    }
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn the_warm_up_follows_the_requests_that_were_seen() {
    let engines: Arc<Mutex<Vec<Steps>>> = Arc::default();
    let keep = Arc::clone(&engines);
    let (spec, _) = spec(move |_| {
        let (engine, steps) = engine(1000, chaotic);
        keep.lock().expect("no panic").push(steps);
        Ok(engine)
    });
    let host = host_of(spec);
    for length in [100, 200, 300, 400, 900] {
        let lease = host.get("m").expect("ready");
        lease.generate(ask(&"x".repeat(length))).expect("a reply");
    }
    host.reload("m").expect("it loads again");
    let engines = engines.lock().expect("no panic");
    let computed = engines.iter().map(|steps| {
        let steps = steps.lock().expect("no panic");
        // All but the three tokens after the first.
        steps.iter().take(steps.len() - 3).sum::<usize>()
    });
    let computed: Vec<usize> = computed.collect();
    // The nearest rank of 80 % of five is the fourth; sentences are 42 tokens long.
    assert!((355..=405).contains(&computed[1]), "{computed:?}");
    let report = host.load_report("m").expect("known");
    assert!(
        report
            .phase("warm_up")
            .is_some_and(|phase| phase.elapsed_ms > 0.0)
    );
}

#[test]
fn names_and_numbers_are_checked() {
    let host = host_of(plain());
    let refused = |name: &str, spec| host.register(name, spec).expect_err("refused").to_string();
    assert_eq!(refused("m", plain()), "a model `m` is here already");
    assert_eq!(refused("", plain()), "`name` is empty, must be a text");
    let spec = plain().warm_up_percent(90);
    assert_eq!(
        refused("n", spec),
        "`warm_up_percent` is 90, must be 50 to 80"
    );
    let error = Host::builder()
        .restart_after(0)
        .build()
        .expect_err("refused");
    assert_eq!(error.kind(), "invalid_parameter");

    let lease = host.get("m").expect("ready");
    drop(lease);
    host.unregister("m").expect("known");
    assert_eq!(
        host.get("m").expect_err("gone").to_string(),
        "no model `m` here, nor any other"
    );
    host.register("m", plain()).expect("the name is free");
}
