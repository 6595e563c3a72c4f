"""Which open version answers whom, as roster and plan change."""

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from mlplatform.domain.column import Column
from mlplatform.domain.rollout import Rollout
from mlplatform.errors import BundleCorrupt, InvalidRequest
from mlplatform.registry.bundle import Bundle
from mlplatform.rollout.plan import WHOLE, Plan
from mlplatform.rollout.plan_file import plan_path, write_plan
from mlplatform_tests.fakes.simulated_loop import simulate
from mlplatform_tests.fakes.tiny_domain import AT
from mlplatform_tests.fakes.two_arms import NORTH, Bundles, Logged, Workers, bundles, opened
from serving.arms import AGAIN_SECONDS, Arms
from serving.bulk import answer_bulk
from serving.gateway import Gateway
from serving.live_model import LiveModel
from serving.metrics import Metrics
from serving.roster import Roster, Version, write_roster

MODEL = "harbour/waits"
VALUES = ("north", 250.0, "NO")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    """For reading only."""
    return bundles(tmp_path_factory.mktemp("arms"))


def version(bundle: Bundle) -> Version:
    """As the roster names it."""
    return Version(digest=bundle.digest, bundle=str(bundle.folder), sockets=("one", "two"), since="")


@dataclass
class World:
    """Arms, and what they go by."""

    home: Path
    made: Bundles
    known: dict[str, Bundle] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    number: int = 0

    def roster(self, live: Bundle, *, warm: Bundle | None = None, challenger: Bundle | None = None) -> None:
        """Which versions have workers."""
        self.known |= {each.digest: each for each in (live, warm, challenger) if each is not None}
        kept, beside = (version(each) if each is not None else None for each in (warm, challenger))
        write_roster(self.home, Roster(live=version(live), warm=kept, challenger=beside))

    def plan(self, champion: Bundle, **told: Any) -> Plan:
        """Who answers whom."""
        self.number += 1
        plan = Plan(model=MODEL, champion=champion.digest, number=self.number, **told)
        write_plan(self.home, plan)
        return plan

    def play(self, main: Callable[[Arms], Awaitable[None]]) -> str:
        """Let something happen; gives what `/metrics` says at the end."""
        metrics = Metrics(self.home / "metrics")
        log = Logged()

        async def open_version(wanted: Version) -> LiveModel:
            await asyncio.sleep(0.5)
            if wanted.digest in self.broken:
                raise BundleCorrupt("fitted.json", "it is broken")
            self.opened.append(wanted.digest)
            bundle = self.known[wanted.digest]
            return opened(bundle, self.made.home, Workers(bundle, lambda: 0.001), metrics, log)

        async def played() -> None:
            clock = asyncio.get_running_loop().time
            arms = Arms(self.home, self.home, open_version=open_version, log=log, metrics=metrics, clock=clock)
            await arms.start()
            await asyncio.sleep(1.0)
            arms.look()
            await main(arms)

        simulate(played())
        told = metrics.exposition().decode()
        metrics.close()
        return told


@pytest.fixture
def world(tmp_path: Path, made: Bundles) -> World:
    """An empty one."""
    return World(tmp_path, made)


def answers(arms: Arms, key: str = "r", values: tuple[Any, ...] = VALUES) -> tuple[str, str]:
    """(digest, arm) of who answers a request."""
    assert arms.champion is not None
    live, route = arms.of(arms.champion, values, key)
    return live.predictor.bundle.digest, route.arm


def test_a_rollback_opens_nothing(world: World, made: Bundles) -> None:
    """Champion and challenger, then the challenger for all, and back: references change, within one look."""
    world.roster(made.champion, challenger=made.alike)
    one, other = made.champion.digest, made.alike.digest

    async def main(arms: Arms) -> None:
        assert answers(arms) == (one, "champion")
        world.plan(made.champion, challenger=other, mode="canary", weight=WHOLE)
        arms.look()
        assert answers(arms) == (other, "challenger")
        world.plan(made.alike)
        world.roster(made.alike, warm=made.champion)
        arms.look()
        assert answers(arms) == (other, "champion")
        assert arms.told()["aliases"] == {"champion": other, "warm": one}
        world.plan(made.champion)
        arms.look()
        assert answers(arms) == (one, "champion")

    world.play(main)
    assert sorted(world.opened) == sorted([one, other])


def test_a_champion_that_is_not_open_leaves_it_to_who_is_live(world: World, made: Bundles) -> None:
    """And one whose files are broken is tried again."""
    world.roster(made.champion)
    world.broken.add(made.alike.digest)

    async def main(arms: Arms) -> None:
        world.plan(made.alike)
        world.roster(made.champion, challenger=made.alike)
        arms.look()
        await asyncio.sleep(1.0)
        assert answers(arms) == (made.champion.digest, "champion")
        assert "fitted.json" in arms.told()["refused"][made.alike.digest]
        world.broken.clear()
        await asyncio.sleep(AGAIN_SECONDS)
        arms.look()
        await asyncio.sleep(1.0)
        assert answers(arms) == (made.alike.digest, "champion")
        assert arms.told()["refused"] == {}

    world.play(main)


def test_who_has_no_key_or_finds_no_challenger_goes_to_the_champion(world: World, made: Bundles) -> None:
    """Counted, by reason; the key is the column that the champion declares, as text."""
    sticky = copy.copy(made.champion)
    sticky.model = replace(sticky.model, rollout=Rollout(sticky="flag"))
    world.roster(sticky, challenger=made.alike)
    plan = world.plan(sticky, challenger=made.alike.digest, mode="a/b", weight=5_000, salt="s")
    arm = {flag: plan.arm(flag) for flag in ("NO", "PA", "SE", "DK", "FI", "IS")}
    assert len(set(arm.values())) == 2

    async def main(arms: Arms) -> None:
        for flag, expected in arm.items():
            assert {answers(arms, f"request {number}", ("north", 9.0, flag))[1] for number in range(9)} == {expected}
        assert answers(arms, values=("north", 9.0, None))[1] == "champion"
        rows = pl.DataFrame({"berth": ["north"] * 7, "length": [9.0] * 7, "flag": [*arm, None]}).with_columns(at=AT)
        assert arms.champion is not None
        routed = arms.of_rows(arms.champion, rows, [f"r:{row}" for row in range(7)])
        assert [route.arm for _, route in routed] == [*arm.values(), "champion"]
        assert arms.challenger is not None
        arms.challenger.predictor.workers.connected = 0  # type: ignore[misc]  # a fake's
        assert {answers(arms, values=("north", 9.0, flag)) for flag in arm} == {(sticky.digest, "champion")}
        for flag, expected in arm.items():
            _, route = arms.of(arms.champion, ("north", 9.0, flag), "r")
            assert (route.propensity == 0.0) == (expected == "challenger")

    told = world.play(main)
    assert 'mlplatform_rerouted_total{model="harbour/waits",reason="no_key"} 2.0' in told
    lost = sum(each == "challenger" for each in arm.values())
    assert f'mlplatform_rerouted_total{{model="harbour/waits",reason="not_open"}} {2 * lost:.1f}' in told


def test_a_challenger_that_needs_what_nobody_sends_takes_no_part(world: World, made: Bundles) -> None:
    """It answers nobody and scores nothing, and `/model` says why."""
    needs = copy.copy(made.alike)
    gate = Column(name="gate", dtype=pl.String(), meaning="gate")
    requests = replace(needs.domain.requests, columns=(*needs.domain.requests.columns, gate))
    needs.domain = replace(needs.domain, requests=requests)
    world.roster(made.champion, challenger=needs)
    world.plan(made.champion, challenger=needs.digest, mode="canary", weight=WHOLE)

    async def main(arms: Arms) -> None:
        assert answers(arms) == (made.champion.digest, "champion")
        assert "it needs gate" in arms.told()["refused"][needs.digest]
        assert arms.champion is not None
        assert arms.champion.shadow is None
        assert not arms.told()["plan"]["challenger_open"]

    world.play(main)


def test_a_plan_that_is_nonsense_is_told_and_not_followed(world: World, made: Bundles) -> None:
    """The last good one is in force."""
    world.roster(made.champion, challenger=made.alike)
    plan = world.plan(made.champion, challenger=made.alike.digest, mode="canary", weight=WHOLE)

    async def main(arms: Arms) -> None:
        plan_path(world.home, MODEL).write_text("{}")
        arms.look()
        told = arms.told()["plan"]
        assert (told["version"], told["mode"], told["share"]) == (plan.version, "canary", 1.0)
        assert told["fault"]
        assert answers(arms)[1] == "challenger"

    world.play(main)


def test_shadows_live_as_long_as_the_plan_wants_them(world: World, made: Bundles) -> None:
    """A larger weight leaves them as they are, the end of the rollout ends them."""
    world.roster(made.champion, challenger=made.alike)

    async def main(arms: Arms) -> None:
        assert arms.champion is not None
        world.plan(made.champion, challenger=made.alike.digest, mode="shadow")
        arms.look()
        first = arms.champion.shadow
        assert first is not None
        world.plan(made.champion, challenger=made.alike.digest, mode="canary", weight=500)
        arms.look()
        assert arms.champion.shadow == first
        assert arms.challenger is not None
        assert arms.challenger.shadow is not None
        challenger = arms.challenger
        world.plan(made.champion)
        arms.look()
        assert arms.champion.shadow is challenger.shadow is None

    world.play(main)


def test_who_stands_in_for_the_champion_answers_everybody(world: World, made: Bundles) -> None:
    """No canary runs against a version that the plan does not compare, and `/model` says so."""
    world.roster(made.other, challenger=made.alike)
    world.plan(made.champion, challenger=made.alike.digest, mode="canary", weight=WHOLE // 2, salt="s")

    async def main(arms: Arms) -> None:
        assert {answers(arms, f"k{number}") for number in range(50)} == {(made.other.digest, "champion")}
        assert arms.challenger is None
        assert arms.champion is not None
        assert arms.champion.shadow is None
        assert arms.of(arms.champion, VALUES, "k")[1].propensity == 0.0
        told = arms.told()["plan"]
        assert f"its champion {made.champion.digest[:12]} is not open here" in told["fault"]
        assert told["share"] == 0.0
        world.roster(made.champion, challenger=made.alike)
        arms.look()
        await asyncio.sleep(1.0)
        assert {answers(arms, f"k{number}")[1] for number in range(50)} == {"champion", "challenger"}
        assert arms.told()["plan"]["fault"] == ""

    world.play(main)


def test_a_challenger_that_is_not_open_is_a_fault_of_the_plan_here(world: World, made: Bundles) -> None:
    """`/model` names it, whether or not anything was tried."""
    world.roster(made.champion)
    world.plan(made.champion, challenger=made.alike.digest, mode="shadow")

    async def main(arms: Arms) -> None:
        assert f"its challenger {made.alike.digest[:12]} is not open here" in arms.told()["plan"]["fault"]

    world.play(main)


@pytest.mark.parametrize("wrong", ["model", "digest"])
def test_what_is_not_what_the_roster_names_is_not_served(world: World, made: Bundles, wrong: str) -> None:
    """A bundle of another model, or another one of this model, is closed again, and `/model` says why."""
    world.roster(made.champion, challenger=made.alike)
    stranger = copy.copy(made.alike if wrong == "model" else made.other)
    if wrong == "model":
        stranger.manifest = replace(stranger.manifest, model="harbour/another")
    world.known[made.alike.digest] = stranger
    world.plan(made.champion, challenger=made.alike.digest, mode="canary", weight=WHOLE, salt="s")

    async def main(arms: Arms) -> None:
        assert answers(arms) == (made.champion.digest, "champion")
        expected = "harbour/another" if wrong == "model" else made.other.digest[:12]
        assert f"it is {'a version of ' if wrong == 'model' else ''}{expected}" in arms.faults[made.alike.digest]

    world.play(main)


def test_a_version_that_fits_by_now_is_not_told_as_unfit(world: World, made: Bundles) -> None:
    """It did not fit the champion before; that is no fault of the one there is now."""
    needs = copy.copy(made.alike)
    gate = Column(name="gate", dtype=pl.String(), meaning="gate")
    requests = replace(needs.domain.requests, columns=(*needs.domain.requests.columns, gate))
    needs.domain = replace(needs.domain, requests=requests)
    world.roster(made.champion, challenger=needs)
    world.plan(made.champion, challenger=needs.digest, mode="canary", weight=WHOLE)

    async def main(arms: Arms) -> None:
        assert needs.digest in arms.told()["refused"]
        world.plan(needs)
        arms.look()
        assert answers(arms) == (needs.digest, "champion")
        assert arms.told()["refused"] == {}

    world.play(main)


def test_the_champion_answers_whom_the_challenger_raises_on(world: World, made: Bundles) -> None:
    """Whatever it raises, no caller sees it; it is counted."""
    world.roster(made.champion, challenger=made.alike)
    world.plan(made.champion, challenger=made.alike.digest, mode="canary", weight=WHOLE, salt="s")

    def raises(rows: pl.DataFrame) -> dict[int, InvalidRequest]:
        raise pl.exceptions.ComputeError("a rule that cannot be computed")

    async def main(arms: Arms) -> None:
        assert arms.champion is not None
        assert arms.challenger is not None
        arms.challenger.predictor.broken = raises  # type: ignore[method-assign]
        now = asyncio.get_running_loop().time()
        gateway: Any = SimpleNamespace(_arms=arms)
        told = json.loads(await Gateway._answer(gateway, arms.champion, NORTH, "r", "", now))
        assert told["manifest"] == made.champion.digest

    assert 'mlplatform_rerouted_total{model="harbour/waits",reason="failed"} 1.0' in world.play(main)


def test_of_many_rows_the_champion_answers_those_that_the_challenger_refuses(
    world: World, made: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of single ones: only those, and counted."""

    async def at_once(work: Callable[..., Any], *given: Any) -> Any:
        return work(*given)

    monkeypatch.setattr(asyncio, "to_thread", at_once)  # the simulated loop waits for no thread
    world.roster(made.champion, challenger=made.alike)
    world.plan(made.champion, challenger=made.alike.digest, mode="canary", weight=WHOLE, salt="s")

    def second(rows: pl.DataFrame) -> dict[int, InvalidRequest]:
        return {1: InvalidRequest({"long": "broken: too long"})}

    async def main(arms: Arms) -> None:
        assert arms.champion is not None
        assert arms.challenger is not None
        arms.challenger.predictor.broken = second  # type: ignore[method-assign]
        now = asyncio.get_running_loop().time()
        body = b"[" + b",".join([NORTH] * 3) + b"]"
        _, told = await answer_bulk(arms, arms.champion, body, "application/json", "", "r", now)
        one, other = made.champion.digest, made.alike.digest
        assert [each["manifest"] for each in json.loads(told)["answers"]] == [other, one, other]

    assert 'mlplatform_rerouted_total{model="harbour/waits",reason="refused"} 1.0' in world.play(main)


def test_the_key_of_a_table_is_found_by_its_name(world: World, made: Bundles) -> None:
    """Its columns stand as their sender put them."""
    sticky = copy.copy(made.champion)
    sticky.model = replace(sticky.model, rollout=Rollout(sticky="flag"))
    world.roster(sticky, challenger=made.alike)
    plan = world.plan(sticky, challenger=made.alike.digest, mode="a/b", weight=5_000, salt="s")
    flags = ["NO", "PA", "SE", "DK", "FI", "IS"]

    async def main(arms: Arms) -> None:
        rows = pl.DataFrame({"flag": flags, "length": [9.0] * 6, "berth": ["north"] * 6}).with_columns(at=AT)
        assert arms.champion is not None
        routed = arms.of_rows(arms.champion, rows, flags)
        assert [route.arm for _, route in routed] == [plan.arm(flag) for flag in flags]

    world.play(main)
