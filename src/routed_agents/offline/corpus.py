"""The corpus is written as skeletons; here each grows into steps, the same ones on every machine."""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import Any, Final

from routed_agents.errors import ConfigurationError
from routed_agents.steps import Step
from routed_agents.taxonomy import Taxonomy
from routed_agents.words import words_of

COMMON_RUN: Final = 50
CHOICE: Final = re.compile(r"<<([^<>]*\|[^<>]*)>>")
SLOT: Final = re.compile(r"\{\{([a-z_]+)(#\d)?\}\}")
KEYS: Final = frozenset({"class", "voice", "lang", "system", "ask", "turns", "tools", "tokens", "hard"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """A prompt's shape, with choices (`<<a|b>>`) and slots (`{{article}}`) that are filled for each step made of it.

    Attributes:
        author: who wrote it; a file's name ends with it.
        name: the file and the place in it.
        marked: what is asked, with the material its author wrote into it between `OPEN` and `SHUT`.
        turns: what was said before, as pairs of role and text.
        tokens: the true size, for material of which only head and tail are written down.
        hard: whether a small model would probably fail; None where its author did not say.
    """

    task_class: str
    author: str
    name: str
    voice: str
    lang: str
    system: str | None
    marked: str
    turns: tuple[tuple[str, str], ...]
    tools: tuple[str, ...]
    tokens: int | None
    hard: bool | None

    @property
    def ask(self) -> str:
        """The message that is asked, in plain text; empty where none is."""
        return self.marked.translate(UNMARKED)

    @property
    def text(self) -> str:
        """All of its words, for counting and comparing."""
        return "\n".join([self.system or "", *(text for _, text in self.turns), self.ask])


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A step with its class.

    Attributes:
        marked: the asked message with its material between `OPEN` and `SHUT`; empty where there are none.
    """

    step: Step
    skeleton: Skeleton
    marked: str = ""


OPEN: Final = "\ue000"
SHUT: Final = "\ue001"
WRITTEN: Final = str.maketrans("⟦⟧", OPEN + SHUT)
"""How material that is no slot is marked in a file."""
UNMARKED: Final = str.maketrans("", "", OPEN + SHUT)
ONE_LINE: Final = 0.12
"""Share of the steps whose message lost its line ends on the way, as forms and tables do to them."""
PROSE: Final = 60
"""Characters from which a text's sentences may be put in another order."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Skeletons and what fills their slots.

    Attributes:
        skeletons: all of them.
        slots: the texts of each slot.
        blanks: the slots whose texts are words of the instruction (a topic, a list of labels) and no material.
    """

    skeletons: tuple[Skeleton, ...]
    slots: Mapping[str, Sequence[str]]
    blanks: frozenset[str] = frozenset()

    @classmethod
    def load(cls, folder: str | Path) -> Corpus:
        """Read a folder of `<class>.<author>.toml` files with a folder `slots` in it.

        Raises:
            ConfigurationError: a file cannot be read or a skeleton says something that cannot be meant; names file and place.
        """
        place, known = Path(folder), Taxonomy.default()
        if not place.is_dir():
            raise ConfigurationError(f"no corpus at {place}; run from a checkout, or name its folder")
        slots: dict[str, list[str]] = {}
        blanks: set[str] = set()
        for file in sorted((place / "slots").glob("*.toml")):
            content = _read(file)
            blanks.update(content.get("blank", {}))
            for name, texts in chain.from_iterable(content.get(table, {}).items() for table in ("slot", "blank")):
                slots.setdefault(name, []).extend(texts)
        skeletons: list[Skeleton] = []
        for file in sorted(place.glob("*.toml")):
            author = file.stem.rpartition(".")[2]
            for number, row in enumerate(_read(file).get("skeleton", []), start=1):
                where = f"{file.name} skeleton {number}"
                skeleton = _skeleton(row, author=author, where=where)
                known.row(skeleton.task_class)
                if missing := [name for name, _ in SLOT.findall(skeleton.text) if name not in slots]:
                    raise ConfigurationError(f"{where}: no slot {missing[0]!r}; known: {', '.join(sorted(slots))}")
                skeletons.append(skeleton)
        return cls(tuple(skeletons), slots, frozenset(blanks))

    def near_duplicates(self, *, share: float = 0.6) -> list[tuple[str, str, float]]:
        """Pairs of skeletons that share most of their runs of three words: their names and the shared part (Jaccard)."""
        read = [words_of(each.text) for each in self.skeletons]
        shingles = [{*zip(words, words[1:], words[2:], strict=False)} for words in read]
        holders: dict[tuple[str, str, str], list[int]] = {}
        for number, own in enumerate(shingles):
            for shingle in own:
                holders.setdefault(shingle, []).append(number)
        common: Counter[tuple[int, int]] = Counter()
        for numbers in holders.values():
            if len(numbers) <= COMMON_RUN:  # a run many use is a turn of speech
                common.update(combinations(numbers, 2))
        found: list[tuple[str, str, float]] = []
        for (one, other), shared in common.items():
            jaccard = shared / len(shingles[one] | shingles[other])
            if jaccard >= share:
                found.append((self.skeletons[one].name, self.skeletons[other].name, round(jaccard, 3)))
        return sorted(found)

    def examples(self, *, each: int, seed: int = 0) -> Iterator[Example]:
        """Steps made of every skeleton, `each` of them, in a fixed order.

        Half of them are set into a conversation, given tools, or put below a system prompt that says nothing, as real steps are: the
        class is always that of the last instruction, so none of this may decide it.
        """
        for skeleton in self.skeletons:
            for number in range(each):
                key = f"{seed}:{number}:{skeleton.task_class}:{skeleton.text}"
                dice = random.Random(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big"))
                step, marked = self._grown(skeleton, dice, plain=number == 0)
                yield Example(step=step, skeleton=skeleton, marked=marked)

    def _grown(self, skeleton: Skeleton, dice: random.Random, *, plain: bool) -> tuple[Step, str]:
        drawn: dict[str, str] = {}

        def slot(name: str) -> str:
            text = dice.choice(self.slots[name])
            return text if plain else _reordered(text, dice)

        def marked(text: str) -> str:
            text = CHOICE.sub(lambda found: dice.choice(found[1].split("|")), text)
            return SLOT.sub(lambda found: self._filled(found[1], drawn.setdefault(found[0], slot(found[1]))), text)

        def fill(text: str) -> str:
            return marked(text).translate(UNMARKED)

        system = fill(skeleton.system) if skeleton.system else None
        turns = [{"role": role, "content": fill(text)} for role, text in skeleton.turns]
        ask = marked(skeleton.marked)
        if not plain and dice.random() < ONE_LINE:
            ask = " ".join(ask.split())
        messages = [*turns, *([{"role": "user", "content": ask.translate(UNMARKED)}] if ask else [])]
        tools = skeleton.tools
        tokens = skeleton.tokens
        if not plain:
            system = system if system else self._empty_system(dice)
            messages = [*self._earlier(skeleton, dice), *messages]
            tools = self._tools(skeleton, dice)
            if tokens is None and dice.random() < 0.06:
                tokens = dice.randint(5_000, 45_000)
        step = Step.from_messages(messages, system=system, tools=tools, tokens=tokens, id=skeleton.name)
        return step, ask if OPEN in ask else ""

    def _filled(self, name: str, text: str) -> str:
        return text if name in self.blanks else f"{OPEN}{text}{SHUT}"

    @staticmethod
    def _empty_system(dice: random.Random) -> str | None:
        return dice.choice(NEUTRAL) if dice.random() < 0.15 else None

    def _earlier(self, skeleton: Skeleton, dice: random.Random) -> list[dict[str, str]]:
        """Turns about something else, or of the same kind of work, before this step's own."""
        if skeleton.task_class == "multi_turn" or len(skeleton.turns) > 1 or dice.random() > 0.3:
            return []
        found: list[dict[str, str]] = []
        same = dice.random() < 0.3
        pool = [
            other for other in self.skeletons if (other.task_class == skeleton.task_class) == same and (same or other.task_class in CHATTY)
        ]
        for _ in range(dice.randint(1, 3)):
            other = dice.choice(pool or [skeleton])
            said = [text for role, text in (*other.turns, ("user", other.ask)) if role == "user" and text]
            heard = [text for role, text in other.turns if role == "assistant"] or list(ACKNOWLEDGED)
            found += [
                {"role": "user", "content": self._draw(dice.choice(said or ["ok"]), dice)},
                {"role": "assistant", "content": self._draw(dice.choice(heard), dice)},
            ]
        return found

    def _draw(self, text: str, dice: random.Random) -> str:
        text = CHOICE.sub(lambda found: dice.choice(found[1].split("|")), text)
        return SLOT.sub(lambda found: dice.choice(self.slots[found[1]]), text)[:1500]

    @staticmethod
    def _tools(skeleton: Skeleton, dice: random.Random) -> tuple[str, ...]:
        """Real cheap steps bind tools, for structured output or because every node gets them all; some agent steps name none."""
        if skeleton.tools:
            share = dice.random()
            return () if share < 0.25 else skeleton.tools if share < 0.7 else tuple(dice.sample(skeleton.tools, 1))
        if dice.random() > 0.3:
            return ()
        own = STRUCTURED.get(skeleton.task_class, ())
        if own and dice.random() < 0.6:
            return (dice.choice(own),)
        return tuple(dice.sample(TOOLBOX, dice.randint(1, 7)))


CHATTY: Final = frozenset({"multi_turn", "knowledge_qa"})
NEUTRAL: Final = (
    "You are a helpful assistant.",
    "You are a helpful, respectful and honest assistant.",
    "You are an AI assistant.",
    "You are ChatBot, a large language model. Answer as well as you can.",
    "Follow the user's instructions carefully.",
    "Du bist ein hilfreicher Assistent.",
    "Tu es un assistant utile.",
)
"""System prompts that say nothing about the work."""
ACKNOWLEDGED: Final = ("Sure, here you go.", "Done. Anything else?", "Here it is.", "Of course! I hope that helps.", "OK.", "Okay, noted.")
STRUCTURED: Final[Mapping[str, Sequence[str]]] = {
    "classification": ("Verdict", "assign_category", "RouteChoice", "score_answer", "Decision", "pick_label"),
    "extraction": ("Record", "emit_fields", "ContactCard", "save_entities", "FormValues", "parsed_output"),
    "rag_lookup": ("CitedAnswer", "search_docs", "answer_with_source"),
    "summarization": ("SummaryOut", "write_summary", "KeyPoints"),
    "marketing_copy": ("AdCopy", "publish_post", "CopyVariants"),
    "knowledge_qa": ("FinalAnswer", "web_lookup"),
    "math_reasoning": ("calculator", "FinalAnswer", "run_python"),
    "code_generation": ("run_python", "write_file", "CodeBlock"),
    "code_format": ("write_file", "FormattedCode", "apply_edit"),
    "debug_refactor": ("apply_patch", "run_tests", "read_file"),
    "empathy_escalation": ("create_ticket", "handoff_to_human", "send_reply"),
}
TOOLBOX: Final = (
    "search_web", "read_page", "calculator", "get_weather", "send_email", "lookup_order", "sql_query", "run_python", "list_files",
    "create_event", "translate_text", "handoff_to_human", "save_note", "FinalAnswer", "get_customer", "vector_search", "Verdict", "Record",
)  # fmt: skip


_MARKED: Final = re.compile(f"{OPEN}[^{OPEN}{SHUT}]*{SHUT}")
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")


def _reordered(text: str, dice: random.Random) -> str:
    """Prose with its sentences in another order, half of the time: which of them comes first or last must not matter."""
    if len(text) < PROSE or "\n" in text or dice.random() < 0.5 or len(sentences := _SENTENCE.split(text)) < 3:
        return text
    dice.shuffle(sentences)
    return " ".join(sentences)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file.name} cannot be read: {error}; wanted TOML in UTF-8") from None


def _skeleton(row: Mapping[str, Any], *, author: str, where: str) -> Skeleton:
    if unknown := set(row) - KEYS:
        raise ConfigurationError(f"{where}: unknown key {', '.join(sorted(unknown))}; known: {', '.join(sorted(KEYS))}")
    turns = tuple((str(role), str(text)) for role, text in row.get("turns", ()))
    marked = str(row.get("ask", "")).translate(WRITTEN)
    left = _MARKED.sub("", marked)
    if OPEN in left or SHUT in left:
        raise ConfigurationError(f"{where}: a mark of material stands alone or inside another; wanted pairs of ⟦ and ⟧")
    if not marked and (not turns or turns[-1][0] != "tool"):
        raise ConfigurationError(f"{where}: nothing is asked; wanted `ask`, or turns that end with a tool result")
    return Skeleton(
        task_class=str(row.get("class")),
        author=author,
        name=where,
        voice=str(row.get("voice", "")),
        lang=str(row.get("lang", "en")),
        system=row.get("system") or None,
        marked=marked,
        turns=turns,
        tools=tuple(row.get("tools", ())),
        tokens=row.get("tokens"),
        hard=row.get("hard"),
    )
