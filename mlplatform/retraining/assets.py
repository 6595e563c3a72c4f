"""The decisions on a model as a Dagster asset, which the sensor reports: no run makes it."""

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.retraining.tables import Recorded


def decision_key(model: str) -> dg.AssetKey:
    """Key of the decisions on a model: `domain/model/retrain_decision`."""
    return dg.AssetKey([*model.split("/"), "retrain_decision"])


def decision_asset(domain: Domain, model: ModelSpec) -> dg.AssetSpec:
    """The decisions on one model."""
    return dg.AssetSpec(
        decision_key(f"{domain.name}/{model.name}"),
        description=(
            f"Whether {domain.name}/{model.name} is trained again: `train`, `wait` or `refuse`, the reason in words, "
            "and every input beside its threshold. Each materialisation is a decision of the retraining sensor: one "
            "that says something new, one for each time an event told of new data, and one a day. "
            f"`mlplatform retrain explain {domain.name}/{model.name}` prints the last ones."
        ),
        deps=[dg.AssetKey([domain.name, "derived"])],
        # Not the group of its training: a job cannot run what a sensor reports.
        group_name=f"{domain.name}_retraining",
        owners=list(domain.owners),
        kinds={"deltalake"},
    )


def materialization(kept: Recorded) -> dg.AssetMaterialization:
    """A decision as Dagster shows it."""
    lines = [
        f"| {name.replace('_', ' ')} | {_figure(each['value'])} | {_figure(each['threshold'])} |"
        for name, each in kept.inputs.items()
    ]
    return dg.AssetMaterialization(
        decision_key(kept.model),
        description=f"{kept.outcome}: {kept.reason}",
        metadata={
            "outcome": kept.outcome,
            "turned on": kept.kind,
            "reason": kept.reason,
            "at": dg.MetadataValue.timestamp(kept.at),
            "inputs": dg.MetadataValue.md("\n".join(["| input | value | threshold |", "|---|---|---|", *lines])),
            "events": dg.MetadataValue.json([dict(each) for each in kept.events]),
            **({"recipe": kept.recipe} if kept.recipe else {}),
            "record": kept.name,
        },
    )


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.6g}"
