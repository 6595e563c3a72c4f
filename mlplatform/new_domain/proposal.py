"""The proposal: everything that the written package will say, decided from the sample and the answers.

Request columns are those that are there when the prediction is asked. What is written afterwards (the label, when it
was known, columns that give it away) stays in the contract and in no request: a feature of it would be a leak.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from mlplatform.domain.model import Task
from mlplatform.errors import DataError
from mlplatform.new_domain.contract import Proposed, propose_column, propose_key
from mlplatform.new_domain.horizon import Horizon, horizon_of
from mlplatform.new_domain.names import free
from mlplatform.new_domain.outcome import Outcome, outcome_of
from mlplatform.new_domain.proxies import sums_to_outcome, tells, too_good
from mlplatform.new_domain.questions import Chosen, mostly_later
from mlplatform.new_domain.sampled import Sampled, instant

years, enough_rows, most_sample_rows = (1, 2, 3), 2_000, 200_000
"""The newest year of a longer sample goes into the package, or more years where one holds too few rows: it is committed
beside the code, and the demo takes every day of it through the stages."""

publishing_delay = timedelta(hours=1)
"""The default of a domain."""

most_categories = 200
most_usual = 30
"""Values of the column that the rule of thumb goes by."""


@dataclass(frozen=True, kw_only=True)
class RuleOfThumb:
    """What was usual in the sample: the fallback when no model can answer."""

    column: str | None
    """None: nothing tells more than the whole."""

    usual: Mapping[str, float]
    overall: float


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What the package will say."""

    name: str
    sampled: Sampled
    rows: pl.DataFrame
    """The sample that goes into the package, sorted by when each outcome was known; contract columns only."""

    columns: tuple[Proposed, ...]
    key: tuple[str, ...]
    key_why: str
    entity: tuple[tuple[str, ...], ...]
    time: str
    days_only: bool
    known_at: str | None
    known_after: timedelta
    """Without `known_at`."""

    known_after_why: str
    outcome: Outcome
    left_out: Mapping[str, str]
    """Columns of no request, each with the reason."""

    power: Mapping[str, float]
    """What each request column alone says of the outcome, 0 to 1."""

    horizon: Horizon
    naive_loss: float
    """Of the best constant, in the gate's metric."""

    thumb: RuleOfThumb
    notes: tuple[str, ...]
    asked: tuple[str, ...] = field(default=())
    """Request columns in contract order."""

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.outcome.task

    @property
    def metric(self) -> str:
        """What the gate decides by."""
        return "mae" if self.task == "regression" else "log_loss"

    @property
    def identity(self) -> tuple[str, ...]:
        """Request columns that name one case."""
        if set(self.key) <= set(self.asked):
            return self.key
        return tuple(dict.fromkeys([*self.entity[0], self.time]))

    def of_kind(self, *dtypes: pl.DataType) -> tuple[str, ...]:
        """Request columns of some types that may become features: no key, no time, no identifier."""
        keys = {name for key in self.entity for name in key} | {self.time}
        single = set(self.key) if len(self.key) == 1 else set()
        return tuple(
            name for name in self.asked if self.rows.schema[name] in dtypes and name not in keys and name not in single
        )

    @property
    def numbers(self) -> tuple[str, ...]:
        """Request columns that are features as they are."""
        return tuple(name for name in self.of_kind(pl.Int64(), pl.Float64()) if self.rows[name].n_unique() > 1)

    @property
    def flags(self) -> tuple[str, ...]:
        """True or false."""
        return self.of_kind(pl.Boolean())

    @property
    def words(self) -> tuple[str, ...]:
        """Text columns, and keys, with so few values that each can be learned of."""
        keys = dict.fromkeys(name for key in self.entity for name in key)
        found = [name for name in dict.fromkeys([*keys, *self.of_kind(pl.String())]) if name in self.asked]
        return tuple(name for name in found if 2 <= self.rows[name].n_unique() <= most_categories)

    @property
    def segment(self) -> str | None:
        """A text column whose few values are judged on their own."""
        return next((name for name in self.words if 2 <= self.rows[name].n_unique() <= 8), None)


def propose(name: str, chosen: Chosen, *, now: datetime) -> Proposal:
    """Decide everything.

    Raises
    ------
    DataError
        The sample does not suffice, or its times cannot be what they are said to be.
    DeclarationError
        The label cannot be what the task asks for.
    """
    notes = list(chosen.sampled.notes)
    known_after, known_why = _known_after(chosen)
    rows = _dated(chosen, known_after, notes, now)
    outcome = outcome_of(rows[chosen.label], chosen.task)
    clocks = {"_at": pl.col(chosen.time), "_known": _known(chosen, known_after)}
    dated = rows.with_columns(**clocks, outcome=outcome.values).sort("_known", "_at", maintain_order=True)
    delay = _label_delay(chosen, dated, known_after)
    judged = dated.drop_nulls("outcome").sort("_at", maintain_order=True)
    power = {each: tells(judged, each, outcome.task) for each in rows.columns}
    left_out = _left_out(chosen, judged, outcome, power)
    plain = dated.select(rows.columns)
    entities = min(dated.select(pl.struct(key).n_unique()).item() for key in chosen.entity)
    horizon = horizon_of(
        dated.select(at="_at", event_time="_known", outcome="outcome"),
        entities=entities,
        delay=delay,
        publishing_delay=publishing_delay,
        task=outcome.task,
    )
    afterwards = [each for each in left_out if each in plain.columns]
    key, key_why = propose_key(plain, chosen.entity[0], chosen.time, afterwards)
    naming = {name for every in chosen.entity for name in every} | (set(key) if len(key) == 1 else set())
    columns = tuple(
        propose_column(
            plain[each],
            written=chosen.sampled.written[each],
            why=chosen.sampled.why[each],
            rows_per_day=plain.height / horizon.days,
            names_something=each in naming,
        )
        for each in plain.columns
    )
    asked = _asked(plain, chosen, left_out, key)
    ordered = outcome_of(plain[chosen.label], chosen.task)
    return Proposal(
        name=name,
        sampled=chosen.sampled,
        rows=plain,
        columns=columns,
        key=key,
        key_why=key_why,
        entity=chosen.entity,
        time=chosen.time,
        days_only=chosen.days_only,
        known_at=chosen.known_at,
        known_after=known_after,
        known_after_why=known_why,
        outcome=ordered,
        left_out=left_out,
        power=power,
        horizon=horizon,
        naive_loss=_naive_loss(ordered),
        thumb=_rule_of_thumb(judged, outcome.task, asked, power),
        notes=tuple(notes),
        asked=asked,
    )


def feature_name(wanted: str, proposal: Proposal) -> str:
    """The name of a feature, other than that of any column."""
    return free(wanted, proposal.rows.columns)


def _known_after(chosen: Chosen) -> tuple[timedelta, str]:
    if chosen.known_after is not None:
        return chosen.known_after, "as --known-after says"
    return timedelta(0), f"{chosen.known_at} tells"


def _known(chosen: Chosen, known_after: timedelta) -> pl.Expr:
    return pl.col(chosen.known_at) if chosen.known_at else pl.col(chosen.time) + known_after


def _dated(chosen: Chosen, known_after: timedelta, notes: list[str], now: datetime) -> pl.DataFrame:
    """Rows whose times are there and in order: the newest ones, if they are too many."""
    frame = chosen.sampled.frame
    times = [chosen.time, *([chosen.known_at] if chosen.known_at else [])]
    whole = frame.drop_nulls(times)
    if whole.height < frame.height:
        notes.append(
            f"{frame.height - whole.height} rows without {' or '.join(times)} cannot be placed in time: left out"
        )
    keys = list(dict.fromkeys(name for key in chosen.entity for name in key))
    known = _known(chosen, known_after)
    in_order = whole.filter(known >= pl.col(chosen.time))
    if in_order.height < 0.95 * whole.height:
        raise DataError(
            f"{whole.height - in_order.height} of {whole.height} rows have a {chosen.known_at} before their "
            f"{chosen.time}: no outcome is known before it is asked for. Swap --time and --known-at, or mend the sample"
        )
    if in_order.height < whole.height:
        notes.append(f"{whole.height - in_order.height} rows were known before they were asked: left out")
    if in_order.is_empty():
        raise DataError("no row of the sample has its times. Look at --time and --known-at")
    over = in_order.filter(known.dt.date() < now.date())
    if over.height < 0.95 * in_order.height:
        raise DataError(
            f"{in_order.height - over.height} of {in_order.height} rows are of today or of days to come, and a day is "
            "taken in when it is over. Look at --time, --known-at and --zone"
        )
    if over.height < in_order.height:
        notes.append(f"{in_order.height - over.height} rows are of a day that is not over: left out")
    in_order = over
    newest = in_order.select(known.max()).item()
    spans = [in_order.filter(known.dt.date() > newest.date() - timedelta(days=366 * each)) for each in years]
    kept = next((each for each in spans if each.height >= enough_rows), spans[-1])
    if kept.height > most_sample_rows:
        kept = kept.filter(
            known.dt.date() > kept.select(known.sort(descending=True)).to_series()[most_sample_rows].date()
        )
    if kept.height < in_order.height:
        notes.append(f"the newest {kept.height:,} of {in_order.height:,} rows go into the package: it is committed")
    nameless = kept.filter(pl.any_horizontal(pl.col(keys).is_null())).height
    if nameless:
        notes.append(f"{nameless} rows have no {' or '.join(keys)}: their history is nobody's")
    return kept


def _label_delay(chosen: Chosen, dated: pl.DataFrame, known_after: timedelta) -> timedelta:
    """Whole hours in which 99 of 100 outcomes became known."""
    if chosen.known_at is None:
        return known_after
    seconds = dated.select((pl.col("_known") - pl.col("_at")).dt.total_seconds().quantile(0.99, "higher")).item()
    return timedelta(hours=max(1, math.ceil(seconds / 3600)))


def _left_out(chosen: Chosen, rows: pl.DataFrame, outcome: Outcome, power: Mapping[str, float]) -> dict[str, str]:
    """Columns that are not there when the prediction is asked, and why that is thought."""
    left_out = {chosen.label: "it is the label"}
    if chosen.known_at is not None:
        left_out[chosen.known_at] = "it tells when the outcome was known"
    if chosen.outcome_columns is not None:
        return left_out | dict.fromkeys(chosen.outcome_columns, "as --outcome-columns says")
    keys = {name for key in chosen.entity for name in key} | {chosen.time}
    what = {"binary": "AUC", "multiclass": "accuracy", "regression": "share of the variance"}[outcome.task]
    for name, told in power.items():
        if name in left_out or name in keys:
            continue
        if rows.schema[name] == instant and mostly_later(chosen.sampled, name, chosen.time):
            left_out[name] = f"it lies after {chosen.time} in most rows, so it is probably written afterwards"
        elif told >= too_good:
            left_out[name] = (
                f"alone it all but gives {chosen.label} away ({what} {told:.3f}): probably written afterwards"
            )
    if outcome.task == "regression":
        numbers = [n for n in power if n not in left_out and n not in keys and rows.schema[n].is_numeric()]
        summed = sums_to_outcome(rows, numbers)
        for name in summed:
            others = " and ".join(each for each in summed if each != name)
            left_out[name] = f"added to {others} it is {chosen.label}: probably written afterwards"
    return left_out


def _asked(rows: pl.DataFrame, chosen: Chosen, left_out: dict[str, str], key: tuple[str, ...]) -> tuple[str, ...]:
    """Request columns; text that gives no feature is not asked for, and the reason is noted with the others."""
    needed = (
        {name for each in chosen.entity for name in each}
        | {chosen.time}
        | (set(key) if len(key) < rows.width else set())
    )
    asked = []
    for name, dtype in rows.schema.items():
        if name in left_out:
            continue
        distinct = rows[name].n_unique()
        if name not in needed and dtype == pl.String() and distinct > most_categories:
            left_out[name] = f"{distinct} different texts: no feature is proposed from them"
        elif name not in needed and distinct < 2:
            left_out[name] = "it says the same in every row"
        else:
            asked.append(name)
    return tuple(asked)


def _naive_loss(outcome: Outcome) -> float:
    known = outcome.values.drop_nulls()
    if outcome.task == "regression":
        return float((known - known.median()).abs().mean())  # type: ignore[arg-type]  # of numbers
    shares = known.value_counts(normalize=True)["proportion"]
    return float(-(shares * shares.log()).sum())


def _rule_of_thumb(rows: pl.DataFrame, task: Task, asked: tuple[str, ...], power: Mapping[str, float]) -> RuleOfThumb:
    usual = {
        "binary": pl.col("outcome").mean(),
        "multiclass": pl.col("outcome").mode().sort().first(),
        "regression": pl.col("outcome").median(),
    }[task].cast(pl.Float64)
    overall = float(rows.select(usual).item())
    few = [name for name in asked if rows.schema[name] == pl.String() and 2 <= rows[name].n_unique() <= most_usual]
    column = max(few, key=lambda name: power[name], default=None)
    by_value: dict[str, float] = {}
    if column is not None:
        found = rows.drop_nulls(column).group_by(column).agg(usual=usual).sort(column)
        by_value = {value: float(f"{told:.3g}") for value, told in found.iter_rows()}
    return RuleOfThumb(column=column, usual=by_value, overall=float(f"{overall:.3g}"))
