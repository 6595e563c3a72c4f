"""The sensor of a model's rollout: each tick is one look (`tick`), and what is new is shown on the asset `rollout`.

It keeps nothing that the ledger does not say. The cursor only spares work: it tells of which ended rollout a run was
asked for that sets MLflow's aliases, builds the Bento and writes the dossier again. Lost with a killed daemon, the same
run is asked for again under the same key, which Dagster takes for done.
"""

from collections.abc import Sequence

import dagster as dg

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.features.partitions import recipes
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Entry, Ledger
from mlplatform.rollout.assets import look_materialization, state_version
from mlplatform.rollout.evidence import gather as gather_evidence
from mlplatform.rollout.tick import Gather, Tick, tick
from mlplatform.rollout.trail import keep

seconds_between_looks = 30
"""Harm is to be seen within a minute; a look where no rollout is under way reads one small table."""


def release_job_name(domain: Domain, model: ModelSpec) -> str:
    """Name of the job that follows the end of a rollout: aliases, dossier, Bento."""
    return f"{domain.name}_{model.name}_release"


def rollout_sensor(domain: Domain, model: ModelSpec, *, gather: Gather = gather_evidence) -> dg.SensorDefinition:
    """The rollout of a model's challenger, step by step.

    Parameters
    ----------
    gather : gives the evidence
    """
    job, name = release_job_name(domain, model), f"{domain.name}/{model.name}"

    @dg.sensor(
        name=f"{domain.name}_{model.name}_rollout",
        job_name=job,
        minimum_interval_seconds=seconds_between_looks,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Looks at the rollout of {name}: takes its next step, waits, or sends the challenger back; and "
        "has aliases and dossier follow when it has ended. It also sets the plan that services follow from the ledger.",
    )
    def sensor(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SensorResult:
        found = tick(platform, domain, model, gather=gather)
        entries = Ledger(platform).entries(name)
        events = []
        if found is not None and keep(platform, domain, found) and found.recipe:
            events.append(look_materialization(domain, model, found, state_version(entries)))
        ended = _ended(entries)
        if ended is None or context.cursor == str(ended.number):
            return dg.SensorResult(skip_reason=_told(found), asset_events=events, cursor=context.cursor)
        recipe = str(ended.evidence["recipe"])
        return dg.SensorResult(
            asset_events=events,
            run_requests=[dg.RunRequest(run_key=f"{name}:{ended.number}", job_name=job, partition_key=recipe)],
            dynamic_partitions_requests=[recipes(domain, model).build_add_request([recipe])],
            cursor=str(ended.number),
        )

    return sensor


def _ended(entries: Sequence[Entry]) -> Entry | None:
    """The last event that ended a rollout, or took back what one had ended with."""
    ends = [each for each in entries if each.action in ("finish", "roll_back") and each.evidence.get("recipe")]
    return ends[-1] if ends else None


def _told(found: Tick | None) -> str:
    return f"{found.outcome}: {'; '.join(found.reasons)}" if found else "no rollout is under way"
