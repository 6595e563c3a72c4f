"""What every online store must do, whatever it is made of: the same tests over LMDB and over a real Redis."""

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.errors import DataError, DeclarationError, Unavailable
from mlplatform.features.online import redis_store
from mlplatform.features.online.record import most_records
from mlplatform.features.online.store import OnlineStore, ViewRecord, open_online_store
from mlplatform_tests.fakes.redis_server import RedisServer, redis_server

INSTANT = pl.Datetime("us", "UTC")
DAY, HOUR, MICROSECOND = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)
MIDNIGHT = datetime(2024, 1, 25, tzinfo=UTC)
NOW = MIDNIGHT + 2 * HOUR
VIEW = ViewRecord(
    name="shop/courier",
    version="v1",
    keys={"courier": pl.String()},
    features={"late": pl.Float64(), "reports": pl.Int32()},
    ttl=DAY,
)
Row = tuple[object, ...]
"""courier, late, reports, event_time, available_at, _revision, _removed."""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests run on this machine: only where slowness is the matter does the time of a request count."""
    monkeypatch.setattr(redis_store, "read_seconds", 10.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for the module."""
    with redis_server(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(params=["lmdb", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty store."""
    if request.param == "lmdb":
        return str(tmp_path / "online")
    server: RedisServer = request.getfixturevalue("server")
    server.client().flushall()
    return server.address


@pytest.fixture
def store(address: str) -> OnlineStore:
    """An empty store."""
    return open_online_store(address)


def row(
    courier: str | None,
    late: float | None,
    event_time: datetime = MIDNIGHT,
    *,
    revision: int = 1,
    available_at: datetime | None = None,
    removed: bool = False,
) -> Row:
    """A value that is available an hour after it was last true."""
    return courier, late, 7, event_time, available_at or event_time + HOUR, revision, removed


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    """Rows as a store takes them."""
    schema = {
        "courier": pl.String(),
        **VIEW.features,
        "event_time": INSTANT,
        "available_at": INSTANT,
        "_revision": pl.Int32(),
        "_removed": pl.Boolean(),
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def put(
    store: OnlineStore, *rows: Row, view: ViewRecord = VIEW, content: str | None = "made", now: datetime = NOW
) -> int:
    """Bring rows in."""
    return store.put(view, frame(rows), content=content, now=now)


def look_up(store: OnlineStore, *asked: tuple[str | None, datetime], view: str = VIEW.name) -> list[tuple[object, str]]:
    """Value and status of each courier at its instant; asked one by one it is the same."""
    keys = pl.DataFrame(asked, schema={"courier": pl.String(), "at": INSTANT}, orient="row")
    found = store.lookup(view, keys.drop("at"), keys["at"])
    for place, (courier, at) in enumerate(asked):
        one = store.find(view, (courier,), (at - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND)
        assert one.status == found.statuses[place]
        assert one.values == (found.values.row(place) if one.status == "present" else ())
        assert one.revision == found.revisions[place]
        told = (found.event_time.to_physical()[place], found.available_at.to_physical()[place])
        assert (one.event_time, one.available_at) == told
    return list(zip(found.values["late"].to_list(), found.statuses.to_list(), strict=True))


def late(store: OnlineStore, courier: str = "c1", at: datetime = NOW, view: str = VIEW.name) -> object:
    """The value of one courier; its status where it has none."""
    ((value, status),) = look_up(store, (courier, at), view=view)
    return value if status == "present" else status


def test_each_key_has_its_value_and_status_in_its_place(store: OnlineStore) -> None:
    """Present with a value or a null, not found, asked twice: one answer per key, in the order of the keys."""
    put(store, row("c1", 0.25), row("c2", None))
    answers = look_up(store, ("c2", NOW), ("c9", NOW), ("c1", NOW), ("c1", NOW), (None, NOW))
    nobody = (None, "not_found")
    assert answers == [(None, "present"), nobody, (0.25, "present"), (0.25, "present"), nobody]
    assert look_up(store) == []


def test_a_value_comes_with_its_revision_and_its_clocks(store: OnlineStore) -> None:
    """Where it comes from, and whether it is there; null where nothing is served."""
    put(store, row("c1", None, revision=3), row("c2", 0.5, MIDNIGHT - 2 * DAY))
    keys = pl.DataFrame({"courier": ["c1", "c2", "c3"]})
    found = store.lookup(VIEW.name, keys, pl.Series([NOW] * 3, dtype=INSTANT))
    assert found.revisions.to_list() == [3, None, None]
    assert found.event_time.to_list() == [MIDNIGHT, None, None]
    assert found.available_at.to_list() == [MIDNIGHT + HOUR, None, None]
    assert found.publication == store.revision(VIEW.name)
    assert found.statuses.to_list() == ["present", "expired", "not_found"]
    assert found.values.schema == VIEW.features
    assert (found.revisions.dtype, found.event_time.dtype) == (pl.Int64(), INSTANT)


def test_a_value_expires_after_its_time_to_live(store: OnlineStore) -> None:
    """At exactly its time to live it is there; a microsecond later it is expired and gives a null."""
    put(store, row("c1", 0.25))
    oldest = MIDNIGHT + DAY
    assert look_up(store, ("c1", oldest), ("c1", oldest + MICROSECOND)) == [(0.25, "present"), (None, "expired")]


def test_a_value_is_held_back_until_it_is_available(store: OnlineStore) -> None:
    """Before its time the value before it answers, or nothing does; from its time on it answers itself."""
    put(store, row("c1", 0.5, MIDNIGHT - 23 * HOUR), row("c1", 0.25), row("c2", 0.75), now=MIDNIGHT)
    early, on_time = MIDNIGHT + HOUR - MICROSECOND, MIDNIGHT + HOUR
    assert look_up(store, ("c1", early), ("c2", early)) == [(0.5, "present"), (None, "not_found")]
    assert look_up(store, ("c1", on_time), ("c2", on_time)) == [(0.25, "present"), (0.75, "present")]


def test_a_fact_dated_in_the_future_waits_for_its_time(store: OnlineStore) -> None:
    """However many come, and whatever is said of their availability: until then the days go on being served."""
    ahead = [row("c1", 100.0 + day, MIDNIGHT + (30 + day) * DAY, available_at=MIDNIGHT) for day in range(5)]
    put(store, *ahead)
    for day in range(4):
        put(store, row("c1", float(day), MIDNIGHT + day * DAY), now=MIDNIGHT + day * DAY)
        assert late(store, at=MIDNIGHT + day * DAY + HOUR) == float(day)
        assert day == 0 or late(store, at=MIDNIGHT + day * DAY) == float(day - 1)
    assert late(store, at=MIDNIGHT + 32 * DAY) == 102.0


def test_a_history_is_bounded(store: OnlineStore) -> None:
    """A source that dates everything far ahead does not fill the store; what can be served stays."""
    put(store, *(row("c1", float(day), MIDNIGHT + day * DAY) for day in range(100)))
    statistics = store.statistics(VIEW.name)
    assert statistics is not None
    assert statistics.keys == 1 and statistics.bytes < (most_records + 1) * 64
    assert late(store, at=MIDNIGHT + 2 * HOUR) == 0.0


def test_much_that_was_removed_takes_no_place_from_what_lives(store: OnlineStore) -> None:
    """More removals between the two newest values than a key has records, and values to come: each is served."""
    values = [row("c1", float(hour), MIDNIGHT - hour * HOUR) for hour in range(1, 41)]
    coming = [row("c1", 100.0 + day, MIDNIGHT + day * DAY) for day in (1, 2)]
    put(store, *values, *coming)
    gone = [row("c1", None, MIDNIGHT - hour * HOUR, revision=2, removed=True) for hour in range(2, 40)]
    put(store, *gone, values[0], values[-1])
    assert [late(store, at=MIDNIGHT + day * DAY + HOUR) for day in range(3)] == [1.0, 101.0, 102.0]
    statistics = store.statistics(VIEW.name)
    assert statistics is not None and statistics.bytes < (most_records + 1) * 64
    # The newest removals are the ones that are remembered.
    put(store, *values[1:3])
    assert late(store, at=MIDNIGHT - MICROSECOND) == "expired"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_an_older_value_never_takes_the_place_of_a_newer_one(store: OnlineStore, order: tuple[int, ...]) -> None:
    """By event time, then by revision; one after the other or in one batch, in any order."""
    rows = [row("c1", 0.1, MIDNIGHT - HOUR, revision=9), row("c1", 0.2, revision=1), row("c1", 0.3, revision=2)]
    for place in order:
        put(store, rows[place])
    assert late(store) == 0.3
    together = ViewRecord(**{**vars(VIEW), "name": "shop/together"})
    put(store, *(rows[place] for place in order), view=together)
    assert late(store, view=together.name) == 0.3


def test_the_same_again_changes_nothing(store: OnlineStore) -> None:
    """Neither the value nor the publication; rows without a key or a clock are nobody's."""
    rows = [row("c1", 0.25), row("c2", 0.5), row(None, 0.75), ("c3", 1.0, 1, None, NOW, 1, False)]
    assert put(store, *rows) == 2
    before = store.revision(VIEW.name)
    assert put(store, *rows, content="made again") == 0
    assert (store.revision(VIEW.name), store.content(VIEW.name)) == (before, "made again")
    assert put(store, row("c1", 0.5, revision=2), content=None) == 1
    assert store.revision(VIEW.name) != before and store.content(VIEW.name) == "made again"


def test_what_a_correction_took_away_is_gone(store: OnlineStore) -> None:
    """The value that is put beside it comes back; without one there is none; the removed revision cannot return."""
    put(store, row("c1", 0.1, MIDNIGHT - DAY), row("c1", 0.2), row("c2", 0.3))
    put(store, row("c1", None, revision=2, removed=True), row("c2", None, revision=2, removed=True))
    assert look_up(store, ("c1", NOW - 2 * HOUR), ("c1", NOW), ("c2", NOW)) == [
        (0.1, "present"),
        (None, "expired"),
        (None, "not_found"),
    ]
    put(store, row("c1", 0.2), row("c2", 0.3))
    assert late(store, "c1") == "expired" and late(store, "c2") == "not_found"
    put(store, row("c2", 0.4, revision=3))
    assert late(store, "c2") == 0.4


def test_a_removal_spares_the_other_partitions(store: OnlineStore) -> None:
    """Two partitions may give one event time: each is known by when it became available too."""
    put(store, row("c1", 0.1), row("c1", 0.2, available_at=MIDNIGHT + 2 * HOUR))
    put(store, row("c1", None, revision=2, removed=True))
    assert late(store) == 0.2


def test_what_is_of_no_use_is_refused(store: OnlineStore) -> None:
    """A missing column, a key of another kind, a key that cannot be looked up: said by name."""
    put(store, row("c1", 0.25))
    at = pl.Series([NOW], dtype=INSTANT)
    with pytest.raises(DataError, match="lack 'courier'"):
        store.lookup(VIEW.name, pl.DataFrame({"driver": ["c1"]}), at)
    with pytest.raises(DataError, match="of type Int64, the view's is String"):
        store.lookup(VIEW.name, pl.DataFrame({"courier": [1]}), at)
    with pytest.raises(DataError, match="has 2 parts"):
        store.find(VIEW.name, ("c1", "c2"), 0)
    with pytest.raises(DataError, match="the rows lack late"):
        store.put(VIEW, frame([row("c1", 0.25)]).drop("late"), content=None, now=NOW)
    with pytest.raises(DeclarationError, match="Float64, by which nothing can be looked up"):
        put(store, view=ViewRecord(**{**vars(VIEW), "keys": {"late": pl.Float64()}}))


def test_every_type_comes_back_to_the_bit(store: OnlineStore) -> None:
    """Of features and of keys, nulls among them, one row or a thousand."""
    rows = pl.DataFrame(
        {
            "day": [date(2024, 1, day) for day in range(1, 29)] * 40,
            "number": list(range(28 * 40)),
            "flag": [True, None, False, True] * 280,
            "tiny": pl.Series([-1, None] * 560, dtype=pl.Int8()),
            "small": pl.Series([300, -300] * 560, dtype=pl.Int16()),
            "large": [2**62, None] * 560,
            "single": pl.Series([0.1, float("nan"), float("-inf"), None] * 280, dtype=pl.Float32()),
            "double": [0.1, -0.0] * 560,
            "since": [date(1969, 12, 31), None] * 560,
            "local": [datetime(1969, 1, 1, 1, 1, 1, 1), None] * 560,
            "instant": [NOW, None] * 560,
            "text": ["", None, "späť", "x" * 1000] * 280,
            "raw": [b"\x00", None] * 560,
        }
    )
    rows = rows.with_columns(pl.col("instant").cast(INSTANT), pl.col("number").cast(pl.Int32()))
    features = {name: dtype for name, dtype in rows.schema.items() if name not in ("day", "number")}
    keys = {"day": pl.Date(), "number": pl.Int32()}
    view = ViewRecord(name="shop/all", version="v1", keys=keys, features=features, ttl=DAY)
    clocks = [
        pl.lit(MIDNIGHT, INSTANT).alias("event_time"),
        pl.lit(NOW, INSTANT).alias("available_at"),
        _revision := pl.lit(1).alias("_revision"),
    ]
    store.put(view, rows.with_columns(clocks), content="made", now=NOW)
    store.put(view, rows.sample(fraction=0.5, seed=1).with_columns(clocks), content="made", now=NOW)
    for asked in (rows.reverse(), rows[3:4], rows[:2]):
        # A key is its value, whatever its width.
        found = store.lookup(
            view.name, asked.cast({"number": pl.Int64()}), pl.Series([NOW] * asked.height, dtype=INSTANT)
        )
        assert set(found.statuses) == {"present"}
        assert found.values.equals(asked.select(list(features)), null_equal=True)
    physical = rows.select(pl.col(name).to_physical() if features[name].is_temporal() else name for name in features)
    one = store.find(view.name, (date(2024, 1, 2), 1), (NOW - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND)
    assert repr(one.values) == repr(physical.row(1))


def test_long_keys_are_told_apart(store: OnlineStore) -> None:
    """Longer than a store's own keys may be, and different in the last letter alone."""
    one, other = "x" * 5000 + "1", "x" * 5000 + "2"
    put(store, row(one, 0.1), row(other, 0.2))
    assert (late(store, one), late(store, other), late(store, "x" * 5000)) == (0.1, 0.2, "not_found")


def test_an_empty_view_finds_nothing(store: OnlineStore) -> None:
    """A view without entities is published all the same, and knows nobody."""
    put(store)
    assert look_up(store, ("c1", NOW), ("c2", NOW)) == [(None, "not_found")] * 2
    assert (store.version(VIEW.name), store.content(VIEW.name)) == ("v1", "made")
    store.replace(VIEW, [], content="rebuilt", now=NOW)
    assert late(store) == "not_found" and store.content(VIEW.name) == "rebuilt"


def test_what_was_never_published_is_unavailable(store: OnlineStore) -> None:
    """It has no version, no content and no statistics, and a lookup says what to do; another view changes nothing."""
    for _ in range(2):
        told = [store.version(VIEW.name), store.revision(VIEW.name), store.content(VIEW.name)]
        assert [*told, store.statistics(VIEW.name)] == [None] * 4
        with pytest.raises(Unavailable, match="Materialise `online_store`"):
            late(store)
        put(store, view=ViewRecord(**{**vars(VIEW), "name": "shop/other"}))


def test_a_publication_is_seen_at_the_next_read(store: OnlineStore, address: str) -> None:
    """Whoever has read before reads the new value without being told."""
    put(store, row("c1", 0.25))
    reader = open_online_store(address)
    assert late(reader) == 0.25
    before = reader.revision(VIEW.name)
    put(store, row("c1", 0.5, revision=2))
    assert late(reader) == 0.5 and reader.revision(VIEW.name) != before


def test_a_rebuild_takes_the_place_of_what_was_there(store: OnlineStore, address: str) -> None:
    """Until its last chunk everybody reads the old values, then the new ones, and only those."""
    reader = open_online_store(address)
    put(store, row("c1", 0.1), row("gone", 0.1))
    seen = []

    def chunks() -> Iterator[pl.DataFrame]:
        for courier in ("c1", "c2"):
            yield frame([row(courier, 0.9)])
            seen.append((late(reader, "c1"), late(reader, "gone")))

    store.replace(VIEW, chunks(), content="rebuilt", now=NOW)
    assert seen == [(0.1, 0.1)] * 2
    assert [late(reader, each) for each in ("c1", "c2", "gone")] == [0.9, 0.9, "not_found"]
    statistics = reader.statistics(VIEW.name)
    assert statistics is not None and (statistics.keys, statistics.newest_event_time) == (2, MIDNIGHT)


def test_a_rebuild_that_fails_leaves_what_was_there(store: OnlineStore) -> None:
    """And the next one is none the worse for it."""
    put(store, row("c1", 0.1))

    def chunks() -> Iterator[pl.DataFrame]:
        yield frame([row("c1", 0.9)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.replace(VIEW, chunks(), content="rebuilt", now=NOW)
    assert (late(store), store.content(VIEW.name)) == (0.1, "made")
    store.replace(VIEW, [frame([row("c2", 0.9)])], content="rebuilt", now=NOW)
    assert (late(store, "c1"), late(store, "c2")) == ("not_found", 0.9)


def test_the_version_before_stays_beside_the_current_one(store: OnlineStore) -> None:
    """For the model that was trained on it; the one before that goes."""
    changed = {"late": pl.Float64(), "reports": pl.Int32()}
    versions = [ViewRecord(**{**vars(VIEW), "version": f"v{number}", "features": changed}) for number in (1, 2, 3)]
    put(store, row("c1", 1.0), view=versions[0], content="made of v1")
    store.replace(versions[1], [frame([row("c1", 2.0)])], content="made of v2", now=NOW)
    assert store.version(VIEW.name) == "v2"
    assert [late(store, view=f"{VIEW.name}{of}") for of in ("", "@v1", "@v2")] == [2.0, 1.0, 2.0]
    assert store.content(f"{VIEW.name}@v1") == "made of v1" and store.revision(f"{VIEW.name}@v3") is None
    put(store, row("c1", 1.5, revision=2), view=versions[0], content=None)
    assert (store.version(VIEW.name), late(store, view=f"{VIEW.name}@v1")) == ("v2", 1.5)
    store.replace(versions[2], [frame([row("c1", 3.0)])], content="made of v3", now=NOW)
    assert [late(store, view=f"{VIEW.name}{of}") for of in ("", "@v2")] == [3.0, 2.0]
    with pytest.raises(Unavailable, match="holds nothing of shop/courier@v1"):
        late(store, view=f"{VIEW.name}@v1")
    # Back to what was declared once: its values are there already, and are served when they are complete.
    store.replace(versions[1], [frame([row("c1", 2.5)])], content="made of v2 again", now=NOW)
    assert [late(store, view=f"{VIEW.name}{of}") for of in ("", "@v3")] == [2.5, 3.0]


couriers = st.sampled_from(["c1", "c2"])
hours = st.integers(-30, 12).map(lambda number: MIDNIGHT + number * HOUR)
changes = st.lists(
    st.tuples(couriers, hours, st.sampled_from([HOUR, 3 * HOUR]), st.integers(1, 3), st.booleans()),
    min_size=1,
    max_size=6,
)
Step = tuple[str, list[tuple[str, datetime, timedelta, int, bool]]]
one_step = st.tuples(st.sampled_from(["put", "rebuild"]), changes).map(lambda step: [step])


def _thinned(courier: str, newest: datetime, count: int) -> list[Step]:
    """Many values, of which all but the first and the last are removed then."""
    times = [newest - place * MICROSECOND for place in range(count)]
    return [
        ("put", [(courier, time, HOUR, 1, False) for time in times]),
        ("put", [(courier, time, HOUR, 3, 0 < place < count - 1) for place, time in enumerate(times)]),
    ]


thinned = st.builds(_thinned, couriers, hours.filter(lambda hour: hour < MIDNIGHT - HOUR), st.integers(2, 40))
_number = itertools.count()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn_steps=st.lists(st.one_of(one_step, thinned), min_size=1, max_size=5))
def test_any_history_is_answered_as_by_the_obvious_store(store: OnlineStore, drawn_steps: list[list[Step]]) -> None:
    """Values, removals and rebuilds in any order: a dictionary of all that was ever put says what is served."""
    view = ViewRecord(**{**vars(VIEW), "name": f"shop/view-{next(_number)}"})
    known: dict[tuple[str, datetime, datetime], tuple[int, float | None]] = {}
    value = itertools.count()
    for act, rows in itertools.chain.from_iterable(drawn_steps):
        drawn: list[Row] = []
        for courier, event_time, delay, revision, removed in rows:
            place = (courier, event_time, event_time + delay)
            # As in the tables: one revision says one thing of a row, and a later one comes later.
            if revision > known.get(place, (0, None))[0]:
                known[place] = revision, None if removed else float(next(value))
            of, told = known[place]
            drawn.append(row(courier, told, event_time, revision=of, available_at=place[2], removed=told is None))
        current = [
            row(courier, each, event_time, revision=revision, available_at=available_at)
            for (courier, event_time, available_at), (revision, each) in known.items()
            if each is not None
        ]
        if act == "rebuild":
            store.replace(view, [frame([each]) for each in current], content="made", now=MIDNIGHT)
            # A rebuild is made from what is believed now, and has nothing to remember.
            known = {place: told for place, told in known.items() if told[1] is not None}
        else:
            # Beside a removal stands what it uncovers.
            put(store, *drawn, *(current if any(each[-1] for each in drawn) else []), view=view, now=MIDNIGHT)
        for courier, hour in itertools.product(["c1", "c2", "c3"], (0, 1, 5, 14, 40)):
            at = MIDNIGHT + hour * HOUR
            assert late(store, courier, at, view.name) == _obvious(known, courier, at), (courier, hour)


def _obvious(
    known: dict[tuple[str, datetime, datetime], tuple[int, float | None]], courier: str, at: datetime
) -> object:
    candidates = [
        (event_time, revision, available_at, value)
        for (of, event_time, available_at), (revision, value) in known.items()
        if of == courier and value is not None and event_time <= at and available_at <= at
    ]
    if not candidates:
        return "not_found"
    event_time, *_, value = max(candidates, key=lambda each: each[:3])
    return value if event_time >= at - VIEW.ttl else "expired"
