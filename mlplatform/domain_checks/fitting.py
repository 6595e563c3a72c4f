"""Fitted values: learned from the training rows, kept as JSON, applied to anything that may be asked."""

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.domain.view import FittedValue
from mlplatform.domain_checks.case import called
from mlplatform.domain_checks.difference import Difference, difference
from mlplatform.domain_checks.evidence import Evidence, seed, spread
from mlplatform.domain_checks.reach import frames_in_reach
from mlplatform.domain_checks.verdict import Fault, Looked
from mlplatform.errors import CannotJudge

unseen = "never seen before"
"""A category that no training row has."""


def fitted_values(evidence: Evidence) -> Looked:
    """What is learned comes of the training rows alone, and applying it learns nothing."""
    faults: list[Fault] = []
    looked: set[str] = set()
    for model in evidence.domain.models:
        for value in evidence.domain.fitted:
            if value.name in model.fitted and value.name not in looked:
                looked.add(value.name)
                faults += _of_value(evidence, model, value)
    if not looked:
        raise CannotJudge("no model has fitted values")
    return Looked(at=f"{len(looked)} fitted values", faults=tuple(faults))


def _of_value(evidence: Evidence, model: ModelSpec, value: FittedValue) -> Iterator[Fault]:
    what = f"fitted value {value.name}"
    asked = evidence.asked(model)
    earlier, later = evidence.training_rows(model, asked, 1)
    train, rest = asked.part(earlier).known, asked.part(later).known
    learned = called(what, "training rows", value.fit, train.clone())
    try:
        kept = json.loads(json.dumps(learned, allow_nan=False))
    except (TypeError, ValueError) as error:
        told = (
            f"what it learns is nothing that JSON holds ({error}), so it cannot be saved. Give lists, texts and numbers"
        )
        yield Fault(what=what, where="fit", told=told)
        return
    # Between two looks at the training rows it is shown everything else: what it then remembers, it must not use.
    called(what, "all rows", value.fit, asked.known)
    called(what, "scrambled later rows", value.fit, _scrambled(rest))
    differs = _difference(learned, called(what, "training rows", value.fit, train.clone()))
    if differs is not None:
        mend = "Keep nothing between two calls, and sort what has no order"
        told = f"learned again from the same training rows it is another ({differs.told}). {mend}"
        yield Fault(what=what, where=f"fit, {differs.where}", told=told)
    differs = _difference(
        learned, called(what, "shuffled rows", value.fit, train.sample(fraction=1, shuffle=True, seed=seed))
    )
    if differs is not None:
        told = f"it depends on the order of the training rows ({differs.told}). Sort what is learned, ties included"
        yield Fault(what=what, where=f"fit, {differs.where}", told=told)
    for name, frame in frames_in_reach(value.fit).items():
        if frame.height > train.height:
            told = f"it reads {name}, {frame.height} rows that are not handed to it. Learn from the training rows alone"
            yield Fault(what=what, where=f"fit, {name}", told=told)
    yield from _applied(value, what, spread(rest if rest.height else train, 300), learned, kept)


def _applied(value: FittedValue, what: str, rows: pl.DataFrame, learned: Any, kept: Any) -> Iterator[Fault]:
    given = called(what, "later rows", value.apply, rows.clone(), learned)
    differs = difference(given, called(what, "after JSON", value.apply, rows.clone(), kept))
    if differs is not None:
        mend = "JSON turns keys into texts, and tuples into lists. Learn lists of pairs instead"
        told = f"once it has been saved as JSON it is applied otherwise ({differs.told}): {mend}"
        yield Fault(what=what, where=f"apply, {differs.where}", told=told)
    half = rows.height // 2
    for part, name in ((rows[:half], "the first half"), (rows[half:], "the second half")):
        if part.is_empty():
            continue
        start = 0 if name == "the first half" else half
        differs = difference(given[start : start + part.height], called(what, name, value.apply, part.clone(), learned))
        if differs is not None:
            mend = "it learns while it is applied. Use what was learned, and nothing of the other rows"
            told = f"applied to {name} of some rows it gives something else than to all ({differs.told}): {mend}"
            yield Fault(what=what, where=f"apply, {differs.where}", told=told)
            break
    for name, strange in _strange(rows):
        answers = called(what, name, value.apply, strange, learned)
        if answers.height != strange.height:
            told = f"gives {answers.height} rows for {strange.height} with {name}. Give one row per request"
            yield Fault(what=what, where=f"apply, {name}", told=told)


def _strange(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows with values that no training row has, column by column, and with nulls."""
    for name, dtype in rows.schema.items():
        if dtype == pl.String():
            yield f"an unseen {name}", rows.with_columns(pl.lit(unseen).alias(name))
        if name != "at":
            yield f"a null {name}", rows.with_columns(pl.lit(None, dtype=dtype).alias(name))


def _scrambled(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of a later time, and of another world: texts never seen, numbers turned round."""
    return rows.with_columns(
        pl.lit(unseen).alias(name) if dtype == pl.String() else pl.col(name).shuffle(seed=seed)
        for name, dtype in rows.schema.items()
    )


def _difference(one: Any, other: Any) -> Difference | None:
    """Where two learned values differ; sums in another order may round."""
    return difference(_leaves(one), _leaves(other), keys=["place"], rounding=True)


def _leaves(value: Any) -> pl.DataFrame:
    """A learned value as rows: where in it, and what stands there."""
    found: list[tuple[str, str | None, float | None]] = []

    def walk(place: str, each: Any) -> None:
        if isinstance(each, dict):
            for name, inner in each.items():
                walk(f"{place}.{name}", inner)
        elif isinstance(each, list | tuple):
            for number, inner in enumerate(each):
                walk(f"{place}[{number}]", inner)
        elif isinstance(each, int | float) and not isinstance(each, bool):
            found.append((place, None, float(each)))
        else:
            found.append((place, repr(each), None))

    walk("", value)
    schema = {"place": pl.String(), "text": pl.String(), "number": pl.Float64()}
    return pl.DataFrame(sorted(found), schema=schema, orient="row") if found else pl.DataFrame(schema=schema)
