"""What every answer must look like, whoever reads it."""

import json
import re

import httpx

from serving import MODEL


def strict(value):
    """The value, after a check that all the client's type requires was sent.

    The clients build their types without a check, so that a field that is missing is found by the
    first user who reads it.
    """
    type(value).model_validate_json(value.model_dump_json(exclude_unset=True, warnings=False))
    return value


def error_of(answer):
    """The error of a 4xx or 5xx in the form of its protocol, with what all forms have."""
    path = answer.request.url.path
    assert answer.headers["content-type"].startswith("application/json"), answer.headers
    body = answer.json()
    error = body["error"]
    if isinstance(error, str):
        assert path.startswith("/api/"), f"{path}: {body}"
        assert error
        return {"message": error}
    assert isinstance(error["message"], str) and error["message"], body
    assert isinstance(error["type"], str), body
    if body.get("type") != "error":
        assert re.fullmatch(r"[a-z][a-z0-9_]*", error["code"]), body
        assert "param" in error, body
    return error


def sse(text):
    """The events of a stream as (name, data); `[DONE]` is the string."""
    events = []
    assert text.endswith("\n\n"), text[-80:]
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = None, None
        for line in block.split("\n"):
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                assert data is None, block
                data = value if value == "[DONE]" else json.loads(value)
            else:
                assert line.startswith(":"), block
        if data is not None:
            events.append((name, data))
    return events


def ndjson(text):
    assert text.endswith("\n"), text[-80:]
    return [json.loads(line) for line in text.splitlines()]


class Protocol:
    """A way to ask for a reply: how a question is put, and where the text is in the answers."""

    def __init__(self, path, ask, whole, parts, seeded=True):
        self.path, self.ask, self.whole, self.parts, self.seeded = path, ask, whole, parts, seeded

    def body(self, text, tokens, seed, stream):
        body = self.ask(text, tokens, seed)
        # Without a seed only a greedy reply is the same twice.
        if self.path != "/generate":
            body["stream"] = stream
        elif stream:
            body["stream"] = True
        return body

    def text(self, url, text, tokens, seed, client=httpx):
        answer = client.post(url + self.path, json=self.body(text, tokens, seed, False), timeout=60)
        assert answer.status_code == 200, f"{self.path}: {answer.text}"
        return self.whole(answer.json())

    def streamed(self, url, text, tokens, seed, client=httpx):
        body = self.body(text, tokens, seed, True)
        received = b""
        with client.stream("POST", url + self.path, json=body, timeout=60) as answer:
            assert answer.status_code == 200, f"{self.path}: {answer.read()}"
            for chunk in answer.iter_bytes():
                received += chunk
        return "".join(self.parts(received.decode("utf-8")))


def turn(text):
    return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


def _chat_parts(text):
    for _, data in sse(text):
        if data != "[DONE]" and data["choices"]:
            yield data["choices"][0]["delta"].get("content") or ""


def _completion_parts(text):
    for _, data in sse(text):
        if data != "[DONE]" and data["choices"]:
            yield data["choices"][0]["text"]


def _response_parts(text):
    for name, data in sse(text):
        assert name == data["type"], data
        if name == "response.output_text.delta":
            yield data["delta"]


def _message_parts(text):
    for name, data in sse(text):
        assert name == data["type"], data
        if name == "content_block_delta":
            yield data["delta"]["text"]


def _native_parts(text):
    return [line.get("delta") or "" for line in ndjson(text)]


def _options(tokens, seed):
    return {"num_predict": tokens, "seed": seed, "temperature": 0.8}


PROTOCOLS = {
    "chat": Protocol(
        "/v1/chat/completions",
        lambda text, tokens, seed: (
            turn(text) | {"max_tokens": tokens, "seed": seed, "temperature": 0.8}
        ),
        lambda body: body["choices"][0]["message"]["content"],
        _chat_parts,
    ),
    "completions": Protocol(
        "/v1/completions",
        lambda text, tokens, seed: {
            "model": MODEL,
            "prompt": text,
            "max_tokens": tokens,
            "seed": seed,
            "temperature": 0.8,
        },
        lambda body: body["choices"][0]["text"],
        _completion_parts,
    ),
    "responses": Protocol(
        "/v1/responses",
        lambda text, tokens, seed: {
            "model": MODEL,
            "input": text,
            "max_output_tokens": tokens,
            "temperature": 0,
        },
        lambda body: (
            "".join(part["text"] for part in body["output"][0]["content"]) if body["output"] else ""
        ),
        _response_parts,
    ),
    "messages": Protocol(
        "/v1/messages",
        lambda text, tokens, seed: turn(text) | {"max_tokens": tokens, "temperature": 0},
        lambda body: "".join(part["text"] for part in body["content"]),
        _message_parts,
    ),
    "api chat": Protocol(
        "/api/chat",
        lambda text, tokens, seed: turn(text) | {"options": _options(tokens, seed)},
        lambda body: body["message"]["content"],
        lambda text: [line["message"]["content"] for line in ndjson(text)],
    ),
    "api generate": Protocol(
        "/api/generate",
        lambda text, tokens, seed: {
            "model": MODEL,
            "prompt": text,
            "options": _options(tokens, seed),
        },
        lambda body: body["response"],
        lambda text: [line["response"] for line in ndjson(text)],
    ),
    "native": Protocol(
        "/v1/chat",
        lambda text, tokens, seed: {
            "prompt": text,
            "max_new_tokens": tokens,
            "temperature": 0,
        },
        lambda body: body["text"],
        _native_parts,
    ),
}
