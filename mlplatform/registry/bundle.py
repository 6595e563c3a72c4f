"""The bundle: one model version as a folder that holds all that is needed to answer as it answered in training.

::

    <manifest digest>/
      manifest.yaml          what is served and how; its hash names the folder
      model.ubj              the booster, in XGBoost's own format
      calibration.json  simple.json  fitted.json
      golden_rows.arrow      request columns, `at` and view values of a few rows
      golden_scores.arrow    what the trained model said of them
      code/<domain>/*.py     the feature code it was trained with
      recipe.json  inputs.json  training_set.json  training.json  *.diff
                             what it was made from (`registry.origin`); nobody who serves reads them

Nothing in it is a pickle, so loading one runs no code but the feature code, whose hash is checked first. A bundle is
never changed: another content is another digest in another folder. It refuses to be loaded with a file that is
missing or altered, and knows nothing of HTTP, of stores or of which version is champion.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt
import polars as pl

from mlplatform.domain.domain import Domain
from mlplatform.domain.model import Device, ModelSpec
from mlplatform.domain.threshold import Threshold
from mlplatform.errors import BundleCorrupt, GoldenMismatch
from mlplatform.features.view import feature_names, model_inputs, view_feature_names
from mlplatform.provenance.record import Record
from mlplatform.registry.bundled_code import domain_folder, feature_code, load_domain
from mlplatform.registry.manifest import MANIFEST_FILE, Manifest, serving_settings
from mlplatform.scoring.booster import load_booster, matrix, raw_scores
from mlplatform.scoring.calibration import Calibration
from mlplatform.scoring.postprocess import answers
from mlplatform.scoring.simple_model import SimpleModel

Scores = npt.NDArray[np.float64]

BOOSTER = "model.ubj"
CALIBRATION = "calibration.json"
SIMPLE = "simple.json"
FITTED = "fitted.json"
GOLDEN_ROWS = "golden_rows.arrow"
GOLDEN_SCORES = "golden_scores.arrow"
CODE = "code"

SCORING_THREADS = 1
"""A team of two threads costs a small batch 16 ms per call when the cores are busy; one row alone takes 0.2 ms."""


class Bundle:
    """A model version, loaded and checked. Made by `write_bundle` and `load_bundle`."""

    def __init__(self, folder: Path, manifest: Manifest, domain: Domain) -> None:
        self.folder = folder
        self.manifest = manifest
        self.digest = manifest.digest
        self.domain = domain
        self.model: ModelSpec = domain.model(manifest.model.partition("/")[2])
        self.fitted: Mapping[str, Any] = json.loads((folder / FITTED).read_text())
        self.simple = SimpleModel.from_json((folder / SIMPLE).read_text())
        self.calibration = Calibration.from_json((folder / CALIBRATION).read_text())

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Check every file of a folder, import its code, and read the small parts; the booster is read when asked.

        Raises
        ------
        BundleCorrupt
            A file is missing or altered, or the code does not give what the manifest says.
        """
        manifest = _read_manifest(folder)
        for path, expected in manifest.files.items():
            _check_file(folder, path, expected)
        name, _, model = manifest.model.partition("/")
        listed = [path.removeprefix(f"{CODE}/") for path in manifest.files if path.startswith(f"{CODE}/")]
        domain = load_domain(folder / CODE, manifest.package, name=name, digest=manifest.digest, files=listed)
        if feature_names(domain, domain.model(model)) != manifest.features:
            raise BundleCorrupt(CODE, "its code gives other features, or another order, than the manifest")
        if serving_settings(domain.model(model).serving) != manifest.serving:
            raise BundleCorrupt(CODE, "its code declares another service than the manifest")
        return cls(folder, manifest, domain)

    @cached_property
    def booster(self) -> Any:
        """The booster, on the device of the manifest.

        Raises
        ------
        DeviceUnavailable
            The device is not on this machine; it is not replaced by another.
        """
        device = cast(Device, self.manifest.device)
        return load_booster(self.folder / BOOSTER, device=device, threads=self.manifest.threads)

    def features(self, requests: pl.DataFrame, view_values: pl.DataFrame) -> pl.DataFrame:
        """The model's inputs for requests with `at`, in the order of its matrix; the bundled code computes them."""
        return model_inputs(self.domain, self.model, requests, view_values, self.fitted)

    def scores(self, features: pl.DataFrame) -> Scores:
        """Calibrated scores, (n,) or (n, classes), of rows from `features`.

        Raises
        ------
        DeviceUnavailable
            The declared device is not there.
        """
        return self.calibration.apply(raw_scores(self.booster, matrix(features)))

    def answers(self, scores: Scores) -> pl.DataFrame:
        """Scores as `prediction`, `probability`, `confidence`, `needs_review`."""
        return answers(self.model, scores)

    def golden(self) -> tuple[pl.DataFrame, Scores]:
        """The golden rows: their features, computed anew, and the (n, outputs) scores of the trained model."""
        rows = pl.read_ipc(self.folder / GOLDEN_ROWS)
        expected = np.ascontiguousarray(pl.read_ipc(self.folder / GOLDEN_SCORES).to_numpy())
        view_values = rows.select(view_feature_names(self.domain, self.model))
        return self.features(rows.drop(view_values.columns), view_values), expected

    def check_golden(self) -> None:
        """Score the golden rows again, from request to score, and compare to the bit.

        Raises
        ------
        GoldenMismatch
            A score differs; the same lock file and device class were promised to give the same.
        """
        features, expected = self.golden()
        scores = self.scores(features)
        again = scores.reshape(len(scores), -1)
        same = (again.shape == expected.shape) and (
            again.view(np.uint64) == np.ascontiguousarray(expected).view(np.uint64)
        ).all()
        if not same:
            differing = int((again != expected).any(axis=1).sum()) if again.shape == expected.shape else len(expected)
            raise GoldenMismatch(self.manifest.model, self.manifest.short_digest, differing, len(expected))


def write_bundle(
    root: Path,
    *,
    domain: Domain,
    model: ModelSpec,
    booster: Any,
    calibration: Calibration,
    simple: SimpleModel,
    fitted: Mapping[str, Any],
    view_versions: Mapping[str, str],
    record: Record,
    model_version: str,
    rollback_target: str | None,
    golden: tuple[pl.DataFrame, Scores],
    code: Path | None = None,
    records: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write a model version below `root`, under its digest.

    Parameters
    ----------
    booster : xgboost.Booster
    view_versions : `owner/view` -> version of the view the model was trained on
    golden : rows (request columns, `at`, view values) and the calibrated scores, (n,) or (n, classes) float64, of the
        trained model for them
    code : folder of the domain package; by default the one of that name in `mlplatform.domains`
    records : name of a file -> its content: what the model was made from, kept and hashed like every other file

    Returns
    -------
    bundle : loaded from what was written. A bundle with the same digest that is there already is kept as it is.

    Raises
    ------
    DeclarationError
        The feature code imports what a serving host does not have.
    """
    root.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=root))
    try:
        write_parts(draft, booster=booster, calibration=calibration, simple=simple, fitted=fitted, golden=golden)
        for name, content in (records or {}).items():
            (draft / name).write_bytes(content)
        package = code or domain_folder(domain.name)
        for path, source in feature_code(package).items():
            (draft / CODE / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / CODE / path).write_bytes(source)
        files = hashes(draft)
        decision, decision_reason = _told(model.decision)
        review_below, review_reason = _told(model.review_below)
        manifest = Manifest(
            model=f"{domain.name}/{model.name}",
            model_version=model_version,
            package=package.name,
            files=files,
            views=dict(view_versions),
            fitted=FITTED,
            features=feature_names(domain, model),
            task=model.task,
            output=_output(model),
            decision=decision,
            decision_reason=decision_reason,
            review_below=review_below,
            review_reason=review_reason,
            device=model.settings.device,
            threads=SCORING_THREADS,
            objectives={
                "p99_ms": model.objectives.p99_ms.value,
                "rows_per_second": model.objectives.rows_per_second.value,
            },
            serving=serving_settings(model.serving),
            rollback_target=rollback_target,
            record=record,
        )
        (draft / MANIFEST_FILE).write_text(manifest.to_yaml())
        final = root / manifest.digest
        draft.chmod(0o755)  # a temporary folder is for its owner only, a bundle for every reader
        try:
            os.rename(draft, final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return load_bundle(final)


def write_parts(
    folder: Path,
    *,
    booster: Any,
    calibration: Calibration,
    simple: SimpleModel,
    fitted: Mapping[str, Any],
    golden: tuple[pl.DataFrame, Scores],
) -> None:
    """Write what was learned, each part in the file of a bundle; the arguments are those of `write_bundle`."""
    booster.save_model(folder / BOOSTER)
    (folder / CALIBRATION).write_text(calibration.to_json())
    (folder / SIMPLE).write_text(simple.to_json())
    (folder / FITTED).write_text(json.dumps(fitted, sort_keys=True, ensure_ascii=False, allow_nan=False))
    rows, scores = golden
    outputs = np.ascontiguousarray(scores, dtype=np.float64).reshape(len(scores), -1)
    rows.write_ipc(folder / GOLDEN_ROWS, compression="uncompressed")
    pl.DataFrame({f"score_{column}": outputs[:, column] for column in range(outputs.shape[1])}).write_ipc(
        folder / GOLDEN_SCORES, compression="uncompressed"
    )


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by its path there, as a manifest lists them."""
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def load_bundle(folder: Path) -> Bundle:
    """The bundle in a folder, checked file by file.

    Raises
    ------
    BundleCorrupt
        A file is missing or altered; the message names it.
    """
    return Bundle.from_folder(folder)


def _read_manifest(folder: Path) -> Manifest:
    try:
        text = (folder / MANIFEST_FILE).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleCorrupt(str(folder / MANIFEST_FILE), f"it cannot be read ({error})") from error
    manifest = Manifest.from_yaml(text)
    # Inside a Bento the folder is called `bundle`; in the bundle store its name is a promise.
    if len(folder.name) == len(manifest.digest) and folder.name != manifest.digest:
        raise BundleCorrupt(str(folder / MANIFEST_FILE), f"its hash is {manifest.digest}, the folder promises another")
    return manifest


def _check_file(folder: Path, path: str, expected: str) -> None:
    try:
        found = _sha256(folder / path)
    except OSError as error:
        raise BundleCorrupt(path, f"it cannot be read ({error.strerror})") from error
    if found != expected:
        raise BundleCorrupt(path, f"its hash is {found[:12]}…, the manifest says {expected[:12]}…")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _told(threshold: Threshold | None) -> tuple[float | None, str]:
    return (None, "") if threshold is None else (threshold.value, threshold.reason)


def _output(model: ModelSpec) -> str:
    if model.task == "binary":
        return "prediction: 0 or 1; probability: of 1"
    if model.task == "multiclass":
        return f"prediction: one of {', '.join(model.label.classes)}; probability: of that class"
    return f"prediction: a number{f' ({model.label.unit})' if model.label.unit else ''}; probability: null"
