"""Anthropic's own client for Python, as it is."""

import anthropic
import pytest

from serving import MODEL
from wire import strict

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


# The newest models of the protocol's owner have no temperature, and so no more has the client.
GREEDY = {"temperature": 0}


def ask(client, extra_body=None, **more):
    settings = {"model": MODEL, "messages": QUESTION, "max_tokens": 16}
    return client.messages.create(**(settings | more), extra_body=GREEDY | (extra_body or {}))


def input_tokens(usage):
    """All tokens of a prompt: those that were kept from earlier ones are counted apart."""
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def test_a_message_is_answered(client):
    message = strict(ask(client))
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert message.id.startswith("msg_")
    assert message.content[0].type == "text" and "Paris" in message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert input_tokens(message.usage) > 0 and 0 < message.usage.output_tokens <= 16


def test_a_system_text_and_blocks_are_taken(client):
    message = ask(
        client,
        system=[{"type": "text", "text": "Answer with one word."}],
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "What is the capital of France?"}],
            },
            {"role": "assistant", "content": "Paris."},
            {"role": "user", "content": "And of Italy?"},
        ],
        metadata={"user_id": "someone"},
    )
    assert strict(message).content[0].text


def test_a_stop_sequence_is_named(client):
    whole = ask(client, max_tokens=24).content[0].text
    word = whole.split()[2]
    message = ask(client, max_tokens=24, stop_sequences=[word])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", word)
    assert message.content[0].text == whole[: whole.index(word)]


def test_the_bound_of_tokens_is_told(client):
    message = ask(client, max_tokens=2)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 2)


def test_a_stream_has_its_events_in_order(client):
    whole = ask(client)
    events = list(ask(client, stream=True))
    kinds = [event.type for event in events if event.type != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    for event in events:
        strict(event)
    text = "".join(it.delta.text for it in events if it.type == "content_block_delta")
    assert text == whole.content[0].text
    start = next(it for it in events if it.type == "message_start").message
    end = next(it for it in events if it.type == "message_delta")
    assert input_tokens(start.usage) == input_tokens(whole.usage)
    assert end.usage.output_tokens == whole.usage.output_tokens
    assert end.delta.stop_reason == whole.stop_reason


def test_the_stream_helper_of_the_client_accumulates(client):
    with client.messages.stream(
        model=MODEL, messages=QUESTION, max_tokens=16, extra_body=GREEDY
    ) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == message.content[0].text == ask(client).content[0].text


def test_tokens_are_counted_as_the_reply_counts_them(client):
    count = strict(client.messages.count_tokens(model=MODEL, messages=QUESTION))
    assert count.input_tokens == input_tokens(ask(client).usage)
    longer = client.messages.count_tokens(model=MODEL, messages=QUESTION, system="Be brief.")
    assert longer.input_tokens != count.input_tokens


REFUSALS = {
    "max_tokens": {"max_tokens": 0},
    "temperature": {"extra_body": {"temperature": 3}},
    "tools": {"tools": [{"name": "f", "type": "bash_20250124"}]},
    "no messages": {"messages": []},
    "role": {"messages": [{"role": "wizard", "content": "x"}]},
    "unknown": {"extra_body": {"no_such_field": 1}},
    "image": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                    }
                ],
            }
        ]
    },
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_wrong_or_not_supported_is_refused(client, name):
    with pytest.raises(anthropic.BadRequestError) as refusal:
        ask(client, **REFUSALS[name])
    body = refusal.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["type"] == "error" and body["error"]["message"]


def test_a_model_that_is_not_there_is_told(client):
    with pytest.raises(anthropic.NotFoundError) as refusal:
        ask(client, model="absent")
    assert refusal.value.body["error"]["type"] == "not_found_error"
