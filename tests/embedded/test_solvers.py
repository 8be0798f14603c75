"""The simulated models understand enough to make a demonstration meaningful."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routed_agents.embedded import models, solvers
from routed_agents.embedded.conversation import Conversation, Text, Tool, ToolResult, Turn
from routed_agents.embedded.solvers import arithmetic, entities, schema
from routed_agents.embedded.solvers.reading import brief
from routed_agents.embedded.tokens import count_tokens, truncate

ROWS = models.load().models
TOPICS, MOODS = ["billing", "shipping", "returns", "account", "product", "other"], ["calm", "annoyed", "distressed", "threatening"]
TICKET = {"type": "object", "properties": {"topic": {"enum": TOPICS}, "mood": {"enum": MOODS}}, "required": ["topic", "mood"]}
ARTICLES = """<articles>
<article title="Returns">You may return goods within 30 days of delivery. The goods must be unused.</article>
<article title="Shipping">Standard delivery takes 3 to 5 working days. Express delivery costs 9.90 EUR.</article>
</articles>"""


def asked(user: str, system: str = "", model: str = "claude-opus-5-5", **more) -> Conversation:
    turn = Turn(role="user", parts=(Text(text=user),))
    return Conversation(model=ROWS[model], system=system, turns=(turn,), max_tokens=1000, **more)


def answer(user: str, system: str = "", model: str = "claude-opus-5-5", **more) -> str:
    return solvers.solve(asked(user, system, model, **more)).text


def offer(name: str, description: str, **parameters: str) -> Tool:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    return Tool(name=name, description=description, schema={"type": "object", "properties": properties, "required": list(parameters)})


def talk(user: str, tools: tuple[Tool, ...], results, system: str = "") -> tuple[list[list[tuple[str, dict]]], str]:
    """Runs the loop an agent runs; gives the calls of each round and the answer."""
    state, rounds = asked(user, system, tools=tools), []
    for number in range(8):
        reply = solvers.solve(state)
        if not reply.calls:
            return rounds, reply.text
        calls = tuple(replace(call, id=f"{number}-{index}") for index, call in enumerate(reply.calls))
        rounds.append([(call.name, call.arguments) for call in calls])
        answers = tuple(ToolResult(call_id=call.id, text=json.dumps(results(call.name, call.arguments))) for call in calls)
        state = replace(state, turns=(*state.turns, Turn(role="assistant", parts=calls), Turn(role="user", parts=answers)))
    raise AssertionError("the conversation did not end")


@pytest.mark.parametrize(
    ("mail", "topic", "mood"),
    [
        ("My parcel A-10423 has still not arrived. It was supposed to be delivered on Monday.", "shipping", "calm"),
        ("I was charged twice for order #20931. Please refund the second payment.", "billing", "calm"),
        ("This is the third time I write! Nobody answers. Where is my package B-20012??", "shipping", "annoyed"),
        ("Hi, can I return the shoes? They are too small.", "returns", "calm"),
        ("I can't log in to my account, the password reset mail never comes.", "account", "calm"),
        ("The headphones I bought stopped working after two days. Ridiculous quality.", "product", "annoyed"),
        ("My mother passed away and the dress for the funeral has not arrived. I don't know what to do.", "shipping", "distressed"),
        ("What are your opening hours?", "other", "calm"),
        ("You took 89 EUR from my card and I can't pay my rent now. I am crying. Please help me.", "billing", "distressed"),
        ("I know where you work. You will regret this.", "other", "threatening"),
        ("Someone hacked my profile and changed my email address, I am terrified", "account", "distressed"),
        ("Correct my invoice today or I will call my lawyer.", "billing", "threatening"),
    ],
)
def test_customer_mails_are_sorted_by_topic_and_mood(mail, topic, mood):
    assert json.loads(answer(mail, schema=TICKET)) == {"topic": topic, "mood": mood}


def test_instructions_that_list_the_labels_do_not_sway_the_choice():
    prompt = f"Sort this mail. Topics are {', '.join(TOPICS)}.\n\nMail:\nMy kettle is broken."
    assert json.loads(answer(prompt, schema=TICKET))["topic"] == "product"


def test_descriptions_give_unknown_labels_a_meaning():
    wanted = {"type": "object", "properties": {"team": {"enum": ["blue", "red"], "description": "blue: boats and ships; red: trains"}}}
    wanted["required"] = ["team"]
    assert json.loads(answer("The train to Kiel was late", schema=wanted)) == {"team": "red"}


def test_named_things_are_found_and_missing_ones_are_null():
    fields = {
        "order_id": {"type": ["string", "null"]},
        "customer_name": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "email": {"type": ["string", "null"]},
        "amount": {"type": ["number", "null"]},
        "delivery_date": {"type": ["string", "null"], "format": "date"},
        "refund_requested": {"type": "boolean"},
    }
    wanted = {"type": "object", "properties": fields, "required": list(fields)}
    mail = "Order A-10423 of 3 March 2026: please refund the 89.90 EUR. Write to anna@example.com.\n\nKind regards,\nAnna Berg"
    assert json.loads(answer(mail, schema=wanted)) == {
        "order_id": "A-10423",
        "customer_name": "Anna Berg",
        "email": "anna@example.com",
        "amount": 89.9,
        "delivery_date": "2026-03-03",
        "refund_requested": True,
    }
    nothing = json.loads(answer("Hello there.", schema=wanted))
    assert nothing == dict.fromkeys(fields) | {"refund_requested": False}


def test_lists_of_goods_become_lists_of_objects():
    line = {"type": "object", "properties": {"quantity": {"type": "integer"}, "item": {"type": "string"}}, "required": ["quantity", "item"]}
    wanted = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/Line"}}},
        "required": ["items"],
        "$defs": {"Line": line},
    }
    assert json.loads(answer("I need 3 boxes of A4 paper and two staplers.", schema=wanted)) == {
        "items": [{"quantity": 3, "item": "A4 paper"}, {"quantity": 2, "item": "staplers"}]
    }


NAMES = st.sampled_from(["topic", "order_id", "amount", "count", "summary", "is_urgent", "steps", "items", "email", "date", "x"])
LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "string"}),
    st.builds(lambda low, extra: {"type": "string", "minLength": low, "maxLength": low + extra}, st.integers(0, 30), st.integers(0, 50)),
    st.builds(lambda low, extra: {"type": "integer", "minimum": low, "maximum": low + extra}, st.integers(-9, 9), st.integers(0, 50)),
    st.just({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    st.just({"type": ["string", "null"], "format": "email"}),
    st.just({"enum": MOODS, "type": "string"}),
    st.just({"enum": [1, 2, 3]}),
    st.just({"const": "ticket"}),
    st.just({"type": "string", "pattern": r"^[A-Z]-\d{5}$"}),
    st.just({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda part, least: {"type": "array", "items": part, "minItems": least, "maxItems": least + 3}, inner, st.integers(0, 3)),
        st.dictionaries(NAMES, inner, max_size=4).flatmap(
            lambda fields: st.sets(st.sampled_from(sorted(fields) or ["x"])).map(
                lambda needed: {
                    "type": "object",
                    "properties": fields,
                    "required": sorted(needed & fields.keys()),
                    "additionalProperties": False,
                }
            )
        ),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(SCHEMAS, st.text(max_size=80), st.booleans())
def test_a_filled_schema_always_validates(wanted, said, mistaken):
    filled = schema.fill(wanted, brief(asked(said or "hello")), solvers.say, mistaken=mistaken)
    jsonschema.validate(filled, wanted)


OFFERS = {"A4 paper": [("Papyrus", 4.2), ("Office One", 3.9)], "staplers": [("Papyrus", 7.5), ("Paperclip", 8.0)]}
SHOP = (
    offer("find_offers", "Find offers for an item.", item="string"),
    offer("calculate", "Work out an arithmetic expression.", expression="string"),
    offer("check_stock", "How many of an item a supplier has in stock.", supplier="string", item="string"),
)
BUY = "Buy 3 boxes of A4 paper and 2 staplers from the cheapest supplier, what is the total with 19% VAT?"


def shop(name: str, arguments: dict) -> object:
    if name == "find_offers":
        found = OFFERS.get(arguments["item"])
        return [{"supplier": who, "unit_price": price} for who, price in found] if found else {"error": "no such item"}
    return arithmetic.evaluate(arguments["expression"]) if name == "calculate" else 17


def test_a_purchase_is_looked_up_calculated_and_answered():
    rounds, said = talk(BUY, SHOP, shop)
    assert rounds == [
        [("find_offers", {"item": "A4 paper"}), ("find_offers", {"item": "staplers"})],
        [("calculate", {"expression": "(3 * 3.9 + 2 * 7.5) * 1.19"})],
    ]
    assert said.startswith("The total is 31.77")


def test_a_tool_not_on_offer_is_never_called():
    rounds, said = talk(BUY, SHOP[:1], shop)
    assert {name for calls in rounds for name, _ in calls} == {"find_offers"}
    assert "31.77" in said


def test_a_failed_tool_is_admitted():
    _, said = talk("Buy 3 boxes of A4 paper and 5 unicorns, what is the total?", SHOP, shop)
    assert "find_offers failed" in said
    assert "no such item" in said


def test_results_feed_later_calls():
    rounds, _ = talk("Are 2 staplers in stock at the cheapest supplier?", SHOP, shop)
    assert rounds[-1] == [("check_stock", {"supplier": "Papyrus", "item": "staplers"})]


DESK = (
    offer("get_order", "Look up an order.", order_id="string"),
    offer("refund_order", "Refund an order.", order_id="string", reason="string"),
    offer("search_articles", "Search the help articles.", query="string"),
    offer("send_email", "Send an e-mail.", to="string", subject="string", body="string"),
)


@pytest.mark.parametrize(
    ("request_", "names"),
    [
        ("Where is my order A-10423?", ["get_order"]),
        ("Please refund order A-10423, the lamp is broken.", ["get_order", "refund_order"]),
        ("How long may I return goods?", ["search_articles"]),
        ("Send an email to bob@example.com that the meeting moved to Friday.", ["send_email"]),
        ("Hello there!", []),
    ],
)
def test_only_tools_the_request_calls_for_are_called(request_, names):
    rounds, said = talk(request_, DESK, lambda name, arguments: {"status": "shipped"})
    assert [name for calls in rounds for name, _ in calls] == names
    assert said


def test_one_call_at_a_time_where_parallel_calls_are_off():
    assert len(solvers.solve(asked(BUY, tools=SHOP, parallel_calls=False)).calls) == 1


def test_answers_quote_the_article_that_fits():
    assert answer(f"{ARTICLES}\nQuestion: How long do I have to return something?").startswith(
        "According to “Returns”: “You may return goods"
    )
    assert "9.90 EUR" in answer("How much is express delivery?", f"Answer from the articles only.\n{ARTICLES}")


def test_silence_of_the_articles_is_admitted():
    assert answer("Do you sell gift cards?", f"Answer from the articles only.\n{ARTICLES}") == "I could not find that in the articles."


def test_a_summary_is_as_long_as_asked_for():
    text = "The team met on Monday. The launch moves to May because the migration is late. Anna tells the customers. Lunch was good."
    assert answer(f"Summarize the following in two sentences:\n\n{text}").count(".") == 2


def test_a_plan_is_made_of_the_requests_own_parts():
    said = answer("Make a plan: migrate the database to Postgres, test the app and deploy it on Friday")
    assert [step in said for step in ("Migrate the database", "Test the app", "Deploy it on Friday")] == [True] * 3


@pytest.mark.parametrize(
    ("text", "value"),
    [("What is 17% of 240 plus 12?", 52.8), ("Add up: the sum of 3, 4 and 5", 12), ("(2 + 3) * 4 - 1", 19), ("12 divided by 8", 1.5)],
)
def test_sums_are_worked_out(text, value):
    assert arithmetic.evaluate(arithmetic.expression_in(text)) == pytest.approx(value)


@pytest.mark.parametrize("code", ["__import__('os')", "9**9**9", "1/0", "x + 1", "((((", "[1]"])
def test_nothing_but_arithmetic_is_evaluated(code):
    assert arithmetic.evaluate(code) is None


@pytest.mark.parametrize(
    ("user", "system", "label"),
    [
        ("Classify the sentiment as positive, negative or neutral: I love this lamp!", "", "positive"),
        ("The lamp broke after a day. Awful.", "Answer with exactly one word: positive, negative or neutral.", "negative"),
        (
            "Where is my parcel?",
            "Choose one of:\n- billing: charges\n- shipping: parcels\n- other: the rest\nReply with the category only.",
            "shipping",
        ),
        ("Reply PASS or FAIL.\n\nAnswer: The total is wrong and contradicts the invoice.", "You grade answers.", "FAIL"),
    ],
)
def test_a_label_listed_in_the_prompt_is_given_alone(user, system, label):
    assert answer(user, system) == label


SAD = "My mother passed away and the dress for the funeral has not arrived. Order A-10423.\n\nKind regards,\nMara Lindt"
CLERK = "You are a support agent. Write a warm reply to the customer."


def test_a_strong_model_is_warm_where_a_weak_one_is_correct():
    strong, weak = answer(SAD, CLERK), answer(SAD, CLERK, "claude-haiku-5-5")
    assert all(said.startswith("Dear Mara Lindt,") and "A-10423" in said for said in (strong, weak))
    assert "truly sorry" in strong
    assert "sorry" not in weak


def test_an_unknown_request_is_met_honestly():
    assert "simulated" in answer("Tell me about the French Revolution")


def test_goods_are_told_from_times_and_percentages():
    found = entities.wanted_items("In 3 days I need 2 staplers, 10% off, and a dozen pens")
    assert [(item.quantity, item.name) for item in found] == [(2, "staplers"), (12, "pens")]


@given(st.text(max_size=300), st.text(max_size=300))
def test_tokens_of_two_texts_are_the_tokens_of_both(one, other):
    assert abs(count_tokens(one) + count_tokens(other) - count_tokens(one + other)) <= 1


@given(st.text(max_size=300), st.integers(0, 50))
def test_a_truncated_text_fits(text, limit):
    assert count_tokens(truncate(text, limit, 1.0)) <= limit
