"""The model and its Bento as Dagster assets, partitioned by recipe."""

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.partitions import recipes
from mlplatform.provenance.code_version import code_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run
from mlplatform.registry.bento import build_bento
from mlplatform.registry.candidate import make_candidate, promoted_bundle
from mlplatform.training.assets import model_key
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
        made = make_candidate(platform, domain, model, load_recipe(folder))
        trials = "\n".join(f"| {each['number']} | {each['value']:.5f} | `{each['params']}` |" for each in made.trials)
        return dg.MaterializeResult(
            metadata={
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
            metadata={"tag": tag, "serve": dg.MetadataValue.md(f"`mlplatform serve {domain.name}/{model.name}`")},
            data_version=dg.DataVersion(tag),
        )

    return [model_asset, bento]
