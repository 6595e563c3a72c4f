"""The release dossier: everything that is recorded of a version, nothing that is not, and a page that needs nothing."""

import json
import re
import shutil
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from mlplatform.cli.command import app
from mlplatform.domain.rollout import Rollout
from mlplatform.errors import DataError
from mlplatform.features.partitions import recipes
from mlplatform.operations.jobs import quiet
from mlplatform.registry.ledger import Ledger
from mlplatform.rollout.approval import approve
from mlplatform.rollout.assets import rollout_assets
from mlplatform.rollout.dossier import dossier
from mlplatform.rollout.dossier_markdown import MISSING, cell, code, slug, text
from mlplatform.rollout.dossier_page import dossier_path, page, write_dossier
from mlplatform.rollout.dossier_records import Contract, Records, gather
from mlplatform.rollout.pointing import plan_of, point
from mlplatform.rollout.promotion import promote
from mlplatform_tests.fakes.chromium import chromium
from mlplatform_tests.fakes.synthetic_home import AFTERWARDS, COMMITTED, Clock, TrainedHome, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NAME = "synthetic/late_order"
FINDINGS = [
    {"name": "log_loss", "segment": "", "upper": 0.012, "margin": 0.02},
    {"name": "log_loss", "segment": "district=hill", "upper": 0.013, "margin": 0.02},
]


@pytest.fixture(scope="module")
def released(trained: TrainedHome, tmp_path_factory: pytest.TempPathFactory) -> TrainedHome:
    """A home whose second version was approved of, took two steps, and is the champion. For reading only."""
    home = trained.copied_to(tmp_path_factory.mktemp("released") / "home")
    platform = home.platform
    clock = platform.clock
    assert isinstance(clock, Clock)
    model = replace(home.model, settings=replace(home.model.settings, rounds=25))
    made = train(platform, model)
    digest = json.loads((platform.training("synthetic", "late_order", made.key) / "model.json").read_text())["manifest"]
    approve(platform, NAME, digest, by="Ann <b>Example</b>", reason="looked at [it](https://example.org) | all of it")
    ledger = Ledger(platform)
    clock.now += timedelta(days=1)
    promote(platform, home.domain, replace(model, rollout=Rollout()), made.key, actor="test")
    clock.now += timedelta(days=1)
    ledger.append(
        NAME,
        action="advance",
        alias="challenger",
        to_manifest=digest,
        actor="rollout",
        reason="harm is below the margin",
        evidence={"mode": "canary", "weight": 500, "plan": "3-bb", "pairs": 1_234, "harms": FINDINGS},
    )
    entry = ledger.append(
        NAME,
        action="finish",
        alias="champion",
        to_manifest=digest,
        actor="test",
        reason="harm is below the margin",
        evidence={"recipe": made.key},
    )
    point(platform, NAME)
    return replace(home, model=model, recipe=made, entry=entry)


def section(markdown: str, name: str) -> str:
    """The lines of one section."""
    return markdown.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


def told(home: TrainedHome, records: Records | None = None) -> str:
    """The dossier of the home's champion."""
    return dossier(records or gather(home.platform, NAME))


def test_what_is_recorded_stands_there(released: TrainedHome) -> None:
    """Every section holds the figures, digests and reasons of its records."""
    records, markdown = gather(released.platform, NAME), told(released)
    record, decision, evaluation = records.manifest.record, records.decision, records.evaluation
    assert decision is not None and evaluation is not None and records.candidate is not None
    assert records.previous_manifest is not None
    candidate = evaluation.metrics["candidate"]["log_loss"]
    assert f"{candidate.point:.4g} ({candidate.low:.4g} to {candidate.high:.4g})" in section(markdown, "In short")
    data = section(markdown, "Data")
    for label, digest in record.inputs.items():
        assert re.search(
            rf"\| {label} \| 24 \| 2024-01-01 \| 2024-01-24 \| [\d,]+ \| 0 \| `{digest}` \| `\w+` \|", data
        )
    assert "| orders | 24 | 4,800 | 0 |" in data
    assert f"`{record.training_set}`" in data
    features = section(markdown, "Features")
    for version in records.manifest.views.values():
        assert f"Version `{version}`." in features
    for name in records.manifest.features:
        assert f"| {name} |" in features
    training = section(markdown, "Training")
    assert "| rounds | 25 |" in training and "booster 20240101" in training
    assert text(records.candidate.calibration_reason) in training
    figures = section(markdown, "Evaluation")
    for other in ("champion", "simple", "naive"):
        difference = evaluation.differences[other]["log_loss"]
        assert f"{difference.point:.4g} ({difference.low:.4g} to {difference.high:.4g})" in figures
    for each in evaluation.segments:
        assert f"| {each.segment} {each.value} | {each.rows} |" in figures
    gate = section(markdown, "The gate")
    for rule in decision.rules:
        assert f"| {rule.rule} | pass |" in gate and text(rule.reason) in gate
    environment = section(markdown, "Environment")
    for fact in (record.lock, record.python, *record.versions.values(), *records.manifest.files.values()):
        assert fact in environment
    assert (
        f"| Git commit | `{COMMITTED.commit}` |" in environment
        and "| Changes beside the commit | none |" in environment
    )
    assert record.host is not None
    for name, value in record.host.items():
        assert f"| {text(name)} | {text(value)} |" in environment
    assert f"mlplatform reproduce {NAME}@{records.manifest.model_version}" in environment
    changed = section(markdown, "What changed")
    assert f"| files.model.ubj | `{records.previous_manifest.files['model.ubj']}` |" in changed
    assert MISSING not in markdown.replace(f"is marked {MISSING}", "").replace(
        f"| Mean label of those that had one then | {MISSING} |", ""
    )


def test_the_way_to_all_of_the_traffic_stands_there(released: TrainedHome) -> None:
    """Steps with traffic, plan and evidence; who approved; every entry of the ledger and how to check it later."""
    markdown, entries = told(released), Ledger(released.platform).entries(NAME)
    steps = section(markdown, "Rollout")
    assert "| 5 | 2024-02-03 00:00 UTC | advance | canary, 5 % of the keys | 3-bb | rollout | harm is below" in steps
    shadow = plan_of(NAME, entries[:4])
    assert shadow is not None
    started = f"| 4 | 2024-02-02 00:00 UTC | start | shadow: it answers nobody | {shadow.version} | test |"
    assert started in steps, "the plan of then follows from the ledger"
    assert "| pairs | 1234 |" in steps
    assert "| log_loss | district=hill | 0.02 | 0.013 |" in steps
    assert "| 2 | 2024-02-01 00:00 UTC | Ann \\<b\\>Example\\</b\\> |" in section(markdown, "Approval")
    assert f"verify {NAME} --holds {entries[-1].hash}" in section(markdown, "The ledger")
    assert "| 3 | 2024-02-02 00:00 UTC | promote | this one | test |" in section(markdown, "The ledger")
    assert "| 6 | 2024-02-03 00:00 UTC | finish | this one | test |" in section(markdown, "The ledger")


def test_the_same_records_give_the_same_text(released: TrainedHome) -> None:
    """Written again, nothing changes but the time of writing."""
    records = gather(released.platform, NAME)
    later = replace(records, written_at=records.written_at + timedelta(days=400))
    first, second = dossier(records), dossier(later)
    assert dossier(records) == first
    assert first.replace("2024-02-03 00:00 UTC from", "") == second.replace("2025-03-09 00:00 UTC from", "")


def test_what_is_not_recorded_is_said_to_be_so(released: TrainedHome, tmp_path: Path) -> None:
    """Nothing is left but the bundle and the ledger: it is written all the same, and invents nothing."""
    home = released.copied_to(tmp_path / "home")
    for gone in ("training", "tables", f"bundles/{gather(home.platform, NAME).previous}"):
        shutil.rmtree(home.platform.home / gone)
    markdown = told(home)
    assert f"The recipe: {MISSING}." in section(markdown, "Data")
    assert f"What the contract kept and refused: {MISSING}." in section(markdown, "Data")
    assert f"The training set: {MISSING}." in section(markdown, "Data")
    assert f"Windows, settings and calibration: {MISSING}." in section(markdown, "Training")
    assert section(markdown, "Evaluation").strip() == f"The evaluation: {MISSING}."
    assert section(markdown, "The gate").strip() == f"The decision of the gate: {MISSING}."
    assert MISSING in section(markdown, "What changed")
    assert f"| The gate said | {MISSING} |" in section(markdown, "In short")


def test_a_record_of_another_version_is_none_of_this_one(released: TrainedHome, tmp_path: Path) -> None:
    """The recipe's folder holds another candidate than the bundle that was promoted: its figures are not taken."""
    home = released.copied_to(tmp_path / "home")
    path = home.folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"manifest": "f" * 64}))
    records = gather(home.platform, NAME)
    assert (records.candidate, records.evaluation, records.decision) == (None, None, None)


def test_corrections_and_refusals_stand_out(released: TrainedHome) -> None:
    """Days of which a later revision was used are named; rows that a contract refused are counted."""
    records = gather(released.platform, NAME)
    table = replace(records.tables[0], days={"2024-01-01": 1, "2024-01-02": 3}, rows=None, content=None)
    contract = Contract(source="orders", days=2, kept=1_234, refused=56)
    data = section(dossier(replace(records, tables=(table,), contracts=(contract,))), "Data")
    assert f"Corrected before the training: {table.name} 2024-01-02 (revision 3)." in data
    assert f"| 2 | 2024-01-01 | 2024-01-02 | {MISSING} | 1 |" in data
    assert "| orders | 2 | 1,234 | 56 |" in data


def test_it_says_where_the_version_stands(released: TrainedHome) -> None:
    """Champion; no more; challenger with its traffic; sent back; not promoted; demanded and not approved of."""
    records = gather(released.platform, NAME)
    first, approval, _, start, advance, promotion = records.entries
    demanding = replace(records.model, rollout=Rollout(approval=True))

    def short(**changes: object) -> str:
        return section(dossier(replace(records, **changes)), "In short")  # type: ignore[arg-type]

    assert "the champion since 2024-02-03 00:00 UTC" in short()
    assert "it was the champion, another one is now" in short(entries=(*records.entries, replace(first, number=7)))
    assert "the challenger, canary, 5 % of the keys, since" in short(entries=records.entries[:5])
    sent, to = advance.to_manifest, first.to_manifest
    back = replace(advance, action="roll_back", from_manifest=sent, to_manifest=to, reason="harm: 3 %")
    assert "rolled back at 2024-02-03 00:00 UTC by rollout: harm: 3 %" in short(entries=(first, approval, start, back))
    assert "| not promoted |" in short(entries=())
    assert "nobody, though it is demanded" in short(entries=(promotion,), model=demanding)
    assert "nobody; it is not demanded" in short(entries=(promotion,))
    assert f"| Champion before | `{first.to_manifest}` |" in short()


def test_a_broken_ledger_is_told(released: TrainedHome) -> None:
    """The dossier does not vouch for what does not hold."""
    records = gather(released.platform, NAME)
    changed = (records.entries[0], replace(records.entries[1], actor="somebody else"), *records.entries[2:])
    assert "**entry 2 is not as it was written**" in section(dossier(replace(records, entries=changed)), "The ledger")


def test_a_later_decision_does_not_pass_for_that_of_the_promotion(released: TrainedHome) -> None:
    """The gate was asked again after the promotion: both times are told."""
    records = gather(released.platform, NAME)
    assert records.decision is not None
    again = replace(records.decision, decided_at=records.decision.decided_at + timedelta(days=9))
    assert "the gate has been asked again since" in dossier(replace(records, decision=again))
    assert "the gate has been asked again since" not in dossier(records)


def test_there_is_a_dossier_of_what_there_is_only(released: TrainedHome) -> None:
    """A manifest that nobody made, and a model without a champion, are refused."""
    with pytest.raises(DataError, match="there is no such bundle"):
        gather(released.platform, NAME, "f" * 64)
    with pytest.raises(DataError, match="synthetic/speed has no champion"):
        gather(released.platform, "synthetic/speed")


@given(st.text())
def test_text_comes_out_as_it_was_typed(typed: str) -> None:
    """Whatever a person has typed is shown, white space aside, and none of it is markup: in a table and outside."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    for markdown in (text(typed), cell({"reason": typed}), code(typed)):
        shown = re.sub(r"<[^>]*>", "", parser.render(f"| a |\n| --- |\n| {markdown} |\n"))
        expected = " ".join(typed.split()) or "not recorded"
        assert " ".join(unescape(shown).split()).endswith(expected.replace("\x00", "\ufffd")) or not typed.strip()


def test_the_page_needs_nothing_from_anywhere(released: TrainedHome) -> None:
    """No script, no address, no markup that came in by a record; each entry of the contents leads to its section."""
    html = page(told(released))
    assert not re.search(r"<script|<img|<link|<iframe|(src|href)=\"(?!#)", html)
    assert "url(" not in html and "@import" not in html
    assert "default-src 'none'" in html
    assert "Ann &lt;b&gt;Example&lt;/b&gt;" in html
    linked = re.findall(r'href="#([^"]+)"', html)
    assert len(linked) == 13
    assert set(linked) <= set(re.findall(r'<h2 id="([^"]+)"', html))
    assert slug("The gate") in linked


@pytest.mark.end_to_end
def test_the_page_opens_in_a_browser(released: TrainedHome, tmp_path: Path) -> None:
    """From the disk: the tables are there, nothing is asked for elsewhere, nothing sticks out, on a phone neither."""
    path = tmp_path / "dossier.html"
    path.write_text(page(told(released)))
    with chromium(tmp_path) as opened:
        opened.show(path.as_uri())
        opened.until("document.querySelectorAll('table').length > 15", seconds=30, what="the tables")
        assert "who let it answer people" in opened.text()
        assert opened.evaluate("performance.getEntriesByType('resource').length") == 0
        assert opened.evaluate("getComputedStyle(document.querySelector('th:not(:empty)')).backgroundColor") == (
            "rgb(238, 243, 249)"
        )
        for width in (1_200, 420):
            opened.resize(width, 900)
            assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_materialised_and_by_command_it_is_the_same(
    released: TrainedHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The asset writes both files and shows them; the command writes them again and prints where they are."""
    home = released.copied_to(tmp_path / "home")
    platform = home.platform
    assert isinstance(platform.clock, Clock)
    platform.clock.now = AFTERWARDS + timedelta(days=9)
    (asset,) = (each for each in rollout_assets(home.domain, home.model) if each.key.path[-1] == "dossier")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(recipes(home.domain, home.model).name or "", [home.recipe.key])
        result = dg.materialize(
            [asset],
            instance=instance,
            partition_key=home.recipe.key,
            resources={"platform": platform},
            run_config=quiet,
        )
    (shown,) = result.asset_materializations_for_node("synthetic__late_order__dossier")
    path = dossier_path(platform.home, NAME, home.entry.to_manifest)
    html = path.with_suffix(".html")
    assert shown.metadata["page"].value == html.as_uri()
    assert shown.metadata["dossier"].value == path.read_text() == told(home)
    assert html.read_text() == page(path.read_text())
    monkeypatch.setenv("MLPLATFORM_HOME", str(platform.home))
    html.unlink()
    done = CliRunner().invoke(app, ["dossier", NAME, "--manifest", home.entry.to_manifest[:12]])
    assert done.output.splitlines() == [str(path), str(html)]
    assert html.exists()
    assert write_dossier(platform, NAME) == (path, html)


def test_edits_beside_the_commit_are_told(released: TrainedHome) -> None:
    """With the file that holds them, or that nothing does; of a domain's own repository too."""
    records = gather(released.platform, NAME)
    whose: dict[str, dict[str, str | bool | None]] = {
        "mlplatform": {"commit": "aa", "dirty": True, "diff": "uncommitted.diff"},
        "domain": {"commit": None, "dirty": True},
    }
    record = replace(records.manifest.record, checkouts=whose)
    markdown = told(released, replace(records, manifest=replace(records.manifest, record=record)))
    yes = "yes: the commit alone does not give this code back"
    environment = section(markdown, "Environment")
    assert f"| Changes beside the commit | {yes}, kept in the bundle as uncommitted.diff |" in environment
    assert f"| Git commit of the domain | {MISSING} |" in environment
    assert f"| Changes beside the commit of the domain | {yes}, and they were not kept |" in environment
