"""What is removed by policy, as a Dagster asset: one materialisation each night."""

from collections import Counter

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.features.tombstones import tombstones_table
from mlplatform.monitoring.assets import log_key
from mlplatform.provenance.code_version import code_version
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run
from mlplatform.reproducibility.retention.retention import apply


def retention_key(domain: Domain) -> dg.AssetKey:
    """Key of the asset: `domain/retention`."""
    return dg.AssetKey([domain.name, "retention"])


def retention_asset(domain: Domain) -> dg.AssetsDefinition:
    """What goes by the policy of a domain."""
    policy = domain.reproducibility.retention

    @dg.asset(
        key=retention_key(domain),
        group_name=f"{domain.name}_monitoring",
        description=(
            f"Removes what the policy of {domain.name} lets go, each thing with a tombstone, and makes one file of "
            "the many of each day of the prediction log. What a live manifest, an answer that is kept or a legal hold "
            "refers to stays, and so does the current revision of a partition.\n\n"
            f"Answers: {_kept(policy.predictions)}. Superseded revisions: {_kept(policy.superseded)}. Models: "
            f"{_kept(policy.models)}."
        ),
        deps=[log_key(domain)],
        kinds={"deltalake"},
        code_version=code_version(apply),
        owners=list(domain.owners),
    )
    def retention(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> dg.MaterializeResult[None]:
        announce_run(platform.home, context.run.run_id)
        done = apply(platform, domain, actor=f"run {context.run.run_id[:8]}")
        gone = Counter(each.kind for each in done.goes)
        return dg.MaterializeResult(
            metadata={
                **{f"removed/{kind}": gone[kind] for kind in ("answers", "bundle", "training_set", "revision")},
                "kept_though_of_age": len(done.stays),
                "kept_because": dg.MetadataValue.md(
                    "\n".join(f"* {number} {why}" for why, number in Counter(each.why for each in done.stays).items())
                    or "nothing has the age"
                ),
                "days_compacted": len(done.compacted),
                "tombstones": dg.MetadataValue.path(tombstones_table(platform, domain).uri),
            }
        )

    return retention


def _kept(age: object) -> str:
    return "kept for ever" if age is None else f"go after {age}".removesuffix(", 0:00:00")
