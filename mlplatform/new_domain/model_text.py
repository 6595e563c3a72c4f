"""The written `models.py`: what is asked, the label, the thresholds with their reasons, and the rule of thumb."""

import json
import math
from datetime import datetime
from typing import Any

import polars as pl

from mlplatform.new_domain.code_text import call, docstring, imports, text
from mlplatform.new_domain.contract import short
from mlplatform.new_domain.proposal import Proposal
from mlplatform.new_domain.view_text import history, of_request, view_name

by = "proposed by `mlplatform new`"

rare = 0.1
"""Share of a yes below which no probability may ever reach a half."""

sizes_from = ((20_000, (250, 0.08, 5, 10)), (2_000, (150, 0.08, 4, 10)), (600, (100, 0.08, 3, 10)))
"""Rows that tell something -> rounds, learning rate, depth and penalty of the trees."""

few_simple = 8
"""Features of the simple model: a linear model on more of them is not simple."""


def models_text(proposal: Proposal) -> str:
    """`models.py`."""
    segment = ", Segment" if proposal.segment else ""
    declared = f"Gate, Label, ModelSpec, Objectives, Retraining{segment}, Split, XGBoostSettings"
    parts = [
        docstring(
            f"What is asked, and the model that predicts `{proposal.outcome.label}`.",
            f"Every threshold says why it is that number. They were {by} from the sample: look them over.",
        ),
        "",
        "from collections.abc import Mapping",
        "from datetime import timedelta",
        "from typing import Any",
        "",
        "import polars as pl",
        "",
        "from mlplatform.domain.domain import Requests",
        imports("mlplatform.domain.model", declared.split(", ")),
        "from mlplatform.domain.threshold import Threshold",
        "",
        f"from .sources import {'classes, ' if proposal.task == 'multiclass' else ''}columns",
        "",
        call("known_when_asked = ", [text(each) for each in proposal.asked]),
        *_left_out(proposal),
        "",
        "",
        "def asked(facts: pl.DataFrame) -> pl.DataFrame:",
        f'    """Each row as the request that was, or would have been, made at its `{proposal.time}`."""',
        f'    return facts.select(*known_when_asked, at=pl.col("{proposal.time}"))',
        "",
        "",
        "requests = Requests(",
        "    columns=tuple(column for column in columns if column.name in known_when_asked),",
        '    facts="records",',
        "    of_facts=asked,",
        f"    identity={text(proposal.identity)},",
        "    example={",
        *(f"        {text(name)}: {_literal(value)}," for name, value in example(proposal).items()),
        "    },",
        ")",
        "",
        "",
        "def _label() -> pl.Expr:",
        '    return pl.col("outcome").cast(pl.Float64)',
        "",
        "",
        *_rule_of_thumb(proposal),
        "model = ModelSpec(",
        f"    name={text(proposal.outcome.label)},",
        f"    meaning={text(f'Predicts {short(proposal.outcome.label)}, asked at {short(proposal.time)}')},",
        f"    task={text(proposal.task)},",
        call("label=Label", _label(proposal), indent=4, end=","),
        f"    views={text(tuple(view_name(key) for key in proposal.entity))},",
        '    on_demand=("request",),',
        *([f"    fitted={text(tuple(f'{each}_categories' for each in proposal.words))},"] if proposal.words else []),
        call("settings=XGBoostSettings", _settings(proposal), indent=4, end=","),
        call("split=Split", _split(proposal), indent=4, end=","),
        *_segments(proposal),
        *_gate(proposal),
        *_objectives(),
        *_retraining(proposal),
        call("simple_features=", [text(each) for each in _simple_features(proposal)], indent=4, end=","),
        "    rules=rule_of_thumb,",
        *_decision(proposal),
        ")",
    ]
    return "\n".join(parts) + "\n"


def example(proposal: Proposal) -> dict[str, Any]:
    """The newest request of the sample that says most, as JSON holds it."""
    rows = proposal.rows.select(proposal.asked)
    fewest = rows.select(pl.sum_horizontal(pl.all().is_null())).to_series()
    row = rows.filter(fewest == fewest.min()).row(-1, named=True)
    told = {name: _json_value(value) for name, value in row.items()}
    return told | {"at": told[proposal.time]}


def _json_value(value: Any) -> Any:
    return f"{value:%Y-%m-%dT%H:%M:%S}Z" if isinstance(value, datetime) else value


def _literal(value: Any) -> str:
    return text(value) if isinstance(value, str | bool | None) else json.dumps(value)


def _left_out(proposal: Proposal) -> list[str]:
    lines = [f"* `{name}`: {why}" for name, why in proposal.left_out.items()]
    return ['"""Columns of a request. The others are not asked for:', "", *lines, '"""']


def _label(proposal: Proposal) -> dict[str, str]:
    given = {
        "name": text(proposal.outcome.label),
        "meaning": text(f"Column {short(proposal.sampled.written[proposal.outcome.label])}; {_said(proposal)}"),
        "value": "_label",
        "delay": text(proposal.horizon.label_delay),
    }
    return given | ({"classes": "classes"} if proposal.task == "multiclass" else {})


def _said(proposal: Proposal) -> str:
    if proposal.task == "binary":
        return f"1 is {short(proposal.outcome.classes[1])}"
    return "a class" if proposal.task == "multiclass" else "an amount"


def _rule_of_thumb(proposal: Proposal) -> list[str]:
    thumb = proposal.thumb
    what = {
        "binary": f"Share of {short(proposal.outcome.classes[1])}" if proposal.outcome.classes else "",
        "multiclass": "Most frequent class",
        "regression": f"Median {short(proposal.outcome.label)}",
    }[proposal.task]
    if thumb.column is None:
        return [
            f"usual = {text(thumb.overall)}",
            docstring(f"{what} in the sample."),
            "",
            "",
            "def rule_of_thumb(_request: Mapping[str, Any]) -> float | None:",
            '    """What was usual in the sample, whatever is asked."""',
            "    return usual",
            "",
            "",
        ]
    return [
        "usual = {",
        *(f"    {text(value)}: {text(told)}," for value, told in thumb.usual.items()),
        "}",
        docstring(f"{what} in the sample by `{thumb.column}`."),
        "",
        f"usual_of_all = {text(thumb.overall)}",
        "",
        "",
        "def rule_of_thumb(request: Mapping[str, Any]) -> float | None:",
        f'    """What was usual for its `{thumb.column}` in the sample, or for all."""',
        f'    return usual.get(str(request.get("{thumb.column}")), usual_of_all)',
        "",
        "",
    ]


def _settings(proposal: Proposal) -> dict[str, str]:
    """Trees no deeper than what the rows of the rarest outcome can teach: with few of them, deep trees learn chance."""
    rows, known = proposal.horizon.training_rows, proposal.outcome.values.drop_nulls()
    rarest = 1.0 if proposal.task == "regression" else float(known.value_counts(normalize=True)["proportion"].min())  # type: ignore[arg-type]  # of shares
    telling = rows * min(1.0, rarest * max(2, len(proposal.outcome.classes)))
    rounds, rate, depth, penalty = next((sizes for least, sizes in sizes_from if telling >= least), (60, 0.1, 2, 10))
    told = {
        "rounds": str(rounds),
        "learning_rate": text(rate),
        "max_depth": str(depth),
        "reg_lambda": str(penalty),
        "colsample_bytree": "0.7",
        "threads": "1",
    }
    # The gate judges by the mean absolute error, so that is what the trees learn.
    return told | ({"objective": text("reg:absoluteerror")} if proposal.task == "regression" else {})


def _split(proposal: Proposal) -> dict[str, str]:
    cut = proposal.horizon.split
    return {name: text(getattr(cut, name)) for name in ("warm_up", "calibration", "evaluation")}


def _segments(proposal: Proposal) -> list[str]:
    if proposal.segment is None:
        return []
    least = max(50, proposal.horizon.evaluation_rows // 10)
    inner = call("Segment", {"name": text(proposal.segment), "column": text(proposal.segment), "min_rows": str(least)})
    return [f"    segments=({inner},),"]


def _threshold(value: float, reason: str, indent: int, name: str, end: str = ",") -> str:
    return call(f"{name}=Threshold", {"value": text(value), "reason": text(reason)}, indent=indent, end=end)


def _gate(proposal: Proposal) -> list[str]:
    rows = proposal.horizon.evaluation_rows
    loss, what = _two_digits(proposal.naive_loss), proposal.metric.replace("_", " ")
    margin = _two_digits(proposal.naive_loss / 10)
    told = [
        "    gate=Gate(",
        f"        metric={text(proposal.metric)},",
        _threshold(rows // 2, f"half of the {rows} evaluation rows of the sample; {by}", 8, "min_rows"),
        _threshold(margin, f"a tenth of the {what} of the best constant, {loss:g}; {by}", 8, "margin"),
        _threshold(_two_digits(3 * margin), "three times as wide: a segment has fewer rows", 8, "segment_margin"),
    ]
    if proposal.task != "regression":
        metric = {"binary": "auc", "multiclass": "accuracy"}[proposal.task]
        reason = "hardly anything is so predictable: look for a column that is written afterwards"
        told += [
            "        too_good={",
            call(f"{text(metric)}: Threshold", {"value": "0.995", "reason": text(reason)}, indent=12, end=","),
            "        },",
        ]
    return [*told, "    ),"]


def _objectives() -> list[str]:
    return [
        "    objectives=Objectives(",
        _threshold(50, f"an answer that a person does not wait for; {by}", 8, "p99_ms"),
        _threshold(1_000, f"a day of requests is scored again in minutes; {by}", 8, "rows_per_second"),
        "    ),",
    ]


def _retraining(proposal: Proposal) -> list[str]:
    rows = int(_two_digits(max(50, proposal.rows.height / 10)))
    return [
        "    retraining=Retraining(",
        _threshold(rows, f"a tenth of the sample; {by}", 8, "new_rows"),
        "    ),",
    ]


def _simple_features(proposal: Proposal) -> list[str]:
    """What the request tells best, then the history."""
    of_history = [each.name for key in proposal.entity for each in history(proposal, key)[1:]]
    plain = [each for each in of_request(proposal) if each.column]
    telling = [each.name for each in sorted(plain, key=lambda each: -proposal.power[each.column])]
    return [*telling[: few_simple - 2], *of_history][:few_simple]


def _decision(proposal: Proposal) -> list[str]:
    if proposal.task != "binary":
        return []
    share = float(proposal.outcome.values.mean())  # type: ignore[arg-type]  # of numbers
    reason = "both mistakes cost the same until somebody says otherwise"
    if share < rare:
        reason = f"both mistakes cost the same; 1 is rare ({share:.1%}): lower it if missing one costs more"
    return [
        _threshold(0.5, reason, 4, "decision"),
        _threshold(0.55, f"so close to a coin toss that a person may look; {by}", 4, "review_below"),
    ]


def _two_digits(number: float) -> float:
    if not number:
        return 0.0
    return round(number, 1 - math.floor(math.log10(abs(number))))
