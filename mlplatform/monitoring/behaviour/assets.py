"""How the models of a domain behaved as a Dagster asset, partitioned by day."""

from collections.abc import Iterator

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.monitoring.assets import judging, log_key
from mlplatform.monitoring.behaviour.checks import MONITOR, behaviour_check, behaviour_metadata, behaviour_result
from mlplatform.monitoring.behaviour.day import behaviour_of_day
from mlplatform.monitoring.behaviour.tables import behaviour_table, keep_behaviour, table_schema
from mlplatform.monitoring.breaker_log import BreakerTransition
from mlplatform.monitoring.daily import judged_version
from mlplatform.monitoring.findings_table import keep_findings
from mlplatform.provenance.platform import Platform
from mlplatform.provenance.run_process import announce_run

transitions_read = 1000
"""Newest observations of a Bento that are looked through: a breaker that goes to and fro all day has a few hundred."""


def behaviour_asset(domain: Domain) -> dg.AssetsDefinition:
    """How the models of a domain behaved on a day."""

    @judging(
        domain,
        MONITOR,
        behaviour_of_day,
        table_schema,
        description=(
            "How the models behaved, from what they answered: traffic, sources, latency, breakers, the distribution of "
            "scores, and the performance that the scores themselves lead to expect before any label is in. One row per "
            "model, manifest, arm and figure. Some answers of each manifest are scored again with its own bundle, to "
            "the same scores.\n\nA day is judged when it is over, and again when more answers of it "
            "come; silent days after days with answers too. The bounds are made of the days that each model was "
            "trained and evaluated on."
        ),
        deps=[dg.AssetDep(log_key(domain))],
        check_specs=[behaviour_check(domain)],
    )
    def model_behaviour(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.MaterializeResult[None]]:
        announce_run(platform.home, context.run.run_id)
        day, run_id = context.partition_key, context.run.run_id
        found = behaviour_of_day(platform, domain, day, observed=observed_transitions(context.instance, domain))
        revision = keep_behaviour(platform, domain, day, found.behaviours, run_id=run_id)
        keep_findings(platform, domain, MONITOR, day, found.findings, run_id)
        yield dg.MaterializeResult(
            metadata={
                **behaviour_metadata(found),
                "table": dg.MetadataValue.path(behaviour_table(platform, domain).uri),
            },
            check_results=[behaviour_result(found)],
            data_version=dg.DataVersion(judged_version(str(found.rows), revision.content_hash)),
        )

    return model_behaviour


def observed_transitions(instance: dg.DagsterInstance, domain: Domain) -> list[BreakerTransition]:
    """What the sensor of the prediction log has told of the breakers of a domain's models."""
    records = [
        record
        for model in domain.models
        for record in instance.fetch_observations(
            dg.AssetKey([domain.name, model.name, "bento"]), limit=transitions_read
        ).records
    ]
    found = []
    for each in records:
        told = each.asset_observation
        if told is None or "line" not in told.metadata:
            continue
        said = {name: told.metadata[name].value for name in ("model", "manifest", "gateway", "breaker", "reason")}
        at = told.metadata["at"].value
        assert isinstance(at, float)
        found.append(
            BreakerTransition(
                **{name: str(value) for name, value in said.items()},
                model_version=told.partition or "",
                before=str(told.metadata["from"].value),
                after=str(told.metadata["to"].value),
                at=round(1e9 * at),
            )
        )
    return found
