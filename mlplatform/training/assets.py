"""The training set as a Dagster asset, partitioned by recipe."""

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.partitions import recipes
from mlplatform.provenance.code_version import code_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run
from mlplatform.training.dataset import build_training_set, save_training_set
from mlplatform.training.lineage import data_links, inputs_of, steps_said
from mlplatform.training.recipe import load_recipe


def model_key(domain: Domain, model: ModelSpec, stage: str) -> dg.AssetKey:
    """Key of an asset of one model: `domain/model/stage`."""
    return dg.AssetKey([domain.name, model.name, stage])


def training_assets(domain: Domain, model: ModelSpec) -> list[dg.AssetsDefinition]:
    """The training set of one model."""

    @dg.asset(
        key=model_key(domain, model, "training_set"),
        description=(
            f"{model.meaning}.\n\nPast requests, each with the features that it could have seen and the label that "
            "came of it. A partition is one recipe: the as-of day and a hash of the input revisions, view versions, "
            "settings and code; it never changes. Labels count only when they were available by the cut-off."
        ),
        deps=[
            dg.AssetDep(dg.AssetKey([domain.name, "derived"]), partition_mapping=dg.AllPartitionMapping()),
            *(
                dg.AssetDep(dg.AssetKey([owner, "feature_store"]), partition_mapping=dg.AllPartitionMapping())
                for owner in sorted({domain.name} | {domain.view(reference)[0] for reference in model.views})
            ),
        ],
        kinds={"polars", "parquet"},
        code_version=code_version(build_training_set),
        metadata={
            "dagster/column_schema": dg.TableSchema(
                [
                    dg.TableColumn(
                        each.name,
                        str(each.dtype),
                        description=f"{each.meaning} [{each.unit}]" if each.unit else each.meaning,
                    )
                    for each in domain.requests.columns
                ]
                + [dg.TableColumn("label", "Float64", description=f"{model.label.meaning} [{model.label.unit}]")]
            )
        },
        partitions_def=recipes(domain, model),
        group_name=f"{domain.name}_{model.name}",
        owners=list(domain.owners),
    )
    def training_set(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[None]:
        announce_run(platform.home, context.run.run_id)
        folder = platform.training(domain.name, model.name, context.partition_key)
        recipe = load_recipe(folder)
        made = build_training_set(platform, domain, model, recipe)
        described = save_training_set(folder, made, recipe)
        return dg.MaterializeResult(
            metadata={
                "lineage": dg.MetadataValue.md(steps_said(recipe.model, recipe.key)),
                "data": dg.MetadataValue.md(data_links(inputs_of(domain, recipe))),
                "dagster/partition_row_count": made.rows.height,
                "training_set": dg.MetadataValue.json(described),
                "path": dg.MetadataValue.path(str(folder / "training_set.parquet")),
            },
            data_version=dg.DataVersion(made.content_hash),
        )

    return [training_set]
