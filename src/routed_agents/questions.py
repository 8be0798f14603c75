"""A question is what a small model is asked about a step: its words, the form of the answer, and what came back.

Whatever a question shows of a step is material, not an instruction. It stands between marks that are named after its own content, so that
no text can close them: to do that it would have to hold the digest of itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from routed_agents.steps import field_of, text_of, tool_calls_of

LONGEST_S: Final = 86_400
"""Most seconds that an answer may be waited for: a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a model is asked, in the form any provider can be asked in.

    Attributes:
        name: of the answer; the name of the tool where a provider wants one.
        system: what it is to do, in our words.
        text: what it is to do it with.
        schema: the JSON Schema of the answer, an object.
        max_tokens: most tokens of the answer, thoughts included.
    """

    name: str
    system: str
    text: str
    schema: Mapping[str, Any] = field(hash=False)
    max_tokens: int = 300

    @property
    def key(self) -> str:
        """Names the question by its content: equal questions have equal keys, in any process."""
        content = json.dumps([self.name, self.system, self.text, self.schema], sort_keys=True)
        return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What a model that was asked says about a step; it comes into a decision from outside, like the time.

    Attributes:
        task_class: a key of the taxonomy; empty where the model could not tell.
        p_strong: 0 to 1, how probably a small model does the step worse.
        confidence: 0 to 1, how sure it is of the class.
        trouble: why there is no opinion (`timeout`, `nonsense`, …), where one was asked for.
    """

    task_class: str = ""
    p_strong: float = 1.0
    confidence: float = 0.0
    trouble: str = ""


def shown(name: str, *parts: tuple[str, str]) -> tuple[str, str]:
    """Material as a question shows it, and the mark it stands between.

    Args:
        name: the first part of the mark.
        parts: a heading and a text each; empty texts are left out.
    """
    said = "\n\n".join([f"[{heading}]\n{text.strip()}" for heading, text in parts if text.strip()])
    mark = f"{name}-{hashlib.blake2b(said.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}"
    return mark, f"<{mark}>\n{said}\n</{mark}>"


def clipped(text: str, head: int, tail: int) -> str:
    """Head and tail of a long text with the length of what is left out; a short one whole."""
    if len(text) <= head + tail:
        return text
    return f"{text[:head]}\n[… {len(text) - head - tail} characters left out …]\n{text[-tail:]}"


def answer_in(reply: object, name: str) -> dict[str, Any]:
    """The answer a reply of an SDK or LangChain holds: the arguments of the tool of this name, else its text as JSON.

    Raises:
        ValueError: it holds none.
    """
    choices = field_of(reply, "choices")
    message = field_of(cast("Sequence[object]", choices)[0], "message") if isinstance(choices, Sequence) and choices else reply
    called = next((call.arguments for call in tool_calls_of(message) if call.name == name), None)
    found: object = json.loads(called if called is not None else _unwrapped(text_of(message)))
    if not isinstance(found, dict):
        raise ValueError(f"the answer is a {type(found).__name__}; wanted an object")
    return cast("dict[str, Any]", found)


def _unwrapped(text: str) -> str:
    """The JSON of a text, without the fence some models put round it."""
    stripped = text.strip()
    if not stripped.startswith("```"):
        return stripped
    return stripped.removeprefix("```json").removeprefix("```").removesuffix("```").strip()


def share_of(answer: Mapping[str, Any], name: str) -> float:
    """A whole percentage of an answer, as a share.

    Raises:
        ValueError: it is none.
    """
    value: object = answer.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= HUNDRED:
        raise ValueError(f"{name} is {value!r}; wanted a whole number from 0 to 100")
    return value / HUNDRED


HUNDRED: Final = 100
