"""What holds whatever the client: streams, disconnects, deadlines and readers that are slow."""

import concurrent.futures
import random
import socket
import time

import httpx
import pytest

from serving import named, until
from wire import PROTOCOLS, ndjson, sse, turn

# Emoji with joiners and skin tones, flags, CJK, combining marks, right to left, rare planes.
SAMPLES = [
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u8bf7\u5199\u4e00\u53e5\u8bdd\u3002",
    "\ud55c\uad6d\uc5b4 \ubb38\uc7a5",
    "\U0001f1eb\U0001f1f7\U0001f1ef\U0001f1f5 \u2764\ufe0f\u200d\U0001f525",
    "e\u0301 a\u0308 n\u0303 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\U00020000\U0001d54f\U0001f9ec plain text",
]
PROMPTS = 200


def question(number):
    sample = SAMPLES[number % len(SAMPLES)]
    return f"{number}: repeat this, then go on: {sample} {sample}"


@pytest.mark.timeout(240)
def test_streamed_text_is_the_text(server):
    """200 prompts over all protocols; both replies at once with others, under short bounds."""
    protocols = list(PROTOCOLS.values())

    def both(number):
        protocol = protocols[number % len(protocols)]
        asked = (server.url, question(number), 4 + number % 13, number, client)
        return protocol.path, number, protocol.text(*asked), protocol.streamed(*asked)

    with httpx.Client(timeout=60) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        results = list(pool.map(both, range(PROMPTS)))
    different = [result for result in results if result[2] != result[3]]
    assert not different, different[:3]
    assert sum(not text.isascii() for _, _, text, _ in results) > PROMPTS // 10


class Raw:
    """A connection that reads no more than it is told to."""

    def __init__(self, server, path, body, receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(30)
        self.socket.connect((server.host, server.port))
        request = httpx.Request("POST", server.url + path, json=body)
        head = f"POST {path} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        self.socket.sendall(head.encode() + b"\r\n" + request.content)

    def read(self, count=65536):
        return self.socket.recv(count)

    def close(self):
        self.socket.close()


def idle(server):
    """Whether nothing runs and nothing waits."""
    values = server.metrics()
    return not (values["tercel_running_requests"] or values["tercel_waiting_requests"])


def pages(server):
    """Pages of the cache that requests hold; those kept for prompts to come are not counted."""
    return server.metrics()["tercel_kv_used_pages"]


def long_chat(stream, **more):
    """A long reply: the end token is forbidden."""
    body = turn("Tell me a long story.") | {
        "max_tokens": 1500,
        "stream": stream,
        "logit_bias": {"2": -100, "0": -100},
    }
    return body | more


def disconnect(server, count, workers, **more):
    """Leaves requests at random times: while they wait, are read, are answered."""
    randomness = random.Random(count)
    cases = [
        (randomness.random() < 0.5, randomness.choice((0, 0.01, 0.1, 0.5)) * randomness.random())
        for _ in range(count)
    ]

    def leave(case):
        stream, seconds = case
        raw = Raw(server, "/v1/chat/completions", long_chat(stream, **more))
        time.sleep(seconds)
        raw.close()

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        list(pool.map(leave, cases))
    gone = time.monotonic()
    # A pass of a full batch in a debug build, and what the machine's other work takes.
    until("no request runs", lambda: idle(server), 3)
    return time.monotonic() - gone


def test_whoever_disconnects_is_cancelled(launch):
    server = launch("--max-context", "2048", "--max-sequences", "4")
    disconnect(server, 60, 12)
    assert pages(server) == 0, server.metrics()
    server.chat()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_500_disconnects_leave_nothing_behind(launch):
    server = launch("--max-context", "512", "--max-sequences", "4")
    memory, waits = [], []
    # The first rounds touch the pages of the cache, which stay the server's.
    for _ in range(3):
        for _ in range(10):
            waits.append(disconnect(server, 50, 12, max_tokens=400))
        assert pages(server) == 0, server.metrics()
        memory.append(server.rss_bytes())
    assert memory[2] - memory[1] < 8 << 20, [it >> 20 for it in memory]
    # A token, 100 ms, and the look at it.
    print(f"idle after {1000 * max(waits):.0f} ms at most, {1000 * sorted(waits)[15]:.0f} in the middle")
    assert sorted(waits)[-2] < 0.2, waits
    server.chat()


def test_a_deadline_ends_a_reply_and_says_so(launch):
    server = launch("--max-context", "2048", "--deadline", "0.7")
    started = time.monotonic()
    whole = server.post("/v1/chat/completions", long_chat(False)).json()
    assert time.monotonic() - started < 5
    assert whole["tercel"]["stop_reason"] == "timeout" and whole["tercel"]["incomplete"]
    assert whole["choices"][0]["message"]["content"], "what there was is given"
    answer = server.post("/v1/chat/completions", long_chat(True))
    events = [data for _, data in sse(answer.text)]
    assert events[-1] == "[DONE]"
    native = server.post("/v1/chat", {"prompt": "Count.", "max_new_tokens": 256, "stream": True})
    footer = ndjson(native.text)[-1]
    assert footer["done"] is True
    if footer["stopped"]:
        assert footer["reason"] == "timeout", footer
    server.chat()


def fast_and_big(stream=True):
    """A reply of few tokens and many bytes: each token comes with its alternatives."""
    return long_chat(stream, logprobs=True, top_logprobs=20)


def test_a_reader_that_does_not_read_is_dropped(launch):
    server = launch("--max-context", "2048", "--write-timeout", "2")
    memory = server.rss_bytes()
    readers = [
        Raw(server, "/v1/chat/completions", fast_and_big(), receive_bytes=4096) for _ in range(4)
    ]
    # Others are answered meanwhile.
    for _ in range(3):
        server.chat()
    until("they are dropped", lambda: idle(server), 60, pause=0.2)
    assert server.rss_bytes() - memory < 64 << 20
    for reader in readers:
        reader.close()

    def cut():
        ends = named(server.events(), "llm.generation.completed")
        reasons = [it["output"]["finish_reason"] for it in ends]
        return reasons.count("cancelled") == len(readers)

    until("the log says so", cut)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_32_readers_of_a_byte_a_second_cost_little(launch):
    server = launch("--max-context", "2048", "--max-sequences", "8", "--write-timeout", "120")
    server.chat()
    readers = [
        Raw(server, "/v1/chat/completions", fast_and_big(), receive_bytes=4096) for _ in range(32)
    ]
    memory, end = [], time.monotonic() + 60
    while time.monotonic() < end:
        for reader in readers:
            reader.socket.setblocking(False)
            try:
                reader.read(1)
            except BlockingIOError:
                pass
        memory.append(server.rss_bytes())
        time.sleep(1)
    # Filled sockets and caches at first, then nothing more.
    settled = memory[len(memory) // 3 :]
    assert max(settled) - settled[0] < 16 << 20, [it >> 20 for it in memory]
    for reader in readers:
        reader.close()
    until("no request runs", lambda: idle(server), 10)
    server.chat()
