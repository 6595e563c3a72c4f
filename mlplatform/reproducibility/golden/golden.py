"""Golden traffic: logged requests in a folder beside the code, with all that is needed to answer them again.

::

    golden/<domain>/<model>/
      golden.json          what it was made from, and the hash of every other file
      requests.jsonl       the requests as they came, each with its id and the instant its features are of
      inputs.arrow         what was read of each, and the view values that it was answered from
      features.arrow       the model's inputs, in the order of its matrix
      answers.jsonl        what each way to answer gives: model, simple model, rules, and the tier that is fallen to
      probes.jsonl         what the model's post-processing makes of scores at and beside its thresholds
      model.ubj  calibration.json  simple.json  fitted.json
      facts/ views/        a few facts of each table, and what the views make of them
      changes.json         what was moved on purpose since: by whom, when and why; entries are only added

It needs no platform home and no tables, so a checkout alone can answer the requests again. Nothing in it is a pickle.
Here it is written and read; it is compared in `check`. It refuses to be read with a file that is missing or not
the one whose hash `golden.json` holds: what is compared with must not change by accident.
"""

import hashlib
import io
import json
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from mlplatform.errors import DataError, GoldenAltered
from mlplatform.registry.bundle import BOOSTER, CALIBRATION, FITTED, SIMPLE
from mlplatform.scoring.booster import load_booster
from mlplatform.scoring.calibration import Calibration
from mlplatform.scoring.simple_model import SimpleModel

GOLDEN = "golden.json"
REQUESTS = "requests.jsonl"
INPUTS = "inputs.arrow"
FEATURES = "features.arrow"
ANSWERS = "answers.jsonl"
PROBES = "probes.jsonl"
CHANGES = "changes.json"
WEIGHTS = (BOOSTER, CALIBRATION, SIMPLE, FITTED)

default_root = Path("golden")


@dataclass(frozen=True, kw_only=True)
class GoldenView:
    """A view's function on a few facts."""

    view: str
    """`owner/view`."""

    version: str
    facts: str
    """Path of the facts."""

    values: str
    """Path of what the view made of them."""

    at: str
    """ISO instant: the end of the window."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What was moved on purpose."""

    at: str
    by: str
    reason: str
    moved: tuple[str, ...]
    """What the new code answered otherwise, with the weights of before; empty: other weights or requests only."""

    manifest: str
    """Whose weights were stored from then on."""

    replaced: str
    """Hash of the `golden.json` that was replaced."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """`golden.json`."""

    model: str
    """`domain/model`."""

    manifest: str
    model_version: str
    trees: int | None
    """Rounds of the booster that were kept; None: all."""

    rows: int
    features: tuple[str, ...]
    """Inputs of the stored weights, in the order of their matrix."""

    views: tuple[GoldenView, ...]
    computing: Mapping[str, str]
    """What computed the answers: to the bit they are promised for the same only."""

    recorded_at: str
    recorded_by: str
    as_logged: int
    """Rows that are answered, to the bit, as it was logged; fewer than all where code has moved since. Where only some
    rounds of the booster are kept: that were when they were drawn, by all of it, and have not moved."""

    covered: Mapping[str, int]
    """What the rows cover as they are answered now, such as `origin JFK` or `rules 0.7` -> how many of them."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Path -> SHA-256 of its bytes."""


class Golden:
    """A stored folder, every file of it checked.

    Raises
    ------
    DataError
        There is none.
    GoldenAltered
        A file is missing, or not the one that was stored.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._text = (folder / GOLDEN).read_bytes()
        except OSError as error:
            raise DataError(
                f"{folder} holds no golden traffic. Name a folder with a {GOLDEN}, or store one with "
                "`mlplatform golden record MODEL`"
            ) from error
        try:
            told = json.loads(self._text)
            views = tuple(GoldenView(**each) for each in told["views"])
            self.told = Told(**{**told, "features": tuple(told["features"]), "views": views})
        except (ValueError, KeyError, TypeError) as error:
            raise GoldenAltered(str(folder), GOLDEN, f"it is none of this version ({error})") from error
        for path, expected in self.told.files.items():
            try:
                found = _sha256((folder / path).read_bytes())
            except OSError as error:
                raise GoldenAltered(str(folder), path, f"it cannot be read ({error.strerror})") from error
            if found != expected:
                raise GoldenAltered(str(folder), path, f"its hash is {found[:12]}…, not {expected[:12]}…")

    @property
    def digest(self) -> str:
        """SHA-256 of `golden.json`, which holds the hash of all the rest."""
        return _sha256(self._text)

    @property
    def domain(self) -> str:
        """Name of the domain."""
        return self.told.model.partition("/")[0]

    @property
    def model(self) -> str:
        """Name of the model in its domain."""
        return self.told.model.partition("/")[2]

    @cached_property
    def requests(self) -> list[dict[str, Any]]:
        """By row: `id`, `at` (ISO), `request` (the body as it came), and of its answer `source` and `as_logged`.

        The last is what that source gives with these weights where it is as it was logged; null where it never was.
        """
        return _lines((self.folder / REQUESTS).read_text())

    @property
    def inputs(self) -> pl.DataFrame:
        """What was read of the requests, `at`, and the view values."""
        return pl.read_ipc(self.folder / INPUTS)

    @property
    def features(self) -> pl.DataFrame:
        """(n, k) the model's inputs as they were computed."""
        return pl.read_ipc(self.folder / FEATURES)

    @property
    def answers(self) -> list[dict[str, Any]]:
        """By row its id, and what `answers.answered` gives of it."""
        return _lines((self.folder / ANSWERS).read_text())

    @property
    def probes(self) -> list[dict[str, Any]]:
        """Scores and what was made of them."""
        return _lines((self.folder / PROBES).read_text())

    @property
    def changes(self) -> list[Change]:
        """What was moved on purpose, the oldest first."""
        told = json.loads((self.folder / CHANGES).read_text())
        return [Change(**{**each, "moved": tuple(each["moved"])}) for each in told]

    @cached_property
    def weights(self) -> "Weights":
        """What answers."""
        return Weights.of(self.folder, self.told.features)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What was learned: all of a bundle but its code."""

    features: tuple[str, ...]
    booster: Any
    calibration: Calibration
    simple: SimpleModel
    fitted: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, features: tuple[str, ...]) -> "Weights":
        """From the files of a folder. Scored on the CPU with one thread, whatever the service has."""
        return cls(
            features=features,
            booster=load_booster(folder / BOOSTER, device="cpu", threads=1),
            calibration=Calibration.from_json((folder / CALIBRATION).read_text()),
            simple=SimpleModel.from_json((folder / SIMPLE).read_text()),
            fitted=json.loads((folder / FITTED).read_text()),
        )


def write(folder: Path, told: Told, files: Mapping[str, bytes], changes: Sequence[Change]) -> Golden:
    """Store a folder whole, in place of what was there.

    Parameters
    ----------
    told : its `files` are added here
    files : path -> content, all but `golden.json` and the changes

    Raises
    ------
    DataError
        The folder holds what is no golden traffic.
    """
    refuse_other_files(folder)
    written = {**files, CHANGES: (json.dumps([asdict(each) for each in changes], indent=1) + "\n").encode()}
    hashes = {path: _sha256(content) for path, content in sorted(written.items())}
    golden = json.dumps(asdict(told) | {"files": hashes}, indent=1, ensure_ascii=False) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    try:
        for path, content in {**written, GOLDEN: golden.encode()}.items():
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_bytes(content)
        draft.chmod(0o755)
        _put(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Golden(folder)


def refuse_other_files(folder: Path) -> None:
    """Pass a folder that may be replaced: one that is not there, is empty, or holds golden traffic and nothing else.

    Raises
    ------
    DataError
        It holds a file that its `golden.json` does not name.
    """
    if folder.is_dir():
        named = {GOLDEN, *Golden(folder).told.files} if (folder / GOLDEN).exists() else set()
        found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
        other = next((path for path in found if path not in named), None)
    else:
        other = folder.name if folder.exists() else None
    if other is not None:
        raise DataError(
            f"{folder} holds {other}, which is no golden traffic and would be lost. Name another folder with `--into`, "
            "such as one inside it, or move that file away"
        )


def _put(draft: Path, folder: Path) -> None:
    """The old folder is renamed, and deleted when the new one is there: whenever it is killed, one of both is whole."""
    if not folder.exists():
        draft.rename(folder)
        return
    before = folder.with_name(f".before-{uuid.uuid4().hex}-{folder.name}")
    folder.rename(before)
    try:
        draft.rename(folder)
    except OSError:
        before.rename(folder)
        raise
    shutil.rmtree(before)


def found_in(root: Path) -> list[Path]:
    """Folders below `root` that hold golden traffic, `root` itself included, by name."""
    return sorted(path.parent for path in root.rglob(GOLDEN))


def lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as JSON lines; floats come back to the bit."""
    return "".join(json.dumps(each, allow_nan=False) + "\n" for each in rows).encode()


def arrow(frame: pl.DataFrame) -> bytes:
    """A frame as an Arrow file."""
    buffer = io.BytesIO()
    frame.rechunk().write_ipc(buffer, compression="zstd")
    return buffer.getvalue()


def instant_of(text: str) -> datetime:
    """An instant as it is stored."""
    return datetime.fromisoformat(text)


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
