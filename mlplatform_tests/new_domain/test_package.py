"""The written package: all of it or nothing, in its place, sound, and as good as code written by hand."""

import io
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest
from rich.console import Console

from mlplatform.domain.domain import Domain
from mlplatform.domain_checks.battery import evidence_of, run
from mlplatform.domains.registered import domain_package, registered_domain, registered_domains
from mlplatform.errors import DataError, DeclarationError
from mlplatform.features import materialization
from mlplatform.features.landing.landing import land_sample
from mlplatform.features.tables import day_range, stages
from mlplatform.new_domain import package
from mlplatform.new_domain.command import new_domain
from mlplatform.new_domain.questions import Given
from mlplatform.new_domain.source_text import sources_text
from mlplatform.registry.bundled_code import feature_code
from mlplatform.registry.candidate import make_candidate
from mlplatform.rollout.judge import judge_candidate, load_decision
from mlplatform.training.dataset import build_training_set, save_training_set
from mlplatform.training.recipe import recipe, save_recipe
from mlplatform_tests.fakes.sample_files import deliveries
from mlplatform_tests.fakes.synthetic_home import platform_in

ROOT = Path(__file__).resolve().parents[2]
AFTERWARDS = datetime(2024, 6, 1, tzinfo=UTC)
FLAGS = Given(entity=("Van ID",), time="Ordered at", label="Late", known_at="Delivered at")


def write(
    folder: Path, name: str = "vans", *, into: Path | None = None, root: Path | None = None
) -> tuple[Domain, str]:
    """Write a domain of deliveries; gives it and what was said."""
    said = io.StringIO()
    sample = folder / "deliveries.csv"
    if not sample.exists():
        deliveries(sample)
    domain = new_domain(
        name,
        sample,
        FLAGS,
        zone="UTC",
        into=into,
        existing=registered_domains(),
        ask=None,
        console=Console(file=said, width=200),
        clock=lambda: AFTERWARDS,
        root=root or folder / "checkout",
    )
    return domain, said.getvalue()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without anything in it but the folders."""
    for each in ("mlplatform/domains", "mlplatform_tests/domains"):
        (tmp_path / "checkout" / each).mkdir(parents=True)
    return tmp_path / "checkout"


def below(folder: Path) -> set[str]:
    """Every file and folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def complaints(checkout: Path, *command: str) -> str:
    """What ruff has to say of everything written, by the rules of this repository."""
    ours = ("--config", str(ROOT / "pyproject.toml"), "--config", 'lint.isort.known-first-party = ["mlplatform"]')
    found = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", *ours, "."],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return found.stdout + found.stderr if found.returncode else ""


def test_a_domain_of_the_checkout(checkout: Path, tmp_path: Path) -> None:
    """The package and its tests stand in their places, nothing else does, and the formatter has nothing to say."""
    domain, said = write(tmp_path)
    assert domain.name == "vans"
    assert below(checkout / "mlplatform" / "domains") == {
        "vans",
        *(f"vans/{name}.py" for name in ("__init__", "models", "sample", "sources", "views")),
        "vans/data",
        "vans/data/sample.parquet",
    }
    assert below(checkout / "mlplatform_tests" / "domains") == {"vans", "vans/test_vans.py"}
    for told in ("van_id (Van ID)", "time of the request", "late, binary", "mlplatform demo --domain vans"):
        assert told in said
    assert complaints(checkout, "check", "--quiet") == ""
    assert complaints(checkout, "format", "--diff") == ""


def test_what_is_written_can_travel_in_a_bundle(checkout: Path, tmp_path: Path) -> None:
    """It imports nothing that a serving host lacks."""
    write(tmp_path)
    assert len(feature_code(checkout / "mlplatform" / "domains" / "vans")) == 5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("My Vans", "Use lower-case letters, digits and single underscores, such as 'my_vans'"),
        ("2vans", "such as 'column_2vans'"),
        ("class", "'class' is a word of Python"),
        ("synthetic", "'synthetic' is taken"),
        ("registered", "'registered' is the name of a module"),
    ],
)
def test_a_name_that_cannot_be_is_refused(checkout: Path, tmp_path: Path, name: str, told: str) -> None:
    """With a name that could be, and before anything is read."""
    with pytest.raises(DeclarationError, match=told):
        write(tmp_path, name)
    assert below(checkout / "mlplatform" / "domains") == set()


def test_what_is_there_is_not_overwritten(checkout: Path, tmp_path: Path) -> None:
    """Neither a package, nor its tests, nor a folder with something in it."""
    write(tmp_path)
    with pytest.raises(DeclarationError, match="is there already"):
        write(tmp_path)
    with pytest.raises(DeclarationError, match="not empty"):
        write(tmp_path, "lorries", into=checkout)
    with pytest.raises(DeclarationError, match="it is no checkout"):
        write(tmp_path, "lorries", root=tmp_path / "elsewhere")
    with pytest.raises(DeclarationError, match="'polars' is the name of a module of this Python"):
        write(tmp_path, "polars", into=tmp_path / "polars")


def test_nothing_is_left_of_a_package_that_does_not_stand(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is tried first: where it cannot be imported or breaks its own contract, nothing has happened."""
    monkeypatch.setattr(package, "views_text", lambda _: "views = (")
    with pytest.raises(SyntaxError):
        write(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(
        package, "sources_text", lambda proposal: sources_text(proposal).replace("maximum=39", "maximum=3")
    )
    with pytest.raises(DataError, match="breaks the contract proposed from it"):
        write(tmp_path)
    with pytest.raises(DataError):
        write(tmp_path, into=tmp_path / "own")
    assert below(checkout / "mlplatform" / "domains") == below(checkout / "mlplatform_tests" / "domains") == set()
    assert {path.name for path in tmp_path.iterdir()} == {"checkout", "deliveries.csv"}


def test_a_project_of_its_own_is_imported_from_the_folder_above(tmp_path: Path) -> None:
    """Its folder is called as its package, and must not be taken for it: installed editable, by a real installer."""
    write(tmp_path, into=tmp_path / "vans")
    build = "import setuptools.build_meta as backend; backend.build_editable('..')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "vans", capture_output=True, timeout=60, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with ZipFile(wheel) as packed:
        packed.extractall(site)
    ask = f"import site; site.addsitedir({str(site)!r}); import vans; print(vans.DOMAIN.name)"
    told = subprocess.run(
        [sys.executable, "-c", ask], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert told.stdout == "vans\n", told.stderr


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of its own, installed as an installer would: on the path, with its entry point."""
    project = tmp_path / "project"
    _, said = write(tmp_path, "vans", into=project)
    assert f"-e {project}" in said
    information = project / "src" / "vans-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: vans\nVersion: 0.1.0\n")
    (information / "entry_points.txt").write_text("[mlplatform.domains]\nvans = vans:DOMAIN\n")
    monkeypatch.syspath_prepend(str(project / "src"))
    registered_domains.cache_clear()
    yield project
    registered_domains.cache_clear()
    for module in [name for name in sys.modules if name.partition(".")[0] == "vans"]:
        del sys.modules[module]


def test_a_project_of_its_own_is_found_trained_and_passes_the_gate(installed: Path, tmp_path: Path) -> None:
    """From the sample to a model that may be served, with no hand on the written code; the battery finds nothing."""
    in_package = {f"src/vans/{name}" for name in ("__init__.py", "py.typed", "data/sample.parquet")}
    assert below(installed) >= {"pyproject.toml", "tests/test_vans.py", *in_package}
    domain, platform = registered_domain("vans"), platform_in(tmp_path / "home", AFTERWARDS)
    assert domain_package("vans") == installed / "src" / "vans"
    sample, (model,) = domain.sample, domain.models
    assert sample is not None
    findings = list(run(evidence_of(platform, domain)))
    assert [finding for finding in findings if finding.verdict == "failed"] == []
    land_sample(platform, domain, sample.start, sample.end)
    for stage in stages:
        days = day_range(sample.start.isoformat(), sample.end.isoformat())
        materialization.raise_failures(materialization.run(platform, domain, stage, days, run_id="test"))
    made = recipe(platform, domain, model)
    folder = platform.training(domain.name, model.name, made.key)
    save_recipe(folder, made)
    save_training_set(folder, build_training_set(platform, domain, model, made), made)
    make_candidate(platform, domain, model, made)
    judge_candidate(platform, domain, model, made)
    decision = load_decision(folder)
    assert (decision.outcome, decision.reasons) == ("pass", ())
