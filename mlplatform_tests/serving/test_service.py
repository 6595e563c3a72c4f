"""The Bento: built for real, served for real, asked over HTTP."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mlplatform.errors import BentoNotBuilt, BundleCorrupt
from mlplatform.registry.bento import build_bento, serving_modules
from mlplatform.registry.bundle import Bundle
from mlplatform_tests.fakes.bento_server import Server, serving
from mlplatform_tests.fakes.tiny_domain import bundle_of, publish, write_package

ROOT = Path(__file__).resolve().parents[2]
REQUEST = {"berth": "north", "length": 250.0, "flag": "NO"}
FIELDS = [
    "prediction",
    "probability",
    "confidence",
    "needs_review",
    "source",
    "degraded",
    "model_version",
    "manifest",
    "request_id",
    "views",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A platform home with a published view."""
    home = tmp_path_factory.mktemp("home")
    publish(home)
    return home


@pytest.fixture(scope="module")
def bundle(home: Path) -> Bundle:
    """A bundle in that home."""
    return bundle_of(home / "bundles", write_package(home / "package"))


@pytest.fixture(scope="module")
def tag(home: Path, bundle: Bundle) -> str:
    """Its Bento, built."""
    return build_bento(bundle.folder, home=home)


@pytest.fixture(scope="module")
def server(home: Path, tag: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Bento, served by its tag from a folder that has nothing to do with it; it finds the home that it lies in."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = {
        "BENTOML_HOME": str(home / "bentoml"),
        "MLPLATFORM_HOME": f"../{home.name}",
        "MLPLATFORM_CLOCK": "request",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    with serving(tag, folder=elsewhere, environment=environment) as running:
        running.wait_until_ready()
        yield running


@pytest.mark.end_to_end
class TestServedBento:
    def test_answers_with_every_field(self, server: Server, bundle: Bundle) -> None:
        """An answer says what, how sure, from where, and by which version; the request id comes back."""
        answer = server.ask("/predict", {**REQUEST, "at": "2024-05-01T12:00:00Z"}, {"X-Request-ID": "case-7"})
        assert answer.status == 200
        assert list(answer.json) == FIELDS
        told = answer.json
        assert (told["source"], told["degraded"]) == ("model", False)
        assert told["model_version"] == bundle.manifest.model_version
        assert told["manifest"] == bundle.digest
        assert told["request_id"] == answer.headers["X-Request-ID"] == "case-7"
        assert told["confidence"] == max(told["probability"], 1 - told["probability"])

    def test_reads_the_store_as_of_the_request(self, server: Server) -> None:
        """A value that has expired at the request is a null as in training, and no degradation."""
        fresh = server.ask("/predict", {**REQUEST, "at": "2024-05-01T12:00:00Z"}).json
        stale = server.ask("/predict", {**REQUEST, "at": "2024-05-09T12:00:00+00:00"}).json
        assert fresh["probability"] != stale["probability"]
        assert (stale["source"], stale["degraded"]) == ("model", False)
        assert fresh["views"] == {"harbour/berth_waits": {"status": "present", "revision": 1}}
        assert stale["views"] == {"harbour/berth_waits": {"status": "expired", "revision": None}}

    def test_names_each_wrong_field(self, server: Server) -> None:
        """A wrong request is refused with 422 and every field at fault."""
        refused = server.ask("/predict", {"berth": "west", "lenght": 3, "at": "yesterday"})
        assert refused.status == 422
        assert refused.headers["Content-Type"] == "application/problem+json"
        errors = {error["field"]: error["reason"] for error in refused.json["errors"]}
        assert sorted(errors) == ["at", "berth", "lenght", "length"]
        assert all(errors.values())

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[1]",
            b'"x"',
            b'{"berth": "north", "berth": "south"}',
            b"\xff",
            b'{"length": NaN}',
            b"[" * 30_000,
        ],
    )
    def test_refuses_what_is_no_object(self, server: Server, body: bytes) -> None:
        """Garbage, other kinds of JSON and names given twice are refused with 400."""
        refused = server.ask("/predict", body)
        assert refused.status == 400
        assert refused.headers["Content-Type"] == "application/problem+json"

    def test_refuses_long_bodies_and_odd_ids(self, server: Server) -> None:
        """A body that is no request by its length gets 413, and an id that would break a log line a better one."""
        assert server.ask("/predict", b" " * 70_000).status == 413
        answer = server.ask("/predict", REQUEST, {"X-Request-ID": "a b"})
        assert answer.json["request_id"] == answer.headers["X-Request-ID"] != "a b"

    def test_ready_and_alive(self, server: Server) -> None:
        """Readiness has scored the golden rows and compared the view's version."""
        ready = server.ask("/readyz")
        assert ready.status == 200, ready.text
        assert [check["check"] for check in ready.json["checks"]] == [
            "model workers",
            "golden rows",
            "view harbour/berth_waits",
        ]
        assert server.ask("/livez").status == 200

    def test_says_what_it_serves(self, server: Server, bundle: Bundle) -> None:
        """The manifest, the API document and the page are served; the page loads nothing from anywhere."""
        assert server.ask("/model").json["digest"] == bundle.digest
        document = server.ask("/docs.json").json
        asked = document["components"]["schemas"]["Request"]
        assert set(asked["properties"]) == {"berth", "length", "flag", "at"}
        assert document["components"]["schemas"]["Answer"]["required"] == FIELDS
        page = server.ask("/").text
        assert "harbour/waits" in page
        assert not [word for word in ("<script", "http://", "https://", "src=") if word in page]

    def test_unknown_paths_and_methods(self, server: Server) -> None:
        """Every refusal has the one form."""
        for path, status in (("/nowhere", 404), ("/predict", 405)):
            refused = server.ask(path)
            assert refused.status == refused.json["status"] == status


def test_built_once(home: Path, tag: str, bundle: Bundle) -> None:
    """Building again gives the same tag and touches nothing."""
    name, _, version = tag.partition(":")
    described = home / "bentoml" / "bentos" / name / version / "bento.yaml"
    before = described.stat().st_mtime_ns
    assert name == "harbour-waits"
    assert version == f"2024-05-01-ab12cd34-{bundle.digest[:12]}"
    assert build_bento(bundle.folder, home=home) == tag
    assert described.stat().st_mtime_ns == before
    assert yaml.safe_load(described.read_text())["labels"] == {
        "model": "harbour/waits",
        "recipe": "2024-05-01-ab12cd34",
        "manifest": bundle.digest,
    }


def test_holds_its_own_lock_and_nothing_heavy(home: Path, tag: str) -> None:
    """The Bento installs the serving lock: no Dagster, no MLflow, no Great Expectations."""
    name, _, version = tag.partition(":")
    bento = home / "bentoml" / "bentos" / name / version
    locked = (bento / "env" / "python" / "requirements.txt").read_text()
    assert "xgboost" in locked
    assert not [
        name for name in ("dagster==", "mlflow==", "great-expectations==", "great_expectations==") if name in locked
    ]
    held = {path.relative_to(bento / "src").as_posix() for path in (bento / "src").rglob("*.py")}
    assert {"serving/service.py", "bundle/code/harbour/features.py", "mlplatform/registry/bundle.py"} <= held
    assert not [
        path
        for path in held
        if path.startswith(("mlplatform/training", "mlplatform/domains", "mlplatform/definitions"))
    ]


def test_modules_are_followed_through_imports() -> None:
    """What the service imports, directly or not, is taken along, with the packages it lies in."""
    modules = serving_modules(ROOT)
    assert {"serving/gateway.py", "mlplatform/registry/__init__.py", "mlplatform/provenance/record.py"} <= set(modules)
    assert "mlplatform/registry/bento.py" not in modules


def test_corrupt_bundle_is_not_built(tmp_path: Path) -> None:
    """No Bento is made of a bundle with an altered file."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path))
    (bundle.folder / "fitted.json").write_text("{}")
    with pytest.raises(BundleCorrupt, match=r"fitted\.json"):
        build_bento(bundle.folder, home=tmp_path)


def test_failed_build_says_why(tmp_path: Path) -> None:
    """A model version that BentoML takes for no version is told with BentoML's reason, and nothing is stored."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path), model_version="no such version!")
    with pytest.raises(BentoNotBuilt, match="no such version"):
        build_bento(bundle.folder, home=tmp_path)


@pytest.mark.end_to_end
def test_source_tree_serves_a_bundle(tmp_path: Path) -> None:
    """Without a card a `cuda` model fails readiness in clear words, and answers come labelled from the simple model."""
    bundle = bundle_of(tmp_path / "bundles", write_package(tmp_path, device="cuda"))
    publish(tmp_path, version="v-2")
    environment = {
        "PYTHONPATH": str(ROOT),
        "MLPLATFORM_HOME": str(tmp_path),
        "MLPLATFORM_BUNDLE": str(bundle.folder),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        # No card is seen even where there is one.
        "CUDA_VISIBLE_DEVICES": "",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    with serving("serving.service:service", folder=tmp_path, environment=environment) as server:
        until = time.monotonic() + 30
        # Until a model worker has said so; before that no worker is reached yet.
        while "device" not in (ready := server.ask("/readyz")).text and time.monotonic() < until:
            time.sleep(0.1)
        assert ready.status == 503
        assert "device 'cuda' is declared but not there" in ready.json["detail"]
        assert (
            "the model was trained on harbour/berth_waits@v-1, the store offers harbour/berth_waits@v-2" in ready.text
        )
        answer = server.ask("/predict", REQUEST).json
        assert (answer["source"], answer["degraded"]) == ("simple_model", True)
        refused = server.ask("/predict", {**REQUEST, "at": "2024-05-01T12:00:00Z"})
        assert refused.status == 422
        assert [error["field"] for error in refused.json["errors"]] == ["at"]


def test_sends_nothing_home(tmp_path: Path) -> None:
    """Importing the service silences BentoML's usage reports, also where nobody has set the variable."""
    code = (
        "from bentoml._internal.utils.analytics import usage_stats as u; print(u.do_not_track());"
        "import serving.service; print(u.do_not_track())"
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in ("BENTOML_DO_NOT_TRACK", "DO_NOT_TRACK")
    }
    environment |= {"PYTHONPATH": str(ROOT), "BENTOML_HOME": str(tmp_path)}
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert printed.stdout.split() == ["False", "True"]
