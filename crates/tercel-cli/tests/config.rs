//! The user's settings: `tercel config`, what other commands take from `config.toml`, and `--cores`.

mod common;

use std::fs;

use common::{Outcome, Place, events};
use serde_json::{Value, json};

const ONE: [&str; 2] = ["--max-new-tokens", "1"];

/// The file of a place.
fn config(place: &Place) -> String {
    fs::read_to_string(place.home().join("config.toml")).unwrap_or_default()
}

fn event<'a>(events: &'a [Value], name: &str) -> &'a Value {
    let found = events.iter().find(|event| event["event"] == name);
    found.expect(name)
}

/// The events of a reply of one token.
fn run(place: &Place, model: &str, more: &[&str]) -> Vec<Value> {
    let args = [&["run", model, "hi", "--json"], &ONE[..], more].concat();
    events(&place.stdout(&args))
}

/// The processors that the tests may use.
fn allowed() -> Vec<String> {
    let cores = tercel::cores::of_process().expect("the system tells");
    cores.iter().map(|core| core.to_string()).collect()
}

fn refused(outcome: &Outcome, code: i32, says: &[&str]) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    for says in says {
        assert!(outcome.stderr.contains(says), "{says}: {outcome:?}");
    }
}

#[test]
fn values_are_set_used_replaced_by_flags_and_taken_back() {
    let place = Place::new();
    let model = place.model(&[]);
    let path = place.stdout(&["config", "path"]);
    assert_eq!(
        path.trim(),
        place.home().join("config.toml").display().to_string()
    );
    for args in [
        &["threads", "1"][..],
        &["max_context", "100"],
        &["top_k", "3"],
        &["--model", &model, "threads", "2"],
        &["--model", &model, "temperature", "0.25"],
    ] {
        let told = place.stdout(&[&["config", "set"], args].concat());
        assert!(told.contains("unset -> "), "{told}");
    }
    let whole = fs::canonicalize(&model).expect("it is there");
    let expected = format!(
        "threads = 1\nmax_context = 100\ntop_k = 3\n\n[models.\"{}\"]\nthreads = 2\n\
         temperature = 0.25\n",
        whole.display()
    );
    assert_eq!(config(&place), expected);

    let found = run(&place, &model, &[]);
    assert_eq!(
        event(&found, "config")["settings"],
        json!({"threads": 2, "max_context": 100, "top_k": 3, "temperature": 0.25})
    );
    let done = event(&found, "done");
    assert_eq!(
        (
            &done["threads"],
            &done["settings"]["temperature"],
            &done["settings"]["top_k"]
        ),
        (&json!(2), &json!(0.25), &json!(3))
    );
    let flags = [
        "--threads",
        "1",
        "--temperature",
        "0",
        "--max-context",
        "90",
    ];
    let found = run(&place, &model, &flags);
    assert_eq!(event(&found, "config")["settings"], json!({"top_k": 3}));
    let done = event(&found, "done");
    assert_eq!(
        (&done["threads"], &done["settings"]["temperature"]),
        (&json!(1), &json!(0.0))
    );
    // Another model has what is for all.
    let base = place.base_model();
    let done = run(&place, &base, &[]);
    assert_eq!(event(&done, "done")["threads"], 1);

    let told = place.stdout(&["config", "unset", "--model", &model, "threads"]);
    assert!(told.starts_with("threads 2 -> unset"), "{told}");
    assert_eq!(event(&run(&place, &model, &[]), "done")["threads"], 1);
}

#[test]
fn a_type_of_keys_and_values_gives_way_to_exact_and_is_reckoned_with() {
    let place = Place::new();
    let model = place.model(&[]);
    place.stdout(&["config", "set", "kv_type", "q8_0"]);
    // Its heads have 16 elements.
    let says = ["hint: it stands in ", "config.toml, line 1"];
    refused(&place.run(&["run", &model, "hi"]), 1, &says);
    assert_eq!(
        event(&run(&place, &model, &["--exact"]), "done")["event"],
        "done"
    );
    assert_eq!(
        event(&run(&place, &model, &["--kv", "f16"]), "done")["event"],
        "done"
    );

    place.write("home/config.toml", "kv_type = \"f32\"\nmax_context = 100\n");
    let fit = place.run(&["fit", &model]);
    assert!(
        fit.stderr.contains("max_context 100, kv_type f32 (from "),
        "{fit:?}"
    );
    let fit: Value = serde_json::from_str(&place.stdout(&["fit", &model, "--json"])).expect("JSON");
    assert_eq!(
        (&fit["max_context"], &fit["kv_type"]),
        (&json!(100), &json!("f32"))
    );
}

#[test]
fn settings_are_shown_with_where_they_come_from() {
    let place = Place::new();
    let model = place.model(&[("general.sampling.top_p", 0.5_f32.into())]);
    let home = place.write(
        "home/config.toml",
        format!("seed = 7\n[models.\"{model}\"]\nkv_type = \"f32\" # exact\n"),
    );
    let stdout = place.stdout(&["config", "show", &model, "--json"]);
    let shown: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(shown["file"], home.as_str());
    let of = |key: &str| {
        let settings = shown["settings"].as_array().expect("a list");
        let found = settings.iter().find(|one| one["key"] == key);
        let found = found.expect(key);
        (
            found["value"].clone(),
            found["from"].clone(),
            found["line"].clone(),
        )
    };
    for (key, value, from, line) in [
        ("kv_type", json!("f32"), "config", json!(3)),
        ("seed", json!(7), "config", json!(1)),
        ("top_p", json!(0.5), "model", Value::Null),
        ("temperature", json!(0.7), "default", Value::Null),
        ("memory_budget", Value::Null, "default", Value::Null),
    ] {
        assert_eq!(of(key), (value, from.into(), line), "{key}");
    }
    let text = place.stdout(&["config", "show"]);
    for says in ["SETTING", "seed", "line 1", "default", ": kv_type f32"] {
        assert!(text.contains(says), "{says}: {text}");
    }
    assert!(!text.contains("line 3"), "{text}");
}

#[test]
fn a_file_that_is_wrong_is_an_error_that_names_the_line() {
    let place = Place::new();
    let model = place.model(&[]);
    for (text, says) in [
        (
            "thraeds = 2\n",
            &[
                "config.toml, line 1: there is no setting `thraeds`",
                "hint: ",
            ][..],
        ),
        (
            "\nthreads = \"two\"\n",
            &["line 2: `threads` is \"two\", must be", "hint: change"],
        ),
        ("threads = \n", &["line 1: ", "hint: the file is TOML"]),
        (
            "[models.\"no such model\"]\n",
            &["line 1: `no such model` is neither"],
        ),
    ] {
        place.write("home/config.toml", text);
        for command in [
            &["run", &model, "hi"][..],
            &["bench", &model],
            &["config", "show"],
            &["config", "set", "seed", "1"],
        ] {
            refused(&place.run(command), 1, says);
        }
        assert_eq!(config(&place), text, "it is left alone");
    }
    // A value that the engine refuses is traced to its line, unless it was the flag's.
    place.write("home/config.toml", "\nthreads = 100000\n");
    let says = ["`threads` is 100000", "config.toml, line 2"];
    refused(&place.run(&["run", &model, "hi"]), 1, &says);
    place.write("home/config.toml", "max_context = 8192\n");
    let says = ["8192", "config.toml, line 1"];
    refused(&place.run(&["run", &model, "hi"]), 1, &says);
    place.write("home/config.toml", "\nthreads = 100000\n");
    let flag = place.run(&["run", &model, "hi", "--threads", "200000"]);
    refused(&flag, 1, &["`threads` is 200000"]);
    assert!(!flag.stderr.contains("line 2"), "{flag:?}");
}

#[test]
fn what_cannot_be_set_is_refused() {
    let place = Place::new();
    for (args, code, says) in [
        (&["set", "colour", "red"][..], 2, "there are threads, cores"),
        (
            &["set", "threads", "0"],
            1,
            "`threads` is 0, must be a whole number",
        ),
        (
            &["set", "temperature", "-1"],
            1,
            "`temperature` is -1, must be",
        ),
        (
            &["set", "--model", "smolm2", "threads", "1"],
            1,
            "smollm2:135m",
        ),
    ] {
        refused(&place.run(&[&["config"], args].concat()), code, &[says]);
    }
    assert_eq!(config(&place), "");
    let told = place.stdout(&["config", "unset", "seed"]);
    assert!(told.starts_with("seed unset -> unset"), "{told}");
    assert!(!place.home().join("config.toml").exists());
}

#[test]
fn tuning_keeps_what_it_found_and_other_commands_use_it() {
    let place = Place::new();
    let model = place.model(&[]);
    let small = [
        "--prompt-tokens",
        "8",
        "--max-new-tokens",
        "4",
        "--runs",
        "1",
    ];
    let tune = |more: &[&str]| place.stdout(&[&["tune", &model], &small[..], more].concat());
    let dry = tune(&["--dry-run"]);
    assert!(
        dry.contains("would write ") && dry.contains("  threads unset -> "),
        "{dry}"
    );
    assert_eq!(config(&place), "");

    place.write("home/config.toml", "# mine\ntop_k = 3\n");
    let found = events(&tune(&["--json"]));
    let (best, kept) = (event(&found, "best"), event(&found, "kept"));
    assert_eq!(kept["dry_run"], false);
    assert_eq!(kept["changes"][0]["key"], "threads");
    assert_eq!(kept["changes"][0]["new"], best["threads"]);
    let written = config(&place);
    assert!(
        written.starts_with("# mine\ntop_k = 3\n\n[models.\""),
        "{written}"
    );
    assert!(written.contains("kv_type = \"f16\"\n"), "{written}");

    let reply = run(&place, &model, &[]);
    assert_eq!(
        event(&reply, "config")["settings"]["threads"],
        best["threads"]
    );
    assert_eq!(event(&reply, "done")["threads"], best["threads"]);
    let bench = place.run(&[&["bench", &model], &small[..]].concat());
    assert!(bench.stderr.contains("kv_type f16 (from "), "{bench:?}");
    let again = tune(&[]);
    assert!(
        again.contains("\nwrote ") && again.contains("  kv_type f16 -> f16"),
        "{again}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_keeps_to_the_cores_it_is_given() {
    let place = Place::new();
    let model = place.model(&[]);
    let all = allowed();
    let first = all[0].as_str();
    let ready = |found: &[Value]| {
        let mut loads = found.iter().filter(|event| event["event"] == "load");
        loads.next_back().expect("a load")["cores"].clone()
    };
    assert_eq!(ready(&run(&place, &model, &["--cores", first])), first);
    let found = run(&place, &model, &["--cores", first]);
    assert_eq!(event(&found, "done")["threads"], 1, "as many as the cores");
    if all.len() > 1 {
        let text = place.run(&[&["run", &model, "hi", "--cores", first], &ONE[..]].concat());
        let says = format!("1 thread on core {first}");
        assert!(text.stderr.contains(&says), "{text:?}");
    }
    let small = [
        "--prompt-tokens",
        "8",
        "--max-new-tokens",
        "4",
        "--runs",
        "1",
    ];
    let text = place.stdout(&[&["bench", &model, "--cores", first], &small[..]].concat());
    let says = format!("1 thread on core {first}");
    assert!(text.contains(&says), "{text}");

    // From the file, and a flag before it.
    place.stdout(&["config", "set", "cores", first]);
    assert_eq!(ready(&run(&place, &model, &[])), first);
    let list = all.join(",");
    let wide = ready(&run(&place, &model, &["--cores", &list]));
    assert_eq!(
        wide,
        tercel::cores::of_process().expect("known").to_string()
    );
    // What is named for all models must be named where another set is best.
    let text = place.stdout(&[&["tune", &model, "--cores", &list], &small[..]].concat());
    assert!(text.contains("  cores unset -> "), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn cores_that_are_not_there_are_refused() {
    let place = Place::new();
    let model = place.model(&[]);
    let allowed = tercel::cores::of_process().expect("known").to_string();
    let says = format!("core 9999 is none of those that this process may use: {allowed}");
    for command in [
        &["run", &model, "hi"][..],
        &["bench", &model],
        &["tune", &model],
    ] {
        let outcome = place.run(&[command, &["--cores", "0,9999"]].concat());
        refused(&outcome, 1, &[&says, "hint: choose among "]);
    }
    refused(
        &place.run(&["run", &model, "hi", "--cores", "3-1"]),
        2,
        &["no list of cores"],
    );
    place.stdout(&["config", "set", "cores", "9999"]);
    let outcome = place.run(&["run", &model, "hi"]);
    refused(
        &outcome,
        1,
        &[&says, "it stands in ", "config.toml, line 1"],
    );
}
