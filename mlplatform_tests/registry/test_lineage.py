"""Lineage: what a model was made from, as people are shown it, and the links between the pages of a version."""

import doctest
from dataclasses import replace
from types import ModuleType

import pytest

from mlplatform.registry import lineage
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.lineage import Lineage, code_said, commands, lineage_of, mlflow_said
from mlplatform.registry.mlflow_registry import LoggedModel
from mlplatform.training import lineage as links
from mlplatform.training.lineage import data_links, steps, steps_said
from mlplatform_tests.fakes.synthetic_home import TrainedHome

MODEL, RECIPE = "synthetic/late_order", "2024-01-25-ab12cd34"
LOGGED = LoggedModel(name="synthetic.late_order", version="3", run_id="f00")


def of(trained: TrainedHome) -> Lineage:
    """The lineage of the trained model."""
    return lineage_of(trained.domain, bundle_of(trained.platform, trained.entry.to_manifest), trained.recipe)


def test_the_tables_are_those_that_were_read(trained: TrainedHome) -> None:
    """With their days, and with the digests of revisions and content that the record has."""
    found = of(trained)
    tables = {each.input.table: each for each in found.tables}
    assert set(tables) == set(found.record.inputs)
    facts = tables[f"synthetic/derived/{trained.domain.requests.facts}"]
    assert (facts.input.asset, facts.input.days) == (("synthetic", "derived"), len(trained.recipe.facts))
    assert (facts.input.first, facts.input.last) == (min(trained.recipe.facts), max(trained.recipe.facts))
    assert {each.input.asset for name, each in tables.items() if each is not facts} == {("synthetic", "feature_store")}
    assert all(each.revisions and each.content for each in found.tables)
    assert found.training_set == found.record.training_set != ""


def test_days_that_were_corrected_are_counted(trained: TrainedHome) -> None:
    """A revision above the first is a correction."""
    days = dict(trained.recipe.facts)
    made = replace(trained.recipe, facts={**days, min(days): 2, max(days): 3})
    assert next(each.corrected for each in links.inputs_of(trained.domain, made)) == 2


def test_data_leads_to_the_assets_that_were_read(trained: TrainedHome) -> None:
    """Each once, however many of its tables were."""
    said = data_links(each.input for each in of(trained).tables)
    assert said == (
        "[synthetic/derived](/assets/synthetic/derived), [synthetic/feature_store](/assets/synthetic/feature_store)"
    )


def test_the_trail_leads_to_every_step_of_the_version() -> None:
    """Partition by partition: never to another version's; and short enough that the page shows it at once."""
    said = steps_said("flight_delay/late_arrival_of_departed", RECIPE)
    for step in steps:
        assert f"/assets/flight_delay/late_arrival_of_departed/{step}?view=partitions&partition={RECIPE})" in said
    assert len(said) < 1000


@pytest.mark.parametrize(("dirty", "said"), [(True, "no commit holds"), (False, "nothing changed"), (None, "`; lock")])
def test_the_code_is_named(trained: TrainedHome, dirty: bool | None, said: str) -> None:
    """Commit, whether more was there than the commit, and the version of each piece."""
    record = replace(of(trained).record, commit="0123456789abcdef", dirty=dirty)
    told = code_said(record)
    assert said in told and "`0123456789ab`" in told
    assert all(f"| {name} | `{version}` |" in told for name, version in record.code.items())
    assert "no commit is known" in code_said(replace(record, commit=None))


def test_mlflow_is_a_link_where_a_server_answers() -> None:
    """To the model, then to its version and run; a password in the address is not shown."""
    assert "http://mlflow/#/models/synthetic.late_order)" in mlflow_said("http://mlflow", MODEL, RECIPE)
    said = mlflow_said("https://me:secret@mlflow/", MODEL, RECIPE, LOGGED)
    assert "https://mlflow/#/models/synthetic.late_order/versions/3" in said and "https://mlflow/#/runs/f00" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://mlflow:secret@db/mlflow", "postgresql://db/mlflow"),
        ("postgresql+psycopg://mlflow:secret@db:5432/mlflow", "postgresql+psycopg://db:5432/mlflow"),
        ("mysql://mlflow:se/c?r@secret@db/mlflow", "mysql://db/mlflow"),
        ("postgresql://db/mlflow?user=me&password=secret", "postgresql://db/mlflow"),
        ("postgresql://db:5432/mlflow?user=me@home&password=secret", "postgresql://home"),
        ("http://token:secret@mlflow:5000/", "http://mlflow:5000/#"),
    ],
)
def test_a_password_is_never_shown(uri: str, shown: str) -> None:
    """Of whatever a server or a database is reached by: what is said stands in the metadata of an asset."""
    for logged in (None, LOGGED):
        said = mlflow_said(uri, MODEL, RECIPE, logged)
        assert "secret" not in said and shown in said


def test_mlflow_is_a_command_where_it_is_a_file() -> None:
    """With what to look for in it."""
    said = mlflow_said("sqlite:////srv/mlflow.db", MODEL, RECIPE, LOGGED)
    assert "mlflow ui --backend-store-uri sqlite:////srv/mlflow.db" in said
    assert "`synthetic.late_order` version 3" in said and RECIPE in said


def test_commands_name_the_version() -> None:
    """As the command line takes it."""
    assert f"mlplatform reproduce {MODEL}@{RECIPE}" in commands(MODEL, RECIPE)


@pytest.mark.parametrize("module", [lineage, links])
def test_examples(module: ModuleType) -> None:
    """What the docstrings show is what comes."""
    assert doctest.testmod(module).failed == 0
