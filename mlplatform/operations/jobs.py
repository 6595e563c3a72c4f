"""Runs launched from the command line: in this process, on the same Dagster instance that the UI shows.

A run in process spares the 8 to 25 s that the daemon takes to start one; it is recorded like any other.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError  # not exported
from dagster._core.storage.tags import PARTITION_NAME_TAG

from mlplatform.definitions import platform_definitions
from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DeclarationError, PromotionRefused
from mlplatform.features.partitions import daily, recipes
from mlplatform.features.sensors import features_job_name, range_end, range_start
from mlplatform.provenance.files import alone, write_whole
from mlplatform.provenance.person import logged_in
from mlplatform.provenance.platform import Platform
from mlplatform.retraining.sensors import training_job_name
from mlplatform.rollout.judge import load_decision
from mlplatform.training.recipe import Recipe, load_recipe, recipe, save_recipe

quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Dagster's own console log; what the rooms log is shown by whoever launches."""


def dagster_home(platform: Platform) -> Path:
    """The folder of the Dagster instance, with this project's `dagster.yaml` in it.

    Raises
    ------
    DeclarationError
        The command is not run in the project's folder, and the instance was never made.
    """
    home = platform.home / "dagster"
    told = Path("dagster.yaml")
    if told.exists():
        write_whole(home / "dagster.yaml", told.read_bytes())
    elif not (home / "dagster.yaml").exists():
        raise DeclarationError("there is no dagster.yaml here. Run the command in the project's folder")
    return home


@contextmanager
def dagster_instance(platform: Platform) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of the platform.

    Opened by one process at a time: two that make its databases at once leave them broken for good.
    """
    home = dagster_home(platform)
    with alone(home / "opening.lock"):
        instance = dg.DagsterInstance.from_config(str(home))
    with instance:
        yield instance


def materialize_days(platform: Platform, domain: Domain, days: Sequence[str], *, stage: str | None = None) -> str:
    """Take a range of days through the six stages in one run (or through one stage); returns the run id.

    Raises whatever a stage raises; the run is recorded as failed.

    Raises
    ------
    DeclarationError
        The domain has no partition of the first or the last day; nothing is run.
    """
    partitions = daily(domain)
    for day in (days[0], days[-1]):
        if not partitions.has_partition_key(day):
            first, last = partitions.get_first_partition_key(), partitions.get_last_partition_key()
            raise DeclarationError(f"{domain.name} has no partition {day}; its days are {first} to {last}")
    keys = None if stage is None else [dg.AssetKey([domain.name, stage])]
    tags = {range_start: days[0], range_end: days[-1]}
    with dagster_instance(platform) as instance:
        return _execute(platform, domain, features_job_name(domain), instance, tags=tags, keys=keys)


def add_recipe(platform: Platform, domain: Domain, model: ModelSpec, *, as_of: str | None = None) -> Recipe:
    """Make the recipe of now, keep it, and give it a partition."""
    made = recipe(platform, domain, model, as_of=as_of)
    save_recipe(platform.training(domain.name, model.name, made.key), made)
    with dagster_instance(platform) as instance:
        instance.add_dynamic_partitions(recipes(domain, model).name or "", [made.key])
    return made


def materialize_recipe(
    platform: Platform, domain: Domain, model: ModelSpec, key: str, *, stages: Sequence[str] | None = None
) -> str:
    """Take one recipe from training set to Bento in one run (or through some of its stages); returns the run id.

    Raises
    ------
    UnknownRecipe
        Nobody made a recipe of that key.
    PromotionRefused
        The gate does not say pass.
    """
    load_recipe(platform.training(domain.name, model.name, key))
    keys = None if stages is None else [dg.AssetKey([domain.name, model.name, stage]) for stage in stages]
    with dagster_instance(platform) as instance:
        instance.add_dynamic_partitions(recipes(domain, model).name or "", [key])
        try:
            return _execute(platform, domain, training_job_name(domain, model), instance, partition=key, keys=keys)
        except DagsterAssetCheckFailedError as error:
            reasons = load_decision(platform.training(domain.name, model.name, key)).reasons
            raise PromotionRefused(f"{domain.name}/{model.name}", key, reasons) from error


def runs_of_recipes(platform: Platform, domain: Domain, model: ModelSpec, keys: Collection[str]) -> dict[str, str]:
    """The newest run of each recipe that has one: the begin of its id, and its status."""
    found = {}
    if keys:
        with dagster_instance(platform) as instance:
            for key in keys:
                of_recipe = dg.RunsFilter(job_name=training_job_name(domain, model), tags={PARTITION_NAME_TAG: key})
                for run in instance.get_runs(of_recipe, limit=1):
                    found[key] = f"{run.run_id[:8]} {run.status.value.lower()}"
    return found


def _execute(
    platform: Platform,
    domain: Domain,
    job: str,
    instance: dg.DagsterInstance,
    *,
    tags: dict[str, str] | None = None,
    partition: str | None = None,
    keys: list[dg.AssetKey] | None = None,
) -> str:
    definitions = platform_definitions({domain.name: domain}, platform)
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        run_config=quiet,
        tags={"user": logged_in(), **(tags or {})},
        partition_key=partition,
        asset_selection=keys,
    )
    return result.run_id
