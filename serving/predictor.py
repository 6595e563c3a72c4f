"""The predictor: from one checked request to one answer that says where it comes from.

It looks the view values up as of the request's time, has the bundled code compute the features, and has the rows scored
through a seam (`score`), behind which a model worker can stand. What it cannot do as declared it does visibly: without
a readable store the features of the request alone, without the model the simple model, both `degraded`.

It refuses to mix versions: values of another view version than the pinned one are as good as none.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from mlplatform.errors import DeviceUnavailable, InvalidRequest, ScoreOutOfRange, Unavailable, ViewVersionMismatch
from mlplatform.features.online import OnlineStore
from mlplatform.features.view import view_features
from mlplatform.registry.bundle import Bundle, Scores
from mlplatform.scoring.request import parse_requests, refuse_broken_rules

logger = logging.getLogger(__name__)

instant = pl.Datetime("us", "UTC")


class Predictor:
    """Answers requests with one bundle.

    Parameters
    ----------
    score : features, in the order of the matrix -> calibrated scores
    now : the clock, aware UTC
    request_time : whether a request may bring its own `at` (`MLPLATFORM_CLOCK=request`)
    """

    def __init__(
        self,
        bundle: Bundle,
        store: OnlineStore,
        *,
        score: Callable[[pl.DataFrame], Scores],
        now: Callable[[], datetime],
        request_time: bool,
    ) -> None:
        self._bundle = bundle
        self._store = store
        self._score = score
        self._now = now
        self._request_time = request_time
        self._views = view_features(bundle.domain, bundle.model)
        self._told: set[str] = set()

    def answer(self, request: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """The answer to one request.

        Raises
        ------
        InvalidRequest
            Fields break the contract; each is named.
        """
        row = self._row(request)
        view_values, complete = self._view_values(row)
        features = self._bundle.features(row, view_values)
        try:
            source, answered = "model", self._bundle.answers(self._score(features))
        except (DeviceUnavailable, ScoreOutOfRange) as error:
            self._tell(str(error))
            source, answered = "simple_model", self._bundle.answers(self._bundle.simple.predict(features))
        return {
            **answered.row(0, named=True),
            "source": source,
            "degraded": source != "model" or not complete,
            "model_version": self._bundle.manifest.model_version,
            "manifest": self._bundle.digest,
            "request_id": request_id,
        }

    def _row(self, request: Mapping[str, Any]) -> pl.DataFrame:
        fields = dict(request)
        wrong: dict[str, str] = {}
        at = self._now()
        if self._request_time and "at" in fields:
            try:
                at = _instant(fields.pop("at"))
            except InvalidRequest as error:
                wrong |= error.fields
        try:
            row = parse_requests([fields], self._bundle.domain.requests.columns)
        except InvalidRequest as error:
            wrong |= error.fields
        if wrong:
            raise InvalidRequest(wrong)
        refuse_broken_rules(row, self._bundle.domain.requests.rules)
        return row.with_columns(pl.lit(at).cast(instant).alias("at"))

    def _view_values(self, row: pl.DataFrame) -> tuple[pl.DataFrame, bool]:
        """Values of all views for one row, and whether every view could be read."""
        parts, complete = [], True
        for reference, declared in self._views.items():
            entity = self._bundle.domain.view(reference)[1].entity
            try:
                check_view_version(self._bundle, self._store, reference)
                parts.append(self._store.lookup(reference, row.select(entity), row["at"]).values)
            except (Unavailable, ViewVersionMismatch) as error:
                self._tell(str(error))
                complete = False
                schema = {feature.name: feature.dtype for feature in declared}
                parts.append(pl.DataFrame({name: [None] for name in schema}, schema=schema))
        return pl.concat(parts, how="horizontal") if parts else row.select([]), complete

    def _tell(self, reason: str) -> None:
        """Log each reason once: at a thousand requests a second the log would be the next outage."""
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("degraded: %s", reason)


def check_view_version(bundle: Bundle, store: OnlineStore, reference: str) -> None:
    """Make sure that the store offers the version of a view that the model was trained on.

    Raises
    ------
    Unavailable
        The store holds nothing of this view, or cannot be read.
    ViewVersionMismatch
        It holds another version.
    """
    offered = store.version(reference)
    if offered is None:
        raise Unavailable(f"the online store holds no snapshot of {reference}. Materialise feature_store")
    trained = bundle.manifest.views[reference]
    if offered != trained:
        raise ViewVersionMismatch(reference, trained, offered)


def _instant(text: Any) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise InvalidRequest({"at": "not an ISO 8601 instant such as 2013-07-01T12:00:00Z"}) from None
    if at.tzinfo is None:
        raise InvalidRequest({"at": "an instant needs an offset; write Z for UTC"})
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest({"at": "beyond the years that a calendar holds"}) from None
