"""LangChain's chat models talk to the embedded provider."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

MAIL = "My parcel A-10423 never arrived and I am fed up. Regards,\nAnna Berg"
BUY = "Buy 3 boxes of A4 paper and 2 staplers from the cheapest supplier, what is the total with 19% VAT?"


class Ticket(BaseModel):
    """A customer's mail, sorted."""

    topic: Literal["billing", "shipping", "returns", "account", "product", "other"]
    mood: Literal["calm", "annoyed", "distressed", "threatening"]
    order_id: str | None = Field(default=None, description="The order number, if given")


@tool
def find_offers(item: str) -> list[dict]:
    """Find offers for an item."""
    prices = {"A4 paper": {"Papyrus": 4.2, "Office One": 3.9}, "staplers": {"Papyrus": 7.5, "Paperclip": 8.0}}
    return [{"supplier": supplier, "unit_price": price} for supplier, price in prices[item].items()]


@tool
def calculate(expression: str) -> float:
    """Work out an arithmetic expression."""
    return eval(expression)


TOOLS = {one.name: one for one in (find_offers, calculate)}


@pytest.fixture(params=["claude-haiku-4-5", "claude-opus-5-5", "gpt-4o-mini", "gpt-6.1-sol"])
def model(request, provider):
    if request.param.startswith("claude"):
        return ChatAnthropic(model=request.param, base_url=provider.anthropic_url, api_key="k", max_retries=0)
    return ChatOpenAI(model=request.param, base_url=provider.openai_url, api_key="k", max_retries=0, stream_usage=True)


def test_invoke_answers_with_usage(model):
    reply = model.invoke("What is 3 plus 4 times 2?")
    assert reply.text == "3 + 4 * 2 = 11"
    assert reply.usage_metadata["input_tokens"] > 0


def test_stream_adds_up_with_usage(model):
    whole = None
    for chunk in model.stream("What is 3 plus 4 times 2?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.text == "3 + 4 * 2 = 11"
    assert whole.usage_metadata["output_tokens"] > 0


async def test_ainvoke_and_astream_answer(model):
    assert (await model.ainvoke("What is 3 plus 4 times 2?")).text == "3 + 4 * 2 = 11"
    assert "".join([chunk.text async for chunk in model.astream("What is 3 plus 4 times 2?")]) == "3 + 4 * 2 = 11"


async def test_fifty_ainvokes_at_once_are_answered(model):
    replies = await asyncio.gather(*(model.ainvoke(f"{number} + 1 =") for number in range(50)))
    assert [reply.text for reply in replies] == [f"{number} + 1 = {number + 1}" for number in range(50)]


@pytest.mark.filterwarnings("ignore:You are attempting to use structured output")
def test_structured_output_is_filled_from_the_mail(model):
    assert model.with_structured_output(Ticket).invoke(MAIL) == Ticket(topic="shipping", mood="annoyed", order_id="A-10423")


def test_an_agent_loop_finds_calculates_and_ends(model):
    bound = model.bind_tools(list(TOOLS.values()))
    messages = [HumanMessage(BUY)]
    asked = []
    for _ in range(6):
        reply = bound.invoke(messages)
        messages.append(reply)
        if not reply.tool_calls:
            break
        asked.append([call["name"] for call in reply.tool_calls])
        messages += [TOOLS[call["name"]].invoke(call) for call in reply.tool_calls]
    assert asked == [["find_offers", "find_offers"], ["calculate"]]
    assert reply.text.startswith("The total is 31.77: 3 × A4 paper at 3.90 from Office One")
    assert isinstance(messages[-2], ToolMessage)


def test_a_streamed_tool_call_adds_up(model):
    whole = None
    for chunk in model.bind_tools([find_offers]).stream("Find offers for 2 staplers"):
        whole = chunk if whole is None else whole + chunk
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("find_offers", {"item": "staplers"})]
