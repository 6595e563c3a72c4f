"""What the person has to say, since no file tells it: which time counts, what is predicted, whose history matters.

What was not given by a flag is asked, with a proposal; where nobody can be asked, the flag is named. Nothing is decided
in silence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from mlplatform.domain.model import Task
from mlplatform.errors import DataError, DeclarationError
from mlplatform.new_domain.sampled import Sampled
from mlplatform.new_domain.times import times_of

Ask = Callable[[str, str], str]
"""(question, proposed answer) -> the answer."""

label_words = ("label", "target", "outcome", "class", "churn", "fail", "fraud", "late", "default", "result")
known_soon, known_by_evening = timedelta(hours=1), timedelta(hours=23)
"""Proposed from the request to its outcome: an hour, or the rest of the day where the times are days only."""

key_words = (
    "id",
    "key",
    "code",
    "name",
    "station",
    "customer",
    "user",
    "machine",
    "store",
    "product",
    "device",
    "sensor",
)


@dataclass(frozen=True, kw_only=True)
class Given:
    """The flags; None: not given."""

    entity: tuple[str, ...] = ()
    """Each a key: one column, or several parted by commas."""

    time: str | None = None
    known_at: str | None = None
    known_after: timedelta | None = None
    label: str | None = None
    task: Task | None = None
    outcome_columns: str | None = None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The answers, in the sample's new column names."""

    sampled: Sampled
    entity: tuple[tuple[str, ...], ...]
    time: str
    days_only: bool
    known_at: str | None
    known_after: timedelta | None
    label: str
    task: Task | None
    outcome_columns: tuple[str, ...] | None
    """Columns said to be written afterwards; None: the data is to be looked at."""


def choose(sampled: Sampled, given: Given, ask: Ask | None) -> Chosen:
    """Complete the flags by questions.

    Raises
    ------
    DeclarationError
        A flag names no column or contradicts another one, or is missing where nobody can be asked.
    DataError
        The sample has no column that could be the time.
    """
    time = _asked(
        given.time, "--time", "Which column tells when a prediction is asked for?", _time_columns(sampled), ask
    )
    time_column = sampled.column(time, "--time")
    sampled, days_only = _with_time(sampled, time_column, "--time")
    label = _asked(given.label, "--label", "Which column is to be predicted?", _labels(sampled, time_column), ask)
    label_column = sampled.column(label, "--label")
    known_at, known_after = given.known_at, given.known_after
    if known_at is None and known_after is None:
        known_at, known_after = _when_known(sampled, time_column, days_only, ask)
    known_column = sampled.column(known_at, "--known-at") if known_at else None
    if known_column is not None:
        if known_after is not None:
            raise DeclarationError("--known-at and --known-after say the same thing twice. Give one of them")
        sampled, _ = _with_time(sampled, known_column, "--known-at")
    keys = given.entity or (
        _asked(None, "--entity", "Whose history counts? (columns parted by commas)", _keys(sampled, label_column), ask),
    )
    entity = tuple(tuple(sampled.column(each.strip(), "--entity") for each in key.split(",")) for key in keys)
    _refuse_odd_keys(sampled, entity, {label_column: "--label", time_column: "--time", known_column: "--known-at"})
    if label_column in (time_column, known_column):
        raise DeclarationError(f"--label: {label_column} is the time. Name the column that is to be predicted")
    outcome_columns = _outcome_columns(sampled, given.outcome_columns)
    asked = [each for each in outcome_columns or () if each == time_column or any(each in key for key in entity)]
    if asked:
        raise DeclarationError(
            f"--outcome-columns: {', '.join(asked)} is there when it is asked, by --time or --entity. Leave it out"
        )
    return Chosen(
        sampled=sampled,
        entity=entity,
        time=time_column,
        days_only=days_only,
        known_at=known_column,
        known_after=known_after,
        label=label_column,
        task=given.task,
        outcome_columns=outcome_columns,
    )


def mostly_later(sampled: Sampled, name: str, time: str) -> bool:
    """Whether a time column lies after the request in most rows that have it."""
    share = sampled.frame.select((pl.col(name) > pl.col(time)).mean()).item()
    return share is not None and share > 0.5


def _asked(given: str | None, flag: str, question: str, proposed: Sequence[str], ask: Ask | None) -> str:
    if given is not None:
        return given
    if ask is None:
        told = f", for example {flag} {proposed[0]}" if proposed else ""
        raise DeclarationError(f"{flag} is not given, and nobody is at the terminal to ask: {question} Give it{told}")
    return ask(question, proposed[0] if proposed else "")


def _when_known(sampled: Sampled, time: str, days_only: bool, ask: Ask | None) -> tuple[str | None, timedelta | None]:
    """The column that tells when the outcome was known, or else how long after the request it is."""
    later = [name for name in sampled.times if name != time and mostly_later(sampled, name, time)]
    question = "Which column tells when the outcome was known?"
    if ask is None:
        told = f", for example --known-at {later[0]}" if later else ""
        raise DeclarationError(
            f"--known-at is not given, and nobody is at the terminal to ask: {question} Give it{told}; or say with "
            "--known-after how many hours after the request the outcome is known"
        )
    column = ask(f"{question} (none: it is not in the sample)", later[0] if later else "none")
    if column != "none":
        return column, None
    usual = known_by_evening if days_only else known_soon
    hours = ask("How many hours after the request is the outcome known?", f"{usual / timedelta(hours=1):g}")
    try:
        after = timedelta(hours=float(hours))
    except (ValueError, OverflowError) as error:  # also of `nan` and `inf`
        raise DeclarationError(f"--known-after: {hours!r} is no number of hours. Write it as 48") from error
    if after < timedelta(0):
        raise DeclarationError(f"--known-after: no outcome is known {hours} hours after its request. Say 0 or more")
    return None, after


def _time_columns(sampled: Sampled) -> list[str]:
    """Time columns, the earliest of each row first."""
    if sampled.times:
        order = sampled.frame.select(pl.col(sampled.times).to_physical().mean()).row(0, named=True)
        return sorted(sampled.times, key=lambda name: order[name])
    counting = [name for name in sampled.frame.columns if _counts_time(sampled.frame[name])]
    if not counting:
        raise DataError(
            f"{sampled.file} has no column of times, and without one nothing can be point-in-time correct: which row "
            "came before which is not to be seen. Add a column with the time at which each prediction was needed"
        )
    return counting


def _counts_time(column: pl.Series) -> bool:
    return column.dtype.is_integer() and times_of(column, "UTC") is not None and column.n_unique() > 1


def _with_time(sampled: Sampled, name: str, flag: str) -> tuple[Sampled, bool]:
    """The sample with that column as instants, and whether it tells no hour."""
    column = sampled.frame[name]
    times = times_of(column, sampled.zone)
    if times is None or times.values.null_count() > len(column) / 2:
        shown = ", ".join(repr(value) for value in column.drop_nulls().head(3).to_list())
        raise DataError(
            f"{flag}: {name} holds no times that can be read ({shown}). Write them as 2024-03-15T14:47:00Z, zone "
            "included"
        )
    notes, why = list(sampled.notes), dict(sampled.why)
    if column.dtype != times.values.dtype:
        why[name] = times.why
    unread = times.values.null_count() - column.null_count()
    if unread > 0:
        odd = column.filter(times.values.is_null()).drop_nulls()[0]
        notes.append(f"{unread} rows have a {name} that is no time, such as {odd!r}")
    days_only = times.days_only or _midnights(times.values, sampled.zone)
    frame = sampled.frame.with_columns(times.values.alias(name))
    changed = Sampled(
        file=sampled.file, frame=frame, written=sampled.written, why=why, zone=sampled.zone, notes=tuple(notes)
    )
    return changed, days_only


def _midnights(values: pl.Series, zone: str) -> bool:
    return values.drop_nulls().dt.convert_time_zone(zone).dt.time().n_unique() <= 1


def _labels(sampled: Sampled, time: str) -> list[str]:
    """Columns that could be predicted: those with a telling name first, then from the last to the first."""
    names = [name for name in reversed(sampled.frame.columns) if name != time and name not in sampled.times]
    return sorted(names, key=lambda name: not any(word in name for word in label_words))


def _keys(sampled: Sampled, label: str) -> list[str]:
    """Columns whose values come back, those with a telling name first."""
    rows = sampled.frame.height
    found = [
        name
        for name, dtype in sampled.frame.schema.items()
        if name != label
        and (dtype.is_integer() or dtype == pl.String())
        and 2 <= sampled.frame[name].n_unique() <= max(2, rows // 3)
    ]
    return sorted(found, key=lambda name: (not any(word in name.split("_") for word in key_words), found.index(name)))


def _refuse_odd_keys(sampled: Sampled, entity: tuple[tuple[str, ...], ...], others: dict[str | None, str]) -> None:
    for key in entity:
        for name in key:
            if name in others:
                raise DeclarationError(f"--entity: {name} is given as {others[name]} already. Name what comes back")
            if not (sampled.frame[name].dtype.is_integer() or sampled.frame[name].dtype == pl.String()):
                raise DeclarationError(f"--entity: {name} holds {sampled.why[name]}; a key is text or a whole number")
        if sampled.frame.select(pl.struct(key).n_unique()).item() == sampled.frame.height:
            raise DeclarationError(
                f"--entity: no {', '.join(key)} comes twice, so none has a history. Name what comes back, such as a "
                "customer, a machine or a shop"
            )


def _outcome_columns(sampled: Sampled, given: str | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = [each.strip() for each in given.split(",") if each.strip() and each.strip() != "none"]
    return tuple(sampled.column(each, "--outcome-columns") for each in names)
