"""The recipe of a model: everything that decides its bytes, named before anything is built.

Two recipes are the same model exactly when their keys are equal; the key is the partition of `training_set`, `model`,
`evaluation`, `promotion` and `bento`. It costs a listing of tables, never a read of rows.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time
from pathlib import Path

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import ModelSpec
from mlplatform.errors import DataError, MissingPartition, UnknownRecipe
from mlplatform.features.historical import view_stores
from mlplatform.features.point_in_time import point_in_time_join
from mlplatform.features.tables import Tables
from mlplatform.provenance.code_version import code_version, declaration_version
from mlplatform.provenance.files import write_whole
from mlplatform.provenance.platform import Platform
from mlplatform.training.train import train

training_code = (
    "mlplatform.training",
    "mlplatform.scoring",
    "mlplatform.features.point_in_time",
    "mlplatform.features.view",
)
"""Where the code is that decides a model's bytes once its input revisions are given."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What goes into one model."""

    model: str
    """`domain/model`."""

    start: str
    """ISO day: the domain's first partition, from which the warm-up is counted."""

    as_of: str
    """ISO day: partitions before it are used, labels available by `label_cut_off`."""

    label_cut_off: str
    """ISO instant: the as-of midnight and the publishing delay, when the last partition used was published."""

    facts: Mapping[str, int]
    """Revision of each partition of the requests' facts."""

    views: Mapping[str, Mapping[str, int]]
    """Revision of each partition of each view, by `owner/view`."""

    view_versions: Mapping[str, str]
    declaration: str
    """Version of the model's declaration and of the requests': label, features, settings, search space, split."""

    seed: int
    code: str
    """Version of the code that joins, splits, fits and calibrates."""

    environment: str
    """Hash of the lock file: another XGBoost is another model."""

    @property
    def key(self) -> str:
        """As-of day and eight hex characters: the partition key."""
        return f"{self.as_of}-{declaration_version(asdict(self))[:8]}"

    @property
    def cut_off(self) -> datetime:
        """`label_cut_off` as a datetime."""
        return datetime.fromisoformat(self.label_cut_off)


def input_pins(domain: Domain, recipe: Recipe) -> dict[str, Mapping[str, int]]:
    """The revision of each day that a recipe reads, by the table as a record names it."""
    return {facts_table(domain): recipe.facts, **recipe.views}


def facts_table(domain: Domain) -> str:
    """The table of the requests' facts, by the name that recipes, records and pages give it."""
    return f"{domain.name}/derived/{domain.requests.facts}"


def recipe(platform: Platform, domain: Domain, model: ModelSpec, *, as_of: str | None = None) -> Recipe:
    """The recipe of a model as of a day, from what the tables hold now.

    Parameters
    ----------
    as_of : ISO day; None: the day after the newest partition of the feature store

    Raises
    ------
    DataError
        There is nothing to train on.
    """
    facts = {day: each.number for day, each in Tables(platform, domain).facts(domain.requests.facts).current().items()}
    views, versions = {}, {}
    for label, (_, store, version) in view_stores(platform, domain, model).items():
        views[label] = {day: each.number for day, each in store.current().items()}
        versions[label] = version
    newest = [max(days) for days in (facts, *views.values()) if days]
    if len(newest) <= len(views):
        raise DataError(f"{domain.name} has no features yet. Land data and run `mlplatform backfill {domain.name}`")
    end = date.fromordinal(date.fromisoformat(min(newest)).toordinal() + 1).isoformat()
    day = as_of or end
    if day > end:
        raise DataError(f"as of {day} is beyond the data: the newest features are of {min(newest)}. Backfill first")
    midnight = datetime.combine(date.fromisoformat(day), time(), UTC)
    used = {each: number for each, number in facts.items() if each < day}
    if not used:
        raise MissingPartition(facts_table(domain), [f"any day before {day}"])
    return Recipe(
        model=f"{domain.name}/{model.name}",
        start=domain.start.isoformat(),
        as_of=day,
        label_cut_off=(midnight + domain.publishing_delay).isoformat(),
        facts=used,
        views={label: {each: number for each, number in days.items() if each < day} for label, days in views.items()},
        view_versions=versions,
        declaration=_declaration(domain, model),
        seed=model.settings.seed,
        code=_code(),
        environment=platform.environment,
    )


def require_current(platform: Platform, domain: Domain, model: ModelSpec, made: Recipe) -> None:
    """Refuse to build by a recipe what its key would not name.

    Raises
    ------
    DataError
        Declaration, code, view versions or environment have changed since the recipe was made.
    """
    changed = [name for name, (then, now) in then_and_now(platform, domain, model, made).items() if then != now]
    if changed:
        raise DataError(
            f"recipe {made.key} was made with another {' and another '.join(changed)}: built now, it would not be what "
            f"its key says. Make the recipe of now with `mlplatform train {made.model}`"
        )


def then_and_now(
    platform: Platform, domain: Domain, model: ModelSpec, made: Recipe
) -> dict[str, tuple[object, object]]:
    """What code and environment a recipe names, each beside what there is now."""
    versions = {label: version for label, (_, _, version) in view_stores(platform, domain, model).items()}
    return {
        "declaration": (made.declaration, _declaration(domain, model)),
        "training code": (made.code, _code()),
        "views": (dict(made.view_versions), versions),
        "lock file": (made.environment, platform.environment),
    }


def save_recipe(folder: Path, made: Recipe) -> Path:
    """Write a recipe as JSON; what is written once is not changed."""
    path = folder / "recipe.json"
    if not path.exists():
        write_whole(path, recipe_to_json(made))
    return path


def recipe_to_json(made: Recipe) -> str:
    """A recipe as text that floats, days and revisions come back from as they were."""
    return json.dumps(asdict(made), indent=1, sort_keys=True)


def recipe_from_json(text: str) -> Recipe:
    """The recipe of `recipe_to_json`.

    Raises
    ------
    DataError
        The text is no recipe of this version.
    """
    try:
        return Recipe(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"this is no recipe of this version ({error}). Read it with the version of mlplatform that wrote it"
        ) from error


def load_recipe(folder: Path) -> Recipe:
    """Read a recipe back.

    Raises
    ------
    UnknownRecipe
        Nobody made a recipe of that key.
    """
    path = folder / "recipe.json"
    if not path.exists():
        made = sorted((each.parent.name for each in folder.parent.glob("*/recipe.json")), reverse=True)
        raise UnknownRecipe(folder.parent.name, folder.name, made)
    return recipe_from_json(path.read_text())


def _declaration(domain: Domain, model: ModelSpec) -> str:
    """Of all that makes the model; how it is watched, trained again and rolled out makes no other one."""
    on_demand = [each for name in model.on_demand for each in domain.on_demand if each.name == name]
    fitted = [each for name in model.fitted for each in domain.fitted if each.name == name]
    trained = replace(
        model, monitoring=ModelSpec.monitoring, retraining=ModelSpec.retraining, rollout=ModelSpec.rollout
    )
    return declaration_version(trained, domain.requests, *on_demand, *fitted)


def _code() -> str:
    return declaration_version(*(code_version(each, roots=training_code) for each in (point_in_time_join, train)))
