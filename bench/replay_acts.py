"""Ten days of a small shop on which much happens, act by act, and what a replay must say of every answer of them.

Each act is a process of its own, so that it imports the domain as its code is then: `python -m bench.replay_acts HOME
ACT`.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from bench.replay_domain import MODEL, NAME, change_domain, write_domain
from bench.replay_gateway import Service
from bench.replay_world import MANY, ORDER, World, environment_of, patched, told_by
from mlplatform.domain.model import ModelSpec
from mlplatform.domains.synthetic.ground_truth import first_day, last_day, rows
from mlplatform.errors import Unavailable
from mlplatform.features.online.lmdb_store import LmdbStore
from mlplatform.features.tables import day_range
from mlplatform.registry.bundle import Bundle
from mlplatform.rollout import moves
from mlplatform.scoring.postprocess import Answers, plain_answers
from serving import predictor
from serving.routing import Route, Routing


def first_model(world: World) -> None:
    """The first champion: single requests, repeated ones, lists and tables; no store for a while; a correction."""
    world.land(day_range(str(first_day), str(last_day)))
    world.compute("2024-01-24")
    world.publish("2024-01-24")
    world.train()

    async def asked(service: Service) -> None:
        world.at("2024-01-25", 8)
        ids = world.ids("model", 100)
        again = world.requests(100)
        told_by(await service.ask(again, ids), "model")
        world.expect(ids, "model")
        ids = world.ids("repeated", 30)
        told_by(await service.ask(world.again(again.head(30)), ids), "model")
        world.expect(ids, "repeated")
        (name,) = world.ids("list", 1)
        told_by(await service.ask_as_list(world.requests(70), name), "model")
        world.expect([f"{name}:{number}" for number in range(70)], "list")
        (name,) = world.ids("table", 1)
        table = world.requests(70)
        told_by(await service.ask_as_table(table, name), "model")
        world.expect([f"{name}:{number}" for number in range(70)], "table")
        world.at("2024-01-25", 12)
        world.land(["2024-01-22", "2024-01-23"], slower=40)
        world.compute("2024-01-24")
        world.at("2024-01-25", 12, 1)
        await world.ask(service, "amid_publication", 15)
        world.publish("2024-01-24")
        await world.ask(service, "corrected", 80)
        with patched(LmdbStore, "lookup", _gone):
            said = await world.ask(service, "no_store", 25)
        assert all(each["degraded"] for each in said)

    world.serve(asked)


def fallback_episode(world: World) -> None:
    """The next day; then the workers are gone, and every tier answers that can."""
    world.at("2024-01-26", 2)
    world.take_in("2024-01-25")

    async def asked(service: Service) -> None:
        world.at("2024-01-26", 9)
        ids = world.ids("model", 60)
        known = world.requests(60)
        told_by(await service.ask(known, ids), "model")
        world.expect(ids, "model")
        service.kill_workers()
        told_by(await world.ask(service, "simple_model", 40), "simple_model")
        # What the store holds is another then, so that the answer is not simply repeated.
        world.land(["2024-01-24"], slower=20)
        world.compute("2024-01-25")
        world.publish("2024-01-25")
        ids = world.ids("cached", 30)
        told_by(await service.ask(world.again(known.head(30)), ids), "cached")
        world.expect(ids, "cached")

    world.serve(asked)


def rollout(world: World) -> None:
    """Another feature function and a second model: in the shadow, as a canary, as champion; then its own fallbacks."""
    world.at("2024-01-27", 2)
    world.take_in("2024-01-26")
    world.train()

    async def asked(service: Service) -> None:
        world.at("2024-01-27", 8)
        told_by(await world.ask(service, "shadowed", 60, shadow=True), "model")
        await service.shadow_rows(60)
        world.at("2024-01-27", 12)
        world.step_up(3)
        await service.follow()
        told_by(await world.ask(service, "canary", 100, shadow=True), "model")
        await service.shadow_rows(160)
        (name,) = world.ids("canary_list", 1)
        told_by(await service.ask_as_list(world.requests(40), name), "model")
        world.expect([f"{name}:{number}" for number in range(40)], "canary_list", shadow=True)
        await service.shadow_rows(200)
        world.at("2024-01-27", 16)
        world.step_up(1)
        await service.follow()
        told_by(await world.ask(service, "model", 80), "model")
        service.kill_workers()
        told_by(await world.ask(service, "rules", 40), "rules", "low_confidence")

    world.serve(asked)


def rolled_back(world: World) -> None:
    """Another view and a third model, which takes part of the traffic and is sent back."""
    world.at("2024-01-28", 2)
    world.land(["2024-01-25"], slower=30)
    world.take_in("2024-01-27")
    world.train()

    async def asked(service: Service) -> None:
        world.at("2024-01-28", 8)
        world.step_up(3)
        await service.follow()
        told_by(await world.ask(service, "canary", 80, shadow=True), "model")
        await service.shadow_rows(80)
        with patched(Routing, "of", _turned):
            # What the other arm scores in the shadow of a wrong one is not judged here.
            told_by(await world.ask(service, "wrong_arm", 10, outcome="diverged", cause="routing"), "model")
        await service.shadow_rows(90)
        world.at("2024-01-28", 12)
        moves.roll_back(world.platform, f"{NAME}/{MODEL}", by="bench", reason="it was a mistake")
        await service.follow()
        told_by(await world.ask(service, "after_rollback", 40), "model")

    world.serve(asked)


def faulty_gateways(world: World) -> None:
    """What should not happen: features patched by hand, answers rounded, a publication that hangs."""
    world.at("2024-01-29", 2)
    world.take_in("2024-01-28")

    async def asked(service: Service) -> None:
        world.at("2024-01-29", 8)
        with patched(Bundle, "features", _in_metres):
            told_by(await world.ask(service, "patched_features", 10, outcome="diverged", cause="code"), "model")
        with patched(predictor, "plain_answers", _rounded):
            told_by(await world.ask(service, "rounded", 10, outcome="diverged", cause="answer"), "model")
        world.at("2024-01-30", 2)
        world.land(["2024-01-29"])
        world.compute("2024-01-29")
        world.at("2024-01-30", 8)
        told_by(await world.ask(service, "stale_store", 10, outcome="diverged", cause="data"), "model")

    world.serve(asked)


def many(world: World) -> None:
    """Ten thousand requests in one list, for the clock."""
    world.at("2024-01-31", 2)
    world.take_in("2024-01-30")

    async def asked(service: Service) -> None:
        world.at("2024-01-31", 3)
        (name,) = world.ids("many", 1)
        orders = rows(date(2024, 1, 31), seed=11, rows_per_day=MANY).select(*ORDER)
        said = await service.ask_as_list(world.moved(orders, timedelta(seconds=5)), name)
        told_by(said, "model")
        world.expect([f"{name}:{number}" for number in range(MANY)], "many")

    world.serve(asked)


_features, _of = Bundle.features, Routing.of


def _in_metres(bundle: Bundle, requests: pl.DataFrame, view_values: pl.DataFrame) -> pl.DataFrame:
    features = _features(bundle, requests, view_values)
    return features.with_columns(pl.col("order_distance") * 1000)


def _rounded(model: ModelSpec, scores: Any) -> Answers:
    said = plain_answers(model, scores)
    return Answers(said[0], [None if each is None else round(each, 2) for each in said[1]], *said[2:])


def _turned(routing: Routing, key: str | None) -> Route:
    """The other arm than the plan gives, and sure that it is the right one."""
    route = _of(routing, key)
    return route._replace(arm="challenger" if route.arm == "champion" else "champion")


def _gone(*_: Any, **__: Any) -> Any:
    raise Unavailable("the disk of the online store is gone")


ACTS: Mapping[str, tuple[str, Callable[[World], None]]] = {
    "first": ("v1", first_model),
    "fallback": ("v1", fallback_episode),
    "rollout": ("v2", rollout),
    "back": ("v3", rolled_back),
    "faults": ("v3", faulty_gateways),
    "many": ("v3", many),
}
"""Name -> the domain's version in it, and what happens."""


def make_world(folder: Path) -> None:
    """All acts, one after the other, and the domain's code changed before those that have another."""
    (folder / "site").mkdir(parents=True)
    write_domain(folder / "site")
    version = "v1"
    for act, (wanted, _) in ACTS.items():
        if wanted != version:
            change_domain(folder / "site", version := wanted)
        subprocess.run([sys.executable, "-m", "bench.replay_acts", folder, act], check=True, env=environment_of(folder))


def main() -> None:
    """One act."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("act", choices=ACTS)
    given = arguments.parse_args()
    _, act = ACTS[given.act]
    act(World(given.folder.absolute(), given.act))


if __name__ == "__main__":
    main()
