"""More requests than the server takes: each one is answered, once, and with what it asked for."""

import asyncio
import json

import pytest

from serving import MODEL, until
from wire import sse

SEQUENCES, WAITING = 2, 30
CAPACITY = SEQUENCES + WAITING
ASKED = 4 * CAPACITY
TOKENS = 6


def markers(server, count):
    """Tokens that are each a word of their own, so that a reply can be told from all others."""
    found, first = {}, 1000
    while len(found) < count:
        for token in range(first, first + 400):
            body = {"model": MODEL, "tokens": [token]}
            word = server.post("/detokenize", body).json()["content"]
            if word.isascii() and word.strip().isalpha():
                found.setdefault(word.strip(), (token, word))
        first += 400
    return list(found.values())[:count]


async def ask(server, token, stream):
    """The whole answer as it came over a connection of its own."""
    body = json.dumps(
        {
            "model": MODEL,
            "prompt": "Go on:",
            "max_tokens": TOKENS,
            "temperature": 0,
            "logit_bias": {str(token): 100},
            "stream": stream,
        }
    ).encode()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    received = await asyncio.wait_for(reader.read(), 100)
    writer.close()
    head, _, rest = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    if headers.get("transfer-encoding") == "chunked":
        rest = unchunked(rest)
    else:
        assert len(rest) == int(headers["content-length"]), "nothing but one answer"
    return int(status.split()[1]), headers, rest.decode()


def unchunked(data):
    whole = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            assert data == b"\r\n", "nothing but one answer"
            return whole
        whole += data[:length]
        data = data[length + 2 :]


@pytest.mark.timeout(180)
def test_four_times_over_capacity_nobody_is_lost_or_answered_twice(launch, tmp_path):
    log = tmp_path / "log.jsonl"
    bounds = ("--max-sequences", str(SEQUENCES), "--max-waiting", str(WAITING))
    server = launch("--max-context", "256", *bounds, "--log-file", str(log))
    words = markers(server, ASKED)

    async def everybody():
        asked = (ask(server, token, index % 2 == 0) for index, (token, _) in enumerate(words))
        return await asyncio.gather(*asked)

    answers = asyncio.run(everybody())
    taken, refused = [], []
    for (_, word), (status, headers, body) in zip(words, answers):
        if status == 200:
            taken.append(headers["x-request-id"])
            if headers["content-type"].startswith("text/event-stream"):
                events = [data for _, data in sse(body)]
                assert events.pop() == "[DONE]"
                text = "".join(it["choices"][0]["text"] for it in events if it["choices"])
            else:
                text = json.loads(body)["choices"][0]["text"]
            assert text == word * TOKENS, "the answer to its own question"
        else:
            refused.append(headers["x-request-id"])
            assert status == 429, (status, body)
            assert json.loads(body)["error"]["code"] == "queue_full", body
            assert int(headers["retry-after"]) >= 1
    assert len(taken) + len(refused) == ASKED == len(set(taken + refused))
    # All that fit were taken, and no more than came free while the others were asking.
    assert CAPACITY - SEQUENCES <= len(taken) < ASKED
    done, failed = "llm.generation.completed", "llm.request.failed"
    ended = lambda: [it for it in server.events(log) if it.get("event") in (done, failed)]
    until("the log has all", lambda: len(ended()) >= ASKED)
    ends = {}
    for event in ended():
        ends.setdefault(event["request_id"], []).append(event["event"])
    for request in taken:
        assert ends[request] == [done], request
    for request in refused:
        assert ends[request] == [failed], request
    server.chat()
