"""Make a model again from what its bundle says it was made from, and say where the first difference is.

The rows come from the revisions that its recipe pins, by the domain's declaration and feature code that lie in the
bundle; then it is trained, by the platform's code of today, and every part is held against the hash in the manifest.
So what was corrected, changed or promoted since makes no difference; what of the old data is gone or altered does.

Of the steps some are conditions: under which code, libraries and machine it is made again. Exactness is promised only
where they are the same, so they are told first. But where they differ and every part is the same to the bit, the model
is reproduced all the same.

It writes nothing that stays: no bundle, no training set, no entry of the ledger.
"""

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mlplatform.errors import DeviceUnavailable
from mlplatform.features.integrity import altered
from mlplatform.features.stage import Stage
from mlplatform.provenance.code_version import declaration_version
from mlplatform.provenance.content_hash import content_hash
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import (
    BOOSTER,
    CALIBRATION,
    FITTED,
    GOLDEN_ROWS,
    GOLDEN_SCORES,
    SIMPLE,
    Bundle,
    hashes,
    write_parts,
)
from mlplatform.registry.candidate import version_named
from mlplatform.registry.origin import Origin, input_stores, origin_of
from mlplatform.reproducibility.conditions import Step, conditions
from mlplatform.training.dataset import ROWS_FILE, training_rows
from mlplatform.training.train import Said, Trained, train

log = logging.getLogger(__name__)

parts = {
    "fitted values": FITTED,
    "booster": BOOSTER,
    "calibration": CALIBRATION,
    "simple model": SIMPLE,
    "golden rows": GOLDEN_ROWS,
    "golden scores": GOLDEN_SCORES,
}
"""What a training makes -> its file in the bundle, in the order in which one follows from another."""


@dataclass(frozen=True, kw_only=True)
class Reproduced:
    """A model that was made again."""

    model: str
    model_version: str
    manifest: str
    steps: tuple[Step, ...]
    """In the order in which one follows from another; nothing is looked at behind data that is not the same."""

    @property
    def first_difference(self) -> Step | None:
        """The first part that is not the same; None: it is the same model to the bit, whatever the conditions."""
        return next((each for each in self.steps if not each.same and not each.condition), None)

    @property
    def other_conditions(self) -> tuple[Step, ...]:
        """What it was made again under that is not as recorded."""
        return tuple(each for each in self.steps if not each.same and each.condition)

    @property
    def exact(self) -> bool:
        """Whether every part is the same to the bit."""
        return self.first_difference is None


def reproduce(platform: Platform, model: str, named: str) -> Reproduced:
    """Make a version of a model again and compare.

    Parameters
    ----------
    model : `domain/model`; empty: whichever has a version that is named so
    named : the key of its recipe, or its manifest's digest, or the first twelve digits of that

    Raises
    ------
    DataError
        No version, or more than one, is called so; or its bundle does not say what it was made from.
    BundleCorrupt
        A file of the bundle is missing or altered; the message names it.
    """
    bundle = version_named(platform, f"{model}@{named}" if model else named)
    origin = origin_of(bundle)
    steps = [*conditions(platform, bundle, origin), _bundle_step(bundle)]
    log.info("%s: looking at the revisions of %d tables", origin.recipe.key, len(origin.inputs))
    steps += input_steps(platform, bundle, origin)
    if all(each.same or each.condition for each in steps):
        steps += _made_again(platform, bundle, origin)
    return Reproduced(
        model=bundle.manifest.model,
        model_version=bundle.manifest.model_version,
        manifest=bundle.digest,
        steps=tuple(steps),
    )


def input_steps(platform: Platform, bundle: Bundle, origin: Origin) -> list[Step]:
    """Of each input table whether every revision is there, and is what was read then."""
    stores = input_stores(platform, bundle.domain, bundle.model)
    return [_input_step(table, days, stores.get(table)) for table, days in origin.inputs.items()]


def _input_step(table: str, days: Mapping[str, tuple[int, str]], store: Stage | None) -> Step:
    listed = {(each.partition, each.number): each for each in store.revisions(days)} if store else {}
    faults: dict[tuple[str, int], str] = {}
    for day, (number, content) in days.items():
        revision = listed.get((day, number))
        if revision is None:
            faults[day, number] = f"revision {number} of {day} is gone"
        elif revision.removed:
            faults[day, number] = revision.removed
        elif revision.content_hash != content:
            faults[day, number] = (
                f"revision {number} of {day} has the content {revision.content_hash}, recorded is {content}"
            )
    if store is not None and not faults:
        held = altered(store, [listed[day, number] for day, (number, _) in days.items()])
        faults = {where: f"revision {where[1]} of {where[0]}: {told}" for where, told in held.items()}
    expected = declaration_version({day: content for day, (_, content) in days.items()})
    found = declaration_version(
        {day: listed[day, number].content_hash for day, (number, _) in days.items() if (day, number) in listed}
    )
    more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
    return Step(
        name=f"table {table}",
        expected=f"{len(days)} days, content {expected}",
        found=f"{len(days) - len(faults)} of them the same" if faults else f"{len(days)} days, content {found}",
        same=not faults,
        note=faults[min(faults)] + more if faults else "",
    )


def _made_again(platform: Platform, bundle: Bundle, origin: Origin) -> Iterator[Step]:
    """Rows, then what is trained on them; behind rows that differ nothing is looked at."""
    recipe = origin.recipe
    log.info("%s: building its training set from the pinned revisions", recipe.key)
    rows = training_rows(platform, bundle.domain, bundle.model, recipe)
    told = origin.training_set
    found = content_hash(rows)
    same = found == told["content_hash"]
    yield Step(
        name="training set",
        expected=f"{told['rows']} rows, content {told['content_hash']}",
        found=f"{rows.height} rows, content {found}",
        same=same,
        note="" if same else _differing_rows(platform, bundle, rows),
    )
    if not same:
        return
    log.info("%s: training on %d rows", recipe.key, rows.height)
    try:
        made = train(bundle.domain, bundle.model, recipe, rows)
    except DeviceUnavailable as error:
        yield Step(
            name="booster", expected=bundle.manifest.files[BOOSTER], found="not made", same=False, note=str(error)
        )
        return
    yield from _said_steps(origin.said, made.said)
    again = _part_hashes(made)
    for name, file in parts.items():
        expected = bundle.manifest.files[file]
        yield Step(name=name, expected=expected, found=again[file], same=again[file] == expected)


def _part_hashes(made: Trained) -> dict[str, str]:
    with tempfile.TemporaryDirectory(prefix="mlplatform-reproduce-") as scratch:
        write_parts(
            Path(scratch),
            booster=made.booster,
            calibration=made.calibration,
            simple=made.simple,
            fitted=made.fitted,
            golden=made.golden,
        )
        return hashes(Path(scratch))


def _said_steps(then: Said, now: Said) -> Iterator[Step]:
    """The parts of the time axis, and what the search found."""
    for name, fields in {"split": ("rows", "windows"), "search": ("settings", "trials")}.items():
        before, after = ({each: _plain(getattr(said, each)) for each in fields} for said in (then, now))
        told = {each: (before[each], after[each]) for each in fields if before[each] != after[each]}
        yield Step(
            name=name,
            expected=declaration_version(before),
            found=declaration_version(after),
            same=not told,
            note="; ".join(_differing(each, *sides) for each, sides in told.items()),
        )


def _differing(name: str, before: Any, after: Any) -> str:
    """The first place in which two values of a field differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
        return ", ".join(f"{key} was {before.get(key)}, is {after.get(key)}" for key in keys)
    if len(before) != len(after):
        return f"there were {len(before)} {name}, now {len(after)}"
    first = next(number for number, (left, right) in enumerate(zip(before, after, strict=True)) if left != right)
    return f"{name} differ from number {first} on: {before[first]} against {after[first]}"


def _differing_rows(platform: Platform, bundle: Bundle, rows: pl.DataFrame) -> str:
    """The first column that differs, where the training set of then was kept."""
    name, _, model = bundle.manifest.model.partition("/")
    path = platform.training(name, model, bundle.manifest.model_version) / ROWS_FILE
    if not path.exists():
        return "the rows of then were not kept, so the column cannot be named"
    then = pl.read_parquet(path)
    if then.height != rows.height or then.columns != rows.columns:
        return f"{then.height} rows of {then.width} columns then, {rows.height} of {rows.width} now"
    for column in then.columns:
        other = (~then[column].eq_missing(rows[column])).arg_true()
        if other.len():
            row = int(other[0])
            sides = f"{then[column][row]}, now {rows[column][row]}"
            return f"{column} differs in {other.len()} rows, first in row {row}: {sides}"
    return (
        f"every value is that of {path.name}, but the record names other rows: that file was altered, or types differ"
    )


def _bundle_step(bundle: Bundle) -> Step:
    # Whoever loads it has hashed them: a file that was altered is refused there, by name.
    told = f"{len(bundle.manifest.files)} files, manifest {bundle.digest}"
    return Step(name="bundle", expected=told, found=told, same=True)


def _plain(value: Any) -> Any:
    """As JSON would give it back, which is how it is kept."""
    return json.loads(json.dumps(value))
