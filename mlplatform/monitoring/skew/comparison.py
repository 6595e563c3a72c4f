"""Training-serving skew: the feature vectors that were served on a day against what is computed offline for them.

For each logged answer the same request is taken through the historical point-in-time join, in the revisions that the
platform had at the request's own time, then through the feature code as it is registered today, with the fitted values
of the model that answered. The model's input, float32, must be the same to the bit.

What is told apart: a value that is another one (`mismatched`), one that serving lacked (`missing`), one that it should
not have had (`extra`); and what is no skew, because it was served knowingly or could not be otherwise: a view that
could not be read (`unavailable`), and what was believed until a moment ago, while a day, a correction or a streamed
value was on its way to the store (`publishing`).

It refuses to guess: what cannot be compared (a bundle that is gone, a model that is no longer declared, a request on
which the feature code raises) is counted and told with its reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.errors import BundleError, DeclarationError, RemovedByPolicy
from mlplatform.features.stage import Draft, Revision, Written
from mlplatform.features.view import instant
from mlplatform.monitoring.publications import Places, of_rows
from mlplatform.monitoring.served import Asked, Served, Vectors, asked, served_on
from mlplatform.monitoring.skew.expected import Expected
from mlplatform.monitoring.skew.tables import row_schema, skew_rows, skew_table, table_schema
from mlplatform.provenance.platform import Platform

Mask = npt.NDArray[np.bool_]

rows_kept = 20
"""Rows that are kept for inspection, of each feature and kind of skew: enough to see what they share."""

features_named = 5
"""Features that the check names in words; all of them stand in its table."""

kinds = ("mismatched", "missing", "extra")
"""Of skew, each a count of `FeatureSkew`."""


@dataclass(frozen=True, kw_only=True)
class FeatureSkew:
    """How one feature of one manifest was served."""

    model: str
    manifest: str
    feature: str
    compared: int
    mismatched: int
    missing: int
    extra: int
    unavailable: int
    publishing: int
    largest: float
    """Largest absolute difference of mismatched values; 0 where there is none."""

    example: str
    """Id of a request that was served a wrong value; empty where there is none."""

    cause: str
    """Where it can be told."""

    @property
    def wrong(self) -> int:
        """Values that were served otherwise."""
        return self.mismatched + self.missing + self.extra

    @property
    def share(self) -> float:
        """Of the values compared."""
        return self.wrong / self.compared if self.compared else 0.0


@dataclass(frozen=True, kw_only=True)
class ManifestSkew:
    """What one manifest served on a day."""

    model: str
    manifest: str
    answers: int
    computed: int
    """Answers that had features."""

    looked_at: int
    """Of those, the rows that were compared."""

    features: tuple[FeatureSkew, ...] = ()
    statuses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """View -> status -> rows."""

    not_compared: str = ""
    """Why not, or why some were not; empty where all were."""

    raised: int = 0
    """Requests that were not compared though the others were: computing them offline was refused, or raised."""

    undeclared: tuple[str, ...] = ()
    """Inputs of the model that the domain no longer declares."""

    refused: int = 0
    """Requests that were answered, and that the domain as it is declared now does not read."""

    refusal: str = ""
    misdated: int = 0
    """Requests that were answered as of another instant than they were asked at."""

    misdated_example: str = ""


@dataclass(frozen=True, kw_only=True)
class DaySkew:
    """What a domain's models served on a day, beside what they should have."""

    day: str
    manifests: tuple[ManifestSkew, ...]
    rows: pl.DataFrame
    """What was served otherwise, some of each feature, as `row_schema`."""

    @property
    def answers(self) -> int:
        """In the log."""
        return sum(each.answers for each in self.manifests)

    @property
    def features(self) -> list[FeatureSkew]:
        """Of all manifests, the worst first."""
        every = [feature for each in self.manifests for feature in each.features]
        return sorted(every, key=lambda each: (-each.share, -each.wrong, each.model, each.manifest))

    @property
    def faults(self) -> list[str]:
        """What is wrong, in words; nothing where serving told what training sees."""
        return [*_wrong_values(self.features), *(fault for each in self.manifests for fault in _wrong_requests(each))]


def skew_of_day(platform: Platform, domain: Domain, day: str) -> DaySkew:
    """Compare what was served on a day with what is computed offline for the same requests."""
    compared = [_skew_of(platform, domain, each) for each in served_on(platform, domain, day)]
    rows = pl.concat([rows for _, rows in compared]) if compared else pl.DataFrame(schema=row_schema)
    return DaySkew(day=day, manifests=tuple(each for each, _ in compared), rows=rows)


def keep(platform: Platform, domain: Domain, found: DaySkew, *, run_id: str) -> Revision:
    """Write a day's figures, and the rows that are kept for inspection; the revision of the figures."""
    written = Written(run_id=run_id, code_version="", environment=platform.environment, known_at=platform.clock())
    figures = pl.DataFrame(
        [{name: getattr(each, name) for name in table_schema} for each in found.features], schema=table_schema
    )
    skew_rows(platform, domain).append({found.day: Draft(rows=found.rows)}, written)
    return skew_table(platform, domain).append({found.day: Draft(rows=figures)}, written)[found.day]


def differences(online: Vectors, offline: Vectors) -> dict[str, Mask]:
    """Where two matrices of the same rows differ, by kind of skew.

    Parameters
    ----------
    online, offline : (n, k) float32, NaN where missing

    Examples
    --------
    >>> served = np.array([[1.0, np.nan, 2.0, np.nan]], dtype=np.float32)
    >>> should = np.array([[1.5, 3.0, np.nan, np.nan]], dtype=np.float32)
    >>> for kind, found in differences(served, should).items():
    ...     print(kind, found[0].astype(int))
    mismatched [1 0 0 0]
    missing [0 1 0 0]
    extra [0 0 1 0]
    """
    without, should_be_without = np.isnan(online), np.isnan(offline)
    other_bits = np.ascontiguousarray(online).view(np.uint32) != np.ascontiguousarray(offline).view(np.uint32)
    return {
        "mismatched": ~without & ~should_be_without & other_bits,
        "missing": without & ~should_be_without,
        "extra": ~without & should_be_without,
    }


def _skew_of(platform: Platform, domain: Domain, served: Served) -> tuple[ManifestSkew, pl.DataFrame]:
    """Of one manifest, and the rows to keep."""
    told = ManifestSkew(
        model=served.model, manifest=served.manifest, answers=served.answers, computed=served.computed, looked_at=0
    )
    nothing = pl.DataFrame(schema=row_schema)
    if served.rows.is_empty():
        return told, nothing
    try:
        should = Expected(platform, domain, served.model, served.manifest)
    except (BundleError, DeclarationError, RemovedByPolicy) as error:
        return replace(told, not_compared=str(error)), nothing
    read = asked(served.rows, domain.requests.columns)
    told = replace(
        told,
        undeclared=should.undeclared,
        refused=len(read.refused),
        refusal=next(iter(read.refused.values()), ""),
        misdated=len(read.misdated),
        misdated_example=served.rows["request_id"][read.misdated[0]] if read.misdated else "",
    )
    if not read.kept:
        return told, nothing
    compared = _compare(should, served, read)
    rows = [_rows_to_keep(should, compared, place) for place in compared.wrong_features]
    return (
        replace(
            told,
            looked_at=compared.rows.height,
            raised=len(compared.refused),
            not_compared=next(iter(compared.refused.values()), ""),
            features=tuple(_feature(should, compared, place) for place in range(len(should.names))),
            statuses={
                view: dict(read.get_column("status").drop_nulls().value_counts(sort=True).iter_rows())
                for view, read in compared.views.items()
            },
        ),
        pl.concat([nothing, *rows]),
    )


@dataclass(frozen=True)
class _Compared:
    """Two matrices of the same rows, and where they differ; (n, k), columns as `Expected.names`."""

    rows: pl.DataFrame
    """Of the log."""

    requests: pl.DataFrame
    views: Mapping[str, pl.DataFrame]
    away: Mapping[str, pl.Series]
    """By view, where it could not be read."""

    online: Vectors
    offline: Vectors
    kinds: Mapping[str, Mask]
    unavailable: Mask
    publishing: Mask
    refused: Mapping[int, str]
    """Places in `Asked.requests` that are not here -> why not."""

    @property
    def wrong(self) -> Mask:
        """(n, k) where there is skew of whatever kind."""
        return _any(self.kinds)

    @property
    def wrong_features(self) -> list[int]:
        """Columns with any skew."""
        return [int(place) for place in np.flatnonzero(self.wrong.any(axis=0))]


def _compare(should: Expected, served: Served, read: Asked) -> _Compared:
    views = {view: told[read.kept] for view, told in served.views().items()}
    away = {view: (told["status"] == "unavailable").fill_null(value=False) for view, told in views.items()}
    offline, refused = should.inputs_where_given(read.requests, away)
    taken = np.setdiff1d(np.arange(len(read.kept)), list(refused))
    of_log = np.array(read.kept, dtype=np.intp)[taken]
    requests, away, offline = read.requests[taken], of_rows(away, taken), offline[taken]
    online = np.ascontiguousarray(served.vectors(len(should.inputs))[of_log][:, should.columns])
    unavailable = np.zeros(online.shape, dtype=np.bool_)
    for place, name in enumerate(should.names):
        if (view := should.view_of.get(name)) in away:
            unavailable[:, place] = away[view].to_numpy()
    kinds = {kind: found & ~unavailable for kind, found in differences(online, offline).items()}
    publishing = np.zeros(online.shape, dtype=np.bool_)
    wrong = _any(kinds)
    suspects = np.flatnonzero(wrong.any(axis=1))
    for rows, earlier in should.inputs_amid_publications(requests, away, suspects):
        publishing[rows] |= wrong[rows] & ~_any(differences(online[rows], earlier))
    return _Compared(
        rows=served.rows[of_log],
        requests=requests,
        views={view: told[taken] for view, told in views.items()},
        away=away,
        online=online,
        offline=offline,
        kinds={kind: found & ~publishing for kind, found in kinds.items()},
        unavailable=unavailable,
        publishing=publishing,
        refused=refused,
    )


def _any(found: Mapping[str, Mask]) -> Mask:
    """Where there is skew of whatever kind."""
    anywhere: Mask = np.logical_or.reduce(list(found.values()))
    return anywhere


def _feature(should: Expected, compared: _Compared, place: int) -> FeatureSkew:
    of = {kind: found[:, place] for kind, found in compared.kinds.items()}
    others = of["mismatched"]
    apart = np.abs(compared.online[others, place].astype(np.float64) - compared.offline[others, place])
    wrong = np.flatnonzero(compared.wrong[:, place])
    unavailable = int(compared.unavailable[:, place].sum())
    return FeatureSkew(
        model=should.model.name,
        manifest=should.bundle.digest,
        feature=should.names[place],
        compared=compared.rows.height - unavailable,
        unavailable=unavailable,
        publishing=int(compared.publishing[:, place].sum()),
        largest=float(apart.max(initial=0.0)),
        example=compared.rows["request_id"][int(wrong[0])] if wrong.size else "",
        cause=_cause(should, compared, place, wrong[:rows_kept]) if wrong.size else "",
        **{kind: int(found.sum()) for kind, found in of.items()},
    )


def _cause(should: Expected, compared: _Compared, place: int, rows: Places) -> str:
    """Why a feature was served otherwise, where that can be told."""
    name = should.names[place]
    served = compared.online[rows][:, [place]]

    def was_served(inputs: Vectors | None) -> bool:
        return inputs is not None and not any(found.any() for found in differences(served, inputs[:, [place]]).values())

    requests, away = compared.requests[rows], of_rows(compared.away, rows)
    if view := should.view_of.get(name):
        pinned, computed = should.bundle.manifest.views.get(view), should.versions[view]
        if pinned != computed:
            return f"the model is pinned to {view}@{pinned}, the platform computes {view}@{computed}"
        return _cause_in_store(view, compared.views[view][rows], should.origins_of(requests, name))
    own = asked(compared.rows[rows], should.bundle.domain.requests.columns)
    if not own.refused and was_served(should.inputs_by_own_code(requests, away, own.requests)):
        return "the feature code of the domain is another than the one in the model's bundle"
    return "a value that it is made of was another one"


def _cause_in_store(view: str, read: pl.DataFrame, table: pl.DataFrame) -> str:
    """Why the values of a view were others, from the rows of its table that were served and that should have been."""
    order = pl.struct(pl.col("event_time").fill_null(pl.lit(0).cast(instant)), pl.col("revision").fill_null(0))
    served = read.select(order.alias("served")).to_series().to_list()
    should = table.select(order.alias("should")).to_series().to_list()
    compared = {
        (tuple(one.values()) > tuple(other.values())) - (tuple(one.values()) < tuple(other.values()))
        for one, other in zip(served, should, strict=True)
    }
    if compared == {-1}:
        return f"the online store served older values than there were: {view} was not published in time"
    if compared == {1}:
        return f"the online store served values of {view} that were not known or not to be served yet"
    if compared == {0}:
        return f"the online store holds other values of {view} than its table has under the same revision"
    return f"the online store held other values of {view} than its table"


def _rows_to_keep(should: Expected, compared: _Compared, place: int) -> pl.DataFrame:
    """Some of each kind of one feature."""
    name = should.names[place]
    view = should.view_of.get(name)
    parts = []
    for kind in kinds:
        rows = np.flatnonzero(compared.kinds[kind][:, place])[:rows_kept]
        log = compared.rows[rows]
        told = log.select("request_id", "at", "received", "request").with_columns(
            pl.lit(should.model.name).alias("model"),
            pl.lit(name).alias("feature"),
            pl.lit(kind).alias("kind"),
            pl.lit(should.bundle.digest).alias("manifest"),
            pl.Series("online", compared.online[rows, place]).fill_nan(None),
            pl.Series("offline", compared.offline[rows, place]).fill_nan(None),
        )
        if view:
            origins = should.origins_of(compared.requests[rows], name)
            told = told.with_columns(pl.lit(view).alias("view"), *origins.rename("offline_{}".format))
            if view in compared.views:
                read = compared.views[view][rows]
                told = told.with_columns(
                    read["version"].alias("view_version"),
                    read["publication"],
                    *read.select("revision", "event_time").rename("online_{}".format),
                )
        lacking = [pl.lit(None, dtype).alias(column) for column, dtype in row_schema.items() if column not in told]
        parts.append(told.with_columns(lacking))
    return pl.concat(each.select(list(row_schema)) for each in parts)


def _wrong_values(features: Sequence[FeatureSkew]) -> Iterator[str]:
    """The worst features, one after the other."""
    wrong = [each for each in features if each.wrong]
    for each in wrong[:features_named]:
        counts = ", ".join(f"{getattr(each, kind):,} {kind}" for kind in kinds if getattr(each, kind))
        yield (
            f"{each.model} {each.manifest[:12]}: {each.feature} was served otherwise in {each.share:.2%} of "
            f"{each.compared:,} answers ({counts}), for example to request {each.example}; {each.cause}"
        )
    if len(wrong) > features_named:
        yield f"and {len(wrong) - features_named} more features"


def _wrong_requests(told: ManifestSkew) -> Iterator[str]:
    name = f"{told.model} {told.manifest[:12]}"
    if told.misdated:
        yield (
            f"{name}: {told.misdated:,} of {told.looked_at + told.raised:,} requests were answered as of another "
            f"instant than they were asked at, for example {told.misdated_example}: look at the clock and the time "
            "zone of the gateway"
        )
    if told.refused:
        yield (
            f"{name}: {told.refused:,} requests that were answered are no requests any more, as the domain is declared "
            f"now ({told.refusal})"
        )
    if told.undeclared:
        yield f"{name}: the domain no longer declares {', '.join(told.undeclared)}, which the model is served with"
