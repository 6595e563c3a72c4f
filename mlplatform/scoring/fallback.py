"""The fallback chain: what answers when the model does not, tier after tier, within one budget of time.

::

    cached          an answer of this model to the same request, from when it could be had
    simple_model    the regression in the bundle, where features could be computed
    rules           the domain's rules of thumb
    low_confidence  no prediction; a person should look

Each row falls as far as it must and no further. A tier that raises, or says what is no answer, is told about and passed
over: this is the one place with a broad `except`, since whatever goes wrong here must not cost the caller the answer.
The last tier cannot fail. Nothing is silent: every answer names its tier as its source.

It refuses to begin a tier past the deadline. It cannot stop one that has begun: rules that hang, hang.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any, Literal, NamedTuple, Protocol, Self, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import ScoreOutOfRange
from mlplatform.scoring.postprocess import answers
from mlplatform.scoring.simple_model import SimpleModel

Scores = npt.NDArray[np.float64]

Tier = Literal["cached", "simple_model", "rules", "low_confidence"]
TIERS: tuple[Tier, ...] = get_args(Tier)
"""In the order in which they are asked. A manifest names the ones it wants; the last is always there."""


class Answer(NamedTuple):
    """What a caller gets for one row."""

    prediction: int | float | str | None
    probability: float | None
    confidence: float | None
    needs_review: bool
    source: str
    """`model`, or the tier that answered."""


class AnswerColumns(NamedTuple):
    """The answers to some rows, column by column: rows of a table cost less so than one by one."""

    prediction: list[Any]
    probability: list[float | None]
    confidence: list[float | None]
    needs_review: list[bool]
    source: list[str]

    @classmethod
    def of(cls, answers: Iterable[Answer]) -> Self:
        """Answers side by side; there is one at least."""
        return cls(*(list(column) for column in zip(*answers, strict=True)))

    def part(self, start: int, end: int) -> "AnswerColumns":
        """Those of some rows that follow each other."""
        return AnswerColumns(*(column[start:end] for column in self))  # type: ignore[arg-type]  # each as it was

    def rows(self) -> list[Answer]:
        """One by one."""
        return [Answer(*row) for row in zip(*self, strict=True)]


LOW_CONFIDENCE = Answer(None, None, 0.0, True, "low_confidence")


class Answering(Protocol):
    """The part of a bundle that answers without its booster."""

    domain: Domain
    model: ModelSpec
    simple: SimpleModel


def fall_back(
    bundle: Answering,
    rows: pl.DataFrame,
    features: pl.DataFrame | None,
    cached: Callable[[int], Answer | None],
    *,
    deadline: float,
    clock: Callable[[], float],
    tell: Callable[[str], None],
    tiers: Sequence[str] = TIERS,
) -> list[Answer]:
    """An answer to each row. Never raises.

    Parameters
    ----------
    rows : (n, …) frame of parsed requests
    features : (n, k) frame, or None when they could not be computed; then the simple model is passed over
    cached : position of a row -> the answer that the model once gave to the same request, or None
    deadline : on `clock`, for the whole chain
    tell : is given each reason for which a tier was passed over, without a value of any request. It should tell equal
        reasons once
    tiers : which tiers are asked (`ModelSpec.serving.tiers`), in the order given
    """
    found: list[Answer | None] = [None] * rows.height
    ask: Mapping[str, Callable[[list[int]], None]] = {
        "cached": lambda open_rows: _cached(found, open_rows, cached, deadline, clock),
        "simple_model": lambda open_rows: _simple_model(found, open_rows, bundle, features, tell),
        "rules": lambda open_rows: _rules(found, open_rows, bundle, rows, deadline, clock, tell),
    }
    for tier in tiers:
        open_rows = [position for position, answer in enumerate(found) if answer is None]
        if tier not in ask or not open_rows:
            continue
        if clock() >= deadline:
            tell(f"the fallback's time was up before {tier}")
            break
        try:
            ask[tier](open_rows)
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - the next tier answers
            tell(f"{tier} {_raised(error)}")
    return [LOW_CONFIDENCE if answer is None else answer for answer in found]


def _cached(
    found: list[Answer | None],
    open_rows: list[int],
    cached: Callable[[int], Answer | None],
    deadline: float,
    clock: Callable[[], float],
) -> None:
    for position in open_rows:
        if clock() >= deadline:
            return
        answer = cached(position)
        if answer is not None:
            found[position] = answer._replace(source="cached")


def _simple_model(
    found: list[Answer | None],
    open_rows: list[int],
    bundle: Answering,
    features: pl.DataFrame | None,
    tell: Callable[[str], None],
) -> None:
    if features is None:
        return
    wanted = features if len(open_rows) == features.height else features[open_rows]
    _judge(found, open_rows, bundle.model, bundle.simple.predict(wanted), "simple_model", tell)


def _rules(
    found: list[Answer | None],
    open_rows: list[int],
    bundle: Answering,
    rows: pl.DataFrame,
    deadline: float,
    clock: Callable[[], float],
    tell: Callable[[str], None],
) -> None:
    model = bundle.model
    # The declared columns and nothing else: with these the rules were tried before they came here.
    asked = rows.select(column.name for column in bundle.domain.requests.columns)
    positions, said = [], []
    for position in open_rows:
        if clock() >= deadline:
            tell("the fallback's time was up within rules")
            break
        try:
            value: Any = model.rules(asked.row(position, named=True))
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - one row's trouble is not the next one's
            tell(f"rules {_raised(error)}")
            continue
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            tell(f"rules gave what is no answer (of type {type(value).__name__})")
            continue
        positions.append(position)
        said.append(float(value))
    if model.task != "multiclass":
        _judge(found, positions, model, np.array(said, dtype=np.float64), "rules", tell)
        return
    for position, value in zip(positions, said, strict=True):
        if value not in range(len(model.label.classes)):
            tell("rules gave a class that there is not")
            continue
        # A rule names a class and no probability, so how sure it is cannot be said either.
        found[position] = Answer(model.label.classes[int(value)], None, None, model.review_below is not None, "rules")


def _judge(
    found: list[Answer | None],
    positions: list[int],
    model: ModelSpec,
    scores: Scores,
    tier: Tier,
    tell: Callable[[str], None],
) -> None:
    """Scores as answers, of those rows whose score is one."""
    if len(scores) != len(positions):
        raise ValueError("not one score for each row")
    while positions:
        try:
            judged = answers(model, scores)
        except ScoreOutOfRange as error:
            tell(f"{tier} gave a score that is {error.reason}")
            wrong = set(error.rows)
            kept = [each for each in range(len(positions)) if each not in wrong]
            positions, scores = [positions[each] for each in kept], scores[kept]
            continue
        told = judged.select("prediction", "probability", "confidence", "needs_review").rows()
        for position, (prediction, probability, confidence, needs_review) in zip(positions, told, strict=True):
            found[position] = Answer(prediction, probability, confidence, needs_review, tier)
        return


def _raised(error: BaseException) -> str:
    """What was raised, and where; not its message, which may hold values of the request."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    line = "" if where is None else f" at {where.tb_frame.f_code.co_filename.rpartition('/')[2]}:{where.tb_lineno}"
    return f"raised {type(error).__name__}{line}"
