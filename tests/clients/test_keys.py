"""Who may ask: keys, signatures, hosts, origins, rates; and what the logs keep to themselves."""

import concurrent.futures
import hashlib
import hmac
import json
import secrets
import time

import httpx
import pytest

from serving import MODEL, Server, named, refused, until
from wire import error_of, turn

USER, ADMIN = "user-secret-0123456789", "admin-secret-0123456789"
KEYS = {"K_USER_1": USER, "K_ADMIN_1": ADMIN}
CHAT = "/v1/chat"


def signature(secret, method, path, timestamp, body):
    digest = hashlib.sha256(body).hexdigest()
    message = f"{method}\n{path}\n{timestamp}\n{digest}"
    return hmac.new(secret.encode(), message.encode(), hashlib.sha256).hexdigest()


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def test_the_vector_of_the_scheme():
    body = b'{"prompt":"Summarize this.","max_new_tokens":64}'
    digest = "85355245608efb3e597f8ede8c7c3d461c9328f641e0cc5cbff864cb7103d03f"
    assert hashlib.sha256(body).hexdigest() == digest
    assert (
        signature("YOUR_SECRET", "POST", CHAT, "1700000000", body)
        == "20eb5245605aeea981be5f40f711e438193bf74c3f9c17eeb8c67c7293fe39d9"
    )


@pytest.fixture(scope="module")
def guarded(binary, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    with Server(binary, model, folder, "--keys-from-env", environment=KEYS) as server:
        yield server.await_ready()


def send(server, body, method="POST", path=CHAT, key="k_user_1", secret=USER, **changes):
    """A signed request, with headers changed or, by None, left out."""
    data = body if isinstance(body, bytes) else compact(body)
    stamp = str(changes.get("X-Timestamp") or int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"ApiKey {key}",
        "X-Timestamp": stamp,
        "X-Signature": signature(secret, method, path, stamp, data),
    } | changes
    headers = {name: value for name, value in headers.items() if value is not None}
    return httpx.request(method, server.url + path, content=data, headers=headers, timeout=60)


def ask(**more):
    # No two requests are alike, so that none is taken for a replay.
    return {"prompt": f"Say hello. {secrets.token_hex(4)}", "max_new_tokens": 2} | more


def told(answer, status, message):
    assert answer.status_code == status, answer.text
    assert message.lower() in error_of(answer)["message"].lower(), answer.text


def test_a_signed_request_is_answered(guarded):
    answer = send(guarded, ask())
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] is not None


def test_refusals_come_in_their_order(guarded):
    """Each case has the fault of its line and those of all lines below it."""
    now = int(time.time())
    wrong, long = "0" * 64, "x" * 4001
    body = ask(prompt=long, max_new_tokens=257)
    reload = "/admin/reload"
    steps = [
        (401, "Missing API key", {"Authorization": None, "X-Timestamp": None}),
        (401, "Invalid API key", {"key": "k_nobody", "X-Timestamp": None}),
        (401, "Missing signature headers", {"X-Timestamp": None, "X-Signature": wrong}),
        (401, "Missing signature headers", {"X-Signature": None, "X-Timestamp": "soon"}),
        (401, "Bad timestamp", {"X-Timestamp": "soon", "X-Signature": wrong}),
        (401, "Stale request", {"X-Timestamp": str(now - 90), "X-Signature": wrong}),
        (401, "Stale request", {"X-Timestamp": str(now + 90), "X-Signature": wrong}),
        (401, "Bad signature", {"X-Signature": wrong}),
        (403, "Forbidden", {}),
    ]
    for status, message, changes in steps:
        told(send(guarded, body, path=reload, **changes), status, message)
    told(send(guarded, body), 400, "Prompt too long")
    told(send(guarded, ask(max_new_tokens=257)), 400, "max_new_tokens")


def test_what_is_signed_is_what_is_asked(guarded):
    body = compact(ask())
    stamp = str(int(time.time()))
    good = signature(USER, "POST", CHAT, stamp, body)
    for path, data in ((CHAT, body + b" "), ("/generate", body), (f"{CHAT}?x=1", body)):
        changes = {"X-Timestamp": stamp, "X-Signature": good}
        told(send(guarded, data, path=path, **changes), 401, "Bad signature")
    # Another key's secret signs nothing for this one.
    told(send(guarded, ask(), secret=ADMIN), 401, "Bad signature")


def test_a_replay_is_refused(guarded):
    body = compact(ask())
    stamp = str(int(time.time()))
    first = send(guarded, body, **{"X-Timestamp": stamp})
    second = send(guarded, body, **{"X-Timestamp": stamp})
    assert first.status_code == 200, first.text
    assert second.status_code == 401 and "replay" in second.text.lower(), second.text


def test_bearer_keys_have_roles(guarded):
    def bearer(path, secret, method="POST"):
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx.request(
            method,
            guarded.url + path,
            json=ask() if path == CHAT else None,
            headers=headers,
            timeout=60,
        )

    assert bearer(CHAT, USER).status_code == 200
    assert bearer(CHAT, ADMIN).status_code == 200, "who may administer may ask"
    told(bearer(CHAT, USER + "x"), 401, "Invalid API key")
    told(bearer("/admin/models", USER, "GET"), 403, "Forbidden")
    assert bearer("/admin/models", ADMIN, "GET").status_code == 200


def test_only_probes_are_open_where_keys_are_set(guarded):
    for path in ("/healthz", "/readyz"):
        assert guarded.get(path).status_code == 200, path
    for path in ("/v1/models", "/api/tags", "/metrics", "/admin/models", "/no/such/path"):
        told(guarded.get(path), 401, "Missing API key")


def test_admin_is_closed_without_keys(server):
    for method, path in (
        ("POST", "/admin/reload"),
        ("GET", "/admin/models"),
        ("POST", "/admin/models"),
        ("GET", "/admin/anything"),
    ):
        answer = httpx.request(method, server.url + path, json={}, timeout=10)
        assert answer.status_code in (401, 403), f"{method} {path}: {answer.status_code}"


def test_a_name_that_leads_here_from_elsewhere_is_refused(server):
    for host in ("evil.example", "evil.example:80", f"127.0.0.1.evil.example:{server.port}"):
        answer = server.get("/v1/models", headers={"Host": host})
        assert answer.status_code == 403, host
        error_of(answer)
    for host in (f"localhost:{server.port}", f"127.0.0.1:{server.port}"):
        assert server.get("/v1/models", headers={"Host": host}).status_code == 200, host


def test_a_page_from_elsewhere_is_refused(server):
    body = turn("x") | {"max_tokens": 1}
    for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
        answer = server.post("/v1/chat/completions", body, headers={"Origin": origin})
        assert answer.status_code == 403, origin
        assert "access-control-allow-origin" not in answer.headers
    own = server.post("/v1/chat/completions", body, headers={"Origin": server.url})
    assert own.status_code == 200
    # A form or a plain text needs no leave of the browser; it is not taken.
    plain = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=json.dumps(body),
        headers={"Content-Type": "text/plain"},
    )
    assert plain.status_code == 415


def test_hosts_and_origins_that_the_operator_names_are_taken(launch):
    server = launch("--allow-host", "box.example", "--allow-origin", "https://page.example")
    assert server.get("/v1/models", headers={"Host": "box.example"}).status_code == 200
    answer = server.get("/v1/models", headers={"Origin": "https://page.example"})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://page.example"


def test_a_wide_bind_without_keys_is_refused(binary, model, tmp_path, launch):
    for host in ("0.0.0.0", "::"):
        code, stderr = refused(binary, model, tmp_path, "--host", host)
        assert code == 1, stderr
        assert "--insecure" in stderr and "key" in stderr, stderr
    launch("--host", "0.0.0.0", "--insecure", ready=False)
    launch("--host", "0.0.0.0", "--keys-from-env", environment=KEYS, ready=False)


def test_a_file_of_keys_must_be_the_owners_alone(binary, model, tmp_path, launch):
    keys = tmp_path / "keys"
    keys.write_text(f"# id role secret\nk_user_1 user {USER}\n")
    keys.chmod(0o644)
    code, stderr = refused(binary, model, tmp_path, "--keys-file", str(keys))
    assert code == 1 and str(keys) in stderr and USER not in stderr, stderr
    keys.chmod(0o600)
    server = launch("--keys-file", str(keys))
    assert send(server, ask()).status_code == 200


def test_a_burst_meets_the_limit_of_its_client(launch):
    server = launch("--rate-client", "1/3", "--rate-global", "5/10")

    def one(_):
        return server.post(CHAT, ask(max_new_tokens=1))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(one, range(6)))
    codes = sorted(it.status_code for it in answers)
    assert codes.count(200) in (3, 4) and codes.count(200) + codes.count(429) == 6, codes
    limited = [it for it in answers if it.status_code == 429]
    for answer in limited:
        assert answer.json()["error"]["code"] == "rate_limited"
        assert answer.json()["error"]["scope"] == "client"
        assert int(answer.headers["retry-after"]) >= 1
    time.sleep(1.2)
    assert one(0).status_code == 200


def test_no_log_has_what_was_asked_or_answered(launch, tmp_path):
    """A prompt, a field, a path and a header with an address: no file keeps any of it."""
    address, log = "jane.doe@example.org", tmp_path / "log.jsonl"
    server = launch("--log-file", str(log))
    secret = f"Write to {address} today."
    server.chat(secret)
    bodies = [
        ("/v1/chat/completions", turn(secret) | {"max_tokens": 4, "stream": True}),
        ("/v1/completions", {"model": MODEL, "prompt": secret, "max_tokens": 4, "echo": True}),
        ("/v1/responses", {"model": MODEL, "input": secret, "max_output_tokens": 16}),
        ("/v1/embeddings", {"model": MODEL, "input": secret}),
        ("/v1/messages", turn(secret) | {"max_tokens": 4}),
        ("/api/chat", turn(secret) | {"options": {"num_predict": 4}}),
        ("/api/generate", {"model": MODEL, "prompt": secret, "options": {"num_predict": 4}}),
        (CHAT, {"prompt": secret, "max_new_tokens": 4}),
        ("/generate", {"prompt": secret, "max_new_tokens": 4}),
        ("/tokenize", {"model": MODEL, "content": secret}),
        # What a message of an error repeats goes to the sender alone.
        ("/v1/chat/completions", turn(secret) | {"max_tokens": address}),
        ("/v1/chat/completions", turn(secret) | {"model": address}),
        ("/v1/chat/completions", turn(secret) | {address: 1}),
        ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": address}]}),
        ("/generate", {"prompt": secret, address: 1}),
        (f"/{address}", {}),
        (f"/v1/models/{address}", {}),
    ]
    for path, body in bodies:
        server.post(path, body)
    server.get(f"/v1/models/{address}?q={address}", headers={"User-Agent": address})
    httpx.post(
        f"{server.url}/v1/chat/completions",
        content=f'{{"x": "{address}',
        headers={"Content-Type": "application/json"},
    )
    done = "llm.generation.completed"
    until("the log is written", lambda: len(named(server.events(log), done)) >= 8)
    text = log.read_text() + server.stderr() + "\n".join(server.lines)
    assert "jane.doe" not in text and "example.org" not in text, [
        line for line in text.splitlines() if "jane.doe" in line or "example.org" in line
    ][:3]
    assert "sha256:" in text, "hashes are there"
    for path in tmp_path.rglob("*.log*"):
        assert b"jane.doe" not in path.read_bytes(), path
