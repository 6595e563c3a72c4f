"""Bundles: written once, checked file by file, with their own code."""

import importlib
import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from mlplatform.errors import BundleCorrupt, DeclarationError, DeviceUnavailable, GoldenMismatch
from mlplatform.registry.bundle import Bundle, load_bundle
from mlplatform.registry.bundled_code import load_domain
from mlplatform_tests.fakes.tiny_domain import bundle_of, record, rows, write_package


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that nobody changes."""
    folder = tmp_path_factory.mktemp("bundle")
    return bundle_of(folder / "bundles", write_package(folder))


def test_named_by_its_digest(bundle: Bundle) -> None:
    """A bundle lies under the hash of its manifest and holds feature code, no data and no pickle."""
    assert bundle.folder.name == bundle.digest
    assert sorted(bundle.manifest.files) == [
        "calibration.json",
        "code/harbour/__init__.py",
        "code/harbour/features.py",
        "fitted.json",
        "golden_rows.arrow",
        "golden_scores.arrow",
        "model.ubj",
        "simple.json",
    ]
    assert not [name for name in os.listdir(bundle.folder.parent) if name.startswith(".draft")]


def test_answers_as_in_training(bundle: Bundle) -> None:
    """The golden rows are scored to the bit as the trained model scored them."""
    bundle.check_golden()
    requests, view_values = rows()
    answers = bundle.answers(bundle.scores(bundle.features(requests, view_values)))
    assert answers.height == requests.height
    assert set(answers["prediction"]) == {0, 1}


def test_a_changed_score_is_noticed(tmp_path: Path) -> None:
    """Golden scores that differ in the last bit are told."""
    sound = bundle_of(tmp_path / "bundles", write_package(tmp_path / "one"))
    golden = pl.read_ipc(sound.folder / "golden_rows.arrow")
    scores = pl.read_ipc(sound.folder / "golden_scores.arrow")["score_0"].to_numpy().copy()
    scores[3] = np.nextafter(scores[3], 1)
    wrong = bundle_of(tmp_path / "bundles", write_package(tmp_path / "two"), golden=(golden, scores))
    with pytest.raises(GoldenMismatch, match="1 of 8 golden rows"):
        wrong.check_golden()


def test_same_content_same_folder(tmp_path: Path) -> None:
    """Writing the same model again keeps what is there; another record is another bundle."""
    first = bundle_of(tmp_path / "bundles", write_package(tmp_path / "one"))
    written = (first.folder / "manifest.yaml").stat().st_mtime_ns
    again = bundle_of(tmp_path / "bundles", write_package(tmp_path / "two"))
    other = bundle_of(tmp_path / "bundles", write_package(tmp_path / "three"), record=record(training_set="ff"))
    assert again.digest == first.digest != other.digest
    assert (first.folder / "manifest.yaml").stat().st_mtime_ns == written
    assert len(list((tmp_path / "bundles").iterdir())) == 2


@pytest.mark.parametrize("name", ["model.ubj", "fitted.json", "code/harbour/features.py", "golden_rows.arrow"])
def test_altered_file_is_refused(tmp_path: Path, name: str) -> None:
    """A single changed byte is refused, and the file is named."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path))
    content = bytearray((bundle.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle.folder / name).write_bytes(bytes(content))
    with pytest.raises(BundleCorrupt, match=name):
        load_bundle(bundle.folder)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A missing file is refused, and named."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path))
    (bundle.folder / "simple.json").unlink()
    with pytest.raises(BundleCorrupt, match=r"simple\.json"):
        load_bundle(bundle.folder)


def test_altered_manifest_is_refused(tmp_path: Path) -> None:
    """A threshold changed in place no longer matches the folder's name."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path))
    path = bundle.folder / "manifest.yaml"
    path.write_text(path.read_text().replace("decision: 0.5", "decision: 0.4"))
    with pytest.raises(BundleCorrupt, match=r"manifest\.yaml.*promises another"):
        load_bundle(bundle.folder)


def test_the_manifest_says_how_the_service_behaves(tmp_path: Path) -> None:
    """As the bundled code declares it, durations in seconds; a manifest that says otherwise is refused."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path))
    told = bundle.manifest.serving
    declared = bundle.model.serving
    assert (told["deadline"], told["max_batch_rows"]) == (2.0, declared.max_batch_rows)
    assert told["breaker"]["open_for"] == declared.breaker.open_for.total_seconds()
    other = replace(bundle.manifest, serving={**told, "max_batch_rows": 7})
    folder = tmp_path / other.digest
    shutil.copytree(bundle.folder, folder)
    (folder / "manifest.yaml").write_text(other.to_yaml())
    with pytest.raises(BundleCorrupt, match="declares another service"):
        load_bundle(folder)


def test_two_versions_of_the_code_side_by_side(tmp_path: Path, bundle: Bundle) -> None:
    """Each bundle computes features with its own code, in one process."""
    other = bundle_of(tmp_path / "bundles", write_package(tmp_path, factor="3.0"))
    requests, view_values = rows(1)
    length = requests["length"].item()
    for each, factor in ((bundle, 2), (other, 3), (bundle, 2)):
        features = each.features(requests, view_values)
        assert features["scaled_length"].item() == pytest.approx(length * factor)
    assert bundle.domain.on_demand[0].function.__module__ == f"mlplatform_bundle_{bundle.digest[:12]}.harbour.features"


@pytest.mark.parametrize("line", ["import no_such_library", "DOMAIN = dict(1)", "raise KeyError('gone')"])
def test_code_that_cannot_be_imported_any_more_is_told(tmp_path: Path, line: str) -> None:
    """What an older version declares, a later platform may refuse by any error; it is the bundle that cannot be had."""
    (tmp_path / "port").mkdir()
    (tmp_path / "port" / "__init__.py").write_text(f"{line}\n")
    digest = sha256(line.encode()).hexdigest()
    for _ in range(2):
        with pytest.raises(BundleCorrupt, match="cannot be imported here"):
            load_domain(tmp_path, "port", name="port", digest=digest, files=["port/__init__.py"])


def test_no_byte_code_beside_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running bundled code leaves nothing behind that the manifest does not list."""
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path, factor="5.0"))
    there = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if path.is_file()}
    assert there == {*bundle.manifest.files, "manifest.yaml"}


@pytest.mark.parametrize(
    "line",
    [
        "import requests",
        "from sklearn import linear_model",
        "from mlplatform.training import fit",
        "def late():\n    import deltalake",
        "from mlplatform.domains.other import features",
        "from ....elsewhere import x",
    ],
)
def test_code_that_serving_cannot_follow_is_refused(tmp_path: Path, line: str) -> None:
    """An import that a serving host lacks is refused when the bundle is written, with file and line."""
    package = write_package(tmp_path)
    (package / "more.py").write_text(f'"""More."""\n{line}\n')
    with pytest.raises(DeclarationError, match=r"harbour/more\.py, line [23]"):
        bundle_of(tmp_path / "bundles", package)
    assert not list((tmp_path / "bundles").iterdir())


def test_sibling_domain_is_taken_along(tmp_path: Path) -> None:
    """Code imported relatively from a sibling domain is bundled and found again."""
    sibling = tmp_path / "weather"
    sibling.mkdir()
    (sibling / "__init__.py").write_text('"""Sibling."""\n')
    (sibling / "views.py").write_text('"""Views."""\nHOURS = 6\n')
    package = write_package(tmp_path)
    (package / "more.py").write_text('"""More."""\nfrom ..weather.views import HOURS\n')
    bundle = bundle_of(tmp_path / "bundles", package)
    assert {"code/weather/__init__.py", "code/weather/views.py"} <= set(bundle.manifest.files)
    assert importlib.import_module(f"mlplatform_bundle_{bundle.digest[:12]}.harbour.more").HOURS == 6


def test_missing_card_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model declared for a card is not scored on the CPU in silence."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path, device="cuda"))
    assert yaml.safe_load((bundle.folder / "manifest.yaml").read_text())["device"] == "cuda"
    # No card is seen even where there is one.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceUnavailable, match="device 'cuda' is declared but not there"):
        bundle.check_golden()
