"""The alert rules for Prometheus: what is wrong with a service this minute, whatever else of the platform runs.

The monitor loop looks into the prediction log; these look at `/metrics`, and at whether the loop looks. Bounds that a
domain can declare are here at their defaults.
"""

from dataclasses import dataclass
from typing import Any, Literal

from deploy.expressions import SERVICE, all_requests, per_second, quantile, series
from mlplatform.domain.monitoring import Monitoring

JOB = 'job=~"mlplatform.*"'
"""How the services are called in the scrape configuration."""

enough_requests = 100
"""In five minutes. With fewer a share of one in twenty is some requests."""

backlog_bytes = 256 << 20
"""Four commits of the pick-up, which takes one in some seconds: it does not keep up, or does not run."""

silent_seconds = 300
"""Ten looks of the monitor loop."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An alert of Prometheus."""

    name: str
    expression: str
    lasting: str
    """How long it must hold before anybody is told."""

    severity: Literal["page", "ticket"]
    layer: Literal["data_quality", "model_behaviour"]
    summary: str
    description: str


def rules() -> list[Rule]:
    """Every rule, the gravest first."""
    monitoring = Monitoring()
    requests = series("mlplatform_request_seconds")
    answers, refused = series("mlplatform_predictions"), series("mlplatform_refused")
    others = series("mlplatform_predictions", source='!="model"')
    not_closed = series("mlplatform_breaker_state", state='=~"open|forced_open|half_open"')
    buckets = series("mlplatform_request_seconds", bucket=True)
    contract = series("mlplatform_refused", status='=~"400|422"')
    overload = series("mlplatform_refused", status='=~"429|5.."')
    fields = series("mlplatform_refused_fields")
    every = all_requests(requests, refused, "5m")
    enough = f"{every} * 300 >= {enough_requests}"
    of_model = f"{SERVICE}, model"
    fallback = monitoring.max_fallback_share.value
    return [
        Rule(
            name="MlplatformDown",
            expression=f"up{{{JOB}}} == 0",
            lasting="1m",
            severity="page",
            layer="model_behaviour",
            summary="{{ $labels.instance }} cannot be scraped",
            description="The service is down, or cannot be reached from Prometheus. Look at its supervisor's log.",
        ),
        Rule(
            name="MlplatformGone",
            expression=f"absent(up{{{JOB}}})",
            lasting="5m",
            severity="page",
            layer="model_behaviour",
            summary="Prometheus knows of no service of mlplatform",
            description="Nothing is scraped under this job. Look at the scrape configuration and service discovery.",
        ),
        Rule(
            name="MlplatformNoWorkers",
            expression=f"min by ({of_model}) ({series('mlplatform_workers_connected')}) == 0",
            lasting="30s",
            severity="page",
            layer="model_behaviour",
            summary="{{ $labels.model }} on {{ $labels.instance }} reaches no model worker",
            description="Every answer comes from the fallback chain. Look at the supervisor's log: workers end as soon "
            "as they start, or refuse their bundle.",
        ),
        Rule(
            name="MlplatformBreakerOpen",
            expression=f"sum by ({SERVICE}, breaker) ({not_closed}) > 0",
            lasting="1m",
            severity="page",
            layer="model_behaviour",
            summary="The breaker of {{ $labels.breaker }} on {{ $labels.instance }} stays open",
            description="{{ $value }} gateway workers do not ask it. The observations of the Bento in the Dagster UI "
            "tell why it opened.",
        ),
        Rule(
            name="MlplatformFallbackShare",
            expression=f"{per_second(others, '5m', of_model)} / "
            f"{per_second(answers, '5m', of_model)} > {fallback} and "
            f"sum by ({of_model}) (increase({answers}[5m])) >= {enough_requests}",
            lasting="5m",
            severity="page",
            layer="model_behaviour",
            summary="{{ $value | humanizePercentage }} of the answers of {{ $labels.model }} on {{ $labels.instance }} "
            "are not the model's",
            description=f"More than {fallback:.0%}: {monitoring.max_fallback_share.reason}. Look at the model workers, "
            "the breaker and the online store.",
        ),
        Rule(
            name="MlplatformLatency",
            expression=f"{quantile(0.99, buckets, '5m')} > on ({SERVICE}) "
            f"max by ({SERVICE}) ({series('mlplatform_objective_p99_seconds')}) and on ({SERVICE}) "
            f"sum by ({SERVICE}) (increase({requests}[5m])) >= {enough_requests}",
            lasting="10m",
            severity="page",
            layer="model_behaviour",
            summary="The p99 of {{ $labels.instance }} is {{ $value | humanizeDuration }}, beyond its objective",
            description="The objective is the model's own (`objectives.p99_ms`). The phases on the dashboard tell "
            "where the time goes: queue, features, hop or score.",
        ),
        Rule(
            name="MlplatformOverloaded",
            expression=f"{per_second(overload, '5m')} / {every} > 0.01 and {enough}",
            lasting="5m",
            severity="page",
            layer="model_behaviour",
            summary="{{ $labels.instance }} turns away {{ $value | humanizePercentage }} of its requests",
            description="It answers 429 or 5xx: more rows wait than may, or no model is loaded. Look at the queue, and "
            "at `/readyz`.",
        ),
        Rule(
            name="MlplatformRefusedShare",
            expression=f"{per_second(contract, '5m')} / {every} > 0.05 and {enough}",
            lasting="5m",
            severity="ticket",
            layer="data_quality",
            summary="{{ $labels.instance }} refuses {{ $value | humanizePercentage }} of its requests",
            description="They break the contract of the domain, or are no JSON. Some client has changed; "
            "MlplatformFieldRefused and the dashboard name the fields.",
        ),
        Rule(
            name="MlplatformFieldRefused",
            expression=f"{per_second(fields, '5m', f'{SERVICE}, field, rule')} / on ({SERVICE}) group_left () {every} "
            f"> 0.05 and on ({SERVICE}) {enough}",
            lasting="5m",
            severity="ticket",
            layer="data_quality",
            summary="The field {{ $labels.field }} breaks the rule {{ $labels.rule }} in "
            "{{ $value | humanizePercentage }} of the requests to {{ $labels.instance }}",
            description="Ask whoever sends it, or change the contract of the domain.",
        ),
        Rule(
            name="MlplatformLogDropped",
            expression=f"sum by ({SERVICE}) (increase({series('mlplatform_prediction_log_dropped')}[5m])) > 0",
            lasting="0s",
            severity="ticket",
            layer="data_quality",
            summary="{{ $labels.instance }} could not log {{ $value | humanize }} of its answers",
            description="They were given and cannot be replayed. Look at the disk of the gateways.",
        ),
        Rule(
            name="MlplatformLogBacklog",
            expression=f"max by ({SERVICE}) ({series('mlplatform_prediction_log_backlog_bytes')}) > {backlog_bytes}",
            lasting="10m",
            severity="ticket",
            layer="data_quality",
            summary="{{ $value | humanize1024 }}B of answers wait on {{ $labels.instance }} to be picked up",
            description="The pick-up does not run, or does not keep up. Look at the runs of the prediction log in the "
            "Dagster UI; nothing is lost while the disk has room.",
        ),
        Rule(
            name="MlplatformMonitorSilent",
            expression=f"max by ({SERVICE}) ({series('mlplatform_monitor_look_age_seconds')}) > {silent_seconds}",
            lasting="1m",
            severity="page",
            layer="model_behaviour",
            summary="The monitor loop has not looked at {{ $labels.instance }} for {{ $value | humanizeDuration }}",
            description="No finding becomes an alert now. Look whether the Dagster daemon runs, and at the ticks of "
            "the sensor `<domain>_monitor`.",
        ),
    ]


def rule_file() -> dict[str, Any]:
    """The file, as Prometheus reads it."""
    return {
        "groups": [
            {
                "name": "mlplatform",
                "interval": "30s",
                "rules": [
                    {
                        "alert": each.name,
                        "expr": each.expression,
                        "for": each.lasting,
                        "labels": {"severity": each.severity, "layer": each.layer},
                        "annotations": {"summary": each.summary, "description": each.description},
                    }
                    for each in rules()
                ],
            }
        ]
    }
