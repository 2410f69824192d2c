//! What is so at the moment: the models and the process.

use std::time::Duration;

use tercel::Activity;

use super::text::Page;
use crate::app::App;

/// A name, what it is, and how it is had.
type Line<T> = (&'static str, &'static str, fn(&Activity) -> T);

pub(super) fn models(app: &App, page: &mut Page) {
    let host = app.models.host();
    let mut loaded = Vec::new();
    let mut active = Vec::new();
    for model in app.models.all() {
        let is_loaded = host.is_loaded(&model.name);
        loaded.push((model.name.as_str(), u8::from(is_loaded)));
        if is_loaded && let Some(activity) = activity(app, &model.name) {
            active.push((model.name.as_str(), activity));
        }
    }
    let count: u32 = loaded
        .iter()
        .map(|(_, is_loaded)| u32::from(*is_loaded))
        .sum();
    page.gauge("models_loaded", "Models in memory.")
        .sample(&[], count);
    let mut gauge = page.gauge("model_loaded", "Whether the model is in memory.");
    for (model, is_loaded) in loaded {
        gauge.sample(&[("model", model)], is_loaded);
    }
    let gauges: [Line<usize>; 6] = [
        (
            "running_requests",
            "Requests that share passes at the moment.",
            |it| it.running,
        ),
        (
            "waiting_requests",
            "Requests that wait for their turn.",
            |it| it.waiting,
        ),
        ("kv_pages", "Pages of the KV cache.", |it| it.kv.pages),
        ("kv_used_pages", "Pages that requests use.", |it| {
            let unused = it.kv.free_pages.saturating_add(it.kv.cached_pages);
            it.kv.pages.saturating_sub(unused)
        }),
        (
            "kv_cached_pages",
            "Pages kept for prompts that begin alike.",
            |it| it.kv.cached_pages,
        ),
        (
            "kv_used_bytes",
            "Bytes of the pages and states in use, cached ones included.",
            |it| it.kv.used_bytes,
        ),
    ];
    for (name, help, value) in gauges {
        let mut gauge = page.gauge(name, help);
        for (model, activity) in &active {
            gauge.sample(&[("model", model)], value(activity));
        }
    }
    let counters: [Line<u64>; 4] = [
        (
            "prefix_hits",
            "Requests that went on from kept pages, since the load.",
            |it| it.kv.hits,
        ),
        (
            "prefix_misses",
            "Requests that did not, since the load.",
            |it| it.kv.misses,
        ),
        (
            "prefix_reused_tokens",
            "Tokens that were kept, since the load.",
            |it| it.kv.reused_tokens,
        ),
        (
            "prefix_evictions",
            "Pages and states given up, since the load.",
            |it| it.kv.evictions,
        ),
    ];
    for (name, help, value) in counters {
        let mut counter = page.counter(name, help);
        for (model, activity) in &active {
            counter.sample(&[("model", model)], value(activity));
        }
    }
}

/// How busy a model is that is loaded.
///
/// A lease counts as use. Where that could keep an idle model in memory, or another one be unloaded
/// in its place, a model on which nothing runs is not asked.
fn activity(app: &App, name: &str) -> Option<Activity> {
    let config = &app.config;
    let stays = config.idle_ttl.is_none() && app.models.all().count() == 1;
    let runs = || {
        app.models
            .status(name)
            .is_ok_and(|status| status.running > 0)
    };
    if !stays && !runs() {
        return None;
    }
    let lease = app.models.host().get_within(name, Duration::ZERO).ok()?;
    Some(lease.activity())
}

pub(super) fn process(app: &App, page: &mut Page) {
    let uptime = app.started.elapsed().as_secs_f64();
    page.gauge("uptime_seconds", "Since the server started.")
        .sample(&[], uptime);
    let help = "Lines that the log could not take.";
    page.counter("log_lines_lost", help)
        .sample(&[], app.log.lost());
    if let Some(memory) = tercel::memory::measure() {
        for (name, help, bytes) in [
            (
                "process_resident_bytes",
                "Memory of the process.",
                memory.rss_bytes,
            ),
            (
                "process_own_bytes",
                "That of it which is no mapped file.",
                memory.own_bytes,
            ),
            (
                "process_peak_resident_bytes",
                "The most it ever was.",
                memory.peak_rss_bytes,
            ),
        ] {
            page.gauge(name, help).sample(&[], bytes);
        }
    }
}
