"""The model and its Bento as Dagster assets, partitioned by recipe."""

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.partitions import recipes
from mlplatform.provenance.code_version import code_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run
from mlplatform.registry.bento import build_bento
from mlplatform.registry.candidate import bundle_of, make_candidate, promoted_bundle
from mlplatform.registry.lineage import Lineage, code_said, commands, lineage_of, mlflow_said
from mlplatform.training.assets import model_key
from mlplatform.training.lineage import data_links, steps_said
from mlplatform.training.recipe import load_recipe


def registry_assets(domain: Domain, model: ModelSpec) -> list[dg.AssetsDefinition]:
    """Model and Bento of one declared model."""

    @dg.asset(
        key=model_key(domain, model, "model"),
        description=(
            f"{model.meaning}.\n\nThe candidate of a recipe: searched, fitted, calibrated, and sealed in a bundle "
            "whose manifest names the hash of every file. One recipe has one model; asked again, it is found and kept."
        ),
        deps=[model_key(domain, model, "training_set")],
        kinds={"xgboost", "optuna", "mlflow"},
        code_version=code_version(make_candidate),
        partitions_def=recipes(domain, model),
        group_name=f"{domain.name}_{model.name}",
        owners=list(domain.owners),
    )
    def model_asset(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[None]:
        announce_run(platform.home, context.run.run_id)
        folder = platform.training(domain.name, model.name, context.partition_key)
        recipe = load_recipe(folder)
        made = make_candidate(platform, domain, model, recipe)
        lineage = lineage_of(domain, bundle_of(platform, made.manifest), recipe)
        trials = "\n".join(f"| {each['number']} | {each['value']:.5f} | `{each['params']}` |" for each in made.trials)
        return dg.MaterializeResult(
            metadata={
                "lineage": dg.MetadataValue.md(steps_said(lineage.model, lineage.recipe)),
                "data": dg.MetadataValue.md(data_links(each.input for each in lineage.tables)),
                "tables": _tables(lineage),
                "training_set": lineage.training_set,
                "code": dg.MetadataValue.md(code_said(lineage.record)),
                "trained_by": dg.MetadataValue.dagster_run(_trained_by(context, made.manifest)),
                "mlflow": dg.MetadataValue.md(mlflow_said(platform.mlflow_uri, lineage.model, lineage.recipe)),
                "commands": dg.MetadataValue.md(commands(lineage.model, lineage.recipe)),
                "manifest": made.manifest,
                "bundle": dg.MetadataValue.path(str(platform.bundles / made.manifest)),
                "settings": dict(made.settings),
                "trials": dg.MetadataValue.md(f"| trial | loss on the hold-out | tried |\n|---|---|---|\n{trials}"),
                "windows": dict(made.windows),
                "rows": dict(made.rows),
                "calibration": f"{'kept' if made.calibrated else 'not kept'}: {made.calibration_reason}",
            },
            data_version=dg.DataVersion(made.manifest),
        )

    @dg.asset(
        key=model_key(domain, model, "bento"),
        description=(
            "The Bento of the promoted model: the serving runtime, that one bundle, and its own small lock file. "
            "`bentoml serve` runs it. Refused for a model that was never promoted."
        ),
        deps=[model_key(domain, model, "promotion")],
        kinds={"bentoml"},
        code_version=code_version(build_bento),
        partitions_def=recipes(domain, model),
        group_name=f"{domain.name}_{model.name}",
        owners=list(domain.owners),
    )
    def bento(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> dg.MaterializeResult[None]:
        announce_run(platform.home, context.run.run_id)
        tag = build_bento(promoted_bundle(platform, domain, model, context.partition_key), home=platform.home)
        return dg.MaterializeResult(
            metadata={
                "lineage": dg.MetadataValue.md(steps_said(f"{domain.name}/{model.name}", context.partition_key)),
                "tag": tag,
                "serve": dg.MetadataValue.md(f"`mlplatform serve {domain.name}/{model.name}`"),
            },
            data_version=dg.DataVersion(tag),
        )

    return [model_asset, bento]


def _tables(lineage: Lineage) -> dg.TableMetadataValue:
    """What was read of each table."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "table": each.input.table,
                    "days": f"{each.input.days}, {each.input.first} to {each.input.last}",
                    "corrected": each.input.corrected,
                    "revisions (digest)": each.revisions,
                    "content (digest)": each.content,
                }
            )
            for each in lineage.tables
        ]
    )


def _trained_by(context: dg.AssetExecutionContext, manifest: str) -> str:
    """The run that made a model: the first that showed it; this one, where none did."""
    of_recipe = dg.AssetRecordsFilter(context.asset_key, asset_partitions=[context.partition_key])
    for record in context.instance.fetch_materializations(of_recipe, limit=100, ascending=True).records:
        shown = record.asset_materialization
        if shown is not None and "manifest" in shown.metadata and shown.metadata["manifest"].value == manifest:
            return str(record.run_id)
    return context.run.run_id
