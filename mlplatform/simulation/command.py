"""`mlplatform simulate`: recorded days as live traffic, from the first request to the next model."""

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import date

from rich.console import Console

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError
from mlplatform.monitoring.pickup import pick_up
from mlplatform.operations import jobs, servers
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import Ledger
from mlplatform.simulation.clock import SimulatedClock
from mlplatform.simulation.importance import important_column
from mlplatform.simulation.jobs import simulated_daemon
from mlplatform.simulation.progress import Progress
from mlplatform.simulation.recorded import Injection, Recorded, one_day, parse_injection
from mlplatform.simulation.replay import Record, Replay, closing, days_to_replay, injected_before
from mlplatform.simulation.traffic import Service


def simulate(
    platform: Platform,
    domain: Domain,
    first: date,
    last: date,
    *,
    model: str | None = None,
    inject: Sequence[str] = (),
    column: str | None = None,
    rows_per_day: int | None = None,
    url: str | None = None,
    ui_port: int | None = None,
    as_json: bool = False,
    console: Console,
) -> None:
    """Replay days until they are over, or until interrupted; what is done stays done.

    Raises
    ------
    DataError
        The sample does not hold the days, the home has answers of later ones, or no model can be promoted.
    Unavailable
        The service does not answer, or another daemon looks after the home.
    """
    clock = SimulatedClock(closing(first - one_day))
    platform = replace(platform, clock=clock)
    spec = domain.model(model.removeprefix(f"{domain.name}/")) if model else served_model(platform, domain)
    Recorded(domain, spec).require_days(first, last)
    require_in_time(inject, last)
    pick_up(platform, domain)
    days = days_to_replay(platform, domain, first, last)
    progress = Progress(console, domain, spec, as_json=as_json)
    progress.plan(first, last, days)
    if not days:
        return
    recorded = Recorded(domain, spec, _injections(platform, domain, spec, inject, column))
    with ExitStack() as stack:
        stack.enter_context(progress)
        daemon = stack.enter_context(simulated_daemon(platform, domain, say=progress.tell))
        replay = Replay(
            platform=platform,
            clock=clock,
            domain=domain,
            model=spec,
            recorded=recorded,
            daemon=daemon,
            last=last,
            rows_per_day=rows_per_day,
            tell=progress.tell,
        )
        try:
            findings = [each for ran in replay.prepare(days[0]) for each in ran.findings]
            if Ledger(platform).champion(f"{domain.name}/{spec.name}") is None:
                told = f": {'; '.join(findings)}" if findings else ""
                raise DataError(
                    f"{domain.name}/{spec.name} has no champion on {days[0]}, and the days before it do not make one"
                    f"{told}. Begin later (--from), or see `mlplatform train {domain.name}/{spec.name}`"
                )
            if ui_port is not None:
                stack.enter_context(_ui(platform, ui_port, progress.tell))
            service = stack.enter_context(_service(platform, domain, spec, url, progress.tell))
            for day in days:
                progress.show(replay.replay(day, service))
        except KeyboardInterrupt:
            progress.interrupted()


def served_model(platform: Platform, domain: Domain) -> ModelSpec:
    """The first model that has a champion, else the first of all."""
    ledger = Ledger(platform)
    return next((each for each in domain.models if ledger.champion(f"{domain.name}/{each.name}")), domain.models[0])


def require_in_time(inject: Sequence[str], last: date) -> None:
    """Refuse faults of which no day would show anything: a day that has been replayed is not replayed again.

    Raises
    ------
    DeclarationError
        It is no fault.
    DataError
        It begins after the last day.
    """
    for text in inject:
        if parse_injection(text, "").since > last:
            raise DataError(
                f"{text} begins after {last}, the last day that is replayed. Begin it earlier, or end later"
            )


def _injections(
    platform: Platform, domain: Domain, model: ModelSpec, inject: Sequence[str], column: str | None
) -> list[Injection]:
    """What is asked for, each with its column: the one named, the one it had on days before, or what weighs most."""
    before = injected_before(Record(platform, domain).lines())
    names = Recorded(domain, model).columns()
    champion = Ledger(platform).champion(f"{domain.name}/{model.name}")
    found = []
    for text in inject:
        chosen = column or before.get(text)
        if chosen is None:
            nullable = [each.name for each in domain.requests.columns if each.nullable and each.name in names]
            among = nullable if text.startswith("nulls@") and nullable else names
            bundle = None if champion is None else bundle_of(platform, champion)
            chosen = important_column(bundle, among) if bundle is not None else next(iter(among), "")
        found.append(parse_injection(text, chosen))
    return found


@contextmanager
def _service(
    platform: Platform, domain: Domain, model: ModelSpec, url: str | None, tell: Callable[[str], None]
) -> Iterator[Service]:
    """The service that is named, else one of our own, until the end."""
    if url is not None:
        with Service(url) as service:
            service.require_own_time()
            yield service
        return
    tell(f"starting the service of {domain.name}/{model.name}")
    port = _free_port()
    log = platform.home / "logs" / "simulated_bento.log"
    command = servers.bento_command(servers.champion_tag(platform, domain, model), host="127.0.0.1", port=port)
    with servers.running([command], servers.bento_environment(platform, clock="request"), log) as children:
        own = f"http://127.0.0.1:{port}"
        servers.wait_until_answering(f"{own}/readyz", children[0], log, seconds=90)
        with Service(own) as service:
            yield service


@contextmanager
def _ui(platform: Platform, port: int, tell: Callable[[str], None]) -> Iterator[None]:
    """The webserver of Dagster alone: its daemon would read the wall's clock."""
    servers.require_free("127.0.0.1", port)
    tell("starting the Dagster UI")
    jobs.dagster_home(platform)
    webserver, _daemon = servers.ui_commands(port=port)
    log = platform.home / "logs" / "dagster.log"
    with servers.running([webserver], servers.ui_environment(platform), log) as children:
        servers.wait_until_answering(f"http://127.0.0.1:{port}/server_info", children[0], log, seconds=120)
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
