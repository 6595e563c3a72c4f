"""The domain of the replay benchmark: the synthetic one under a name of its own, in a package whose code changes.

The package lies outside the tree, in a folder that is a git repository and looks like an installed distribution: it is
registered as anybody's domain is. Each of its three versions is a commit with a tag: the code that a model was
trained with can be had again, and meanwhile goes on.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mlplatform.domains.registered import domain_package

NAME = "parcels"
MODEL = "late_order"

VERSIONS = ("v1", "v2", "v3")

_DISTRIBUTION = {
    "METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n",
    "entry_points.txt": f"[mlplatform.domains]\n{NAME} = {NAME}:DOMAIN\n",
}

_NAMED = {
    "__init__.py": {
        'name="synthetic"': f'name="{NAME}"',
        "models=(late_order, minutes_to_door, speed)": "models=(late_order,)",
    },
    "models.py": {
        "from mlplatform.domain.threshold": """\
from mlplatform.domain.model import Serving
from mlplatform.domain.rollout import Rollout
from mlplatform.domain.threshold""",
        "    rules=guessed_late,\n": """\
    rules=guessed_late,
    rollout=Rollout(),
    serving=Serving(deadline=timedelta(seconds=5), cache_for=timedelta(minutes=10), tiers=TIERS),
""",
        'views=("courier", "district")': 'views=("district",)',
        '"order_distance", "courier_late_share_3d", "courier_mean_minutes_3d", ': '"order_distance", ',
        "_label_delay = ": """\
TIERS: tuple[str, ...] = ("cached", "simple_model", "rules", "low_confidence")

_label_delay = """,
    },
}
"""What makes the first version of the synthetic domain, which lets a model of an edited checkout serve as well. A model
is compared with a champion whose views are among its own, so that the first one has few."""

_SECOND = {
    "views.py": {
        'order_distance=pl.col("distance_km").cast(pl.Float32)': """\
order_distance=(pl.col("distance_km") * 0.621371).cast(pl.Float32)""",
        "        order_hour=pl": """\
        order_shard=(pl.col("courier").hash(7) % 16).cast(pl.Int32),
        order_hour=pl""",
        '            Feature(\n                name="order_hour"': """\
            Feature(name="order_shard", dtype=pl.Int32(), meaning="Shard of the courier"),
            Feature(
                name="order_hour\"""",
    },
    "models.py": {
        'fitted=("courier_codes",)': "fitted=()",
        "cache_for=timedelta(minutes=10)": "cache_for=timedelta(0), cached_entries=0",
        '= ("cached", "simple_model", "rules", "low_confidence")': '= ("rules", "low_confidence")',
        "    minutes = guessed_minutes(request)\n    return None if minutes is None else 0.8": """\
    minutes = None if request.get("district") == "harbour" else guessed_minutes(request)
    return None if minutes is None else 0.8""",
    },
}
"""Miles, and of a courier nothing but a hash, which another Polars gives otherwise; rules without the harbour."""

_THIRD = {
    "views.py": {
        "views = (\n": """\
def courier_pace_window(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:
    \"\"\"How often each courier was quick lately.\"\"\"
    quick = ((pl.col("minutes") < 45).sum() / pl.len()).cast(pl.Float32)
    return facts.group_by("courier").agg(quick.alias("courier_quick_share_3d"))


views = (
    FeatureView(
        name="courier_pace",
        meaning="How often the courier was quick",
        facts="deliveries",
        entity=("courier",),
        features=(Feature(name="courier_quick_share_3d", dtype=pl.Float32(), meaning="Share quick of the courier"),),
        look_back=WINDOW,
        ttl=timedelta(days=2),
        function=courier_pace_window,
    ),
""",
    },
    "models.py": {'views=("district",)': 'views=("district", "courier_pace")'},
}
"""A view more. One that changes its function in place ends its model: the gate compares with no champion of another."""


def write_domain(site: Path) -> None:
    """The first version, committed."""
    real = domain_package("synthetic")
    assert real is not None
    shutil.copytree(real, site / NAME, ignore=shutil.ignore_patterns("__pycache__"))
    distribution = site / f"{NAME}-1.0.dist-info"
    distribution.mkdir()
    for name, content in _DISTRIBUTION.items():
        (distribution / name).write_text(content)
    (site / ".gitignore").write_text("__pycache__/\n")
    _git(site, "init", "--quiet")
    _edit(site, "v1", _NAMED)


def change_domain(site: Path, version: str) -> None:
    """The version after it, committed: the package's files are edited where they lie."""
    _edit(site, version, {"v2": _SECOND, "v3": _THIRD}[version])


def clone_domain(site: Path, to: Path, version: str) -> None:
    """The package as it was at a version, in a folder of its own."""
    subprocess.run(["git", "clone", "--quiet", "--branch", version, site, to], check=True, stderr=subprocess.DEVNULL)


def _edit(site: Path, version: str, edits: Mapping[str, Mapping[str, str]]) -> None:
    for name, changes in edits.items():
        path = site / NAME / name
        text = path.read_text()
        for before, after in changes.items():
            assert text.count(before) == 1, f"{name} holds {text.count(before)} × {before!r}"
            text = text.replace(before, after)
        path.write_text(text)
    _git(site, "add", ".")
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "commit.gpgsign=false"]
    _git(site, *who, "commit", "--quiet", "--message", version)
    _git(site, "tag", version)


def _git(site: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", site, *arguments], check=True)
