"""Landed days: what the sources of a domain have sent, wherever they send it.

A source lands a day as a whole, in a place that can be listed and read (`domain.source.Landing`). Here is what all
places have in common: which of their names are days of the domain, and how a day comes into the contract's columns.
What it refuses: a day that is not what the source's contract declares (`MalformedFile`).
"""

import importlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Bucket, Folder, Landing, Query, Source, Stream
from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.landing.bucket import LandingBucket
from mlplatform.features.landing.files import day_of
from mlplatform.features.landing.folder import LandingFolder
from mlplatform.features.landing.query import LandingQuery
from mlplatform.features.landing.stream import LandingStream
from mlplatform.features.rules import cast_to_contract
from mlplatform.features.streaming.fact_log import fact_folder
from mlplatform.features.tables import Tables
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.settings import database_url


@dataclass(frozen=True, kw_only=True)
class Landed:
    """What lies in the landing place of a source."""

    days: Mapping[str, str]
    """ISO day -> version, in order."""

    strangers: Mapping[str, str]
    """Name -> why it is not taken in."""


def place_of(platform: Platform, domain: Domain, source: Source) -> Landing | Folder | Bucket | Query | Stream | str:
    """Where a source lands: what it declares, else its folder in the platform's landing place. As text it is told."""
    if source.landing is not None:
        return source.landing
    if not platform.landings.startswith("s3://"):
        return Folder(path=platform.landing(domain.name) / source.name)
    bucket, _, prefix = platform.landings.removeprefix("s3://").partition("/")
    return Bucket(bucket=bucket, prefix=f"{prefix}/{domain.name}/{source.name}")


def landing_of(platform: Platform, domain: Domain, source: Source) -> Landing:
    """The place where a source lands, opened."""
    match place_of(platform, domain, source):
        case Folder(path=path):
            return LandingFolder(path, platform.clock)
        case Bucket() as place:
            return LandingBucket(place, platform.s3)
        case Query() as place:
            url = database_url(place.url_variable)
            return LandingQuery(place, url, first=domain.start, last=domain.end, clock=platform.clock)
        case Stream():
            return landing_stream(platform, domain, source)
        case str() as named:
            return _imported(named, f"{domain.name}/{source.name}")
        case own:
            return own


def landing_stream(platform: Platform, domain: Domain, source: Source) -> LandingStream:
    """The days of a source that is streamed.

    Raises
    ------
    DeclarationError
        It is not.
    """
    if not isinstance(source.landing, Stream):
        raise DeclarationError(
            f"{domain.name}/{source.name} lands in {place_of(platform, domain, source)}. To send its facts as they "
            "happen, declare `landing=Stream(time=…)`"
        )
    return LandingStream(
        fact_folder(platform.home, domain.name, source.name),
        source.landing,
        source.contract,
        platform.clock,
        first=domain.start,
        last=domain.end,
        raw=lambda day, number: Tables(platform, domain).raw(source.name).read(numbers={day: number}),
    )


def landed(platform: Platform, domain: Domain, source: Source) -> Landed:
    """The days that a source has landed, and what else lies there."""
    days, strangers = {}, {}
    today = platform.clock().date()
    for name, version in sorted(landing_of(platform, domain, source).list().items()):
        day = day_of(name)
        if day is None:
            strangers[name] = "its name is no day such as 2024-01-31 (of a file: 2024-01-31.parquet, .csv or .jsonl)"
        elif day < domain.start:
            strangers[name] = f"it is before the first day of {domain.name}, {domain.start}"
        elif domain.end is not None and day > domain.end:
            strangers[name] = f"it is after the last day of {domain.name}, {domain.end}"
        elif day > today:
            strangers[name] = f"it is in the future: today is {today} (UTC)"
        elif day == today:
            strangers[name] = "its day is not over; it is taken in after midnight UTC"
        else:
            days[name] = version
    return Landed(days=days, strangers=strangers)


def read_landed(platform: Platform, domain: Domain, source: Source, day: str, version: str) -> pl.DataFrame:
    """Rows of one landed day in the contract's columns and types.

    Parameters
    ----------
    version : what `landed` said

    Raises
    ------
    MalformedFile
        It cannot be read, lacks a column, or holds a value that cannot be of its declared type.
    ChangedWhileRead
        It has gone or been landed again since `landed` looked at it.
    """
    rows = landing_of(platform, domain, source).read(day, version)
    return cast_to_contract(rows, source.contract, path=f"{domain.name}/{source.name} of {day}")


def days_landed_by_all(platform: Platform, domain: Domain) -> list[str]:
    """Days for which every source has landed or is declared absent, in order."""
    listed = {source.name: landed(platform, domain, source).days for source in domain.sources}
    return [
        day
        for day in sorted(set().union(*listed.values()))
        if all(day in listed[source.name] or date.fromisoformat(day) in source.absent for source in domain.sources)
    ]


def land(platform: Platform, domain: Domain, source: Source, day: date, rows: pl.DataFrame) -> str:
    """Put a day's rows where a source lands, as it does: whole or not at all. Same rows change nothing.

    Returns
    -------
    where : path or address

    Raises
    ------
    DeclarationError
        The source lands neither in a folder nor in a bucket.
    """
    file = f"{day.isoformat()}.parquet"
    held = io.BytesIO()
    rows.write_parquet(held)
    match place_of(platform, domain, source):
        case Folder(path=folder):
            path = folder / file
            if not path.exists() or path.read_bytes() != held.getvalue():
                write_whole(path, held.getvalue())
            return str(path)
        case Bucket() as place:
            return LandingBucket(place, platform.s3).write(file, held.getvalue())
    raise DeclarationError(
        f"{domain.name}/{source.name} lands in a place of its own. Put the day there as its source does"
    )


def land_sample(platform: Platform, domain: Domain, first: date, last: date) -> int:
    """Land the sample of a domain for some days; returns the number of files.

    Raises
    ------
    DeclarationError
        The domain has no sample.
    DataError
        The sample does not hold those days.
    """
    if domain.sample is None:
        places = ", ".join(str(place_of(platform, domain, source)) for source in domain.sources)
        raise DeclarationError(f"{domain.name} has no sample. Let its sources land in {places}")
    if first < domain.sample.start or last > domain.sample.end:
        raise DataError(
            f"the sample of {domain.name} holds {domain.sample.start} to {domain.sample.end}, not {first} to {last}"
        )
    files = 0
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        for source in domain.sources:
            land(platform, domain, source, day, domain.sample.read(source.name, day))
            files += 1
    return files


def _imported(named: str, source: str) -> Landing:
    """The landing that a declaration names as `module:object`."""
    module, _, name = named.partition(":")
    try:
        found: Landing = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DeclarationError(
            f"{source} lands in {named!r}, which cannot be imported ({error}). Name it `module:object`"
        ) from error
    return found
