"""What there is: how far each domain's days have come, what holds some of them back, and which models serve.

A view for people and scripts. It reads listings and small files, never a row of data, and computes nothing. What cannot
be read is told in its place and hides nothing else: one broken table is when a person looks here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Folder
from mlplatform.features.chain import due
from mlplatform.features.failures import Failure
from mlplatform.features.landing.files import is_temporary
from mlplatform.features.landing.landing import Landed, landed, place_of
from mlplatform.features.stage import Revision
from mlplatform.features.streaming.progress import StreamStatus, stream_status, streamed_views
from mlplatform.features.tables import Tables, stages
from mlplatform.operations.model_status import ModelStatus, Training, model_status, unknown_model
from mlplatform.operations.watch_status import WatchStatus, watch_status
from mlplatform.provenance.platform import Platform

Value = TypeVar("Value")

shown_at_most = 5
"""Lines of one list on a terminal; `--json` has all."""


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """Rows of one source that break its contract."""

    newest_day: str | None
    newest_rows: int
    rows: int
    """Of all days."""


@dataclass(frozen=True, kw_only=True)
class DomainStatus:
    """One domain as it stands."""

    domain: str
    newest: dict[str, str | None]
    """Stage -> newest partition that all its tables have."""

    partitions: dict[str, int]
    quarantine: dict[str, Quarantined]
    """By source."""

    due: tuple[str, ...]
    """Days that have landed, or whose code has changed, and are not computed yet."""

    waiting: dict[str, str]
    """Day -> what it waits for: a source, a day in its windows."""

    failures: tuple[Failure, ...]
    stream: StreamStatus | None
    """What publishes features as facts arrive; None: none are published so, or it could not be read."""

    strangers: dict[str, str]
    """What lies in a landing place and is not taken in, as `source/name`, and why; `name` is beside the sources."""

    models: tuple[ModelStatus, ...]
    watch: WatchStatus | None
    """What its monitors say; None: it could not be read."""

    errors: dict[str, str]
    """What could not be read, and why."""

    next: tuple[str, ...]
    """What to do now."""

    unreadable: bool
    """Whether nothing at all could be read."""


@dataclass
class _Reading:
    """Looks that may fail, one without the others."""

    looks: int = 0
    errors: dict[str, str] = field(default_factory=dict)

    def of(self, what: str, look: Callable[[], Value], otherwise: Value) -> Value:
        """What `look` gives; `otherwise`, and the error kept, where it raises."""
        self.looks += 1
        try:
            return look()
        except Exception as error:  # noqa: BLE001 - storage may raise anything, and the rest must be shown all the same
            self.errors[what] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return otherwise


def status(platform: Platform, domains: Iterable[Domain]) -> list[DomainStatus]:
    """Read tables, landing places, failures and ledger; nothing is computed and nothing raises."""
    return [_domain(platform, domain) for domain in domains]


def as_json(found: list[DomainStatus]) -> str:
    """For scripts."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1).decode()


def show(found: list[DomainStatus], console: Console) -> None:
    """For people."""
    for each in found:
        console.print(f"[bold]{each.domain}[/bold]", highlight=False)
        console.print(_stages_table(each))
        for told in _told(each):
            console.print(f"  {told}", highlight=False, soft_wrap=True)
        console.print(_models_table(each))
        if each.watch is not None:
            for told in _watched(each.watch):
                console.print(f"  {told}", highlight=False, soft_wrap=True)
        for hint in each.next:
            console.print(f"  next: {escape(hint)}", highlight=False, soft_wrap=True)
        console.print()


def human(age: timedelta) -> str:
    """An age in its two largest units.

    Examples
    --------
    >>> human(timedelta(days=3, hours=4, minutes=5))
    '3 d 4 h'
    >>> human(timedelta(minutes=61))
    '1 h 1 min'
    >>> human(timedelta(seconds=20))
    'under a minute'
    """
    minutes = int(age.total_seconds()) // 60
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min")]
    first = next((place for place, (number, _) in enumerate(parts) if number), None)
    if first is None:
        return "under a minute"
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def _domain(platform: Platform, domain: Domain) -> DomainStatus:
    reading = _Reading()
    tables = Tables(platform, domain)
    current: dict[str, dict[str, dict[str, Revision]]] = {
        stage: {name: reading.of(f"{stage} {name}", store.current, {}) for name, store in tables.of(stage).items()}
        for stage in stages
    }
    complete = {stage: set.intersection(*map(set, named.values())) for stage, named in current.items() if named}
    found = reading.of("days due", partial(due, platform, domain), None)
    unread = Landed(days={}, strangers={})
    places = {
        source.name: reading.of(f"landing of {source.name}", partial(landed, platform, domain, source), unread)
        for source in domain.sources
    }
    strangers = {f"{source}/{name}": why for source, place in places.items() for name, why in place.strangers.items()}
    if any(place is not unread for place in places.values()):  # else it would be looked for in vain, and be no error
        strangers |= reading.of("landing place", partial(_beside_the_sources, platform, domain), dict[str, str]())
    streamed = None
    if streamed_views(domain):
        streamed = reading.of("stream", partial(stream_status, platform, domain), None)
    models = tuple(
        reading.of(f"model {each.name}", partial(model_status, platform, domain, each.name), unknown_model(each.name))
        for each in domain.models
    )
    watched = reading.of("monitors", partial(watch_status, platform, domain), None)
    newest = {stage: max(complete.get(stage, ()), default=None) for stage in stages}
    days_due = found.days if found else ()
    failures = found.failures if found else ()
    return DomainStatus(
        domain=domain.name,
        newest=newest,
        partitions={stage: len(complete.get(stage, ())) for stage in stages},
        quarantine={name: _quarantined(days) for name, days in current["quarantine"].items()},
        due=days_due,
        waiting=dict(found.waiting) if found else {},
        failures=failures,
        stream=streamed,
        strangers=strangers,
        models=models,
        watch=watched,
        errors=reading.errors,
        next=tuple(_next(domain, places, newest, days_due, failures, streamed, models, reading.errors)),
        unreadable=len(reading.errors) == reading.looks,
    )


def _quarantined(days: Mapping[str, Revision]) -> Quarantined:
    newest = max(days, default=None)
    return Quarantined(
        newest_day=newest,
        newest_rows=days[newest].rows if newest else 0,
        rows=sum(each.rows for each in days.values()),
    )


def what_is_missing(domain: Domain, places: Mapping[str, Landed]) -> str | None:
    """Which sources have landed nothing, or no day that the others have; None where no source has landed anything.

    Parameters
    ----------
    places : what each source has landed, none of the days by all of them
    """
    sent = [f"{name} has {len(place.days)} days" for name, place in places.items() if place.days]
    if not sent:
        return None
    silent = [source.name for source in domain.sources if not places[source.name].days and not source.absent]
    if not silent:
        return f"no day has landed of every source ({', '.join(sent)})"
    return f"nothing has landed of {', '.join(silent)} ({', '.join(sent)})"


def _beside_the_sources(platform: Platform, domain: Domain) -> dict[str, str]:
    """What lies in the domain's landing folder and is of none of its sources."""
    if platform.landings.startswith("s3://") or not (folder := platform.landing(domain.name)).is_dir():
        return {}
    sources = [source.name for source in domain.sources]
    claimed = set(sources)
    for source in domain.sources:
        match place_of(platform, domain, source):
            case Folder(path=path) if path.is_relative_to(folder):
                claimed |= set(path.relative_to(folder).parts[:1])
    told = {}
    for entry in sorted(folder.iterdir()):
        if entry.name not in claimed and not is_temporary(entry.name):
            likely = get_close_matches(entry.name, sources, n=1) or (sources if len(sources) == 1 else [])
            hint = f"is `{likely[0]}` meant?" if likely else f"its sources are {', '.join(sources)}"
            told[f"{entry.name}/" if entry.is_dir() else entry.name] = f"it is of no source of {domain.name}; {hint}"
    return told


def _next(
    domain: Domain,
    places: Mapping[str, Landed],
    newest: Mapping[str, str | None],
    days_due: tuple[str, ...],
    failures: tuple[Failure, ...],
    streamed: StreamStatus | None,
    models: tuple[ModelStatus, ...],
    errors: Mapping[str, str],
) -> Iterator[str]:
    if errors:
        yield "run `mlplatform doctor`: some of this could not be read"
    failed = {each.day for each in failures}
    if stuck := sorted(failed - set(days_due)):
        told = ", ".join(stuck[:shown_at_most]) + (" …" if len(stuck) > shown_at_most else "")
        yield f"land a corrected file for what has failed ({told}), or mend the code; both are taken up by themselves"
    if days_due:
        yield f"the daemon computes the days that are due; without it, `mlplatform backfill {domain.name}` does"
    elif newest["raw"] is None and not failures and not errors:
        if missing := what_is_missing(domain, places):
            yield f"{missing}: a day is taken in when every source has landed it"
        elif domain.sample is None:
            yield f"nothing has landed: let the sources of {domain.name} deliver"
        else:
            yield f"nothing has landed: `mlplatform demo --domain {domain.name}` shows it all on the sample"
    if streamed is not None and not streamed.running:
        views = ", ".join(streamed.views)
        yield f"`mlplatform stream {domain.name}` publishes {views} as facts arrive; it does not run"
    if newest["feature_store"] is not None:
        for each in models:
            if each.champion is None and each.last_training is None and f"model {each.model}" not in errors:
                yield f"`mlplatform train {domain.name}/{each.model}` makes its first model"


def _stages_table(found: DomainStatus) -> Table:
    table = Table()
    for column in ("stage", "newest partition", "partitions"):
        table.add_column(column)
    for stage, newest in found.newest.items():
        table.add_row(stage, newest or "none", str(found.partitions[stage]))
    return table


def _models_table(found: DomainStatus) -> Table:
    table = Table()
    for column in ("model", "champion", "recipe", "age", "evaluation", "last training"):
        table.add_column(column)
    for model in found.models:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in model.metrics.items())
        age = "" if model.age_seconds is None else human(timedelta(seconds=model.age_seconds))
        last = model.last_training
        # A recipe that became champion is told already.
        trained = "" if last is None else last.outcome if last.recipe == model.model_version else _tried(last)
        table.add_row(
            model.model, (model.champion or "none")[:12], model.model_version or "", age, figures, escape(trained)
        )
    return table


def _watched(watch: WatchStatus) -> Iterator[str]:
    """The layers at a glance, then what is wrong, a line each."""
    said = [
        f"{monitor} to {each.day}{f': {each.harmful} harmful' if each.harmful else ''}"
        for monitor, each in watch.judged.items()
    ]
    if said:
        looked = watch.looked_seconds_ago
        loop = "never looked" if looked is None else f"looked {human(timedelta(seconds=looked))} ago"
        yield f"monitors: {', '.join(said)}; the loop {loop}"
    if watch.replays:
        night = max(each.night for each in watch.replays.values())
        shares = [f"{each.share:.1%} of {each.replayed:,} of {model}" for model, each in watch.replays.items()]
        yield f"old answers that could be given again, night of {night}: {', '.join(shares)}"
    yield from _some(
        "[red]alert[/red]",
        [
            f"{each.rule} of {each.subject}, since {each.opened:%Y-%m-%d %H:%M} UTC"
            f"{f' ({each.hushed})' if each.hushed else ''}: {each.summary}"
            for each in watch.alerts
        ],
    )
    yield from _some("[red]breaker[/red]", [f"{name} is {state}" for name, state in watch.breakers.items()])


def _tried(last: Training) -> str:
    return f"{last.recipe}: {last.outcome}" + "".join(f"\n{reason}" for reason in last.reasons[:2])


def _told(found: DomainStatus) -> Iterator[str]:
    """What is not as it should be, a line each."""
    yield from (f"[red]not readable[/red] {escape(what)}: {escape(why)}" for what, why in found.errors.items())
    for name, refused in found.quarantine.items():
        if refused.rows:
            newest = f"{refused.newest_rows:,} of them on {refused.newest_day}"
            yield f"quarantine of {escape(name)}: {refused.rows:,} rows, {newest}"
    if found.due:
        yield f"due: {len(found.due)} days, {found.due[0]} to {found.due[-1]}"
    yield from _some("waiting", [f"{day} waits for {what}" for day, what in found.waiting.items()])
    yield from _some(
        "[red]failed[/red]",
        [f"{each.day} {each.stage} {each.table}, tried {each.attempts} ×: {each.reason}" for each in found.failures],
    )
    if found.stream is not None:
        yield _stream_line(found.stream)
    yield from _some("not taken in", [f"{name}: {why}" for name, why in found.strangers.items()])


def _stream_line(stream: StreamStatus) -> str:
    state = "runs" if stream.running else "[red]does not run[/red]"
    age = stream.newest_fact_age_seconds
    newest = "no fact yet" if age is None else f"the newest fact is {human(timedelta(seconds=age))} old"
    wait = f"{'over ' if stream.more_wait else ''}{stream.waiting_events:,} events wait"
    blocked = f"; {escape(stream.blocked)}" if stream.blocked else ""
    return f"stream of {', '.join(map(escape, stream.views))}: {state}; {newest}; {wait}{blocked}"


def _some(label: str, lines: list[str]) -> Iterator[str]:
    yield from (f"{label}: {escape(line)}" for line in lines[:shown_at_most])
    if len(lines) > shown_at_most:
        yield f"{label}: and {len(lines) - shown_at_most} more, see --json"
