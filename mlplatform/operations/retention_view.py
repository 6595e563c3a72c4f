"""Retention for people and scripts: what goes, what stays and why, holds, tombstones."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from rich.console import Console

from mlplatform.domain.domain import Domain
from mlplatform.features.tombstones import Tombstone
from mlplatform.reproducibility.retention.holds import Hold
from mlplatform.reproducibility.retention.retention import Going, Plan, Staying

shown_at_most = 20
"""Things by name; `--json` has all."""


def as_json(found: Any) -> str:
    """As `--json` prints it."""
    return msgspec.json.format(msgspec.json.encode(found)).decode()


def show_plan(domain: Domain, found: Plan, console: Console, *, done: bool) -> None:
    """Print what goes and what stays.

    Parameters
    ----------
    done : whether it was removed just now
    """
    policy = domain.reproducibility.retention
    said = (("answers", policy.predictions), ("superseded revisions", policy.superseded), ("models", policy.models))
    for what, age in said:
        _line(console, f"{what}: {_kept(age)}")
    verb = "removed" if done else "would be removed"
    _line(console, f"{len(found.goes)} {'thing' if len(found.goes) == 1 else 'things'} {verb}")
    for each in found.goes[:shown_at_most]:
        _line(console, f"  {_named(each)}: {each.policy}")
    _more(console, len(found.goes))
    if found.stays:
        _line(console, f"{len(found.stays)} stay although they have the age")
        for why, number in Counter(_reason(each) for each in found.stays).most_common(shown_at_most):
            _line(console, f"  {number} {why}")
    if found.compacted:
        verb = "made one" if done else "would be made one"
        _line(console, f"the files of {len(found.compacted)} days of the log {verb}")


def show_holds(name: str, found: Sequence[Hold], console: Console) -> None:
    """Print holds, oldest first."""
    if not found:
        _line(console, f"nothing of {name} is held")
    for each in found:
        end = "" if each.released_at is None else (
            f"; released {each.released_at:%Y-%m-%d} by {each.released_by}: {each.released_for}"
        )  # fmt: skip
        _line(console, f"{each.name}  {each.at:%Y-%m-%d}  {each.what}, by {each.actor}: {each.reason}{end}")


def show_tombstones(name: str, found: Sequence[Tombstone], console: Console) -> None:
    """Print what was removed, in the order in which it went."""
    if not found:
        _line(console, f"nothing of {name} was ever removed")
    for each in found:
        _line(console, f"{each}, by {each.actor}")


def _kept(age: timedelta | None) -> str:
    return "kept for ever" if age is None else f"go after {age.days} days"


def _named(each: Going) -> str:
    rows = f" ({each.rows:,} rows)" if each.rows else ""
    return f"{each.kind.replace('_', ' ')} {each.name}{rows}"


def _reason(each: Staying) -> str:
    return f"{each.kind.replace('_', ' ')}: {each.why}"


def _more(console: Console, number: int) -> None:
    if number > shown_at_most:
        _line(console, f"  and {number - shown_at_most} more; --json lists all")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
