"""Training fits the classifier's weights to the corpus; the same corpus gives the same bytes."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportOptionalSubscript=false
# scipy's sparse matrices carry no types

from __future__ import annotations

import hashlib
import math
import sys
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from routed_agents.classify import NEED
from routed_agents.errors import ConfigurationError
from routed_agents.features import extract
from routed_agents.linear import LEADS, NEAR, NEIGHBOURHOOD, SCALE, SHARED, STEM, dump, names_of
from routed_agents.offline import echoing, segmenting, stacking
from routed_agents.offline.corpus import Corpus, Example
from routed_agents.offline.descent import descend, logistic, met
from routed_agents.offline.neighbours import read
from routed_agents.offline.segmenting import segment_weights
from routed_agents.taxonomy import Taxonomy
from routed_agents.told import Telling
from routed_agents.words import words_of
from routed_agents.zones import BULK_ZONES, ECHOES, INSTRUCTION_ZONES, zones_of

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_matrix

    from routed_agents.offline.descent import Array

    Marks = np.ndarray[Any, np.dtype[np.bool_]]

EACH: Final = 6
"""Steps grown from each skeleton."""
PENALTY: Final = 2e-5
"""L2 on the weights, per unit of sample weight."""
ROUNDS: Final = 200
KEPT: Final = 0.5
"""Chance of each of a step's features, save those of its shape, to be seen in a round: half of the words have to do, so none carries a
class alone (dropout, Srivastava et al. 2014). Weighing whole steps with `KEPT` afterwards makes up for it."""
DRAWS: Final = 16
"""Drawings of what is seen, taken in turn."""
SAFE: Final = 1.5
"""A drawing may hold that much more of a rare feature than its share."""
HARD_PENALTY: Final = 8e-4
"""L2 on the weights of hardness, of which few skeletons tell."""
FOLDS: Final = 4
SEEN_IN: Final = {"word": 4, "pair": 5, "lead": 4, "beside": 5, "bulk": 14, "stem": 5}
"""Skeletons a feature must occur in; what stands in fewer says more about its author than about the class."""
STRENGTH: Final = {"word": 0.7, "pair": 1.0, "bulk": 1.2, "stem": 1.5, "cluster": 0.5, "near": 0.7, "beside": 0.7, "lead": 0.7, "sign": 1.0}
"""How freely each kind of feature may take weight."""
UNFOLDED: Final = {"near": ("~", NEAR), "beside": ("~", NEAR), "lead": ("^", LEADS)}
"""Kinds of feature that go into the file as they are: what parts their names, and the prefix of the tables they go to."""
POWERS: Final = 20 * SCALE
MOST: Final = 127
LEAST: Final = 4
"""Weights of words below an eighth of a logit are left out of the file: they say little and have to be loaded."""
LEAST_UNFOLDED: Final = 3
"""The same for the kinds of feature that go into the file as they are; a step has more of them."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Examples as rows of feature values."""

    rows: list[dict[str, float]]
    echoes: list[tuple[tuple[str, str], ...]]
    classes: list[int]
    hard: list[bool | None]
    skeletons: list[str]
    authors: list[str]


def count(
    examples: Iterable[Example],
    clusters: Mapping[str, Sequence[str]],
    neighbours: Mapping[str, int],
    order: Sequence[str],
    segments: Telling,
) -> Counted:
    """Read each step as the classifier will."""
    counted = Counted(rows=[], echoes=[], classes=[], hard=[], skeletons=[], authors=[])
    for example in examples:
        row: dict[str, float] = defaultdict(float)
        zones = zones_of(extract(example.step), segments)
        for name, value in names_of(zones, clusters, neighbours):
            row[sys.intern(name)] += value  # a name stands in thousands of rows
        counted.rows.append(dict(row))
        counted.echoes.append(tuple([(name, sys.intern(text)) for name, text in zones.echoes]))
        counted.classes.append(order.index(example.skeleton.task_class))
        counted.hard.append(example.skeleton.hard)
        counted.skeletons.append(example.skeleton.name)
        counted.authors.append(example.skeleton.author)
    return counted


def kind_of(name: str) -> str:
    """What kind of feature a name stands for."""
    zone, bar, rest = name.partition("|")
    if not bar:
        return "lead" if "^" in name else "cluster" if "@" in name else "beside" if name.startswith("pairs~") else "near"
    if zone in {"sign", "stems"}:
        return "sign" if zone == "sign" else "stem"
    if zone in BULK_ZONES:
        return "bulk"
    return "pair" if " " in rest else "word"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Weights before rounding: a row for each feature, a column for each class and one for hardness."""

    names: list[str]
    weights: Array

    def logits(self, rows: Sequence[Mapping[str, float]]) -> Array:
        """The logits of steps, hardness last."""
        import numpy as np

        index = {name: place for place, name in enumerate(self.names)}
        out = np.zeros((len(rows), self.weights.shape[1]))
        for number, row in enumerate(rows):
            places = [index[name] for name in row if name in index]
            values = np.array([row[name] for name in row if name in index])
            out[number] = values @ self.weights[places]
        return out


def fit(counted: Counted, keep: Sequence[int], *, classes: int, rounds: int = ROUNDS, penalty: float = PENALTY) -> Fitted:
    """Fit a softmax over the classes, and a logistic for hardness, on half of what is seen at a time.

    Args:
        counted: all examples.
        keep: which of them to learn from.
        classes: how many there are.
        rounds: passes over all of them, each with another half of their features.
        penalty: L2, see `PENALTY`.
    """
    import numpy as np

    names = _vocabulary(counted, keep)
    strength = np.array([STRENGTH[kind_of(name)] for name in names])
    scaled = _matrix(counted, keep, names).multiply(strength[None, :]).tocsr()
    always = np.array([name.startswith("sign|") for name in names])
    weights = _thinned(scaled, always, _targets(counted, keep, classes), _sample_weights(counted, keep), _softmax, penalty, rounds)
    known = [place for place, number in enumerate(keep) if counted.hard[number] is not None]
    hard = np.array([[1.0 if counted.hard[keep[place]] else 0.0] for place in known])
    hardness = _thinned(scaled[known], always, hard, np.full(len(known), 1.0 / max(len(known), 1)), logistic, HARD_PENALTY, rounds)
    return Fitted(names=names, weights=np.column_stack([weights, hardness]) * strength[:, None] * KEPT)


def _thinned(
    matrix: csr_matrix, always: Marks, target: Array, share: Array, guess: Callable[[Array], Array], penalty: float, rounds: int
) -> Array:
    """Weights that tell each row's target from half of its features, another half in each round.

    Args:
        matrix: a row for each step.
        always: which features are never left out.
        target: what the guess should be, a row for each step.
        share: how much each row counts; together 1.
        guess: makes shares of logits.
        penalty: see `PENALTY`.
        rounds: steps of the descent.
    """
    import numpy as np

    draws = [_seen(matrix, always, number) for number in range(min(DRAWS, rounds))]
    curvature = (met(matrix, share) * np.where(always, KEPT, KEPT**2) / 2)[:, None] + penalty

    def slope(weights: Array, number: int) -> Array:
        seen = draws[number % len(draws)]
        return seen.T @ ((guess(seen @ weights) - target) * share[:, None]) + penalty * weights

    return descend(slope, np.zeros((matrix.shape[1], target.shape[1])), SAFE * curvature, rounds)


def _seen(matrix: csr_matrix, always: Marks, number: int) -> csr_matrix:
    """The matrix with about `KEPT` of its entries; the bit generator's stream is the same everywhere."""
    import numpy as np
    from scipy.sparse import csr_matrix

    kept = (np.random.PCG64(number).random_raw(matrix.nnz) < np.uint64(int(KEPT * 2**64))) | always[matrix.indices]
    starts = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return csr_matrix((matrix.data[kept], matrix.indices[kept], starts), shape=matrix.shape)


def _targets(counted: Counted, keep: Sequence[int], classes: int) -> Array:
    import numpy as np

    target = np.zeros((len(keep), classes))
    target[np.arange(len(keep)), [counted.classes[number] for number in keep]] = 1.0
    return target


def _stacked(fitted: Fitted, added: Array) -> Fitted:
    """The same with each zone weighed anew; hardness stays as it is."""
    import numpy as np

    classes = stacking.folded(fitted.names, fitted.weights[:, :-1], added)
    return Fitted(names=fitted.names, weights=np.column_stack([classes, fitted.weights[:, -1]]))


def _right(logits: Array, counted: Counted, keep: Sequence[int]) -> float:
    """Share of steps whose class the logits name, hardness last."""
    import numpy as np

    return float(np.mean(logits[:, :-1].argmax(axis=1) == np.array([counted.classes[number] for number in keep])))


def _softmax(logits: Array) -> Array:
    import numpy as np

    parts = np.exp(logits - logits.max(axis=1, keepdims=True))
    return parts / parts.sum(axis=1, keepdims=True)


def _vocabulary(counted: Counted, keep: Sequence[int]) -> list[str]:
    seen: dict[str, set[str]] = defaultdict(set)
    for number in keep:
        for name in counted.rows[number]:
            seen[name].add(counted.skeletons[number])
    return sorted(name for name, where in seen.items() if len(where) >= SEEN_IN.get(kind_of(name), 1))


def _matrix(counted: Counted, keep: Sequence[int], names: Sequence[str]) -> csr_matrix:
    import numpy as np
    from scipy.sparse import csr_matrix

    index = {name: place for place, name in enumerate(names)}
    data: list[float] = []
    places: list[int] = []
    starts = [0]
    for number in keep:
        row = counted.rows[number]
        for name in sorted(row):
            if (place := index.get(name)) is not None:
                places.append(place)
                data.append(row[name])
        starts.append(len(data))
    return csr_matrix((np.array(data), np.array(places, dtype=np.int32), np.array(starts)), shape=(len(keep), len(names)))


def _sample_weights(counted: Counted, keep: Sequence[int]) -> Array:
    """Every class weighs the same, and every skeleton of a class."""
    import numpy as np

    by_skeleton = Counter(counted.skeletons[number] for number in keep)
    by_class: Counter[int] = Counter()
    for _, place in {(counted.skeletons[number], counted.classes[number]) for number in keep}:
        by_class[place] += 1
    shares = [1.0 / by_skeleton[counted.skeletons[number]] / by_class[counted.classes[number]] for number in keep]
    return np.array(shares) / len(by_class)


# ---- from weights to a file -------------------------------------------------------------------------------------------


def compiled(fitted: Fitted, clusters: Mapping[str, Sequence[str]]) -> dict[str, dict[str, list[int]]]:
    """Weights by zone and word as whole numbers, clusters and stems folded into the words they belong to."""
    import numpy as np

    index = {name: fitted.weights[place] for place, name in enumerate(fitted.names)}
    width = fitted.weights.shape[1]
    zero = np.zeros(width)
    zones: dict[str, set[str]] = defaultdict(set)
    clustered: dict[str, dict[str, Array]] = defaultdict(dict)
    tables: dict[str, dict[str, list[int]]] = {}
    for name in fitted.names:
        zone, bar, rest = name.partition("|")
        if bar:
            zones[zone].add(rest)
        elif (kind := kind_of(name)) in UNFOLDED:
            mark, prefix = UNFOLDED[kind]
            zone, _, rest = name.partition(mark)
            whole = _whole(index[name])
            if max(map(abs, whole)) >= LEAST_UNFOLDED:
                tables.setdefault(f"{prefix} {zone}", {})[rest] = whole
        else:
            zone, _, cluster = name.partition("@")
            clustered[zone][cluster] = index[name]
    for zone, own in clustered.items():
        zones[zone] |= {word for word, names in clusters.items() if any(each in own for each in names)}
    for zone, words in zones.items():
        table: dict[str, list[int]] = {}
        for word in words:
            row = index.get(f"{zone}|{word}", zero) + sum((clustered[zone].get(each, zero) for each in clusters.get(word, ())), zero)
            if zone == SHARED and " " not in word and len(word) > STEM:
                row = row + index.get(f"stems|{word[:STEM]}", zero)
            whole = _whole(row)
            if max(map(abs, whole)) >= LEAST or (zone == SHARED and " " not in word) or (zone, word) == ("sign", "bias"):
                table[word] = whole
        tables[zone] = table
    for zone in INSTRUCTION_ZONES:  # who looks for a pair asks the shared table first
        for pair in tables.get(zone, ()):
            if " " in pair:
                tables[SHARED].setdefault(pair, [0] * width)
    return tables


def weighing(neighbours: Mapping[str, int], tables: Mapping[str, Mapping[str, object]], segments: Iterable[str]) -> dict[str, int]:
    """The words whose neighbourhoods have a weight anywhere.

    Args:
        neighbours: the neighbourhood of each word.
        tables: weights by table and name, as `compiled` gives them.
        segments: names that weigh in telling instructions from material.
    """
    used = {place for table, names in tables.items() if table.startswith(NEAR) for name in names for place in name.split()}
    used.update([name[1:] for table, names in tables.items() if table.startswith(LEADS) for name in names if name[0] == NEIGHBOURHOOD])
    used.update([place for name in segments for _, mark, place in [name.rpartition("~")] if mark])
    return {word: place for word, place in neighbours.items() if str(place) in used}


def _whole(row: Array) -> list[int]:
    import numpy as np

    return [int(number) for number in np.clip(np.rint(row * SCALE), -MOST, MOST)]


def powers(temperature: float) -> list[int]:
    """The softmax table: e to the minus n/32/T, in parts of 2**30."""
    return [int(math.exp(-number / SCALE / temperature) * 2**30) for number in range(POWERS)]


def temperature_of(logits: Array, truth: Sequence[int], weights: Array) -> float:
    """The temperature that makes the held-out probabilities honest: the least log loss on a fixed grid."""
    import numpy as np

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        logs = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return float(-(weights * logs[np.arange(len(truth)), list(truth)]).sum())

    return min((round(0.4 + 0.05 * step, 2) for step in range(60)), key=loss)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training gave."""

    data: bytes
    facts: Mapping[str, Any]


def train(
    folder: str | Path,
    clusters: Mapping[str, Sequence[str]],
    neighbours: Mapping[str, int],
    *,
    each: int = EACH,
    say: Callable[[str], None] = print,
) -> Trained:
    """Fit, calibrate on held-out skeletons, round and pack.

    Args:
        folder: the corpus.
        clusters: for each word, the hand-made clusters it is in.
        neighbours: for each word, its neighbourhood.
        each: steps grown from each skeleton.
        say: told how far it is.

    Raises:
        ConfigurationError: the corpus cannot be read.
    """
    import numpy as np

    corpus = Corpus.load(folder)
    order = [row.key for row in Taxonomy.default()]
    say(f"{len(corpus.skeletons)} skeletons by {len({each.author for each in corpus.skeletons})} authors")
    segments = segment_weights(corpus.examples(each=segmenting.EACH), clusters, neighbours)
    say(f"{len(segments.own)} words and forms tell instructions from material")
    counted = count(corpus.examples(each=each), clusters, neighbours, order, segments)
    everything, classes = list(range(len(counted.rows))), len(order)
    folds = folds_of(counted.authors)
    said = np.zeros((len(everything), len(stacking.ZONES), classes + 1))
    parts: list[tuple[list[int], Fitted]] = []
    for fold in range(FOLDS):
        learn = [number for number in everything if folds[number] != fold]
        test = [number for number in everything if folds[number] == fold]
        part = fit(counted, learn, classes=classes)
        parts.append((test, part))
        said[test] = stacking.by_zone(_matrix(counted, test, part.names), part.names, part.weights)
        say(f"fold {fold + 1} of {FOLDS}: {_right(said[test].sum(axis=1), counted, test):.3f} of the classes right of authors left out")
    weights, target = _sample_weights(counted, everything), _targets(counted, everything, classes)
    added = stacking.learnt(said[:, :, :-1], target, weights, _softmax)
    held = np.column_stack([stacking.logits_of(said[:, :, :-1], added), said[:, :, -1].sum(axis=1)])
    say(f"each zone weighed anew: {_right(held, counted, everything):.3f}")
    echoes = np.zeros((len(everything), len(ECHOES), classes + 1))
    for test, part in parts:
        anew = _stacked(part, added)
        echoes[test] = echoing.said_by([counted.echoes[number] for number in test], anew.names, anew.weights, clusters, neighbours)
    loudness = echoing.loudness(echoes[:, :, :-1], held[:, :-1], target, weights, _softmax)
    held += echoing.echoed(echoes, loudness)
    temperature = temperature_of(held[:, :-1], counted.classes, weights)
    say(f"earlier messages heard: {_right(held, counted, everything):.3f}; temperature {temperature}; loudness {loudness}")
    fitted = _stacked(fit(counted, everything, classes=classes), added)
    say(f"{len(fitted.names)} features")
    facts: dict[str, Any] = {
        "corpus": digest_of(folder),
        "skeletons": len(corpus.skeletons),
        "examples": len(everything),
        "temperature": temperature,
        "spread": _spread(held / temperature, counted.classes, order),
    }
    tables = compiled(fitted, clusters)
    data = dump(
        classes=order,
        weights={**tables, "segments": {name: [weight] for name, weight in segments.own.items()}},
        neighbours=weighing(neighbours, tables, segments.own),
        loudness=loudness,
        powers=powers(temperature),
        facts=facts,
    )
    return Trained(data=data, facts=facts)


def needs_of(logits: Array, order: Sequence[str]) -> Array:
    """p_strong of steps, as the classifier computes it and before it rounds.

    Args:
        logits: a row for each step, a column for each class and one for hardness.
        order: the classes of the columns.
    """
    import numpy as np

    shares = np.exp(logits[:, :-1] - logits[:, :-1].max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    hard = 1.0 / (1.0 + np.exp(-logits[:, -1]))
    always = np.array([NEED.get(key, (0, 0))[0] / 100 for key in order])
    if_hard = np.array([NEED.get(key, (0, 0))[1] / 100 for key in order])
    return shares @ always + (shares @ if_hard) * hard


def _spread(logits: Array, truth: Sequence[int], order: Sequence[str]) -> dict[str, list[float]]:
    """For the classes that are cheap in part: the percentiles of p_strong over their held-out steps that were recognised."""
    import numpy as np

    need, if_hard = needs_of(logits, order), [NEED.get(key, (0, 0))[1] for key in order]
    told, true = logits[:, :-1].argmax(axis=1), np.array(truth)
    found: dict[str, list[float]] = {}
    for place, key in enumerate(order):
        values = need[(told == place) & (true == place)]
        if if_hard[place] and len(values):
            found[key] = [round(float(value), 4) for value in np.percentile(values, range(101))]
    return found


def digest_of(folder: str | Path) -> str:
    """Names a corpus by its files."""
    total = hashlib.blake2b(digest_size=8)
    for file in sorted(Path(folder).rglob("*.toml")):
        total.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def folds_of(authors: Sequence[str]) -> list[int]:
    """The fold of each step: authors are dealt out whole, the most diligent first, each to the fold that has least."""
    steps = Counter(authors)
    if len(steps) < FOLDS:
        raise ConfigurationError(f"the corpus has {len(steps)} authors; training leaves a group of them out in turn and needs {FOLDS}")
    sizes, found = [0] * FOLDS, dict[str, int]()
    for author, number in sorted(steps.items(), key=lambda item: (-item[1], item[0])):
        fold = sizes.index(min(sizes))
        found[author] = fold
        sizes[fold] += number
    return [found[author] for author in authors]


def clusters_of(file: str | Path) -> dict[str, tuple[str, ...]]:
    """Read a file of word clusters: for each word, the clusters it is in."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, line in tomllib.loads(Path(file).read_text(encoding="utf-8"))["cluster"].items():
        for word in dict.fromkeys(words_of(line)):
            found[word].append(name)
    return {word: tuple(names) for word, names in found.items()}


def main() -> None:
    """Train from a checkout's corpus and write the weights into the package: `python -m routed_agents.offline.training CORPUS WEIGHTS`."""
    if len(sys.argv) != 3:
        sys.exit("usage: python -m routed_agents.offline.training CORPUS WEIGHTS")
    corpus, weights = map(Path, sys.argv[1:])
    try:
        trained = train(corpus, clusters_of(corpus / "words" / "clusters.toml"), read(corpus / "words" / "neighbours.toml"))
    except ConfigurationError as error:
        sys.exit(str(error))
    weights.write_bytes(trained.data)


if __name__ == "__main__":
    main()
