"""The part of a dossier that holds figures: the evaluation, what the gate said of it, and what the words mean."""

from collections.abc import Iterator

from mlplatform.domain.model import ModelSpec, Task
from mlplatform.registry.ledger import Entry
from mlplatform.rollout.dossier_markdown import (
    MISSING,
    cell,
    code,
    facts,
    interval,
    moment,
    number,
    paragraph,
    percent,
    table,
    text,
)
from mlplatform.rollout.gate import Decision
from mlplatform.training.evaluation import Evaluation, SegmentResult
from mlplatform.training.metrics import METRICS

NAMES = {
    "candidate": "this version",
    "champion": "champion then",
    "simple": "simple model",
    "naive": "naive baseline",
}
"""Who is measured, in the order of the tables."""

METRIC_NAMES = {
    "log_loss": "log loss",
    "auc": "area under the ROC curve",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "ece": "calibration error",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
}
UNITS = {
    "log_loss": "nats per case, less is better",
    "auc": "0.5 to 1, more is better",
    "brier": "squared probability, less is better",
    "accuracy": "share of the cases, more is better",
    "ece": "probability, less is better",
    "mae": "less is better",
    "rmse": "less is better",
}
MEANINGS = {
    "log_loss": "How surprising what came true was, by what was said. 0 is foresight; wrong certainty costs much.",
    "auc": "The chance that a case that came true was scored above one that did not.",
    "brier": "The mean squared distance between the probability that was said and what came true (1 or 0).",
    "accuracy": "The share of cases whose prediction was right.",
    "ece": "How far, on average, the probability that was said is from the share that came true.",
    "mae": "The mean distance between what was said and what came true.",
    "rmse": "The root of the mean squared distance: large misses count for more.",
}
WORDS = {
    "Naive baseline": "What one says who knows nothing of the case: the mean of the training labels.",
    "Simple model": "A logistic or linear regression on a few of the features; it answers when the model cannot.",
    "Champion, challenger": "The version that answers, and one that is on trial against it.",
    "Gate": "The rules that a version must pass before it may replace the champion.",
    "Shadow, canary": "On trial, a version first scores what others answer; then it answers a share of the keys.",
    "Manifest": "The file that names all that a version's answers depend on. Its digest names the version.",
    "Digest, hash": "A short text computed from a content: another content has another one.",
    "Ledger": "The list of all decisions on a model, each with a hash over itself and the one before it.",
    "Interval": "In brackets: where the figure lies in 95 of 100 draws of the evaluation's days.",
    "Share of the gain": "How much of what the model gains by all its questions it gains by those on one feature.",
    "Margin": "How much worse still counts as equal.",
}


def evaluation_lines(evaluation: Evaluation | None, model: ModelSpec) -> Iterator[str]:
    """Figures of the version beside what it must beat, overall and by segment."""
    if evaluation is None:
        yield from paragraph(f"The evaluation: {MISSING}.")
        return
    yield from paragraph(
        f"On {number(evaluation.rows)} cases of {number(evaluation.days)} days that it was not trained on; every model",
        f"on the same cases. In brackets are 95 % intervals from {number(evaluation.resamples)} draws of whole days",
        f"(seed {evaluation.seed}).",
    )
    yield from ("### Overall", "")
    there = [name for name in NAMES if name in evaluation.metrics]
    others = [name for name in there if name != "candidate"]
    metrics = list(evaluation.metrics.get("candidate", {}))
    yield from table(
        ("figure", "unit", *(NAMES[name] for name in there)),
        [
            (_name(metric), _unit(metric, model), *(interval(evaluation.metrics[name].get(metric)) for name in there))
            for metric in metrics
        ],
    )
    if "champion" not in there:
        yield from paragraph("It was compared with no champion.")
    yield from paragraph("How far this version is from each of the others (its figure less theirs):")
    yield from table(
        ("figure", "unit", *(NAMES[name] for name in others)),
        [
            (
                _name(metric),
                _unit(metric, model),
                *(interval(evaluation.differences.get(name, {}).get(metric)) for name in others),
            )
            for metric in metrics
        ],
    )
    yield from ("### By segment", "")
    if evaluation.segments:
        yield from _segments(evaluation.segments, model, others)
    else:
        yield from paragraph("The model declares no segments.")
    if evaluation.calibration_curve:
        yield from ("### Calibration", "")
        yield from paragraph("What was said against what came true, in groups of cases by what was said:")
        yield from table(
            ("cases", "said, on average", "came true"),
            [(number(b.rows), percent(b.mean_score), percent(b.observed)) for b in evaluation.calibration_curve],
            figures=(0, 1, 2),
        )
    yield from ("### Speed, labels, parity", "")
    yield from facts(_other_figures(evaluation))


def gate_lines(decision: Decision | None, promotion: Entry | None) -> Iterator[str]:
    """Every rule with what it saw and why."""
    if decision is None:
        yield from paragraph(f"The decision of the gate: {MISSING}.")
        return
    rival = f"the champion {code(decision.champion[:12])}" if decision.champion else "no champion: it is the first"
    yield from paragraph(
        f"**{decision.outcome}** at {moment(decision.decided_at)}, against {rival}. `pass` needs every rule to",
        "pass; what is missing or unclear is `inconclusive`, and never a pass.",
    )
    decided = promotion.evidence.get("decided_at") if promotion else None
    if decided is not None and decided != decision.decided_at.isoformat():
        yield from paragraph(
            f"The promotion rests on the decision of {text(decided)}; the gate has been asked again since, and what is",
            "shown here is its newest answer.",
        )
    yield from table(
        ("rule", "says", "seen", "limit", "reason"),
        [
            (
                text(each.rule),
                each.outcome if each.outcome == "pass" else f"**{each.outcome}**",
                cell(each.observed),
                cell(each.threshold),
                text(each.reason),
            )
            for each in decision.rules
        ],
        figures=(2, 3),
    )


def words(task: Task) -> Iterator[str]:
    """The figures of this kind of model, and the words of the house."""
    figures = {METRIC_NAMES[metric]: MEANINGS[metric] for metric in METRICS[task]}
    yield from table(("word", "meaning"), [(text(word), text(meaning)) for word, meaning in (figures | WORDS).items()])


def _segments(segments: tuple[SegmentResult, ...], model: ModelSpec, others: list[str]) -> Iterator[str]:
    metric = model.gate.metric
    yield from paragraph(
        f"{_name(metric)} ({_unit(metric, model)}), and this version's less that of each of the others:"
    )
    yield from table(
        ("segment", "cases", "this version", *(f"less {NAMES[name]}" for name in others)),
        [
            (
                f"{text(each.segment)} {text(each.value)}",
                number(each.rows),
                *(
                    (
                        interval(each.metrics.get("candidate", {}).get(metric)),
                        *(interval(each.differences.get(name, {}).get(metric)) for name in others),
                    )
                    if each.judged
                    else ("too few cases to judge", *("–" for _ in others))
                ),
            )
            for each in segments
        ],
        figures=(1,),
    )


def _other_figures(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    latency, immature = evaluation.latency, evaluation.immaturity
    yield "Time to score one row, half of the calls", number(latency.p50_ms if latency else None, "ms")
    yield "Time to score one row, 99 of 100 calls", number(latency.p99_ms if latency else None, "ms")
    yield "Rows scored in a second, in batches of 1,024", number(latency.rows_per_second if latency else None)
    yield "Largest difference between the bundle's scores and the trained model's", number(evaluation.parity)
    if immature is None:
        yield "Labels that come late", MISSING
        return
    yield (
        "Labels that come late",
        f"{number(immature.pending)} of {number(immature.requests)} requests of the last label delay had none yet",
    )
    yield "Mean label of those that had one then", number(immature.mean_early)
    yield "Mean label of all of them", number(immature.mean_all)


def _name(metric: str) -> str:
    return text(METRIC_NAMES.get(metric, metric))


def _unit(metric: str, model: ModelSpec) -> str:
    unit = UNITS.get(metric, "")
    return text(f"{model.label.unit}, {unit}" if metric in ("mae", "rmse") and model.label.unit else unit or "–")
