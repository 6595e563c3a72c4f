"""How good the monitors are: false alarms when nothing happened, faults found and how soon, and what they cost.

`make bench-monitoring`; `ARGS="--quick"` looks at fewer days, `ARGS="--only faults"` at one part. The days are those of
`bench/monitored_worlds.py`; homes and models are kept under `var/bench/monitoring`, so that a second run is quick.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from bench.aims import aim, step
from bench.monitored_days import Day, Watch, World, alerts_begun, counted, harmful, shown
from bench.monitored_faults import FAULTS, LEAK, evidently_alarms, ks_alarm, psi_alarm
from bench.monitored_worlds import (
    EVALUATED,
    HOME,
    LATE_ARRIVAL,
    QUIET,
    TRAINED_ON,
    best_loss,
    flight_platform,
    flight_pool,
    flight_world,
    shop_world,
)
from bench.monitoring_speed import speed
from mlplatform.domains.flight_delay import DOMAIN as FLIGHTS
from mlplatform.domains.synthetic import DOMAIN as SHOP
from mlplatform.features.tables import Tables
from mlplatform.monitoring.estimated import estimated_against_truth
from mlplatform.monitoring.quality.sources import sources_of_day
from mlplatform.provenance.platform import Platform
from mlplatform.retraining.backtest import backtest
from mlplatform.training.metrics import value

SHOP_SEEDS = (4101, 4102, 4103, 4104, 4105)
FLIGHT_SEEDS = (4201, 4202, 4203, 4204, 4205)
LEAK_SEEDS = (4301, 4302)
"""None of them was used where a threshold was set; the faults are drawn by these seeds too."""

WEEKS = 17.5
"""Quiet weeks of each of the five worlds of a domain: 20 months together."""

FAULT_STARTS = (21, 49, 77)
LOOKED_FOR = 7
"""Days after which a fault that was not found counts as missed."""

HARM = 0.005
"""Log loss that a fault must cost to count as harmful: half of what a worse model may cost at the gate."""

EVIDENTLY_DAYS = 12
PARTS = ("quiet", "faults", "estimated", "retraining", "speed")


@dataclass(eq=False)
class Looked:
    """A world that was watched day by day."""

    world: World
    by_day: list[set[tuple[str, str]]]
    """Harmful findings."""

    shown: list[set[tuple[str, str]]]
    """These, and findings that wake nobody."""

    layers: dict[str, str]
    """Rule -> layer."""

    watches: dict[int, Watch]
    """As they were before the days on which faults begin."""

    ks: list[bool]
    psi: list[bool]


def main() -> None:
    """Make the worlds, watch them, inject, and print the tables and the aims."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--quick", action="store_true", help="one world of each domain, and nothing trained again")
    arguments.add_argument("--only", choices=PARTS, action="append", help="one part; may be given again")
    arguments.add_argument("--worlds", type=int, default=len(SHOP_SEEDS), help="of each domain")
    told = arguments.parse_args()
    parts = told.only or [each for each in PARTS if not (told.quick and each == "retraining")]
    few = 1 if told.quick else told.worlds
    days = int(7 * WEEKS)
    if {"quiet", "faults", "estimated"} & set(parts):
        print(f"seeds: shop {SHOP_SEEDS[:few]}, flights {FLIGHT_SEEDS[:few]}, leak {LEAK_SEEDS[:few]}\n")
        with step("shops"):
            shops = [shop_world(seed, days) for seed in SHOP_SEEDS[:few]]
            model, truth = best_loss(shops[0], 14)
            print(f"  log loss of two weeks of the first: {model:.4f}; of whom the truth is known: {truth:.4f}")
            assert truth < model < truth + 0.05, "the shop's model, or its truth, is not what it was"
        with step("flights"):
            pool = flight_pool(flight_platform())
            flights = [flight_world(seed, pool, -(-days // 7)) for seed in FLIGHT_SEEDS[:few]]
        domains = {"synthetic": shops, "flight_delay": flights}
    if {"quiet", "faults"} & set(parts):
        looked = {}
        for name, worlds in domains.items():
            with step(f"watch {name}"):
                looked[name] = [_watch(world, days) for world in worlds]
        if "quiet" in parts:
            for name, of in looked.items():
                _quiet(name, of)
            _sources(few)
        if "faults" in parts:
            with step("shops with a leak"):
                leaks = [shop_world(seed, LOOKED_FOR, leak=True) for seed in LEAK_SEEDS[:few]]
            for name, of in looked.items():
                _faults(name, of, leaks if name == "synthetic" else [], 1 if told.quick else len(FAULT_STARTS))
    if "estimated" in parts:
        _estimated("synthetic", [day for world in shops for day in world.days], _evaluated(shops[0]))
        _estimated("flight_delay", pool[2], pool[1].evaluation["log_loss"].truth)
    if "retraining" in parts:
        _retraining()
    if "speed" in parts:
        for name, found, limit in speed(100_000 if told.quick else 1_000_000):
            aim(f"monitoring.{name}", found, "<=", limit)


def _watch(world: World, days: int) -> Looked:
    """All monitors over the quiet days of a world."""
    watch, rows = Watch(world), int(world.served.reference.whole.rows[0])
    found = Looked(world=world, by_day=[], shown=[], layers={}, watches={}, ks=[], psi=[])
    for number, day in enumerate(world.days[:days]):
        if number in FAULT_STARTS:
            found.watches[number] = watch.copied()
        told = watch.look(number, day)
        found.by_day.append(harmful(told))
        found.shown.append(shown(told))
        found.layers |= {each.rule: each.layer for each in told}
        found.ks.append(ks_alarm(watch.features, rows))
        found.psi.append(psi_alarm(watch.features))
        for each in told:
            if each.harmful:
                print(f"  {world.name} {world.seed} day {number}: {each.rule}: {each.summary[:200]}", flush=True)
    return found


def _quiet(name: str, looked: Sequence[Looked]) -> None:
    """False alarms of all monitors together, and those of the rules that are usual elsewhere."""
    days = sum(len(each.by_day) for each in looked)
    begun = [rule for each in looked for _, rule in alerts_begun(each.by_day)]
    weeks = days / 7
    layers = {rule: layer for each in looked for rule, layer in each.layers.items()}
    print(f"\n{name}: {days} quiet days, {weeks:.0f} weeks, {days / 30.4:.1f} months")
    for layer in ("data_quality", "model_behaviour", "outcomes"):
        own = [rule for rule in begun if layers[rule] == layer]
        print(f"  {layer:16} {len(own) / weeks:6.3f} false alarms a week: {counted(own)}")
    only_shown = sum(len(told - woke) for each in looked for told, woke in zip(each.shown, each.by_day, strict=True))
    print(f"  {'all':16} {len(begun) / weeks:6.3f}; shown, and nobody woken: {only_shown / weeks:.2f} a week")
    for rule, told in (("KS p < 0.05", "ks"), ("PSI > 0.25", "psi")):
        share = np.mean([alarm for each in looked for alarm in getattr(each, told)])
        print(f"  {rule:16} alarms on {share:.0%} of the days")
    evenly = [
        each.world.days[int(number)]
        for each in looked[:1]
        for number in np.linspace(0, days // len(looked) - 1, EVIDENTLY_DAYS)
    ]
    drifted = [evidently_alarms(looked[0].world, day) for day in evenly]
    print(
        f"  Evidently's preset alarms on {sum(each for each, _ in drifted)} of {len(drifted)} days "
        f"(half of the columns), on {sum(each for _, each in drifted)} by any column\n"
    )
    aim(f"monitoring.false_alarms_per_week.{name}", len(begun) / weeks, "<=", 0.2)


def _sources(few: int) -> None:
    """False alarms of what is said of sources, on the days that really came, and whether a feed that stops is found."""
    shop = Platform(home=(HOME / f"shop-{SHOP_SEEDS[0]}").absolute(), clock=lambda: datetime(2025, 1, 1, tzinfo=UTC))
    for platform, domain in ((shop, SHOP), (flight_platform(), FLIGHTS)):
        landed = sorted(Tables(platform, domain).raw(domain.sources[0].name).current())
        first = TRAINED_ON + EVALUATED if domain is SHOP else landed.index(QUIET[0])
        days = landed[first : first + (14 if few == 1 else 91)]
        rules = [each.rule for day in days for each in sources_of_day(platform, domain, day) if each.rule]
        print(f"sources of {domain.name} on {len(days)} days: {counted(rules)}")
        if domain is SHOP:
            after = (date.fromisoformat(landed[-1]) + timedelta(days=1)).isoformat()
            print(f"  the day after the last one: {counted([each.rule for each in sources_of_day(shop, SHOP, after)])}")


def _faults(name: str, looked: Sequence[Looked], leaks: Sequence[World], starts: int) -> None:
    """Whether each fault is found, by what, and when; and whether the usual rules alarm on its first day."""
    print(
        f"\n{name}: faults\n{'':26}{'found':>8}{'woken':>8}{'days':>6}{'loss':>9}{'KS':>6}{'PSI':>6}{'Evid.':>7}  first"
    )
    every: dict[str, list[_Try]] = {}
    for fault, inject in FAULTS.items():
        every[fault] = [
            _injected(each, watch, start, [inject(day, each.world, start) for day in _after(each.world, start)])
            for each in looked
            for start, watch in list(each.watches.items())[:starts]
        ]
        first = looked[0].world.days[FAULT_STARTS[0]]
        _row(fault, every[fault], evidently_alarms(looked[0].world, inject(first, looked[0].world, 0)))
    if leaks:
        nothing: list[set[tuple[str, str]]] = [set()] * LOOKED_FOR
        of = [Looked(each, nothing, nothing, {}, {}, [], []) for each in leaks]
        every[LEAK] = [_injected(each, Watch(each.world), 0, _after(each.world, 0), harm=True) for each in of]
        _row(LEAK, every[LEAK], evidently_alarms(leaks[0], leaks[0].days[0]))
    print("days: of data until it wakes somebody, or else is shown; loss: what it costs of log loss on its days\n")
    tries = [each for of in every.values() for each in of]
    aim(f"monitoring.faults_not_found.{name}", sum(each.found is None for each in tries), "<=", 0)
    worst = [each for each in tries if each.harm]
    late = sum(each.woken != 1 for each in worst)
    print(f"{len(worst)} of {len(tries)} do harm: {HARM} of log loss or more, answers without the model, a leak")
    aim(f"monitoring.harmful_faults_later_than_a_day.{name}", late, "<=", 0)


def _after(world: World, start: int) -> Sequence[Day]:
    return world.days[start : start + LOOKED_FOR]


@dataclass(frozen=True)
class _Try:
    """One fault in one place."""

    found: int | None
    """Days of data until something is shown of it; None: nothing is."""

    woken: int | None
    """Until it wakes somebody."""

    rule: str
    """The first that did, or else was shown."""

    cost: float
    harm: bool
    ks: bool
    psi: bool


def _injected(of: Looked, before: Watch, start: int, days: Sequence[Day], *, harm: bool = False) -> _Try:
    """Watch days with a fault until it wakes somebody; what is found on the same day without it does not count."""
    watch, rows = before.copied(), int(of.world.served.reference.whole.rows[0])
    found = woken = None
    rule, ks, psi = "", False, False
    for offset, day in enumerate(days):
        told = watch.look(start + offset, day)
        if not offset:
            ks, psi = ks_alarm(watch.features, rows), psi_alarm(watch.features)
        new = shown(told) - of.shown[start + offset]
        woke = harmful(told) - of.by_day[start + offset]
        if new and found is None:
            found, rule = offset + 1, next(each.rule for each in told if (each.rule, each.subject) in new)
        if woke:
            found, woken = found or offset + 1, offset + 1
            rule = next(each.rule for each in told if each.harmful and (each.rule, each.subject) in woke)
            break
    cost = _loss(days) - _loss(_after(of.world, start))
    return _Try(found, woken, rule, cost, harm or cost >= HARM or days[0].fallen_back is not None, ks, psi)


def _loss(days: Sequence[Day]) -> float:
    labels, scores = (np.concatenate([getattr(day, name) for day in days]) for name in ("labels", "scores"))
    known = np.isfinite(labels)
    return value("log_loss", labels[known], scores[known])


def _row(fault: str, tries: Sequence[_Try], evident: tuple[bool, bool]) -> None:
    found, woken = ([each for each in tries if getattr(each, name)] for name in ("found", "woken"))
    delays = f"{np.mean([each.woken or each.found for each in found]):.1f}" if found else "-"
    ks, psi = (np.mean([getattr(each, name) for each in tries]) for name in ("ks", "psi"))
    print(
        f"{fault:26}{f'{len(found)}/{len(tries)}':>8}{f'{len(woken)}/{len(tries)}':>8}{delays:>6}"
        f"{np.mean([each.cost for each in tries]):>+9.3f}{ks:>6.0%}{psi:>6.0%}"
        f"{'yes' if evident[0] else 'any' if evident[1] else 'no':>7}  {counted([each.rule for each in found])}",
        flush=True,
    )


def _evaluated(world: World) -> float:
    """Log loss in the evaluation."""
    of = world.evaluation.filter(pl.col("metric") == "log_loss", pl.col("segment") == "")
    return float(np.average(of["figure"].to_numpy(), weights=of["rows"].to_numpy()))


def _estimated(name: str, days: Sequence[Day], evaluation: float) -> None:
    """How far the estimates before labels are off, beside who says that a day is like the evaluation."""
    number = pl.Series(np.concatenate([np.full(len(day.labels), place) for place, day in enumerate(days)]))
    labels, scores = (np.concatenate([getattr(day, part) for day in days]) for part in ("labels", "scores"))
    told = estimated_against_truth("binary", number, labels, scores).filter(metric="log_loss")
    truth, off = (told[column].to_numpy() for column in ("truth", "error"))
    error, naive = float(np.abs(off).mean()), float(np.abs(truth - evaluation).mean())
    inside = told["inside"].to_numpy().mean()
    print(
        f"\n{name}: daily log loss of {told.height} days, {truth.mean():.4f} on average; the estimate is off by "
        f"{error:.4f}, 'as in the evaluation' ({evaluation:.4f}) by {naive:.4f}; {inside:.0%} of the truths lie in the "
        "interval\n"
    )
    aim(f"monitoring.estimated_error_of_naive.{name}", error / naive, "<=", 1.0)


def _retraining() -> None:
    """The policy and the calendars over half a year of flights."""
    with step("retraining over half a year of flights"):
        told = backtest(flight_platform(), FLIGHTS, LATE_ARRIVAL, first="2013-07-01", last="2013-12-31")
    print(f"\n{told.requests:,} requests, {told.first} to {told.last}; differences to monthly, of whole weeks\n")
    for arm in told.arms:
        gap = arm.difference
        between = "" if gap.low is None or gap.high is None else f"{gap.low:+.4f} to {gap.high:+.4f}"
        print(f"{arm.name:10}{len(arm.trainings):>4} trainings {arm.loss:.4f}  {gap.point or 0.0:+.4f}  {between}")
    of = {arm.name: arm for arm in told.arms}
    print()
    aim("monitoring.retraining.loss_above_monthly", of["policy"].loss - of["monthly"].loss, "<=", 0.0)
    trainings = len(of["policy"].trainings) / max(1, len(of["monthly"].trainings))
    aim("monitoring.retraining.trainings_of_monthly", trainings, "<", 1.0)


if __name__ == "__main__":
    main()
