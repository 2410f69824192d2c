"""Tools through the clients of three protocols: what is called, how it streams, what follows."""

import json

import anthropic
import jsonschema
import ollama
import openai
import pytest

from serving import MODEL

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 40},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "description": "Tells the weather of a city.", "parameters": SCHEMA}
TIME = {
    "name": "get_time",
    "description": "Tells the time in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 40}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
SCHEMAS = {tool["name"]: tool["parameters"] for tool in (WEATHER, TIME)}
TOOLS = [{"type": "function", "function": tool} for tool in (WEATHER, TIME)]
STRICT = [{"type": "function", "function": tool | {"strict": True}} for tool in (WEATHER, TIME)]
USER = "What is the weather in {}?"


def call(id, city):
    arguments = json.dumps({"city": city, "unit": "celsius"})
    function = {"name": "get_weather", "arguments": arguments}
    return {"id": id, "type": "function", "function": function}


# A model of 135M parameters calls tools where the conversation did so before.
BEFORE = [
    message
    for id, city, said in (("call00001", "Paris", "rain"), ("call00002", "Rome", "sun"))
    for message in (
        {"role": "user", "content": USER.format(city)},
        {"role": "assistant", "content": "", "tool_calls": [call(id, city)]},
        {"role": "tool", "tool_call_id": id, "content": said},
        {"role": "assistant", "content": f"The weather in {city}: {said}."},
    )
]
QUESTION = [*BEFORE, {"role": "user", "content": USER.format("Oslo")}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def chat(client, **more):
    settings = {"model": MODEL, "messages": QUESTION, "tools": TOOLS, "max_tokens": 200}
    return client.chat.completions.create(**(settings | {"temperature": 0, "seed": 1} | more))


def valid(name, arguments):
    """The arguments, which are what the tool takes."""
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    jsonschema.validate(arguments, SCHEMAS[name], cls=jsonschema.Draft202012Validator)
    return arguments


def test_a_tool_is_called_and_what_it_gave_is_answered(client):
    choice = chat(client, tools=STRICT).choices[0]
    assert choice.finish_reason == "tool_calls", choice
    assert choice.message.content is None
    [called] = choice.message.tool_calls
    assert (called.type, called.function.name) == ("function", "get_weather")
    assert valid("get_weather", called.function.arguments)["city"] == "Oslo"
    # The client's own messages go back as they came.
    result = {"role": "tool", "tool_call_id": called.id, "content": "snow"}
    after = chat(client, messages=[*QUESTION, choice.message, result], tools=STRICT).choices[0]
    assert after.finish_reason == "stop" and "snow" in after.message.content


def test_calls_of_tools_that_are_not_strict_are_read_too(client):
    choice = chat(client).choices[0]
    assert choice.finish_reason == "tool_calls", choice
    assert json.loads(choice.message.tool_calls[0].function.arguments)["city"] == "Oslo"


@pytest.mark.parametrize("seed", range(5))
def test_what_is_required_is_called_whatever_was_asked(client, seed):
    asked = [{"role": "user", "content": "Tell me a joke."}]
    more = {"messages": asked, "temperature": 1, "seed": seed, "parallel_tool_calls": False}
    for choice in ("required", {"type": "function", "function": {"name": "get_time"}}):
        reply = chat(client, tool_choice=choice, **more).choices[0]
        assert reply.finish_reason == "tool_calls", reply
        [called] = reply.message.tool_calls
        valid(called.function.name, called.function.arguments)
        assert choice == "required" or called.function.name == "get_time"


def test_several_are_called_at_once_where_they_may(client):
    asked = [{"role": "user", "content": "What is the weather and the time in Oslo and Rome?"}]
    more = {"messages": asked, "tool_choice": "required", "temperature": 1, "max_tokens": 800}
    counts = set()
    for seed in range(6):
        choice = chat(client, **(more | {"seed": seed})).choices[0]
        calls = choice.message.tool_calls or []
        for called in calls:
            valid(called.function.name, called.function.arguments)
        assert len({it.id for it in calls}) == len(calls)
        counts.add(len(calls))
        one = chat(client, **(more | {"seed": seed}), parallel_tool_calls=False).choices[0]
        assert len(one.message.tool_calls) == 1
    assert max(counts) > 1, counts


def test_calls_stream_their_arguments(client):
    whole = chat(client, tools=STRICT).choices[0].message.tool_calls
    name, id, arguments, ends, pieces = None, None, "", [], 0
    for chunk in chat(client, tools=STRICT, stream=True):
        [choice] = chunk.choices
        ends.append(choice.finish_reason)
        assert not choice.delta.content
        for delta in choice.delta.tool_calls or []:
            assert delta.index == 0
            name, id = delta.function.name or name, delta.id or id
            arguments += delta.function.arguments
            pieces += 1
    assert ends[-1] == "tool_calls" and not any(ends[:-1])
    assert (name, id) == (whole[0].function.name, whole[0].id)
    assert json.loads(arguments) == json.loads(whole[0].function.arguments)
    assert pieces > 3


def test_the_stream_helper_accumulates_calls(client):
    settings = {"model": MODEL, "messages": QUESTION, "tools": STRICT, "max_tokens": 200}
    with client.chat.completions.stream(**settings, temperature=0) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    [called] = final.choices[0].message.tool_calls
    assert valid("get_weather", called.function.arguments)["city"] == "Oslo"


def test_none_is_called_where_none_may_be(client):
    choice = chat(client, tool_choice="none").choices[0]
    assert choice.finish_reason in ("stop", "length") and not choice.message.tool_calls
    assert "<tool_call>" not in choice.message.content


def test_tools_and_a_schema_go_together(client):
    schema = {
        "type": "object",
        "properties": {"joke": {"type": "string", "maxLength": 60}},
        "required": ["joke"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "j", "strict": True, "schema": schema}}
    for messages in (QUESTION, [{"role": "user", "content": "Tell me a joke."}]):
        choice = chat(client, messages=messages, response_format=shape, tools=STRICT).choices[0]
        for called in choice.message.tool_calls or []:
            valid(called.function.name, called.function.arguments)
        if not choice.message.tool_calls:
            jsonschema.validate(json.loads(choice.message.content), schema)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"tool_choice": "any"}, "tool_choice"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "u",
                            "strict": True,
                            "parameters": {"type": "object", "uniqueItems": True},
                        },
                    }
                ]
            },
            None,
        ),
    ],
)
def test_what_is_no_tool_is_refused(client, more, param):
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, **more)
    assert refused.value.param == param, refused.value


def test_responses_call_tools(client):
    tools = [{"type": "function", **tool, "strict": True} for tool in (WEATHER, TIME)]
    settings = {"model": MODEL, "tools": tools, "temperature": 0, "max_output_tokens": 200}
    asked = [{"role": "user", "content": USER.format("Oslo")}]
    only = {"type": "function", "name": "get_weather"}
    reply = client.responses.create(input=asked, tool_choice=only, **settings)
    [called] = [item for item in reply.output if item.type == "function_call"]
    assert reply.status == "completed"
    valid(called.name, called.arguments)
    gave = {"type": "function_call_output", "call_id": called.call_id, "output": "snow"}
    items = [*asked, *(item.model_dump() for item in reply.output), gave]
    after = client.responses.create(input=items, tool_choice="none", **settings)
    assert after.output_text

    names, arguments = [], ""
    for event in client.responses.create(input=asked, tool_choice=only, stream=True, **settings):
        names.append(event.type)
        if event.type == "response.function_call_arguments.delta":
            arguments += event.delta
        if event.type == "response.function_call_arguments.done":
            assert event.arguments == arguments
        if event.type == "response.completed":
            assert event.response.output[-1].arguments == arguments
    assert json.loads(arguments) == json.loads(called.arguments)
    assert names[-3:] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_responses_keep_to_a_format(client):
    shape = {"type": "json_schema", "name": "w", "schema": SCHEMA, "strict": True}
    settings = {"model": MODEL, "input": "Where is it warm?", "max_output_tokens": 200}
    reply = client.responses.create(text={"format": shape}, temperature=1, **settings)
    valid("get_weather", reply.output_text)


@pytest.fixture(scope="module")
def claude(server):
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def test_anthropics_client_calls_tools(claude):
    tools = [
        {"name": it["name"], "description": it["description"], "input_schema": it["parameters"]}
        for it in (WEATHER, TIME)
    ]
    settings = {"model": MODEL, "max_tokens": 200, "tools": tools}
    asked = [{"role": "user", "content": USER.format("Oslo")}]
    only = {"type": "tool", "name": "get_weather"}
    reply = claude.messages.create(messages=asked, tool_choice=only, **settings)
    assert reply.stop_reason == "tool_use"
    [used] = reply.content
    assert used.type == "tool_use"
    valid(used.name, used.input)
    gave = {"type": "tool_result", "tool_use_id": used.id, "content": "snow"}
    turns = [
        *asked,
        {"role": "assistant", "content": reply.content},
        {"role": "user", "content": [gave]},
    ]
    after = claude.messages.create(messages=turns, tool_choice={"type": "none"}, **settings)
    assert after.content[0].type == "text" and after.content[0].text
    anything = {"type": "any", "disable_parallel_tool_use": True}
    reply = claude.messages.create(messages=asked, tool_choice=anything, **settings)
    assert [block.type for block in reply.content] == ["tool_use"]
    counted = claude.messages.count_tokens(model=MODEL, messages=asked, tools=tools)
    bare = claude.messages.count_tokens(model=MODEL, messages=asked)
    assert counted.input_tokens > bare.input_tokens + 50


def test_anthropics_client_streams_calls(claude):
    tools = [{"name": "get_weather", "input_schema": SCHEMA}]
    asked = [{"role": "user", "content": USER.format("Oslo")}]
    only = {"type": "tool", "name": "get_weather"}
    settings = {"model": MODEL, "max_tokens": 200, "tools": tools, "tool_choice": only}
    pieces = []
    with claude.messages.stream(messages=asked, **settings) as stream:
        for event in stream:
            if event.type == "input_json":
                pieces.append(event.partial_json)
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert valid("get_weather", final.content[0].input) == json.loads("".join(pieces))


def test_ollamas_client_calls_tools(server):
    def said(message):
        """Ollama has no ids, and arguments as they are."""
        calls = [
            {"function": {"name": it["function"]["name"],
                          "arguments": json.loads(it["function"]["arguments"])}}
            for it in message.get("tool_calls", [])
        ]
        message = {key: message[key] for key in ("role", "content")}
        if message["role"] == "tool":
            message["tool_name"] = "get_weather"
        return message | ({"tool_calls": calls} if calls else {})

    asked = [said(message) for message in QUESTION]
    settings = {"model": MODEL, "tools": TOOLS, "options": {"temperature": 0, "num_predict": 200}}
    with ollama.Client(host=server.url, timeout=60) as client:
        reply = client.chat(messages=asked, **settings)
        [called] = reply.message.tool_calls
        assert called.function.name == "get_weather"
        assert called.function.arguments["city"] == "Oslo"
        parts = list(client.chat(messages=asked, stream=True, **settings))
        streamed = [it for part in parts for it in part.message.tool_calls or []]
        assert [it.function for it in streamed] == [called.function]
        assert parts[-1].done and parts[-1].done_reason == "stop"
        result = {"role": "tool", "tool_name": "get_weather", "content": "snow"}
        after = client.chat(messages=[*asked, reply.message, result], **settings)
        assert "snow" in after.message.content
