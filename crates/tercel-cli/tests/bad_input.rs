//! Whatever is wrong with what the user gives: one line that names it, a hint where there is one,
//! exit code 1 (2 for a bad command line), and nothing left behind.

mod common;

use common::{Place, events, is_empty, tiny_model};

/// A case: arguments after `tercel`, parts of the error line, a part of the hint, the kind.
struct Case<'a> {
    args: Vec<&'a str>,
    says: Vec<&'a str>,
    hints: &'a str,
    kind: &'a str,
}

fn case<'a>(args: &[&'a str], says: &[&'a str], hints: &'a str, kind: &'a str) -> Case<'a> {
    Case {
        args: args.to_vec(),
        says: says.to_vec(),
        hints,
        kind,
    }
}

#[test]
fn each_bad_input_is_one_line_with_a_way_out() {
    let place = Place::new();
    let bytes = tiny_model(&[]);
    let good = place.write("good.gguf", &bytes);
    let short = place.write("short.gguf", &bytes[..bytes.len() - 1]);
    let header = place.write("header.gguf", &bytes[..100]);
    let magic = place.write("magic.gguf", b"this is no model, it is a long enough text");
    let empty = place.write("empty.gguf", b"");
    let unknown = place.write(
        "unknown.gguf",
        tiny_model(&[("general.architecture", "warp".into())]),
    );
    let dtype = place.write("dtype.gguf", with_unknown_type(&bytes));
    let hostile = place.write(
        "hostile.gguf",
        tiny_model(&[("general.architecture", "evil\x1b]0;owned\x07\nname".into())]),
    );
    place.write("docs/readme.txt", "no model");
    let directory = place.text("docs");
    let long = "x".repeat(500);
    let missing = place.text("missing.gguf");
    let no_template = place.text("missing.jinja");
    let bad_template = place.write("bad.jinja", "{% for %}");
    let base = place.base_model();

    let mut cases = vec![
        case(
            &["run", "smolm2"],
            &["`smolm2`", "smollm2:135m"],
            "available:",
            "model_not_found",
        ),
        case(
            &["run", "nosuch:1b"],
            &["`nosuch:1b`"],
            "smollm2:135m",
            "model_not_found",
        ),
        case(
            &["run", "hi", "--offline"],
            &["smollm2:135m", "offline"],
            "tercel pull",
            "offline",
        ),
        case(
            &["run", &missing],
            &["no such file", "missing.gguf"],
            "",
            "model_not_found",
        ),
        case(
            &["run", &directory, "hi"],
            &["docs", "no model"],
            ".gguf",
            "no_model_in_directory",
        ),
        case(
            &["run", &good, ""],
            &["prompt is empty"],
            "tercel run",
            "empty_prompt",
        ),
        case(
            &["run", &good, &long],
            &["518 tokens", "160"],
            "--max-context",
            "context_overflow",
        ),
    ];
    for (file, says) in [
        (&short, ["short.gguf", "ffn_down"]),
        (&header, ["header.gguf", "end"]),
        (&magic, ["magic.gguf", "magic"]),
        (&empty, ["empty.gguf", "empty"]),
        (&unknown, ["unknown.gguf", "warp"]),
        (&dtype, ["dtype.gguf", "999"]),
        (&hostile, ["hostile.gguf", "evil"]),
    ] {
        cases.push(case(&["run", file, "hi"], &says, "", "model_load_failed"));
    }
    for (model, flag, value, says, hints, kind) in [
        (
            &good,
            "--template",
            &*no_template,
            "missing.jinja",
            "",
            "file_not_found",
        ),
        (
            &good,
            "--template",
            &bad_template,
            "template",
            "",
            "invalid_template",
        ),
        (
            &base,
            "--system",
            "be brief",
            "no chat template",
            "--template",
            "no_chat_template",
        ),
        (
            &good,
            "--max-context",
            "161",
            "161",
            "--max-context 160",
            "invalid_parameter",
        ),
    ] {
        cases.push(case(
            &["run", model, "hi", flag, value],
            &[says],
            hints,
            kind,
        ));
    }
    for (flag, value, says) in [
        ("--temperature", "2.5", ["`temperature` is 2.5", "0 to 2"]),
        ("--temperature", "-1", ["`temperature` is -1", "0 to 2"]),
        ("--top-p", "0", ["`top_p` is 0", "above 0, up to 1"]),
        ("--min-p", "1", ["`min_p` is 1", "0 to below 1"]),
        (
            "--repetition-penalty",
            "3",
            ["`repetition_penalty` is 3", "up to 2"],
        ),
        (
            "--presence-penalty",
            "-3",
            ["`presence_penalty` is -3", "-2 to 2"],
        ),
        (
            "--frequency-penalty",
            "nan",
            ["`frequency_penalty` is NaN", "-2 to 2"],
        ),
        (
            "--max-new-tokens",
            "0",
            ["`max_new_tokens` is 0", "at least 1"],
        ),
        (
            "--repetition-window",
            "0",
            ["`repetition_window` is 0", "at least 1"],
        ),
        ("--stop", "", ["`stop` is a string of 0 bytes", "1 to 256"]),
        ("--max-context", "1", ["`max_context` is 1", "at least 2"]),
        ("--threads", "0", ["`threads` is 0", "must be 1 to "]),
    ] {
        cases.push(case(
            &["run", &good, "hi", flag, value],
            &says,
            "",
            "invalid_parameter",
        ));
    }

    for Case {
        args,
        says,
        hints,
        kind,
    } in &cases
    {
        let outcome = place.run(args);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (1, ""),
            "{args:?}: {outcome:?}"
        );
        let mut lines = outcome.stderr.lines();
        let error = lines.next().expect("an error line");
        assert!(error.starts_with("error: "), "{args:?}: {outcome:?}");
        for part in says {
            assert!(error.contains(part), "{args:?}: no `{part}` in {error}");
        }
        let hint = lines.next().unwrap_or_default();
        assert!(
            hint.is_empty() || hint.starts_with("hint: "),
            "{args:?}: {outcome:?}"
        );
        assert!(hint.contains(hints), "{args:?}: no `{hints}` in {hint}");
        assert_eq!(lines.next(), None, "{args:?}: {outcome:?}");
        assert!(!outcome.stderr.contains('\x1b'), "{args:?}: {outcome:?}");
        assert!(is_empty(&place.home()), "{args:?}");

        let mut args = args.clone();
        args.push("--json");
        let outcome = place.run(&args);
        assert_eq!(
            (outcome.code, outcome.stderr.as_str()),
            (1, ""),
            "{args:?}: {outcome:?}"
        );
        let event = events(&outcome.stdout).pop().expect("an event");
        assert_eq!(event["event"], "error", "{args:?}: {event}");
        assert_eq!(event["kind"], *kind, "{args:?}: {event}");
        let says_ready = outcome.stdout.contains("\"ready\"");
        assert!(
            !says_ready || *kind != "model_load_failed",
            "{args:?}: {outcome:?}"
        );
    }
}

#[test]
fn a_bad_command_line_is_refused_with_code_2() {
    let place = Place::new();
    for (args, part) in [
        (&["run", "--no-such-flag"][..], "--no-such-flag"),
        (&["run", "a", "b", "c"], "'c'"),
        (&["run", "--temperature", "hot"], "hot"),
        (&["run", "--seed", "-1", "hi"], "-1"),
        (&["run", "--raw", "--system", "x", "hi"], "--system"),
        (&["run", "-m", "a", "b", "c"], "cannot be used"),
        (&["run", "-m", "a", "-p", "b", "c"], "no meaning"),
        (&["rm"], "MODEL"),
        (&["no-such-command"], "no-such-command"),
        (&[], "Usage"),
    ] {
        let outcome = place.run(args);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (2, ""),
            "{args:?}: {outcome:?}"
        );
        assert!(outcome.stderr.contains(part), "{args:?}: {outcome:?}");
    }
}

#[test]
fn a_store_that_cannot_be_written_is_named_before_anything_is_fetched() {
    let place = Place::new();
    let file = place.write("a-file", "in the way");
    let mut command = place.command(&["pull", "smollm2:135m"]);
    command
        .env("TERCEL_HOME", format!("{file}/home"))
        .env("TERCEL_OFFLINE", "0");
    let outcome = common::outcome(&mut command);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(
        lines[0].starts_with("error: cannot write") && lines[0].contains("a-file"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("hint: ") && lines[1].contains("TERCEL_HOME"),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn commands_on_models_that_are_not_here_say_where_to_get_them() {
    let place = Place::new();
    for (args, says, hint) in [
        (&["pull", "smollm2:135m"][..], "offline", "tercel pull"),
        (
            &["inspect", "smollm2:135m"],
            "not on this machine",
            "tercel pull smollm2:135m",
        ),
        (
            &["tokenize", "smollm2:135m", "x"],
            "not on this machine",
            "tercel pull smollm2:135m",
        ),
        (
            &["rm", "smollm2:135m"],
            "not in the model store",
            "tercel list",
        ),
        (
            &["perplexity", "smollm2:135m", "missing.txt"],
            "no such text file: missing.txt",
            "",
        ),
    ] {
        let outcome = place.run(args);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (1, ""),
            "{args:?}: {outcome:?}"
        );
        assert!(
            outcome.stderr.starts_with("error: "),
            "{args:?}: {outcome:?}"
        );
        assert!(outcome.stderr.contains(says), "{args:?}: {outcome:?}");
        assert!(outcome.stderr.contains(hint), "{args:?}: {outcome:?}");
    }
}

/// Changes the type of the first tensor to one that no version of the format has.
fn with_unknown_type(bytes: &[u8]) -> Vec<u8> {
    let name = b"token_embd.weight";
    let at = bytes
        .windows(name.len())
        .position(|w| w == name)
        .expect("the tensor is there");
    // After the name: the number of dimensions (4 bytes), two dimensions (8 each), the type.
    let kind = at + name.len() + 4 + 16;
    let mut changed = bytes.to_vec();
    changed[kind..kind + 4].copy_from_slice(&999_u32.to_le_bytes());
    changed
}
