"""What computes here: true, constant, the same in a checkout and in a Bento, and cheap to import."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from mlplatform.provenance import computing as module
from mlplatform.provenance.computing import computing, computing_text
from mlplatform.provenance.environment import lock_hash
from mlplatform.registry.bento import serving_modules

ROOT = Path(__file__).resolve().parents[2]


def test_it_names_what_is_loaded() -> None:
    """Versions are those of the libraries in this process, the lock that of the serving host."""
    found = computing()
    assert (found["polars"], found["numpy"], found["python"]) == (
        pl.__version__,
        np.__version__,
        platform.python_version(),
    )
    assert found["machine"].split()[0] == platform.machine()
    assert found["lock"] == lock_hash(ROOT / "serving" / "requirements.lock") != lock_hash()
    assert json.loads(computing_text()) == found


def test_a_bento_says_the_same_as_the_checkout(tmp_path: Path) -> None:
    """A Bento holds the serving host's lock beside its packages; answers of both are under one environment."""
    # What is copied into a Bento holds the module, or the log could not be written there.
    assert "mlplatform/provenance/computing.py" in serving_modules(ROOT)
    for path in serving_modules(ROOT):
        if path.startswith("mlplatform/"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    (tmp_path / "requirements.lock").write_bytes((ROOT / "serving" / "requirements.lock").read_bytes())
    code = "import mlplatform.provenance.computing as c; print(c.__file__); print(c.computing_text())"
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    place, said = done.stdout.splitlines()
    assert Path(place).is_relative_to(tmp_path)
    assert said == computing_text()


def test_importing_it_loads_nothing_heavy() -> None:
    """Gateways import it before they can answer."""
    heavy = {"numpy", "polars", "xgboost", "deltalake"}
    code = f"import sys, {module.__name__}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
