"""The answer of `mlplatform features as-of`, for people and for scripts."""

from collections.abc import Iterator
from datetime import datetime

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlplatform.features.as_of import AsOf, Origin, Told

landings_shown = 5
"""Landed files named for each view on a terminal, the newest ones; `--json` has all."""


def as_json(found: AsOf) -> str:
    """For scripts; each value also says whether it differs now."""
    told = msgspec.to_builtins(found)
    for written, value in zip(told["values"], found.values, strict=True):
        written["differs"] = value.differs
    return msgspec.json.format(msgspec.json.encode(told), indent=1).decode()


def show(found: AsOf, console: Console) -> None:
    """For people."""
    entity = ", ".join(f"{key}={value}" for key, value in found.entity.items())
    who = f"{found.model} of {entity}" if found.model else f"{found.domain}, {entity}"
    console.print(
        f"[bold]{escape(who)}[/bold] at {_time(found.at)}, as known at {_time(found.known_at)}", highlight=False
    )
    table = Table(box=None, pad_edge=False)
    for column in ("feature", "value", "status", "now differs"):
        table.add_column(column, no_wrap=column != "now differs")
    origins: dict[str, Origin] = {}
    for each in found.values:
        origin = each.then.origin
        if origin is not None:
            origins[each.view] = origin
        table.add_row(
            each.feature,
            _value(each.then, each.unit),
            each.then.status,
            f"[red]{escape(_now(each.now, each.unit))}[/red]" if each.differs else "",
        )
    console.print(table)
    for view, origin in origins.items():
        for line in _made_from(view, origin):
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    differing = sum(each.differs for each in found.values)
    told = f"now differs: {differing} of {len(found.values)} values" if differing else "nothing else is believed now"
    console.print(f"  {told}", highlight=False)


def _made_from(view: str, origin: Origin) -> Iterator[str]:
    yield f"{view}: true at {_time(origin.event_time)}, available since {_time(origin.available_at)}"
    yield f"  {origin.table}/{origin.partition}@{origin.revision}, known {_time(origin.known_at)}, run {origin.run_id}"
    newest = sorted(origin.landings, key=lambda each: each.raw.rpartition("/")[2], reverse=True)
    yield from (f"  {each.raw} from {each.file}, version {each.version[:12]}" for each in newest[:landings_shown])
    if len(newest) > landings_shown:
        yield f"  and {len(newest) - landings_shown} landed files more, see --json"
    yield from (f"  {each}, recorded as it was published" for each in origin.streamed)


def _value(told: Told, unit: str) -> str:
    if told.value is None:
        return ""
    value = f"{told.value:.6g}" if isinstance(told.value, float) else str(told.value)
    return escape(f"{value} {unit}".strip())


def _now(told: Told, unit: str) -> str:
    revision = f" ({told.origin.partition}@{told.origin.revision})" if told.origin else ""
    return f"{_value(told, unit) or told.status}{revision}"


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}Z"
