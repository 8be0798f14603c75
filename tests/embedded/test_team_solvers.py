"""The simulated models do the work of graders, rewriters, supervisors, writers, reviewers and coders."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from routed_agents.embedded import models, solvers
from routed_agents.embedded.conversation import Conversation, Text, Tool, ToolResult, Turn

MODEL = models.load().models["claude-opus-5-5"]
PASSAGE = '<passage title="Dogs">Dogs may sleep in the boot room for 8 euros a night. They are not allowed in the kitchen.</passage>'
FACTS = '<facts>\n<fact title="Heron bottle">The Heron bottle keeps tea hot for twelve hours. It costs 32 euros. It sold 1,610 times in September.</fact>\n</facts>'  # noqa: E501
LEAD = "Decide which member acts next.\n- analyst: figures, sales, prices\n- copywriter: write, advert, slogan\n- reviewer: check, review"
NEXT = {
    "type": "object",
    "properties": {"next": {"type": "string", "enum": ["analyst", "copywriter", "reviewer", "finish"]}, "task": {"type": "string"}},
    "required": ["next", "task"],
}
SOURCE = "def fee(days):\n    return 10 if days > 30 else 1\n"
FAILED = 'File "test_fees.py", line 8, in test_fee\n    self.assertEqual(fee(30), 10)\nAssertionError: 1 != 10\n\nFAILED (failures=1)'


def asked(*turns: tuple[str, str], system: str = "", **more) -> Conversation:
    said = tuple(Turn(role=role, parts=(Text(text=text),)) for role, text in turns)
    return Conversation(model=MODEL, system=system, turns=said, max_tokens=1000, **more)


def filled(user: str, name: str, system: str = "") -> object:
    schema = {"type": "object", "properties": {name: {"type": "boolean"}}, "required": [name]}
    return json.loads(solvers.solve(asked(("user", user), system=system, schema=schema)).text)[name]


@pytest.mark.parametrize(
    ("question", "relevant"), [("Where may dogs sleep at night?", True), ("Who won the chess tournament of the valley?", False)]
)
def test_a_passage_is_relevant_when_it_bears_on_the_question(question, relevant):
    assert filled(f"{PASSAGE}\n\nQuestion: {question}", "relevant") is relevant


@pytest.mark.parametrize(
    ("answer", "grounded"),
    [
        ("Dogs may sleep in the boot room for 8 euros a night.", True),
        ("Dogs may sleep in the boot room for 9 euros a night.", False),
        ("Dogs get a free breakfast from the cook on Sundays.", False),
    ],
)
def test_an_answer_is_grounded_when_its_words_and_figures_stand_in_the_sources(answer, grounded):
    assert filled(f"<passages>\n{PASSAGE}\n</passages>\n\n<answer>\n{answer}\n</answer>", "grounded") is grounded


def test_a_rewritten_question_has_its_key_words_and_words_akin_to_them():
    said = solvers.solve(asked(("user", "Question: Is there wifi anywhere?"), system="Rewrite the question as a search query.")).text

    assert {"wifi", "wireless", "internet"} <= set(said.split())
    assert "question" not in said.split()


def test_a_supervisor_asks_each_member_whose_work_is_wanted_once_and_then_finishes():
    turns = [("user", "Write an advert with the sales figures, and have somebody check it.")]
    order = []
    for _ in range(5):
        reply = solvers.solve(asked(*turns, ("user", "Which member acts next?"), system=LEAD, schema=NEXT)).text
        order.append(json.loads(reply)["next"])
        if order[-1] == "finish":
            break
        turns += [("assistant", reply), ("user", "Task: do it."), ("assistant", "Done.")]

    assert order == ["analyst", "copywriter", "reviewer", "finish"]


def test_marketing_copy_says_nothing_but_the_facts_and_no_sales_figures():
    said = solvers.solve(asked(("user", f"{FACTS}\n\nTask: an advert, please"), system="Write a short marketing text.")).text

    assert said.startswith("Meet the Heron bottle! The Heron bottle keeps tea hot for twelve hours.")
    assert "sold" not in said


@pytest.mark.parametrize(
    ("text", "verdict"), [("It costs 32 euros.", "all of them hold"), ("It costs 23 euros.", "do not stand in the facts")]
)
def test_a_reviewer_names_the_claims_that_do_not_hold(text, verdict):
    history = (("user", "An advert, please."), ("assistant", text), ("user", "Task for the reviewer: check it."))

    assert verdict in solvers.solve(asked(*history, system=f"You are the reviewer. Check the text against the facts.\n\n{FACTS}")).text


def test_a_question_is_planned_as_one_thing_to_find_out_for_each_thing_it_names():
    schema = {"type": "object", "properties": {"steps": {"type": "array", "items": {"type": "string"}}}, "required": ["steps"]}
    question = "Question: How do the Falkenhut and the Birkhut get their drinking water?"
    first = json.loads(solvers.solve(asked(("user", question), system="You plan research.", schema=schema)).text)["steps"]
    left = f"{question}\n\n<remaining>\n1. {first[1]}\n</remaining>"
    second = json.loads(solvers.solve(asked(("user", left), system="You plan research.", schema=schema)).text)["steps"]

    assert first == ["Look up drinking water at the Falkenhut", "Look up drinking water at the Birkhut"]
    assert second == first[1:]


def tool(name: str, *parameters: str) -> Tool:
    properties = {each: {"type": "string"} for each in parameters}
    return Tool(name=name, description=name, schema={"type": "object", "properties": properties, "required": list(parameters)})


def worked(user: str, tools: tuple[Tool, ...], results) -> tuple[list[tuple[str, dict]], str]:
    """Runs the loop an agent runs; gives all calls and the answer."""
    state, calls = asked(("user", user), tools=tools), []
    for number in range(10):
        reply = solvers.solve(state)
        if not reply.calls:
            return calls, reply.text
        made = tuple(replace(call, id=f"{number}-{index}") for index, call in enumerate(reply.calls))
        calls += [(call.name, call.arguments) for call in made]
        answers = tuple(ToolResult(call_id=call.id, text=results(calls, call.name)) for call in made)
        state = replace(state, turns=(*state.turns, Turn(role="assistant", parts=made), Turn(role="user", parts=answers)))
    raise AssertionError("the work did not end")


def test_a_bug_is_found_by_tests_reading_and_an_edit_that_makes_them_pass():
    def results(calls, name):
        mended = any(arguments.get("new", "").find(">= 30") > 0 for _, arguments in calls)
        return {"run_tests": "Ran 1 test\n\nOK" if mended else FAILED, "read_file": SOURCE, "edit_file": "edited"}[name]

    tools = (tool("run_tests", "path"), tool("read_file", "path"), tool("edit_file", "path", "old", "new"))
    calls, said = worked("The tests of fees.py fail.", tools, results)

    assert [name for name, _ in calls] == ["run_tests", "read_file", "edit_file", "run_tests"]
    assert "the tests pass" in said


def test_a_wrong_edit_is_taken_back_before_the_next_and_given_up_when_none_is_left():
    tools = (tool("run_tests", "path"), tool("read_file", "path"), tool("edit_file", "path", "old", "new"))
    source = "def fee(days):\n    return days > 3 and days < 9\n"
    calls, said = worked("Debug fees.py", tools, lambda _, name: {"run_tests": FAILED, "read_file": source, "edit_file": "edited"}[name])

    now = source
    for _, arguments in calls:
        if "old" in arguments:
            assert now.count(arguments["old"]) == 1
            now = now.replace(arguments["old"], arguments["new"])
    assert sum(name == "edit_file" for name, _ in calls) == 5
    assert said == "I could not find the bug: the tests still fail."


def test_lint_findings_are_edited_and_the_linter_asked_again():
    def results(calls, name):
        edited = any(each == "edit_file" for each, _ in calls)
        return {
            "lint": "a.py is clean" if edited else "a.py:1: F401 'os' imported but unused",
            "read_file": "import os\n",
            "edit_file": "ok",
        }[name]

    calls, said = worked("Lint a.py", (tool("lint", "path"), tool("read_file", "path"), tool("edit_file", "path", "old", "new")), results)

    assert calls[2] == ("edit_file", {"path": "a.py", "old": "import os\n", "new": ""})
    assert (calls[-1][0], "the linter is content" in said) == ("lint", True)
