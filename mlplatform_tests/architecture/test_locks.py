"""The lock files: every requirement held to a version and a hash, no address, and on a host only what it needs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

EVERYTHING = "requirements.lock"
BENTO = "serving/requirements.lock"
BENTO_GPU = "serving/requirements-gpu.lock"

REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)

PIPELINE_ONLY = {"dagster", "dagster-webserver", "deltalake", "evidently", "great-expectations", "mlflow", "optuna"}


def locked(name: str) -> dict[str, str]:
    """Requirement and version of a lock file."""
    return dict(REQUIREMENT.findall((ROOT / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", [EVERYTHING, BENTO, BENTO_GPU])
def test_every_requirement_has_a_version_and_a_hash(name: str) -> None:
    """A lock holds requirements with `==`, each followed by a hash, and no address of any kind."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    starts = re.findall(r"^[^\s#].*", text, re.MULTILINE)
    assert [line for line in starts if not REQUIREMENT.match(line)] == []
    blocks = re.split(r"^(?=[^\s#])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(starts) > 50
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("name", [BENTO, BENTO_GPU])
def test_a_serving_host_installs_nothing_of_the_pipeline(name: str) -> None:
    """A Bento's lock holds no Dagster, MLflow, Great Expectations or their like."""
    assert locked(name).keys() & PIPELINE_ONLY == set()


@pytest.mark.parametrize("name", [EVERYTHING, BENTO])
def test_a_host_without_a_card_installs_no_cuda(name: str) -> None:
    """XGBoost is locked in its build without CUDA, and no CUDA library with it."""
    names = locked(name).keys()
    assert "xgboost-cpu" in names
    # nvidia-ml-py, which BentoML asks for, is a small module that looks whether there is a card.
    assert {found for found in names if found == "xgboost" or found.startswith("nvidia-")} <= {"nvidia-ml-py"}


def test_a_host_with_a_card_scores_with_the_same_xgboost() -> None:
    """The build with CUDA has the version of the build without."""
    assert locked(BENTO_GPU)["xgboost"] == locked(EVERYTHING)["xgboost-cpu"]


@pytest.mark.parametrize("name", [BENTO, BENTO_GPU])
def test_serving_has_the_versions_that_training_had(name: str) -> None:
    """A library in both locks has one version, so that a feature means the same on both sides."""
    everything = locked(EVERYTHING)
    assert {
        found: version for found, version in locked(name).items() if everything.get(found, version) != version
    } == {}


def test_uv_can_be_installed_from_its_own_lines() -> None:
    """The lines that the Makefile hands to pip, for a uv that is pinned too, are in the lock without a marker."""
    text = (ROOT / EVERYTHING).read_text(encoding="utf-8")
    assert len(re.findall(r"^uv==\S+ \\\n(?:    --hash=\S+ \\\n)+    --hash=\S+$", text, re.MULTILINE)) == 1
