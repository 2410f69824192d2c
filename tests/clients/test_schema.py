"""schemathesis over the API as the server itself describes it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving import Server

# The same requests every time, and no more than a gate has the time for.
BOUNDS = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def described(binary, model, tmp_path_factory):
    """The description of a server whose replies are short, whatever is asked for."""
    load_all_checks()
    folder = tmp_path_factory.mktemp("schema")
    more = ("--max-context", "256", "--deadline", "0.3")
    with Server(binary, model, folder, *more) as server:
        server.await_ready()
        yield schemathesis.openapi.from_url(
            f"{server.url}/openapi.json", config=SchemathesisConfig()
        )
        assert "panicked" not in server.stderr(), server.stderr()[-4000:]
        server.chat()


def test_the_description_names_the_routes(server):
    paths = server.get("/openapi.json").json()["paths"]
    for path in (
        "/v1/models",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/api/chat",
        "/api/generate",
        "/api/tags",
        "/api/show",
        "/api/ps",
        "/api/version",
        "/api/pull",
        "/api/embed",
        "/v1/chat",
        "/generate",
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/admin/reload",
        "/admin/models",
        "/healthz",
        "/readyz",
        "/metrics",
    ):
        assert path in paths, path


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_is_described_is_what_happens(described, mode, subtests):
    def check(case):
        response = case.call(timeout=30)
        case.validate_response(
            response,
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            ],
        )

    count = 0
    for found in described.get_all_operations():
        operation = found.ok()
        count += 1
        with subtests.test(operation.label):
            cases = operation.as_strategy(generation_mode=mode)
            try:
                BOUNDS(given(case=cases)(check))()
            except Unsatisfiable:
                # Nothing can be wrong with a request that has no parameters and no body.
                assert mode == GenerationMode.NEGATIVE
    assert count > 25
