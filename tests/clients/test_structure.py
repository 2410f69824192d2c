"""Answers that keep to schemas, judged by a validator that knows nothing of how they were made."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import pytest

from serving import MODEL

SCHEMAS = json.loads(Path(__file__).with_name("schemas.json").read_text("utf-8"))
FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER


def answer(server, case, seed):
    """Whether the reply came to its end; then it is what the schema describes."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": case["ask"]}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": case["name"], "strict": True, "schema": case["schema"]},
        },
        "temperature": 1,
        "seed": seed,
        "max_tokens": 800,
    }
    reply = server.post("/v1/chat/completions", body)
    assert reply.status_code == 200, f"{case['name']}: {reply.text}"
    choice = reply.json()["choices"][0]
    text = choice["message"]["content"]
    if choice["finish_reason"] == "length":
        return False
    assert choice["finish_reason"] == "stop", f"{case['name']}, seed {seed}: {choice}"
    try:
        jsonschema.validate(
            json.loads(text),
            case["schema"],
            cls=jsonschema.Draft202012Validator,
            format_checker=FORMATS,
        )
    except (ValueError, jsonschema.ValidationError) as error:
        raise AssertionError(f"{case['name']}, seed {seed}: {text}\n{error}") from error
    return True


def answers(server, seeds):
    cases = [(case, seed) for case in SCHEMAS for seed in seeds]
    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(lambda it: answer(server, *it), cases))
    whole = sum(ended)
    print(f"{len(ended)} answers, {whole} whole and valid, {len(ended) - whole} ended by length")
    # One that is cut says so; most are not.
    assert whole >= 0.9 * len(ended)


HOSTILE = {
    "60,000 groups in each other": {"type": "string", "pattern": "(" * 60_000 + "a" + ")" * 60_000},
    "nothing to repeat": {"type": "string", "pattern": "*a"},
    "an endless reference": {"$ref": "#"},
    "a reference to nowhere": {"$ref": "#/$defs/nothing"},
    "a long list": {"enum": [str(it) for it in range(20_000)]},
    "10 MB": {"description": "a" * (10 << 20)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_schemas_that_would_hurt_are_refused_at_once(server, name):
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 4,
    }
    schema = HOSTILE[name]
    shape = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    tool = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    function = {"name": "f", "parameters": tool, "strict": True}
    asked = [{"response_format": shape}]
    if name != "an endless reference":  # In a tool it refers to the tool's arguments.
        asked.append({"tools": [{"type": "function", "function": function}]})
    for more in asked:
        began = time.monotonic()
        reply = server.post("/v1/chat/completions", body | more)
        assert time.monotonic() - began < 10
        assert reply.status_code in (400, 413), reply.text[:400]
        assert reply.json()["error"]["message"]
    assert server.post("/v1/chat/completions", body).status_code == 200


def test_answers_are_what_their_schemas_describe(server):
    assert len(SCHEMAS) == 50
    answers(server, range(1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_answers_are_what_their_schemas_describe(server):
    answers(server, range(20))
