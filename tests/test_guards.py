"""Guards: each one fires, and each one stays silent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction
from functools import partial
from statistics import median
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy
import pytest
from pydantic import BaseModel, ConfigDict, SecretStr

from routed_agents.classify import Classification
from routed_agents.decisions import Decision
from routed_agents.errors import PolicyError
from routed_agents.features import Features, extract
from routed_agents.guards import (
    DEFAULT,
    TOP,
    Compounding,
    Conditions,
    Deadline,
    Empathy,
    PolicyFloor,
    Stall,
    Verdict,
    distress_in,
    identity,
    named,
)
from routed_agents.policy import Policy
from routed_agents.state import ThreadState, release_of, thread_facts
from routed_agents.steps import Step
from routed_agents.taxonomy import Taxonomy

POLICY = Policy.default(tiers="claude-2026-11-three")
CHEAP = "Classify the sentiment as positive or negative: lovely"
DISTRESSED = thread_facts(["distress"])


def decide(
    text: str | Sequence[object], *, state: ThreadState | None = None, now: Conditions | None = None, policy: Policy = POLICY, **more: Any
) -> Decision:
    return policy.decide(Step.from_messages(text, **more), state, now)


def said(guard: str, decision: Decision) -> list[str]:
    return [verdict.code for verdict in decision.verdicts if verdict.guard == guard]


# ---- long context


@pytest.mark.parametrize(("tokens", "codes"), [(50_000, []), (50_001, ["long_context"]), (2_000_000, ["long_context"])])
def test_long_context_fires_above_its_limit(tokens: int, codes: list[str]) -> None:
    assert said("long_context", decide(CHEAP, tokens=tokens)) == codes


def test_long_context_pins_the_turn() -> None:
    assert (decide(CHEAP, tokens=60_000).pin, decide(CHEAP, tokens=60_000).tier) == ("turn", "strong")


# ---- agentic chain


def test_a_step_of_a_multi_step_chain_goes_strong() -> None:
    assert said("agentic_chain", decide("x", task_class="agentic_chain")) == ["agentic_chain"]


# ---- compounding


@pytest.mark.parametrize(
    ("key", "downstream", "codes"),
    [
        ("code_generation", 1, ["compounding"]),
        ("code_generation", 17, ["compounding"]),
        ("code_generation", 18, []),
        ("code_generation", 10**30, []),
        ("knowledge_qa", 3, ["compounding"]),
        ("multi_turn", 3, []),
        ("summarization", 1, []),
        ("code_generation", 0, []),
        ("code_generation", None, []),
    ],
)
def test_a_step_much_hangs_on_goes_strong(key: str, downstream: int | None, codes: list[str]) -> None:
    assert said("compounding", decide("x", task_class=key, downstream=downstream)) == codes


@pytest.mark.parametrize(
    ("node", "key", "downstream"),
    [("triage", "classification", 3), ("extract", "extraction", 2), ("lookup", "rag_lookup", 1), ("grade", "classification", 12)],
)
def test_triage_reading_and_grading_stay_cheap_whatever_hangs_on_them(node: str, key: str, downstream: int) -> None:
    decision = decide("Sort the message by topic and mood", node=node, task_class=key, downstream=downstream)

    assert (decision.tier, decision.codes) == ("cheap", ())


def test_the_loss_is_the_formulas_and_its_evidence_holds_numbers_only() -> None:
    verdict = next(
        each for each in decide("secret words", task_class="math_reasoning", downstream=7).verdicts if each.guard == "compounding"
    )
    exact = (92 - 72) * Fraction(94, 100) ** 7

    assert (f"{float(exact):.2f}", verdict.evidence) == ("12.97", "loss 12.96 percent points = (92 - 72) x 94 % ^ 7, over 5")


@pytest.mark.parametrize(
    ("key", "reckoned", "codes"),
    [
        ("code_generation", None, []),
        ("code_generation", 0, []),
        ("code_generation", 1, ["compounding"]),
        ("code_generation", 40, []),
        ("classification", 1, []),
        ("rag_lookup", 1, []),
    ],
)
def test_in_a_loop_it_is_silent_unless_told_how_many_steps_to_reckon_with(key: str, reckoned: int | None, codes: list[str]) -> None:
    policy = POLICY.replace(guards=[Compounding(in_loop=reckoned)])

    assert said("compounding", decide("x", task_class=key, in_loop=True, policy=policy)) == codes


def test_what_is_reckoned_with_in_loops_means_nothing_outside_them() -> None:
    policy = POLICY.replace(guards=[Compounding(in_loop=1)])

    assert said("compounding", decide("x", task_class="code_generation", policy=policy)) == []
    assert said("compounding", decide("x", task_class="code_generation", downstream=18, in_loop=True, policy=policy)) == []


def test_rates_nobody_knows_keep_it_silent() -> None:
    shipped = Taxonomy.default()
    blind = replace(shipped, rows={**shipped.rows, "code_generation": replace(shipped.row("code_generation"), p_cheap=None)})

    assert said("compounding", decide("x", task_class="code_generation", downstream=3, policy=POLICY.replace(taxonomy=blind))) == []


def test_what_it_tolerates_and_the_rates_are_the_policys() -> None:
    lenient = POLICY.replace(guards=[Compounding(tolerance=16)])

    assert said("compounding", decide("x", task_class="code_generation", downstream=1, policy=lenient)) == []


def test_the_rest_is_taken_to_succeed_as_the_taxonomys_median() -> None:
    assert Compounding().remaining == round(median(row.p_strong or 0 for row in Taxonomy.default()))


# ---- stall


def loop(calls: int, *, errors: int = 0, same: bool = False, tier: str | None = None, rejected: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A question and the tool calls made for it, stamped with a tier if one is given."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": CHEAP}]
    stamp = {"response_metadata": {"routed_agents": {"tier": tier, "pin": "turn", "codes": [], "rejected": rejected}}} if tier else {}
    for at in range(calls):
        messages.append({"role": "assistant", "tool_calls": [{"name": "look", "args": {"at": 0 if same else at}}], **stamp})
        messages.append({"role": "tool", "content": "r", "status": "error" if at >= calls - errors else "success"})
    return messages


@pytest.mark.parametrize(
    ("messages", "codes"),
    [
        (loop(8), []),
        (loop(3, errors=1), []),
        (loop(3, errors=2), ["tool_errors"]),
        (loop(2, same=True), []),
        (loop(3, same=True), ["repeated_tool_call"]),
        (loop(1, tier="mid"), []),
        (loop(1, tier="mid", rejected=["schema_mismatch"]), ["answer_failures"]),
        (loop(1, tier="strong", rejected="invalid_tool_call"), []),
    ],
    ids=["long loop", "one error", "two errors", "one repeat", "two repeats", "accepted", "rejected", "a stamp nobody understands"],
)
def test_a_tool_loop_needs_evidence_of_a_stall(messages: list[Any], codes: list[str]) -> None:
    decision = decide(messages, tools=["look"], task_class="classification")

    assert (said("stall", decision), decision.pin) == (codes, "turn" if codes or decision.pins else None)


@pytest.mark.parametrize(("declared", "codes"), [(0, []), (1, ["answer_failures"]), (True, ["answer_failures"]), ("2", []), (-3, [])])
def test_a_node_may_declare_that_its_last_answer_failed(declared: object, codes: list[str]) -> None:
    assert said("stall", decide(CHEAP, metadata={"answer_failures": declared})) == codes


@pytest.mark.parametrize(
    ("messages", "stopped"),
    [
        (loop(5, same=True, tier="strong"), None),
        (loop(6, same=True, tier="strong"), "stalled"),
        (loop(9, same=True, tier="mid"), None),
        (loop(9, same=True), None),
        ([*loop(3, same=True, tier="cheap"), *loop(2, same=True, tier="strong")[1:]], None),
        ([*loop(3, same=True, tier="cheap"), *loop(3, same=True, tier="strong")[1:]], "stalled"),
        (loop(9, errors=4, tier="strong"), None),
        (loop(9, errors=5, tier="strong"), "stalled"),
        ([*loop(2, errors=2, tier="cheap"), *loop(3, errors=3, tier="strong")[1:]], "stalled"),
        (loop(3, tier="strong", rejected=["empty"]), None),
        (loop(4, tier="strong", rejected=["empty"]), "stalled"),
        (loop(9, tier="strong"), None),
    ],
)
def test_a_stall_at_the_top_tier_stops_after_three_more(messages: list[Any], stopped: str | None) -> None:
    decision = decide(messages, tools=["look"], task_class="classification")

    assert (decision.stopped, decision.rank is None) == (stopped, stopped is not None)


def test_how_often_it_may_go_on_is_the_policys() -> None:
    patient = POLICY.replace(guards=[Stall(max_repeats=4)])

    assert decide(loop(6, same=True, tier="strong"), task_class="classification", policy=patient).stopped is None


CHAT = [{"role": "user", "content": "When does the shop in Ghent open?"}, {"role": "assistant", "content": "It is in Belgium."}]


def after(text: str) -> list[dict[str, str]]:
    return [*CHAT, {"role": "user", "content": text}]


@pytest.mark.parametrize(
    "text",
    [
        "No, that's not what I asked.",
        "That isn’t what I meant",
        "You misunderstood me",
        "I already told you",
        "Sorry, I meant Bruges",
        "Just answer the question.",
        "You haven't even answered my question",
        "Wrong answer!",
        "Nein, das habe ich nicht gefragt",
        "Ich habe doch schon gesagt: Gent",
        "Ce n'est pas ce que j'ai demandé",
        "Eso no es lo que pregunté",
        "Non è quello che ho chiesto",
        "Não foi isso que eu perguntei",
        "Dat is niet wat ik vroeg",
        "Nie o to pytałem",
        "聞いているのは時間です",
        "質問に答えてくれ",
        "我问的是时间",
    ],
)
def test_a_person_who_corrects_goes_strong_for_the_turn(text: str) -> None:
    decision = decide(after(text), task_class="multi_turn")

    assert (said("stall", decision), decision.tier, decision.pin) == (["user_corrects"], "strong", "turn")


@pytest.mark.parametrize(
    "text",
    [
        *["No, thank you", "That is right", "I want to ask about Bruges", "Nein, danke", "非常感谢", "No problem"],
        *["Answer the question: where is it?", "Answer the question based on the text below.\n\nThe shop is in Ghent."],
        *["Read the question carefully and pick one", "Which of these is a wrong answer to pick first?", "次の質問に答えてください。"],
    ],
)
def test_everyday_answers_correct_nothing(text: str) -> None:
    assert said("stall", decide(after(text), task_class="multi_turn")) == []


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("when does the shop in Ghent open", ["user_repeats"]),
        ("Again: when does the shop in Ghent open?", ["user_repeats"]),
        ("When does the shop in Bruges open?", []),
        ("When does it close?", []),
    ],
)
def test_a_person_who_says_the_same_again_goes_strong(text: str, codes: list[str]) -> None:
    assert said("stall", decide(after(text), task_class="multi_turn")) == codes


@pytest.mark.parametrize("short", ["Go on, please", "yes"])
def test_short_words_may_come_again(short: str) -> None:
    history = [{"role": "user", "content": short}, {"role": "assistant", "content": "Done."}, {"role": "user", "content": short}]

    assert said("stall", decide(history, task_class="multi_turn")) == []


@pytest.mark.parametrize("key", ["classification", "extraction"])
def test_a_label_about_a_correction_stays_cheap(key: str) -> None:
    assert decide(after("No, that's not what I asked."), task_class=key).tier == "cheap"


def test_a_first_message_corrects_nobody() -> None:
    assert said("stall", decide("No, that's not what I asked for, your colleague said.", task_class="multi_turn")) == []


def test_a_stamp_tells_its_part_of_a_stall() -> None:
    messages = [*loop(2, errors=2, same=True, tier="cheap", rejected=["empty"]), *loop(1, errors=1, same=True, tier="strong")[1:]]
    stamps = extract(Step.from_messages(messages)).stamps

    assert [(each.tier, each.rejected, each.repeated, each.failed) for each in stamps] == [
        ("strong", 0, 1, 1),
        ("cheap", 1, 1, 1),
        ("cheap", 1, 1, 1),
    ]


# ---- empathy


@pytest.mark.parametrize(
    "text",
    [
        "My husband died in March and I cannot cope",
        "I want to kill myself",
        "This is outrageous, my lawyer will hear of it",
        "I will take this to court",
        "I want to speak to a real human",
        "I'm completely desperate",
        "Mein Mann ist gestorben",
        "Ich bin verzweifelt",
        "Mon mari est décédé",
        "Es inaceptable, llamaré a mi abogado",
        "母が亡くなりました",
        "我不想活了",
    ],
)
def test_the_answer_to_a_person_in_distress_goes_strong(text: str) -> None:
    decision = decide(text, task_class="multi_turn")

    assert (decision.tier, "empathy" in decision.codes, decision.state.facts) == ("strong", True, {"distress"})


@pytest.mark.parametrize(
    "text",
    [
        "Thanks, the lamp is lovely and my wife adores it",
        "I'm dying to see the new film",
        "How do I kill the process on port 80?",
        "Do you sell law books and a suit for court?",
        "My dog loves this food",
        "What was the cause of the French Revolution?",
        "Ich möchte eine Lampe bestellen",
        "本を注文したいです",
    ],
)
def test_everyday_words_are_no_distress(text: str) -> None:
    assert decide(text, task_class="multi_turn").state.facts == frozenset()


FURIOUS = "```\nThis is outrageous. I demand my money or my lawyer will call.\n```"


@pytest.mark.parametrize("key", ["classification", "extraction"])
def test_triage_of_a_furious_mail_stays_cheap_and_tells_the_thread(key: str) -> None:
    decision = decide(f"Triage this mail:\n{FURIOUS}", task_class=key)

    assert (decision.tier, decision.codes, decision.state.facts) == ("cheap", (), {"distress"})


@dataclass(frozen=True)
class Torn:
    """A classifier that takes for copy what nobody declared, more or less surely."""

    p_strong: float

    def classify(self, features: Features) -> Classification:
        key = features.declared or "marketing_copy"
        return Classification(task_class=key, confidence=0.7, p_strong=self.p_strong, declared=features.declared is not None)


@pytest.mark.parametrize(("p_strong", "declared", "tier"), [(0.19, None, "cheap"), (0.2, None, "strong"), (0.2, "extraction", "cheap")])
def test_a_step_with_distress_in_it_that_nobody_can_tell_goes_strong(p_strong: float, declared: str | None, tier: str) -> None:
    """It may be the answer to that person, unless its author says that it is none."""
    decision = decide(f"Max 90 words.\n{FURIOUS}", task_class=declared, policy=POLICY.replace(classifier=Torn(p_strong)))

    assert decision.tier == tier


def test_the_reply_to_the_furious_customer_goes_strong() -> None:
    assert "empathy" in decide(f"Draft a reply to the customer:\n{FURIOUS}").codes


def test_the_summary_of_a_sad_story_stays_cheap_and_says_nothing() -> None:
    decision = decide("Summarize this story:\n```\nMy husband died, she said, in tears.\n```")

    assert (decision.tier, decision.state.facts) == ("cheap", frozenset())


@pytest.mark.parametrize(
    ("key", "tier"), [("rag_lookup", "strong"), ("multi_turn", "strong"), ("knowledge_qa", "strong"), ("summarization", "cheap")]
)
def test_the_fact_raises_what_a_person_reads_and_nothing_else(key: str, tier: str) -> None:
    assert decide("When do you open?", task_class=key, state=DISTRESSED).tier == tier


def test_a_reply_to_a_person_is_person_facing_whatever_its_class() -> None:
    assert decide("Summarize the case in a reply to the customer", task_class="summarization", state=DISTRESSED).tier == "strong"


ASSISTANT = (
    "You are an assistant for question-answering tasks. Use the following pieces of retrieved context to answer the question.\n\n"
    "Context: Orders are sent from the warehouse within three days."
)


@pytest.mark.parametrize(
    "plea",
    [
        "I want to end\nmy life.",
        "I want to **end** my  life.",
        "I want to end-my-life.",
        "I could k*ll myself.",
        "I will unalive myself.",
        "talk  to a human",
        "my aunt pased away last week.",
        "My aunt \u0440\u0430\u0455\u0455\u0435\u0501 away.",
    ],
)
def test_a_plea_is_heard_however_it_is_written(plea: str) -> None:
    assert "empathy" in decide(f"{plea} When will my order be sent?", system=ASSISTANT).codes


PLEAS = {
    "self_harm": """
        ich will nicht mehr leben / je veux mourir / ya no quiero vivir / não quero mais viver
        non voglio più vivere / ik wil niet meer leven / nie chcę już żyć / nie chce juz zyc
        artık yaşamak istemiyorum / я не хочу жить / لا أريد أن أعيش / मैं मरना चाहता हूँ / 죽고 싶어요 / 我不想活了
        死にたい
    """,
    "loss": """
        mein Vater ist gestorben / mon père est décédé / mon pere est decede / mi padre murió
        mi padre murio / minha mãe faleceu / mia madre è morta / mijn man is overleden / mój mąż zmarł
        annem vefat etti / моя мама умерла / توفيت والدتي / मेरे पिता का निधन हो गया / 아버지가 돌아가셨어요 / 我妈妈去世了
        母が亡くなりました
    """,
    "threat": """
        mein Anwalt meldet sich / je saisis mon avocat / llamaré a mi abogado / vou processar vocês
        ho sentito il mio avvocato / mijn advocaat belt u / mój prawnik się odezwie / avukatım arayacak
        подам в суд / سأتصل بالمحامي / मेरे वकील से बात करें / 변호사를 선임하겠습니다 / 法院见 / 弁護士に相談します
    """,
    "wish for a human": """
        ich möchte mit einem Menschen sprechen / je veux parler à un humain / quiero hablar con una persona
        quero falar com um atendente / voglio parlare con un operatore / ik wil een medewerker spreken
        chcę rozmawiać z człowiekiem / gerçek bir insanla görüşmek istiyorum / хочу поговорить с человеком
        أريد التحدث مع شخص حقيقي / किसी इंसान से बात करनी है / 상담원 연결해 주세요 / 转人工 / 人間の担当者と話したい
    """,
    "exhaustion": """
        ich bin verzweifelt / je suis à bout / estoy desesperada / estou desesperado / sono disperata
        ik ben wanhopig / jestem zrozpaczona / çaresizim / я в отчаянии / أنا يائس / मैं बेबस हूँ / 절망적이에요
        我崩溃了 / もう限界です
    """,
}
"""A plea of each kind in German, Romance and Slavic languages, Dutch, Turkish, Arabic, Hindi, Korean, Chinese and Japanese."""


@pytest.mark.parametrize("kind", PLEAS)
def test_pleas_are_heard_in_many_languages(kind: str) -> None:
    pleas = [plea.strip() for line in PLEAS[kind].strip().splitlines() for plea in line.split(" / ")]

    assert {plea: distress_in(plea)[0] for plea in pleas} == dict.fromkeys(pleas, kind)


@pytest.mark.parametrize(
    "text",
    [
        "Who is the ombudsman?",
        "Do you cover liability insurance for pets?",
        "Is suicide covered by the life policy?",
        "I want to know if suicide is excluded",
        "We drove 300 kms",
        "I dropped the parcel off myself",
        "I'd like to end my life insurance",
        "Je ne veux plus vivre à Paris",
        "no quiero vivir en Madrid",
        "не хочу жить в Москве",
        "서울에 살고 싶지 않아요",
        "chcę zabić czas",
        "mijn moeder wil een lamp",
        "моя мама хочет лампу",
        "아버지 선물을 사고 싶어요",
        "أريد هدية لوالدي",
        "मेरे पिता के लिए दीपक चाहिए",
        "我妈妈想买一盏灯",
        "父にランプを買いたい",
        "消えたいくつかのファイル",
        "好想死你了",
        "报警器多少钱",
        "轮椅多少钱",
        "Ich habe keinen Computer",
        "je n'ai pas d'ordinateur",
        "это не ботинки",
        "which band sang 'no reason to live'",
    ],
)
def test_a_mere_mention_is_no_plea(text: str) -> None:
    assert distress_in(text) == ("", "")


@pytest.mark.parametrize("key", ["summarization", "classification", "extraction", "marketing_copy"])
def test_who_wants_to_die_is_answered_by_the_strong_tier_whatever_is_asked(key: str) -> None:
    assert "empathy" in decide("Summarize where my case stands. My lawyer asks. I want to end my life.", task_class=key).codes


@pytest.mark.parametrize(
    "text",
    [
        "Summarize:\n```\nI want to end my life, she said.\n```",
        "Label this ticket.\n<ticket>I want to end my life</ticket>",
        'Label the line "I want to end my life" of the song',
        "Label the line 'I don't want to live any more' of the song",
        "Label the message.\n\nMessage: I want to end my life",
    ],
)
@pytest.mark.parametrize("key", ["summarization", "classification"])
def test_work_on_what_somebody_else_said_stays_cheap(text: str, key: str) -> None:
    assert decide(text, task_class=key).tier == "cheap"


@pytest.mark.parametrize("text", ["Is there self-harm in it?\n\nPost: I want to end my life", "Label this line: I want to end my life"])
def test_what_is_to_be_labelled_stands_behind_a_colon(text: str) -> None:
    assert decide(text, task_class="classification").tier == "cheap"


@pytest.mark.parametrize(
    ("text", "tier"),
    [
        ("Classe ce ticket. Réponds par un seul mot.", "cheap"),
        ("Ordne das Ticket ein. Antworte mit einem Wort.", "cheap"),
        ("Clasifica el ticket. Responde en una palabra.", "cheap"),
        ("Réponds au client.", "strong"),
        ("Antworte dem Kunden.", "strong"),
        ("Responde al cliente.", "strong"),
        ("Rispondi al cliente.", "strong"),
    ],
)
def test_an_answer_is_person_facing_where_a_person_is_named(text: str, tier: str) -> None:
    assert decide(text, task_class="classification", state=DISTRESSED).tier == tier


PLEA = "i want to end my life"


@pytest.mark.parametrize(
    "messages",
    [
        [PLEA, ("ai", "Are you safe right now?"), "no"],
        [PLEA, ("ai", "Are you safe right now?"), "yes, at home", ("ai", "Good."), "where is the parcel"],
    ],
)
@pytest.mark.parametrize(("key", "tier"), [("rag_lookup", "strong"), ("classification", "cheap")])
def test_distress_said_earlier_holds_without_a_threads_state(messages: list[object], key: str, tier: str) -> None:
    assert decide(messages, task_class=key).tier == tier


@pytest.mark.parametrize("key", ["rag_lookup", "classification"])
def test_messages_in_a_row_are_heard_as_one(key: str) -> None:
    assert decide(["hello", PLEA, "where is the parcel"], task_class=key).tier == "strong"


@pytest.mark.parametrize("state", [DISTRESSED.join(release_of(["distress"])), release_of(["distress"])])
def test_distress_that_was_released_stays_so_whatever_was_said_earlier(state: ThreadState) -> None:
    assert decide([PLEA, ("ai", "Are you safe?"), "where is the parcel"], task_class="rag_lookup", state=state).tier == "cheap"


@pytest.mark.parametrize("last", ["No, that's not what I meant.", "Where is my parcel with the red bow?"])
def test_a_second_message_in_a_row_is_heard_as_a_correction_or_as_the_same_again(last: str) -> None:
    first = "Where is my parcel with the red bow?"

    assert said("stall", decide([first.upper() * (1 + 9 * (first != last)), last], task_class="rag_lookup")) != []


def test_a_curly_apostrophe_hides_nothing() -> None:
    assert distress_in("I can’t cope") == distress_in("I can't cope") != ("", "")


# ---- forced tier


@pytest.mark.parametrize(
    ("forced", "tier", "codes"),
    [
        ("mid", "mid", ("forced_tier",)),
        ("cheap", "cheap", ("forced_tier",)),
        ("opus", "strong", ("forced_tier_unknown",)),
        (None, "cheap", ()),
    ],
)
def test_a_forced_tier_holds_the_step_there(forced: str | None, tier: str, codes: tuple[str, ...]) -> None:
    decision = decide(CHEAP, metadata={"routed_agents": {"tier": forced}})

    assert (decision.tier, decision.codes) == (tier, codes)


def test_a_forced_tier_is_a_cap_that_a_floor_beats() -> None:
    assert decide("x", task_class="agentic_chain", metadata={"routed_agents": {"tier": "cheap"}}).tier == "strong"


def test_a_forced_tier_lowers_a_mere_proposal() -> None:
    assert decide("x", task_class="code_generation", metadata={"routed_agents": {"tier": "cheap"}}).tier == "cheap"


# ---- low confidence


def test_what_nobody_understands_goes_to_the_top_unsure() -> None:
    decision = decide("xyzzy plugh")

    assert (decision.tier, decision.unsure, decision.codes) == ("strong", True, ("unsure",))


def test_a_declared_class_is_never_unsure() -> None:
    assert decide("xyzzy plugh", task_class="classification").unsure is False


# ---- deadline


@pytest.mark.parametrize(
    ("given", "now", "cap"),
    [
        (None, None, []),
        (60.0, None, []),
        (2.0, None, ["deadline"]),
        (None, Conditions(deadline_s=2.0), ["deadline"]),
        (60.0, Conditions(deadline_s=2.0), ["deadline"]),
        (2.0, Conditions(latency_s={"claude-opus-5-5": 1.0}), []),
    ],
)
def test_a_deadline_caps_what_starts_too_late(given: float | None, now: Conditions | None, cap: list[str]) -> None:
    assert said("deadline", decide("x", task_class="code_generation", deadline_s=given, now=now)) == cap


@pytest.mark.parametrize(("key", "tier"), [("code_generation", "mid"), ("agentic_chain", "strong")])
def test_a_deadline_yields_to_a_floor_and_lowers_a_proposal(key: str, tier: str) -> None:
    assert decide("x", task_class=key, deadline_s=2.0).tier == tier


def test_where_nothing_is_in_time_the_cheapest_serves() -> None:
    slow = Conditions(latency_s={tier.model: 9.0 for tier in POLICY.tiers}, deadline_s=0.1)

    assert decide("x", task_class="code_generation", now=slow).tier == "cheap"


# ---- floors of the policy file


class Tenant(Enum):
    VIP = "vip"


VULNERABLE = PolicyFloor(tier="mid", metadata=(("vulnerable", True),), code="vulnerable", pin="lineage")
QUOTED = PolicyFloor(tier="mid", metadata=(("vulnerable", "true"),))


@pytest.mark.parametrize(("floor", "more", "tier"), [
    (VULNERABLE, {"metadata": {"vulnerable": True}}, "mid"),
    (VULNERABLE, {"metadata": {"vulnerable": False}}, "cheap"),
    (VULNERABLE, {"metadata": {"vulnerable": "true"}}, "mid"),
    (VULNERABLE, {"metadata": {"vulnerable": "True"}}, "mid"),
    (VULNERABLE, {"metadata": {"vulnerable": "no"}}, "cheap"),
    (QUOTED, {"metadata": {"vulnerable": True}}, "mid"),
    (QUOTED, {"metadata": {"vulnerable": 1}}, "mid"),
    (QUOTED, {"metadata": {"vulnerable": "True"}}, "mid"),
    (QUOTED, {"metadata": {"vulnerable": False}}, "cheap"),
    (VULNERABLE, {"metadata": {"vulnerable": ["true"]}}, "cheap"),
    (PolicyFloor(tier="strong", metadata=(("level", 3),)), {"metadata": {"level": "3"}}, "strong"),
    (PolicyFloor(tier="strong", metadata=(("level", "3"),)), {"metadata": {"level": 3}}, "strong"),
    (PolicyFloor(tier="strong", metadata=(("level", 3),)), {"metadata": {"level": 4}}, "cheap"),
    (PolicyFloor(tier="strong", metadata=(("tenant", "vip"),)), {"metadata": {"tenant": Tenant.VIP}}, "strong"),
    (PolicyFloor(tier="strong", metadata=(("tenant", "vip"),)), {"metadata": {"tenant": "VIP"}}, "cheap"),
    (VULNERABLE, {}, "cheap"),
    (PolicyFloor(tier="strong", node="reply"), {"node": "reply"}, "strong"),
    (PolicyFloor(tier="strong", node="reply"), {"node": "triage"}, "cheap"),
    (PolicyFloor(tier="strong", task_class="classification"), {}, "strong"),
    (PolicyFloor(tier="strong", task_class="extraction"), {}, "cheap"),
    (PolicyFloor(tier="strong", node="reply", metadata=(("vip", True),)), {"node": "reply"}, "cheap"),
    (PolicyFloor(tier="strong"), {}, "strong"),
])  # fmt: skip
def test_a_floor_holds_where_all_it_asks_for_is_so(floor: PolicyFloor, more: dict[str, Any], tier: str) -> None:
    assert decide(CHEAP, policy=POLICY.replace(floors=[floor]), **more).tier == tier


def test_a_floor_pins_as_far_as_it_says() -> None:
    assert decide(CHEAP, policy=POLICY.replace(floors=[VULNERABLE]), metadata={"vulnerable": True}).pin == "lineage"


# ---- rules of one's own


@named("weekend", version="1")
def weekend(seen: object) -> Verdict | None:
    """A guard as a plain function."""
    return Verdict(guard="weekend", code="weekend", floor=1, pin="thread")


def test_a_plain_function_is_a_guard() -> None:
    decision = decide(CHEAP, policy=POLICY.replace(guards=[weekend]))

    assert (decision.tier, decision.pin, decision.codes) == ("mid", "thread", ("weekend",))


@pytest.mark.parametrize("rule", [lambda seen: None, object(), print])
def test_a_rule_without_name_and_version_is_refused(rule: object) -> None:
    with pytest.raises(PolicyError, match="no name and version"):
        identity(rule)


def test_settings_and_versions_enter_a_rules_identity() -> None:
    again = named("weekend", version="2")(weekend.rule)

    assert len({identity(rule) for rule in (weekend, again, Deadline(), VULNERABLE, PolicyFloor(tier="mid"))}) == 5


def ruled(module: str, name: str = "Empathy", base: type[Any] = Empathy) -> Any:
    """A rule of one's own that takes after another one."""
    return dataclass(frozen=True, kw_only=True)(type(name, (base,), {"__module__": module, "__call__": lambda self, seen: None}))()


def test_a_rule_of_ones_own_is_no_shipped_one_of_its_name() -> None:
    rules = (Empathy(), ruled("mine"), ruled("theirs"))

    assert [identity(rule).partition("(")[0] for rule in rules] == ["Empathy", "mine.Empathy", "theirs.Empathy"]


def test_the_default_policys_hash_holds_from_release_to_release() -> None:
    assert Policy.default(tiers="claude-2026-11-three").hash == "1a3b32db945527b1"


def test_a_rule_of_a_script_is_the_same_in_its_worker_processes() -> None:
    assert identity(ruled("__mp_main__")) == identity(ruled("__main__"))


@dataclass(frozen=True)
class Of:
    """A rule with one setting."""

    setting: Any

    def __call__(self, seen: object, /) -> Verdict | None:
        return None


@dataclass(frozen=True)
class Versioned(Of):
    """A rule whose author says when it is another one."""

    version: str = "1"


class Words(BaseModel):
    """Settings of somebody who validates them."""

    model_config = ConfigDict(extra="allow")

    words: set[str] = set()
    key: SecretStr | None = None
    _seen: int = 0


class Told(Words):
    """The same, under a name of its own."""


class Quiet:
    """A value that says too little of itself."""

    def __repr__(self) -> str:
        return "Quiet(...)"


class Size(Enum):
    SMALL = 1
    LARGE = 2


def weights(place: int, kind: Any = float) -> Any:
    """As many numbers as numpy no longer prints in full, one of them another."""
    made = numpy.zeros(2_000, dtype=kind)
    made[place] = 1
    return made


OPAQUE = [
    *(lambda seen: None, object(), [{"deep": object()}], {(1, 2): 3}, partial(identity)),
    *(Quiet(), {"deep": Quiet()}, Words(key=SecretStr("x")), SimpleNamespace(inner=Quiet()), ValueError({"a", "b"})),
    *(numpy.array([object()]), numpy.ma.masked_array([1, 2], [0, 1])),
]


@pytest.mark.parametrize("setting", OPAQUE)
def test_a_setting_that_no_two_processes_write_alike_needs_a_version(setting: object) -> None:
    with pytest.raises(PolicyError, match=r'^setting "setting" of rule .*\.Of is no plain value \(.*give the rule a version'):
        identity(Of(setting))

    assert len({identity(Versioned(setting, version)) for version in "12"}) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (len, max),
        (identity, named),
        (Empathy, Deadline),
        (re.compile("a" * 300 + "b"), re.compile("a" * 300 + "c")),
        (re.compile("a"), re.compile("a", re.IGNORECASE)),
        (Of(frozenset("abc")), Of(frozenset("abd"))),
        (MappingProxyType({"a": {1}}), MappingProxyType({"a": {2}})),
        (Fraction(1, 2), Fraction(1, 3)),
        (Words(words={"a"}), Words(words={"b"})),
        (Words(words={"a"}), Told(words={"a"})),
        (Words.model_validate({"more": 1}), Words.model_validate({"more": 2})),
        (SimpleNamespace(a={1}), SimpleNamespace(a={2})),
        (Size.SMALL, Size.LARGE),
        (weights(1_000), weights(1_001)),
        (weights(1_000), weights(1_000, int)),
        (weights(1_000), weights(1_000).reshape(2, 1_000)),
        (numpy.float32(0.1), numpy.float32(0.2)),
    ],
)
def test_settings_that_differ_make_another_rule(one: object, other: object) -> None:
    assert identity(Of(one)) != identity(Of(other))


def test_equal_settings_make_one_rule_however_they_are_held() -> None:
    rows = weights(1_000).reshape(2, 1_000)

    assert identity(Of(rows)) == identity(Of(numpy.asfortranarray(rows)))
    assert identity(Of(Words(words={"a", "b"}))) == identity(Of(Words(words={"b", "a"})))


def test_a_setting_that_cannot_be_told_is_refused_in_one_line() -> None:
    with pytest.raises(PolicyError) as caught:
        identity(Of(numpy.array([[object()] * 3] * 3)))

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"tier": None}, "floor: tier is None; wanted the name of a tier"),
        ({"node": ""}, "floor: node is ''; wanted the name of a node"),
        ({"metadata": {"vip": True}}, r"floor: metadata is \{'vip': True\}; wanted pairs of a key and a text, number, True or False"),
        ({"metadata": ("vip", "eu")}, "floor: metadata is"),
        ({"metadata": (("vip", None),)}, "floor: metadata is"),
        ({"task_class": 1.5}, "floor: task_class is 1.5; wanted the key or number of a task class"),
        ({"code": ""}, "floor: code is ''; wanted a reason code"),
        ({"pin": "treads"}, "floor: pin is 'treads'; wanted one of turn, lineage, thread, or None"),
    ],
)
def test_a_floor_that_could_never_hold_is_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        PolicyFloor(**{"tier": "strong", **part})


def test_the_order_in_which_a_floor_asks_means_nothing() -> None:
    one, other = (PolicyFloor(tier="strong", metadata=asked) for asked in ((("a", 1), ("b", 2)), (("b", 2), ("a", 1))))

    assert (one, identity(one)) == (other, identity(other))


def test_every_shipped_guard_is_silent_on_a_plain_step() -> None:
    assert [guard for guard in DEFAULT if said(type(guard).__name__, decide(CHEAP))] == []


def test_the_highest_floor_there_is_means_the_top_of_any_policy() -> None:
    assert [
        Policy.default(tiers=each).decide(Step.from_messages("x", task_class="agentic_chain")).settlement.obligation
        for each in ("claude", "claude-2026-11-three")
    ] == [1, 2]
    assert TOP > 100


@pytest.mark.parametrize(
    ("text", "key", "tier"),
    [
        ("Mail:\n<customer_message>I want to end my life. When will it be sent?</customer_message>", "rag_lookup", "strong"),
        ('{"event": "chat", "text": "I want to end my life, and where is the order I have been waiting for"}', "rag_lookup", "strong"),
        ("Answer this mail:\n> I want to end my life\n> when will it be sent?", "knowledge_qa", "strong"),
        ("Context:\n<document>He cried. My husband died, she said.</document>\nWho cried?", "rag_lookup", "cheap"),
        ("Summarize:\n<story>I want to end my life, she said. Then the bus came.</story>", "summarization", "cheap"),
        ("Translate to German:\n<post>I want to end my life</post>", "code_format", "cheap"),
    ],
)
def test_a_wish_to_die_is_heard_in_marks_where_an_answer_goes_to_it(text: str, key: str, tier: str) -> None:
    assert decide(text, task_class=key).tier == tier
