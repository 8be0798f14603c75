"""The standard tests that are expected to fail, by name, with what is to blame; each has to go once it passes."""

from __future__ import annotations

from typing import Final

from .subjects import LUNA, OPUS, SOL, Subject

CHINESE = "the embedded provider's solvers find no name written in Chinese"
SNAPSHOT = "a provider's own class says it can be serialised, but no snapshot of it is kept here: it would hold the provider's address"
FORCED = f"{OPUS} takes no forced tool choice, and langchain-anthropic sends it all the same"
GREETED = f"{OPUS} takes no forced tool choice, so a greeting is answered without a tool"
BOUND = "with_fallbacks binds tools on both models into a RunnableWithFallbacks, which is no RunnableBinding"
THOUGHT = f"{OPUS} thinks unasked, and langchain-anthropic then sums blocks and plain strings into more than one text"
STOPS = "today's OpenAI models take no stop words, and langchain-openai sends them all the same"
NO_V3 = "has no v3 events"

EVERYWHERE: Final = {"test_unicode_tool_call_integration": CHINESE}
FORCED_TESTS: Final = dict.fromkeys(
    (
        "test_tool_calling",
        "test_tool_calling_async",
        "test_bind_runnables_as_tools",
        "test_tool_choice",
        "test_tool_calling_with_no_arguments",
        "test_structured_few_shot_examples",
    ),
    FORCED,
)
V3_TESTS: Final = dict.fromkeys(("test_stream_events_v3", "test_astream_events_v3"), NO_V3)

BY_FAMILY: Final = {
    "bare": {"test_serdes": SNAPSHOT},
    "fallbacks": {"test_serdes": SNAPSHOT, "test_bind_tool_pydantic": BOUND, **V3_TESTS},
    "ChatRouter": V3_TESTS,
    "routed": {},
}
STREAMS: Final = dict.fromkeys(("test_stream", "test_astream"), THOUGHT)
ON_OPUS: Final = {
    "bare": {**FORCED_TESTS, **STREAMS},
    "ChatRouter": {**FORCED_TESTS, **STREAMS},
    "routed": {
        **STREAMS,
        "test_tool_choice": GREETED,
    },
}
ON_GPT: Final = {"bare": {"test_stop_sequence": STOPS}, "ChatRouter": {"test_stop_sequence": STOPS}}
BY_MODEL: Final = {OPUS: ON_OPUS, LUNA: ON_GPT, SOL: ON_GPT}


def expected_failure(subject: Subject, test: str) -> str | None:
    """Why this subject is expected to fail this test; None where it has to pass or be skipped."""
    by_model = BY_MODEL.get(subject.answers, {}).get(subject.family, {})
    return {**EVERYWHERE, **BY_FAMILY[subject.family], **by_model}.get(test)
