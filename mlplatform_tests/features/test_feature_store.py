"""The feature store against a slow and obvious reading of the same histories, row by row."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import Feature, FeatureView
from mlplatform.domains.synthetic import DOMAIN as SYNTHETIC
from mlplatform.errors import DataError, OtherViewVersion, Unavailable
from mlplatform.features.feature_store import FeatureStore
from mlplatform.features.known_facts import KnownBy
from mlplatform.features.stage import Draft, Written
from mlplatform.features.tables import Tables, partition_end
from mlplatform.features.version import view_version
from mlplatform.provenance.platform import Platform
from mlplatform_tests.fakes.synthetic_home import TrainedHome, platform_in

INSTANT = pl.Datetime("us", "UTC")
DAYS = ("2024-01-02", "2024-01-03", "2024-01-04")
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEYS = {"courier": pl.String(), "district": pl.String(), "order_id": pl.Int64()}
VIEWS = {"one": ("courier",), "two": ("courier", "district"), "number": ("order_id",)}

key_values: dict[str, list[Any]] = {
    "courier": ["c1", "c1", "c1", "c2", None],
    "district": ["hill", "hill", "north", None],
    "order_id": [1, 1, 1, 2, None],
}


@dataclass(frozen=True)
class Fact:
    """A published row."""

    key: tuple[Any, ...]
    value: int | None
    event_time: datetime
    available_at: datetime


@dataclass(frozen=True)
class Revised:
    """A revision of a partition, and when it became known."""

    facts: tuple[Fact, ...]
    known_at: datetime


@dataclass
class History:
    """What was ever published of a view."""

    view: FeatureView
    partitions: dict[str, list[Revised]] = field(default_factory=dict)


def nothing(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
    """What these views compute: the histories are made up."""
    return facts


def view_of(name: str, ttl: timedelta) -> FeatureView:
    """A view with a feature that may be null and one that never is."""
    return FeatureView(
        name=name,
        meaning=name,
        facts="deliveries",
        entity=VIEWS[name],
        features=(
            Feature(name=f"{name}_value", dtype=pl.Int32(), meaning="made up"),
            Feature(name=f"{name}_label", dtype=pl.String(), meaning="made up"),
        ),
        look_back=timedelta(days=1),
        ttl=ttl,
        function=nothing,
    )


def facts_of(chance: Random, name: str, day: str) -> tuple[Fact, ...]:
    """Rows of a partition: late ones, equal ones, keys that nobody has, none at all."""
    end = partition_end(day)
    return tuple(
        Fact(
            tuple(chance.choice(key_values[key]) for key in VIEWS[name]),
            chance.choice([None, 1, 2, 3, 4, 5]),
            end - chance.choice([0, 1, 24, 24, 48]) * HOUR,
            end + chance.choice([0, 1, 1, 30]) * HOUR,
        )
        for _ in range(chance.choice([0, 1, 3, 6]))
    )


def histories(chance: Random) -> list[History]:
    """Some views, each with revisions of some of its partitions."""
    made = []
    for name in VIEWS:
        history = History(view_of(name, chance.choice([0, 1, 24, 25, 1000]) * HOUR))
        for day in chance.sample(DAYS, chance.choice([0, 1, 2, 3, 3, 3])):
            history.partitions[day] = []
            for _ in range(chance.randint(1, 3)):
                known_at = partition_end(day) + chance.choice([-30, 0, 1, 1, 12, 40]) * HOUR
                append(history.partitions[day], Revised(facts_of(chance, name, day), known_at))
        made.append(history)
    return made


def append(revisions: list[Revised], new: Revised) -> None:
    """As the stage does: no revision for the same rows, and none that was known before the one it follows."""
    if not revisions:
        revisions.append(new)
    elif canonical(revisions[-1].facts) != canonical(new.facts):
        revisions.append(replace(new, known_at=max(new.known_at, revisions[-1].known_at)))


def canonical(facts: Sequence[Fact]) -> list[str]:
    """Rows in no order."""
    return sorted(map(repr, facts))


def write(platform: Platform, domain: Domain, history: History) -> None:
    """Append the revisions to the view's table."""
    view, tables = history.view, Tables(platform, domain)
    store = tables.features(view)
    for number in range(max(map(len, history.partitions.values()), default=0)):
        drafts = {
            day: Draft(rows=frame(view, revisions[number].facts, store.schema), known_at=revisions[number].known_at)
            for day, revisions in history.partitions.items()
            if number < len(revisions)
        }
        written = store.append(drafts, Written(run_id="test", code_version="1", environment="lock", known_at=FIRST))
        assert {each.number for each in written.values()} == {number + 1}


def frame(view: FeatureView, facts: Sequence[Fact], schema: pl.Schema) -> pl.DataFrame:
    """Facts as rows of the table."""
    rows = [
        (*fact.key, fact.value, None if fact.value is None else f"v{fact.value}", fact.event_time, fact.available_at)
        for fact in facts
    ]
    return pl.DataFrame(rows, schema=dict(schema), orient="row")


hours = (0, 1, 6, 18, 24, 25, 31, 47, 48, 49, 50, 60, 72, 73, 74, 84, 88, 97, 98, 112, 120, 121, 136, 170)
everybody = [
    (courier, district, order_id, FIRST + hour * HOUR)
    for courier, district, order_id in [("c1", "hill", 1), ("c2", "north", 2), ("c1", "north", None), (None, "hill", 3)]
    for hour in hours
]
"""All kinds of keys at all instants at which something may change."""

zones = st.sampled_from(["UTC", "America/New_York", "Asia/Kolkata"])
units = st.sampled_from(["ms", "us", "ns"])
known_bys = st.sampled_from(
    [None, "then", "then", FIRST + 49 * HOUR, (FIRST + 73 * HOUR).astimezone(ZoneInfo("Asia/Tokyo"))]
)


def obvious(
    history: History, key: tuple[Any, ...], at: datetime, known_by: KnownBy
) -> tuple[str, set[int | None], tuple[Any, ...] | None]:
    """Status, every value that is right (equal facts may be told apart by nothing), and where it is from."""
    seen = []
    for day, revisions in history.partitions.items():
        cut_off = at if known_by == "then" else known_by
        known = [number for number, each in enumerate(revisions, 1) if cut_off is None or each.known_at <= cut_off]
        if not known:
            continue
        number = max(known)
        for fact in revisions[number - 1].facts:
            visible = [fact.event_time, fact.available_at]
            if known_by == "then":
                visible.append(revisions[number - 1].known_at)
            if None not in fact.key and fact.key == key and max(visible) <= at:
                seen.append(((fact.event_time, number, max(visible), day), fact))
    if not seen:
        return "not_found", {None}, None
    newest = max(rank for rank, _ in seen)
    if newest[0] < at - history.view.ttl:
        return "expired", {None}, None
    facts = {fact for rank, fact in seen if rank == newest}
    return "present", {fact.value for fact in facts}, (newest[1], newest[0], {fact.available_at for fact in facts})


@settings(max_examples=60)
@given(st.integers(0, 2**32), zones, units, known_bys)
def test_history_is_read_as_it_was(
    seed: int,
    zone: str,
    unit: Literal["ms", "us", "ns"],
    known_by: KnownBy,
) -> None:
    """Each row, in its place, sees of each view the newest fact that it could have seen, with its provenance."""
    chance = Random(seed)
    made = histories(chance)
    rows = chance.sample(everybody * 2, chance.choice([0, 1, 50, 100, 100]))
    domain = replace(SYNTHETIC, views=tuple(each.view for each in made), models=())
    entities = pl.DataFrame(rows, schema={**KEYS, "asked_at": INSTANT}, orient="row").with_columns(
        pl.col("asked_at").dt.convert_time_zone(zone).dt.cast_time_unit(unit), extra=pl.int_range(pl.len())
    )
    with tempfile.TemporaryDirectory() as home:
        platform = platform_in(Path(home))
        for history in made:
            write(platform, domain, history)
        store = FeatureStore(platform, domain)
        refs = [f"{each.view.name}:*" for each in made]
        told = store.get_historical_features(entities, refs, at="asked_at", known_by=known_by, statuses=True)
        plain = store.get_historical_features(entities, refs, at="asked_at", known_by=known_by)
    assert told.select(entities.columns).equals(entities)
    assert told.select(plain.columns).equals(plain)
    for row in told.iter_rows(named=True):
        for history in made:
            name = history.view.name
            key = tuple(row[each] for each in history.view.entity)
            status, right, provenance = obvious(history, key, row["asked_at"].astimezone(UTC), known_by)
            value = row[f"{name}_value"]
            assert value in right, (name, row)
            assert row[f"{name}_label"] == (None if value is None else f"v{value}")
            expected = "null" if status == "present" and value is None else status
            for feature in (f"{name}_value", f"{name}_label"):
                assert row[f"{feature}__status"] == expected, (name, row)
                found = tuple(row[f"{feature}__{each}"] for each in ("revision", "event_time", "available_at"))
                if provenance is None:
                    assert found == (None, None, None)
                else:
                    assert found[:2] == provenance[:2]
                    assert found[2] in provenance[2]


INSTANTS = [datetime(2024, 1, 4, 12, tzinfo=UTC)]
ASKED = pl.DataFrame({"courier": ["c1"], "at": INSTANTS}, schema={"courier": pl.String(), "at": INSTANT})


def test_times_without_a_zone_are_refused(platform: Platform) -> None:
    """Naive times, days, no times and no such column are refused with what to write instead."""
    store = FeatureStore(platform, SYNTHETIC)
    naive = ASKED.with_columns(pl.col("at").dt.replace_time_zone(None))
    for rows, message in [
        (naive, r"no instant. Say which zone it is in: `.dt.replace_time_zone"),
        (ASKED.with_columns(pl.col("at").dt.date()), "no instant"),
        (ASKED.with_columns(at=pl.lit(None, dtype=INSTANT)), "1 rows have no time"),
        (ASKED.drop("at"), "no time column 'at'; they have courier"),
    ]:
        with pytest.raises(DataError, match=message):
            store.get_historical_features(rows, ["courier:*"])
        with pytest.raises(DataError, match=message):
            store.get_online_features(rows, ["courier:*"], at="at")
    with pytest.raises(DataError, match="known_by is 2024-01-04T00:00:00, which has no zone"):
        store.get_historical_features(ASKED, ["courier:*"], known_by=datetime(2024, 1, 4))


def test_keys_are_taken_in_the_types_of_the_table(platform: Platform) -> None:
    """Another type is brought to it where that changes no value; else it is refused, as are keys that are not there."""
    store = FeatureStore(platform, SYNTHETIC)
    category = ASKED.with_columns(pl.col("courier").cast(pl.Categorical()))
    told = store.get_historical_features(category, "courier:*", statuses=True)
    assert told.select(category.columns).equals(category)
    assert told["courier_deliveries_3d__status"].to_list() == ["not_found"]
    numbers = replace(SYNTHETIC, views=(view_of("number", HOUR),), models=())
    with pytest.raises(DataError, match="'order_id' of synthetic/number is Int64, but the rows have Float64"):
        FeatureStore(platform, numbers).get_historical_features(ASKED.with_columns(order_id=pl.lit(1.5)), "number:*")
    with pytest.raises(DataError, match=r"keyed by district, but the rows have no district; they have courier, at"):
        store.get_historical_features(ASKED, ["courier:*", "district:*"])


def test_a_column_that_is_there_already_is_not_overwritten(platform: Platform) -> None:
    """Rows that hold a column of the answer's name are refused."""
    rows = ASKED.with_columns(courier_deliveries_3d=pl.lit(1))
    with pytest.raises(DataError, match="the rows already have courier_deliveries_3d"):
        FeatureStore(platform, SYNTHETIC).get_historical_features(rows, ["courier:*"])


def test_pins_bound_what_is_known_then(platform: Platform) -> None:
    """A partition that is not pinned is not read, and no later revision than the pinned one."""
    history = History(view_of("one", 1000 * HOUR))
    at = partition_end(DAYS[0])
    for number in (1, 2, 3):
        facts = (Fact(("c1",), number, at, at),)
        history.partitions.setdefault(DAYS[0], []).append(Revised(facts, at + number * HOUR))
    history.partitions[DAYS[1]] = [Revised((Fact(("c1",), 9, at + HOUR, at + HOUR),), at)]
    domain = replace(SYNTHETIC, views=(history.view,), models=())
    write(platform, domain, history)
    rows = ASKED.with_columns(at=pl.lit(at + 2 * HOUR + HOUR / 2, dtype=INSTANT))
    store = FeatureStore(platform, domain)

    def told(pins: dict[str, int], known_by: KnownBy) -> list[int | None]:
        values = store.get_historical_features(rows, ["one:one_value"], pins={"synthetic/one": pins}, known_by=known_by)
        return values["one_value"].to_list()

    assert told({DAYS[0]: 3}, None) == [3]
    assert told({DAYS[0]: 3}, "then") == [2]
    assert told({DAYS[0]: 1}, "then") == [1]
    assert told({DAYS[0]: 3, DAYS[1]: 1}, None) == [9]
    assert told({}, None) == [None]
    with pytest.raises(DataError, match="the pins name no revision of synthetic/one"):
        store.get_historical_features(rows, ["one:*"], pins={})


couriers = st.sampled_from(["c1", "c2", "c3", "c99", None])
districts = st.sampled_from(["hill", "north", "mars", None])
moments = st.one_of(
    st.datetimes(datetime(2024, 1, 25, 1), datetime(2024, 2, 20), timezones=st.just(UTC)),
    st.sampled_from([datetime(2024, 1, 28, 0, 0, tzinfo=UTC), datetime(2024, 1, 27, 23, 59, 59, tzinfo=UTC)]),
)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(couriers, districts, moments), max_size=30))
def test_both_stores_tell_the_same(trained: TrainedHome, rows: list[tuple[Any, ...]]) -> None:
    """For any request after the last publication: the same columns, types, values and statuses, to the bit."""
    keys = pl.DataFrame(rows, schema={"courier": pl.String(), "district": pl.String(), "at": INSTANT}, orient="row")
    store = FeatureStore(trained.platform, trained.domain)
    version = view_version(trained.domain, trained.domain.views[0])
    refs = ["district:*", f"courier@{version}:courier_late_share_3d", "synthetic/courier:*"]
    offline = store.get_historical_features(keys, refs, statuses=True)
    online = store.get_online_features(keys, refs, at="at", statuses=True)
    assert online.schema == offline.schema
    assert online.equals(offline)
    assert store.get_online_features(keys, refs, at="at").equals(store.get_historical_features(keys, refs))


def test_an_online_read_is_of_now_unless_it_says_when(trained: TrainedHome) -> None:
    """Without `at` the clock counts, whatever columns the keys have; a naive time is refused."""
    keys = pl.DataFrame({"courier": ["c1"], "at": ["a column of theirs"]})
    now = datetime(2024, 1, 25, 2, tzinfo=UTC)
    status = "courier_deliveries_3d__status"

    def told(store: FeatureStore, at: datetime | None) -> str:
        found = store.get_online_features(keys, ["courier:courier_deliveries_3d"], at=at, statuses=True)
        return str(found[status].item())

    store = FeatureStore(trained.platform, trained.domain, now=lambda: now)
    assert told(store, None) == "present"
    assert told(store, now + timedelta(days=300)) == "expired"
    with pytest.raises(DataError, match="at is 2024-01-25T02:00:00, which has no zone"):
        told(store, now.replace(tzinfo=None))


def test_the_online_store_must_serve_the_declared_version(trained: TrainedHome, platform: Platform) -> None:
    """A view that was changed since it was published is refused, saying which is there; so is an empty store."""
    keys = pl.DataFrame({"courier": ["c1"]})
    (first, *others) = trained.domain.views
    changed = replace(trained.domain, views=(replace(first, ttl=first.ttl * 2), *others))
    there = view_version(trained.domain, first)
    with pytest.raises(OtherViewVersion, match=f"there is synthetic/courier@{there}"):
        FeatureStore(trained.platform, changed).get_online_features(keys, ["courier:*"])
    with pytest.raises(Unavailable, match="holds nothing of synthetic/courier"):
        FeatureStore(platform, trained.domain).get_online_features(keys, ["courier:*"])
