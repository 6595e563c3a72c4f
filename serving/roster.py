"""The roster: which model versions serve, and where their workers listen.

The supervisor writes it, gateway workers read it: one small file that is replaced as a whole.
"""

import os
from pathlib import Path

import msgspec

FILE = "roster.json"


class Version(msgspec.Struct, frozen=True):
    """A model version that has workers."""

    digest: str
    bundle: str
    """Folder of the bundle."""

    sockets: tuple[str, ...]
    since: str
    """When it became what it is, ISO 8601."""


class Roster(msgspec.Struct, frozen=True):
    """What a gateway worker goes by."""

    live: Version
    warm: Version | None = None
    challenger: Version | None = None
    refused: dict[str, str] = {}
    """Digest of a bundle that was to serve -> why its workers refuse it."""


def write_roster(folder: Path, roster: Roster) -> None:
    """Replace the roster."""
    draft = folder / f"{FILE}.draft"
    draft.write_bytes(msgspec.json.encode(roster))
    os.replace(draft, folder / FILE)


def read_roster(folder: Path) -> Roster:
    """The roster as it is now."""
    return msgspec.json.decode((folder / FILE).read_bytes(), type=Roster)
