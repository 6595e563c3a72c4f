"""Which logged requests two versions answer differently, and what makes the difference.

Each request is answered by both on the inputs that each would have had (`inputs`). From the first version's
answer to the second's goes a chain in which one thing at a time is put in place of the other:

1. **settings**: the second's thresholds on the first's scores;
2. **features** and **code**: the first's weights, calibration and fitted values on the inputs that the second's views
   and feature code make: `features` where a view was added, taken away or is in another version, else `code`; where
   feature code is another as well nobody can tell which of them moves an input, and it is `features and code`;
3. **data**: the same with the second's fitted values, which were learned from its training data;
4. the second's own weights and calibration on its own inputs. They came of the training data, the training settings,
   the set of features, the training code and the environment. Where only one of these changed, that is the cause. Where
   several did, nobody can tell them apart without training again, and the cause is `weights`.

A prediction that flips is put down to the last link at which it changed, which is the one that brings it to the second
version's answer for good. Scores are told apart link by link: how far each moved them. Where the second version does
not read all inputs of the first, the first's weights cannot be asked on them, and links 2 and 3 are part of 4.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError, DeclarationError
from mlplatform.features.pipeline import given
from mlplatform.features.view import model_inputs
from mlplatform.monitoring.served import views_read
from mlplatform.provenance.platform import Platform
from mlplatform.registry.bundle import BOOSTER, SCORING_THREADS, Bundle
from mlplatform.reproducibility.difference.inputs import left_to_the_table, view_values
from mlplatform.reproducibility.difference.made import Origins
from mlplatform.reproducibility.replay.logged import asked
from mlplatform.scoring.booster import Matrix, Scores, load_booster, matrix, raw_scores
from mlplatform.scoring.postprocess import answers

quantiles = (0.5, 0.9, 0.99, 1.0)

examples_told = 5

segments_told = 20
"""Values of one segment, those with the most requests."""

Flags = npt.NDArray[np.bool_]

_what = "requests that were answered"


@dataclass(frozen=True, kw_only=True)
class CauseShare:
    """What one link of the chain does."""

    cause: str
    """`settings`, `features`, `code`, `features and code`, `data`, `environment` or `weights`."""

    link: str
    """What was put in place of the other: `thresholds`, `inputs`, `fitted values`, `weights`."""

    flips: int
    """Predictions that this link brings to what the second version says."""

    moved: float
    """Mean absolute movement of the score at this link."""


@dataclass(frozen=True, kw_only=True)
class SegmentShare:
    """One value of a declared segment."""

    segment: str
    value: str
    rows: int
    flips: int
    moved: float
    """Mean absolute movement of the score."""

    causes: Mapping[str, int]
    """Cause -> flips."""


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A request that the two answer differently."""

    request_id: str
    before: str
    after: str
    probabilities: tuple[float | None, float | None]
    """Of label 1, or of the predicted class; null of a regression."""

    cause: str


@dataclass(frozen=True, kw_only=True)
class Differently:
    """How logged requests are answered by both."""

    rows: int
    """Requests that both answer."""

    flips: int
    """Other predictions; of a regression, which gives a number, all that are another one at all."""

    reviews: int
    """Requests of which only one of both says that a person should look."""

    movement: Mapping[str, float]
    """Quantile -> absolute movement of the score: of label 1, of the class that moved most, or of the value."""

    shift: float
    """Mean movement with its sign, for a binary model and a regression; else 0."""

    causes: tuple[CauseShare, ...]
    segments: tuple[SegmentShare, ...]
    examples: tuple[Flip, ...]
    as_logged: int
    """Of the requests that one of both answered by its model: those whose logged score it gives again, to the bit."""

    logged: int
    """Of how many that is."""

    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Link:
    cause: str
    name: str
    scores: Scores
    spec: ModelSpec


def answered_differently(
    platform: Platform, before: Bundle, after: Bundle, rows: pl.DataFrame, made: Origins
) -> Differently:
    """Answer logged requests with two versions of a model.

    Parameters
    ----------
    rows : (n, …) of the log, one of each request

    Raises
    ------
    DataError
        No request of them can be answered by both.
    """
    if before.model.label.classes != after.model.label.classes or before.model.task != after.model.task:
        raise DataError("the two versions do not predict the same thing, so no answers can be compared")
    left, right = asked(rows, before.domain.requests.columns), asked(rows, after.domain.requests.columns)
    both = sorted(set(left.kept) & set(right.kept))
    if not both:
        raise DataError("none of the logged requests can be read by both versions. Give another `--day`")
    rows_given, rows = rows, rows[both]
    requests = (_of(left.requests, left.kept, both), _of(right.requests, right.kept, both))
    inputs = _Inputs(platform, before, after, rows, requests, made)
    chain = _chain(before, after, inputs, made)
    said = [_said(link) for link in chain]
    notes = list(inputs.notes)
    if refused := len(rows_given) - len(both):
        notes.append(f"{refused} requests cannot be read by one of both")
    return _told((before, after), chain, said, rows, requests[1], notes)


class _Inputs:
    """Inputs of both versions, and of the first with what is the second's: (n, k) float32 in the order of manifests."""

    def __init__(
        self,
        platform: Platform,
        before: Bundle,
        after: Bundle,
        rows: pl.DataFrame,
        requests: tuple[pl.DataFrame, pl.DataFrame],
        made: Origins,
    ) -> None:
        moved = {each.name for each in made.views}
        away = {view: read["status"].fill_null("") == "unavailable" for view, read in views_read(rows).items()}
        values = [
            view_values(platform, bundle, asked, away, moved)
            for bundle, asked in zip((before, after), requests, strict=True)
        ]
        self.notes = [
            f"{view} is published as facts arrive, or by another domain: both read what the table held"
            for view in left_to_the_table(after, moved)
        ]
        features = after.features(requests[1], values[1])
        self.before = matrix(before.features(requests[0], values[0]))
        self.after = matrix(features)
        self.by_code: Matrix | None = None
        """Of the second's code with the first's fitted values; None: the first's weights cannot be asked on them."""

        self.fitted: Matrix | None = None
        """The second's inputs, those of them that the first reads."""

        names = list(before.manifest.features)
        if set(names) <= set(after.manifest.features):
            fitted = {**after.fitted, **before.fitted}
            what, code = "the second version's code", (after.domain, after.model)
            try:
                swapped = given(model_inputs, what, _what, *code, requests[1], values[1], fitted)
                self.by_code, self.fitted = matrix(swapped.select(names)), matrix(features.select(names))
            except (DataError, DeclarationError) as error:
                self.notes.append(f"what flips at the inputs is counted at the weights: {error}")
        if made.same_inputs():
            self._as_served((before.digest, after.digest), rows)

    def _as_served(self, digests: tuple[str, str], rows: pl.DataFrame) -> None:
        """Where both make the same of the same, what one of both was served with is what the other would have had."""
        own = rows["manifest"].is_in(digests) & rows["features"].is_not_null()
        if own.any():
            served = rows["features"].filter(own).list.to_array(self.before.shape[1]).to_numpy()
            for each in (self.before, self.after, self.by_code, self.fitted):
                if each is not None:
                    each[own.to_numpy()] = served


def _chain(before: Bundle, after: Bundle, inputs: _Inputs, made: Origins) -> list[_Link]:
    """From the first's answer to the second's."""
    own = _scored(before, inputs.before)
    chain = [_Link("", "", own, before.model), _Link("settings", "thresholds", own, after.model)]
    if inputs.by_code is not None and inputs.fitted is not None:
        differs = {"features": bool(made.views), "code": made.feature_code or not made.views}
        cause = " and ".join(name for name, another in differs.items() if another)
        chain.append(_Link(cause, "inputs", _scored(before, inputs.by_code), after.model))
        chain.append(_Link("data", "fitted values", _scored(before, inputs.fitted), after.model))
    causes = made.training_causes()
    cause = causes[0] if len(causes) == 1 else "weights"
    return [*chain, _Link(cause, "weights", _scored(after, inputs.after), after.model)]


def _scored(bundle: Bundle, inputs: Matrix) -> Scores:
    """(n, outputs), on the CPU."""
    booster = (
        bundle.booster
        if bundle.manifest.device == "cpu"
        else load_booster(bundle.folder / BOOSTER, device="cpu", threads=SCORING_THREADS)
    )
    scores = bundle.calibration.apply(raw_scores(booster, inputs))
    return scores.reshape(len(scores), -1)


def _said(link: _Link) -> pl.DataFrame:
    return answers(link.spec, link.scores if link.spec.task == "multiclass" else link.scores[:, 0])


def _told(
    versions: tuple[Bundle, Bundle],
    chain: Sequence[_Link],
    said: Sequence[pl.DataFrame],
    rows: pl.DataFrame,
    requests: pl.DataFrame,
    notes: Sequence[str],
) -> Differently:
    model = versions[1].model
    changed = [~now["prediction"].eq_missing(then["prediction"]).to_numpy() for then, now in pairwise(said)]
    steps = [np.abs(now.scores - then.scores).max(axis=1) for then, now in pairwise(chain)]
    flips = ~said[-1]["prediction"].eq_missing(said[0]["prediction"]).to_numpy()
    last = np.zeros(rows.height, dtype=np.intp)
    for place, each in enumerate(changed):
        last[each] = place
    causes = np.array([link.cause for link in chain[1:]], dtype=object)[last]
    apart = np.abs(chain[-1].scores - chain[0].scores).max(axis=1)
    alike, logged = _as_logged(versions, (chain[0].scores, chain[-1].scores), rows)
    return Differently(
        rows=rows.height,
        flips=int(flips.sum()),
        reviews=int((said[0]["needs_review"] != said[-1]["needs_review"]).sum()),
        movement={f"{each:g}": float(np.quantile(apart, each)) for each in quantiles},
        shift=0.0 if model.task == "multiclass" else float((chain[-1].scores - chain[0].scores).mean()),
        causes=tuple(
            CauseShare(
                cause=link.cause,
                link=link.name,
                flips=int((flips & (last == place)).sum()),
                moved=float(steps[place].mean()),
            )
            for place, link in enumerate(chain[1:])
        ),
        segments=tuple(_segments(model, requests, flips, causes, apart)),
        examples=tuple(_examples(rows, said, flips, causes, apart)),
        as_logged=alike,
        logged=logged,
        notes=tuple(notes),
    )


def _segments(
    model: ModelSpec, requests: pl.DataFrame, flips: Flags, causes: npt.NDArray[np.object_], apart: Scores
) -> Iterator[SegmentShare]:
    for segment in model.segments:
        values = requests[segment.column].cast(pl.String).fill_null("null")
        for value, _ in sorted(Counter(values).items(), key=lambda each: (-each[1], each[0]))[:segments_told]:
            own = (values == value).to_numpy()
            yield SegmentShare(
                segment=segment.name,
                value=value,
                rows=int(own.sum()),
                flips=int((own & flips).sum()),
                moved=float(apart[own].mean()),
                causes=dict(Counter(causes[own & flips].tolist())),
            )


def _examples(
    rows: pl.DataFrame,
    said: Sequence[pl.DataFrame],
    flips: Flags,
    causes: npt.NDArray[np.object_],
    apart: Scores,
) -> Iterator[Flip]:
    """Those whose score moved most: the least borderline of them."""
    places = [int(place) for place in np.argsort(-apart, kind="stable") if flips[place]]
    for place in places[:examples_told]:
        before, after = said[0].row(place, named=True), said[-1].row(place, named=True)
        yield Flip(
            request_id=rows["request_id"][place],
            before=str(before["prediction"]),
            after=str(after["prediction"]),
            probabilities=(before["probability"], after["probability"]),
            cause=str(causes[place]),
        )


def _as_logged(versions: tuple[Bundle, Bundle], scores: tuple[Scores, Scores], rows: pl.DataFrame) -> tuple[int, int]:
    """How many logged scores of the two are given again to the bit, and of how many."""
    alike = logged = 0
    for digest, given_again in {each.digest: told for each, told in zip(versions, scores, strict=True)}.items():
        own = ((rows["manifest"] == digest) & (rows["source"] == "model")).to_numpy()
        for place in np.flatnonzero(own):
            logged += 1
            alike += np.array_equal(np.array(rows["scores"][int(place)]), given_again[place])
    return alike, logged


def _of(requests: pl.DataFrame, kept: Sequence[int], wanted: Sequence[int]) -> pl.DataFrame:
    """The requests at some places of the log, of those that were read at others."""
    place = {each: row for row, each in enumerate(kept)}
    return requests[[place[each] for each in wanted]]
