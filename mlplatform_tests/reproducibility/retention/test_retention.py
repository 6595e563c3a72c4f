"""Retention: what is referred to is never removed; what is removed leaves a tombstone; a kill costs nothing."""

import math
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import DataError, RemovedByPolicy, Unsigned
from mlplatform.features import removal
from mlplatform.features.removal import is_open
from mlplatform.features.tombstones import tombstones
from mlplatform.monitoring.pickup import log_table, logged, pick_up, rows_by_day
from mlplatform.monitoring.prediction_log import encode, log_folder
from mlplatform.provenance.content_hash import content_hash
from mlplatform.provenance.segments import Segments, finished
from mlplatform.registry.candidate import bundle_of, named_bundle
from mlplatform.reproducibility.replay.find import find
from mlplatform.reproducibility.retention import answer_rows, leftovers, retention
from mlplatform.reproducibility.retention.holds import hold, holds, release
from mlplatform.reproducibility.retention.reproducible_until import Until, reproducible_until
from mlplatform.reproducibility.retention.retention import Plan, apply, plan
from mlplatform.training.dataset import load_rows
from mlplatform_tests.fakes.answered import answered
from mlplatform_tests.fakes.kept_world import MODEL, KeptWorld
from mlplatform_tests.fakes.killed import Killed, killed_at

POLICY = {"predictions": timedelta(days=10), "superseded": timedelta(days=4), "models": timedelta(days=6)}


@pytest.fixture
def world(tmp_path: Path) -> KeptWorld:
    """Three days landed under a policy."""
    made = KeptWorld(tmp_path, **POLICY)
    for day in ("2024-02-28", "2024-02-29", "2024-03-01"):
        made.land(day)
    return made


def going(found: Plan) -> list[str]:
    """What goes, without the domain."""
    return [each.name.removeprefix("synthetic/") for each in found.goes]


def why(found: Plan) -> dict[str, str]:
    """What stays although it has the age -> why."""
    return {each.name.removeprefix("synthetic/"): each.why for each in found.stays}


def until_of(world: KeptWorld, digest: str) -> Until:
    """Until when one manifest is reproducible."""
    return reproducible_until(world.platform, world.domain, [digest])[digest]


def day_of(world: KeptWorld) -> str:
    """Today."""
    return f"{world.clock():%Y-%m-%d}"


def test_without_a_policy_nothing_goes(tmp_path: Path) -> None:
    """That is how a domain is declared unless it says otherwise."""
    world = KeptWorld(tmp_path)
    world.land("2024-03-01")
    world.answer(world.train())
    world.land("2024-03-01")
    world.days(10_000)
    assert apply(world.platform, world.domain, actor="ada").goes == ()
    assert tombstones(world.platform, world.domain) == {}


def test_what_is_needed_by_nobody_goes_and_leaves_tombstones(world: KeptWorld) -> None:
    """A day of answers, then with nobody left who needs them its model and the revisions of then."""
    old, day = world.train(), day_of(world)
    world.answer(old)
    world.days(1)
    world.land("2024-02-28")
    world.days(9)
    assert going(plan(world.platform, world.domain)) == []
    assert set(why(plan(world.platform, world.domain)).values()) >= {
        f"answers of {day}", f"{old[:12]}: answers of {day}"
    }  # fmt: skip
    world.days(1)
    recipe = f"{MODEL}/2024-03-01-{old[:8]}"
    superseded = [f"{table}/2024-02-28@1" for table in
                  ("raw/orders", "base/orders", "derived/deliveries", "feature_store/courier")]  # fmt: skip
    assert going(plan(world.platform, world.domain)) == [day, old, recipe, *superseded]
    before = world.hashes()
    assert going(apply(world.platform, world.domain, actor="ada")) == [day, old, recipe, *superseded]
    assert before.keys() - world.hashes().keys() == set(superseded)
    told = tombstones(world.platform, world.domain)
    assert [name.removeprefix("synthetic/") for _, name in told] == [day, old, recipe, *superseded]
    assert {each.actor for each in told.values()} == {"ada"}
    assert told["answers", day].rows == 2
    assert str(told["answers", day]) == f"answers {day} was removed by policy on 2024-03-12 (answers go after 10 days)"
    assert going(apply(world.platform, world.domain, actor="ada")) == []


def test_who_asks_for_what_is_gone_is_told_so(world: KeptWorld) -> None:
    """Each of the four kinds says when and by which rule it went, wherever it is asked for."""
    old, day = world.train(), day_of(world)
    world.answer(old)
    world.land("2024-02-28")
    world.days(11)
    apply(world.platform, world.domain, actor="ada")
    told = "was removed by policy on 2024-03-12 "
    with pytest.raises(RemovedByPolicy, match=f"^revision synthetic/base/orders/2024-02-28@1 {told}"):
        world.stage("base/orders").read(numbers={"2024-02-28": 1})
    for named in (old, old[:12], f"2024-03-01-{old[:8]}"):
        with pytest.raises(RemovedByPolicy, match=f"^bundle {old} {told}"):
            named_bundle(world.platform, f"synthetic/{MODEL}", named)
    with pytest.raises(RemovedByPolicy, match=told):
        bundle_of(world.platform, old)
    folder = world.platform.training("synthetic", MODEL, f"2024-03-01-{old[:8]}")
    with pytest.raises(RemovedByPolicy, match=f"^training_set synthetic/{MODEL}/2024-03-01-{old[:8]} {told}"):
        load_rows(folder)
    assert (folder / "recipe.json").exists()
    for ask in (
        lambda: logged(world.platform, world.domain, day),
        lambda: find(world.platform, world.domain, "x", day=day),
    ):
        with pytest.raises(RemovedByPolicy, match=f"^answers {day} {told}"):
            ask()
    until = until_of(world, old)
    assert until.at == world.clock()
    assert until.why.startswith(f"bundle {old} {told}")


@pytest.mark.parametrize(
    ("moves", "reason"),
    [
        ([("promote", "champion", "old")], "champion of synthetic/late_order"),
        ([("promote", "challenger", "old")], "challenger of synthetic/late_order"),
        ([("promote", "champion", "old"), ("promote", "champion", "new")], "rollback target of synthetic/late_order"),
        ([("promote", "champion", "new"), ("approve", "challenger", "old")], "approved for synthetic/late_order"),
    ],
)
def test_who_may_have_to_answer_stays_with_all_it_was_made_from(
    world: KeptWorld, moves: list[tuple[str, str, str]], reason: str
) -> None:
    """Champion, challenger, rollback target, approved and waiting: bundle, training set, and revisions down to raw."""
    digests = {"old": world.train()}
    world.days(1)
    world.land("2024-02-29")
    digests["new"] = world.train()
    for action, alias, name in moves:
        world.move(action, alias, digests[name])  # type: ignore[arg-type]
    world.days(50)
    kept = why(plan(world.platform, world.domain))
    assert kept[digests["old"]] == reason
    assert kept["raw/orders/2024-02-29@1"] == f"{digests['old'][:12]}: {reason}"
    before = world.hashes()
    apply(world.platform, world.domain, actor="ada")
    assert world.hashes() == before
    assert until_of(world, digests["old"]).at is None


def test_a_hold_keeps_what_it_names_until_it_is_released(world: KeptWorld) -> None:
    """A model, a manifest, days, a request: each keeps its answers, its models and their revisions."""
    old, day = world.train(), day_of(world)
    world.answer(old)
    world.land("2024-02-28")
    by: dict[str, Any] = {"by": "ada", "reason": "a complaint"}
    asked = logged(world.platform, world.domain, day)
    assert asked is not None
    request = asked.select("request_id").collect()["request_id"][0]
    before = world.hashes()
    for named in (
        {"model": MODEL},
        {"days": (date.fromisoformat(day), date.fromisoformat(day))},
        {"request_id": request},
    ):
        placed = hold(world.platform, world.domain, **by, **named)
        world.days(20)
        found = apply(world.platform, world.domain, actor="ada")
        assert why(found)[day] == str(placed)
        assert str(placed).endswith("(ada: a complaint)")
        assert world.hashes() == before
        assert rows_by_day(world.platform, world.domain) == {day: 2}
        assert (world.platform.bundles / old).is_dir()
        assert until_of(world, old).at is None
        ended = release(world.platform, world.domain, placed.name, by="bob", reason="settled")
        assert (ended.released_by, ended.released_for, ended.in_force) == ("bob", "settled", False)
    assert old in going(apply(world.platform, world.domain, actor="ada"))
    assert [each.in_force for each in holds(world.platform, world.domain)] == [False, False, False]


def test_a_hold_is_signed_and_of_one_thing_that_there_is(world: KeptWorld) -> None:
    """Anything else is refused, and nothing is held."""
    by: dict[str, Any] = {"by": "ada", "reason": "a complaint"}
    with pytest.raises(Unsigned):
        hold(world.platform, world.domain, by=" ", reason="why", model=MODEL)
    for wrong in ({}, {"model": MODEL, "request_id": "x"}, {"manifest": "a" * 64}):
        with pytest.raises(DataError, match="a hold is of one thing"):
            hold(world.platform, world.domain, **by, **wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no range of days"):
        hold(world.platform, world.domain, **by, days=(date(2024, 3, 2), date(2024, 3, 1)))
    with pytest.raises(DataError, match="has no hold 'abc'"):
        release(world.platform, world.domain, "abc", by="ada", reason="why")
    assert holds(world.platform, world.domain) == []
    placed = hold(world.platform, world.domain, **by, model=MODEL)
    release(world.platform, world.domain, placed.name, **by)
    with pytest.raises(DataError, match="was released already"):
        release(world.platform, world.domain, placed.name, **by)


def test_until_when_a_model_can_be_made_again_follows_from_the_policy(world: KeptWorld) -> None:
    """Not before its last answer goes, not before its own age, and not before a revision of it does."""
    old = world.train()
    made = world.clock()
    assert until_of(world, old).at == made + POLICY["models"]
    world.days(1)
    world.land("2024-02-28")
    found = until_of(world, old)
    assert (found.at, found.why) == (made + timedelta(days=5), "superseded revisions go after 4 days")
    world.answer(old)
    found = until_of(world, old)
    assert found.at == datetime(2024, 3, 13, tzinfo=UTC)
    world.move("promote", "champion", old)
    found = until_of(world, old)
    assert (found.at, found.why[:32]) == (None, "champion of synthetic/late_order")


def test_a_manifest_that_does_not_tell_what_it_was_made_from_keeps_everything(world: KeptWorld) -> None:
    """Better too much than what somebody needs."""
    world.land("2024-02-28")
    world.move("promote", "champion", "f" * 64)
    world.days(50)
    found = plan(world.platform, world.domain)
    assert going(found) == []
    assert set(why(found).values()) == {
        f"nothing tells what {'f' * 12} was made from (champion of synthetic/late_order)"
    }


def test_a_removal_that_is_killed_at_any_line_is_completed_by_the_next(tmp_path: Path) -> None:
    """What is needed is there after each kill; after the next run all is gone that was to go, with its tombstones."""
    at_rest: list[dict[str, str]] = []
    for line in count(1, 41):
        world = KeptWorld(tmp_path / str(line), **POLICY)
        for day in ("2024-02-29", "2024-03-01", "2024-03-01"):
            world.land(day)
        old = world.train()
        world.answer(old)
        world.days(11)
        new = world.train()
        world.move("promote", "champion", new)
        world.answer(new)
        world.answer(new)
        world.land("2024-02-29")
        world.days(1)
        try:
            with killed_at(line, retention, removal, answer_rows, leftovers):
                apply(world.platform, world.domain, actor="ada")
            killed = False
        except Killed:
            killed = True
            assert (
                content_hash(world.stage("base/orders").read(numbers={"2024-02-29": 1}))
                == world.hashes()["base/orders/2024-02-29@1"]
            )
            plan(world.platform, world.domain)
            assert not is_open(world.stage("base/orders").uri, None)
            apply(world.platform, world.domain, actor="ada")
        assert going(plan(world.platform, world.domain)) == []
        told = {name for _, name in tombstones(world.platform, world.domain)}
        assert told >= {"2024-03-01", old, "synthetic/base/orders/2024-03-01@1"}
        assert {path.name for path in world.platform.bundles.iterdir()} == {new, f"{old}.removed"}
        assert rows_by_day(world.platform, world.domain) == {"2024-03-12": 4}
        log = DeltaTable(log_table(world.platform, world.domain))
        assert log.metadata().configuration["delta.appendOnly"] == "true"
        at_rest.append(world.hashes())
        assert at_rest[-1] == at_rest[0]
        if not killed:
            break
    assert line > 200


def test_compaction_leaves_every_answer_as_it_is_and_what_was_picked_up_known(world: KeptWorld) -> None:
    """One file of a day that is over, sorted by id; today's are left alone; no segment is taken twice after it."""
    digest = world.train()
    for first in range(0, 12, 3):
        ids = [sha256(str(first + each).encode()).hexdigest() for each in range(3)]
        noon = int(world.clock().timestamp()) * 1_000_000_000
        segments = Segments(log_folder(world.platform.home, DOMAIN.name), size=1 << 20, spares=1)
        odd: dict[str, Any] = {
            "probability": [None, math.nan, -0.0],
            "request_id": ids,
            "received": [noon, noon + 1000, noon + 2000],
        }
        assert segments.append(encode(answered(3, manifest=digest, **odd)), 3)
        segments.close()
        picked = shutil.copytree(
            log_folder(world.platform.home, DOMAIN.name), world.platform.home / "copies" / str(first)
        )
        pick_up(world.platform, DOMAIN)
    world.days(1)
    for _ in range(3):
        world.answer(digest)
    uri = log_table(world.platform, world.domain)

    def files(day: str) -> list[str]:
        return DeltaTable(uri).file_uris(file_pruning_predicate=[("day", "=", day)])

    before = pl.read_delta(uri)
    assert apply(world.platform, world.domain, actor="ada").compacted == ("2024-03-01",)
    assert [len(files(day)) for day in ("2024-03-01", "2024-03-02")] == [1, 3]
    assert as_texts(pl.read_delta(uri)) == as_texts(before)
    assert pl.read_parquet(files("2024-03-01"), hive_partitioning=False)["request_id"].is_sorted()
    assert DeltaTable(uri).metadata().configuration["delta.appendOnly"] == "true"
    assert apply(world.platform, world.domain, actor="ada").compacted == ()
    # The segments as they were before they were picked up, as after a backup was put back.
    shutil.copytree(picked, log_folder(world.platform.home, DOMAIN.name), dirs_exist_ok=True)
    assert finished(log_folder(world.platform.home, DOMAIN.name))
    assert pick_up(world.platform, DOMAIN).rows == 0
    assert pl.read_delta(uri).height == before.height


def as_texts(rows: pl.DataFrame) -> list[str]:
    """Each row with all digits of its numbers, whatever the order."""
    return sorted(str(row) for row in rows.rows())


moves = st.lists(
    st.one_of(
        st.tuples(st.just("land"), st.sampled_from(["2024-02-28", "2024-02-28", "2024-02-29"])),
        st.tuples(st.just("train"), st.none()),
        st.tuples(st.just("answer"), st.integers(0, 2)),
        st.tuples(st.just("promote"), st.integers(0, 2)),
        st.tuples(st.just("hold"), st.integers(0, 2)),
        st.tuples(st.just("days"), st.sampled_from([1, 3, 7])),
        st.tuples(st.just("apply"), st.none()),
    ),
    min_size=4,
    max_size=14,
)


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(moves)
@example([("land", "2024-02-28"), ("answer", 0), ("land", "2024-02-28")])
@example([("promote", 0), ("land", "2024-02-28")])
@example([("land", "2024-02-28"), ("hold", 0), ("train", None), ("answer", 0), ("hold", 0), ("days", 7)])
def test_what_is_referred_to_is_never_removed(history: list[tuple[str, object]]) -> None:
    """After any history of days, corrections, trainings, answers, promotions, holds and removals, to the bit."""
    with TemporaryDirectory() as folder:
        world = KeptWorld(Path(folder), **POLICY)
        world.land("2024-02-28")
        models = [world.train()]
        answers: list[tuple[datetime, str]] = []
        held: set[str] = set()
        champions: list[str] = []
        written = world.hashes()
        for step, told in [*history, ("days", 7), ("apply", None)]:
            match step:
                case "land":
                    # A day goes by with each step: what is followed at once was never believed.
                    world.days(1)
                    world.land(str(told))
                    written |= world.hashes()
                case "train":
                    models.append(world.train())
                case "days":
                    world.days(int(str(told)))
                case "apply":
                    needed = set(_referred_to(world, answers, held, champions, written))
                    apply(world.platform, world.domain, actor="ada")
                    assert needed <= world.hashes().keys()
                    for name in world.hashes():
                        table, _, revision = name.rpartition("/")
                        day, _, number = revision.partition("@")
                        assert content_hash(world.stage(table).read(numbers={day: int(number)})) == written[name]
                    for digest in champions[-2:]:
                        assert (world.platform.bundles / digest).is_dir()
                    missing = written.keys() - world.hashes().keys()
                    assert {name.removeprefix("synthetic/") for kind, name in tombstones(world.platform, world.domain)
                            if kind == "revision"} == missing  # fmt: skip
                case _:
                    there = [each for each in models if (world.platform.bundles / each).is_dir()]
                    if not there:
                        continue
                    digest = there[int(str(told)) % len(there)]
                    if step == "answer":
                        world.days(1)
                        world.answer(digest)
                        answers.append((world.clock(), digest))
                    elif step == "promote" and digest not in champions:
                        world.move("promote", "champion", digest)
                        champions.append(digest)
                    elif step == "hold" and not held:
                        today = world.clock().date()
                        hold(world.platform, world.domain, by="ada", reason="why", days=(today, today))
                        held.add(today.isoformat())


def _referred_to(
    world: KeptWorld,
    answers: list[tuple[datetime, str]],
    held: set[str],
    champions: list[str],
    written: dict[str, str],
) -> Iterator[str]:
    """What must be there, told by brute force and by nothing of the room: names as in `written`."""
    kept = [
        (at, digest)
        for at, digest in answers
        if at.date().isoformat() in held
        or datetime.combine(at.date() + timedelta(days=11), datetime.min.time(), UTC) > world.clock()
    ]
    times: dict[tuple[str, str], list[tuple[int, datetime]]] = {}
    inputs: dict[str, tuple[str, ...]] = {}
    for table in ("raw/orders", "base/orders", "derived/deliveries", "feature_store/courier"):
        for each in world.stage(table).revisions():
            times.setdefault((table, each.partition), []).append((each.number, each.known_at))
            inputs[f"{table}/{each.partition}@{each.number}"] = each.inputs
    for (table, day), known in times.items():
        yield f"{table}/{day}@{max(known)[0]}"
        for at, _ in kept:
            believed = [number for number, since in known if since <= at]
            if believed:
                yield f"{table}/{day}@{max(believed)}"
    for digest in {*champions[-2:], *(digest for _, digest in kept)}:
        pinned = (world.platform.bundles / digest / "inputs.json").read_text()
        for day, number in re.findall(r'"(\d{4}-\d\d-\d\d)": \[(\d+)', pinned):
            name = f"feature_store/courier/{day}@{number}"
            while name in written:
                yield name
                name = inputs[name][0]
