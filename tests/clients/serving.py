"""Starts `tercel serve` and ends it; whatever is waited for has a time by which it fails."""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

MODEL = "small"
# A debug build loads the model in a second or two; a machine under load takes longer.
START_SECONDS = 60
# Loaded here: between the fork and the command nothing much may be done.
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def until(what, condition, seconds=10.0, pause=0.02):
    """The first true value of `condition`, or a failure that says what was waited for."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(pause)


def free_port():
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def named(events, name):
    """The events of a log with this name."""
    return [event for event in events if event.get("event") == name]


def die_with_parent():
    """Linux ends the server when the tests are ended in a way that lets them clean up nothing."""
    if LIBC:
        LIBC.prctl(1, signal.SIGKILL)


class Server:
    """One running command. A context manager: it is ended at the end of the block."""

    def __init__(self, binary, model, folder, *arguments, environment=None, name=MODEL):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stderr_path = self.folder / f"stderr-{time.monotonic_ns()}.log"
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        clean = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("TERCEL", "K_", "XDG_", "RUST_LOG"))
        }
        # The user's own settings must not change what is tested.
        clean |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "TERCEL_HOME": str(home)}
        clean |= environment or {}
        arguments = list(arguments)
        if "--port" not in arguments:
            arguments += ["--port", "0"]
        source = [f"{name}={model}"] if model else []
        self.command = [str(binary), "serve", *source, *arguments]
        with self.stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=clean,
                preexec_fn=die_with_parent,
            )
        # A connection for each request, so that none is found closed by a server that has ended.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.client = httpx.Client(timeout=60, limits=limits)
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    def __enter__(self):
        try:
            self._await_address()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _await_address(self):
        def ended_or_said():
            return self.lines or self.process.poll() is not None

        until("the address on stdout", ended_or_said, START_SECONDS)
        found = self.lines and re.fullmatch(r"http://([\d.]+):(\d+)", self.lines[0])
        assert found, f"{self.command}: {self.lines[:1]}\n{self.stderr()}"
        self.host, self.port = found[1], int(found[2])
        self.url = self.lines[0]

    def await_ready(self):
        """Waits until `/readyz` says 200."""

        def ready():
            assert self.is_alive(), f"it ended: {self.stderr()}"
            return self.get("/readyz").status_code == 200

        until("ready", ready, START_SECONDS)
        return self

    def is_alive(self):
        return self.process.poll() is None

    def stderr(self):
        return self.stderr_path.read_text("utf-8", "replace")

    def get(self, path, **more):
        return self.client.get(self.url + path, **more)

    def post(self, path, body, **more):
        return self.client.post(self.url + path, json=body, **more)

    def chat(self, text="Say hello.", **more):
        """A short greedy reply; fails where there is none."""
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 4,
            "temperature": 0,
        }
        answer = self.post("/v1/chat/completions", body | more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def metrics(self):
        """The values of `/metrics` by name; of a name with labels, by `name{labels}` too."""
        values = {}
        for line in self.get("/metrics").text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
                bare = name.split("{")[0]
                if bare != name:
                    values[bare] = values.get(bare, 0.0) + float(value)
        return values

    def events(self, path=None):
        """The JSON lines of a log, by default of stderr; other lines are left aside."""
        text = Path(path).read_text("utf-8") if path else self.stderr()
        events = []
        for line in text.splitlines():
            if line.startswith("{"):
                events.append(json.loads(line))
        return events

    def rss_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds):
        """The exit code; fails where it does not end in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {seconds} s\n{self.stderr()}") from None

    def kill(self):
        """Ends it as the system would: at once."""
        if self.is_alive():
            self.process.kill()
        self.process.wait(10)

    def stop(self):
        """Ends it as an operator would, and else at once."""
        if self.is_alive():
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reader.join(5)
        self.client.close()
        self.process.stdout.close()


def refused(binary, model, folder, *arguments, environment=None):
    """Exit code and stderr of a server that must not start."""
    server = Server(binary, model, folder, *arguments, environment=environment)
    try:
        code = server.wait(START_SECONDS)
    finally:
        server.stop()
    assert not server.lines, f"it said {server.lines}"
    return code, server.stderr()
