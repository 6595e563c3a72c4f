"""The replay of a day: its requests asked in their order, its files landed when it is over, and all that follows.

One day after the other, on one simulated clock. What has been done stands in the home: a day that has landed is over,
and its line stands in the record (`simulation/<domain>.jsonl`), so a replay that was stopped goes on where it was. A
request has the same id each time, and is asked only where the log does not know it.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError
from mlplatform.features.landing.landing import days_landed_by_all, land
from mlplatform.monitoring.behaviour.tables import latest_behaviour
from mlplatform.monitoring.findings_table import judgements
from mlplatform.monitoring.outcomes.latest import latest_outcomes
from mlplatform.monitoring.pickup import answered, answers_on, instants_by_day, rows_by_day
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform.simulation.clock import SimulatedClock
from mlplatform.simulation.recorded import Recorded, one_day
from mlplatform.simulation.traffic import request_ids

files_land_after = timedelta(minutes=10)
"""Of a day that is over: the last answers are in the log by then, and features have until an hour past midnight."""

step = timedelta(hours=1)
"""By which the clock moves through a day."""

takes_over_within = 20.0
"""Seconds for the service to follow a promotion, on a machine that has much to do."""


class Ran(Protocol):
    """A run of the platform, as far as it is told of."""

    @property
    def job(self) -> str:
        """Its name, without the domain's."""

    @property
    def partition(self) -> str:
        """What it was a run of."""

    @property
    def succeeded(self) -> bool:
        """Whether it came to its end."""

    @property
    def seconds(self) -> float:
        """That it took."""

    @property
    def findings(self) -> tuple[str, ...]:
        """Checks that did not pass."""


class Daemon(Protocol):
    """Does all there is to do at the time that it is."""

    def tick(self, *, answers: int, day: str) -> Iterator[Ran]:
        """Give each run that it has executed."""

    def is_training(self, ran: Any) -> bool:
        """Whether a run has trained a model."""


class Asking(Protocol):
    """The service that answers."""

    def ask(self, requests: pl.DataFrame, ids: Sequence[str]) -> Counter[int]:
        """Ask each; gives how many had which HTTP status."""

    def manifest(self) -> str:
        """Digest of the model that answers now."""


@dataclass(kw_only=True)
class Replayed:
    """What came of a day."""

    day: str
    asked: int = 0
    not_answered: int = 0
    """Refused by the service, or without any answer."""

    sources: dict[str, int] = field(default_factory=dict)
    """Source of the answer -> how many."""

    p99_ms: float | None = None
    """Of the service's own time per request; the machine's, not the simulated clock's."""

    versions: list[str] = field(default_factory=list)
    """Model versions that answered, in the order of their first answer."""

    losses: dict[str, float] = field(default_factory=dict)
    """Of the model's metric: `estimated …` of this day, `true …` of the newest day whose labels are in."""

    losses_of: str = ""
    """The day of the true one."""

    findings: list[str] = field(default_factory=list)
    """What monitors have found this night that does harm, and checks of other runs that did not pass."""

    trainings: list[str] = field(default_factory=list)
    took_over: str = ""
    """Recipe of the version that answers from the next day on, where it is another."""

    injected: dict[str, str] = field(default_factory=dict)
    """`fault@day` -> column."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By part."""

    def as_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


class Record:
    """The days that were replayed in a home, a line each."""

    def __init__(self, platform: Platform, domain: Domain) -> None:
        self.path: Path = platform.home / "simulation" / f"{domain.name}.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """Oldest first; a line that was torn by a kill is none."""
        found = []
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def add(self, replayed: Replayed) -> None:
        """Keep a day."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + replayed.as_json() + "\n")


def days_to_replay(platform: Platform, domain: Domain, first: date, last: date) -> list[date]:
    """Days that neither were replayed nor have landed.

    Raises
    ------
    DataError
        The log has answers of later days: they would be judged by features of their past.
    """
    done = {line["day"] for line in Record(platform, domain).lines()}
    over = landed_until(platform, domain)
    days = [first + number * one_day for number in range((last - first).days + 1)]
    todo = [day for day in days if day.isoformat() not in done and (over is None or day > over)]
    if todo:
        # Those of the next day's first minutes may be there: they are asked before the files of this one land.
        known = instants_by_day(platform, domain)
        later = [
            day
            for day in rows_by_day(platform, domain)
            if day > todo[0].isoformat() and (day not in known or known[day][1] >= closing(todo[0]))
        ]
        if later:
            raise DataError(
                f"the prediction log of {domain.name} has answers of {later[0]}"
                f"{f' to {later[-1]}' if len(later) > 1 else ''}, which is after {todo[0]}: a replay would mix its "
                "days with them. Replay in a home of its own (MLPLATFORM_HOME)"
            )
    return todo


def landed_until(platform: Platform, domain: Domain) -> date | None:
    """The last day that every source has landed, whatever the simulated time."""
    afterwards = Platform(
        home=platform.home,
        clock=lambda: datetime.max.replace(tzinfo=UTC),
        environment=platform.environment,
        landings=platform.landings,
        storage_options=platform.storage_options,
        s3=platform.s3,
    )
    days = days_landed_by_all(afterwards, domain)
    return date.fromisoformat(days[-1]) if days else None


@dataclass(kw_only=True)
class Replay:
    """The days of one domain, one after the other.

    Parameters
    ----------
    clock : the platform's own
    last : the last day that will be replayed
    rows_per_day : requests that are asked, drawn evenly; None: all. What lands is whole
    tell : is told what is being done
    """

    platform: Platform
    clock: SimulatedClock
    domain: Domain
    model: ModelSpec
    recorded: Recorded
    daemon: Daemon
    last: date
    rows_per_day: int | None = None
    tell: Callable[[str], None] = lambda _: None

    def prepare(self, first: date) -> list[Ran]:
        """Land the days before the first one that never landed, without asking anything, and bring all up to date."""
        self.clock.move_to(closing(first - one_day))
        over = landed_until(self.platform, self.domain)
        day = self.recorded.sample.start if over is None else over + one_day
        while day < first:
            self._land(day)
            day += one_day
        self.tell(f"bringing the days before {first} up to date")
        return list(self.daemon.tick(answers=0, day=first.isoformat()))

    def replay(self, day: date, service: Asking) -> Replayed:
        """One day, from its first request to the decisions of the night after it."""
        told = Replayed(day=day.isoformat(), injected=self._injected(day))
        part = _Parts(told.seconds)
        with part("requests"):
            known = answers_on(self.platform, self.domain, told.day)
            requests, ids = self._left_to_ask(day)
        with part("asking"):
            statuses = self._ask(day, requests, ids, service)
        told.asked, given = sum(statuses.values()), statuses[200]
        told.not_answered = told.asked - given
        with part("asking"):
            self._ask_until_closing(day, service)
        self.clock.move_to(closing(day))
        with part("landing"):
            self._land(day)
        before = Ledger(self.platform).champion(self._name)
        failures: dict[str, list[str]] = {}
        for ran in self.daemon.tick(answers=known + given, day=told.day):
            self.tell(f"{told.day}: {ran.job} {ran.partition}")
            name = "training" if self.daemon.is_training(ran) else ran.job
            told.seconds[name] = told.seconds.get(name, 0.0) + ran.seconds
            failures.setdefault(ran.job, []).extend(ran.findings)
            if self.daemon.is_training(ran):
                told.trainings.append(f"{ran.job.removesuffix('_training')} {ran.partition}")
        self._look_at_log(told)
        self._look_at_monitors(told, failures)
        champion = Ledger(self.platform).champion(self._name)
        if champion is not None and champion != before:
            with part("take-over"):
                told.took_over = self._taken_over(service, champion)
        Record(self.platform, self.domain).add(told)
        return told

    @property
    def _name(self) -> str:
        return f"{self.domain.name}/{self.model.name}"

    def _injected(self, day: date) -> dict[str, str]:
        active = [each for each in self.recorded.injections if day >= each.since]
        return {f"{each.fault}@{each.since}": each.column for each in active}

    def _left_to_ask(self, day: date) -> tuple[pl.DataFrame, list[str]]:
        """The requests of a day that the log does not know yet, with their ids."""
        requests = self.recorded.requests(day)
        if self.rows_per_day is not None and requests.height > self.rows_per_day:
            places = [number * requests.height // self.rows_per_day for number in range(self.rows_per_day)]
            requests = requests[places]
        ids = pl.Series(request_ids(day.isoformat(), requests.height), dtype=pl.String)
        log = answered(self.platform, self.domain, day.isoformat())
        if log is None:
            return requests, ids.to_list()
        unknown = ~ids.is_in(log.select("request_id").collect().to_series().implode())
        return requests.filter(unknown), ids.filter(unknown).to_list()

    def _ask(self, day: date, requests: pl.DataFrame, ids: list[str], service: Asking) -> Counter[int]:
        """Step by step: what is asked while an hour passes is asked before the clock goes on."""
        midnight = datetime.combine(day, time_of_day(), UTC)
        statuses: Counter[int] = Counter()
        asked = 0
        while asked < requests.height or self.clock() < midnight + one_day - step:
            self.clock.move_to(self.clock() + step if self.clock() >= midnight else midnight + step)
            until = int((requests["at"] < self.clock()).sum())
            if until > asked:
                statuses += service.ask(requests[asked:until], ids[asked:until])
                asked = until
                self.tell(f"{day}: {asked:,} of {requests.height:,} asked")
        return statuses

    def _ask_until_closing(self, day: date, service: Asking) -> None:
        """The first minutes of the next day pass before the files of this one land."""
        if day < self.last:
            requests, ids = self._left_to_ask(day + one_day)
            early = int((requests["at"] < closing(day)).sum())
            if early:
                service.ask(requests[:early], ids[:early])

    def _land(self, day: date) -> None:
        for source in self.domain.sources:
            rows = self.recorded.sent(source, day)
            if rows is not None:
                land(self.platform, self.domain, source, day, rows)

    def _look_at_log(self, told: Replayed) -> None:
        """What the log says of the day's answers."""
        log = answered(self.platform, self.domain, told.day)
        if log is None:
            return
        rows = log.select("at", "source", "model_version", "total_us").collect().sort("at")
        told.sources = dict(rows["source"].value_counts(sort=True).iter_rows())
        told.versions = rows["model_version"].unique(maintain_order=True).to_list()
        slow = rows["total_us"].quantile(0.99)
        told.p99_ms = None if slow is None else round(slow / 1000, 1)

    def _look_at_monitors(self, told: Replayed, failures: Mapping[str, list[str]]) -> None:
        """What they have found this night, the losses that they tell of, and what else did not pass."""
        since = (date.fromisoformat(told.day) - 60 * one_day).isoformat()
        tonight = [
            each for each in judgements(self.platform, self.domain, since=since) if each.known_at == self.clock()
        ]
        told.findings += [
            f"{finding.day} {finding.summary}" for each in tonight for finding in each.findings if finding.harmful
        ]
        # A monitor that has spoken has said why its check did not pass.
        spoken = {each.monitor for each in tonight}
        told.findings += [each for job, found in failures.items() if job not in spoken for each in found]
        metric = self.model.gate.metric
        for behaviour in latest_behaviour(self.platform, self.domain, until=told.day).get(told.day, []):
            for figure in behaviour.figures:
                own = behaviour.model == self.model.name and not behaviour.is_shadow
                if own and (figure.name, figure.part) == ("estimated", metric) and figure.value is not None:
                    told.losses.setdefault(f"estimated {metric}", figure.value)
        for outcome in latest_outcomes(self.platform, self.domain, until=told.day):
            if outcome.model == self.model.name and outcome.mature and outcome.figure.point is not None:
                told.losses[f"true {metric}"] = outcome.figure.point
                told.losses_of = outcome.day

    def _taken_over(self, service: Asking, champion: str) -> str:
        """Wait until the service answers with the champion; what it is called, or empty: it does not."""
        until = time.monotonic() + takes_over_within
        while service.manifest() != champion:
            if time.monotonic() > until:
                return ""
            time.sleep(0.1)
        return champion[:12]


def closing(day: date) -> datetime:
    """When the files of a day land."""
    return datetime.combine(day + one_day, time_of_day(), UTC) + files_land_after


class _Parts:
    """Adds up the seconds of parts."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started


def injected_before(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """`fault@day` -> the column that it was given in days that are over: it must not change on the way."""
    return {fault: column for line in lines for fault, column in line.get("injected", {}).items()}
