"""One server for all tests that do not need one of their own."""

import os
from pathlib import Path

import pytest

from serving import Server

# A gate fails for want of a tool; a desk is told what was left out.
IS_GATE = os.environ.get("CI", "") not in ("", "0", "false")
# litellm would fetch its price list.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# Proxies and keys of the user's have no business here.
for name in list(os.environ):
    if name.lower().endswith("_proxy") or name.startswith(("OPENAI_", "ANTHROPIC_", "OLLAMA_")):
        del os.environ[name]


def pytest_collection_modifyitems(config, items):
    if config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


def needs(path, what):
    """Says that a test lacks a tool: at the gate that is a failure."""
    if path:
        return path
    message = f"{what} was not found"
    if IS_GATE:
        pytest.fail(message)
    pytest.skip(message)


def existing(variable):
    path = Path(os.environ.get(variable, ""))
    assert path.is_file(), f"set {variable} (or run `cargo xtask clients`): `{path}` is no file"
    return path


@pytest.fixture(scope="session")
def binary():
    return existing("TERCEL_BINARY")


@pytest.fixture(scope="session")
def model():
    return existing("TERCEL_TEST_SMOLLM2")


@pytest.fixture(scope="session")
def server(binary, model, tmp_path_factory):
    """A server with defaults; at the end it must still be there, and nothing must have panicked."""
    folder = tmp_path_factory.mktemp("server")
    with Server(binary, model, folder, "--max-context", "2048") as server:
        server.await_ready()
        yield server
        assert server.is_alive(), server.stderr()[-4000:]
        server.chat()
        assert "panicked" not in server.stderr(), server.stderr()[-4000:]


@pytest.fixture
def launch(binary, model, tmp_path):
    """Starts servers of a test's own, which end with it."""
    started = []

    def start(*arguments, ready=True, source=model, folder=tmp_path, **more):
        server = Server(binary, source, folder, *arguments, **more).__enter__()
        started.append(server)
        return server.await_ready() if ready else server

    yield start
    panicked = [server for server in started if "panicked" in server.stderr()]
    for server in started:
        server.stop()
    assert not panicked, panicked[0].stderr()[-4000:]
