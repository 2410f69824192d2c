"""A thousand requests that are wrong in a thousand ways: each is told so, and nothing breaks."""

import json
import random
import socket

import httpx
import pytest

from serving import MODEL
from wire import error_of, turn

SEED, COUNT = 6, 1000

ROUTES = {
    "/v1/chat/completions": turn("Hi") | {"max_tokens": 1},
    "/v1/completions": {"model": MODEL, "prompt": "Hi", "max_tokens": 1},
    "/v1/responses": {"model": MODEL, "input": "Hi", "max_output_tokens": 16},
    "/v1/embeddings": {"model": MODEL, "input": "Hi"},
    "/v1/messages": turn("Hi") | {"max_tokens": 1},
    "/v1/messages/count_tokens": turn("Hi"),
    "/api/chat": turn("Hi") | {"options": {"num_predict": 1}},
    "/api/generate": {"model": MODEL, "prompt": "Hi", "options": {"num_predict": 1}},
    "/api/embed": {"model": MODEL, "input": "Hi"},
    "/api/show": {"model": MODEL},
    "/v1/chat": {"prompt": "Hi", "max_new_tokens": 1},
    "/generate": {"prompt": "Hi", "max_new_tokens": 1},
    "/tokenize": {"model": MODEL, "content": "Hi"},
    "/detokenize": {"model": MODEL, "tokens": [5]},
    "/apply-template": turn("Hi"),
}
# What none of the fields of these bodies may be.
NUMBERS = ("max_tokens", "max_output_tokens", "max_new_tokens")
JSON = {"Content-Type": "application/json"}


def dumped(value):
    return json.dumps(value).encode()


def broken_json(random, body):
    """A prefix, a byte too many, or a byte that no JSON has there."""
    text = dumped(body)
    at = random.randrange(1, len(text) - 1)
    return random.choice(
        [text[:at], text + random.choice([b"}", b"]", b",", b"x"]), b"\x00" + text, b"", b"{", b"}"]
    )


def wrong_type(random, body):
    field = random.choice(sorted(body))
    value = body[field]
    others = [[], {}, True, 1.5, [[]], {"a": 1}, [{"b": None}], -1]
    if isinstance(value, str):
        # An input may be a list; not one of such things.
        others = [1.5, True, {"a": 1}, [{"b": None}], [[{}]], [True]]
    if isinstance(value, dict):
        others = ["text", 3, [1], True]
    if isinstance(value, list):
        others = ["text", 3, {}, [1.5], [None], [True], [{"role": 1}]]
        # Texts are prompts too, for these.
        if field == "messages":
            others.append([{"role": "user", "content": {"a": 1}}])
    if isinstance(value, int):
        others = ["1", 1.5, True, [], {}, [1]]
    return dumped(body | {field: random.choice(others)})


def huge_number(random, body):
    fields = [field for field in body if field in NUMBERS]
    number = random.choice(
        ["1e999", "-1e999", "9" * 400, "-1", "0", "18446744073709551616", "1e400"]
    )
    if not fields:
        return b'{"tokens": [%s], "x": 1}' % number.encode()
    rest = {field: value for field, value in body.items() if field != fields[0]}
    return dumped(rest)[:-1] + f', "{fields[0]}": {number}}}'.encode()


def not_a_number(random, body):
    word = random.choice(
        ["NaN", "Infinity", "-Infinity", "nan", "undefined", "0x10", "1_000", "01"]
    )
    field = random.choice(["temperature", "top_p", "seed", random.choice(sorted(body))])
    rest = {name: value for name, value in body.items() if name != field}
    return dumped(rest)[:-1] + f', "{field}": {word}}}'.encode()


def nested(random, body):
    deep = random.choice([65, 200, 5000, 100_000])
    opened, closed = random.choice([(b"[", b"]"), (b'{"a":', b"}")])
    field = random.choice(sorted(body)).encode()
    inner = opened * deep + b"1" + closed * random.choice([0, deep])
    return b'{"%s": %s}' % (field, inner)


def unknown_field(random, body):
    name = random.choice(
        ["no_such_field", "", "__proto__", "Model", "max-tokens", "\U0001f600", "a" * 500]
    )
    return dumped(body | {name: random.choice([None, 1, "x", {}, []])})


def missing_field(random, body):
    needed = [it for it in body if it not in ("model", "options", *NUMBERS)]
    # Ollama's clients load a model by asking it nothing.
    if "options" in body or not needed:
        needed = ["model"]
    without = random.choice(needed)
    return dumped({name: value for name, value in body.items() if name != without})


def invalid_utf8(random, body):
    text = dumped(body)
    at = text.index(b"Hi") if b"Hi" in text else 2
    bad = random.choice(
        [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xc0\xaf", b"\x80"]
    )
    return text[:at] + bad + text[at:]


def lone_surrogate(random, body):
    text = dumped(body)
    bad = random.choice([b"\\ud83d", b"\\udc00", b"\\ud83dx", b"\\u12", b"\\x41"])
    at = text.index(b'"') + 1
    return text[:at] + bad + text[at:]


def not_an_object(random, body):
    return random.choice([b"null", b"[]", b'"text"', b"3", b"true", b"[{}]", dumped([body])])


BODIES = [
    broken_json,
    wrong_type,
    huge_number,
    not_a_number,
    nested,
    unknown_field,
    missing_field,
    invalid_utf8,
    lone_surrogate,
    not_an_object,
]


def made(random):
    """A request as (what is wrong, method, path, headers, body, statuses)."""
    path = random.choice(sorted(ROUTES))
    body = ROUTES[path]
    kind = random.randrange(14)
    # Ollama's clients send JSON by any name, or by none.
    if kind == 10 and not path.startswith("/api/"):
        kinds = [
            "text/plain",
            "application/x-www-form-urlencoded",
            "",
            "application/jsonx",
            "text/html",
        ]
        headers = {"Content-Type": random.choice(kinds)}
        return "content type", "POST", path, headers, dumped(body), {415}
    if kind == 11:
        method = random.choice(["GET", "PUT", "DELETE", "PATCH", "BREW"])
        return "method", method, path, JSON, dumped(body), {405}
    if kind == 12:
        path = random.choice(
            [path + "/x", "/v1/no-such", path + "%00", "//" + path, path.upper(), "/.."]
        )
        return "path", "POST", path, JSON, dumped(body), {404, 400, 405}
    if kind == 13 and random.random() < 0.3:
        big = b'{"model": "small", "prompt": "' + b"x" * (9 << 20) + b'"}'
        return "oversize", "POST", path, JSON, big, {413}
    make = random.choice(BODIES)
    return make.__name__, "POST", path, JSON, make(random, body), {400, 404}


@pytest.mark.timeout(180)
def test_a_thousand_malformed_requests_are_told_so(server):
    generator = random.Random(SEED)
    wrong, kinds = [], {}
    with httpx.Client(timeout=30) as client:
        for number in range(COUNT):
            what, method, path, headers, body, statuses = made(generator)
            kinds[what] = kinds.get(what, 0) + 1
            request = client.build_request(method, server.url, headers=headers, content=body)
            request.url = request.url.copy_with(raw_path=path.encode())
            try:
                answer = client.send(request)
                status = answer.status_code
                assert status in statuses, f"status {status}, expected {sorted(statuses)}"
                error_of(answer)
            except (AssertionError, KeyError, ValueError, httpx.TransportError) as problem:
                shown = body[:200].decode("utf-8", "backslashreplace")
                told = answer.text[:200] if isinstance(problem, AssertionError) else ""
                wrong.append(
                    f"{number} {what}: {method} {path} {headers} {shown}\n    {problem!r} {told}"
                )
    assert len(kinds) >= 13 and min(kinds.values()) > 5, kinds
    assert not wrong, f"{len(wrong)} of {COUNT}:\n" + "\n".join(wrong[:20])
    assert "panicked" not in server.stderr()
    server.chat()


def raw(server, data, shut=True, seconds=10):
    """What comes back to bytes that need not be HTTP; empty where the connection was closed."""
    with socket.create_connection((server.host, server.port), seconds) as connection:
        received = b""
        try:
            connection.sendall(data)
            if shut:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except OSError:
            pass
        return received


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = dumped(ROUTES["/v1/completions"])
RAW = {
    "truncated body": HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY[:20],
    "truncated chunks": HEAD + b'Transfer-Encoding: chunked\r\n\r\n10\r\n{"mod',
    "bad chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "huge chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}   ",
    "negative length": HEAD + b"Content-Length: -5\r\n\r\n{}",
    "length of words": HEAD + b"Content-Length: many\r\n\r\n{}",
    "no body": HEAD + b"\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "half a head": b"POST /v1/completions HTT",
    "no version": b"GET /v1/models\r\n\r\n",
    "another version": b"GET /v1/models HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "long head": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 3000 + b"\r\n",
    "a byte of nothing": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x5a" * 200,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 64,
    "noise": random.Random(SEED).randbytes(4096),
    "nothing": b"",
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_request_is_refused_or_closed(server, name):
    answer = raw(server, RAW[name])
    if answer:
        assert answer.startswith(b"HTTP/1.") and answer[9:10] == b"4", answer[:200]
    assert server.is_alive()
    server.get("/healthz").raise_for_status()


def test_connections_that_say_nothing_keep_nobody_out(server):
    silent = [socket.create_connection((server.host, server.port), 5) for _ in range(100)]
    try:
        server.chat()
    finally:
        for connection in silent:
            connection.close()


def test_a_client_that_is_refused_early_is_told_that_the_connection_ends(server):
    """Or its next request would go into nothing."""
    big = b'{"model": "small", "prompt": "' + b"x" * (9 << 20) + b'"}'
    for path, headers, body in (
        ("/v1/completions", JSON, big),
        ("/v1/completions", {"Content-Type": "text/plain"}, BODY),
        ("/no/such/path", JSON, BODY),
    ):
        with httpx.Client(timeout=30) as client:
            for _ in range(20):
                answer = client.post(server.url + path, headers=headers, content=body)
                assert answer.status_code in (404, 413, 415)
                client.get(f"{server.url}/healthz").raise_for_status()
