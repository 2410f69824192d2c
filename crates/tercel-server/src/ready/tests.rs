use serde_json::Value;

use super::*;
use crate::app::App;
use crate::config::{Config, LogPolicy, ServedModel};
use crate::log::testing::Lines;
use crate::models::Models;

fn serve(models: Vec<ServedModel>) -> (Shared, Lines) {
    let config = Config {
        models,
        ..Config::default()
    };
    let lines = Lines::default();
    let models = Models::new(&config).expect("valid models");
    let app = App::new(config, models, lines.log(&LogPolicy::default()));
    (Arc::new(app), lines)
}

fn tiny() -> ServedModel {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../test-data/checkpoints/qwen2-padded"
    );
    ServedModel::new("tiny", folder, move || {
        tercel::Engine::builder(folder).max_context(200)
    })
}

fn broken() -> ServedModel {
    ServedModel::new("broken", "nowhere", || {
        tercel::Engine::builder("/nowhere/at/all.gguf")
    })
}

/// The answer to a probe.
async fn probe(app: &Shared) -> Result<(), (u16, &'static str)> {
    let result = check(app).await;
    result.map_err(|unready| (unready.status.as_u16(), unready.reason))
}

#[tokio::test]
async fn a_server_is_ready_once_its_models_are_and_says_each_change_once() {
    let (app, lines) = serve(vec![tiny()]);
    for _ in 0..2 {
        assert_eq!(probe(&app).await, Err((503, "model_unloaded")));
    }
    drop(app.models.lease("tiny").await.expect("it loads"));
    for _ in 0..2 {
        assert_eq!(probe(&app).await, Ok(()));
    }
    app.models.host().unload("tiny").expect("it is idle");
    assert_eq!(probe(&app).await, Err((503, "model_unloaded")));
    drop(app.models.lease("tiny").await.expect("it loads"));
    assert_eq!(probe(&app).await, Ok(()));
    app.drain();
    assert_eq!(probe(&app).await, Err((503, "draining")));
    drop(app);
    let told: Vec<(Value, Value)> = lines
        .events()
        .iter()
        .map(|event| (event["ready"].clone(), event["reason"].clone()))
        .collect();
    let told: Vec<_> = told
        .iter()
        .map(|(ready, reason)| (ready.as_bool(), reason.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Some(false), Some("model_unloaded")),
            (Some(true), None),
            (Some(false), Some("model_unloaded")),
            (Some(true), None),
            (Some(false), Some("draining")),
        ]
    );
}

#[tokio::test]
async fn a_broken_model_is_an_error_with_its_reason_and_one_on_demand_is_none() {
    let (app, _) = serve(vec![broken()]);
    app.models
        .lease("broken")
        .await
        .expect_err("it does not load");
    let unready = check(&app).await.expect_err("not ready");
    assert_eq!(
        (unready.status.as_u16(), unready.reason),
        (500, "model_error")
    );
    assert!(
        unready
            .last_error
            .is_some_and(|error| error.contains("nowhere"))
    );

    let mut on_demand = broken();
    on_demand.preload = false;
    let (app, _) = serve(vec![on_demand]);
    assert_eq!(probe(&app).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_at_once_share_one_try_and_a_token_makes_one_needless() {
    let (app, _) = serve(vec![tiny()]);
    drop(app.models.lease("tiny").await.expect("it loads"));
    let hits = |app: &Shared| {
        let lease = app
            .models
            .host()
            .get_within("tiny", Duration::ZERO)
            .expect("loaded");
        let kv = lease.activity().kv;
        kv.hits + kv.misses
    };
    let before = hits(&app);
    app.ready.is_alive("tiny");
    assert_eq!(probe(&app).await, Ok(()));
    assert_eq!(hits(&app), before, "it is known to be alive");

    lock(&app.ready.models).clear();
    let probes: Vec<_> = (0..20)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { probe(&app).await })
        })
        .collect();
    for probe in probes {
        assert_eq!(probe.await.expect("it ends"), Ok(()));
    }
    // What an engine tells of itself is as of its last pass.
    let end = Instant::now() + Duration::from_secs(5);
    while hits(&app) == before && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(hits(&app), before + 1);
}

#[tokio::test]
async fn a_try_that_failed_is_believed_for_a_while_unless_a_token_comes() {
    let (app, _) = serve(vec![tiny()]);
    drop(app.models.lease("tiny").await.expect("it loads"));
    let failed = Tried {
        at: Instant::now(),
        gave_token: false,
        load: app.models.status("tiny").expect("known").loads,
    };
    *app.ready.of("tiny").tried.lock().await = Some(failed);
    assert_eq!(probe(&app).await, Err((503, "smoke_failed")));
    app.ready.is_alive("tiny");
    assert_eq!(probe(&app).await, Ok(()));
    lock(&app.ready.models).clear();
    // Of another load.
    *app.ready.of("tiny").tried.lock().await = Some(Tried { load: 0, ..failed });
    assert_eq!(probe(&app).await, Ok(()));
}

#[test]
fn an_idle_cache_without_pages_has_no_room() {
    let mut activity = Activity::default();
    for (pages, free, cached, running, expected) in [
        (0, 0, 0, 0, true),
        (4, 0, 0, 0, false),
        (4, 1, 0, 0, true),
        (4, 0, 1, 0, true),
        (4, 0, 0, 1, true),
    ] {
        activity.kv.pages = pages;
        activity.kv.free_pages = free;
        activity.kv.cached_pages = cached;
        activity.running = running;
        assert_eq!(has_room(&activity), expected, "{activity:?}");
    }
}
