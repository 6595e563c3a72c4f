"""The landing query: which days of a database are complete, and when they have changed."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from mlplatform.domain.source import Query
from mlplatform.errors import ChangedWhileRead, DeclarationError, Unavailable
from mlplatform.features.landing import query
from mlplatform.features.landing.query import LandingQuery
from mlplatform.settings import database_url
from mlplatform_tests.fakes.synthetic_home import Clock

SALES = Query(
    url_variable="SHOP_DATABASE_URL",
    watermark="SELECT date(sold_at), count(*), max(changed_at) FROM sales "
    "WHERE sold_at >= :day_start AND sold_at < :day_end GROUP BY 1",
    select="SELECT * FROM sales WHERE sold_at >= :day_start AND sold_at < :day_end ORDER BY number",
)


class Database:
    """A file of SQLite with the sales of a shop."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.url = f"sqlite:///{file}"
        self.do("CREATE TABLE sales (number INTEGER, sold_at TEXT, amount REAL, changed_at TEXT)")

    def do(self, statement: str, *values: object) -> None:
        """Execute and commit."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute(statement, values)

    def sell(self, number: int, sold_at: str, amount: float | None = 1.5) -> None:
        """One row, changed at number o'clock."""
        self.do("INSERT INTO sales VALUES (?, ?, ?, ?)", number, sold_at, amount, f"2024-02-01 {number:02}:00:00")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """A database without a row."""
    return Database(tmp_path / "shop.db")


def landing(database: Database, query: Query = SALES, *, now: str = "2024-01-05T00:00", url: str = "") -> LandingQuery:
    """The landing from 1 January on, at some time."""
    clock = Clock(datetime.fromisoformat(now).replace(tzinfo=UTC))
    return LandingQuery(query, url or database.url, first=date(2024, 1, 1), last=None, clock=clock)


def rows(database: Database, day: str, query: Query = SALES) -> pl.DataFrame:
    """What lies there of a day now."""
    place = landing(database, query)
    return place.read(day, place.list()[day])


def test_the_bounds_are_midnights_however_the_times_are_written(database: Database) -> None:
    """The first instant of a day is its own and the last too; so it is with a blank, a T or a zone in the text."""
    for number, sold_at in enumerate(
        ["2024-01-01 23:59:59.999", "2024-01-02 00:00:00", "2024-01-02T00:00:00Z", "2024-01-02", "2024-01-03T00:00:00"]
    ):
        database.sell(number, sold_at)
    assert [rows(database, f"2024-01-0{day}")["number"].to_list() for day in (1, 2, 3)] == [[0], [1, 2, 3], [4]]


def test_a_day_counts_once_it_is_over_and_has_settled(database: Database) -> None:
    """Not a second before the declared time after its end."""
    for day in (2, 3, 4):
        database.sell(day, f"2024-01-0{day} 12:00:00")
    late = replace(SALES, settle=timedelta(hours=2))
    assert list(landing(database, now="2024-01-03T23:59:59").list()) == ["2024-01-02"]
    assert list(landing(database, now="2024-01-04T00:00:00").list()) == ["2024-01-02", "2024-01-03"]
    assert list(landing(database, late, now="2024-01-04T01:59:59").list()) == ["2024-01-02"]
    assert list(landing(database, late, now="2024-01-04T02:00:00").list()) == ["2024-01-02", "2024-01-03"]
    assert landing(database, now="2023-12-31T00:00:00").list() == {}


def test_no_day_after_the_domains_last_is_asked_about(database: Database) -> None:
    """A table goes on when a domain has ended; its later days are no strangers."""
    for day in (2, 3):
        database.sell(day, f"2024-01-0{day} 12:00:00")
    clock = Clock(datetime(2024, 1, 5, tzinfo=UTC))
    ended = LandingQuery(SALES, database.url, first=date(2024, 1, 1), last=date(2024, 1, 2), clock=clock)
    assert list(ended.list()) == ["2024-01-02"]


def test_a_day_without_rows_is_to_come_unless_declared(database: Database) -> None:
    """Declared, every day that is over has landed, the empty ones with no rows; a first row is a correction."""
    database.sell(1, "2024-01-02 12:00:00")
    assert list(landing(database).list()) == ["2024-01-02"]
    always = replace(SALES, empty_days=True)
    before = landing(database, always).list()
    assert sorted(before) == ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
    assert rows(database, "2024-01-03", always).shape == (0, 4)
    database.sell(2, "2024-01-03 12:00:00")
    after = landing(database, always).list()
    assert [day for day in before if before[day] != after[day]] == ["2024-01-03"]


def test_a_change_without_another_row_is_seen(database: Database) -> None:
    """By the watermark's own terms; another query lands other rows, so it is another version too."""
    database.sell(1, "2024-01-02 12:00:00")
    before = landing(database).list()
    assert landing(database).list() == before
    shorter = replace(SALES, select=SALES.select.replace("*", "number"))
    assert landing(database, shorter).list() != before
    database.do("UPDATE sales SET amount = 2, changed_at = '2024-02-02'")
    assert landing(database).list() != before


def test_rows_that_move_while_they_are_read_are_not_taken_in(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watermark is looked at again after the rows."""
    database.sell(1, "2024-01-02 12:00:00")
    place = landing(database)
    planned = place.list()["2024-01-02"]
    frame = query._frame

    def sold_meanwhile(result: object) -> pl.DataFrame:
        found = frame(result)  # type: ignore[arg-type]
        database.sell(2, "2024-01-02 13:00:00")
        return found

    monkeypatch.setattr(query, "_frame", sold_meanwhile)
    with pytest.raises(
        ChangedWhileRead, match="2024-01-02 of the database that SHOP_DATABASE_URL names was changed while"
    ):
        place.read("2024-01-02", planned)


def test_rows_come_in_parts_and_make_one_table(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column may be empty in the first part, and whole numbers in the next."""
    for number, amount in enumerate([None, None, 1, 2.5, None]):
        database.sell(number, "2024-01-02 12:00:00", amount)
    monkeypatch.setattr(query, "rows_at_once", 2)
    found = rows(database, "2024-01-02")
    assert found["amount"].to_list() == [None, None, 1.0, 2.5, None]
    assert found["number"].to_list() == [0, 1, 2, 3, 4]


def test_more_days_than_were_asked_for_are_left_out(database: Database) -> None:
    """A watermark query may do without the bounds; what is no day at all is given on, to be told."""
    for sold_at in ("2023-12-31", "2024-01-02", "2024-01-05", "soon"):
        database.sell(1, sold_at)
    boundless = replace(SALES, watermark="SELECT coalesce(date(sold_at), sold_at), count(*) FROM sales GROUP BY 1")
    assert sorted(landing(database, boundless).list()) == ["2024-01-02", "soon"]
    assert rows(database, "2024-01-02", boundless).height == 1


@pytest.mark.parametrize(
    ("watermark", "told"),
    [
        ("SELECT date(sold_at), number FROM sales", "gives 2024-01-02 twice"),
        ("SELECT date(sold_at) FROM sales GROUP BY 1", "gives 2024-01-02 alone"),
    ],
)
def test_a_watermark_that_tells_no_versions_is_refused(database: Database, watermark: str, told: str) -> None:
    """With what it should give."""
    for number in (1, 2):
        database.sell(number, "2024-01-02 12:00:00")
    with pytest.raises(DeclarationError, match=f"{told}.*one row per day"):
        landing(database, replace(SALES, watermark=watermark)).list()


def test_the_day_may_be_a_date_a_midnight_or_text() -> None:
    """Whatever the driver makes of it; an instant within a day is no day."""
    given = [date(2024, 1, 2), datetime(2024, 1, 2), "2024-01-02", datetime(2024, 1, 2, 3), None]
    assert [query._name(day) for day in given] == ["2024-01-02"] * 3 + ["2024-01-02 03:00:00", "None"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:////no/such/folder/shop.db", "unable to open database file"),
        ("nosuch://me:geheim@host/shop", "nosuch"),
        ("me:geheim@host/shop", "Could not parse SQLAlchemy URL"),
        ("postgresql+nosuchdriver://me:geheim@host/shop", "nosuchdriver"),
        ("postgresql+psycopg2://me:geheim@host/shop", "psycopg2"),
    ],
)
def test_a_database_that_cannot_be_asked_is_said_not_to(database: Database, url: str, told: str) -> None:
    """By the name of its variable, with what is the matter, and never with the password."""
    with pytest.raises(Unavailable, match="the database that SHOP_DATABASE_URL names") as refused:
        landing(database, url=url).list()
    assert told in str(refused.value)
    assert "geheim" not in str(refused.value)
    # What the driver said is not shown with `--debug` either.
    assert refused.value.__cause__ is None or isinstance(refused.value.__cause__, ImportError)


def test_a_query_that_it_does_not_understand_is_said_to_be_one(database: Database) -> None:
    """It is no fault of a day, so no day is marked as failed for it: the run is tried again."""
    database.sell(1, "2024-01-02 12:00:00")
    wrong = replace(SALES, select="SELECT * FROM sails WHERE :day_start < :day_end")
    with pytest.raises(Unavailable, match=r"no such table: sails.*correct the URL or the query"):
        rows(database, "2024-01-02", wrong)


def test_a_password_in_a_message_of_the_driver_is_taken_out(database: Database) -> None:
    """Drivers may say the address that they were given."""
    place = landing(database, url="postgresql://me:geheim@host/shop")
    said = place._told(ValueError("no route to postgresql://me:geheim@host/shop, password geheim, //me:ge%40@host"))
    assert said == "no route to …, password …, //…@host"


def test_the_url_is_read_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not set, that is what is said."""
    monkeypatch.setenv("SHOP_DATABASE_URL", "sqlite://")
    assert database_url("SHOP_DATABASE_URL") == "sqlite://"
    monkeypatch.delenv("SHOP_DATABASE_URL")
    with pytest.raises(Unavailable, match="SHOP_DATABASE_URL is not set"):
        database_url("SHOP_DATABASE_URL")
