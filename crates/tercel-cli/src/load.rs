//! From a model's name to an engine or a file, with progress and Ctrl-C.

use std::sync::{Arc, Mutex, PoisonError};

use tercel::source::{Control, LocalModel, ModelRef, Store};
use tercel::{Engine, EngineBuilder, Error};

use crate::args::EngineArgs;
use crate::config::Settings;
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Display;

/// Loads what `builder` describes, and shows how it goes.
pub(crate) fn engine(
    builder: EngineBuilder,
    name: &str,
    context: &Context,
) -> Result<Engine, Failure> {
    let display = Arc::new(Mutex::new(Display::new(context)));
    let of_sink = Arc::clone(&display);
    let interrupt = context.interrupt.clone();
    let loaded = builder
        .on_progress(move |progress| {
            of_sink
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .report(progress);
        })
        .cancel_when(move || interrupt.is_hit())
        .load();
    let mut display = display.lock().unwrap_or_else(PoisonError::into_inner);
    display.clear();
    if let Err(Error::InsufficientMemory { needed, .. }) = &loaded {
        context.note(&format!("it would take\n{}", needed.breakdown()));
    } else if let Err(Error::Admission(refused)) = &loaded {
        context.note(&refused.table());
    }
    let engine = loaded?;
    display.done(name);
    for note in &engine.info().notes {
        context.note(note);
    }
    Ok(engine)
}

/// As [`engine`], for a measurement: with the flags, and for what they leave out with the user's
/// settings for the model, which are told.
pub(crate) fn measured_engine(
    builder: EngineBuilder,
    name: &str,
    args: &EngineArgs,
    context: &Context,
) -> Result<Engine, Failure> {
    let mut settings = Settings::of(name)?;
    let mut args = args.clone();
    args.fill(&mut settings);
    settings.tell(true, context);
    args.keep_to_cores()
        .and_then(|()| engine(args.apply(builder), name, context))
        .map_err(|failure| settings.explain(failure))
}

/// Adds to an error about the length of the context which flags make it up in a measurement.
pub(crate) fn explain_context(failure: Failure, flags: &str) -> Failure {
    failure.with_hint_for("max_context", &format!("that is {flags} together"))
}

/// Fetches a model into the store, unless it is there.
pub(crate) fn fetch(
    store: &Store,
    model: &ModelRef,
    offline: bool,
    context: &Context,
) -> Result<LocalModel, Failure> {
    let mut display = Display::new(context);
    let mut sink = |progress| display.report(&progress);
    let cancel = || context.interrupt.is_hit();
    let fetched = {
        let control = Control::new().on_progress(&mut sink).cancel_when(&cancel);
        store.fetch(model, &mut control.offline(offline))
    };
    display.clear();
    let fetched = fetched?;
    display.done(&fetched.name);
    Ok(fetched)
}

/// The file of a model that is on this machine; looking into a model fetches nothing.
pub(crate) fn local(name: &str) -> Result<LocalModel, Failure> {
    let store = Store::open_default()?;
    let model = store.parse(name)?;
    store.find(&model)?.ok_or_else(|| not_here(&model))
}

/// The failure of a command that fetches nothing.
pub(crate) fn not_here(model: &ModelRef) -> Failure {
    Failure::new(
        "model_not_found",
        format!("`{model}` is not on this machine"),
    )
    .with_hint(format!("fetch it with `tercel pull {model}`"))
}
