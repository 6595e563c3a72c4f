"""The README says what is there: commands, settings, assets, rooms."""

import inspect
import re
from itertools import pairwise
from pathlib import Path

from mlplatform.cli.command import app
from mlplatform.definitions import defs
from mlplatform.settings import Settings, settings

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_every_command_is_named_and_exists() -> None:
    """The table of commands and the command line agree."""
    named = set(re.findall(r"^\| `mlplatform ([\w-]+)", TEXT, re.MULTILINE))
    offered = {
        command.name or (command.callback.__name__ if command.callback else "") for command in app.registered_commands
    }
    assert named == offered | {group.name for group in app.registered_groups}


def test_every_setting_is_named() -> None:
    """Each environment variable that `Settings` documents stands in the README, and no other."""
    read = set(re.findall(r'environ\.get\("(\w+)"\)', inspect.getsource(settings)))
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.MULTILINE))
    # Traces are switched on by the standard's own variables, of which one is named for all.
    assert named == {*read, "OTEL_EXPORTER_OTLP_ENDPOINT"}
    assert len(named) == len(Settings.__dataclass_fields__)


def test_every_asset_is_in_the_picture_and_in_the_table() -> None:
    """The graph of the README is the graph of the definitions."""
    assets = {key.path[-1] for key in defs().resolve_asset_graph().get_all_asset_keys()}
    picture = TEXT.split("```mermaid")[1].split("```")[0]
    drawn = set(re.findall(r"\b[a-z_]+\b", picture))
    tabled = set(
        re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `")))
    )
    assert assets <= drawn
    assert assets <= tabled


def test_every_edge_of_the_picture_is_one_of_the_graph() -> None:
    """An arrow between two assets in the README is a dependency in Dagster, and the other way round."""
    graph = defs().resolve_asset_graph()
    picture = TEXT.split("```mermaid")[1].split("```")[0]
    assets = {key.path[-1] for key in graph.get_all_asset_keys()}
    drawn = set()
    for line in picture.splitlines():
        chain = [name for part in line.split("-->") if (name := re.sub(r"\[.*|\(.*", "", part).strip())]
        drawn |= {(a, b) for a, b in pairwise(chain) if a in assets and b in assets}
    real = {
        (parent.path[-1], key.path[-1])
        for key in graph.get_all_asset_keys()
        if key.path[0] == "flight_delay"
        for parent in graph.get(key).parent_keys
    }
    assert drawn == real


def test_every_room_of_the_tour_is_there() -> None:
    """The tour names the packages of the tree, all of them."""
    toured = set(re.findall(r"^\| `mlplatform/(\w+)/`", TEXT, re.MULTILINE))
    rooms = {path.parent.name for path in (ROOT / "mlplatform").glob("*/__init__.py")}
    assert toured == rooms
