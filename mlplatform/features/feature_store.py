"""The feature store: the same feature references read from the past and from the online store, with the same answers.

`get_historical_features` says what each past request could have seen, from the published Delta tables;
`get_online_features` what a request of now is told, from the online store. Both give the rows they were given, in their
order, with the same columns and types beside them.

What it refuses: a reference to what there is not, a view in another version than the declared one, a time without a
zone.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial

import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import DataError, OtherViewVersion, Unavailable
from mlplatform.features.epoch import epoch_micros
from mlplatform.features.known_facts import KnownBy, Pins, known_facts
from mlplatform.features.online.store import OnlineStore, open_online_store
from mlplatform.features.point_in_time import point_in_time_join
from mlplatform.features.references import Asked, AskedView, likely, resolve
from mlplatform.features.streaming.record import known_at_once
from mlplatform.features.tables import Tables
from mlplatform.features.view import instant
from mlplatform.provenance.platform import Platform

told_with_statuses = {
    "status": pl.String(),
    "revision": pl.Int64(),
    "event_time": instant,
    "available_at": instant,
}
"""Columns `<name>__<this>` that stand beside each value where statuses are asked for."""

references_remembered = 64
"""Lists of references that a store does not resolve again; a program has a few."""

_null = pl.Series("status", ["null"])


class FeatureStore:
    """Historical and online reads of feature references.

    Parameters
    ----------
    platform : Platform
    domain : whose views a reference without a domain names
    online : where `get_online_features` reads; None: the platform's own
    now : what time it is, for online reads that name none; None: the platform's clock
    """

    def __init__(
        self,
        platform: Platform,
        domain: Domain,
        *,
        online: OnlineStore | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self._platform = platform
        self._domain = domain
        self._online = online
        self._now = now or platform.clock
        # A declaration does not change while a process runs, and to hash it takes longer than to look a key up.
        self._resolved = lru_cache(maxsize=references_remembered)(partial(resolve, domain))
        self._key_schemas: dict[str, pl.Schema] = {}

    def get_historical_features(
        self,
        entities: pl.DataFrame,
        refs: Sequence[str],
        *,
        at: str = "at",
        known_by: KnownBy = None,
        pins: Pins | None = None,
        statuses: bool = False,
    ) -> pl.DataFrame:
        """What each row could have been told at its time.

        Parameters
        ----------
        entities : (n, …) the keys of every view that is asked for, and `at`: a Datetime of any zone and unit, which
            counts to the microsecond; other columns are passed through
        refs : `view:feature`, `view:*`, `view@version:feature`, `domain/view:feature`
        known_by : None: what is believed now of the past. `then`: each row sees the revisions that this platform had at
            the row's own time. A datetime: those that it had at that time
        pins : by `owner/view`, the revision of each partition; partitions not pinned are not read. None: all
        statuses : also give, for each value, `<name>__status` (`present`, `null`, `not_found`, `expired`),
            `<name>__revision`, `<name>__event_time` and `<name>__available_at`, null where it is not there

        Returns
        -------
        frame : (n, …) the rows of `entities`, in their order, and a column for each feature

        Raises
        ------
        UnknownFeature, OtherViewVersion
            A reference names what there is not.
        DataError
            The entities lack a column, or times have no zone.
        """
        if isinstance(known_by, datetime):
            known_by = as_instant(known_by, "known_by")
        elif known_by not in (None, "then"):
            raise DataError(f"known_by is {known_by!r}. Give None, 'then' or an aware datetime")
        asked = self._resolved(_listed(refs))
        instants = _instants(entities, at)
        answers = {
            each.label: self.historical_view(each, entities, instants, known_by, pins, statuses=statuses)
            for each in asked.views
        }
        return _beside(entities, asked, answers, statuses=statuses)

    def get_online_features(
        self,
        keys: pl.DataFrame,
        refs: Sequence[str],
        *,
        at: datetime | str | None = None,
        statuses: bool = False,
    ) -> pl.DataFrame:
        """What a request is told now, with the columns and types of `get_historical_features`.

        Parameters
        ----------
        keys : (n, …) the keys of every view that is asked for; other columns are passed through
        at : the time of all requests, or the name of the column that holds it; None: now

        Raises
        ------
        UnknownFeature, OtherViewVersion
            A reference names what there is not, or the store serves another version of a view.
        DataError
            The keys lack a column, or times have no zone.
        Unavailable
            The online store cannot be read, or holds nothing of a view.
        """
        asked = self._resolved(_listed(refs))
        if isinstance(at, str):
            instants = _instants(keys, at)
        else:
            now = as_instant(at if at is not None else self._now(), "at")
            # By its number: Polars takes longer over one datetime than over a thousand numbers.
            instants = pl.Series("at", [epoch_micros(now)]).new_from_index(0, keys.height).cast(instant)
        answers = {each.label: self._looked_up(each, keys, instants) for each in asked.views}
        return _beside(keys, asked, answers, statuses=statuses)

    def historical_view(
        self,
        asked: AskedView,
        entities: pl.DataFrame,
        instants: pl.Series,
        known_by: KnownBy,
        pins: Pins | None,
        *,
        statuses: bool,
        expired: bool = True,
        without: Collection[tuple[str, int]] = (),
    ) -> pl.DataFrame:
        """The features of one view that are asked for, and `status`.

        With `statuses`, also `revision`, `event_time`, `available_at` and `partition`: the row of the view's table.

        Parameters
        ----------
        expired : whether the statuses are to tell a value that has expired from one that never was, for which every
            older partition has to be read; else both are `not_found`
        without : as in `known_facts`
        """
        store = Tables(self._platform, asked.owner).features(asked.view)
        if pins is not None and asked.label not in pins:
            raise DataError(f"the pins name no revision of {asked.label}. {likely(asked.label, sorted(pins))}")
        rows = _keys(asked, store.schema, entities).with_columns(instants.alias("_at"))
        # Of no rows, any instant will do.
        first, last = (instants.min(), instants.max()) if rows.height else (datetime(1970, 1, 1, tzinfo=UTC),) * 2
        assert isinstance(first, datetime)
        assert isinstance(last, datetime)
        facts = known_facts(
            store,
            first,
            last,
            columns=list(asked.columns),
            keys=asked.view.entity,
            ttl=asked.view.ttl,
            pins=None if pins is None else pins[asked.label],
            known_by=known_by,
            expired=statuses and expired,
            at_once=known_at_once(self._platform, asked.owner, asked.view),
            without=without,
        )
        told = ["_revision", "event_time", "available_at", "_partition"] if statuses else []
        return point_in_time_join(
            rows, facts, keys=asked.view.entity, values=[*asked.columns, *told], ttl=asked.view.ttl, at="_at"
        ).rename({"_status": "status"} | ({"_revision": "revision", "_partition": "partition"} if statuses else {}))

    def _looked_up(self, asked: AskedView, keys: pl.DataFrame, instants: pl.Series) -> pl.DataFrame:
        """The same from the online store."""
        store = self._online_store()
        if asked.label not in self._key_schemas:
            self._key_schemas[asked.label] = Tables(self._platform, asked.owner).features(asked.view).schema
        rows = _keys(asked, self._key_schemas[asked.label], keys)
        there = store.version(asked.label)
        if there is None:
            raise Unavailable(
                f"the online store holds nothing of {asked.label}. Materialise `online_store` of {asked.owner.name}"
            )
        if there != asked.version:
            raise OtherViewVersion(asked.label, asked.version, there)
        # By its version, for another one may take its place in between.
        found = store.lookup(f"{asked.label}@{asked.version}", rows, instants)
        return pl.DataFrame(
            [
                *(found.values.get_column(feature) for feature in asked.columns),
                found.statuses.alias("status"),
                found.revisions.alias("revision"),
                found.event_time.alias("event_time"),
                found.available_at.alias("available_at"),
            ]
        )

    def _online_store(self) -> OnlineStore:
        if self._online is None:
            self._online = open_online_store(self._platform.online_store)
        return self._online


def _beside(rows: pl.DataFrame, asked: Asked, answers: dict[str, pl.DataFrame], *, statuses: bool) -> pl.DataFrame:
    """The rows as they came, and beside them the columns in the order of the references."""
    told: dict[str, pl.Series] = {}
    for view in asked.views:
        answer = answers[view.label]
        told |= {name: answer.get_column(feature).alias(name) for feature, name in view.columns.items()}
        if statuses:
            told |= _told_with(answer, view.columns)
    order = [*asked.columns]
    if statuses:
        order += [f"{name}__{column}" for name in asked.columns for column in told_with_statuses]
    if clash := [name for name in order if name in rows.columns]:
        raise DataError(f"the rows already have {', '.join(clash)}, which is what is asked for. Drop or rename it")
    return rows.hstack([told[name] for name in order])


def _told_with(answer: pl.DataFrame, columns: Mapping[str, str]) -> dict[str, pl.Series]:
    """`told_with_statuses` of each value of a view."""
    same = {column: answer.get_column(column).cast(dtype) for column, dtype in told_with_statuses.items()}
    present = same["status"] == "present"
    absent = answer.height - int(present.sum())
    told = {}
    for feature, name in columns.items():
        value = answer.get_column(feature)
        # What is not present has no value, and mostly nothing else is without one.
        null = value.null_count() > absent
        status = same["status"].zip_with(~present | value.is_not_null(), _null) if null else same["status"]
        for column, each in {**same, "status": status}.items():
            told[f"{name}__{column}"] = each.alias(f"{name}__{column}")
    return told


def _keys(asked: AskedView, schema: pl.Schema, rows: pl.DataFrame) -> pl.DataFrame:
    """The key columns of a view, in the types of its table."""
    keys = asked.view.entity
    if missing := [key for key in keys if key not in rows.columns]:
        raise DataError(
            f"{asked.label} is keyed by {', '.join(keys)}, but the rows have no {', '.join(missing)}; they have "
            f"{', '.join(rows.columns)}"
        )
    return pl.DataFrame([_as_key(rows.get_column(key), schema[key], asked.label) for key in keys])


def _as_key(column: pl.Series, dtype: pl.DataType, view: str) -> pl.Series:
    """A key in the type of the table, where that changes none of its values."""
    if column.dtype == dtype:
        return column
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String())
    try:
        cast = column.cast(dtype)
        same = column.dtype == pl.Null() or cast.cast(column.dtype).eq_missing(column).all()
    except pl.exceptions.PolarsError:
        same = False
    if not same:
        raise DataError(f"the key {column.name!r} of {view} is {dtype}, but the rows have {column.dtype}. Cast it")
    return cast


def _instants(rows: pl.DataFrame, at: str) -> pl.Series:
    """The times of the rows, in UTC and to the microsecond."""
    if at not in rows.columns:
        raise DataError(f"the rows have no time column {at!r}; they have {', '.join(rows.columns)}. Name it with `at`")
    times = rows.get_column(at)
    if not isinstance(times.dtype, pl.Datetime) or times.dtype.time_zone is None:
        raise DataError(
            f"the time column {at!r} is {times.dtype}, which is no instant. Say which zone it is in: "
            f"`.dt.replace_time_zone('America/New_York')` of a Datetime, or 'UTC'"
        )
    if nulls := times.null_count():
        raise DataError(f"{nulls} rows have no time in {at!r}. Drop them, or say when they are asked")
    return times.dt.convert_time_zone("UTC").dt.cast_time_unit("us")


def as_instant(time: datetime, what: str) -> datetime:
    """A time in UTC; refuses one without a zone."""
    if time.tzinfo is None:
        raise DataError(f"{what} is {time.isoformat()}, which has no zone. Give an aware datetime, best in UTC")
    return time.astimezone(UTC)


def _listed(refs: Sequence[str]) -> tuple[str, ...]:
    return (refs,) if isinstance(refs, str) else tuple(refs)
