//! `tercel run` on a tiny random model: replies, seeds, stops, pipes and events.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use common::{Place, events};

/// A reply of 40 tokens that is the same each time, and is not cut by an end token.
const FIXED: [&str; 6] = [
    "--seed",
    "7",
    "--max-new-tokens",
    "40",
    "--ignore-eos",
    "--quiet",
];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

#[test]
fn a_reply_goes_to_stdout_and_one_line_of_statistics_to_stderr() {
    let place = Place::new();
    let model = place.model(&[]);
    let args = [
        "run",
        &model,
        "hi",
        "--max-new-tokens",
        "5",
        "--ignore-eos",
        "--threads",
        "1",
    ];
    let outcome = place.run(&args);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.ends_with('\n'));
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let prompt = "user: hi\nassistant: ".len();
    let expected = format!("{prompt} prompt + 5 generated tokens | ttft ");
    assert!(lines[0].starts_with(&expected), "{lines:?}");
    for part in [
        "| prefill ",
        ", decode ",
        " tok/s | max_new_tokens | cpu-",
        ", 1 thread",
    ] {
        assert!(lines[0].contains(part), "{part} in {lines:?}");
    }
    let quiet = place.run(&with(&args, &["--quiet"]));
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
}

#[test]
fn a_seed_gives_one_text_whatever_the_threads_and_after_a_restart() {
    let place = Place::new();
    let model = place.model(&[]);
    let reply = |seed: &str, threads: &str, temperature: &str| {
        place.stdout(&[
            "run",
            &model,
            "a prompt",
            "--max-new-tokens",
            "60",
            "--ignore-eos",
            "--seed",
            seed,
            "--threads",
            threads,
            "--temperature",
            temperature,
        ])
    };
    let first = reply("3", "1", "1.2");
    for threads in ["1", "2", "3"] {
        assert_eq!(reply("3", threads, "1.2"), first, "{threads} threads");
    }
    assert_ne!(reply("4", "1", "1.2"), first);
    assert_eq!(
        reply("4", "2", "0"),
        reply("5", "1", "0"),
        "greedy needs no seed"
    );
}

#[test]
fn a_stop_string_ends_the_reply_before_it() {
    let place = Place::new();
    let model = place.model(&[]);
    let args = with(&["run", &model, "hello"], &FIXED);
    let whole = place.stdout(&args);
    let characters: Vec<char> = whole.trim_end_matches('\n').chars().collect();
    // Two characters from the middle, where no other pair like it comes before.
    let stop: String = characters[20..22].iter().collect();
    let at = whole.find(&stop).expect("it is there");

    let stdout = place.stdout(&with(
        &args,
        &["--json", "--stop", "never", "--stop", &stop],
    ));
    let events = events(&stdout);
    let done = events.last().expect("an event");
    assert_eq!(done["event"], "done");
    assert_eq!(done["stop_reason"], "stop_sequence");
    assert_eq!(done["stop_sequence"], stop.as_str());
    assert_eq!(done["text"], &whole[..at]);
    let deltas: String = events
        .iter()
        .filter(|event| event["event"] == "delta")
        .map(|event| event["text"].as_str().expect("text"))
        .collect();
    assert_eq!(deltas, &whole[..at]);
}

#[test]
fn events_tell_of_the_load_the_deltas_and_the_end() {
    let place = Place::new();
    let model = place.base_model();
    let stdout = place.stdout(&with(&["run", &model, "hi", "--json"], &FIXED[..5]));
    let events = events(&stdout);
    let names: Vec<&str> = events
        .iter()
        .map(|e| e["event"].as_str().expect("a name"))
        .collect();
    let mut order = names.clone();
    order.dedup();
    assert_eq!(order, ["load", "note", "delta", "done"]);
    let loads: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "load")
        .collect();
    assert_eq!(loads[0]["phase"], "loading");
    let ready = loads.last().expect("a report");
    assert_eq!(
        (&ready["phase"], ready["fraction"].as_f64()),
        (&"ready".into(), Some(1.0))
    );
    let done = events.last().expect("an event");
    for (field, value) in [
        ("threads", done["threads"].is_u64()),
        ("seed", done["settings"]["seed"] == 7),
    ] {
        assert!(value, "{field} in {done}");
    }
    assert_eq!(done["usage"]["generated_tokens"], 40);
    assert!(
        done["timings"]["time_to_first_token"]
            .as_f64()
            .expect("a number")
            > 0.0
    );
}

#[test]
fn a_prompt_comes_from_the_arguments_or_a_pipe_or_both() {
    let place = Place::new();
    let model = place.model(&[]);
    let args = |prompt: &[&'static str]| {
        let mut args = vec!["run".to_owned(), "-m".to_owned(), model.clone()];
        args.extend(prompt.iter().chain(&FIXED).map(|&arg| arg.to_owned()));
        args
    };
    let run = |prompt: &[&'static str], stdin: &str| {
        let args = args(prompt);
        place.stdout_of_stdin(&args.iter().map(String::as_str).collect::<Vec<_>>(), stdin)
    };
    let both = run(&["one\n\ntwo"], "");
    for (prompt, stdin) in [
        (&["-p", "one\n\ntwo"][..], ""),
        (&[], "one\n\ntwo\n"),
        (&[], "one\n\ntwo"),
        (&["one"], "two\n"),
        (&["-p", "one"], "two\r\n"),
    ] {
        assert_eq!(run(prompt, stdin), both, "{prompt:?} and {stdin:?}");
    }
    assert_ne!(run(&["one"], ""), both);

    let empty = place.run(&["run", "-m", &model]);
    assert!(
        empty.code == 1 && empty.stderr.contains("the prompt is empty"),
        "{empty:?}"
    );
    let binary = common::outcome(
        place
            .command(&["run", "-m", &model])
            .write_stdin(b"a\xff".as_slice()),
    );
    assert!(
        binary.code == 1 && binary.stderr.contains("not UTF-8 text (at byte 1)"),
        "{binary:?}"
    );
}

#[test]
fn templates_instructions_and_raw_text_make_the_prompt() {
    let place = Place::new();
    let (model, base) = (place.model(&[]), place.base_model());
    let template = place.write("t.jinja", "{{ messages[0].content }}!");
    let tokens = |args: &[&str]| {
        let stdout = place.stdout(&with(
            &with(&["run"], args),
            &["--json", "--max-new-tokens", "1"],
        ));
        events(&stdout).pop().expect("an event")["usage"]["prompt_tokens"]
            .as_u64()
            .expect("a count")
    };
    let count = |text: &str| text.len() as u64;
    assert_eq!(tokens(&[&model, "hi"]), count("user: hi\nassistant: "));
    assert_eq!(
        tokens(&[&model, "hi", "--system", "be"]),
        count("system: be\nuser: hi\nassistant: ")
    );
    assert_eq!(tokens(&[&model, "hi", "--raw"]), count("hi"));
    assert_eq!(
        tokens(&[&model, "hi", "--template", &template]),
        count("hi!")
    );
    assert_eq!(tokens(&[&base, "hi"]), count("hi"));

    let outcome = place.run(&["run", &base, "hi", "--max-new-tokens", "1"]);
    assert!(
        outcome
            .stderr
            .starts_with("note: this model has no chat template; continuing the text as it is\n"),
        "{outcome:?}"
    );
}

#[test]
fn a_reply_fills_the_context_and_says_so() {
    let place = Place::new();
    let model = place.model(&[]);
    let outcome = place.run(&["run", &model, "hi", "--ignore-eos"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("| context_full |"), "{outcome:?}");
    let stdout = place.stdout(&[
        "run",
        &model,
        "hi",
        "--ignore-eos",
        "--json",
        "--max-context",
        "64",
    ]);
    let usage = events(&stdout).pop().expect("an event")["usage"].clone();
    let sum = usage["prompt_tokens"]
        .as_u64()
        .zip(usage["generated_tokens"].as_u64());
    assert!(
        sum.is_some_and(|(prompt, new)| (63..=65).contains(&(prompt + new))),
        "{usage}"
    );
}

/// A process of which the test reads a part.
fn start(place: &Place, args: &[&str]) -> std::process::Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("tercel"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
        .envs(place.environment())
        .spawn()
        .expect("it starts")
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let place = Place::new();
    let model = place.model(&[]);
    let mut child = start(&place, &["run", &model, "hi", "--ignore-eos", "--json"]);
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut first)
        .expect("a line");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_reply_and_the_command() {
    let place = Place::new();
    let model = place.model(&[("llama.context_length", 2_000_000_u32.into())]);
    let args = [
        "run",
        &model,
        "hi",
        "--ignore-eos",
        "--json",
        "--max-new-tokens",
        "1000000",
    ];
    let mut child = start(&place, &with(&args, &["--max-context", "1000000"]));
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("\"delta\"") {
        line.clear();
        assert!(
            reader.read_line(&mut line).expect("a line") > 0,
            "it ended too early"
        );
    }
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.expect("kill runs").success());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("text");
    let done: serde_json::Value =
        serde_json::from_str(rest.lines().last().expect("a line")).expect("an event");
    assert_eq!(
        (&done["event"], &done["stop_reason"]),
        (&"done".into(), &"cancelled".into())
    );
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}
