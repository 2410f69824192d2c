//! Chat templates: renders equal to those of `transformers`, and what hostile templates get.

#![expect(clippy::expect_used, reason = "a test says what it expects")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tercel_text::{ChatTemplate, Markers, Message, TemplateInput, TextError};

#[derive(serde::Deserialize)]
struct Renders {
    renders: Vec<Render>,
}

#[derive(serde::Deserialize)]
struct Render {
    template: String,
    conversation: String,
    messages: Vec<Message>,
    tools: Option<Vec<serde_json::Value>>,
    documents: Option<Vec<serde_json::Value>>,
    extra: serde_json::Map<String, serde_json::Value>,
    add_generation_prompt: bool,
    bos_token: String,
    eos_token: String,
    text: Option<String>,
    error: Option<String>,
}

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/templates")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a committed file")
}

/// The control tokens of all the models, as if one had them all.
fn markers() -> Markers {
    Markers::new([
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<bos>",
        "<eos>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<s>",
        "</s>",
    ])
}

#[test]
fn renders_equal_those_of_transformers() {
    assert!(compare(&data().join("renders.json")) >= 600);
}

/// Templates that are not here for their licence: see `make_templates.py`.
#[test]
fn renders_of_other_templates_equal_those_of_transformers() {
    if let Some(path) = std::env::var_os("TERCEL_TEST_RENDERS") {
        assert!(compare(Path::new(&path)) > 0);
    }
}

/// Compares all renders of a file, with the templates beside it, and says how many there are.
fn compare(path: &Path) -> usize {
    let file: Renders = serde_json::from_str(&read(path)).expect("a file of renders");
    let mut wrong = Vec::new();
    for render in &file.renders {
        let source = read(&path.with_file_name(format!("{}.jinja", render.template)));
        let template = ChatTemplate::new(&source).expect("a sound template");
        // `features` looks at single characters, where it may find what keeps tokens apart.
        let sets = if render.template == "features" { 1 } else { 2 };
        for markers in [Markers::default(), markers()].iter().take(sets) {
            let mut input = TemplateInput::new(&render.messages, markers);
            let mut extra = render.extra.clone();
            input.tools = render.tools.as_deref().unwrap_or_default();
            input.documents = render.documents.as_deref().unwrap_or_default();
            input.enable_thinking = extra.remove("enable_thinking").and_then(|it| it.as_bool());
            input.extra = extra;
            input.add_generation_prompt = render.add_generation_prompt;
            input.bos_token = &render.bos_token;
            input.eos_token = &render.eos_token;
            let found = template.render(&input);
            let found = found.as_ref().map(tercel_text::Rendered::text);
            let same = match (&render.text, &found) {
                (Some(text), Ok(found)) => text == found,
                (None, Err(_)) => true,
                _ => false,
            };
            if !same {
                wrong.push(format!(
                    "{} / {} (markers: {}, prompt: {}):\n  {found:?}\n  {:?} {:?}",
                    render.template,
                    render.conversation,
                    !markers.is_empty(),
                    render.add_generation_prompt,
                    render.text.as_deref().unwrap_or_default(),
                    render.error.as_deref().unwrap_or_default(),
                ));
            }
        }
    }
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} differ:\n{}", wrong.join("\n"));
    file.renders.len()
}

/// What a template makes of one message that says hello, or its error.
fn attempt(source: &str) -> Result<String, TextError> {
    let messages = [Message::user("hello")];
    let markers = markers();
    let rendered = ChatTemplate::new(source)?.render(&TemplateInput::new(&messages, &markers))?;
    Ok(rendered.text().to_owned())
}

#[test]
fn hostile_templates_are_stopped() {
    let deep_source = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let long_source = "x".repeat(1 << 20);
    let nested_blocks = "{% if true %}".repeat(3000) + &"{% endif %}".repeat(3000);
    let long_text = format!(
        "{{% for i in range(10000) %}}{{% set x %}}{{% for j in range(10) %}}{}{{% endfor %}}{{% endset %}}{{% endfor %}}",
        "some text ".repeat(20_000)
    );
    let cases: &[(&str, &str)] = &[
        ("a long source", &long_source),
        ("deep source", &deep_source),
        ("nested blocks", &nested_blocks),
        ("long text, captured", &long_text),
        (
            "loops",
            "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}{% endfor %}{% endfor %}{% endfor %}",
        ),
        (
            "recursion",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        ),
        (
            "loop recursion",
            "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
        ),
        ("repeat", "{{ 'x' * 10000000000 }}"),
        (
            "repeat, legal for the engine",
            "{% for i in range(10000) %}{% set x = 'x' * 99999999 %}{% endfor %}",
        ),
        ("repeat, turned around", "{{ 99999999999 * 'x' }}"),
        ("repeat a list", "{{ ([0] * 90000000) | length }}"),
        ("repeat by a quotient", "{{ 10000000000 // 1 * 'x' }}"),
        ("repeat a repeat", "{{ 'x' * 30000 * 30000 }}"),
        (
            "doubling",
            "{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
        ),
        (
            "doubling by plus",
            "{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s | length }}",
        ),
        (
            "doubling a list",
            "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s | length }}",
        ),
        (
            "doubling by nesting",
            "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
        ),
        (
            "doubling by nesting, compared",
            "{% set n = namespace(s='x', t='x') %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s == n.t }}",
        ),
        (
            "doubling by nesting, tested",
            "{% set n = namespace(s='x', t='x') %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% set n.t = [n.t, n.t] %}{% endfor %}{{ n.s is eq(n.t) }}",
        ),
        (
            "doubling by nesting, as JSON",
            "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | tojson | length }}",
        ),
        (
            "doubling by nesting, joined",
            "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s | join | length }}",
        ),
        (
            "doubling by capture",
            "{% set n = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set t %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = t %}{% endfor %}",
        ),
        (
            "doubling by macro",
            "{% macro f(s, n) %}{% if n %}{{ f(s ~ s, n - 1) }}{% endif %}{% endmacro %}{{ f('xxxxxxxxxxxxxxxx', 25) }}",
        ),
        (
            "doubling by replace",
            "{% set n = namespace(s='x') %}{% for i in range(60) %}{% set n.s = n.s.replace('x', 'xx') %}{% endfor %}",
        ),
        (
            "replace",
            "{% set x = 'x' * 100000 %}{{ x.replace('x', x) | length }}",
        ),
        (
            "replace as a filter",
            "{% set x = 'x' * 100000 %}{{ x | replace('x', x) | length }}",
        ),
        (
            "join",
            "{% set x = 'x' * 1000000 %}{{ x.join(range(10000)) | length }}",
        ),
        (
            "join as a filter",
            "{% set x = 'x' * 1000000 %}{{ range(10000) | join(x) | length }}",
        ),
        (
            "join itself",
            "{% set x = 'x' * 1000000 %}{{ ([x] * 10000) | join | length }}",
        ),
        ("width", "{{ '%1000000000d' | format(1) }}"),
        ("width by percent", "{{ '%1000000000d' % 1 }}"),
        ("width of braces", "{{ '{:>1000000000}'.format(1) }}"),
        (
            "many fields",
            "{% set x = 'x' * 100000 %}{{ ('{0}' * 30000).format(x) | length }}",
        ),
        ("indent", "{{ [1] | tojson(indent=1000000000) }}"),
        ("indent of text", "{{ ('\n' * 100000) | indent(100000) }}"),
        (
            "indent by text",
            "{{ ('\n' * 100000) | indent('x' * 100000) }}",
        ),
        (
            "nesting",
            "{% set n = namespace(s=1) %}{% for i in range(10000) %}{% for j in range(5) %}{% set n.s = [n.s] %}{% endfor %}{% endfor %}{{ n.s }}",
        ),
        (
            "nesting by a dictionary",
            "{% set n = namespace(s=1) %}{% for i in range(10000) %}{% set n.s = {'a': n.s} %}{% endfor %}",
        ),
        (
            "nesting by dict()",
            "{% set n = namespace(s=1) %}{% for i in range(10000) %}{% set n.s = dict(a=n.s) %}{% endfor %}",
        ),
        (
            "nesting by a namespace",
            "{% set n = namespace(s=1) %}{% for i in range(10000) %}{% set n.s = namespace(a=n.s) %}{% endfor %}",
        ),
        (
            "nesting by a tuple",
            "{% set n = namespace(s=1) %}{% for i in range(10000) %}{% set n.s = (n.s, 1) %}{% endfor %}",
        ),
        (
            "nesting, as JSON",
            "{% set n = namespace(s=1) %}{% for i in range(1000) %}{% set n.s = {'a': n.s} %}{% endfor %}{{ n.s | tojson }}",
        ),
        (
            "a circle",
            "{% set n = namespace() %}{% set n.n = n if true else 0 %}",
        ),
        (
            "a circle by a list",
            "{% set n = namespace() %}{% set n.n = [n] %}",
        ),
        (
            "a circle of two",
            "{% set n = namespace() %}{% set m = namespace(n=n) %}{% set n.m = m %}",
        ),
        (
            "reversals",
            "{% set n = namespace(s=[1]) %}{% for i in range(10000) %}{% for j in range(4) %}{% set n.s = n.s | reverse %}{% endfor %}{% endfor %}{{ nothing() }}",
        ),
        (
            "merges",
            "{% set n = namespace(s=[1]) %}{% for i in range(10000) %}{% set n.s = n.s + [i] %}{% endfor %}{{ nothing() }}",
        ),
        (
            "mappings",
            "{% set n = namespace(s=[1]) %}{% for i in range(10000) %}{% set n.s = n.s | map('string') | select | list %}{% endfor %}{{ nothing() }}",
        ),
        (
            "a circle, written",
            "{% set n = namespace() %}{% set n.n = n %}{{ n }}{{ n ~ '' }}{{ [n] | string }}{{ n | tojson }}",
        ),
        (
            "output",
            "{% set x = 'x' * 1000000 %}{% for i in range(10000) %}{{ x }}{% endfor %}",
        ),
        (
            "comparisons",
            "{% set x = 'x' * 4000000 %}{% set y = 'x' * 4000000 %}{% for i in range(10000) %}{% if x == y %}{% endif %}{% endfor %}",
        ),
        (
            "searches",
            "{% set x = 'x' * 4000000 %}{% for i in range(10000) %}{% if 'xy' in x %}{% endif %}{% endfor %}",
        ),
        (
            "filters",
            "{% set x = 'x' * 4000000 %}{% for i in range(10000) %}{% if x | upper %}{% endif %}{% endfor %}",
        ),
        (
            "methods",
            "{% set x = 'x' * 4000000 %}{% for i in range(10000) %}{% if x.strip() %}{% endif %}{% endfor %}",
        ),
        (
            "slices",
            "{% set x = 'x' * 4000000 %}{% for i in range(10000) %}{% if x[1:] %}{% endif %}{% endfor %}",
        ),
        ("letters", "{{ ('x' * 30000000) | list | length }}"),
        ("pieces", "{{ ('x ' * 15000000).split() | length }}"),
        ("an unknown filter", "{{ 1 | nothing }}"),
        ("an unknown function", "{{ nothing() }}"),
        ("a field of nothing", "{{ nothing.at.all }}"),
        ("include", "{% include 'chat' %}"),
        ("import", "{%- from 'chat' import x %}"),
        ("raise", "{{ raise_exception('no \n thanks') }}"),
        ("open tag", "{{ 'x"),
        ("no end", "{% if true %}"),
    ];
    let mut slow = Vec::new();
    for (name, source) in cases {
        let start = busy_time();
        let error = attempt(source).expect_err(name);
        let took = busy_time() - start;
        let message = error.to_string();
        println!("{name}: {took:?}: {message}");
        assert!(
            matches!(error, TextError::Template { .. }),
            "{name}: {message}"
        );
        assert!(
            !message.contains('\n') && message.len() < 600,
            "{name}: {message}"
        );
        if took > Duration::from_millis(200) {
            slow.push((name, took));
        }
    }
    assert!(slow.is_empty(), "too slow: {slow:?}");
    #[cfg(target_os = "linux")]
    assert!(
        peak_bytes() < 256 << 20,
        "{} bytes at the peak",
        peak_bytes()
    );
}

/// How long this thread has been running, not counting what others ran meanwhile.
#[cfg(target_os = "linux")]
fn busy_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel's file");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

/// The time since some moment.
#[cfg(not(target_os = "linux"))]
fn busy_time() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

/// The most memory this process has had, since no test beside it asks for much.
#[cfg(target_os = "linux")]
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel's own file");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("a peak");
    let kib: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kib * 1024
}

#[test]
fn odd_but_harmless_templates_render() {
    let cases = [
        ("", ""),
        ("a\n", "a"),
        ("{{ messages[0].content[::-1] }}", "olleh"),
        (
            "{{ ''[::-1] }}{{ messages[5:] | length }}{{ [][::-1] | length }}",
            "00",
        ),
        (
            "{{ 'abcdef'[-2:] ~ 'abcdef'[:-4] ~ 'abcdef'[1:5:2] ~ 'abcdef'[10:-10:-3] }}",
            "efabbdfc",
        ),
        (
            "{{ 'ab' * -1 }}{{ 'ab' * 2 }}{{ 2 * 'ab' }}{{ 2 * 3 * 1.5 }}{{ [1] * 2 }}",
            "abababab9.0[1, 1]",
        ),
        (
            "{{ 2 ** 3 * 2 }} {{ 7 // 2 * 2 }} {{ -2 * 3 }} {{ 2 * -3 }} {{ 1 + 2 * 3 }}",
            "16 6 -6 -6 7",
        ),
        ("{{ 'a' ~ 1 ~ none ~ true }}", "a1NoneTrue"),
        (
            "{{ not 'x' in 'y' }} {{ 'x' not in 'y' }} {{ 1 in [1] }}",
            "True True True",
        ),
        (
            "{{ x is defined and x == 1 }}{{ x is not defined or x == 1 }}",
            "FalseTrue",
        ),
        (
            "{% for a, b in {'k': 'v'}.items() %}{{ a ~ b }}{% endfor %}",
            "kv",
        ),
        (
            "{% for m in messages if m.content in ['hello'] %}{{ m.role }}{% else %}none{% endfor %}",
            "user",
        ),
        ("{%- set a, b = 1, 2 -%}{{ a + b }}", "3"),
        ("{{ [1, 2] + [3] }}{{ (1,) + (2,) }}", "[1, 2, 3](1, 2)"),
        ("{{ 'x' if 1 > 0 else 'y' ~ 'z' }}", "x"),
        ("{% raw %}{{ a ~ b }}{% endraw %}{# a ~ b #}", "{{ a ~ b }}"),
        (
            "{% macro f(a, b='x' ~ 'y') %}{{ a ~ b }}{% endmacro %}{{ f(1) }}{{ f(1, b=2) }}",
            "1xy12",
        ),
        (
            "{% macro f() %}[{{ caller(1) }}]{% endmacro %}{% call(x) f() %}{{ x ~ x }}{% endcall %}",
            "[11]",
        ),
        (
            "{% macro f(n) %}{% set n.s = n.s ~ 'b' %}{% endmacro %}{% set n = namespace(s='a') %}{{ f(n) }}{{ n.s }}",
            "ab",
        ),
        ("{{ strftime_now('%Y') | length }}", "4"),
        (
            "{{ 'a-b'.split('-')[-1] }}{{ ' a '.strip() }}{{ 'abc'.startswith('a') }}",
            "baTrue",
        ),
        (
            "{{ 'a\u{e9}<>&' | tojson }}{{ [] | tojson(indent=2) }}",
            "\"a\u{e9}<>&\"[]",
        ),
        (
            "{{ {'b': 1, 'a': [true, none, 1.5]} | tojson }}",
            r#"{"b": 1, "a": [true, null, 1.5]}"#,
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(attempt(source).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn strftime_now_takes_the_given_time() {
    let messages = [];
    let markers = Markers::default();
    let mut input = TemplateInput::new(&messages, &markers);
    input.local_seconds = Some(1_709_210_096);
    let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}").expect("a sound template");
    assert_eq!(
        template.render(&input).expect("a render").text(),
        "29 Feb 2024"
    );
}

#[test]
fn all_noncharacters_at_once_are_refused() {
    let all: String = ('\u{fdd0}'..='\u{fdef}').collect();
    let markers = markers();
    let template = ChatTemplate::new("{{ messages[0].content }}").expect("a sound template");
    let messages = [Message::user(all.clone())];
    let error = template
        .render(&TemplateInput::new(&messages, &markers))
        .expect_err("no sentinel");
    assert_eq!(error, TextError::NoSentinel);
    let most = all.chars().skip(1).collect::<String>() + "<|im_end|>";
    let messages = [Message::user(most.clone())];
    let rendered = template
        .render(&TemplateInput::new(&messages, &markers))
        .expect("one is free");
    assert_eq!(rendered.text(), most);
}

proptest! {
    #[test]
    fn no_template_panics(parts in prop::collection::vec(prop::sample::select(FRAGMENTS), 0..14)) {
        let source = parts.concat();
        let start = Instant::now();
        // Any outcome will do, as long as there is one.
        let _ = attempt(&source);
        let _ = attempt(&format!("{{{{ {source} }}}}"));
        prop_assert!(start.elapsed() < Duration::from_secs(1), "{}", source);
    }
}

const FRAGMENTS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{%-",
    "-%}",
    "{#",
    "#}",
    " ",
    "\n",
    "x",
    "messages",
    "messages[0].content",
    "''",
    "'a'",
    "\"",
    "'",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ":",
    ",",
    ".",
    "|",
    "~",
    "+",
    "-",
    "*",
    "**",
    "/",
    "//",
    "%",
    "==",
    "<",
    "=",
    "0",
    "-1",
    "9223372036854775807",
    "1.5",
    "none",
    "true",
    " in ",
    " not ",
    " is ",
    " if ",
    " else ",
    " and ",
    "[::-1]",
    "[:0:-1]",
    "[5:1:-2]",
    "[-9223372036854775808:]",
    "[::9223372036854775807]",
    "for a in ",
    "endfor",
    "endif",
    "set a",
    "macro f(a)",
    "endmacro",
    "f(",
    "call f()",
    "endcall",
    "generation",
    "endgeneration",
    "raw",
    "endraw",
    "namespace()",
    "dict(a=1)",
    "range(3)",
    "tojson",
    "trim",
    "length",
    "first",
    "last",
    "join",
    "items",
    "upper",
    "int",
    "round",
    "indent",
    "replace('a', '')",
    "default(1)",
    ".split()",
    ".strip()",
    ".items()",
    ".format(1)",
    "'%s' % ",
    "defined",
    "string",
    "loop.index",
    "raise_exception('x')",
    "\u{e9}",
    "\u{1f600}",
];
