"""Whether the code of today still answers golden requests as they were answered: to the bit, row by row.

A request goes the way of an answer: it is read, its inputs are computed, scored, made an answer. What is the first to
be another on that way is told of the request, since the rest follows from it. What does not follow from it is told
beside it, so that a loud change hides no quiet one: the rules, the simple model on the stored inputs, the tier that is
fallen to, the views on stored facts, post-processing of stored scores. The stored weights answer, so only code can have
moved: the domain's, or the platform's.

Where something else computes than when it was stored (another Polars, another processor), numbers may differ in their
last bits: they count as equal within `rescored.tolerance`, relative above 1, and that is told. The prediction of a
regression is its score, so it passes within that too. A class and `needs_review` never do.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError, DeclarationError
from mlplatform.monitoring.behaviour.rescored import tolerance
from mlplatform.provenance.computing import computing
from mlplatform.reproducibility.golden.answers import Answered, Before, answered, probed, read_bodies
from mlplatform.reproducibility.golden.golden import Change, Golden, GoldenView, instant_of
from mlplatform.reproducibility.golden.views import Owned, owned_views, stored

_other_ways = {"simple_model": " of the simple model", "rules": " of the rules"}
_tier_after = {
    "cache": "with an earlier answer in the cache",
    "features": "without the model",
    "request": "without features",
}
_answer_order = ("probability", "prediction", "confidence", "needs_review")


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What is another, of one request or of no request in particular."""

    request_id: str
    """Empty: of a view, or of post-processing."""

    what: str
    """`request`, `feature NAME`, `score`, `probability`, `prediction`, `needs_review`, `tier` and so on."""

    detail: str
    """What it was, and what it is now."""

    difference: float = 0.0
    """How far two scores or probabilities are apart: this, or what follows from it."""

    answer: bool = False
    """Whether an answer to a request moved: this, or what follows from it."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of answering a golden folder again."""

    folder: str
    model: str
    manifest: str
    rows: int
    moved: tuple[Moved, ...]
    """What moved of each row and follows from nothing else that did; before them views and post-processing."""

    notes: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def rows_moved(self) -> int:
        """Requests of which something moved."""
        return len({each.request_id for each in self.moved if each.request_id})

    @property
    def rows_answered_otherwise(self) -> int:
        """Requests to which an answer moved, and not an input alone."""
        return len({each.request_id for each in self.moved if each.request_id and each.answer})

    @property
    def largest(self) -> float:
        """Largest difference of two scores or probabilities."""
        return max((each.difference for each in self.moved), default=0.0)

    def summary(self) -> tuple[str, ...]:
        """What moved, one line for each kind, with how many rows and an example."""
        kinds = Counter(each.what for each in self.moved)
        firsts = {each.what: each for each in reversed(self.moved)}
        told = []
        for what, rows in kinds.items():
            first = firsts[what]
            which = f"{rows} of {self.rows} requests, such as {first.request_id}: " if first.request_id else ""
            told.append(f"{what}: {which}{first.detail}")
        return tuple(told)


def check(golden: Golden, domain: Domain) -> Checked:
    """Answer golden requests again, and compare.

    Parameters
    ----------
    domain : as it is registered now

    Raises
    ------
    DeclarationError
        It declares no such model any more.
    """
    model = domain.model(golden.model)
    judge = _Judge(golden)
    views = owned_views(domain, model)
    moved = [*_views(golden, views, judge), *_probes(golden, probed(model, _probe_scores(golden)))]
    read = read_bodies(
        domain,
        [each["request"] for each in golden.requests],
        [instant_of(each["at"]) for each in golden.requests],
    )
    ids = [each["id"] for each in golden.requests]
    inputs, features, answers = golden.inputs, golden.features, golden.answers
    before = Before(features=features[read.kept], model=[answers[place]["model"] for place in read.kept])
    now = answered(domain, model, golden.weights, read.requests, inputs[read.kept], before)
    of_row = {place: row for row, place in enumerate(read.kept)}
    for place, name in enumerate(ids):
        if place in read.refused:
            told = f"it is refused now: {read.refused[place]}"
            moved.append(Moved(request_id=name, what="request", detail=told, answer=True))
            continue
        row = of_row[place]
        found = [
            *_first(list(_chain(judge, place, row, features, answers[place], now))),
            *_beside(judge, answers[place], now.rows[row]),
        ]
        if found:
            decoded = _read_otherwise(inputs[place], read.requests[row])
            moved += [replace(each, request_id=name, detail=each.detail + decoded) for each in found]
    return Checked(
        folder=str(golden.folder),
        model=golden.told.model,
        manifest=golden.told.manifest,
        rows=len(ids),
        moved=tuple(moved),
        notes=tuple(_notes(golden, now, judge, views)),
        changes=tuple(golden.changes),
    )


class _Judge:
    """Tells whether two numbers are the same, and remembers where they were only nearly so."""

    def __init__(self, golden: Golden) -> None:
        here = computing()
        then = golden.told.computing
        # A lock file names much that computes nothing.
        self.other = {
            name: (then.get(name, "none"), here.get(name, "none"))
            for name in sorted(then.keys() | here.keys())
            if name != "lock" and then.get(name) != here.get(name)
        }
        self.near = 0

    def same(self, before: float | None, now: float | None) -> bool:
        if before is None or now is None:
            return before is now
        if np.float64(before).tobytes() == np.float64(now).tobytes() or (np.isnan(before) and np.isnan(now)):
            return True
        if self.other and abs(before - now) <= tolerance * max(1.0, abs(before)):
            self.near += 1
            return True
        return False


def _first(moved: Sequence[Moved]) -> Sequence[Moved]:
    """The first thing, with what followed from it."""
    if not moved:
        return ()
    difference, answer = max(each.difference for each in moved), any(each.answer for each in moved)
    return (replace(moved[0], difference=difference, answer=answer),)


def _chain(
    judge: _Judge, place: int, row: int, features: pl.DataFrame, before: Mapping[str, Any], now: Answered
) -> Iterator[Moved]:
    """What moved on the way of the model's answer, each of which may follow from the one before."""
    if row in now.raised:
        yield _moved("features", f"the feature code raises: {now.raised[row]}", answer=True)
        return
    for name in features.columns:
        if name in now.gone:
            yield _moved(f"feature {name}", "the domain does not declare it for this model any more")
            continue
        was, is_now = features[name][place], now.features[name][row]
        if not judge.same(was, is_now):
            yield _moved(f"feature {name}", f"{_number(was)} then, {_number(is_now)} now")
    yield from _scores(judge, before["scores"], now.rows[row]["scores"])
    yield from _answers(judge, before["model"], now.rows[row]["model"], "")


def _beside(judge: _Judge, before: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Moved]:
    """What moved of the other ways to answer, which nothing on the way of the model reaches."""
    for way, of in _other_ways.items():
        yield from _first(list(_answers(judge, before[way], given[way], of)))
    for stage, tier in before["falls_to"].items():
        if given["falls_to"][stage] != tier:
            told = _tier_after[stage]
            yield _moved("tier", f"{told} it fell to {tier}, and falls to {given['falls_to'][stage]} now", answer=True)


def _scores(judge: _Judge, before: list[float] | None, now: list[float] | None) -> Iterator[Moved]:
    if before is None or now is None:
        if before is not now:
            yield _moved("score", f"{before} then, {now} now", answer=True)
        return
    for was, is_now in zip(before, now, strict=True):
        if not judge.same(was, is_now):
            yield _moved("score", f"{was!r} then, {is_now!r} now", abs(was - is_now), answer=True)


def _answers(
    judge: _Judge, before: Mapping[str, Any] | None, now: Mapping[str, Any] | None, of: str
) -> Iterator[Moved]:
    if before is None or now is None:
        if before is not now:
            yield _moved(f"answer{of}", f"{_told(before)} then, {_told(now)} now", answer=True)
        return
    for name in _answer_order:
        was, is_now = before[name], now[name]
        if isinstance(was, float) and isinstance(is_now, float):
            if not judge.same(was, is_now):
                yield _moved(f"{name}{of}", f"{was!r} then, {is_now!r} now", abs(was - is_now), answer=True)
        elif was != is_now:
            yield _moved(f"{name}{of}", f"{was!r} then, {is_now!r} now", answer=True)


def _views(golden: Golden, now: Mapping[str, Owned], judge: _Judge) -> Iterator[Moved]:
    for each in golden.told.views:
        if each.view not in now:
            yield _moved(f"view {each.view}", "the model does not read it any more")
            continue
        yield from _view(golden, each, now[each.view], judge)


def _view(golden: Golden, each: GoldenView, owned: Owned, judge: _Judge) -> Iterator[Moved]:
    before = stored(golden, each.values)
    try:
        now = owned.of(stored(golden, each.facts), each.at)
    except (DataError, DeclarationError) as error:
        yield _moved(f"view {each.view}", f"it makes nothing of the stored facts any more: {error}")
        return
    keys = list(owned.view.entity)
    if not set(keys) <= set(before.columns) or not now.select(keys).equals(before.select(keys)):
        yield _moved(f"view {each.view}", f"{before.height} entities then, {now.height} or others now")
        return
    for name in before.columns:
        if name not in now.columns:
            yield _moved(f"feature {name} of view {each.view}", "it is not declared any more")
            continue
        apart = _apart(before[name], now[name], judge)
        if apart.any():
            row = int(apart.argmax())
            entity = ", ".join(str(before[key][row]) for key in keys)
            yield _moved(
                f"feature {name} of view {each.view}",
                f"{_number(before[name][row])} then, {_number(now[name][row])} now, of {entity} over the stored facts",
            )


def _apart(before: pl.Series, now: pl.Series, judge: _Judge) -> npt.NDArray[np.bool_]:
    if before.dtype.is_numeric() and now.dtype.is_numeric():
        pairs = zip(before.cast(pl.Float64), now.cast(pl.Float64), strict=True)
        return np.array([not judge.same(was, is_now) for was, is_now in pairs], dtype=np.bool_)
    if before.dtype != now.dtype:
        return np.ones(len(before), dtype=np.bool_)
    return (~before.eq_missing(now)).to_numpy()


def _probes(golden: Golden, now: list[dict[str, Any]]) -> Iterator[Moved]:
    """Post-processing of scores at and beside the thresholds: a row may lie on neither side of what moved."""
    for before, given in zip(golden.probes, now, strict=True):
        for name in ("refused", *_answer_order):
            if before.get(name) != given.get(name):
                scores = ", ".join(map(repr, before["scores"]))
                yield _moved(
                    f"{name} of a score", f"of {scores} it was {before.get(name)!r}, and is {given.get(name)!r} now"
                )
                if name == "refused":
                    break


def _probe_scores(golden: Golden) -> list[list[float]]:
    return [each["scores"] for each in golden.probes]


def _notes(golden: Golden, now: Answered, judge: _Judge, views: Mapping[str, Owned]) -> Iterator[str]:
    if now.added:
        yield f"the domain declares {', '.join(now.added)} since, which the stored weights do not know"
    versions = [
        each.view for each in golden.told.views if each.view in views and views[each.view].version != each.version
    ]
    if versions:
        yield (
            f"{', '.join(versions)} has another version than then: a model trained before is not served on it, "
            "whatever its values"
        )
    if now.told:
        yield f"a way to answer was passed over: {'; '.join(sorted(now.told))}"
    if judge.near:
        other = "; ".join(f"{name} {was} then, {here} here" for name, (was, here) in judge.other.items())
        yield f"{judge.near} numbers differ within {tolerance:g}, which something else computes here: {other}"


def _read_otherwise(before: pl.DataFrame, now: pl.DataFrame) -> str:
    names = [name for name in now.columns if name in before.columns and name != "at"]
    differing = [name for name in names if before[name][0] != now[name][0]]
    if not differing:
        return ""
    told = ", ".join(f"{name} is read as {now[name][0]!r}, not {before[name][0]!r}" for name in differing)
    return f"; of the request {told}"


def _moved(what: str, detail: str, difference: float = 0.0, *, answer: bool = False) -> Moved:
    return Moved(request_id="", what=what, detail=detail, difference=difference, answer=answer)


def _told(answer: Mapping[str, Any] | None) -> str:
    return "no answer" if answer is None else repr(answer["prediction"])


def _number(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "missing"
    return f"{value:.9g}" if isinstance(value, float) else str(value)
