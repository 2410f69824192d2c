//! Models that leave the memory: asked to, idle, or for another one.

use futures_core::Stream;

use super::*;
use crate::reply::{Event, StopReason};
use crate::testing::block_on;

#[test]
fn an_unload_ends_a_load_and_tells_who_waited() {
    let (spec, loads) = spec(|job| {
        let started = Instant::now();
        while !job.cancel.load(Ordering::Acquire) && started.elapsed() < PATIENCE {
            thread::yield_now();
        }
        Err(Error::Cancelled)
    });
    let host = host_of(spec);
    thread::scope(|scope| {
        let waits = scope.spawn(|| host.get("m"));
        until(&host, "m", |status| status.is_loading);
        host.unload("m").expect("ended");
        let result = waits.join().expect("no panic").expect_err("gone");
        assert_eq!(result.to_string(), "`m` was unloaded before it was ready");
    });
    let status = host.status("m").expect("known");
    assert_eq!((status.state, status.error), (State::Uninitialized, None));
    assert_eq!(status.unloaded_by, Some("cancelled"));
    assert_eq!(loads.load(Ordering::SeqCst), 1);
}

#[test]
fn an_unload_waits_for_what_runs_but_not_for_ever() {
    let host = Host::builder()
        .model("m", plain())
        .drain_timeout(Duration::from_millis(10))
        .build()
        .expect("a host");
    let lease = host.get("m").expect("ready");
    let error = host.unload("m").expect_err("it runs");
    assert_eq!(error.to_string(), "`m` is in use: 1 requests run");
    // It goes on as if nothing had been.
    drop(host.get_within("m", Duration::ZERO).expect("ready"));
    drop(lease);
    host.unload("m").expect("nothing runs");
    assert!(!host.is_loaded("m"));

    let host = host_of(plain());
    let lease = host.get("m").expect("ready");
    thread::scope(|scope| {
        let unload = scope.spawn(|| host.unload("m"));
        let shared = &host.inner.shared;
        while !shared.lock().get("m").expect("known").is_draining {
            thread::yield_now();
        }
        let late = host
            .get_within("m", Duration::ZERO)
            .expect_err("it is to go");
        assert_eq!(late.kind(), "model_not_ready");
        drop(lease);
        unload.join().expect("no panic").expect("unloaded");
    });
    assert_eq!(host.status("m").expect("known").state, State::Uninitialized);
    host.unload("m").expect("nothing to do");
}

#[test]
fn an_asynchronous_stream_keeps_the_model_and_tells_how_it_ended() {
    fn may_sit_in_a_task<T: Send + 'static>(it: T) -> T {
        it
    }
    let host = Host::builder()
        .model("m", plain())
        .drain_timeout(Duration::from_millis(10))
        .build()
        .expect("a host");
    // The lease that it comes from goes at once.
    let stream = |request: Request| {
        let lease = host.get("m").expect("ready");
        may_sit_in_a_task(lease.stream_async(request).expect("accepted"))
    };
    let end = |mut stream: LeaseAsyncStream| {
        block_on(async {
            while let Some(event) = stream.next_event().await {
                if let Event::Done(reply) = event? {
                    assert!(stream.next_event().await.is_none());
                    return Ok::<_, Error>(reply);
                }
            }
            panic!("the stream ended without a reply")
        })
    };
    let faults = || host.status("m").expect("known").faults;

    let failing = stream(ask("Xbc"));
    assert_eq!((failing.prompt_tokens(), failing.lease().name()), (3, "m"));
    let error = host.unload("m").expect_err("it is in use");
    assert_eq!(error.kind(), "model_in_use");
    assert_eq!(end(failing).expect_err("it fails").kind(), "invalid_logits");
    assert_eq!(faults(), 1);
    assert_eq!(end(stream(ask("abc"))).expect("a reply").tokens.len(), 2);
    assert_eq!(faults(), 0);

    // The same as any asynchronous stream.
    let mut polled = std::pin::pin!(stream(ask("Xbc")));
    let next = std::future::poll_fn(|context| polled.as_mut().poll_next(context));
    assert!(block_on(next).expect("an event").is_err());
    assert_eq!(faults(), 1);

    let endless = stream(ask("abc").max_new_tokens(900));
    endless.cancel_handle().cancel();
    let reply = end(endless).expect("a reply");
    assert_eq!(reply.stop_reason, StopReason::Cancelled);

    let engine = host.get("m").expect("ready").engine().clone();
    drop(stream(ask("abc").max_new_tokens(900)));
    let started = Instant::now();
    while engine.activity().running + engine.activity().waiting > 0 {
        assert!(started.elapsed() < PATIENCE, "{:?}", engine.activity());
    }
    let refused = host.get("m").expect("ready").stream_async(ask(""));
    assert_eq!(refused.expect_err("refused").kind(), "empty_prompt");
}

#[test]
fn a_model_that_is_idle_for_too_long_is_unloaded() {
    let hands = Hands::default();
    let host = Host::builder()
        .model("brief", plain())
        .model("long", plain().idle_ttl(Some(Duration::from_secs(100))))
        .model("ever", plain().idle_ttl(None))
        .idle_ttl(Duration::from_secs(10))
        .clock(hands.clone())
        .build()
        .expect("a host");
    let names = ["brief", "ever", "long"];
    let held = names.map(|name| host.get(name).expect("ready"));
    hands.advance(1000);
    assert!(host.sweep().is_empty(), "they are in use");
    drop(held);
    hands.advance(9);
    assert!(host.sweep().is_empty(), "not long enough");
    // A use begins a new time.
    drop(host.get("brief").expect("ready"));
    hands.advance(9);
    assert!(host.sweep().is_empty(), "it was used");
    hands.advance(1);
    assert_eq!(host.sweep(), ["brief"]);
    hands.advance(1000);
    assert_eq!(host.sweep(), ["long"]);
    let status = host.status("brief").expect("known");
    assert_eq!(
        (status.state, status.unloaded_by),
        (State::Uninitialized, Some("idle"))
    );
    assert_eq!(names.map(|name| host.is_loaded(name)), [false, true, false]);
    drop(host.get("brief").expect("it loads again"));
    assert_eq!(host.status("brief").expect("known").loads, 2);
}

#[test]
fn idle_models_go_by_themselves() {
    let host = Host::builder()
        .idle_ttl(Duration::from_millis(1))
        .model("m", plain())
        .build()
        .expect("a host");
    for _ in 0..3 {
        let lease = host.get("m").expect("ready");
        until(&host, "m", |status| status.state == State::Serving);
        drop(lease);
        until(&host, "m", |status| {
            status.state == State::Uninitialized && !status.is_loading
        });
    }
    assert_eq!(host.status("m").expect("known").unloaded_by, Some("idle"));
}

#[test]
fn the_model_used_least_recently_makes_room_and_one_in_use_never_does() {
    let hands = Hands::default();
    let host = Host::builder()
        .max_bytes(100)
        .clock(hands.clone())
        .model("a", of_size(40))
        .model("b", of_size(40))
        .model("c", of_size(40))
        .model("giant", of_size(101))
        .build()
        .expect("a host");
    for name in ["a", "b", "a"] {
        drop(host.get(name).expect("it fits"));
        hands.advance(1);
    }
    assert_eq!(host.memory_footprint().footprint_bytes, 80);
    let c = host.get("c").expect("b makes room");
    assert_eq!(
        ["a", "b", "c"].map(|name| host.is_loaded(name)),
        [true, false, true]
    );
    assert_eq!(
        host.status("b").expect("known").unloaded_by,
        Some("evicted")
    );

    let a = host.get("a").expect("loaded");
    let error = host.get("b").expect_err("both are in use");
    assert_eq!(error.kind(), "insufficient_memory");
    drop(a);
    // The reason is kept, though there would be room by now.
    assert_eq!(
        host.get("b").expect_err("kept").kind(),
        "insufficient_memory"
    );
    host.reset("b").expect("known");
    drop(host.get("b").expect("a makes room"));
    assert_eq!(
        ["a", "b", "c"].map(|name| host.is_loaded(name)),
        [false, true, true]
    );

    drop(c);
    let error = host.get("giant").expect_err("larger than everything");
    assert_eq!(error.kind(), "insufficient_memory");
    assert_eq!(
        host.memory_footprint().footprint_bytes,
        0,
        "all made room in vain"
    );
    assert_eq!(
        host.memory_footprint_of("a").expect("known").footprint_mb,
        0.0
    );
}

#[test]
fn an_unload_while_a_restart_is_due_leaves_a_model_that_can_be_used() {
    let host = host_of(plain());
    let lease = host.get("m").expect("ready");
    host.report("m", HealthFault::RuntimeFault).expect("known");
    thread::scope(|scope| {
        let unload = scope.spawn(|| host.unload("m"));
        let shared = &host.inner.shared;
        while !shared.lock().get("m").expect("known").is_draining {
            thread::yield_now();
        }
        drop(lease);
        unload.join().expect("no panic").expect("unloaded");
    });
    assert!(!host.is_loaded("m"));
    host.get_within("m", PATIENCE).expect("it is let in again");
}

#[test]
fn a_host_that_goes_ends_its_loads_and_leaves_leases_alone() {
    let ended = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&ended);
    let (endless, _) = spec(move |job| {
        let started = Instant::now();
        while !job.cancel.load(Ordering::Acquire) && started.elapsed() < PATIENCE {
            thread::yield_now();
        }
        tell.store(true, Ordering::SeqCst);
        Err(Error::Cancelled)
    });
    let host = Host::builder()
        .model("endless", endless)
        .model("m", plain())
        .idle_ttl(Duration::from_secs(1000))
        .build()
        .expect("a host");
    let lease = host.get("m").expect("ready");
    host.get_within("endless", Duration::ZERO)
        .expect_err("not ready");
    drop(host);
    assert!(ended.load(Ordering::SeqCst));
    lease.generate(ask("hi")).expect("it is still there");
}

#[test]
fn many_callers_with_little_room_all_get_their_turn() {
    let names = ["a", "b", "c", "d"];
    let mut builder = Host::builder()
        .max_bytes(250)
        .idle_ttl(Duration::from_millis(1));
    for name in names {
        builder = builder.model(name, of_size(100));
    }
    let host = builder.build().expect("a host");
    thread::scope(|scope| {
        for caller in 0..4 {
            let host = &host;
            scope.spawn(move || {
                for round in 0..25 {
                    let name = names[(caller + round * (caller + 1)) % 4];
                    match host.get(name) {
                        Ok(lease) => {
                            lease.generate(ask("hi")).expect("a reply");
                        }
                        // All room is in use: a refusal, and nothing worse.
                        Err(error) if error.kind() == "insufficient_memory" => {
                            host.reset(name).expect("known");
                        }
                        Err(error) => panic!("{name}: {error}"),
                    }
                    assert!(host.memory_footprint().footprint_bytes <= 250);
                }
            });
        }
    });
    for name in names {
        host.unload(name).expect("nothing runs");
    }
    let footprint = host.memory_footprint();
    assert_eq!(
        (footprint.footprint_bytes, footprint.footprint_mb),
        (0, 0.0)
    );
}
