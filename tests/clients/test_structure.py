"""Answers that keep to schemas, judged by a validator that knows nothing of how they were made."""

import json
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


def test_answers_are_what_their_schemas_describe(server):
    assert len(SCHEMAS) == 50
    answers(server, range(1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_answers_are_what_their_schemas_describe(server):
    answers(server, range(20))
