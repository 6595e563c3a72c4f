"""Status: what a person sees of days, failures and models, also where a part of it cannot be read."""

import fcntl
import io
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from mlplatform.domain.source import Folder
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.domains.synthetic.ground_truth import first_day, rows
from mlplatform.features.chain import run_chain
from mlplatform.features.streaming.process import stream
from mlplatform.features.streaming.progress import lock_file
from mlplatform.features.tables import Tables, day_range, stages
from mlplatform.operations.status import DomainStatus, as_json, human, show, status
from mlplatform.provenance.platform import Platform
from mlplatform.rollout.judge import load_decision
from mlplatform.training.recipe import recipe, save_recipe
from mlplatform_tests.fakes.streamed_shop import SHOP, orders, streamed_shop
from mlplatform_tests.fakes.synthetic_home import ALL_DAYS, Clock, TrainedHome, land_orders, platform_in

DAYS = day_range("2024-01-01", "2024-01-05")
RAW_LOG = "tables/synthetic/raw/orders/_delta_log"


def one(platform: Platform) -> DomainStatus:
    """The status of the synthetic domain."""
    (found,) = status(platform, [DOMAIN])
    return found


def compute(platform: Platform, days: list[str]) -> None:
    """One run over some days; what fails is kept as a failure."""
    for _stage, _outcome in run_chain(platform, DOMAIN, days, run_id="test"):
        pass


def shown(found: DomainStatus) -> str:
    """What a person reads."""
    console = Console(file=io.StringIO(), width=200)
    show([found], console)
    told = console.file
    assert isinstance(told, io.StringIO)
    return told.getvalue()


def test_an_empty_home_says_what_to_do_next(tmp_path: Path) -> None:
    """Nothing there is no error; the first command is named, and looking makes nothing."""
    platform = platform_in(tmp_path / "home")
    found = one(platform)
    assert (found.errors, found.unreadable, found.newest) == ({}, False, dict.fromkeys(stages))
    assert "`mlplatform demo --domain synthetic`" in shown(found)
    assert not platform.home.exists()


def test_a_domain_without_a_sample_is_told_to_let_its_sources_deliver(tmp_path: Path) -> None:
    """There is no demo to run for it."""
    (found,) = status(platform_in(tmp_path), [replace(DOMAIN, sample=None)])
    assert found.next == ("nothing has landed: let the sources of synthetic deliver",)


def test_the_source_that_has_landed_nothing_is_named(platform: Platform) -> None:
    """One of two has its days: it is not said that nothing has landed, neither here nor by the one that computes."""
    land_orders(platform, DAYS[:3])
    two = replace(DOMAIN, sources=(*DOMAIN.sources, replace(DOMAIN.sources[0], name="returns")))
    (found,) = status(platform, [two])
    assert found.next == (
        "nothing has landed of returns (orders has 3 days): a day is taken in when every source has landed it",
    )
    later = replace(DOMAIN.sources[0], name="returns", absent=frozenset({first_day + timedelta(days=99)}))
    (found,) = status(platform, [replace(DOMAIN, sources=(*DOMAIN.sources, later))])
    assert found.next[0].startswith("no day has landed of every source (orders has 3 days)")


def test_a_folder_beside_those_of_the_sources_is_named_with_the_likely_one(platform: Platform) -> None:
    """`order/` for `orders`; a place that a source declares there is its own."""
    folder = platform.landing("synthetic")
    for name in ("order", "orders", "elsewhere", ".hidden"):
        (folder / name).mkdir(parents=True)
    own = replace(DOMAIN.sources[0], name="returns", landing=Folder(path=folder / "elsewhere"))
    (found,) = status(platform, [replace(DOMAIN, sources=(*DOMAIN.sources, own))])
    assert found.strangers == {"order/": "it is of no source of synthetic; is `orders` meant?"}
    assert "not taken in: order/: it is of no source of synthetic; is `orders` meant?" in shown(found)


def test_landed_days_are_due_until_they_are_computed(platform: Platform) -> None:
    """The command that computes them is named, and then the one that trains."""
    land_orders(platform, DAYS)
    before = one(platform)
    assert before.due == tuple(DAYS) and any("`mlplatform backfill synthetic`" in hint for hint in before.next)
    compute(platform, DAYS)
    after = one(platform)
    assert after.due == () and after.newest == dict.fromkeys(stages, DAYS[-1])
    assert after.partitions == dict.fromkeys(stages, len(DAYS))
    assert "`mlplatform train synthetic/late_order` makes its first model" in after.next


def test_quarantined_rows_are_counted_by_source_for_the_newest_day_and_overall(platform: Platform) -> None:
    """Two refused rows on an older day, one on the newest."""
    frames = {
        day: rows(first_day, rows_per_day=30).with_columns(
            items=pl.when(pl.int_range(pl.len()) < refused).then(pl.lit(99, pl.Int16)).otherwise("items")
        )
        for day, refused in ((DAYS[0], 2), (DAYS[1], 1))
    }
    land_orders(platform, DAYS[:2], frames)
    compute(platform, DAYS[:2])
    found = one(platform)
    refused = found.quarantine["orders"]
    assert (refused.newest_day, refused.newest_rows, refused.rows) == (DAYS[1], 1, 3)
    assert f"quarantine of orders: 3 rows, 1 of them on {DAYS[1]}" in shown(found)


def test_a_stream_that_does_not_run_is_told_with_its_command(tmp_path: Path) -> None:
    """How far it had come and what waits, for people and for scripts; a domain without streamed views says nothing."""
    shop = streamed_shop(tmp_path).at(1, 22)
    shop.send("first", orders(DAYS[0])[:20])
    newest = max(each for each in orders(DAYS[0])[:20]["reported_at"] if each <= shop.clock())
    stream(shop.platform, SHOP, once=True)
    shop.at(3, 22).send("second", orders(DAYS[0])[20:])
    (found,) = status(shop.platform, [SHOP])
    (hint,) = (each for each in found.next if "`mlplatform stream synthetic`" in each)
    assert "publishes courier, district as facts arrive; it does not run" in hint
    told = f"does not run; the newest fact is {human(shop.clock() - newest)} old; 1 events wait"
    assert f"stream of courier, district: {told}" in shown(found)
    (scripts,) = json.loads(as_json([found]))
    assert (scripts["stream"]["running"], scripts["stream"]["waiting_events"]) == (False, 1)
    with lock_file(shop.platform.home, SHOP).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (found,) = status(shop.platform, [SHOP])
    assert "stream of courier, district: runs; the newest fact is" in shown(found)
    assert not any("mlplatform stream" in each for each in found.next)
    assert one(shop.platform).stream is None and "stream" not in shown(one(shop.platform))


def test_a_day_that_waits_says_for_which_day(platform: Platform) -> None:
    """A window over a day that has not landed."""
    days = [*DAYS[:2], *DAYS[3:]]
    land_orders(platform, days)
    compute(platform, days)
    waiting = one(platform).waiting
    assert set(waiting) == set(DAYS[3:]) and all(DAYS[2] in what for what in waiting.values())
    assert f"waiting: {DAYS[3]} waits for {DAYS[2]}" in shown(one(platform))


def test_an_open_failure_is_shown_with_its_reason_and_attempts(platform: Platform) -> None:
    """A malformed file, tried twice; the other days went on."""
    land_orders(platform, DAYS)
    (platform.landing("synthetic") / "orders" / f"{DAYS[1]}.parquet").write_bytes(b"PAR1 no Parquet PAR1")
    compute(platform, DAYS)
    compute(platform, DAYS)
    found = one(platform)
    (failure,) = found.failures
    assert (failure.day, failure.stage, failure.table, failure.attempts) == (DAYS[1], "raw", "orders", 2)
    assert f"failed: {DAYS[1]} raw orders, tried 2 ×:" in shown(found) and "not a readable Parquet" in shown(found)
    assert found.next[0].startswith(f"land a corrected file for what has failed ({DAYS[1]})")


def test_a_failed_day_asks_for_a_corrected_file_until_one_has_landed(platform: Platform) -> None:
    """Unchanged it is not left to the daemon; once it has changed, it is."""
    land_orders(platform, DAYS[:1])
    (platform.landing("synthetic") / "orders" / f"{DAYS[0]}.parquet").write_bytes(b"PAR1 no Parquet PAR1")
    compute(platform, DAYS[:1])
    (hint,) = one(platform).next
    assert hint.startswith(f"land a corrected file for what has failed ({DAYS[0]})")
    land_orders(platform, DAYS[:1])
    (hint,) = one(platform).next
    assert hint.startswith("the daemon computes the days that are due")


def test_a_stranger_in_the_landing_place_is_named(platform: Platform) -> None:
    """A file whose name is no day."""
    land_orders(platform, DAYS[:1])
    folder = platform.landing("synthetic") / "orders"
    (folder / f"{DAYS[0]}.parquet").rename(folder / "first_of_january.parquet")
    (name,) = one(platform).strangers
    assert name.startswith("orders/first_of_january")
    assert f"not taken in: {name}: " in shown(one(platform))


def test_the_champion_has_an_age_and_figures(trained: TrainedHome) -> None:
    """Since the ledger's entry, by the platform's clock."""
    later = replace(trained.platform, clock=Clock(trained.entry.at + timedelta(days=3, hours=4)))
    champion, *others = one(later).models
    assert (champion.champion, champion.age_seconds) == (trained.entry.to_manifest, 3 * 86400 + 4 * 3600)
    assert champion.model_version == trained.recipe.key and champion.metrics["auc"] > 0.5
    assert champion.last_training is not None
    assert (champion.last_training.recipe, champion.last_training.outcome) == (trained.recipe.key, "pass")
    assert [each.champion for each in others] == [None, None]
    assert "3 d 4 h" in shown(one(later))


def test_a_later_training_that_failed_is_shown_beside_the_champion(own_trained: TrainedHome) -> None:
    """The gate's outcome and reasons; and one that was never judged is unfinished."""
    platform, folder = own_trained.platform, own_trained.folder
    decision = load_decision(folder)
    worse = replace(decision.rules[0], outcome="fail", reason="it is worse")
    later = replace(own_trained.recipe, as_of="2024-01-02")  # trained later, on older data
    save_recipe(folder.parent / later.key, later)
    unfinished = one(platform).models[0].last_training
    assert unfinished is not None and (unfinished.recipe, unfinished.outcome) == (later.key, "unfinished")
    failed = replace(decision, outcome="fail", rules=(worse, *decision.rules[1:]))
    (folder.parent / later.key / "decision.json").write_text(failed.to_json())
    model = one(platform).models[0]
    assert model.champion == own_trained.entry.to_manifest
    assert model.last_training is not None and model.last_training.outcome == "fail"
    assert model.last_training.reasons == (f"{worse.rule}: it is worse",)
    assert "it is worse" in shown(one(platform))


def test_a_model_that_was_tried_is_not_offered_a_first_training(platform: Platform) -> None:
    """What became of the attempt stands in the table instead."""
    land_orders(platform, DAYS)
    compute(platform, DAYS)
    made = recipe(platform, DOMAIN, DOMAIN.model("late_order"))
    save_recipe(platform.training("synthetic", "late_order", made.key), made)
    hints = " ".join(one(platform).next)
    assert "synthetic/late_order" not in hints and "synthetic/speed" in hints
    assert f"{made.key}: unfinished" in shown(one(platform))


def test_a_broken_table_hides_nothing_else(own_trained: TrainedHome) -> None:
    """It is named; the other stages and the champion are shown; another domain is not touched by it."""
    for log in (own_trained.platform.home / RAW_LOG).glob("*.json"):
        log.write_text("no log")
    broken, other = status(own_trained.platform, [DOMAIN, replace(DOMAIN, name="other")])
    assert "raw orders" in broken.errors and not broken.unreadable
    assert (broken.newest["raw"], broken.newest["base"]) == (None, ALL_DAYS[-1])
    assert broken.models[0].champion == own_trained.entry.to_manifest
    assert "not readable raw orders: " in shown(broken) and "mlplatform doctor" in shown(broken)
    assert other.errors == {}


def test_where_nothing_can_be_read_it_says_so(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one case in which the command ends with 1."""

    def gone(*_arguments: object) -> None:
        raise OSError("the disk is gone")

    for name in ("due", "landed", "model_status"):
        monkeypatch.setattr(f"mlplatform.operations.status.{name}", gone)
    for name in ("current", "read"):
        monkeypatch.setattr(f"mlplatform.features.stage.Stage.{name}", gone)
    assert one(platform).unreadable


def test_json_holds_all_that_there_is(platform: Platform) -> None:
    """Ages in seconds, times in ISO, every key; lists are not cut."""
    land_orders(platform, ALL_DAYS)
    (told,) = json.loads(as_json(status(platform, [DOMAIN])))
    assert told["due"] == ALL_DAYS and told["models"][0]["age_seconds"] is None
    assert set(told) == set(DomainStatus.__dataclass_fields__)


def test_looking_writes_nothing(own_trained: TrainedHome) -> None:
    """The same files with the same bytes before and after; but for LMDB's list of who is reading at the moment."""
    home = own_trained.platform.home

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file() and path.name != "lock.mdb"}

    before = files()
    one(own_trained.platform)
    assert files() == before
    assert Tables(own_trained.platform, DOMAIN).raw("orders").current()


@pytest.mark.parametrize(
    ("age", "told"),
    [
        (timedelta(0), "under a minute"),
        (timedelta(minutes=12, seconds=59), "12 min"),
        (timedelta(hours=2), "2 h"),
        (timedelta(days=400, minutes=3), "400 d"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
    ],
)
def test_an_age_is_told_in_its_two_largest_units(age: timedelta, told: str) -> None:
    """A unit of nothing is left out."""
    assert human(age) == told
