"""OpenAI's own client for Python, as it is."""

import base64
import json
import math
import struct
from typing import Literal

import openai
import pydantic
import pytest

from serving import MODEL
from wire import error_of, strict

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **more):
    settings = {"model": MODEL, "messages": QUESTION, "max_tokens": 16, "temperature": 0}
    return client.chat.completions.create(**(settings | more))


def text_of(chunks):
    return "".join(it.choices[0].delta.content or "" for it in chunks if it.choices)


def test_models_are_listed_and_told_one_by_one(client):
    listed = strict(client.models.list().data[0])
    assert (listed.id, listed.object) == (MODEL, "model")
    assert strict(client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError) as refusal:
        client.models.retrieve("absent")
    assert refusal.value.code == "model_not_found"


def test_a_chat_is_answered(client):
    reply = strict(ask(client))
    assert reply.object == "chat.completion" and reply.id.startswith("chatcmpl-")
    assert reply.model == MODEL and reply.created > 1_700_000_000
    choice = reply.choices[0]
    assert "Paris" in choice.message.content
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    usage = reply.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens <= 16
    block = reply.model_extra["tercel"]
    assert block["prompt_tokens"] == usage.prompt_tokens
    assert block["timings"]["total_ms"] >= block["timings"]["time_to_first_token_ms"] > 0


def test_every_reply_names_its_request_and_its_backend(client):
    ids = set()
    for _ in range(3):
        answer = client.chat.completions.with_raw_response.create(
            model=MODEL, messages=QUESTION, max_tokens=1
        )
        ids.add(answer.headers["x-request-id"])
        assert answer.headers["x-tercel-backend"].startswith("cpu")
        assert answer.parse().model_extra["tercel"]["backend"].startswith("cpu")
    assert len(ids) == 3


def test_a_stream_has_the_role_first_one_id_and_one_end(client):
    whole = ask(client)
    chunks = [strict(chunk) for chunk in ask(client, stream=True)]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(it.choices[0].delta.role is None for it in chunks[1:])
    assert len({it.id for it in chunks}) == 1
    assert {it.object for it in chunks} == {"chat.completion.chunk"}
    ends = [it.choices[0].finish_reason for it in chunks if it.choices[0].finish_reason]
    assert ends == [whole.choices[0].finish_reason]
    assert chunks[-1].choices[0].finish_reason, "the last chunk says why it ended"
    assert text_of(chunks) == whole.choices[0].message.content
    assert all(it.usage is None for it in chunks), "usage was not asked for"


def test_a_stream_gives_its_usage_when_asked(client):
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    last = strict(chunks[-1])
    assert last.choices == []
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(it.usage is None for it in chunks[:-1])


def test_the_stream_helper_of_the_client_accumulates(client):
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, max_tokens=16, temperature=0
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert final.choices[0].message.content == ask(client).choices[0].message.content


def test_completions_continue_a_text(client):
    settings = {"model": MODEL, "prompt": "One, two, three,", "max_tokens": 8, "temperature": 0}
    whole = strict(client.completions.create(**settings))
    assert whole.object == "text_completion" and whole.id.startswith("cmpl-")
    assert "four" in whole.choices[0].text
    chunks = list(client.completions.create(**settings, stream=True))
    assert "".join(it.choices[0].text for it in chunks if it.choices) == whole.choices[0].text
    echoed = client.completions.create(**settings, echo=True)
    assert echoed.choices[0].text == settings["prompt"] + whole.choices[0].text


def test_completions_take_several_prompts_and_tokens(client, server):
    prompts = ["One, two, three,", "The sky is"]
    settings = {"model": MODEL, "max_tokens": 6, "temperature": 0}
    several = client.completions.create(prompt=prompts, **settings)
    assert [it.index for it in several.choices] == [0, 1]
    for prompt, choice in zip(prompts, several.choices):
        alone = client.completions.create(prompt=prompt, **settings)
        assert choice.text == alone.choices[0].text
    answer = server.post("/tokenize", {"model": MODEL, "content": prompts[1]})
    assert answer.status_code == 200, answer.text
    tokens = answer.json()["tokens"]
    by_tokens = client.completions.create(prompt=tokens, **settings)
    assert by_tokens.choices[0].text == several.choices[1].text


def test_responses_are_given_whole(client):
    reply = strict(
        client.responses.create(
            model=MODEL, input="What is the capital of France?", max_output_tokens=16, temperature=0
        )
    )
    assert reply.object == "response" and reply.id.startswith("resp_")
    assert "Paris" in reply.output_text
    assert reply.output[0].type == "message" and reply.output[0].role == "assistant"
    if reply.status == "incomplete":
        assert reply.incomplete_details.reason == "max_output_tokens"
    else:
        assert reply.status == "completed"
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens


def test_responses_take_instructions_and_items(client):
    reply = client.responses.create(
        model=MODEL,
        instructions="Answer with one word.",
        input=[
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": "Paris."},
            {"role": "user", "content": [{"type": "input_text", "text": "And of Italy?"}]},
        ],
        max_output_tokens=12,
        temperature=0,
        store=False,
    )
    assert strict(reply).output_text


def test_responses_stream_their_events_in_order(client):
    settings = {
        "model": MODEL,
        "input": "What is the capital of France?",
        "max_output_tokens": 16,
        "temperature": 0,
    }
    events = [strict(event) for event in client.responses.create(**settings, stream=True)]
    kinds = [event.type for event in events]
    start = ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[:4] == [f"response.{it}" for it in start]
    end = ["output_text.done", "content_part.done", "output_item.done"]
    assert kinds[-4:-1] == [f"response.{it}" for it in end]
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events[4:-4])
    assert text == events[-4].text == events[-1].response.output_text
    assert text == client.responses.create(**settings).output_text
    assert len({event.item_id for event in events[4:-4]}) == 1
    with client.responses.stream(**settings) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == text


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(
        sum(x * x for x in a) * sum(y * y for y in b)
    )


def test_embeddings_are_normalised_and_tell_texts_apart(client):
    texts = [
        "The cat sleeps on the sofa.",
        "A kitten is asleep on the couch.",
        "Interest rates rose by half a percent.",
    ]
    reply = strict(client.embeddings.create(model=MODEL, input=texts, encoding_format="float"))
    vectors = [it.embedding for it in reply.data]
    assert [it.index for it in reply.data] == [0, 1, 2]
    assert all(abs(sum(x * x for x in vector) - 1) < 1e-3 for vector in vectors)
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2])
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 0
    again = client.embeddings.create(model=MODEL, input=texts[0], encoding_format="float")
    assert cosine(again.data[0].embedding, vectors[0]) > 0.9999


def test_embeddings_in_base64_are_the_same_numbers(client, server):
    # Without a format the client itself asks for base64 and decodes it.
    decoded = client.embeddings.create(model=MODEL, input="Hello").data[0].embedding
    body = {"model": MODEL, "input": "Hello"}
    plain = server.post("/v1/embeddings", body).json()["data"][0]["embedding"]
    packed = server.post("/v1/embeddings", body | {"encoding_format": "base64"}).json()
    packed = base64.b64decode(packed["data"][0]["embedding"])
    unpacked = list(struct.unpack(f"<{len(packed) // 4}f", packed))
    assert unpacked == pytest.approx(plain, abs=1e-6)
    assert decoded == pytest.approx(plain, abs=1e-6)


def test_logprobs_are_probabilities_of_what_was_chosen(client):
    reply = strict(ask(client, logprobs=True, top_logprobs=5))
    entries = reply.choices[0].logprobs.content
    assert len(entries) >= reply.usage.completion_tokens - 1
    assert "".join(it.token for it in entries) == reply.choices[0].message.content
    for entry in entries:
        top = entry.top_logprobs
        assert len(top) == 5
        assert [it.logprob for it in top] == sorted((it.logprob for it in top), reverse=True)
        assert sum(math.exp(it.logprob) for it in top) <= 1 + 1e-4
        # A greedy reply takes the most likely token.
        assert entry.token == top[0].token
        assert entry.logprob == pytest.approx(top[0].logprob, abs=1e-4)
        assert bytes(entry.bytes).decode("utf-8") == entry.token


def test_logprobs_stream_with_their_text(client):
    whole = ask(client, logprobs=True, top_logprobs=2)
    chunks = list(ask(client, logprobs=True, top_logprobs=2, stream=True))
    entries = [
        entry
        for chunk in chunks
        if chunk.choices and chunk.choices[0].logprobs
        for entry in chunk.choices[0].logprobs.content or []
    ]
    want = whole.choices[0].logprobs.content
    assert [it.token for it in entries] == [it.token for it in want]
    assert [it.logprob for it in entries] == pytest.approx([it.logprob for it in want])


def test_completions_give_logprobs_in_their_own_form(client):
    reply = client.completions.create(
        model=MODEL, prompt="One, two,", max_tokens=4, temperature=0, logprobs=3
    )
    logprobs = strict(reply).choices[0].logprobs
    assert "".join(logprobs.tokens) == reply.choices[0].text
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.tokens)
    for token, logprob, top in zip(
        *(getattr(logprobs, it) for it in ("tokens", "token_logprobs", "top_logprobs"))
    ):
        assert sum(math.exp(it) for it in top.values()) <= 1 + 1e-4
        assert top[token] == pytest.approx(logprob, abs=1e-4)


def test_n_replies_are_told_apart(client):
    settings = {"n": 3, "temperature": 1.0, "seed": 11, "max_tokens": 12}
    reply = strict(ask(client, **settings))
    texts = [it.message.content for it in reply.choices]
    assert [it.index for it in reply.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    streamed = {0: "", 1: "", 2: ""}
    for chunk in ask(client, **settings, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert [streamed[index] for index in range(3)] == texts


def test_a_seed_gives_the_same_text_again(client):
    settings = {"temperature": 1.2, "seed": 5, "max_tokens": 24}
    first, second = (ask(client, **settings).choices[0].message.content for _ in range(2))
    assert first == second
    others = {
        ask(client, **settings | {"seed": seed}).choices[0].message.content for seed in (6, 7, 8)
    }
    assert others != {first}


def test_a_stop_text_ends_the_reply_and_is_no_part_of_it(client):
    prompt = {"model": MODEL, "prompt": "One, two, three,", "max_tokens": 24, "temperature": 0}
    whole = client.completions.create(**prompt).choices[0].text
    reply = client.completions.create(**prompt, stop=["six", "never"])
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].text == whole[: whole.index("six")]
    streamed = client.completions.create(**prompt, stop="six", stream=True)
    assert "".join(it.choices[0].text for it in streamed) == reply.choices[0].text


def test_both_bounds_of_tokens_hold(client):
    for bound in ("max_tokens", "max_completion_tokens"):
        reply = client.chat.completions.create(
            model=MODEL, messages=QUESTION, temperature=0, **{bound: 3}
        )
        assert reply.usage.completion_tokens == 3, bound
        assert reply.choices[0].finish_reason == "length", bound


def token_of(server, text):
    return server.post("/tokenize", {"model": MODEL, "content": text}).json()["tokens"]


def test_logit_bias_forbids_and_forces(client, server):
    plain = ask(client, max_tokens=1, logprobs=True, top_logprobs=1)
    first = token_of(server, plain.choices[0].message.content)[0]
    without = ask(client, max_tokens=1, logit_bias={str(first): -100})
    assert without.choices[0].message.content != plain.choices[0].message.content
    (banana,) = token_of(server, " banana")[:1]
    forced = ask(client, max_tokens=3, logit_bias={str(banana): 100})
    word = server.post("/detokenize", {"model": MODEL, "tokens": [banana]}).json()["content"]
    assert forced.choices[0].message.content == word * 3


def test_penalties_keep_a_reply_from_repeating_itself(client):
    prompt = {
        "model": MODEL,
        "prompt": "The cat sat down. " * 6,
        "max_tokens": 48,
        "temperature": 0,
    }
    plain = client.completions.create(**prompt).choices[0].text
    assert plain.count("cat") > 2, plain
    text = client.completions.create(**prompt, frequency_penalty=2.0).choices[0].text
    assert text.count("cat") < plain.count("cat"), text
    # The milder one shows where several words are about as likely.
    listed = [{"role": "user", "content": "Write a poem about the sea."}]
    plain, text = (
        ask(client, messages=listed, max_tokens=64, presence_penalty=penalty)
        for penalty in (0, 2.0)
    )
    assert plain.choices[0].message.content != text.choices[0].message.content


class Animal(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(max_length=20)
    kind: Literal["mammal", "bird", "fish"]
    legs: int = pydantic.Field(ge=0, le=8)
    others: list[Literal["robin", "owl", "trout"]] = pydantic.Field(max_length=2)


def test_answers_keep_to_a_schema(client):
    question = [{"role": "user", "content": "Describe a sparrow."}]
    for seed in range(3):
        reply = client.chat.completions.parse(
            model=MODEL, messages=question, response_format=Animal, seed=seed, max_tokens=400
        )
        assert reply.choices[0].message.parsed.kind in ("mammal", "bird", "fish")
    with client.chat.completions.stream(
        model=MODEL, messages=question, response_format=Animal, seed=1, max_tokens=400
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Animal)


def test_an_answer_is_a_json_object(client):
    reply = ask(client, response_format={"type": "json_object"}, max_tokens=300, seed=3)
    choice = reply.choices[0]
    assert choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict)


def test_an_answer_that_is_cut_says_so(client):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model=MODEL, messages=QUESTION, response_format=Animal, max_tokens=3
        )


REFUSALS = {
    "temperature": ({"temperature": 2.5}, "temperature"),
    "top_p": ({"top_p": 0}, "top_p"),
    "max_tokens": ({"max_tokens": 0}, None),
    "n": ({"n": 1000}, "n"),
    "stop": ({"stop": ["x"] * 40}, "stop"),
    "top_logprobs": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "top_logprobs alone": ({"top_logprobs": 2}, "top_logprobs"),
    "logit_bias": ({"logit_bias": {"5": 101}}, "logit_bias"),
    "logit_bias of no token": ({"logit_bias": {"99999999": 1}}, "logit_bias"),
    "presence_penalty": ({"presence_penalty": 2.5}, "presence_penalty"),
    "functions": ({"functions": [{"name": "f", "parameters": {}}]}, "functions"),
    "format": ({"response_format": {"type": "xml"}}, "response_format"),
    "schema": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": {"type": "array", "uniqueItems": True}},
            }
        },
        None,
    ),
    "audio": ({"modalities": ["audio"]}, "modalities"),
    "unknown": ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
    "no messages": ({"messages": []}, None),
    "role": ({"messages": [{"role": "wizard", "content": "x"}]}, None),
    "image": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}],
                }
            ]
        },
        None,
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_wrong_or_not_supported_is_refused_by_name(client, name):
    settings, param = REFUSALS[name]
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, **settings)
    error = error_of(refusal.value.response)
    assert refusal.value.type == "invalid_request_error"
    if param:
        assert (refusal.value.param or "").startswith(param), error


def test_a_model_that_is_not_there_is_told(client):
    with pytest.raises(openai.NotFoundError) as refusal:
        ask(client, model="absent")
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")


def test_a_prompt_that_is_too_long_is_refused_with_the_counts(client):
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(client, messages=[{"role": "user", "content": "word " * 4000}])
    assert refusal.value.code == "context_overflow"
    assert "2048" in refusal.value.message


def test_what_changes_nothing_is_taken(client):
    reply = ask(
        client,
        user="someone",
        metadata={"k": "v"},
        store=False,
        service_tier="auto",
        response_format={"type": "text"},
        modalities=["text"],
    )
    assert reply.choices[0].message.content
