"""The ledger for people and scripts: what was done, whether it is whole, and what served at an instant.

The ledger is the truth. What mirrors it (the aliases in MLflow, the plan that running services follow) is compared with
it here, and may be set from it; never the other way round. From a ledger that is not whole nothing is set.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl
from rich.console import Console
from rich.markup import escape

from mlplatform.errors import DataError, LedgerBroken, MlplatformError, PlanInvalid
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Alias, Entry, Ledger, broken_at, standing
from mlplatform.registry.mlflow_registry import digest_of_alias
from mlplatform.rollout.aliases import mirror
from mlplatform.rollout.plan import WHOLE, Plan
from mlplatform.rollout.plan_file import WatchedPlan, plan_path
from mlplatform.rollout.pointing import plan_of, point

digits = 12
"""Of a digest on a terminal; `--json` has all."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Whether the ledger of one model is whole, and what mirrors it agrees."""

    model: str
    entries: int
    hash: str
    """Of the last entry: who keeps it can tell later whether the entries up to there are still the same."""

    broken: str
    """The first entry that does not follow from those before it, and why; empty: all do."""

    champion: str | None
    """By the ledger."""

    differs: Mapping[str, str]
    """What mirrors the ledger (`alias champion`, `plan`) and does not agree -> how; empty: all do."""

    repaired: tuple[str, ...] = ()
    """What was set from the ledger just now."""

    @property
    def good(self) -> bool:
        """Whether there is nothing to be done."""
        return not self.broken and not self.differs


@dataclass(frozen=True, kw_only=True)
class Since:
    """A version, and the event that put it there."""

    manifest: str
    since: datetime
    by: str
    reason: str
    action: str
    entry: int


@dataclass(frozen=True, kw_only=True)
class Served:
    """What served at an instant, to whom, under which plan."""

    model: str
    at: datetime
    champion: Since | None
    challenger: Since | None
    mode: str
    """`full`, `shadow`, `canary`, `a/b`; empty: the challenger was not started yet."""

    share: float
    """Of the keys that the challenger answered, from 0 to 1."""

    plan: str
    """Version of the plan; empty: there was none."""


def history(platform: Platform, model: str, *, limit: int | None = None) -> list[Entry]:
    """The last events of a model, or all, oldest first."""
    entries = Ledger(platform).entries(model)
    return entries if limit is None else entries[max(0, len(entries) - limit) :]


def verify(platform: Platform, model: str | None = None, *, holds: str = "", repair: bool = False) -> list[Verified]:
    """Check the chain of one model, or of every one, and what mirrors it.

    Parameters
    ----------
    holds : hash of an entry that the ledger of the model must still hold; a dossier names one. Empty: none
    repair : set what does not agree from the ledger
    """
    ledger = Ledger(platform)
    models = ledger.models() if model is None else [model]
    return [_verified(platform, ledger, each, holds, repair) for each in models]


def served(platform: Platform, model: str, at: datetime) -> Served:
    """What served at an instant, which is aware."""
    entries = [entry for entry in Ledger(platform).entries(model) if entry.at <= at]
    found, plan = standing(entries), _asked_for(model, entries)
    share = found.weight / WHOLE if found.mode in ("canary", "a/b") else 0.0
    return Served(
        model=model,
        at=at.astimezone(UTC),
        champion=_since(found.champion),
        challenger=_since(found.challenger),
        mode=found.mode,
        share=share,
        # As it was recorded; what it says is derived the same way for ever, but how it is written may change.
        plan=plan.version if isinstance(plan, Plan) else "",
    )


def as_json(found: Sequence[Entry] | Sequence[Verified] | Served) -> str:
    """For scripts."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


def show_history(model: str, entries: Sequence[Entry], console: Console) -> None:
    """Each event, oldest first, and beneath it why, and what was looked at."""
    if not entries:
        console.print(f"nothing was recorded of {escape(model)}", highlight=False)
        return
    for each in entries:
        before = f" (was {each.from_manifest[:digits]})" if each.from_manifest not in (None, each.to_manifest) else ""
        console.print(
            f"{each.number:>4}  {_time(each.at)}  {each.action} {each.alias} {each.to_manifest[:digits]}{before}, by "
            f"{escape(each.actor)}",
            highlight=False,
            soft_wrap=True,
        )
        console.print(f"      {escape(f'{each.reason}{_told(each.evidence)}')}", highlight=False, soft_wrap=True)


def show_verified(found: Sequence[Verified], console: Console) -> None:
    """A line for each model, and one for whatever is not as it should be."""
    if not found:
        console.print("nothing was recorded of any model", highlight=False)
    for each in found:
        if each.broken:
            line = f"[red]broken[/red] {escape(each.model)}: {escape(each.broken)}"
        else:
            until = f" up to entry {each.entries}, whose hash is {each.hash}" if each.entries else ": no entries"
            line = f"whole {escape(each.model)}{until}"
        console.print(line, highlight=False, soft_wrap=True)
        for what, how in each.differs.items():
            console.print(f"  [red]differs[/red] {what}: {escape(how)}", highlight=False, soft_wrap=True)
        for what in each.repaired:
            console.print(f"  set from the ledger: {what}", highlight=False, soft_wrap=True)
    if any(each.differs and not each.broken for each in found):
        console.print("  next: `mlplatform ledger verify --repair` sets them from the ledger", highlight=False)


def show_served(found: Served, console: Console) -> None:
    """Champion, challenger and plan."""
    console.print(f"[bold]{escape(found.model)}[/bold] at {_time(found.at)}", highlight=False)
    for line in _served_lines(found):
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def _served_lines(found: Served) -> Iterator[str]:
    if found.champion is None:
        yield "nothing served: no model had been promoted"
        return
    answered = f"{100 * (1 - found.share):g} %"
    yield f"champion {found.champion.manifest} answered {answered} of the keys, {_why(found.champion)}"
    if found.challenger is None:
        yield "challenger: none"
    else:
        did = {
            "": "had not been started",
            "shadow": "scored in the shadow and answered nobody",
        }.get(found.mode, f"answered {100 * found.share:g} % of the keys")
        yield f"challenger {found.challenger.manifest} {did}, {_why(found.challenger)}"
    yield f"mode {found.mode or 'full'}, plan {found.plan or 'none'}"


def _why(made: Since) -> str:
    return f"since {_time(made.since)} by {made.by}: {made.reason} (entry {made.entry}, {made.action})"


def _verified(platform: Platform, ledger: Ledger, model: str, holds: str, repair: bool) -> Verified:
    nothing = Verified(model=model, entries=0, hash="", broken="", champion=None, differs={})
    try:
        entries = ledger.entries(model)
    except LedgerBroken as error:
        return replace(nothing, broken=str(error))
    except (DataError, OSError, pl.exceptions.PolarsError) as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        number = ledger.first_unreadable(model)
        where = "the table" if number is None else f"the file of entry {number}"
        return replace(nothing, broken=f"{where} cannot be read ({told}). Restore it from a copy")
    found = replace(nothing, entries=len(entries), hash=entries[-1].hash if entries else "")
    if (number := broken_at(entries)) is not None:
        return replace(found, broken=str(LedgerBroken(model, number, "its hash does not follow from what it says")))
    if holds and holds not in {entry.hash for entry in entries}:
        return replace(found, broken=f"no entry has the hash {holds}: what it stood for was left out or written anew")
    made = standing(entries).champion
    if made is None:
        return found
    found = replace(found, champion=made.to_manifest)
    differs = _differences(platform, model, entries)
    if not repair or not differs:
        return replace(found, differs=differs)
    failed = _set_from_ledger(platform, model, differs)
    left = {what: failed.get(what, how) for what, how in _differences(platform, model, entries).items()}
    return replace(found, differs=left, repaired=tuple(what for what in differs if what not in left))


def _differences(platform: Platform, model: str, entries: Sequence[Entry]) -> dict[str, str]:
    """What mirrors the ledger and does not agree."""
    found, now = {}, standing(entries)
    made: dict[Alias, Entry | None] = {"champion": now.champion, "challenger": now.challenger}
    for alias, entry in made.items():
        seen = digest_of_alias(platform.mlflow_uri, model=model, alias=alias)
        asked = entry.to_manifest if entry else None
        if seen != asked:
            found[f"alias {alias}"] = f"it names {_named(seen)}, the ledger {_named(asked)}"
    if how := plan_differs(platform, model, _asked_for(model, entries)):
        found["plan"] = how
    return found


def _asked_for(model: str, entries: Sequence[Entry]) -> Plan | str | None:
    """The plan that the ledger asks for, or why there can be none."""
    try:
        return plan_of(model, entries)
    except PlanInvalid as error:
        return str(error)


def plan_differs(platform: Platform, model: str, asked: Plan | str | None) -> str:
    """How the file that services follow differs from the plan of the ledger; empty where it does not."""
    if not isinstance(asked, Plan):
        return asked or ""
    watched = WatchedPlan(plan_path(platform.home, model), model)
    watched.look()
    if watched.plan is None:
        return watched.fault or "there is no file that services could follow"
    if watched.plan.version == asked.version:
        return ""
    pairs = {name: (getattr(watched.plan, name), getattr(asked, name)) for name in _compared}
    told = [
        f"its {name} is {_named(is_)}, by the ledger {_named(asks)}"
        for name, (is_, asks) in pairs.items()
        if is_ != asks
    ]
    return "; ".join(told) or "it says the same in other weights"


_compared = ("champion", "challenger", "mode", "share", "exploration", "salt", "number")


def _named(value: str | float | None) -> str:
    """A digest as short as on every line; what there is not, in a word."""
    return value[:digits] if isinstance(value, str) and value else "nothing" if value in (None, "") else f"{value:g}"


def _set_from_ledger(platform: Platform, model: str, differs: Mapping[str, str]) -> dict[str, str]:
    """Set what does not agree; gives why something could not be set."""
    failed: dict[str, str] = {}
    # The plan first: it moves traffic.
    for these, set_them in (({"plan"}, point), (differs.keys() - {"plan"}, mirror)):
        if these & differs.keys():
            try:
                set_them(platform, model)
            except MlplatformError as error:
                failed |= dict.fromkeys(these, f"it could not be set: {error}")
    return failed


def _since(entry: Entry | None) -> Since | None:
    if entry is None:
        return None
    return Since(
        manifest=entry.to_manifest,
        since=entry.at,
        by=entry.actor,
        reason=entry.reason,
        action=entry.action,
        entry=entry.number,
    )


def _told(evidence: Mapping[str, Any]) -> str:
    """Mode and weight, where an event gives traffic; the rest of its evidence is in `--json`."""
    if "weight" not in evidence:
        return ""
    return f" [{evidence.get('mode', '')} {100 * int(evidence['weight']) / WHOLE:g} %]"


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}Z"
