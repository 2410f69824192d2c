"""litellm, as it is, by both ways that it has to such a server."""

import litellm
import pytest

from serving import MODEL

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PROVIDERS = ("openai", "ollama", "ollama_chat")


def settings(server, provider, **more):
    base = f"{server.url}/v1" if provider == "openai" else server.url
    return {
        "model": f"{provider}/{MODEL}",
        "api_base": base,
        "api_key": "none",
        "messages": QUESTION,
        "max_tokens": 16,
        "temperature": 0,
        "num_retries": 0,
        "timeout": 60,
    } | more


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_chat_is_answered(server, provider):
    reply = litellm.completion(**settings(server, provider))
    assert "Paris" in reply.choices[0].message.content
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.prompt_tokens > 0 and 0 < reply.usage.completion_tokens <= 16


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_chat_streams(server, provider):
    whole = litellm.completion(**settings(server, provider)).choices[0].message.content
    chunks = list(litellm.completion(**settings(server, provider, stream=True)))
    text = "".join(it.choices[0].delta.content or "" for it in chunks)
    assert text == whole
    assert any(it.choices[0].finish_reason for it in chunks)


def test_embeddings_come_by_both(server):
    vectors = []
    for provider in ("openai", "ollama"):
        more = settings(server, provider)
        reply = litellm.embedding(
            model=more["model"],
            api_base=more["api_base"],
            api_key="none",
            input=["hello"],
            **({"encoding_format": "float"} if provider == "openai" else {}),
        )
        vectors.append(reply.data[0]["embedding"])
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)


def test_text_is_continued(server):
    more = settings(server, "openai")
    reply = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}",
        api_base=more["api_base"],
        api_key="none",
        prompt="One, two, three,",
        max_tokens=8,
        temperature=0,
    )
    assert "four" in reply.choices[0].text


def test_a_refusal_keeps_its_kind(server):
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**settings(server, "openai", top_p=0))
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**settings(server, "openai", model="openai/absent"))
