"""What streaming is worth: how much better flight_delay predicts when its windows follow the facts, and how soon.

Offline, side by side: the windows that `late_arrival` reads published daily, and as facts arrive with a cadence of half
an hour. Both are computed by the platform's stages from the same facts, and a model is trained on each by the
platform's own training, as of the same day; both score the requests after it. Five months of the recorded year, so that
it takes some minutes; `var/bench/streaming` keeps them.

Served: all requests of some of those days, answered by the serving predictor, once from a store that is published daily
and once from one that the stream keeps up to date. Each score must be the offline one, in every bit.

Freshness: a gateway and `mlplatform stream`'s consumer in processes of their own, the consumer with four weeks in its
windows. Facts are posted one at a time, and the online store is asked until the aircraft of the fact has a value of an
instant after the post.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl

from bench.aims import aim
from bench.served_day import served_as_facts_arrive, served_daily
from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Stream
from mlplatform.domain.view import AsFactsArrive
from mlplatform.domains.flight_delay import DOMAIN
from mlplatform.features.historical import historical_features
from mlplatform.features.landing.landing import land_sample
from mlplatform.features.materialization import raise_failures, run
from mlplatform.features.online.store import open_online_store
from mlplatform.features.streaming.process import stream
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.provenance.platform import Platform, wall_clock
from mlplatform.registry.candidate import bundle_of, make_candidate
from mlplatform.training.dataset import build_training_set, save_training_set
from mlplatform.training.metrics import bootstrap, interval, replicates, value
from mlplatform.training.recipe import recipe, save_recipe

HOME = Path("var/bench/streaming")
LAST = "2013-05-31"
AS_OF = "2013-04-20"
SERVED_DAYS = tuple(date(2013, 4, 22) + timedelta(days=6 * number) for number in range(7))
"""Every sixth day of those after the training: each day of the week once."""

EVERY = timedelta(minutes=30)
WINDOWS = ("carrier", "route", "destination", "tail_number")
"""Those that the model reads."""

MODEL = DOMAIN.model("late_arrival")
FACTS = 200
NOW = datetime(2013, 6, 1, 20, tzinfo=UTC)
"""When the facts are posted, on the moved clocks of gateway and consumer."""


def streamed(domain: Domain, *, landing: bool = False) -> Domain:
    """The domain with the windows that the model reads published as facts arrive."""
    views = tuple(
        replace(view, schedule=AsFactsArrive(every=EVERY)) if view.name in WINDOWS else view for view in domain.views
    )
    flights = replace(domain.source("flights"), landing=Stream(time="recorded_at") if landing else None)
    return replace(domain, views=views, sources=(flights, *(each for each in domain.sources if each.name != "flights")))


def main() -> None:
    """Compute, train, compare; then post and wait."""
    told = argparse.ArgumentParser()
    told.add_argument("--gateway", type=int, help="port; used by the benchmark itself")
    told.add_argument("--consume", action="store_true", help="used by the benchmark itself")
    told.add_argument("--moved", type=float, default=0.0, help="seconds that the clock is behind")
    told.add_argument("--only", choices=["accuracy", "freshness"])
    given = told.parse_args()
    place = HOME.absolute()
    if given.gateway:
        _gateway(place / "fresh", given.gateway, given.moved)
    elif given.consume:
        platform = Platform(home=place / "fresh", clock=_moved(given.moved))
        stream(platform, streamed(DOMAIN, landing=True))
    else:
        _prepare(place)
        losses = _accuracy(place) if given.only != "freshness" else None
        seconds = _freshness(place) if given.only != "accuracy" else []
        print()
        if losses:
            _aim("streaming.log_loss.gain", losses.offline, ">", 0.0)
            _aim("streaming.log_loss.gain_served", losses.served, ">", 0.0)
            _aim("streaming.served_other_than_offline", losses.other, "<=", 0)
        if seconds:
            _aim("streaming.visible_s.median", statistics.median(seconds), "<=", 1.0)
            _aim("streaming.visible_s.max", max(seconds), "<=", 1.0)


def _prepare(place: Path) -> None:
    """Land and compute the days up to the facts, once for both."""
    base = place / "base"
    if (base / "ready").exists():
        return
    days = day_range(DOMAIN.start.isoformat(), LAST)
    platform = Platform(home=base)
    with _told(f"land and compute {len(days)} days up to the facts"):
        land_sample(platform, DOMAIN, DOMAIN.start, date.fromisoformat(LAST))
        for stage in stages[:-1]:
            raise_failures(run(platform, DOMAIN, stage, days, run_id="bench"))
    (base / "ready").touch()


@dataclass(frozen=True)
class _Gain:
    """In log loss, by publishing as facts arrive."""

    offline: float
    served: float
    other: int
    """Served scores that are not the offline ones in every bit."""


def _accuracy(place: Path) -> _Gain:
    found, served = {}, {}
    labels = at = None
    for name, domain in {"daily": DOMAIN, "as facts arrive": streamed(DOMAIN)}.items():
        home = place / name.replace(" ", "_")
        if not home.exists():
            shutil.copytree(place / "base", home)
        platform = Platform(home=home)
        days = day_range(domain.start.isoformat(), LAST)
        with _told(f"feature views, {name}"):
            raise_failures(run(platform, domain, "feature_store", days, run_id="bench"))
        with _told(f"train {domain.name}/{MODEL.name} as of {AS_OF}, {name}"):
            made = recipe(platform, domain, MODEL, as_of=AS_OF)
            folder = platform.training(domain.name, MODEL.name, made.key)
            save_recipe(folder, made)
            save_training_set(folder, build_training_set(platform, domain, MODEL, made), made)
            candidate = make_candidate(platform, domain, MODEL, made)
        facts = Tables(platform, domain).facts(domain.requests.facts).read().sort("event_time")
        asked = domain.requests.of_facts(facts).with_columns(label=facts.select(MODEL.label.value()).to_series())
        requests = asked.filter(pl.col("at") >= made.cut_off, pl.col("label").is_not_null())
        requests = requests.sort("at", *domain.requests.identity)
        bundle = bundle_of(platform, candidate.manifest)
        values = historical_features(platform, domain, MODEL, requests)
        found[name] = bundle.scores(bundle.features(requests, values))
        with _told(f"serve {len(SERVED_DAYS)} days, {name}"):
            if domain is DOMAIN:
                served[name] = served_daily(platform, domain, bundle, requests, SERVED_DAYS)
            else:
                home = _landed(place / "served")
                followed = streamed(DOMAIN, landing=True)
                served[name] = served_as_facts_arrive(platform, home, followed, bundle, requests, SERVED_DAYS)
        labels, at = requests["label"].to_numpy().astype(np.float64), requests["at"]
    assert labels is not None
    assert at is not None
    sample = bootstrap(at.dt.epoch("d").to_numpy().astype(np.int64), seed=MODEL.settings.seed)
    print(f"\n{len(labels):,} requests, {at[0]:%Y-%m-%d} to {at[-1]:%Y-%m-%d}, {labels.mean():.1%} late\n")
    print(f"{'windows published':20}{'log loss':>10}{'95 % interval':>20}{'AUC':>9}")
    losses = {}
    chosen = at.dt.date().is_in(SERVED_DAYS).to_numpy()
    for name, scores in found.items():
        spread = interval(replicates("log_loss", labels, scores, sample), at.dt.date().n_unique())
        losses[name] = value("log_loss", labels, scores)
        area = value("auc", labels, scores)
        print(f"{name:20}{losses[name]:>10.4f}{f'{spread.low:.4f} to {spread.high:.4f}':>20}{area:>9.4f}")
    print(f"\n{chosen.sum():,} of them served, on {len(SERVED_DAYS)} days, {labels[chosen].mean():.1%} late\n")
    print(f"{'windows published':20}{'log loss':>10}{'AUC':>9}{'equal to offline':>20}")
    of_served = {name: value("log_loss", labels[chosen], scores) for name, scores in served.items()}
    equal = {name: int((scores == found[name][chosen]).sum()) for name, scores in served.items()}
    for name, scores in served.items():
        area = value("auc", labels[chosen], scores)
        print(f"{name:20}{of_served[name]:>10.4f}{area:>9.4f}{equal[name]:>20,}")
    return _Gain(
        losses["daily"] - losses["as facts arrive"],
        of_served["daily"] - of_served["as facts arrive"],
        sum(int(chosen.sum()) - each for each in equal.values()),
    )


def _landed(home: Path) -> Path:
    """A home with what has landed and nothing computed, for a stream that must not know the days to come."""
    shutil.rmtree(home, ignore_errors=True)
    land_sample(Platform(home=home), DOMAIN, DOMAIN.start, date.fromisoformat(LAST))
    return home


def _freshness(place: Path) -> list[float]:
    """Seconds from the post of a fact until its aircraft's value is visible."""
    home = place / "fresh"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(place / "base", home)
    domain = streamed(DOMAIN, landing=True)
    assert DOMAIN.sample is not None
    of_day = DOMAIN.sample.read("flights", NOW.date()).filter(pl.col("recorded_at") < NOW)
    sent = of_day.filter(pl.col("tailnum").is_not_null()).tail(FACTS)
    moved = (wall_clock() - NOW).total_seconds()
    clock, port = _moved(moved), _free_port()
    store = open_online_store(str(home / "online"))
    seconds, posts = [], []
    with (
        _children(home, ["--gateway", str(port)], ["--consume"], moved=moved),
        closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection,
    ):
        for number, row in enumerate(sent.write_ndjson().splitlines()):
            key = (json.loads(row)["tailnum"],)
            posted, begun = clock(), time.perf_counter()
            connection.request("POST", "/facts/flights", row, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 202:
                raise AssertionError(f"{answer.status}: {body.decode()}")
            posts.append(time.perf_counter() - begun)
            while not _visible(store, f"{domain.name}/tail_number", key, posted, clock()):
                if time.perf_counter() - begun > 60:
                    raise AssertionError(f"fact {number} was not visible within a minute: {row}")
                time.sleep(0.002)
            seconds.append(time.perf_counter() - begun)
    print(f"\n{len(seconds)} facts, one at a time; seconds, min - median - max")
    print(f"{'answered 202':20}{_spread(posts)}")
    print(f"{'visible':20}{_spread(seconds)}")
    return seconds


def _visible(store: object, view: str, key: tuple[str, ...], posted: datetime, now: datetime) -> bool:
    from mlplatform.errors import Unavailable

    try:
        found = store.find(view, key, int(now.timestamp() * 1e6))  # type: ignore[attr-defined]
    except Unavailable:
        return False
    return found.event_time is not None and found.event_time > int(posted.timestamp() * 1e6)


def _gateway(home: Path, port: int, moved: float) -> None:
    """A gateway worker without a model: facts ask none."""
    import uvicorn

    from mlplatform.registry.api_keys import ApiKeys, keys_folder
    from mlplatform.settings import settings
    from serving.access import Access
    from serving.gateway import Gateway
    from serving.http_protocol import HttpProtocol
    from serving.metrics import Metrics

    gateway = Gateway(
        home / "run",
        replace(settings(), home=home, online_store=str(home / "online")),
        access=Access(ApiKeys(keys_folder(home)), required=False),
        metrics=Metrics(home / "metrics"),
        log=lambda _live, _batch: None,
        now=_moved(moved),
    )
    bundle = SimpleNamespace(domain=streamed(DOMAIN, landing=True))
    gateway._arms.champion = SimpleNamespace(predictor=SimpleNamespace(bundle=bundle))  # type: ignore[assignment]
    uvicorn.run(gateway, port=port, loop="uvloop", http=HttpProtocol, lifespan="off", log_level="warning")


@contextmanager
def _children(home: Path, *commands: list[str], moved: float) -> Iterator[None]:
    """The benchmark's own processes, until the end; begun when the consumer says so and the gateway answers."""
    children = []
    logs = [home / f"child_{number}.log" for number in range(len(commands))]
    try:
        for command, log in zip(commands, logs, strict=True):
            with log.open("wb") as output:
                children.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "bench.streaming", *command, "--moved", str(moved)],
                        stdout=output,
                        stderr=output,
                        env={**os.environ, "PYTHONUNBUFFERED": "1"},
                    )
                )
        _wait(lambda: _listens(int(commands[0][1])))
        _wait(lambda: (home / "streamed" / DOMAIN.name / "facts" / "outcomes").exists())
        yield
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            child.wait(30)


def _wait(look: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not look():
        if time.monotonic() > end:
            raise AssertionError("a process of the benchmark did not begin within two minutes; look at its log")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _moved(seconds: float) -> Callable[[], datetime]:
    return lambda: wall_clock() - timedelta(seconds=seconds)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _spread(found: list[float]) -> str:
    return f"{min(found):.3f} - {statistics.median(found):.3f} - {max(found):.3f}"


def _aim(name: str, found: float, word: str, limit: float) -> None:
    aim(name, found, word, limit, form=".4f", limit_form=".4f")


@contextmanager
def _told(what: str) -> Iterator[None]:
    print(f"{what} …", flush=True)
    begun = time.perf_counter()
    yield
    print(f"  {time.perf_counter() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()
