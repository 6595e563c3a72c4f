"""Online reads: what a snapshot answers, how it is swapped, and that it answers as the offline join does."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlplatform.domains.synthetic.ground_truth import couriers, districts
from mlplatform.errors import Unavailable
from mlplatform.features.historical import historical_features
from mlplatform.features.online import SnapshotStore
from mlplatform.features.view import view_features
from mlplatform_tests.fakes.synthetic_home import TrainedHome

VIEW = "shop/courier"
INSTANT = pl.Datetime("us", "UTC")
MIDNIGHT = datetime(2024, 1, 25, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROWS = {"courier": pl.String(), "late": pl.Float64(), "event_time": INSTANT, "available_at": INSTANT}
Row = tuple[str | None, float | None, datetime, datetime]


def row(courier: str | None, late: float | None, event_time: datetime = MIDNIGHT) -> Row:
    """A value that is available an hour after it was last true."""
    return courier, late, event_time, event_time + HOUR


def publish(store: SnapshotStore, *rows: Row, version: str = "v1") -> Path:
    """Swap in a snapshot whose values live for a day."""
    frame = pl.DataFrame(rows, schema=ROWS, orient="row")
    return store.publish(VIEW, frame, version=version, content="made", ttl=timedelta(days=1), keys=["courier"])


def look_up(store: SnapshotStore, *asked: tuple[str | None, datetime]) -> list[tuple[float | None, str]]:
    """Value and status of each courier at its instant."""
    frame = pl.DataFrame(asked, schema={"courier": pl.String(), "at": INSTANT}, orient="row")
    found = store.lookup(VIEW, frame.drop("at"), frame["at"])
    return list(zip(found.values["late"].to_list(), found.statuses.to_list(), strict=True))


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    """A store without any snapshot."""
    return SnapshotStore(tmp_path)


def test_each_key_has_its_value_and_status_in_its_place(store: SnapshotStore) -> None:
    """Present with a value or a null, not found, asked twice: one answer per key, in the order of the keys."""
    publish(store, row("c1", 0.25), row("c2", None))
    at = MIDNIGHT + 2 * HOUR
    answers = look_up(store, ("c2", at), ("c9", at), ("c1", at), ("c1", at))
    assert answers == [(None, "present"), (None, "not_found"), (0.25, "present"), (0.25, "present")]
    assert look_up(store) == []


def test_a_value_expires_after_its_time_to_live(store: SnapshotStore) -> None:
    """At exactly its time to live it is there; a microsecond later it is expired and gives a null."""
    publish(store, row("c1", 0.25))
    oldest = MIDNIGHT + timedelta(days=1)
    late = oldest + timedelta(microseconds=1)
    assert look_up(store, ("c1", oldest), ("c1", late)) == [(0.25, "present"), (None, "expired")]


def test_a_value_is_held_back_until_it_is_available(store: SnapshotStore) -> None:
    """Before its time the value before it answers, or nothing does; from its time on it answers itself."""
    publish(store, row("c1", 0.5, MIDNIGHT - timedelta(hours=23)), row("c1", 0.25), row("c2", 0.75))
    early, on_time = MIDNIGHT + HOUR - timedelta(microseconds=1), MIDNIGHT + HOUR
    assert look_up(store, ("c1", early), ("c2", early)) == [(0.5, "present"), (None, "not_found")]
    assert look_up(store, ("c1", on_time), ("c2", on_time)) == [(0.25, "present"), (0.75, "present")]
    assert look_up(store, ("c1", early), ("c9", early), ("c1", on_time)) == [
        (0.5, "present"),
        (None, "not_found"),
        (0.25, "present"),
    ]


def test_a_row_without_a_key_answers_nobody(store: SnapshotStore) -> None:
    """A null names no entity, neither in the snapshot nor in the request; offline it does not either."""
    publish(store, row(None, 0.5), row("c1", 0.25))
    assert look_up(store, (None, MIDNIGHT + 2 * HOUR)) == [(None, "not_found")]


def test_a_value_from_the_future_is_not_there(store: SnapshotStore) -> None:
    """What was last true after the request was asked is no answer to it, even if it is called available."""
    publish(store, ("c1", 0.25, MIDNIGHT + 3 * HOUR, MIDNIGHT))
    assert look_up(store, ("c1", MIDNIGHT + HOUR)) == [(None, "not_found")]


def test_an_empty_snapshot_finds_nothing(store: SnapshotStore) -> None:
    """A view without entities is published all the same, and knows nobody."""
    publish(store, version="empty")
    assert look_up(store, ("c1", MIDNIGHT), ("c2", MIDNIGHT)) == [(None, "not_found")] * 2
    assert store.version(VIEW) == "empty"


def test_a_new_snapshot_is_seen_at_the_next_read(store: SnapshotStore, tmp_path: Path) -> None:
    """Another process publishes; whoever holds the old snapshot reads the new one without being told."""
    publish(store, row("c1", 0.25))
    at = MIDNIGHT + 2 * HOUR
    assert (look_up(store, ("c1", at)), store.version(VIEW)) == ([(0.25, "present")], "v1")
    publish(SnapshotStore(tmp_path), row("c1", 0.5), version="v2")
    assert (look_up(store, ("c1", at)), store.version(VIEW)) == ([(0.5, "present")], "v2")


def test_a_swap_leaves_the_snapshot_that_is_being_read(store: SnapshotStore) -> None:
    """The file just replaced stays for readers that have its name; the one before it goes."""
    first, second = publish(store, row("c1", 0.1)), publish(store, row("c1", 0.2))
    held = pl.read_ipc(first)
    assert first.exists()
    third = publish(store, row("c1", 0.3))
    assert [each.exists() for each in (first, second, third)] == [False, True, True]
    assert held["late"].to_list() == [0.1]


def test_without_a_snapshot_the_store_is_unavailable(store: SnapshotStore) -> None:
    """No snapshot has no version, and a lookup says what to do."""
    assert store.version(VIEW) is None
    with pytest.raises(Unavailable, match="no readable snapshot of shop/courier"):
        look_up(store, ("c1", MIDNIGHT))


@pytest.mark.parametrize("damage", ["no file", "half a file", "empty file", "half a pointer", "no keys", "a list"])
def test_a_broken_snapshot_is_unavailable_until_the_next_one(store: SnapshotStore, tmp_path: Path, damage: str) -> None:
    """Whatever is missing or torn, the answer is `Unavailable`, never another error; publishing again mends it."""
    arrow, pointer = publish(store, row("c1", 0.25)), tmp_path / f"{VIEW}.json"
    described = json.loads(pointer.read_text())
    match damage:
        case "no file":
            arrow.unlink()
        case "half a file":
            arrow.write_bytes(arrow.read_bytes()[: arrow.stat().st_size // 2])
        case "empty file":
            arrow.write_bytes(b"")
        case "half a pointer":
            pointer.write_text(pointer.read_text()[:20])
        case "no keys":
            pointer.write_text(json.dumps({name: value for name, value in described.items() if name != "keys"}))
        case _:
            pointer.write_text("[]")
    with pytest.raises(Unavailable):
        look_up(store, ("c1", MIDNIGHT))
    publish(store, row("c1", 0.5))
    assert look_up(store, ("c1", MIDNIGHT + HOUR)) == [(0.5, "present")]


@settings(max_examples=20, deadline=None)
@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from([*couriers, "c9", None]),
            st.sampled_from([*districts, "moon"]),
            # From the midnight on which the last partition ends, past its publication, to after its time to live.
            st.integers(0, 75 * 60).map(lambda minutes: MIDNIGHT + timedelta(minutes=minutes)),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_online_answers_are_the_offline_ones(
    trained: TrainedHome, asked: list[tuple[str | None, str, datetime]]
) -> None:
    """For any request after the last partition the snapshot gives what the point-in-time join gives, to the bit."""
    schema = {"courier": pl.String(), "district": pl.String(), "at": INSTANT}
    requests = pl.DataFrame(asked, schema=schema, orient="row")
    offline = historical_features(trained.platform, trained.domain, trained.model, requests)
    store = SnapshotStore(trained.platform.online)
    looked_up = [
        store.lookup(view, requests, requests["at"]).values for view in view_features(trained.domain, trained.model)
    ]
    assert pl.concat(looked_up, how="horizontal").equals(offline)
