"""Classifiers name the task class of a step and say how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from routed_agents.features import Features
from routed_agents.phrases import PhraseTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """What kind of step this is.

    Attributes:
        task_class: a key of the taxonomy.
        confidence: 0 to 1, how sure the classifier is of the class.
        p_strong: 0 to 1, the chance that the step needs the strong tier.
        declared: its author said so, so nothing was guessed.
        evidence: what spoke for it, for a person; may quote content.
    """

    task_class: str
    confidence: float
    p_strong: float
    declared: bool = False
    evidence: tuple[str, ...] = ()


@runtime_checkable
class Classifier(Protocol):
    """Names the class of a step from its features; pure, so that a decision can be replayed."""

    def classify(self, features: Features, /) -> Classification: ...


BASE_STRONG: Final[Mapping[str, int]] = {
    "classification": 3, "extraction": 4, "rag_lookup": 6, "marketing_copy": 8, "code_format": 4, "summarization": 10, "multi_turn": 14,
    "knowledge_qa": 45, "code_generation": 60, "math_reasoning": 65, "debug_refactor": 90, "long_context": 95, "agentic_chain": 92,
    "empathy_escalation": 95,
}  # fmt: skip
"""Percent of each class that needs the strong tier before the text says more: the taxonomy's shares where a source gives one."""

LEXICON: Final[Mapping[str, Sequence[tuple[int, str]]]] = {
    "classification": (
        (6, r"classif\w*|categori[sz]\w*|label(?:s|l?ed|l?ing)?\b|sentiment|triage|which (?:category|class|label|intent)|intent(?:s)? (?:of|is|class)|klassifizier\w*|classe[rz]\b"),
        (5, r"(?:answer|respond|reply|output|return)\W+(?:\w+\W+){0,3}(?:'?yes'? or '?no'?|yes/no|true or false)|is this (?:\w+ ){0,3}(?:spam|positive|negative)|spam or|positive or negative"),
        (4, r"grade(?:r)?\b|binary score|relevan(?:t|ce) (?:or|score)|one of the following|choose (?:one|the (?:best|correct))|pick (?:one|the)|sort (?:\w+ ){0,3}into|route (?:the|this)|does (?:the|this) (?:\w+ ){1,4}(?:entail|contain|mention|imply)"),
    ),
    "extraction": (
        (6, r"extract\w*|named entit\w*|slot[- ]?(?:fill\w*|s\b)|fill (?:in )?the (?:fields|slots|form|schema)|pull out|parse (?:the|this)|extrahier\w*|extrai\w*"),
        (4, r"(?:find|list|identify|return) (?:all|every|the) (?:\w+ ){0,3}(?:names?|dates?|entities|emails?|e-mails?|addresses|amounts?|numbers|keywords|skills|people|organi[sz]ations|locations)|as json|json (?:object|schema|with)|key[- ]value|field:|fields:"),
    ),
    "rag_lookup": (
        (6, r"(?:based (?:only )?on|using(?: only)?|according to|from|given|in) (?:the )?(?:\w+ ){0,3}(?:context|passages?|articles?|documents?|paragraphs?|excerpts?|text|sources?|search results?|knowledge base|faq|help cent(?:er|re))|retrieved"),
        (4, r"faq|help (?:articles?|cent(?:er|re))|opening hours|answer the question (?:above|below)|look up|if (?:the answer|it) is not (?:in|there)|(?:question|context):|cite"),
        (2, r"how (?:long|much) (?:does|do|is|are)|what(?:'s| is| are) (?:your|the) (?:\w+ ){0,3}(?:policy|fee|price|hours|deadline|warranty)|do you (?:offer|ship|accept|have|sell)|can i (?:return|pay|change|cancel|exchange)"),
    ),
    "marketing_copy": (
        (6, r"tagline|slogan|marketing|advert\w*|product descriptions?|ad copy|copywrit\w*|landing page|newsletter|social media|tweet|linkedin post|instagram|headline|promo\w*|call[- ]to[- ]action|blurb|catchy|seo"),
        (3, r"write (?:a|an) (?:\w+ ){0,3}(?:description|caption|ad|post|poem|letter|blog|email|e-mail|invitation|story|review)|describe (?:the|this|a) (?:restaurant|hotel|product)"),
    ),
    "code_format": (
        (7, r"(?:format|reformat) (?:the|this|my) (?:\w+ )?(?:code|file|snippet|function|json|sql)|lint\w*|pep ?8|prettier|eslint|(?:fix|correct) (?:the )?(?:indentation|whitespace|style|formatting|imports)|code style|rename (?:the )?variable|sort (?:the )?imports|line length|black\b|semicolons?|docstrings? to"),
    ),
    "summarization": (
        (7, r"summar(?:y|i[sz]\w*|ies)|tl;dr|tldr|condens\w*|key (?:points|takeaways)|main (?:points?|ideas?)|in (?:one|two|three|a few|\d+) sentences|shorten|recap|digest|abstract of|minutes of|zusammenfass\w*|fasse?\b|résum\w+|resum\w+|まとめ|要約|摘要|总结"),
    ),
    "multi_turn": (
        (4, r"chat(?:bot|ting)?\b|conversation(?:al)?|friendly|small ?talk|companion|assistant that (?:chats|helps)|hi\b|hello|hey\b|thanks|thank you|how are you|good (?:morning|evening)|what about you|nice to"),
        (2, r"i (?:like|love|think|want|would like|am looking|need)\b|do you (?:like|know|think)|yes,? (?:please|i)|no,? (?:thanks|that)|sounds good|great\b|okay\b|sure\b"),
    ),
    "knowledge_qa": (
        (2, r"(?:what|who|why|when|where|which|how|explain|describe|define|tell me|compare)\b"),
        (3, r"explain (?:how|why|what|the)|what (?:is|are|was|were) (?:the|a|an)\b|difference between|history of|who (?:was|is|invented|wrote)|why (?:do|does|did|is|are)|trivia|give (?:me )?(?:some |a few )?(?:examples?|reasons|advice|tips)|what (?:would|should)|was ist|qu'est-ce|qué es|是什么|とは"),
    ),
    "code_generation": (
        (7, r"(?:write|implement|create|generate|build|code|develop|complete) (?:\w+ ){0,4}(?:function|class|program|script|method|module|api|endpoint|query|regex|component|algorithm|app|code|unit tests?|sql|test cases?)|schreibe? eine funktion|écri\w+ une fonction|escrib\w+ una función"),
        (5, r"def \w+\b|class \w+:|import \w+|from \w+ import|public static|func \w+|in (?:python|javascript|typescript|java|rust|golang|c\+\+|sql)\b|your code should|doctest|assert \w+"),
    ),
    "math_reasoning": (
        (6, r"(?:solve|prove|compute|calculate|evaluate|integrate|differentiate|simplify|factor)\b|equation|probability|theorem|step by step|show your (?:work|reasoning)|word problem|chain[- ]of[- ]thought|rechne|berechne"),
        (5, r"how (?:many|much) (?:\w+ ){0,8}(?:left|total|altogether|in all|remain\w*|each|does|did|do|will|would|are there|more|cost|earn|pay|spend|need|have)\b|percent of|per (?:hour|day|week|year)|twice as|half (?:of|as)|times as"),
    ),
    "debug_refactor": (
        (7, r"debug\w*|refactor\w*|traceback|stack ?trace|root cause|fix (?:the|this|a) (?:\w+ ){0,3}(?:bug|issue|error|failure|test|regression|crash)|find (?:the|and fix) (?:\w+ ){0,2}bug|segfault|race condition|memory leak|multi-?file|pull request|regression\b|failing tests?|codebase|repository"),
        (4, r"(?:type|value|key|attribute|index|runtime|assertion|import|name)error\b|exception\b|doesn't work|not working|unexpected (?:behaviou?r|result|output)|bug\b|buggy|steps to reproduce|expected behaviou?r|actual behaviou?r|git (?:diff|blame)|issue (?:description|#?\d+)"),
    ),
    "long_context": (
        (5, r"(?:across|synthesi[sz]e|all|these|multiple|several|following) (?:of )?(?:the )?(?:\w+ ){0,2}(?:documents|reports|papers|transcripts|chapters|contracts|filings)\b|cross-document|literature review|whole (?:book|codebase|archive)"),
    ),
    "agentic_chain": (
        (6, r"you are (?:a|an) (?:\w+[ -]){0,3}agent|multi-?step|(?:use|call|using|access to) (?:\w+ ){0,3}tools?\b|thought:|action(?: input)?:|observation:|react\b|plan(?:ner)?(?:\W+and\W+|-)execut\w*|sub-?tasks?|step-by-step plan|supervisor|orchestrat\w*|delegate|next worker|until (?:the )?(?:task|goal) is|autonomous\w*|workflow"),
        (4, r"make a plan|break (?:\w+ ){0,4}(?:down|into)|research (?:plan|agent|team)|replan|book\w* (?:a |the )?(?:flight|hotel|trip)|(?:update|cancel|modify) (?:the )?(?:\w+ )?(?:reservation|booking|order)s?|execute|operating system|bash|shell|sql database|before taking any action|one tool call at a time"),
    ),
    "empathy_escalation": (
        (7, r"empath\w*|compassion\w*|emotional(?:ly)? support|comfort(?:ing)?\b|complain(?:t|ts|ing)\b|apolog\w*|angry (?:customer|client|user)|upset|distress\w*|griev\w*|bereave\w*|escalat\w* (?:customer|complaint|case|ticket)|de-?escalat\w*|supportive|condolence\w*"),
        (5, r"i (?:feel|felt|am feeling|'m feeling) (?:so |really |very )?(?:\w+)|depress\w*|anxi(?:ous|ety)|lonely|hopeless|broke up|breakup|i can't (?:cope|stop|sleep)|overwhelmed|heartbroken|worst (?:service|experience|place)|never (?:again|coming back)|rude\b|refund now|unacceptable"),
    ),
}  # fmt: skip

OPENING: Final = 240
"""Characters at the start of the system prompt and of the person's words; what stands there says most, and counts twice."""


class RuleClassifier:
    """A first classifier of readable rules: weighted phrases, counted in integers, so every platform gets the same sum.

    The declared class wins. Otherwise each class collects the weights of the phrases found in the *instruction*, those at its
    opening twice; structure only tips the scales.
    """

    name: Final = "rules"
    version: Final = "1"

    def classify(self, features: Features, /) -> Classification:
        """Name the class; see the class's docstring for how."""
        if features.declared is not None:
            base = BASE_STRONG.get(features.declared, 50)
            return Classification(
                task_class=features.declared, confidence=1.0, p_strong=base / 100, declared=True, evidence=(f"declared {features.declared}",)
            )
        scores, found = self._scores(features)
        if not scores:
            return Classification(task_class=self._default(features), confidence=0.3, p_strong=0.5, evidence=("no phrase of any class",))
        best = min(scores, key=lambda key: (-scores[key], key))
        top, total = scores[best], sum(scores.values())
        second = max([score for key, score in scores.items() if key != best], default=0)
        confidence = min(99, 30 + 4 * (top - second) + 2 * min(top, 12))
        weights = {key: score * score for key, score in scores.items()}
        p_strong = sum([BASE_STRONG[key] * weight for key, weight in weights.items()]) * 1000 // sum(weights.values())
        return Classification(
            task_class=best,
            confidence=confidence / 100,
            p_strong=p_strong / 100_000,
            evidence=(f"{best} {top} of {total}", *found[best][:4]),
        )

    @staticmethod
    def _default(features: Features) -> str:
        return "multi_turn" if features.message_count > 2 else "knowledge_qa"

    @staticmethod
    def _scores(features: Features) -> tuple[dict[str, int], dict[str, list[str]]]:
        scores: dict[str, int] = {}
        found: dict[str, list[str]] = {}
        for part in (features.system, features.spoken):
            for key, weight, match in _phrases(part):
                scores[key] = scores.get(key, 0) + weight
                found.setdefault(key, []).append(match)
        tips: dict[str, int] = {}
        if features.tools and "agentic_chain" in scores:
            tips["agentic_chain"] = 3
        if features.output_schema:
            tips |= {"extraction": 2, "classification": 2}
        if features.message_count > 2:
            tips["multi_turn"] = 3
        if features.tokens > 50_000:
            tips["long_context"] = 6
        if features.payload:
            for key in ("rag_lookup", "summarization", "extraction"):
                if key in scores:
                    tips[key] = tips.get(key, 0) + 1
        for key, weight in tips.items():
            scores[key] = scores.get(key, 0) + weight
            found.setdefault(key, []).append("structure")
        return scores, found


def _phrases(text: str) -> list[tuple[str, int, str]]:
    """Each phrase rule once per text: a repeated word says nothing new."""
    hits: dict[tuple[str, int], tuple[int, str]] = {}
    if not text:
        return []
    for rule, start, shown in PHRASES.find(text):
        if rule not in hits:
            hits[rule] = (rule[1] * 2 if start < OPENING else rule[1], shown[:40])
    return [(key, weight, shown) for (key, _), (weight, shown) in hits.items()]


PHRASES: Final = PhraseTable(((key, weight), phrases) for key, rules in LEXICON.items() for weight, phrases in rules)
