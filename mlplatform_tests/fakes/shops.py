"""Shops that send the synthetic domain's orders: the same days to a folder, to a bucket or into a database."""

import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Bucket, Folder, Query
from mlplatform.domains.synthetic import DOMAIN
from mlplatform_tests.fakes.s3_endpoint import Held


def selling_to(landing: Folder | Bucket | Query) -> Domain:
    """The synthetic domain with its orders landing there."""
    return replace(DOMAIN, sources=(replace(DOMAIN.source("orders"), landing=landing),))


def as_parquet(rows: pl.DataFrame) -> bytes:
    """The bytes of a file."""
    held = io.BytesIO()
    rows.write_parquet(held)
    return held.getvalue()


class Shop(Protocol):
    """One that sends orders, corrects them, and gets it wrong."""

    domain: Domain

    def send(self, day: str, rows: pl.DataFrame) -> None:
        """Land a day, or land it again."""
        ...

    def withdraw(self, day: str) -> None:
        """Take a day away."""
        ...

    def send_nonsense(self, day: str) -> None:
        """Land what cannot be read as orders."""
        ...

    def send_stranger(self) -> str:
        """Land something that is no day; returns its name."""
        ...


class FolderShop:
    """Renames files into a folder."""

    def __init__(self, folder: Path) -> None:
        self.domain = selling_to(Folder(path=folder))
        self._folder = folder

    def send(self, day: str, rows: pl.DataFrame) -> None:
        """A Parquet file."""
        self._write(f"{day}.parquet", as_parquet(rows))

    def withdraw(self, day: str) -> None:
        """Unlinked."""
        (self._folder / f"{day}.parquet").unlink()

    def send_nonsense(self, day: str) -> None:
        """Not what its name says."""
        self._write(f"{day}.parquet", b"PAR1 no Parquet PAR1")

    def send_stranger(self) -> str:
        """A note beside the files."""
        self._write("read.me", b"how to read them")
        return "read.me"

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(exist_ok=True)
        draft = self._folder / f".{name}"
        draft.write_bytes(content)
        draft.rename(self._folder / name)


class BucketShop:
    """Puts objects under a prefix."""

    def __init__(self, held: Held, prefix: str = "shop/orders") -> None:
        self.domain = selling_to(Bucket(bucket=held.bucket, prefix=prefix))
        self._held = held
        self._prefix = prefix

    def send(self, day: str, rows: pl.DataFrame) -> None:
        """A Parquet object."""
        self._held.put(f"{self._prefix}/{day}.parquet", as_parquet(rows))

    def withdraw(self, day: str) -> None:
        """Deleted."""
        self._held.remove(f"{self._prefix}/{day}.parquet")

    def send_nonsense(self, day: str) -> None:
        """Not what its name says."""
        self._held.put(f"{self._prefix}/{day}.parquet", b"PAR1 no Parquet PAR1")

    def send_stranger(self) -> str:
        """A note beside the objects."""
        self._held.put(f"{self._prefix}/read.me", b"how to read them")
        return "read.me"


class DatabaseShop:
    """Keeps its orders in a table of SQLite, by the day of their report; `changed` counts the deliveries of rows."""

    variable = "SHOP_DATABASE_URL"
    query = Query(
        url_variable=variable,
        watermark="SELECT day, count(*), max(changed) FROM orders "
        "WHERE (day >= :day_start AND day < :day_end) OR day IS NULL GROUP BY day",
        select="SELECT * FROM orders WHERE day >= :day_start AND day < :day_end",
    )

    def __init__(self, file: Path, query: Query = query) -> None:
        self.domain = selling_to(query)
        self.url = f"sqlite:///{file}"
        self._file = file
        self._changes = 0
        with self._connected() as connection:
            columns = ", ".join(DOMAIN.source("orders").contract.names)
            connection.execute(f"CREATE TABLE orders (day, {columns}, changed)")

    def send(self, day: str, rows: pl.DataFrame) -> None:
        """Its rows replaced."""
        told = rows.with_columns(pl.selectors.datetime().dt.strftime("%Y-%m-%d %H:%M:%S%:z"))
        self._changes += 1
        values = ", ".join("?" for _ in told.columns)
        with self._connected() as connection:
            connection.execute("DELETE FROM orders WHERE day = ?", [day])
            connection.executemany(
                f"INSERT INTO orders (day, changed, {', '.join(told.columns)}) VALUES (?, ?, {values})",
                [(day, self._changes, *row) for row in told.rows()],
            )

    def withdraw(self, day: str) -> None:
        """Deleted."""
        with self._connected() as connection:
            connection.execute("DELETE FROM orders WHERE day = ?", [day])

    def send_nonsense(self, day: str) -> None:
        """Text where there should be a number."""
        with self._connected() as connection:
            connection.execute("DELETE FROM orders WHERE day = ?", [day])
            for items in (1, "many"):
                connection.execute("INSERT INTO orders (items, day, changed) VALUES (?, ?, -1)", [items, day])

    def send_stranger(self) -> str:
        """An order of no day."""
        with self._connected() as connection:
            connection.execute("INSERT INTO orders (order_id, changed) VALUES (1, 1)")
        return "None"

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file)) as connection, connection:
            yield connection
