"""The `mlplatform` command as a person or a script meets it: what it says, and how it ends."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from mlplatform.cli.command import app
from mlplatform.domains.flight_delay import DOMAIN as FLIGHTS
from mlplatform.domains.synthetic import DOMAIN
from mlplatform.features.landing.landing import land_sample
from mlplatform.features.tables import Tables, stages
from mlplatform.provenance.platform import Platform
from mlplatform.registry.ledger import Ledger
from mlplatform.settings import telemetry_off
from mlplatform.training.recipe import recipe, save_recipe
from mlplatform_tests.fakes.run_process import finish, start
from mlplatform_tests.fakes.synthetic_home import ALL_DAYS, backfill, land_orders

NAME = "synthetic/late_order"
FIRST = DOMAIN.start.isoformat()
assert DOMAIN.sample is not None
LAST = (DOMAIN.start + timedelta(days=DOMAIN.sample.demo_days - 1)).isoformat()


@dataclass(frozen=True)
class Said:
    """How a command ended, and everything that it printed."""

    code: int
    text: str

    @property
    def lines(self) -> list[str]:
        """Without empty ones."""
        return [line for line in self.text.splitlines() if line.strip()]


def command(home: Path, *arguments: str) -> Said:
    """Run the command in a process of its own, the heavy imports done before."""
    log = home / "said.log"
    home.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    code = finish(start(home, *arguments, log=log))
    return Said(code, log.read_text())


def installed_command(home: Path, *arguments: str, **environment: str) -> Said:
    """Run the installed script itself."""
    own = {name: value for name, value in os.environ.items() if name not in telemetry_off}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("mlplatform")), *arguments],
        env={**own, "MLPLATFORM_HOME": str(home), "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout)


@dataclass(frozen=True)
class Lived:
    """A home that came to be through the command alone, and what each step said."""

    platform: Platform
    landed: Said
    filled: Said
    trained: Said


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    """The synthetic domain landed, computed and trained by three commands."""
    home = tmp_path_factory.mktemp("lived")
    return Lived(
        Platform(home=home),
        landed=command(home, "land", "synthetic"),
        filled=command(home, "backfill", "synthetic"),
        trained=command(home, "train", NAME),
    )


def revisions(platform: Platform) -> dict[str, int]:
    """Number of revisions of every table."""
    tables = Tables(platform, DOMAIN)
    return {store.name: len(store.revisions()) for stage in stages for store in tables.of(stage).values()}


def test_python_runs_it_as_a_module(tmp_path: Path) -> None:
    """Where the script is not on the path, `python -m mlplatform` is the same: its refusals too."""
    done = subprocess.run(
        [sys.executable, "-m", "mlplatform", "train", "synthetic"],
        env={**os.environ, "MLPLATFORM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.startswith("mlplatform: a model is written")) == (1, True), done.stderr


def test_an_unknown_recipe_is_refused_with_those_there_are(platform: Platform) -> None:
    """A key that was mistyped."""
    land_orders(platform, ALL_DAYS[:4])
    backfill(platform, ALL_DAYS[:4])
    made = recipe(platform, DOMAIN, DOMAIN.model("late_order"))
    save_recipe(platform.training("synthetic", "late_order", made.key), made)
    said = command(platform.home, "promote", NAME, "2024-01-05-nothing")
    assert (said.code, len(said.lines)) == (1, 1), said.text
    assert f"no recipe of late_order is called '2024-01-05-nothing'; there is {made.key}." in said.text


def test_backfill_names_the_source_that_has_landed_nothing(platform: Platform) -> None:
    """Not the one whose days are there."""
    land_sample(platform, FLIGHTS, FLIGHTS.start, FLIGHTS.start)
    missing = FLIGHTS.sources[-1].name
    (platform.landing(FLIGHTS.name) / missing / f"{FLIGHTS.start}.parquet").unlink()
    said = command(platform.home, "backfill", FLIGHTS.name)
    assert said.code == 1 and f"nothing has landed of {missing} (" in said.text
    assert f"in {platform.landing(FLIGHTS.name) / missing}. Run" in said.text


def test_help_names_every_verb_with_a_sentence(tmp_path: Path) -> None:
    """Each verb stands in `--help` with the first sentence of what it does; so it does in its own."""
    said = installed_command(tmp_path, "--help")
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", said.text).split())
    assert said.code == 0
    verbs = {
        each.name or each.callback.__name__.replace("_", "-"): each.callback.__doc__
        for each in app.registered_commands
        if each.callback
    }
    assert {"demo", "land", "backfill", "train", "promote", "serve", "status", "doctor"} <= verbs.keys()
    for verb, told in verbs.items():
        sentence = (told or "").strip().splitlines()[0]
        assert sentence.endswith("."), verb
        assert f"{verb} {sentence}" in shown


def test_without_a_verb_or_with_a_wrong_one_it_shows_how_it_is_used(tmp_path: Path) -> None:
    """Wrong use is exit code 2 and no traceback."""
    for arguments in ((), ("fly",), ("train",), ("land", "synthetic", "--until", LAST)):
        said = command(tmp_path, *arguments)
        assert (said.code, "Usage: " in said.text, "Traceback" in said.text) == (2, True, False), arguments


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("backfill", "nowhere"), "no domain is called 'nowhere'; there is "),
        (("status", "nowhere"), "no domain is called 'nowhere'"),
        (("train", "synthetic"), "a model is written `domain/model`, such as flight_delay/late_arrival"),
        (("train", "synthetic/unknown"), "no model of synthetic is called 'unknown'; there is late_order"),
        (("land", "synthetic", "--from", "2024-02-30"), "'2024-02-30' is no day. Write it as"),
        (("land", "synthetic", "--to", "2023-12-31"), "is no range of days. Give the earlier day first"),
        (("train", NAME, "--as-of", "yesterday"), "'yesterday' is no day. Write it as"),
        (("backfill", "synthetic"), "Run `mlplatform land synthetic` for the sample"),
        (("train", NAME), "synthetic has no features yet. Land data and run `mlplatform backfill synthetic`"),
        (
            ("promote", NAME, "2024-01-21-00000000"),
            "no recipe of late_order is called '2024-01-21-00000000'; it has none. `mlplatform train`",
        ),
        (("serve", NAME), f"{NAME} has no champion. Run `mlplatform train {NAME}` first"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_to_do(arguments: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    """In an empty home: exit code 1, one line, no traceback."""
    said = command(tmp_path, *arguments)
    assert said.code == 1
    assert len(said.lines) == 1, said.text
    assert said.text.startswith("mlplatform: ") and expected in said.text


def test_days_that_the_domain_does_not_have_are_refused(lived: Lived) -> None:
    """A day before the domain's first is no partition: nothing runs, and the line says which days there are."""
    before = revisions(lived.platform)
    said = command(lived.platform.home, "backfill", "synthetic", "--from", "2023-12-30")
    assert (said.code, len(said.lines)) == (1, 1), said.text
    assert "synthetic has no partition 2023-12-30; its days are 2024-01-01 to 2024-12-31" in said.text
    assert revisions(lived.platform) == before


def test_a_promotion_without_a_decision_is_refused(platform: Platform) -> None:
    """A recipe that was made and never evaluated: one line, the reason, and no entry in the ledger."""
    land_orders(platform, ALL_DAYS[:4])
    backfill(platform, ALL_DAYS[:4])
    made = recipe(platform, DOMAIN, DOMAIN.model("late_order"))
    save_recipe(platform.training("synthetic", "late_order", made.key), made)
    said = command(platform.home, "promote", NAME, made.key)
    assert (said.code, len(said.lines)) == (1, 1), said.text
    assert f"{NAME} {made.key} is not promoted" in said.text and "Nothing was moved" in said.text
    assert Ledger(platform).entries(NAME) == []


def test_a_traceback_is_shown_only_when_asked_for(tmp_path: Path) -> None:
    """The installed script itself: one line without `--debug`, the traceback with it, exit code 1 both times."""
    plain = installed_command(tmp_path, "backfill", "synthetic")
    assert (plain.code, len(plain.lines), "Traceback" in plain.text) == (1, 1, False), plain.text
    asked = installed_command(tmp_path, "--debug", "backfill", "synthetic")
    assert (asked.code, "Traceback" in asked.text) == (1, True)
    assert "mlplatform.errors.DataError: nothing has landed" in asked.text


def test_a_setting_that_means_nothing_is_one_line_too(tmp_path: Path) -> None:
    """An environment variable with a wrong value is refused by name."""
    said = installed_command(tmp_path, "status", MLPLATFORM_CLOCK="sundial")
    assert (said.code, len(said.lines)) == (1, 1), said.text
    assert "MLPLATFORM_CLOCK is 'sundial'" in said.text


def test_land_puts_one_file_per_source_and_day(lived: Lived) -> None:
    """The sample's days, and nothing else, lie in the landing folder."""
    assert lived.landed == Said(0, f"landed 20 files, {FIRST} to {LAST}\n")
    found = sorted(path.stem for path in (lived.platform.landing("synthetic") / "orders").iterdir())
    assert (len(found), found[0], found[-1]) == (20, FIRST, LAST)


def test_backfill_takes_every_landed_day_through_every_stage(lived: Lived) -> None:
    """It says what each table got, and which run it was."""
    assert lived.filled.code == 0, lived.filled.text
    assert set(revisions(lived.platform).values()) == {20}
    assert "feature_store courier: 20 partitions, 160 rows" in lived.filled.text
    assert re.fullmatch(rf"20 days, {FIRST} to {LAST}, run [0-9a-f-]{{36}}", lived.filled.lines[-1])


def test_backfill_again_adds_no_revision(lived: Lived) -> None:
    """What is up to date is recomputed and changes nothing; part of the days may be named."""
    before = revisions(lived.platform)
    part = (date.fromisoformat(FIRST) + timedelta(days=4)).isoformat()
    again = command(lived.platform.home, "backfill", "synthetic", "--to", part)
    assert again.code == 0 and f"5 days, {FIRST} to {part}" in again.text
    assert revisions(lived.platform) == before


def test_train_names_its_recipe_and_makes_a_champion(lived: Lived) -> None:
    """From training set to Bento; the same recipe promoted again moves nothing."""
    assert lived.trained.code == 0, lived.trained.text
    (key,) = re.findall(r"^recipe (\S+)$", lived.trained.text, re.MULTILINE)
    assert lived.trained.lines[-1] == f"{NAME} {key} is the champion"
    moves = Ledger(lived.platform).entries(NAME)
    assert [entry.evidence["recipe"] for entry in moves] == [key]
    (bento,) = lived.platform.home.glob("bentoml/bentos/*/*/bento.yaml")
    assert bento.parent.name.startswith(key)
    again = command(lived.platform.home, "promote", NAME, key)
    assert (again.code, again.lines[-1]) == (0, f"{NAME} {key} is the champion")
    assert Ledger(lived.platform).entries(NAME) == moves


def test_status_tells_scripts_and_people_the_same(lived: Lived) -> None:
    """JSON with the newest partitions and the champion's figures; the tables show them too."""
    told = command(lived.platform.home, "status", "synthetic", "--json")
    (found,) = json.loads(told.text)
    champion, *others = found["models"]
    (entry,) = Ledger(lived.platform).entries(NAME)
    assert found["newest"] == dict.fromkeys(stages, LAST) and found["partitions"] == dict.fromkeys(stages, 20)
    assert (champion["model"], champion["champion"]) == ("late_order", entry.to_manifest)
    assert champion["model_version"] == entry.evidence["recipe"] and champion["metrics"]["auc"] > 0.5
    assert [each["champion"] for each in others] == [None, None]
    shown = command(lived.platform.home, "status", "synthetic")
    assert shown.code == 0 and LAST in shown.text and "late_order" in shown.text


def test_status_of_an_empty_home_names_every_domain(tmp_path: Path) -> None:
    """Nothing there yet is an answer, not an error."""
    told = command(tmp_path, "status", "--json")
    assert told.code == 0
    assert [(each["domain"], each["newest"]["raw"]) for each in json.loads(told.text)] == [
        ("flight_delay", None),
        ("synthetic", None),
    ]


def test_status_ends_with_1_only_where_nothing_can_be_read(lived: Lived, tmp_path: Path) -> None:
    """One broken table is shown and is no failure of the view."""
    home = tmp_path / "home"
    shutil.copytree(lived.platform.home, home)
    for log in home.glob("tables/synthetic/base/orders/_delta_log/*.json"):
        log.write_text("no log")
    told = command(home, "status", "synthetic", "--json")
    (found,) = json.loads(told.text)
    assert (told.code, list(found["errors"])) == (0, ["base orders", "days due"])
    assert found["models"][0]["champion"]


def test_doctor_ends_with_1_when_something_is_broken(tmp_path: Path) -> None:
    """And with 0 in an empty home; people and scripts are told the same."""
    well = command(tmp_path, "doctor", "--json")
    found = {each["part"]: each for each in json.loads(well.text)}
    assert (well.code, [each for each in found.values() if each["verdict"] == "broken"]) == (0, [])
    assert {"python", "home", "daemon", "mlflow", "champion synthetic/late_order"} <= found.keys()
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"garbage" * 999)
    broken = command(tmp_path, "doctor")
    assert broken.code == 1
    assert "broken  mlflow: DatabaseError: file is not a database" in broken.text


def test_an_api_key_is_made_shown_once_listed_and_revoked(tmp_path: Path) -> None:
    """The key alone goes to standard output, for a script to take; the list never shows it again."""
    made = installed_command(tmp_path, "keys", "create", "shop [front]", "--requests-per-minute", "60")
    token = next(line for line in made.lines if line.startswith("mlp_"))
    key_id = token.split("_")[1]
    assert made.code == 0 and len(token) == 56
    listed = installed_command(tmp_path, "keys", "list")
    assert f"{key_id}  shop [front]  predictions  60 per minute" in listed.text and token[13:] not in listed.text
    assert installed_command(tmp_path, "keys", "revoke", key_id).code == 0
    assert "revoked" in installed_command(tmp_path, "keys", "list").text
    refused = installed_command(tmp_path, "keys", "revoke", "00000000")
    assert refused.code == 1 and "there is no key '00000000'" in refused.text
