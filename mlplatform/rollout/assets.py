"""Evaluation and promotion as Dagster assets, partitioned by recipe."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.partitions import recipes
from mlplatform.provenance.code_version import code_version, declaration_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.mlflow_registry import set_alias
from mlplatform.rollout.gate import Decision
from mlplatform.rollout.judge import judge_candidate
from mlplatform.rollout.promotion import promote
from mlplatform.rollout.registration import register_candidate
from mlplatform.training import plots
from mlplatform.training.assets import model_key
from mlplatform.training.evaluation import Evaluation
from mlplatform.training.recipe import load_recipe

Result = dg.MaterializeResult[None] | dg.AssetCheckResult


def rollout_assets(domain: Domain, model: ModelSpec) -> list[dg.AssetsDefinition]:
    """Evaluation and promotion of one declared model."""
    gate = dg.AssetCheckSpec(
        "gate",
        asset=model_key(domain, model, "evaluation"),
        blocking=True,
        description="Whether the candidate may replace the champion: pass, fail or inconclusive, with a reason for "
        "each rule. A signal only: what refuses is the promotion itself, which reads the same decision.",
    )

    @dg.asset(
        key=model_key(domain, model, "evaluation"),
        description=(
            "The candidate on rows it has not seen, with intervals, overall and by segment, beside the champion, the "
            "naive baseline and the simple model on the same rows; and the decision of the gate. Materialise it again "
            "when the champion has changed."
        ),
        deps=[model_key(domain, model, "model")],
        kinds={"xgboost", "polars"},
        check_specs=[gate],
        code_version=declaration_version(model.gate, model.segments, model.objectives),
        partitions_def=recipes(domain, model),
        group_name=f"{domain.name}_{model.name}",
        owners=list(domain.owners),
    )
    def evaluation(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Iterator[Result]:
        announce_run(platform.home, context.run.run_id)
        folder = platform.training(domain.name, model.name, context.partition_key)
        figures, decision = judge_candidate(platform, domain, model, load_recipe(folder))
        logged = register_candidate(platform, domain, model, context.partition_key, figures)
        # Killed after the promotion, a run is repeated: a latency measured anew must not keep the champion's Bento from
        # being built. The promotion, asked for it again, moves nothing.
        is_champion = Ledger(platform).champion(f"{domain.name}/{model.name}") == decision.candidate
        yield dg.MaterializeResult(
            metadata={
                **evaluation_metadata(figures, decision),
                "mlflow": f"{logged.name} version {logged.version}, run {logged.run_id}",
            },
            data_version=dg.DataVersion(declaration_version(decision.to_json())),
        )
        yield dg.AssetCheckResult(
            check_name="gate",
            passed=decision.outcome == "pass" or is_champion,
            metadata={"decision": decision.outcome, "rules": dg.MetadataValue.md(_rules_table(decision))},
        )

    @dg.asset(
        key=model_key(domain, model, "promotion"),
        description=(
            "The move of the alias `champion`. It reads the decision on this candidate and refuses without a `pass`, "
            "whoever launches it; every move is an entry in the ledger. The first of all becomes champion at once."
        ),
        deps=[model_key(domain, model, "evaluation")],
        kinds={"mlflow", "deltalake"},
        # One promotion of a model at a time: the second must see what the first did.
        pool=f"{domain.name}_{model.name}_promotion",
        code_version=code_version(promote),
        partitions_def=recipes(domain, model),
        group_name=f"{domain.name}_{model.name}",
        owners=list(domain.owners),
    )
    def promotion(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[None]:
        announce_run(platform.home, context.run.run_id)
        entry = promote(platform, domain, model, context.partition_key, actor=context.run.tags.get("user", "dagster"))
        # After the ledger, and from it: killed between the two, a second run finds the entry and sets the alias; of two
        # promotions at once both set what the ledger says last.
        champion = Ledger(platform).champion(f"{domain.name}/{model.name}") or entry.to_manifest
        set_alias(platform.mlflow_uri, manifest=bundle_of(platform, champion).manifest, alias="champion")
        return dg.MaterializeResult(
            metadata={
                "champion": entry.to_manifest,
                "before": entry.from_manifest or "none: the first model",
                "ledger_entry": entry.number,
                "reason": entry.reason,
                "at": entry.at.isoformat(),
            },
            data_version=dg.DataVersion(f"{entry.number}-{entry.to_manifest[:12]}"),
        )

    return [evaluation, promotion]


def evaluation_metadata(figures: Evaluation, decision: Decision) -> dict[str, Any]:
    """What a person would look at: the decision, the rules, the figures, the plots."""
    drawn = {"importance": plots.importance_plot(figures)}
    if figures.roc:
        drawn["roc"] = plots.roc_plot(figures)
    if figures.calibration_curve:
        drawn["calibration"] = plots.calibration_plot(figures)
    return {
        "decision": decision.outcome,
        "rules": dg.MetadataValue.md(_rules_table(decision)),
        "metrics": dg.MetadataValue.md(plots.metrics_table(figures)),
        **{name: dg.MetadataValue.md(plots.as_markdown(png, name)) for name, png in drawn.items()},
        **{
            name: interval.point
            for name, interval in figures.metrics["candidate"].items()
            if interval.point is not None
        },
    }


def _rules_table(decision: Decision) -> str:
    lines = [f"| {each.rule} | {each.outcome} | {each.reason} |" for each in decision.rules]
    return "\n".join(["| rule | outcome | reason |", "|---|---|---|", *lines])
