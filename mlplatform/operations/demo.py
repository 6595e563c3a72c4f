"""The demo: a domain's sample from landing to a checked HTTP answer, then the servers.

Running it again finds what is up to date and does only the rest. It checks what it shows: the answer over HTTP must be,
to the bit, the offline score of the same request.
"""

import json
import shlex
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import polars as pl
from rich.console import Console

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DeclarationError, PromotionRefused
from mlplatform.features.historical import historical_features
from mlplatform.features.landing.landing import days_landed_by_all, land_sample
from mlplatform.features.materialization import pending
from mlplatform.features.online.publish import publish_values
from mlplatform.features.tables import Tables, available_at, day_range, stages
from mlplatform.operations import jobs, servers
from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout.judge import load_decision
from mlplatform.scoring.request import parse_requests
from mlplatform.training.recipe import recipe

main_job_aim, second_run_aim = 180.0, 40.0
"""Seconds on two cores."""

patience = 10.0
"""Seconds to ask again for, while the fallback chain answers."""


def run_demo(platform: Platform, domain: Domain, *, ui_port: int, port: int, leave: bool, console: Console) -> bool:
    """Run the main job, serve, and (unless `leave`) stay until interrupted; True when the answer was right."""
    if domain.sample is None:
        raise DeclarationError(
            f"{domain.name} has no sample to demonstrate with. Land its data and run `mlplatform backfill`"
        )
    servers.require_free("127.0.0.1", port)
    servers.require_free("127.0.0.1", ui_port)
    started = time.monotonic()
    steps = _Steps(console)
    did = [_features(platform, domain, steps)]
    did += [_model(platform, domain, model, steps) for model in domain.models]
    served = next((model for model in domain.models if Ledger(platform).champion(f"{domain.name}/{model.name}")), None)
    if served is None:
        console.print("no model passed its gate, so there is nothing to serve; the reasons are above", style="red")
        return False
    with ExitStack() as stack:
        url = f"http://127.0.0.1:{port}"
        steps.begin(f"serve {domain.name}/{served.name}")
        log = platform.home / "logs" / "bento.log"
        command = servers.bento_command(servers.champion_tag(platform, domain, served), host="127.0.0.1", port=port)
        children = stack.enter_context(
            servers.running([command], servers.bento_environment(platform, clock="request"), log)
        )
        servers.wait_until_answering(f"{url}/readyz", children[0], log, seconds=90)
        request = _example(platform, domain)
        answer = _ask_model(url, request)
        right = _check(platform, domain, served, request, answer, console)
        steps.end()
        main_job = time.monotonic() - started
        ui = f"http://127.0.0.1:{ui_port}"
        steps.begin("start the Dagster UI")
        jobs.dagster_home(platform)
        ui_log = platform.home / "logs" / "dagster.log"
        webserver, _ = stack.enter_context(
            servers.running(servers.ui_commands(port=ui_port), servers.ui_environment(platform), ui_log)
        )
        servers.wait_until_answering(f"{ui}/server_info", webserver, ui_log, seconds=120)
        steps.end()
        _aims(console, main_job, time.monotonic() - started, first=any(did))
        console.print(f"\nUI           {ui}\npredictions  {url}  ({domain.name}/{served.name})\n")
        console.print("ask it:", style="bold")
        # As they are: a line that is wrapped or coloured does not paste.
        plain = partial(console.print, markup=False, highlight=False, soft_wrap=True)
        plain(_curl(url, request))
        plain(json.dumps(answer))
        if rest := _rest_of_sample(domain):
            console.print("\nlet the rest of it pass as live traffic, once this is stopped:", style="bold")
            plain(rest)
        if not leave:
            console.print("\nCtrl-C stops both servers; all state is in " + str(platform.home))
            _stay(children[0].wait)
    return right


class _Steps:
    """Says what is running, how far the job is, and how long each part took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()
        self._name = ""

    def begin(self, name: str) -> None:
        self._name, self._start = name, time.monotonic()
        self._console.print(f"▸ {name}", style="bold")

    def end(self, said: str = "") -> None:
        self._console.print(
            f"  {self._name}: {time.monotonic() - self._start:.1f} s{f', {said}' if said else ''}", style="green"
        )


def _features(platform: Platform, domain: Domain, steps: _Steps) -> bool:
    """Land the sample and bring every stage up to date; whether there was anything to do."""
    sample = domain.sample
    assert sample is not None
    steps.begin(f"land {sample.demo_days} days of {domain.name}")
    files = land_sample(platform, domain, sample.start, sample.start + timedelta(days=sample.demo_days - 1))
    steps.end(f"{files} files")
    landed = days_landed_by_all(platform, domain)
    days = day_range(landed[0], landed[-1])
    stale = sorted(
        {day for stage in stages for day in pending(platform, domain, stage, days)} | _unmade(platform, domain, landed)
    )
    if stale:
        # To the last day: what is recomputed changes the windows of the days after it.
        days = day_range(stale[0], landed[-1])
        steps.begin(f"six stages, {len(days)} days in one run")
        jobs.materialize_days(platform, domain, days)
        steps.end()
        return True
    publish_values(platform, domain)
    return False


def _unmade(platform: Platform, domain: Domain, days: list[str]) -> set[str]:
    """Landed days that some stage lacks: what could not be planned is not pending."""
    tables = Tables(platform, domain)
    stores = [store for stage in stages for store in tables.of(stage).values()]
    return {day for store in stores for day in set(days) - set(store.current(days))}


def _model(platform: Platform, domain: Domain, model: ModelSpec, steps: _Steps) -> bool:
    """Train, judge, promote and build one model; whether there was anything to do."""
    name = f"{domain.name}/{model.name}"
    made = recipe(platform, domain, model)
    folder = platform.training(domain.name, model.name, made.key)
    if (folder / "decision.json").exists():
        decision = load_decision(folder)
        if decision.outcome != "pass" or Ledger(platform).champion(name) == decision.candidate:
            return False
    steps.begin(f"train {name}, recipe {made.key}")
    jobs.add_recipe(platform, domain, model)
    try:
        jobs.materialize_recipe(platform, domain, model, made.key)
    except PromotionRefused as error:
        steps.end(str(error))
        return True
    steps.end("promoted")
    return True


def _example(platform: Platform, domain: Domain) -> dict[str, Any]:
    """The domain's example, asked when the newest features are published or later: the online store holds no past."""
    tables = Tables(platform, domain)
    newest = [max(current) for view in domain.views if (current := tables.features(view).current())]
    published = max((available_at(domain, day) for day in newest), default=datetime.min.replace(tzinfo=UTC))
    told = domain.requests.example.get("at")
    at = published if told is None else max(datetime.fromisoformat(str(told)), published)
    return {**domain.requests.example, "at": at.isoformat().replace("+00:00", "Z")}


def _ask_model(url: str, request: dict[str, Any]) -> dict[str, Any]:
    """The answer of the model with all its features, or the last other one: a busy machine misses a deadline or two."""
    until = time.monotonic() + patience
    while True:
        answer = _ask(url, request)
        if not answer["degraded"] or time.monotonic() > until:
            return answer


def _ask(url: str, request: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps(request).encode()
    asked = urllib.request.Request(f"{url}/predict", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def _check(
    platform: Platform,
    domain: Domain,
    model: ModelSpec,
    example: dict[str, Any],
    answer: dict[str, Any],
    console: Console,
) -> bool:
    """Whether the answer is, to the bit, the offline score of the same request at the same instant."""
    champion = Ledger(platform).champion(f"{domain.name}/{model.name}")
    assert champion is not None
    bundle = bundle_of(platform, champion)
    asked = {name: value for name, value in example.items() if name != "at"}
    at = datetime.fromisoformat(example["at"])
    request = parse_requests([asked], domain.requests.columns).with_columns(
        at=pl.lit(at, dtype=pl.Datetime("us", "UTC"))
    )
    values = historical_features(platform, domain, model, request)
    expected = bundle.answers(bundle.scores(bundle.features(request, values))).row(0, named=True)
    told = {name: answer[name] for name in ("prediction", "probability", "confidence")}
    right = told == {name: expected[name] for name in told} and answer["source"] == "model" and not answer["degraded"]
    if right:
        console.print("  the answer over HTTP equals the offline score of the same request, to the bit", style="green")
    else:
        console.print(f"  the answer {answer} is not the offline score {expected}", style="red")
    return right


def _aims(console: Console, main_job: float, whole: float, *, first: bool) -> None:
    name, seconds, aim = (
        ("demo.main_job_seconds", main_job, main_job_aim)
        if first
        else ("demo.second_run_seconds", whole, second_run_aim)
    )
    met = "met" if seconds <= aim else "short"
    console.print(f"aim  {name}  {seconds:.1f}  <= {aim:.0f}  {met}", highlight=False, soft_wrap=True)


def _rest_of_sample(domain: Domain) -> str:
    """The command that replays the days of the sample after the demo's; empty where there are none."""
    sample = domain.sample
    first = None if sample is None else sample.start + timedelta(days=sample.demo_days)
    if sample is None or first is None or first > sample.end:
        return ""
    return f"mlplatform simulate {domain.name} --from {first} --to {sample.end} --ui-port 3000"


def _curl(url: str, request: dict[str, Any]) -> str:
    return f"curl -s {url}/predict -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(request))}"


def _stay(wait: Callable[[], int]) -> None:
    try:
        wait()
    except KeyboardInterrupt:
        return
