"""The label among the features: a single feature that is too good, and a column that is written after the event.

A value of a view cannot hold the outcome of the very case that asks for it, since the join gives only what was
published before; a request column can, because past requests are read off facts that were written afterwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from mlplatform.domain.model import ModelSpec
from mlplatform.domain.threshold import Threshold
from mlplatform.domain_checks.case import called
from mlplatform.domain_checks.cases import two_days
from mlplatform.domain_checks.difference import row_name
from mlplatform.domain_checks.evidence import Evidence, seed
from mlplatform.domain_checks.later import facts_of, feeding
from mlplatform.domain_checks.one_feature import Floats, Strength, strength
from mlplatform.domain_checks.verdict import Fault, Looked
from mlplatform.errors import CannotJudge, DomainCodeRaised
from mlplatform.features.view import view_feature_names
from mlplatform.training import metrics

too_good_area = Threshold(
    value=0.98,
    reason="one honest measurement can be nearly the outcome (a laboratory value and a disease: up to about .975 in "
    "public data); beyond that the column has far more often seen it",
)
too_good_correlation = Threshold(
    value=0.98,
    reason="squared it is .96: one column explains all but a twenty-fifth of the label's order, as a copy in other "
    "units does and a cause of it does not",
)
too_good_of_a_view = Threshold(
    value=0.9999,
    reason="a view holds only what was published before the request, and the last value of a slow series (a meter, a "
    "balance) is an honest feature all but equal to the label; only a copy is beyond this",
)
suspicious = Threshold(
    value=0.8,
    reason="for a column that moves with the outcome's own columns while others do too: an honest one, such as a due "
    "date, is seldom stronger than .7 alone; half a copy of the outcome is above .8",
)

least_rows = 60
"""Earlier and later labelled rows: the standard error of an AUC of .9 is then about .04."""

changed_share = 0.05
"""Share of cases in which a value must move for its column to count as moved: more than the ties and rounding do."""


def label_among_features(evidence: Evidence) -> Looked:
    """No single feature foretells the label as well as only the label itself does."""
    faults, reasons, features = [], [], 0
    for model in evidence.domain.models:
        asked = evidence.asked(model)
        try:
            earlier, later = evidence.training_rows(model, asked, least_rows)
        except CannotJudge as reason:
            reasons.append(str(reason))
            continue
        matrix = evidence.inputs_of(model, asked, earlier)
        of_views = set(view_feature_names(evidence.domain, model))
        labels = asked.labels.to_numpy().astype(np.float64)
        for name in matrix.columns:
            features += 1
            found = strength(model, matrix[name], labels, earlier.to_numpy(), later.to_numpy())
            told = _too_good(model, found, labels[later.to_numpy()], of_view=name in of_views) if found else None
            if told:
                faults.append(
                    Fault(
                        what=f"model {model.name}",
                        where=f"feature {name}",
                        told=f"{told}. Look where it comes from: it must be known at `at`. If it honestly is, say so "
                        "by a `too_good` threshold of the model's gate, with the reason",
                    )
                )
    if reasons and not faults and not features:
        raise CannotJudge("; ".join(reasons))
    return Looked(
        at=f"{features} features alone" + "".join(f"; not judged: {each}" for each in reasons), faults=tuple(faults)
    )


def _too_good(model: ModelSpec, found: Strength, labels: Floats, *, of_view: bool) -> str | None:
    """Why a feature is too good, by the gate's own thresholds where it has some, else by ours."""
    for metric, threshold in model.gate.too_good.items():
        if metric == "auc" and found.name == "AUC":
            value = found.value
        else:
            value = metrics.value(metric, labels, found.scores)
        better = value >= threshold.value if metrics.DIRECTIONS[metric] == "higher" else value <= threshold.value
        if better:
            bar = f"the gate holds {threshold.value} to be too good ({threshold.reason})"
            return f"alone has {metric} {value:.3f}, and {bar}"
    if model.gate.too_good:
        return None
    usual = too_good_area if found.name == "AUC" else too_good_correlation
    threshold = too_good_of_a_view if of_view else usual
    if found.value < threshold.value:
        return None
    return (
        f"alone foretells the label with {found.name} {found.value:.3f}, {threshold.value} or more: {threshold.reason}"
    )


def written_after(evidence: Evidence) -> Looked:
    """What a case asks with does not move when its own outcome is another one, and is not rewritten afterwards."""
    faults = [*_rewritten(evidence), *_from_label_columns(evidence), *_from_landed_columns(evidence)]
    first = {(fault.what, fault.where): fault for fault in reversed(faults)}
    few = [name for name in feeding(evidence) if _busiest(evidence, name).height < least_exchanged]
    note = f"; not judged: fewer than {least_exchanged} rows a day of {', '.join(few)}" if few else ""
    return Looked(
        at=f"request columns and on-demand features, with the outcome of each case exchanged{note}",
        faults=tuple(first.values())[::-1],
    )


def _rewritten(evidence: Evidence) -> Iterator[Fault]:
    """Cases that stand in the facts several times: a column that changes from one to the next was written later."""
    identity = [*evidence.domain.requests.identity, "at"]
    requests = evidence.requests.drop_nulls("at")
    repeated = requests.filter(pl.struct(identity).is_duplicated()).sort("_event_time")
    columns = [name for name in requests.columns if name not in identity and not name.startswith("_")]
    cases = repeated.group_by(identity, maintain_order=True).agg(
        pl.col("_event_time").n_unique().alias("_times"), *(pl.col(name).n_unique() for name in columns)
    )
    cases = cases.filter(pl.col("_times") > 1)
    if cases.height < least_repeated:
        return
    for name in columns:
        moved = cases.filter(pl.col(name) > 1)
        if moved.height > changed_share * cases.height:
            yield Fault(
                what="requests.of_facts",
                where=f"column {name}, row {row_name(moved, 0, identity)}",
                told=f"{moved.height} of {cases.height} cases that were reported again have another value then: it is "
                "written after the event. Take the value of the first report, or leave the column out; if these are "
                "different cases, add what tells them apart to `identity`",
            )


least_exchanged = 30
"""Landed rows of a day, so that most get another's value when values are exchanged."""

least_repeated = 10
"""Cases reported more than once before anything is said of them."""


def _from_label_columns(evidence: Evidence) -> Iterator[Fault]:
    """Exchange the columns that the label reads between the facts: no request may tell."""
    domain = evidence.domain
    facts = evidence.facts(domain.requests.facts)
    read = {model.name: label_columns(model, facts) for model in domain.models}
    before = _answers(evidence, facts)
    for name in sorted({name for names in read.values() for name in names}):
        alone = [model for model, names in read.items() if names == [name]]
        if not alone:
            continue
        exchanged = facts.with_columns(pl.col(name).shuffle(seed=seed))
        for moved, row in _moved(before, _answers(evidence, exchanged)):
            yield Fault(
                what="requests.of_facts" if moved in evidence.requests.columns else "on-demand features",
                where=f"column {moved}, row {row}",
                told=f"it changes with `{name}`, which is the label of {', '.join(alone)} and known only afterwards. "
                "Leave it out of the request",
            )


def label_columns(model: ModelSpec, facts: pl.DataFrame) -> list[str]:
    """Columns of the facts that a label reads."""
    return [name for name in dict.fromkeys(model.label.value().meta.root_names()) if name in facts.columns]


def _answers(evidence: Evidence, facts: pl.DataFrame) -> pl.DataFrame:
    """What each fact asks with: request columns, `at`, and the on-demand features of the request alone."""
    asked = evidence.asked_of(facts)
    parts = [asked]
    nulls = {
        feature.name: pl.lit(None, dtype=feature.dtype)
        for model in evidence.domain.models
        for reference in model.views
        for feature in evidence.domain.view(reference)[1].features
    }
    known = asked.with_columns(**nulls)
    for on_demand in evidence.domain.on_demand:
        given = called(f"on-demand {on_demand.name}", "outcomes exchanged", on_demand.function, known)
        parts.append(given.select([feature.name for feature in on_demand.features]))
    return pl.concat(parts, how="horizontal")


def _moved(before: pl.DataFrame, after: pl.DataFrame) -> Iterator[tuple[str, str]]:
    for name in before.columns:
        other = ~before[name].eq_missing(after[name])
        if other.sum() > changed_share * before.height:
            yield name, row_name(before, int(other.arg_max() or 0))


@dataclass(frozen=True, kw_only=True)
class _Effect:
    """What moves when one landed column is exchanged between the rows."""

    source: str
    column: str
    moved: frozenset[str]
    """Request columns, `at`, on-demand features, and `label of <model>`."""


def _from_landed_columns(evidence: Evidence) -> Iterator[Fault]:
    """Exchange each landed column between the rows: what decides the outcome must not show in the request."""
    effects = list(_effects(evidence))
    for model in evidence.domain.models:
        label = f"label of {model.name}"
        # A column that moves `at`, or names the case, is known by then.
        deciding = [each for each in effects if label in each.moved and "at" not in each.moved]
        for each in deciding:
            sole = len(deciding) == 1
            for name in sorted(each.moved):
                if name.startswith("label of "):
                    continue
                because = "alone decides" if sole else _helps(evidence, model, name)
                if because:
                    yield Fault(
                        what="requests.of_facts" if name in evidence.requests.columns else "on-demand features",
                        where=f"column {name}",
                        told=f"it changes with `{each.column}` of {each.source}, which {because} the label of "
                        f"{model.name}: it is written after the event. Leave it out, or take its value as of `at`",
                    )


def _helps(evidence: Evidence, model: ModelSpec, name: str) -> str:
    """Of a column that only helps to decide: that what moves with it is suspiciously strong; empty where it is not."""
    try:
        found = _strength_of(evidence, model, name)
    except CannotJudge:
        return ""  # too few rows to call anything strong
    if found is None or found.value < suspicious.value:
        return ""
    return f"helps to decide (this column alone: {found.name} {found.value:.2f}, {suspicious.value} is suspicious)"


def _strength_of(evidence: Evidence, model: ModelSpec, name: str) -> Strength | None:
    """How strong a feature of the model, or a number among the request columns, is alone."""
    asked = evidence.asked(model)
    earlier, later = evidence.training_rows(model, asked, least_rows)
    matrix = evidence.inputs_of(model, asked, earlier)
    column = matrix[name] if name in matrix.columns else asked.rows[name] if name in asked.rows.columns else None
    if column is None or not (column.dtype.is_numeric() or column.dtype == pl.Boolean()):
        return None
    return strength(model, column, asked.labels.to_numpy().astype(np.float64), earlier.to_numpy(), later.to_numpy())


def _busiest(evidence: Evidence, source: str) -> pl.DataFrame:
    return evidence.validated[source][two_days(evidence, [source])[-1]]


def _effects(evidence: Evidence) -> Iterator[_Effect]:
    domain = evidence.domain
    for source in feeding(evidence):
        day = two_days(evidence, [source])[-1]
        rows = _busiest(evidence, source)
        if rows.height < least_exchanged:
            continue
        before = _cases(evidence, facts_of(evidence, source, day, rows))
        for column in rows.columns:
            # Values of other days too: the instants of one day are too much alike to decide anything.
            others = pl.concat([frame[column] for frame in evidence.validated[source].values()])
            exchanged = rows.with_columns(others.sample(rows.height, with_replacement=True, seed=seed))
            try:
                after = _cases(evidence, facts_of(evidence, source, day, exchanged))
            except DomainCodeRaised:
                continue  # rows that no source would send; the contract refuses them
            moved = _moved_cases(before, after, domain.requests.identity)
            if moved:
                yield _Effect(source=source, column=column, moved=moved)


def _cases(evidence: Evidence, facts: pl.DataFrame) -> pl.DataFrame:
    labels: Mapping[str, pl.Series] = {
        f"label of {model.name}": evidence.label(model, facts) for model in evidence.domain.models
    }
    return _answers(evidence, facts).with_columns(**labels)


def _moved_cases(before: pl.DataFrame, after: pl.DataFrame, identity: Sequence[str]) -> frozenset[str]:
    """Columns that move, case by case; none where the cases themselves are others."""
    once = [frame.unique(subset=list(identity), keep="none") for frame in (before, after)]
    paired = once[0].join(once[1], on=list(identity), nulls_equal=True, suffix=" then")
    if paired.height < before.height / 2:
        return frozenset()
    return frozenset(
        name
        for name in before.columns
        if name not in identity
        and (~paired[name].eq_missing(paired[f"{name} then"])).sum()
        # A label that moves at all has more than one cause; a request that moves hardly at all has ties.
        > (0 if name.startswith("label of ") else changed_share * paired.height)
    )
