"""Building the Bento of a bundle: the serving runtime, that one bundle, its own small lock file.

The tag is made from the model, the recipe and the manifest's digest, so building twice is building once. BentoML runs
in a process of its own: it imports the service, sets global state and would, inside a Dagster run, find another
`serving` already imported. No network is needed: the requirements are locked.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import yaml

from mlplatform.errors import BentoNotBuilt
from mlplatform.provenance.files import alone
from mlplatform.registry.bundle import Bundle, load_bundle
from mlplatform.registry.manifest import Manifest
from mlplatform.settings import child_environment

SERVICE = "serving.service:service"

BUILD_SECONDS = 300
"""A build takes two to four seconds; one that hangs must not hold a run for ever."""


def bento_tag(manifest: Manifest) -> str:
    """The tag of the Bento of a manifest, such as `flight_delay-late_arrival:2013-07-01-ab12cd34-0123456789ab`."""
    return f"{manifest.model.replace('/', '-').lower()}:{manifest.model_version}-{manifest.short_digest}"


def bento_home(home: Path) -> Path:
    """BentoML's own folder inside the platform's home: what `BENTOML_HOME` must say to serve a tag."""
    return home / "bentoml"


def build_bento(bundle_folder: Path, *, home: Path) -> str:
    """Build the Bento of a bundle, unless it is there.

    Parameters
    ----------
    bundle_folder : as `write_bundle` left it
    home : the platform's home

    Returns
    -------
    tag : for `bentoml serve` and `bentoml containerize`

    Raises
    ------
    BundleCorrupt
        The bundle is not what its manifest says.
    BentoNotBuilt
        BentoML failed; the message says with what.
    """
    bundle = load_bundle(bundle_folder)
    tag = bento_tag(bundle.manifest)
    name, _, version = tag.partition(":")
    final = bento_home(home) / "bentos" / name / version
    # One build of a tag at a time, in a store of its own that is moved into place when it is whole: BentoML copies into
    # the place itself, and would leave half a Bento there if it were killed.
    with alone(home / "bentoml.lock"):
        if not final.is_dir():
            with tempfile.TemporaryDirectory(prefix="bento-", dir=home) as scratch:
                built = _build(Path(scratch), bundle, tag)
                final.parent.mkdir(parents=True, exist_ok=True)
                os.rename(built, final)
    return tag


def _build(scratch: Path, bundle: Bundle, tag: str) -> Path:
    """Run `bentoml build` in a store inside `scratch`; returns the folder of the Bento there."""
    name, _, version = tag.partition(":")
    context, store = scratch / "context", scratch / "store"
    context.mkdir()
    store.mkdir()
    lock = _lay_out(context, bundle.folder, [*bundle.manifest.files, "manifest.yaml"], bundle.manifest.device)
    described = {
        "service": SERVICE,
        "name": name,
        "description": f"{bundle.manifest.model} {bundle.manifest.model_version}: {bundle.model.meaning}\n",
        "labels": {
            "model": bundle.manifest.model,
            "recipe": bundle.manifest.model_version,
            "manifest": bundle.digest,
        },
        "include": ["*"],
        "python": {"requirements_txt": lock, "lock_packages": False},
        "envs": [{"name": "BENTOML_DO_NOT_TRACK", "value": "True"}],
    }
    (context / "bentofile.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    command = [sys.executable, "-m", "bentoml", "build", "--version", version, "--output", "tag", str(context)]
    environment = child_environment(BENTOML_HOME=str(store), MLPLATFORM_HOME=str(scratch))
    environment.pop("MLPLATFORM_BUNDLE", None)
    try:
        done = subprocess.run(
            command, cwd=context, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BentoNotBuilt(tag, f"bentoml build took more than {BUILD_SECONDS} s") from error
    built = store / "bentos" / name / version
    if done.returncode or not (built / "bento.yaml").is_file():
        told = (done.stderr or done.stdout).strip()[-2000:]
        raise BentoNotBuilt(tag, told or f"bentoml build ended with {done.returncode}")
    return built


def serving_modules(source: Path) -> list[str]:
    """Files that the service imports, of `serving` and `mlplatform`: all that a Bento needs of this tree.

    Parameters
    ----------
    source : folder that holds both packages

    Returns
    -------
    paths : relative to `source`, sorted
    """
    found: set[Path] = set()
    waiting = sorted((source / "serving").rglob("*.py"))
    # Feature code is no import of the service, but may import these.
    waiting += [source / "mlplatform/features/view.py", *sorted((source / "mlplatform/domain").glob("*.py"))]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for package in path.relative_to(source).parents:
            if package != Path():
                waiting.append(source / package / "__init__.py")
        waiting.extend(_imported(path, source))
    return sorted(path.relative_to(source).as_posix() for path in found)


def _imported(path: Path, source: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("mlplatform", "serving"):
                module = source / f"{name.replace('.', '/')}.py"
                if module.is_file():
                    yield module


def _lay_out(context: Path, bundle: Path, files: list[str], device: str) -> str:
    """Copy runtime, lock and bundle into the build context; give the name of the lock file."""
    package = find_spec("serving")
    if package is None or package.origin is None:
        raise BentoNotBuilt(str(bundle), "the package `serving` is not installed here")
    source = Path(package.origin).parents[1]
    lock = "requirements-gpu.lock" if device == "cuda" else "requirements.lock"
    shutil.copyfile(source / "serving" / lock, context / lock)
    for path in serving_modules(source):
        _copy(source / path, context / path)
    for path in files:
        _copy(bundle / path, context / "bundle" / path)
    return lock


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
