"""Publication: the online store says what the tables say, after whatever was appended to them in whatever order."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.domain.domain import Domain
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.errors import Unavailable
from mlplatform.features.online import publish
from mlplatform.features.online.lmdb_store import LmdbStore
from mlplatform.features.online.publish import publish_values, unpublished, view_record
from mlplatform.features.online.store import Lookup, OnlineStore, open_online_store
from mlplatform.features.point_in_time import point_in_time_join
from mlplatform.features.stage import Draft, Written
from mlplatform.features.tables import Tables, available_at, day_range, partition_end
from mlplatform.features.version import view_version
from mlplatform.features.view import instant
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import Clock, platform_in

VIEW = DOMAIN.view("courier")[1]
NAME = f"{DOMAIN.name}/courier"
NOW = datetime(2024, 6, 1, tzinfo=UTC)
DAYS = day_range("2024-03-01", "2024-05-31")
COURIERS = [f"c{number}" for number in range(6)]
_value = itertools.count(1)
_home = itertools.count()


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """Months later than the first days."""
    return platform_in(tmp_path, NOW)


def table(platform: Platform) -> Any:
    """The view's own."""
    return Tables(platform, DOMAIN).features(VIEW)  # type: ignore[arg-type]


def append(platform: Platform, day: str, hours: dict[str, int]) -> None:
    """Append a revision of a day: each courier with a value that was never there, so many hours before its end."""
    stage = table(platform)
    rows = pl.DataFrame(
        {"courier": list(hours), "hour": list(hours.values())}, schema={"courier": pl.String(), "hour": pl.Int64()}
    ).with_columns(
        (pl.lit(partition_end(day), instant) - pl.duration(hours=pl.col("hour"))).alias("event_time"),
        pl.lit(available_at(DOMAIN, day), instant).alias("available_at"),
        *(pl.lit(next(_value)).cast(feature.dtype).alias(feature.name) for feature in VIEW.features),
    )
    drafts = {day: Draft(rows=rows.select(stage.schema.names()), inputs=(f"test/{next(_value)}@1",))}
    stage.append(drafts, Written(run_id="test", code_version="v", environment="lock", known_at=platform.clock()))


def served(store: OnlineStore, at: datetime) -> Lookup:
    """What all couriers are answered at a time."""
    keys = pl.DataFrame({"courier": COURIERS})
    return store.lookup(NAME, keys, pl.Series([at], dtype=instant).new_from_index(0, len(COURIERS)))


def assert_as_offline(platform: Platform, at: datetime) -> None:
    """The store's answers are those of the point-in-time join over all that the tables hold now."""
    asked = pl.DataFrame({"courier": COURIERS}).with_columns(pl.lit(at, instant).alias("at"))
    facts = table(platform).read(provenance=True)
    names = [feature.name for feature in VIEW.features]
    joined = point_in_time_join(asked, facts, keys=["courier"], values=names, ttl=VIEW.ttl)
    found = served(open_online_store(platform.online_store), at)
    assert found.values.equals(joined.select(names), null_equal=True)
    assert found.statuses.to_list() == joined["_status"].to_list()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which act of the store each publication takes."""
    acts = []
    for act in ("put", "replace"):
        plain = getattr(LmdbStore, act)

        def noting(self: Any, *arguments: Any, act: str = act, plain: Any = plain, **more: Any) -> Any:
            if arguments[0].name == NAME:
                acts.append(act)
            return plain(self, *arguments, **more)

        monkeypatch.setattr(LmdbStore, act, noting)
    return acts


def test_only_what_has_changed_is_published(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first time everything, then a day, then nothing; on demand everything."""
    acts = counted(monkeypatch)
    for day in DAYS[:3]:
        append(platform, day, {"c0": 1, "c1": 2})
    assert unpublished(platform, DOMAIN) == ["courier"]
    assert publish_values(platform, DOMAIN)["courier"] == 2
    append(platform, DAYS[3], {"c0": 1, "c2": 2})
    assert publish_values(platform, DOMAIN)["courier"] == 3
    assert publish_values(platform, DOMAIN)["courier"] == 3 and unpublished(platform, DOMAIN) == []
    assert acts == ["replace", "put"]
    publish_values(platform, DOMAIN, full=True)
    assert acts == ["replace", "put", "replace"]


def test_a_correction_of_months_ago_changes_what_is_still_the_newest(platform: Platform) -> None:
    """One courier was not seen since, one was: the first has another value now, the other has not."""
    old, new = DAYS[0], DAYS[-1]
    append(platform, old, {"c0": 1, "c1": 1})
    append(platform, new, {"c1": 1})
    publish_values(platform, DOMAIN)
    at = available_at(DOMAIN, old)
    before = served(open_online_store(platform.online_store), NOW + timedelta(days=1))
    append(platform, old, {"c0": 1, "c1": 1})
    publish_values(platform, DOMAIN)
    store = open_online_store(platform.online_store)
    assert served(store, at).revisions[0] == 2
    after = served(store, NOW + timedelta(days=1))
    assert after.values.equals(before.values, null_equal=True) and after.revisions[1] == 1
    assert_as_offline(platform, NOW + timedelta(days=1))


def test_a_row_that_a_correction_took_away_uncovers_the_one_before(platform: Platform) -> None:
    """However long ago that was; without one the courier is not found, and the removed value never comes back."""
    append(platform, DAYS[0], {"c0": 1})
    for day in DAYS[1:-1]:
        append(platform, day, {"c5": 1})
    append(platform, DAYS[-1], {"c0": 1, "c1": 1, "c2": 5})
    publish_values(platform, DOMAIN)
    append(platform, DAYS[-1], {"c2": 7})
    publish_values(platform, DOMAIN)
    found = served(open_online_store(platform.online_store), NOW + timedelta(hours=12))
    assert found.statuses.to_list() == ["expired", "not_found", "present", "not_found", "not_found", "present"]
    assert found.revisions[2] == 2
    assert_as_offline(platform, NOW + timedelta(hours=12))
    append(platform, DAYS[-1], {"c2": 7, "c1": 1})
    publish_values(platform, DOMAIN)
    assert_as_offline(platform, NOW + timedelta(hours=12))


def test_an_earlier_day_is_published_by_taking_values_away(platform: Platform) -> None:
    """As a simulation does: the store is what it was on that day, and goes on from there."""
    for day in DAYS[:4]:
        append(platform, day, {"c0": 1})
    publish_values(platform, DOMAIN)
    publish_values(platform, DOMAIN, as_of=DAYS[1])
    store = open_online_store(platform.online_store)
    assert served(store, NOW).event_time.is_null().all()
    assert served(store, available_at(DOMAIN, DAYS[2])).event_time[0] == partition_end(DAYS[1]) - timedelta(hours=1)
    assert unpublished(platform, DOMAIN) == ["courier"]
    publish_values(platform, DOMAIN)
    assert_as_offline(platform, available_at(DOMAIN, DAYS[3]))


def test_a_changed_view_is_published_beside_the_one_before(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new version is current at once, whatever it was made from; back again, the old one is."""
    append(platform, DAYS[-1], {"c0": 1})
    publish_values(platform, DOMAIN)
    store, first = open_online_store(platform.online_store), view_version(DOMAIN, VIEW)  # type: ignore[arg-type]

    def other(domain: Domain, view: Any) -> str:
        return "other" if view is VIEW else view_version(domain, view)

    with monkeypatch.context() as changed:
        changed.setattr(publish, "view_version", other)
        assert unpublished(platform, DOMAIN) == ["courier"]
        publish_values(platform, DOMAIN)
        assert store.version(NAME) == "other" and unpublished(platform, DOMAIN) == []
        assert store.content(f"{NAME}@{first}") is not None
    assert unpublished(platform, DOMAIN) == ["courier"]
    publish_values(platform, DOMAIN)
    assert store.version(NAME) == first and unpublished(platform, DOMAIN) == []
    assert view_record(DOMAIN, VIEW, table(platform)).version == first  # type: ignore[arg-type]


def test_a_large_change_rebuilds_in_pieces(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than are read at once, of most partitions: as a new version of the code gives them."""
    acts = counted(monkeypatch)
    monkeypatch.setattr(publish, "rows_at_once", 4)
    for day in DAYS[:8]:
        append(platform, day, {"c0": 1, "c1": 2})
    publish_values(platform, DOMAIN)
    for day in DAYS[:8]:
        append(platform, day, {"c1": 3, "c3": 2})
    publish_values(platform, DOMAIN)
    assert acts == ["replace", "replace"]
    assert_as_offline(platform, available_at(DOMAIN, DAYS[7]))


def test_a_catch_up_is_put_in_pieces(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than half of a large table: a few days at a time, and whoever is stopped in between goes on from there."""
    acts = counted(monkeypatch)
    monkeypatch.setattr(publish, "rows_at_once", 4)
    for day in DAYS[:10]:
        append(platform, day, {"c0": 1, "c1": 2})
    publish_values(platform, DOMAIN)
    for day in DAYS[5:9]:
        append(platform, day, {"c1": 3, "c3": 2})
    lost, calls = publish._lost, itertools.count(1)

    def stopped(*arguments: Any) -> pl.DataFrame:
        if next(calls) == 2:
            raise Unavailable("stopped")
        return lost(*arguments)

    with monkeypatch.context() as once:
        once.setattr(publish, "_lost", stopped)
        with pytest.raises(Unavailable, match="stopped"):
            publish_values(platform, DOMAIN)
    assert acts == ["replace", "put"] and unpublished(platform, DOMAIN) == ["courier"]
    publish_values(platform, DOMAIN)
    assert acts == ["replace", "put", "put"] and unpublished(platform, DOMAIN) == []
    assert_as_offline(platform, available_at(DOMAIN, DAYS[9]))


hours = st.dictionaries(st.sampled_from(COURIERS), st.integers(0, 60), max_size=4)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(st.lists(st.tuples(st.sampled_from(DAYS[:6]), hours), min_size=1, max_size=3), min_size=1, max_size=4)
)
def test_any_history_of_revisions_is_served_as_offline(tmp_path: Path, runs: list[list[tuple[str, Any]]]) -> None:
    """Late days, corrections, removals, values of long before their partition: published run by run."""
    last = available_at(DOMAIN, DAYS[5])
    home = tmp_path / f"home-{next(_home)}"
    platform = platform_in(home, last)
    for number, run in enumerate(runs):
        for day, drawn in run:
            append(platform, day, drawn)
        assert isinstance(platform.clock, Clock)
        publish_values(platform, DOMAIN)
        for hours_later in (0, 20, 45, 70):
            assert_as_offline(platform, last + timedelta(hours=hours_later, seconds=number))
