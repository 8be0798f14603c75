"""Features: what is measured on a step before anything is decided."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from routed_agents.features import HEAD, TAIL, Features, extract, upper_tokens, window
from routed_agents.steps import Step


def features(*messages: Any, **more: Any) -> Features:
    return extract(Step.from_messages(list(messages), **more))


def human(text: Any = "go", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def ai(*calls: str, run: str | None = None, tier: str | None = None, **more: Any) -> dict[str, Any]:
    stamp = {"response_metadata": {"routed_agents": {"tier": tier, "run": run, "pin": "turn", "codes": ["because"]}}} if tier else {}
    tools = {"tool_calls": [{"name": call, "args": {}, "id": call} for call in calls]} if calls else {}
    return {"role": "assistant", "content": "ok", **stamp, **tools, **more}


def result(status: str = "success") -> dict[str, Any]:
    return {"role": "tool", "content": "r", "status": status}


# ---- turns


def test_a_turn_opens_at_the_last_human_input() -> None:
    assert features(human(id="h1"), ai(), human(id="h2")).turn == "h2"


def test_several_human_messages_in_a_row_are_one_turn() -> None:
    assert features(human(id="h1"), human(id="h2")).turn == "h1"


@pytest.mark.parametrize("answers", [[], [ai("a"), result()], [ai("a"), result("error"), ai("b", "c"), result(), result()]])
def test_replies_and_tool_results_never_start_a_turn(answers: list[Any]) -> None:
    assert features(human(id="h"), *answers, ai("z"), result()).turn == "h"


def test_a_human_message_a_node_wrote_goes_on_with_its_runs_turn() -> None:
    assert features(human(id="h"), ai(tier="strong", run="r"), human(id="critic"), run="r").turn == "h"


@pytest.mark.parametrize("run", [None, "r2"])
def test_a_human_message_after_another_runs_reply_opens_a_turn(run: str | None) -> None:
    assert features(human(id="h"), ai(tier="strong", run="r1"), human(id="h2"), run=run).turn == "h2"


def test_the_stamps_of_a_turn_are_those_since_it_opened() -> None:
    seen = features(human(), ai(tier="old"), human(), ai("a", tier="cheap"), result(), ai("b", tier="strong"), result())

    assert [stamp.tier for stamp in seen.stamps] == ["strong", "cheap"]


def test_a_stamp_keeps_its_first_code() -> None:
    assert features(human(), ai("a", tier="strong"), result()).stamps[0].code == "because"


def test_messages_without_ids_name_a_turn_by_place_and_text() -> None:
    names = {features(human("a")).turn, features(human("b")).turn, features(human("b"), ai(), human("b")).turn}

    assert len(names) == 3


def test_a_turn_has_one_name_however_long_it_grows() -> None:
    assert features(HumanMessage("a")).turn == features(HumanMessage("a"), AIMessage("x"), result()).turn


@pytest.mark.parametrize("message", [ai(), result(), {"role": "system", "content": "s"}])
def test_a_history_without_a_person_has_a_turn_too(message: dict[str, Any]) -> None:
    assert features(message).turn


# ---- loops


def test_an_open_loop_ends_in_tool_results() -> None:
    assert [features(human(), ai("a"), result()).open_loop, features(human(), ai()).open_loop] == [True, False]


@pytest.mark.parametrize(
    ("statuses", "errors"),
    [((), 0), (("error",), 1), (("success", "error", "error"), 2), (("error", "success"), 0), (("error", "success", "error"), 1)],
)
def test_tool_errors_are_counted_back_without_a_gap(statuses: tuple[str, ...], errors: int) -> None:
    rounds = [message for status in statuses for message in (ai("a"), result(status))]

    assert features(human(), *rounds).tool_errors == errors


def test_tool_errors_of_an_earlier_turn_are_forgotten() -> None:
    assert features(human(), ai("a"), result("error"), human()).tool_errors == 0


@pytest.mark.parametrize(("calls", "repeats"), [(["a"], 0), (["a", "a", "a"], 2), (["a", "b", "a"], 1), (["a", "a", "b"], 0)])
def test_repeats_of_the_newest_call_are_counted(calls: list[str], repeats: int) -> None:
    assert features(human(), *[message for call in calls for message in (ai(call), result())]).repeats == repeats


def test_other_arguments_make_another_call() -> None:
    calls = [{"role": "assistant", "tool_calls": [{"name": "a", "args": {"page": page}}]} for page in (1, 2)]

    assert features(human(), calls[0], result(), calls[1], result()).repeats == 0


def test_the_loop_is_as_long_as_the_replies_of_its_turn() -> None:
    assert features(human(), ai(), human(), ai("a"), result(), ai("b"), result()).loop_length == 2


# ---- instruction and payload


@pytest.mark.parametrize(
    ("text", "material"),
    [
        ("Classify:\n```\nmy mail\n```", "my mail"),
        ("Classify <mail>my mail</mail> now", "my mail"),
        ("Classify this\n> my mail\n> goes on", "my mail"),
        ('Classify """my mail"""', "my mail"),
        ("Classify it.\nText: my mail", "my mail"),
        ("Classify\n---\nmy mail\n---", "my mail"),
        ("Classify “" + "my mail " * 10 + "”", "my mail"),
        ("Classify « " + "my mail " * 10 + "»", "my mail"),
        ("Classify：「" + "my mail のお問い合わせ" * 2 + "」", "my mail"),
        ("Classify\n```\nan unclosed my mail", "my mail"),
    ],
)
def test_material_is_parted_from_the_instruction(text: str, material: str) -> None:
    found = features(text)

    assert (material in found.quoted, material in found.spoken, "Classify" in found.spoken) == (True, False, True)


@pytest.mark.parametrize("text", ["```\nhelp me\n```", "> help me", "<note>help me</note>"])
def test_a_message_that_is_nothing_but_material_speaks_for_itself(text: str) -> None:
    found = features(text)

    assert (found.spoken, found.quoted, found.marked) == (text, "", False)


ASIDE = "use haiku. Say one word: spam or ham."


@pytest.mark.parametrize(
    "form",
    ["{}\n<mail>{}</mail>", "{}\n```{}```", '{} """{}"""', '{}\n<doc id="1">{}</doc>', "{}\n\u300c{}\u300d", '{} "' + "well " * 8 + '{}"'],
)
@pytest.mark.parametrize("turned", [False, True], ids=["behind the request", "before it"])
def test_talk_meant_for_a_router_neither_opens_a_mark_nor_eats_one(form: str, turned: bool) -> None:
    ask, text = "Answer this customer.", form.format("", ASIDE)
    seen = features(f"{text}\n\n{ask}" if turned else f"{ask} {text}")

    assert (seen.own.split(), ASIDE in seen.quoted) == (ask.split(), True)


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("This is a simple task.", "This is a simple task."),
        ("<mail>zebra</mail>", "<mail>zebra</mail>"),
        ("This is a simple task.\n<mail>zebra</mail>", ""),
        ("This is a simple task. Find it.\n<mail>zebra</mail>", "Find it."),
    ],
)
def test_a_message_that_is_nothing_but_talk_meant_for_a_router_keeps_it_where_nothing_stands_beside_it(text: str, own: str) -> None:
    assert features(text).own.strip() == own


LONG = "The blue chairs came on a monday. " * 100


@pytest.mark.parametrize(
    "form",
    [
        "{ask}\n{rules}\n<mail>\n{text}\n</mail>",
        "{rules}\n```\n{text}\n```\n{ask}",
        "```\n{text}```\n{rules}{ask}",
        "{ask} {rules}\n---\n{text}",
    ],
)
def test_material_is_parted_before_a_long_message_is_cut(form: str) -> None:
    seen = features(form.format(ask="Answer this customer.", rules="Be kind. " * 400, text=f"{LONG}zebra"))

    assert ("zebra" in seen.own, "chairs" in seen.own, "Answer" in seen.own, "zebra" in seen.quoted) == (False, False, True, True)


def test_plain_words_carry_no_payload() -> None:
    assert features("Is 3 > 2? I'd say so.").quoted == ""


def test_of_a_long_text_head_and_tail_are_read() -> None:
    text = "a" * HEAD + "b" * 10_000 + "c" * TAIL

    assert window(text) == "a" * HEAD + "\n" + "c" * TAIL


def test_the_instruction_is_the_system_prompt_and_the_persons_words() -> None:
    seen = features({"role": "system", "content": "You classify."}, human("This one:\n```\nsecret\n```"))

    assert (seen.instruction.split(), seen.system) == (["You", "classify.", "This", "one:"], "You classify.")


def test_in_a_tool_loop_the_persons_words_are_still_the_instruction() -> None:
    assert features(human("find it"), ai("a"), result()).spoken == "find it"


# ---- what the author says


@pytest.mark.parametrize(
    ("given", "declared"),
    [
        ({"task_class": "extraction"}, ("extraction", "call")),
        ({"metadata": {"task_class": "extraction"}}, ("extraction", "metadata")),
        ({"task_class": "extraction", "metadata": {"task_class": "summarization"}}, ("extraction", "call")),
        ({"metadata": {"task_class": 7}}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_a_declared_class_and_where_it_came_from(given: dict[str, Any], declared: tuple[str | None, str | None]) -> None:
    seen = features("x", **given)

    assert (seen.declared, seen.declared_in) == declared


@pytest.mark.parametrize(("own", "forced"), [({"tier": "strong"}, "strong"), ({"tier": 3}, "3"), ("strong", "strong"), ({}, None)])
def test_a_tier_is_forced_by_our_own_key_only(own: object, forced: str | None) -> None:
    assert features("x", metadata={"routed_agents": own, "tier": "cheap"}).forced == forced


# ---- tokens


DENSITY = {
    # text -> tokens per 100 characters, from the measured error of characters / 4 (cl100k, o200k, Claude 2), the worst of the three
    "The carrier left a card, so the parcel waits at the depot until Friday.": 27,
    "Der Bote hat eine Karte dagelassen, das Paket liegt bis Freitag im Depot.": 30,
    "def late(parcel):\n    return parcel.due < today() and not parcel.arrived\n": 25,
    "包裹在仓库里，星期五之前可以去取，请带上身份证。": 100,
    "荷物は金曜日まで営業所で保管されています。身分証をお持ちください。": 110,
}


@pytest.mark.parametrize(("text", "density"), DENSITY.items(), ids=["English", "German", "Python", "Chinese", "Japanese"])
def test_the_estimate_lies_above_the_measured_density(text: str, density: int) -> None:
    seen = features(text).tokens

    assert seen >= len(text) * density / 100


MEASURED = {
    "prose": ("The quick brown fox jumps over the lazy dog. ", 10),
    "json": ('{"id":17,"ok":true,"v":[1,2]}', 19),
    "log": ("2026-11-23T09:14:07.123Z [7] GET /v1/x 200 13ms\n", 33),
}


@pytest.mark.parametrize("kind", MEASURED)
def test_the_bound_holds_for_long_texts_of_every_density(kind: str) -> None:
    piece, least = MEASURED[kind]

    assert upper_tokens(len(piece) * 1_000, piece * 8) >= least * 1_000


def test_no_text_makes_no_tokens() -> None:
    assert upper_tokens(0, "") == 0


def test_a_declared_size_is_believed() -> None:
    assert (features("x", tokens=77).tokens, features("x", tokens=77).tokens_source) == (77, "declared")


@pytest.mark.parametrize("tokens", [5, 0])
def test_a_declared_size_below_the_texts_own_length_is_not_believed(tokens: int) -> None:
    seen = features(human("word " * 60_000), tokens=tokens)

    assert (seen.tokens_source, seen.tokens > 60_000) == ("estimated", True)


def test_a_declared_size_of_dense_text_is_believed() -> None:
    assert features(human("word " * 60_000), tokens=60_001).tokens == 60_001


def test_the_words_of_a_document_are_material_and_no_instruction() -> None:
    shown = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Prove the theorem."}}
    seen = features(human([shown, {"type": "text", "text": "Extract the date."}]))

    assert (seen.instruction, seen.quoted, seen.marked) == ("Extract the date.", "Prove the theorem.", True)


def test_up_to_the_last_reply_the_providers_count_is_used() -> None:
    seen = features(human("word " * 1_000), ai(usage={"input_tokens": 1_000, "output_tokens": 10}), human("more"))

    assert (seen.tokens_source, 1_010 < seen.tokens < 1_050) == ("reported", True)


@pytest.mark.parametrize("usage", [{"input_tokens": 20, "output_tokens": 5}, {"input_tokens": -5, "output_tokens": 5}, {}])
def test_a_count_that_cannot_be_this_prompts_is_not_believed(usage: dict[str, int]) -> None:
    seen = features(human("word " * 20_000), ai(usage=usage), human("more"))

    assert seen.tokens > 20_000


PIECES = {
    "Chinese": ("委员会星期二再次开会未能就此事达成一致意见", 2),
    "Japanese": ("荷物は金曜日まで営業所で保管されています。", 2),
    "Korean": ("소포는 금요일까지 영업소에 보관됩니다 ", 3),
    "Russian": ("Посылка до пятницы хранится в отделении ", 5),
    "Hindi": ("पार्सल शुक्रवार तक डिपो में रखा रहेगा ", 5),
    "German": ("Das Paket liegt bis Freitag im Depot, größer als erwartet ", 7),
}


@pytest.mark.parametrize("script", PIECES)
@pytest.mark.parametrize("others", [0, 20])
def test_a_count_is_held_against_the_density_of_the_script(script: str, others: int) -> None:
    piece, sparsest = PIECES[script]
    text = piece * 4_000
    said = [human("fine"), ai()] * others

    def source(tokens: int) -> str:
        return features(human(text), *said, ai(usage={"input_tokens": tokens, "output_tokens": 1}), human("and?")).tokens_source

    assert (source(len(text) // (sparsest + 1)), source(len(text) * 11 // (10 * sparsest) + 1_000)) == ("estimated", "reported")


def test_a_declared_size_is_held_against_the_density_of_the_script() -> None:
    assert features("委员会再次开会" * 10_000, tokens=10_001).tokens_source == "estimated"


def test_the_schema_of_the_answer_counts() -> None:
    assert features("x", output_schema={"type": "object", "description": "word " * 20_000}).tokens > 20_000


def test_a_web_search_that_the_provider_counted_is_as_long_as_it_said() -> None:
    found = {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "A" * 90_000}
    reply = ai(content=[{"type": "web_search_tool_result", "content": [found]}], usage={"input_tokens": 9_000, "output_tokens": 10})

    assert features(human(), reply, human()).tokens_source == "reported"


def test_tools_and_framing_count() -> None:
    assert features("x", tools=["a", "b"]).tokens - features("x").tokens == 240


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "tool_result", "content": [{"type": "text", "text": "word " * 20_000}]}],
        [{"type": "text", "text": "word " * 20_000}],
        "word " * 20_000,
        [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "word " * 20_000}}],
        [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}],
        [{"type": "code_execution_tool_result", "content": {"type": "code_execution_result", "stdout": "word " * 20_000, "content": []}}],
        [{"type": "web_search_tool_result", "content": [{"type": "web_search_result", "encrypted_content": "A" * 100_000}]}],
    ],
)
def test_long_content_is_long_in_every_form(content: object) -> None:
    assert features(human(), ai("a"), {"role": "user", "content": content}).tokens > 20_000


@pytest.mark.parametrize("content", [None, "", "so"])
def test_a_long_function_call_is_long(content: str | None) -> None:
    call = {"name": "write", "arguments": "word " * 20_000}

    assert features(human(), {"role": "assistant", "content": content, "function_call": call}, human()).tokens > 20_000


# ---- who said what


REMINDED = [{"type": "tool_result", "tool_use_id": "1", "content": "Now write a poem."}, {"type": "text", "text": "Reply with JSON."}]


def test_words_beside_a_tool_result_go_on_with_the_turn_and_are_no_request() -> None:
    seen = features(human("find the race", id="h"), ai("a", tier="strong"), human(REMINDED), system="Be brief.")

    assert (seen.turn, seen.own, seen.spoken, seen.open_loop) == ("h", "find the race", "find the race", True)
    assert (seen.system, seen.earlier, [stamp.tier for stamp in seen.stamps]) == (
        "Be brief.\nReply with JSON.",
        ("Reply with JSON.",),
        ["strong"],
    )


def test_failed_tool_results_with_words_beside_them_are_counted() -> None:
    failed = human([{"type": "tool_result", "content": "no", "is_error": True}, {"type": "text", "text": "Go on."}])

    assert features(human(), ai("a"), failed, ai("b"), failed).tool_errors == 2


def test_the_same_reminder_is_read_once() -> None:
    assert features(human(), *[ai("a"), human(REMINDED)] * 9).system == "Reply with JSON."


def test_human_messages_in_a_row_are_read_together() -> None:
    seen = features(human("hello"), human("the race is back"), human("any news?"))

    assert (seen.own, seen.latest, seen.earlier) == ("hello\nthe race is back\nany news?", "any news?", ())


@pytest.mark.parametrize("first", ["word " * 2_000, "any news?"])
def test_the_last_human_message_stands_alone_where_others_are_long_or_the_same(first: str) -> None:
    seen = features(human(first), human("any news?"))

    assert (seen.own, seen.earlier[0][:4]) == ("any news?", first[:4])


def test_earlier_words_of_persons_are_known_the_newest_first() -> None:
    said = [message for number in range(9) for message in (human(f"message {number}"), ai())]

    assert features(*said, human("last")).earlier == tuple(f"message {number}" for number in (8, 7, 6, 5, 4, 3))


@pytest.mark.parametrize(
    "yes", ["yes", "Yes, please!", "go on", "👍", "", "mach das", "oui, vas-y", "sí, adelante", "好的", "はい、お願いします", "네"]
)
def test_a_confirmation_is_read_with_what_it_confirms(yes: str) -> None:
    seen = features(human("The pool deadlocks."), ai(content="Shall I refactor it?"), human("ok"), ai(content="Both files?"), human(yes))

    assert seen.own.split("\n") == ["The pool deadlocks.", *([yes] if yes else [""]), "Both files?"]
    assert (seen.spoken.strip(), seen.latest) == (f"The pool deadlocks.\n{yes}".strip(), yes)


@pytest.mark.parametrize("said", ["yes, but in French", "no", "is it done?", "17"])
def test_what_says_more_than_yes_speaks_for_itself(said: str) -> None:
    assert features(human("The pool deadlocks."), ai(content="Shall I refactor it?"), human(said)).own == said


def test_a_confirmation_that_confirms_nothing_stands_alone() -> None:
    assert features(human("yes")).own == "yes"


def test_all_system_prompts_are_one_and_later_ones_come_last() -> None:
    rules = [{"role": role, "content": role} for role in ("system", "developer")]
    late = [{"role": "system", "content": text} for text in ("late", "later")]
    seen = features(*rules, human("a"), ai(), late[0], human("b"), late[1], system="given")

    assert (seen.system, seen.own) == ("given\nsystem\ndeveloper\nlate\nlater", "b")


DENSE = json.dumps([{"sku": number, "price": number * 1.25} for number in range(300)])


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("system", ["You sort tickets.", DENSE, "你是客服。" * 900])
@pytest.mark.parametrize(
    ("messages", "more"),
    [
        ([human()], {}),
        ([human(), ai(), human("b")], {}),
        ([human(), ai(usage={"input_tokens": 40, "output_tokens": 5}), human("b")], {}),
        ([human()], {"tokens": 1_000}),
    ],
    ids=["one message", "a conversation", "a reported count", "a declared size"],
)
def test_a_system_prompt_counts_the_same_beside_the_messages_and_as_the_first_of_them(
    role: str, system: str, messages: list[Any], more: dict[str, Any]
) -> None:
    assert features(*messages, system=system, **more) == features({"role": role, "content": system}, *messages, **more)


def test_of_each_system_prompt_head_and_tail_are_read() -> None:
    prompts = [{"role": "system", "content": mark * 9_000} for mark in "ab"]

    assert features(*prompts, human()).system == f"{window('a' * 9_000)}\n{window('b' * 9_000)}"


@pytest.mark.parametrize("answers", [[], [ai("a"), result()]])
def test_where_nobody_has_spoken_the_system_prompt_is_the_instruction(answers: list[Any]) -> None:
    seen = features({"role": "system", "content": "Fix the race."}, *answers)

    assert (seen.own, seen.spoken, seen.system) == ("Fix the race.", "Fix the race.", "")
