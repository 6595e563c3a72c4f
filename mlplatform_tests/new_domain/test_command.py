"""`mlplatform new` as it is typed."""

from pathlib import Path

from typer.testing import CliRunner

from mlplatform.cli.command import app
from mlplatform.errors import DeclarationError
from mlplatform_tests.fakes.sample_files import deliveries

SAID = ["--entity", "Van ID", "--time", "Ordered at", "--label", "Late", "--known-after", "1.5"]


def test_flags_alone_suffice(tmp_path: Path) -> None:
    """With every flag given nothing is asked, and the package stands where it was wanted."""
    path = deliveries(tmp_path / "deliveries.csv")
    told = CliRunner().invoke(app, ["new", "vans", "--sample", str(path), *SAID, "--into", str(tmp_path / "vans")])
    assert told.exit_code == 0, told.output
    assert "timedelta(hours=1.5)" in (tmp_path / "vans" / "src" / "vans" / "sources.py").read_text()


def test_where_nobody_can_be_asked_the_flag_is_named(tmp_path: Path) -> None:
    """A script gets a refusal that names the flag, and no prompt."""
    path = deliveries(tmp_path / "deliveries.csv")
    told = CliRunner().invoke(app, ["new", "vans", "--sample", str(path), *SAID[2:], "--into", str(tmp_path / "vans")])
    assert isinstance(told.exception, DeclarationError)
    assert "--entity is not given" in str(told.exception)
    path = deliveries(tmp_path / "deliveries.csv")
    told = CliRunner().invoke(app, ["new", "vans", "--sample", str(path), *SAID[:-2], "--into", str(tmp_path / "vans")])
    assert "--known-at is not given" in str(told.exception) and "--known-after" in str(told.exception)
    assert not (tmp_path / "vans").exists()
