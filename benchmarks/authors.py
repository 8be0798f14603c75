"""Measures the classifier on authors it has never read: groups of the corpus's authors are left out of the training in turn."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from routed_agents.offline.corpus import Corpus
from routed_agents.offline.neighbours import read
from routed_agents.offline.segmenting import EACH as SEGMENT_EACH
from routed_agents.offline.segmenting import segment_weights
from routed_agents.offline.training import Counted, clusters_of, count, fit, kind_of, needs_of
from routed_agents.taxonomy import Taxonomy

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

CORPUS: Final = Path(__file__).parents[1] / "corpus"
GROUPS: Final = 4
EACH: Final = 3
"""Steps grown from each skeleton."""
NEIGHBOURLY: Final = frozenset({"near", "beside"})
"""Kinds of feature that stand for neighbourhoods."""
KEPT: Final = 0.95
"""Share of the steps that must go strong which a bound on `p_strong` has to keep there."""
CHEAP: Final = range(6)
STRONG: Final = range(8, 14)
"""Places in the taxonomy: classes 1 to 6, and 9 to 14; those between are cheap in part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """How a set of steps by unread authors was understood.

    Attributes:
        right: share of the steps whose class was named.
        kept_cheap: share of the cheap steps below the bound that keeps `KEPT` of the strong ones strong.
    """

    title: str
    steps: int
    right: float
    kept_cheap: float


def run(folder: Path = CORPUS, *, groups: int = GROUPS, each: int = EACH) -> tuple[list[Left], list[Left]]:
    """Train without each group of authors and ask about its steps: with neighbourhoods, and without.

    What tells instructions from material is learnt from all authors, as is the list of words that have neighbours; only the weights of
    the classes are of the others alone.

    Args:
        folder: the corpus.
        groups: how many groups the authors are parted into.
        each: steps grown from each skeleton.
    """
    corpus, order = Corpus.load(folder), [row.key for row in Taxonomy.default()]
    clusters = clusters_of(folder / "words" / "clusters.toml")
    neighbours = read(folder / "words" / "neighbours.toml")
    segments = segment_weights(corpus.examples(each=SEGMENT_EACH), clusters, neighbours)
    counted = count(corpus.examples(each=each), clusters, neighbours, order, segments)
    rows = [{name: value for name, value in row.items() if kind_of(name) not in NEIGHBOURLY} for row in counted.rows]
    plain = replace(counted, rows=rows)
    sets = _sets(counted, {skeleton.name: skeleton.lang for skeleton in corpus.skeletons})
    return _asked(counted, order, sets, groups), _asked(plain, order, sets, groups)


def _sets(counted: Counted, languages: Mapping[str, str]) -> dict[str, Array]:
    """Which of the steps are told apart, by title."""
    import numpy as np

    english = np.array([languages[name] == "en" for name in counted.skeletons])
    contrast = np.array([name.startswith("contrast.") for name in counted.skeletons])
    return {
        "all": np.ones(len(english), dtype=bool),
        "English": english,
        "other languages": ~english,
        "laconic instructions over one payload": contrast,
        "all others": ~contrast,
    }


def _asked(counted: Counted, order: Sequence[str], sets: Mapping[str, Array], groups: int) -> list[Left]:
    import numpy as np

    group = np.array([_group(author, groups) for author in counted.authors])
    truth, told, need = np.array(counted.classes), np.zeros(len(group), dtype=int), np.zeros(len(group))
    for number in range(groups):
        test = np.flatnonzero(group == number)
        part = fit(counted, np.flatnonzero(group != number).tolist(), classes=len(order))
        logits = part.logits([counted.rows[place] for place in test])
        told[test], need[test] = logits[:, :-1].argmax(axis=1), needs_of(logits, order)
    return [_left(title, chosen, truth, told, need) for title, chosen in sets.items() if chosen.any()]


def main(console: Console) -> None:
    """Print both, with and without neighbourhoods."""
    caption = f"{GROUPS} groups of authors in turn; no guards; cheap steps kept cheap while {KEPT:.0%} of the strong ones stay strong"
    table = Table(title="authors left out of the training", caption=caption)
    table.add_column("steps")
    for column in ("count", "class right", "cheap kept", "right, no neighbours", "cheap, no neighbours"):
        table.add_column(column, justify="right")
    for left, plain in zip(*run(), strict=True):
        shares = (left.right, left.kept_cheap, plain.right, plain.kept_cheap)
        table.add_row(left.title, f"{left.steps:,}", *(f"{share:.3f}" for share in shares))
    console.print(table)


def _group(author: str, groups: int) -> int:
    return hashlib.blake2b(author.encode(), digest_size=4).digest()[0] % groups


def _left(title: str, chosen: Array, truth: Array, told: Array, need: Array) -> Left:
    import numpy as np

    strong = need[chosen & np.isin(truth, STRONG)]
    cheap = need[chosen & np.isin(truth, CHEAP)]
    bound = np.sort(strong)[int((1 - KEPT) * len(strong))] if len(strong) else 1.0
    return Left(
        title=title,
        steps=int(chosen.sum()),
        right=float((told[chosen] == truth[chosen]).mean()),
        kept_cheap=float((cheap < bound).mean()) if len(cheap) else 1.0,
    )
