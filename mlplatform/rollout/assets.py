"""Evaluation, promotion, rollout, dossier and approval as Dagster assets, partitioned by recipe."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG  # not exported
from pydantic import Field

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.partitions import recipes
from mlplatform.provenance.code_version import code_version, declaration_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run
from mlplatform.registry.candidate import load_candidate
from mlplatform.registry.ledger import Entry, Ledger, standing
from mlplatform.registry.lineage import mlflow_said
from mlplatform.rollout.aliases import mirror
from mlplatform.rollout.approval import approve
from mlplatform.rollout.dossier_page import write_dossier
from mlplatform.rollout.gate import Decision
from mlplatform.rollout.judge import judge_candidate
from mlplatform.rollout.plan import WHOLE
from mlplatform.rollout.progress import traffic, where_it_stands
from mlplatform.rollout.promotion import promote
from mlplatform.rollout.registration import register_candidate
from mlplatform.rollout.tick import Tick, tick
from mlplatform.rollout.trail import keep
from mlplatform.training import plots
from mlplatform.training.assets import model_key
from mlplatform.training.evaluation import Evaluation
from mlplatform.training.lineage import steps_said
from mlplatform.training.recipe import load_recipe

Result = dg.MaterializeResult[None] | dg.AssetCheckResult


def rollout_assets(domain: Domain, model: ModelSpec) -> list[dg.AssetsDefinition]:
    """Evaluation, promotion, rollout and dossier of one declared model; its approval, where one is demanded."""
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
        # Killed after the promotion, a run is repeated: a latency measured anew must not keep the Bento of what was
        # promoted from being built. The promotion, asked for it again, moves nothing.
        now = standing(Ledger(platform).entries(f"{domain.name}/{model.name}"))
        is_promoted = decision.candidate in {each.to_manifest for each in (now.champion, now.challenger) if each}
        yield dg.MaterializeResult(
            metadata={
                "lineage": lineage(domain, model, context.partition_key),
                "mlflow": dg.MetadataValue.md(
                    mlflow_said(platform.mlflow_uri, f"{domain.name}/{model.name}", context.partition_key, logged)
                ),
                **evaluation_metadata(figures, decision),
            },
            data_version=dg.DataVersion(declaration_version(decision.to_json())),
        )
        yield dg.AssetCheckResult(
            check_name="gate",
            passed=decision.outcome == "pass" or is_promoted,
            metadata={"decision": decision.outcome, "rules": dg.MetadataValue.md(_rules_table(decision))},
        )

    @dg.asset(
        key=model_key(domain, model, "promotion"),
        description=(
            "What passed the gate becomes the challenger, and its rollout starts; the first of all, and one whose "
            "model declares no rollout, becomes champion at once. It reads the decision on this candidate and refuses "
            "without a `pass`, whoever launches it; every move is an entry in the ledger."
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
        mirror(platform, f"{domain.name}/{model.name}")
        return dg.MaterializeResult(
            metadata={
                "lineage": lineage(domain, model, context.partition_key),
                entry.alias: entry.to_manifest,
                "before": entry.from_manifest or "none: the first model",
                "ledger_entry": entry.number,
                "reason": entry.reason,
                "at": entry.at.isoformat(),
            },
            data_version=dg.DataVersion(f"{entry.number}-{entry.to_manifest[:12]}"),
        )

    @dg.asset(
        key=model_key(domain, model, "rollout"),
        description=(
            "How far this version has come with the people it answers: which share, what it does worse than the "
            "champion with what certainty, and what the next step waits for. The sensor looks every 30 s and shows "
            "here each look that says something new, and one an hour; materialise it to look now. It also sets "
            f"MLflow's aliases from the ledger. `mlplatform rollout status {domain.name}/{model.name}` draws the same."
        ),
        deps=[model_key(domain, model, "promotion")],
        kinds={"mlflow", "deltalake"},
        code_version=code_version(tick),
        partitions_def=recipes(domain, model),
        group_name=f"{domain.name}_{model.name}",
        owners=list(domain.owners),
    )
    def rollout(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[None]:
        announce_run(platform.home, context.run.run_id)
        name = f"{domain.name}/{model.name}"
        found = tick(platform, domain, model)
        if found is not None:
            keep(platform, domain, found)
        mirror(platform, name)
        entries = Ledger(platform).entries(name)
        version = dg.DataVersion(state_version(entries))
        if found is not None and found.recipe == context.partition_key:
            return dg.MaterializeResult(metadata=look_metadata(domain, model, found), data_version=version)
        candidate = load_candidate(platform.training(domain.name, model.name, context.partition_key)).manifest
        return dg.MaterializeResult(
            metadata={
                "lineage": lineage(domain, model, context.partition_key),
                "manifest": candidate,
                "rollout": f"not under way: {where_it_stands(entries, candidate)}",
            },
            data_version=version,
        )

    @dg.asset(
        key=model_key(domain, model, "dossier"),
        description=(
            "The release dossier of the promoted version: data, features, training, evaluation, gate, rollout, "
            "approvals, environment and what changed, from records alone, as Markdown and as one page of HTML. "
            "Made again by itself when its rollout has ended; materialise it when more is recorded: an approval."
        ),
        deps=[model_key(domain, model, "promotion"), model_key(domain, model, "rollout")],
        kinds={"markdown"},
        code_version=code_version(write_dossier),
        partitions_def=recipes(domain, model),
        group_name=f"{domain.name}_{model.name}",
        owners=list(domain.owners),
    )
    def dossier(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[None]:
        announce_run(platform.home, context.run.run_id)
        candidate = load_candidate(platform.training(domain.name, model.name, context.partition_key))
        markdown, page = write_dossier(platform, f"{domain.name}/{model.name}", candidate.manifest)
        return dg.MaterializeResult(
            metadata={
                "lineage": lineage(domain, model, context.partition_key),
                "page": dg.MetadataValue.url(page.absolute().as_uri()),
                "path": dg.MetadataValue.path(str(page)),
                "dossier": dg.MetadataValue.md(markdown.read_text()),
            },
            data_version=dg.DataVersion(declaration_version(markdown.read_text())),
        )

    demanded = model.rollout is not None and model.rollout.approval
    return [evaluation, promotion, rollout, dossier, *([_approval_asset(domain, model)] if demanded else [])]


class Approval(dg.Config):
    """Who approves of a manifest, and why."""

    by: str = Field(description="Your name, as the ledger and the dossier will show it.")
    reason: str = Field(description="Why it may answer people: what you have looked at.")


def _approval_asset(domain: Domain, model: ModelSpec) -> dg.AssetsDefinition:
    """The approval of one model's candidates, given in the UI. In a group of its own: no job may run it by itself."""

    @dg.asset(
        key=model_key(domain, model, "approval"),
        description=(
            "A named person lets this candidate answer people. Look at `evaluation` first. Materialise it by hand: the "
            "launchpad asks for `by` and `reason`, and an entry of the ledger is made of them, bound to the digest of "
            "the manifest. Then materialise `promotion`, which refuses without. A rollback voids it."
        ),
        deps=[model_key(domain, model, "evaluation")],
        kinds={"deltalake"},
        pool=f"{domain.name}_{model.name}_promotion",
        code_version=code_version(approve),
        partitions_def=recipes(domain, model),
        group_name=f"{domain.name}_{model.name}_approval",
        owners=list(domain.owners),
    )
    def approval(
        context: dg.AssetExecutionContext, config: Approval, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[None]:
        announce_run(platform.home, context.run.run_id)
        candidate = load_candidate(platform.training(domain.name, model.name, context.partition_key))
        name = f"{domain.name}/{model.name}"
        entry = approve(platform, name, candidate.manifest, by=config.by, reason=config.reason)
        return dg.MaterializeResult(
            metadata={
                "lineage": lineage(domain, model, context.partition_key),
                "manifest": entry.to_manifest,
                "by": entry.actor,
                "reason": entry.reason,
                "gate": entry.evidence["gate"],
                "ledger_entry": entry.number,
                "at": entry.at.isoformat(),
            },
            data_version=dg.DataVersion(f"{entry.number}-{entry.to_manifest[:12]}"),
        )

    return approval


def lineage(domain: Domain, model: ModelSpec, recipe: str) -> dg.MarkdownMetadataValue:
    """The steps of a version, each a link to its page."""
    return dg.MetadataValue.md(steps_said(f"{domain.name}/{model.name}", recipe))


def look_metadata(domain: Domain, model: ModelSpec, found: Tick) -> dict[str, Any]:
    """A look at a rollout as the UI shows it: what was decided and why, and each bound beside its margin."""
    return {
        "lineage": lineage(domain, model, found.recipe),
        "outcome": found.outcome,
        "reasons": dg.MetadataValue.md("\n".join(f"- {each}" for each in found.reasons)),
        "traffic": traffic(found.mode, found.weight),
        "share": found.weight / WHOLE,
        "step": found.step,
        "challenger": found.challenger,
        "champion": found.champion,
        "at": dg.MetadataValue.timestamp(found.at),
        "bounds": dg.MetadataValue.md(_bounds_table(found)),
        **({"ledger_entry": found.entry.number} if found.entry else {}),
    }


def look_materialization(domain: Domain, model: ModelSpec, found: Tick, version: str) -> dg.AssetMaterialization:
    """A look that the sensor has made, under the recipe of its challenger."""
    return dg.AssetMaterialization(
        model_key(domain, model, "rollout"),
        partition=found.recipe,
        description=f"{found.outcome}: {'; '.join(found.reasons)}",
        metadata=look_metadata(domain, model, found),
        tags={DATA_VERSION_TAG: version},
    )


def state_version(entries: Sequence[Entry]) -> str:
    """Says whether the ledger has more to tell."""
    return f"{entries[-1].number}-{entries[-1].hash[:12]}" if entries else "0"


def _bounds_table(found: Tick) -> str:
    """Every figure, those that decide first."""
    said = {True: "**worse**", False: "may be worse"}
    lines = [
        f"| {each.name} | {each.segment or 'all'} | {each.bounds.n:,} | {each.bounds.mean:+.4f} | "
        f"{each.bounds.lower:+.4f} to {each.bounds.upper:+.4f} | {each.margin:g} | "
        f"{'below the margin' if each.excluded and not each.certain else said[each.certain]} |"
        for each in sorted(found.harms, key=lambda each: (not each.certain, bool(each.segment), each.excluded))
    ]
    head = ["| figure | where | pairs | worse by | at least, at most | margin | |", "|---|---|--:|--:|--:|--:|---|"]
    tripped = [f"| {each.name} | | | | | | **{each.reason}** |" for each in found.trips]
    return "\n".join([*head, *tripped, *lines])


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
