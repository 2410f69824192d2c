"""Ollama's own client for Python, as it is."""

import json
import math

import ollama
import pydantic
import pytest

from serving import MODEL

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
OPTIONS = {"num_predict": 16, "temperature": 0, "seed": 1}


@pytest.fixture(scope="module")
def client(server):
    with ollama.Client(host=server.url, timeout=60) as client:
        yield client


def test_a_chat_is_answered(client):
    reply = client.chat(model=MODEL, messages=QUESTION, options=OPTIONS)
    assert reply.message.role == "assistant" and "Paris" in reply.message.content
    assert reply.done and reply.done_reason in ("stop", "length")
    assert reply.model == MODEL and reply.created_at.startswith("20")
    assert reply.prompt_eval_count > 0 and 0 < reply.eval_count <= 16
    # Nanoseconds, whose sum is in the whole.
    parts = reply.prompt_eval_duration + reply.eval_duration
    assert 1_000_000 < parts <= reply.total_duration
    assert reply.load_duration >= 0


def test_a_chat_streams(client):
    whole = client.chat(model=MODEL, messages=QUESTION, options=OPTIONS)
    parts = list(client.chat(model=MODEL, messages=QUESTION, options=OPTIONS, stream=True))
    assert "".join(it.message.content for it in parts) == whole.message.content
    assert [it.done for it in parts] == [False] * (len(parts) - 1) + [True]
    assert parts[-1].done_reason == whole.done_reason
    assert parts[-1].eval_count == whole.eval_count


def test_a_text_is_generated(client):
    settings = {"model": MODEL, "prompt": "What is the capital of France?", "options": OPTIONS}
    whole = client.generate(**settings)
    assert "Paris" in whole.response and whole.done
    parts = list(client.generate(**settings, stream=True))
    assert "".join(it.response for it in parts) == whole.response
    raw = client.generate(model=MODEL, prompt="One, two, three,", raw=True, options=OPTIONS)
    assert "four" in raw.response
    system = client.generate(**settings, system="Answer in French.")
    assert system.prompt_eval_count > raw.prompt_eval_count


def test_an_empty_prompt_loads_the_model(client):
    reply = client.generate(model=MODEL)
    assert (reply.response, reply.done, reply.done_reason) == ("", True, "load")


def test_options_are_heeded(client):
    bound = client.chat(model=MODEL, messages=QUESTION, options=OPTIONS | {"num_predict": 2})
    assert (bound.eval_count, bound.done_reason) == (2, "length")
    stop = client.generate(
        model=MODEL, prompt="One, two, three,", raw=True, options=OPTIONS | {"stop": ["five"]}
    )
    assert "five" not in stop.response and stop.done_reason == "stop"
    hot = OPTIONS | {"temperature": 1.3, "num_predict": 24}
    texts = [
        client.chat(model=MODEL, messages=QUESTION, options=hot | {"seed": seed}).message.content
        for seed in (3, 3, 4, 5)
    ]
    assert texts[0] == texts[1] and len(set(texts)) > 1


def test_models_are_listed_shown_and_running(client):
    listed = client.list().models
    assert [it.model.removesuffix(":latest") for it in listed] == [MODEL]
    assert listed[0].size > 1_000_000 and listed[0].modified_at
    assert listed[0].details.family and listed[0].details.quantization_level
    shown = client.show(MODEL)
    assert shown.details.format and "completion" in shown.capabilities
    assert any(key.endswith("context_length") for key in shown.modelinfo)
    client.chat(model=f"{MODEL}:latest", messages=QUESTION, options=OPTIONS)
    running = client.ps().models
    assert [it.model.removesuffix(":latest") for it in running] == [MODEL]
    assert running[0].size > 0 and running[0].context_length == 2048


def test_the_version_is_told(server):
    assert server.get("/api/version").json()["version"][0].isdigit()


def test_texts_are_embedded(client):
    texts = ["The cat sleeps on the sofa.", "A kitten is asleep on the couch.", "Rates rose."]
    reply = client.embed(model=MODEL, input=texts)
    assert len(reply.embeddings) == 3 and reply.prompt_eval_count > 0
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    for vector in reply.embeddings:
        assert math.isclose(dot(vector, vector), 1, abs_tol=1e-3)
    first, second, third = reply.embeddings
    assert dot(first, second) > dot(first, third)
    one = client.embed(model=MODEL, input=texts[0])
    assert dot(one.embeddings[0], first) > 0.9999


class Animal(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(max_length=12)
    legs: int = pydantic.Field(ge=0, le=8)


def test_answers_keep_to_a_format(client):
    question = [{"role": "user", "content": "Name an animal."}]
    settings = {"model": MODEL, "options": {"seed": 1, "num_predict": 200}}
    reply = client.chat(messages=question, format=Animal.model_json_schema(), **settings)
    Animal.model_validate_json(reply.message.content)
    reply = client.generate(prompt="Name an animal.", format="json", **settings)
    assert reply.done_reason == "length" or isinstance(json.loads(reply.response), dict)
    chunks = client.chat(
        messages=question, format=Animal.model_json_schema(), stream=True, **settings
    )
    Animal.model_validate_json("".join(it.message.content for it in chunks))


REFUSALS = {
    "temperature": {"options": {"temperature": 3}},
    "option": {"options": {"no_such_option": 1}},
    "mirostat": {"options": {"mirostat": 2}},
    "schema": {"format": {"type": "array", "uniqueItems": True}},
    "tools": {"tools": [{"type": "function", "function": {"name": "a b"}}]},
    "role": {"messages": [{"role": "wizard", "content": "x"}]},
    "image": {"messages": [{"role": "user", "content": "x", "images": ["aGVsbG8="]}]},
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_wrong_or_not_supported_is_refused(client, name):
    with pytest.raises(ollama.ResponseError) as refusal:
        client.chat(**({"model": MODEL, "messages": QUESTION} | REFUSALS[name]))
    assert refusal.value.status_code == 400
    assert isinstance(refusal.value.error, str) and refusal.value.error


def test_a_model_that_is_not_there_is_told(client):
    for call in (
        lambda: client.chat(model="absent", messages=QUESTION),
        lambda: list(client.chat(model="absent", messages=QUESTION, stream=True)),
        lambda: client.generate(model="absent", prompt="x"),
        lambda: client.embed(model="absent", input="x"),
        lambda: client.show("absent"),
    ):
        with pytest.raises(ollama.ResponseError) as refusal:
            call()
        assert refusal.value.status_code == 404
        assert "absent" in refusal.value.error


def test_models_are_not_fetched_unless_the_operator_allows_it(client):
    with pytest.raises(ollama.ResponseError) as refusal:
        client.pull("smollm2:135m")
    assert refusal.value.status_code == 403
