"""promtool, which comes with Prometheus: checks rules as Prometheus would, and runs them over series."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*arguments: str | Path) -> str:
    """What it says; a failing command fails the test. Where it is not installed the test is skipped, but in CI."""
    if shutil.which("promtool") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is not installed here, and CI must test with it")
        pytest.skip("promtool is not installed: the alert rules are not tested")
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
