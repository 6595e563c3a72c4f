"""A source, where it lands its days, and the tables the pipeline makes of it: raw, validated, base, derived."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

import polars as pl

from mlplatform.domain.column import Column, Contract
from mlplatform.errors import DeclarationError


class Landing(Protocol):
    """Where a source lands its days: anything with `list` and `read`."""

    def list(self) -> Mapping[str, str]:
        """Name -> version of everything that is complete there.

        A name that is an ISO day is what landed for that day; any other is a stranger, which the platform reports and
        does not take in. A version is any text that changes when the content does. What is still being written is left
        out.
        """
        ...

    def read(self, day: str, version: str) -> pl.DataFrame:
        """Rows as they landed, any dtypes: the contract brings them to its own.

        Raises
        ------
        MalformedFile
            What is there cannot be read.
        DataError
            It is no longer the version that `list` has seen.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Files `<day>.parquet`, `<day>.csv` or `<day>.jsonl` in a folder."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Objects `<day>.parquet`, `<day>.csv` or `<day>.jsonl` under a prefix of an S3 bucket.

    Endpoint, region and credentials come from the `AWS_` variables or from whatever else the AWS libraries look at.
    """

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return "/".join(["s3:/", self.bucket, *filter(None, [self.prefix.strip("/")])])


@dataclass(frozen=True, kw_only=True)
class Query:
    """Rows in a database that SQLAlchemy can reach, one landing per day.

    Both queries are bounded by `:day_start` (included) and `:day_end` (excluded), midnights in UTC.
    """

    url_variable: str
    """Environment variable that holds the database's URL, as SQLAlchemy writes it. Never the URL itself: it holds a
    password, and a declaration travels in bundles."""

    watermark: str
    """Gives for each day between the bounds the day, and what changes when its rows do: `select date(ordered_at),
    count(*), max(updated_at) from … where … group by 1`. Asked at every look, so let an index serve it."""

    select: str
    """Gives the rows between the bounds, which are those of one day."""

    settle: timedelta = timedelta(0)
    """How long after a day its rows still come in: no sooner is it complete. Too short costs corrections, not truth."""

    empty_days: bool = False
    """Whether a day without a row is one on which nothing happened. False: it is still to come, and windows over it
    wait; True for a database that is always up to date."""

    def __str__(self) -> str:
        return f"the database that {self.url_variable} names"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Facts that are sent one by one as they happen: to `POST /facts/<source>` of a gateway, or to `mlplatform stream`.

    They are kept in the platform's home, each once however often it was sent; a day lands when it is over. A fact that
    comes later still is a correction of its day.
    """

    time: str
    """Column of the contract (Datetime us, UTC) that tells which day a row is of: when the fact became known."""

    grace: timedelta = timedelta(minutes=5)
    """How long after a day its rows still come in: no sooner is it complete. Too short costs corrections, not truth."""

    empty_days: bool = False
    """Whether a day without a row is one on which nothing happened. False: it is still to come, and windows over it
    wait, which is right where a silent sender is more likely than a silent day."""

    since: date | None = None
    """First day that is the stream's, of a source that landed in another way before: a late fact of an earlier day
    would otherwise be all that there is of it, and the correction would take the rest away. None: every day is."""

    keep: timedelta | None = None
    """How long after their day facts stay in the log; then those that are in `raw` go, never sooner than two days after
    the longest window. None: for ever."""

    def __str__(self) -> str:
        return "the facts that were streamed"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where facts come from, one landing a day, and how their base table is made."""

    name: str
    meaning: str
    contract: Contract
    base: Callable[[pl.DataFrame], pl.DataFrame]
    """Validated rows of one partition -> base rows: typed, in UTC, with an `event_time` (Datetime us, UTC): when the
    fact became known in the world. Pure: no look at any other day, no clock, no random number."""

    base_columns: tuple[Column, ...]
    """What `base` gives, `event_time` not listed."""

    landing: Landing | Folder | Bucket | Query | Stream | str | None = None
    """Where its days land. None: `<domain>/<source>` in the platform's landing place. An object with `list` and `read`
    opens nothing before it is asked: a serving host has it too. One that needs a library which a serving host has not
    is named, `module:object`, and imported when it is asked."""

    absent: frozenset[date] = frozenset()
    """Days on which the source is known to have sent nothing; a window may pass over them."""

    def __post_init__(self) -> None:
        if not isinstance(self.landing, Stream):
            return
        times = [column.name for column in self.contract.columns if column.dtype == pl.Datetime("us", "UTC")]
        if self.landing.time not in times:
            raise DeclarationError(
                f"{self.name} is streamed by {self.landing.time!r}, which is no column of type Datetime('us', 'UTC') "
                f"of its contract; there is {', '.join(times) or 'none'}"
            )


@dataclass(frozen=True, kw_only=True)
class Derived:
    """Facts that need several base tables of the same day, in the domain's own terms; what views read."""

    name: str
    meaning: str
    inputs: tuple[str, ...]
    """Names of sources whose base tables are read."""

    function: Callable[[Mapping[str, pl.DataFrame]], pl.DataFrame]
    """Base tables of one partition, by source name -> rows with `event_time`. Pure."""

    columns: tuple[Column, ...]
    """What `function` gives, `event_time` not listed."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Data that ships with a domain, so that it runs before a real source is connected."""

    start: date
    end: date
    """Last day, inclusive."""

    demo_days: int
    """How many days from `start` the demo lands."""

    read: Callable[[str, date], pl.DataFrame]
    """(source name, day) -> the rows the source would send for that day, in the contract's columns."""
