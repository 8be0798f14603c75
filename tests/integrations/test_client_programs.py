"""Programs as the SDKs' own documentation teaches them run on a routed client as they stand, with `model="auto"`."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import anthropic
import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel

from routed_agents import Policy, embedded
from routed_agents.integrations.clients import routed_anthropic, routed_openai

from .conftest import FLAWLESS, Books

PNG = base64.standard_b64encode(bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489")).decode()
QUESTION = "Classify the sentiment of this review as positive or negative: the battery died after one day."
SUMMARIZE = "Summarize this text:\n\nThe harbour opened in 1900. It shipped grain to the north. It closed in 1970."
WEATHER = {
    "name": "get_weather",
    "description": "Get the current weather in a given city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Ticket(BaseModel):
    """A customer's mail, sorted."""

    topic: Literal["billing", "shipping", "other"]
    order_id: str


MAIL = "Sort this mail: My parcel A-10423 has still not arrived."


def weather_in(city: str) -> str:
    return json.dumps({"city": city, "temperature": 12})


# ---- anthropic ----------------------------------------------------------------------------------------------------------


def anthropic_text(client: anthropic.Anthropic, model: str) -> Any:
    message = client.messages.create(
        max_tokens=1024,
        system="Answer with one word.",
        messages=[{"role": "user", "content": QUESTION}],
        model=model,
    )
    return message.role, message.stop_reason, [block.text for block in message.content if block.type == "text"]


def anthropic_conversation(client: anthropic.Anthropic, model: str) -> Any:
    messages: list[Any] = []
    for said in (QUESTION, "And of this one, positive or negative: lovely!"):
        messages.append({"role": "user", "content": said})
        reply = client.messages.create(model=model, max_tokens=1024, messages=messages)
        messages.append({"role": reply.role, "content": reply.content})
    return [block.text for block in messages[-1]["content"]]


def anthropic_stream(client: anthropic.Anthropic, model: str) -> Any:
    pieces = []
    with client.messages.stream(max_tokens=1024, messages=[{"role": "user", "content": SUMMARIZE}], model=model) as stream:
        for text in stream.text_stream:
            pieces.append(text)  # noqa: PERF402
    return len(pieces) > 1, "".join(pieces) == stream.get_final_text(), stream.get_final_message().stop_reason


def anthropic_raw_stream(client: anthropic.Anthropic, model: str) -> Any:
    stream = client.messages.create(max_tokens=1024, messages=[{"role": "user", "content": SUMMARIZE}], model=model, stream=True)
    return [event.type for event in stream]


def anthropic_tools(client: anthropic.Anthropic, model: str) -> Any:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Kiel?"}]
    rounds = 0
    while True:
        message = client.messages.create(model=model, max_tokens=1024, tools=[WEATHER], messages=messages)
        messages.append({"role": "assistant", "content": message.content})
        if message.stop_reason != "tool_use":
            return rounds, "12" in "".join(block.text for block in message.content if block.type == "text")
        rounds += 1
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": weather_in(**block.input)}
            for block in message.content
            if block.type == "tool_use"
        ]
        messages.append({"role": "user", "content": results})


def anthropic_parse(client: anthropic.Anthropic, model: str) -> Any:
    message = client.messages.parse(model=model, max_tokens=1024, messages=[{"role": "user", "content": MAIL}], output_format=Ticket)
    return message.parsed_output


def anthropic_vision(client: anthropic.Anthropic, model: str) -> Any:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    content = [image, {"type": "text", "text": QUESTION}]
    message = client.messages.create(model=model, max_tokens=1024, messages=[{"role": "user", "content": content}])
    return message.content[0].type, message.usage.input_tokens > 0


def anthropic_cached_system(client: anthropic.Anthropic, model: str) -> Any:
    system = [{"type": "text", "text": "You sort reviews. " * 900, "cache_control": {"type": "ephemeral"}}]
    sent: dict[str, Any] = {"model": model, "max_tokens": 64, "system": system, "messages": [{"role": "user", "content": QUESTION}]}
    first, second = (client.messages.create(**sent).usage for _ in range(2))
    return first.cache_creation_input_tokens > 0, second.cache_read_input_tokens > 0


def anthropic_count(client: anthropic.Anthropic, model: str) -> Any:
    return client.messages.count_tokens(model=model, messages=[{"role": "user", "content": QUESTION}]).input_tokens > 0


def anthropic_options(client: anthropic.Anthropic, model: str) -> Any:
    quick = client.with_options(timeout=5.0, max_retries=1)
    return quick.messages.create(model=model, max_tokens=64, messages=[{"role": "user", "content": QUESTION}]).content[0].text


def anthropic_errors(client: anthropic.Anthropic, model: str) -> Any:
    try:
        client.messages.create(model=model, max_tokens=0, messages=[{"role": "user", "content": QUESTION}])
    except anthropic.APIStatusError as error:
        return type(error).__name__, error.status_code, error.request_id is not None
    return None


async def anthropic_async(client: anthropic.AsyncAnthropic, model: str) -> Any:
    sent: dict[str, Any] = {"model": model, "max_tokens": 1024, "messages": [{"role": "user", "content": SUMMARIZE}]}
    message = await client.messages.create(**sent)
    async with client.messages.stream(**sent) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    events = [event.type async for event in await client.messages.create(**sent, stream=True)]
    return bool(message.content[0].text), text == final.content[0].text, events[-1]


# ---- openai -------------------------------------------------------------------------------------------------------------


def openai_chat(client: openai.OpenAI, model: str) -> Any:
    completion = client.chat.completions.create(
        model=model,
        messages=[{"role": "developer", "content": "Answer with one word."}, {"role": "user", "content": QUESTION}],
    )
    return completion.choices[0].message.content, completion.choices[0].finish_reason


def openai_chat_stream(client: openai.OpenAI, model: str) -> Any:
    stream = client.chat.completions.create(model=model, messages=[{"role": "user", "content": SUMMARIZE}], stream=True)
    return len([chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content is not None]) > 1


def openai_chat_events(client: openai.OpenAI, model: str) -> Any:
    with client.chat.completions.stream(model=model, messages=[{"role": "user", "content": SUMMARIZE}]) as stream:
        said = "".join(event.delta for event in stream if event.type == "content.delta")
    return said == stream.get_final_completion().choices[0].message.content


def openai_chat_tools(client: openai.OpenAI, model: str) -> Any:
    tools: list[Any] = [
        {
            "type": "function",
            "function": {"name": WEATHER["name"], "description": WEATHER["description"], "parameters": WEATHER["input_schema"]},
        }
    ]
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Kiel?"}]
    rounds = 0
    while True:
        message = client.chat.completions.create(model=model, messages=messages, tools=tools).choices[0].message
        messages.append(message)
        if not message.tool_calls:
            return rounds, "12" in message.content
        rounds += 1
        for call in message.tool_calls:
            said = weather_in(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": said})


def openai_chat_parse(client: openai.OpenAI, model: str) -> Any:
    completion = client.chat.completions.parse(model=model, messages=[{"role": "user", "content": MAIL}], response_format=Ticket)
    return completion.choices[0].message.parsed


def openai_vision(client: openai.OpenAI, model: str) -> Any:
    content = [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}]).choices[0].message.role


def openai_response(client: openai.OpenAI, model: str) -> Any:
    return client.responses.create(model=model, instructions="Answer with one word.", input=QUESTION).output_text


def openai_response_stream(client: openai.OpenAI, model: str) -> Any:
    stream = client.responses.create(model=model, input=SUMMARIZE, stream=True)
    return [event.type for event in stream]


def openai_response_events(client: openai.OpenAI, model: str) -> Any:
    with client.responses.stream(model=model, input=SUMMARIZE) as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    return said == stream.get_final_response().output_text


def openai_response_tools(client: openai.OpenAI, model: str) -> Any:
    tool: Any = {
        "type": "function", "name": WEATHER["name"], "description": WEATHER["description"], "parameters": WEATHER["input_schema"],
        "strict": False,
    }  # fmt: skip
    said: list[Any] = [{"role": "user", "content": "What is the weather in Kiel?"}]
    rounds = 0
    while True:
        response = client.responses.create(model=model, input=said, tools=[tool])
        said += response.output
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return rounds, "12" in response.output_text
        rounds += 1
        for call in calls:
            output = weather_in(**json.loads(call.arguments))
            said.append({"type": "function_call_output", "call_id": call.call_id, "output": output})


def openai_response_parse(client: openai.OpenAI, model: str) -> Any:
    return client.responses.parse(model=model, input=MAIL, text_format=Ticket).output_parsed


async def openai_async(client: openai.AsyncOpenAI, model: str) -> Any:
    completion = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": QUESTION}])
    stream = await client.responses.create(model=model, input=SUMMARIZE, stream=True)
    events = [event.type async for event in stream]
    async with client.chat.completions.stream(model=model, messages=[{"role": "user", "content": SUMMARIZE}]) as chat:
        async for _ in chat:
            pass
    final = await chat.get_final_completion()
    return completion.choices[0].message.content, events[-1], bool(final.choices[0].message.content)


PROGRAMS = {name: program for name, program in globals().items() if name.startswith(("anthropic_", "openai_"))}
CHEAP = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
MADE: list[Any] = []


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def hung_up() -> AsyncIterator[None]:
    """Closes the clients of a test after it."""
    yield
    while MADE:
        closing = MADE.pop().close()
        if closing is not None:
            await closing


def clients(name: str) -> tuple[Any, Any, Books]:
    """A plain client, a routed one, and its books."""
    family, _, rest = name.partition("_")
    kinds = {"anthropic": (anthropic.Anthropic, anthropic.AsyncAnthropic), "openai": (openai.OpenAI, openai.AsyncOpenAI)}[family]
    kind = kinds[rest == "async"]
    books = Books(Policy.default(tiers="claude" if family == "anthropic" else "gpt"))
    plain, other = kind(max_retries=0), kind(max_retries=0)
    MADE.extend([plain, other])
    return plain, (routed_anthropic if family == "anthropic" else routed_openai)(other, books.router), books


@pytest.fixture(scope="module", params=["lenient", "strict"])
def served(request: pytest.FixtureRequest) -> Iterator[embedded.Provider]:
    with embedded.serve(error_rates=FLAWLESS, strict=request.param == "strict") as running:
        yield running


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_does_the_same_on_a_routed_client(name: str, provider: embedded.Provider, request: pytest.FixtureRequest) -> None:
    strict = "strict" in request.node.name
    plain, routed, books = clients(name)
    program = PROGRAMS[name]
    outcomes = []
    alone = "claude-opus-5-5" if strict and name == "anthropic_parse" else CHEAP[name.partition("_")[0]]  # Haiku 5.5 has no schemas
    for client, model in ((plain, alone), (routed, "auto")):
        provider.reset()
        found = program(client, model)
        outcomes.append(await found if hasattr(found, "__await__") else found)
    assert outcomes[0] == outcomes[1] is not None
    served = [request for request in provider.requests if not request.path.endswith("count_tokens")]
    assert [entry.model for entry in books.entries] == [request.model for request in served]
    billed = [(entry.usage.prompt, entry.usage.output) for entry in books.entries if entry.outcome == "accepted"]
    assert billed == [(request.usage.prompt, request.usage.output) for request in served if request.usage is not None]
