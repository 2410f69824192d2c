"""A server's life: it loads, is ready or broken, drains, dies and comes back."""

import concurrent.futures
import signal
import time

import httpx

from serving import MODEL, free_port, named, refused, until
from wire import error_of, sse, turn

CHAT = "/v1/chat/completions"


def readiness(server):
    answer = server.get("/readyz")
    return answer.status_code, answer.json()


def test_readiness_goes_from_loading_to_ready(launch):
    server = launch(ready=False)
    seen = []

    def ready():
        status, body = readiness(server)
        seen.append((status, body["ready"], body.get("reason")))
        assert server.get("/healthz").json()["ok"] is True
        return status == 200

    until("ready", ready, 60, pause=0)
    assert seen[-1][:2] == (200, True)
    assert all(it[:2] == (503, False) for it in seen[:-1]), seen
    assert seen[0][0] == 503, "it said that it was ready before it was asked anything"
    server.chat()
    assert server.get("/health").status_code == server.get("/ready").status_code == 200


def test_a_lazy_model_is_loaded_once_by_the_first_who_ask(launch):
    server = launch("--lazy")
    assert server.metrics()["tercel_models_loaded"] == 0
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        texts = {
            it["choices"][0]["message"]["content"]
            for it in pool.map(lambda _: server.chat(), range(10))
        }
    assert len(texts) == 1
    assert server.metrics()["tercel_models_loaded"] == 1


def test_an_idle_model_leaves_the_memory_and_comes_back(launch):
    server = launch("--idle-ttl", "1")
    text = server.chat()["choices"][0]["message"]["content"]
    loaded = lambda: server.metrics()["tercel_models_loaded"]
    until("it is unloaded", lambda: loaded() == 0, 15, pause=0.2)
    assert server.chat()["choices"][0]["message"]["content"] == text
    assert loaded() == 1


def test_models_that_are_loaded_again_and_again_take_no_more(launch):
    secret = "admin-secret-0123456789"
    small = ("--max-context", "512", "--max-sequences", "2")
    server = launch("--keys-from-env", *small, environment={"K_ADMIN_1": secret})
    headers = {"Authorization": f"Bearer {secret}"}
    memory = []
    for _ in range(6):
        answer = server.post("/admin/reload", {}, headers=headers)
        assert answer.status_code == 200, answer.text
        assert server.post(CHAT, turn("Hello.") | {"max_tokens": 4}, headers=headers).is_success
        memory.append(server.rss_bytes())
    # What a load needs for a while it gives back, whatever the allocator would keep. (The cache is
    # small here: it comes into memory as it is used, and all at once where memory is used again.)
    assert max(memory) - memory[0] < 128 << 20, [it >> 20 for it in memory]


def test_a_broken_model_is_told_and_the_server_lives(launch, model, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[: 20 << 20])
    server = launch(ready=False, source=broken)
    _, body = until("the load failed", lambda: (it := readiness(server))[0] == 500 and it, 60)
    assert body["ready"] is False and body["last_error"], body
    assert server.get("/healthz").status_code == 200
    answer = server.post(CHAT, turn("x"))
    assert answer.status_code in (500, 503)
    assert error_of(answer)
    assert server.is_alive()


def long_stream(server, tokens, received):
    """Reads a stream to its end; gives its events."""
    body = turn("Tell me a story.") | {
        "max_tokens": tokens,
        "stream": True,
        "logit_bias": {"2": -100, "0": -100},
    }
    text = b""
    with httpx.stream("POST", server.url + CHAT, json=body, timeout=60) as answer:
        for chunk in answer.iter_bytes():
            text += chunk
            received.append(len(chunk))
    return [data for _, data in sse(text.decode())]


def test_sigterm_lets_a_stream_end_and_takes_no_more(launch):
    server = launch("--max-context", "2048", "--grace", "60")
    received = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stream = pool.submit(long_stream, server, 200, received)
        until("it streams", lambda: len(received) > 3)
        server.signal(signal.SIGTERM)
        time.sleep(0.2)
        try:
            late = server.post(CHAT, turn("x"))
            assert late.status_code == 503, late.text
        except httpx.TransportError:
            pass
        events = stream.result(60)
    assert events[-1] == "[DONE]"
    ends = [it["choices"][0]["finish_reason"] for it in events[:-1] if it["choices"]]
    assert ends[-1] == "length" and len(ends) > 150
    assert server.wait(10) == 0, server.stderr()[-2000:]


def test_sigterm_cuts_what_takes_longer_than_the_grace_time(launch):
    server = launch("--max-context", "2048", "--grace", "1")
    received = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stream = pool.submit(long_stream, server, 1900, received)
        until("it streams", lambda: len(received) > 3)
        server.signal(signal.SIGTERM)
        started = time.monotonic()
        code = server.wait(15)
        assert 0.5 < time.monotonic() - started < 10
        assert code == 0, server.stderr()[-2000:]
        try:
            stream.result(10)
        except (httpx.TransportError, AssertionError):
            pass


def test_an_idle_server_ends_at_once(launch):
    for number in (signal.SIGTERM, signal.SIGINT):
        server = launch()
        # A connection that is kept open keeps nothing alive.
        with httpx.Client() as client:
            client.get(f"{server.url}/healthz").raise_for_status()
            started = time.monotonic()
            server.signal(number)
            assert server.wait(10) == 0
            assert time.monotonic() - started < 3


def test_after_kill_9_it_starts_again_where_it_was(launch):
    port = str(free_port())
    first = launch("--port", port)
    text = first.chat()["choices"][0]["message"]["content"]
    received = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stream = pool.submit(long_stream, first, 1000, received)
        until("it streams", lambda: len(received) > 3)
        first.signal(signal.SIGKILL)
        assert first.wait(10) == -signal.SIGKILL
        assert isinstance(stream.exception(20), (httpx.TransportError, AssertionError))
    second = launch("--port", port)
    assert second.chat()["choices"][0]["message"]["content"] == text


def test_a_port_that_is_taken_is_told(launch, binary, model, tmp_path):
    server = launch()
    code, stderr = refused(binary, model, tmp_path, "--port", str(server.port))
    assert code == 1 and str(server.port) in stderr and "panicked" not in stderr


def test_a_model_that_is_missing_is_told_at_the_start(binary, tmp_path):
    code, stderr = refused(binary, tmp_path / "no-such.gguf", tmp_path)
    assert code == 1 and "no-such.gguf" in stderr


def test_metrics_agree_with_the_log(launch, tmp_path):
    log = tmp_path / "log.jsonl"
    server = launch("--log-file", str(log))
    for _ in range(5):
        server.chat()
    assert server.post(CHAT, turn("x") | {"temperature": 9}).status_code == 400
    assert server.post(CHAT, turn("word " * 9000)).status_code == 400
    values = server.metrics()
    ends = lambda: named(server.events(log), "llm.generation.completed")
    until("the log has all", lambda: len(ends()) == 5)
    tokens = sum(it["output"]["output_tokens"] for it in ends())
    assert values["tercel_generated_tokens_total"] == tokens
    assert values["tercel_requests_completed_total"] == 5
    assert values['tercel_requests_failed_total{code="context_overflow"}'] == 1
    refused = [name for name in values if 'status="400"' in name]
    assert sum(values[name] for name in refused) == 2, refused
    assert {it["model_id"] for it in ends()} == {MODEL}
