"""The dashboards for Grafana: how a service does, and what its monitors see of it.

They need nothing but a Prometheus data source that scrapes the services.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deploy.expressions import SERVICE, all_requests, per_second, quantile, series
from serving.metrics import PHASES

HERE = 'job=~"$job", instance=~"$instance"'
"""What was chosen at the top of the dashboard."""

WINDOW = "$__rate_interval"
_source = {"type": "prometheus", "uid": "${datasource}"}
_columns, _height = 24, 8


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture."""

    title: str
    meaning: str
    unit: str
    lines: Sequence[tuple[str, str]]
    """Expression, and what its line is called."""

    kind: Literal["timeseries", "stat"] = "timeseries"
    stacked: bool = False
    width: int = 8


def dashboards() -> dict[str, dict[str, Any]]:
    """File name -> dashboard."""
    return {
        "service.json": _dashboard("mlplatform-service", "mlplatform: a service", _service()),
        "monitoring.json": _dashboard("mlplatform-monitoring", "mlplatform: what monitors see", _monitoring()),
    }


def _service() -> list[Panel]:
    requests, answers = series("mlplatform_request_seconds", HERE), series("mlplatform_predictions", HERE)
    not_closed = series("mlplatform_breaker_state", HERE, state='=~"open|half_open|forced_open"')
    objective = f"max by ({SERVICE}) ({series('mlplatform_objective_p99_seconds', HERE)})"
    return [
        Panel(
            title="Requests",
            meaning="Answered requests per second.",
            unit="reqps",
            lines=[(per_second(requests, WINDOW), "{{instance}}")],
        ),
        Panel(
            title="Latency",
            meaning="From the first byte of a request to its answer, and the p99 that the model promises.",
            unit="s",
            lines=[
                *(
                    (
                        quantile(share, series("mlplatform_request_seconds", HERE, bucket=True), WINDOW),
                        f"p{share * 100:g} {{{{instance}}}}",
                    )
                    for share in (0.5, 0.95, 0.99)
                ),
                (objective, "objective {{instance}}"),
            ],
        ),
        Panel(
            title="What answered",
            meaning="Answers per second by their source: the model, or a tier of the fallback chain.",
            unit="reqps",
            lines=[(per_second(answers, WINDOW, "model, source"), "{{model}} {{source}}")],
            stacked=True,
        ),
        Panel(
            title="Challenger",
            meaning="Share of the keys that it answers by the plan; the rest goes to the champion.",
            unit="percentunit",
            lines=[(f"max by ({SERVICE}, model) ({series('mlplatform_plan_share', HERE)})", "{{model}} {{instance}}")],
        ),
        Panel(
            title="Shadow and detours",
            meaning="Rows per second that the other arm scored for the log alone, and those it had no time, room or "
            "worker for; requests that the champion answered whatever their key says, and why.",
            unit="short",
            lines=[
                (
                    per_second(series("mlplatform_shadow_rows", HERE), WINDOW, "model, source"),
                    "{{model}} shadow {{source}}",
                ),
                (per_second(series("mlplatform_shadow_dropped", HERE), WINDOW, "model"), "{{model}} dropped"),
                (per_second(series("mlplatform_rerouted", HERE), WINDOW, "model, reason"), "{{model}} {{reason}}"),
            ],
        ),
        Panel(
            title="Where the time goes",
            meaning="p99 of the phases of a batch: the wait of its oldest row, features, the way to a worker, scoring.",
            unit="s",
            lines=[
                (
                    quantile(
                        0.99, series("mlplatform_phase_seconds", HERE, bucket=True, phase=f'="{phase}"'), WINDOW, ""
                    ),
                    phase,
                )
                for phase in PHASES
            ],
        ),
        Panel(
            title="Rows of a batch",
            meaning="Mean and p99; one row each means that nobody has to wait for others.",
            unit="short",
            lines=[
                (quantile(0.5, series("mlplatform_batch_rows", HERE, bucket=True), WINDOW), "p50 {{instance}}"),
                (quantile(0.99, series("mlplatform_batch_rows", HERE, bucket=True), WINDOW), "p99 {{instance}}"),
            ],
        ),
        Panel(
            title="Queue",
            meaning="Rows that wait for a model worker.",
            unit="short",
            lines=[(f"sum by ({SERVICE}) ({series('mlplatform_queue_rows', HERE)})", "{{instance}}")],
        ),
        Panel(
            title="Model workers",
            meaning="Reached by the gateway worker that reaches fewest; none means fallbacks only.",
            unit="short",
            lines=[
                (
                    f"min by ({SERVICE}, model) ({series('mlplatform_workers_connected', HERE)})",
                    "{{model}} {{instance}}",
                )
            ],
        ),
        Panel(
            title="Breakers",
            meaning="Gateway workers whose breaker is not closed.",
            unit="short",
            lines=[
                (f"sum by ({SERVICE}, breaker, state) ({not_closed})", "{{breaker}} {{state}}"),
            ],
        ),
        Panel(
            title="Refused requests",
            meaning="Per second, by HTTP status: 422 breaks the contract, 429 comes too fast, 503 finds no model.",
            unit="reqps",
            lines=[(per_second(series("mlplatform_refused", HERE), WINDOW, "status"), "{{status}}")],
            stacked=True,
        ),
        Panel(
            title="Facts",
            meaning="Bodies per second that were posted as facts, and how they were taken.",
            unit="reqps",
            lines=[
                (
                    per_second(series("mlplatform_fact_events", HERE), WINDOW, "source, outcome"),
                    "{{source}} {{outcome}}",
                )
            ],
            stacked=True,
        ),
        Panel(
            title="Rows of facts",
            meaning="The same in rows.",
            unit="short",
            lines=[
                (per_second(series("mlplatform_fact_rows", HERE), WINDOW, "source, outcome"), "{{source}} {{outcome}}")
            ],
            stacked=True,
        ),
    ]


def _monitoring() -> list[Panel]:
    answers = series("mlplatform_predictions", HERE)
    others = series("mlplatform_predictions", HERE, source='!="model"')
    refused, requests = series("mlplatform_refused", HERE), series("mlplatform_request_seconds", HERE)
    every = all_requests(requests, refused, WINDOW)
    of_model = f"{SERVICE}, model"
    look_age = f"max by ({SERVICE}) ({series('mlplatform_monitor_look_age_seconds', HERE)})"
    return [
        Panel(
            title="Alerts",
            meaning="Alerts of Prometheus that fire. Those of the monitors: `mlplatform alerts list`.",
            unit="short",
            lines=[('sum by (alertname) (ALERTS{alertstate="firing", alertname=~"Mlplatform.*"})', "{{alertname}}")],
            kind="stat",
        ),
        Panel(
            title="Monitor loop",
            meaning="Since it last looked; half a minute is usual.",
            unit="s",
            lines=[(look_age, "{{instance}}")],
            kind="stat",
        ),
        Panel(
            title="Log waiting",
            meaning="Answers on the gateways' disk that were not picked up yet.",
            unit="bytes",
            lines=[
                (
                    f"max by ({SERVICE}) ({series('mlplatform_prediction_log_backlog_bytes', HERE)})",
                    "{{instance}}",
                )
            ],
            kind="stat",
        ),
        Panel(
            title="Share of fallbacks",
            meaning="Answers that are not the model's.",
            unit="percentunit",
            lines=[
                (
                    f"{per_second(others, WINDOW, of_model)} / {per_second(answers, WINDOW, of_model)}",
                    "{{model}} {{instance}}",
                )
            ],
            width=12,
        ),
        Panel(
            title="Answers by arm",
            meaning="Per second, by arm of the rollout.",
            unit="reqps",
            lines=[(per_second(answers, WINDOW, "model, arm"), "{{model}} {{arm}}")],
            stacked=True,
            width=12,
        ),
        Panel(
            title="Share refused",
            meaning="Requests that were not answered, of all that came.",
            unit="percentunit",
            lines=[(f"{per_second(refused, WINDOW)} / {every}", "{{instance}}")],
            width=12,
        ),
        Panel(
            title="What refused requests broke",
            meaning="Fields at fault per second, by the rule they break. Fields that the domain does not declare are "
            "`undeclared`.",
            unit="short",
            lines=[
                (
                    f"topk(10, {per_second(series('mlplatform_refused_fields', HERE), WINDOW, 'field, rule')})",
                    "{{field}} {{rule}}",
                )
            ],
            width=12,
        ),
        Panel(
            title="Answers not logged",
            meaning="Given, and lost to every monitor. Zero is usual.",
            unit="short",
            lines=[
                (
                    f"sum by ({SERVICE}) (increase({series('mlplatform_prediction_log_dropped', HERE)}[{WINDOW}]))",
                    "{{instance}}",
                )
            ],
            width=12,
        ),
    ]


def _dashboard(uid: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    of_services = series("mlplatform_request_seconds")
    return {
        "uid": uid,
        "title": title,
        "tags": ["mlplatform"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
                _variable("job", f"label_values({of_services}, job)"),
                _variable("instance", f'label_values({of_services}{{job=~"$job"}}, instance)'),
            ]
        },
        "panels": _placed(panels),
    }


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _source,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """Side by side, row after row."""
    placed, x, y = [], 0, 0
    for number, each in enumerate(panels, start=1):
        if x + each.width > _columns:
            x, y = 0, y + _height
        placed.append(_panel(number, each, {"x": x, "y": y, "w": each.width, "h": _height}))
        x += each.width
    return placed


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    custom = {"fillOpacity": 15, "showPoints": "never", "stacking": {"mode": "normal" if panel.stacked else "none"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _source,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, **({"custom": custom} if panel.kind == "timeseries" else {})},
            "overrides": [],
        },
        "options": {"tooltip": {"mode": "multi"}}
        if panel.kind == "timeseries"
        else {"reduceOptions": {"calcs": ["last"]}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _source, "expr": expression, "legendFormat": legend}
            for place, (expression, legend) in enumerate(panel.lines)
        ],
    }
