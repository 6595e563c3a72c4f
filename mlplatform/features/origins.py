"""Where a revision comes from: the revisions that it was made from, theirs, and so on to the files that landed.

Each revision names its inputs, so the way back is a walk over listings; no row is read. A table is listed once for all
the steps of a walk, and what is appended meanwhile is no part of it. It judges nothing: an input that no table holds
any more is given as just that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mlplatform.domain.domain import Domain
from mlplatform.domain.source import Folder
from mlplatform.features.landing.files import files_of
from mlplatform.features.landing.landing import place_of
from mlplatform.features.stage import Revision, Stage
from mlplatform.features.tables import Tables
from mlplatform.provenance.platform import Platform

LANDING, STREAMED = "landing/", "streamed/"
"""Inputs that are no revisions: a landed day, and the recorded day of a stream."""


@dataclass(frozen=True, kw_only=True)
class Landing:
    """A landed day that a value was made from."""

    raw: str
    """`raw/source/day@revision`."""

    version: str
    """Of what had landed: the hash of the file's bytes, or whatever its place tells versions by."""

    file: str
    """Where it landed."""


class Origins:
    """Follows the revisions of one domain's tables back.

    Parameters
    ----------
    owner : whose tables; a revision is made from tables of its own domain only
    """

    def __init__(self, platform: Platform, owner: Domain) -> None:
        self._platform = platform
        self._owner = owner
        self._tables = Tables(platform, owner)
        self._listed: dict[tuple[str, str], tuple[Stage, dict[tuple[str, int], Revision]]] = {}

    def revision(self, name: str) -> tuple[Stage, Revision | None]:
        """The revision that is called `stage/table/partition@number`, and its table; None where there is none.

        Raises
        ------
        DeclarationError
            The domain has no such table any more.
        """
        stage, table, partition, number = parts_of(name)
        store, held = self._listing(stage, table)
        return store, held.get((partition, number))

    def behind(self, names: Iterable[str]) -> dict[str, tuple[Stage, Revision | None]]:
        """Revisions by their names, and all that they go back to, each once; None for those that no table holds."""
        found: dict[str, tuple[Stage, Revision | None]] = {}
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in found or name.startswith((LANDING, STREAMED)):
                continue
            found[name] = self.revision(name)
            revision = found[name][1]
            waiting += revision.inputs if revision else ()
        return found

    def landings(self, revision: Revision) -> Iterator[Landing]:
        """The landed days that a revision goes back to."""
        for name, (_, found) in self.behind(revision.inputs).items():
            if name.startswith("raw/") and found is not None:
                yield from (self.landing(name, each) for each in found.inputs)

    def of_day(self, name: str) -> list[Revision]:
        """Every revision of the partition that a revision is of."""
        stage, table, partition, _ = parts_of(name)
        return [each for each in self._listing(stage, table)[1].values() if each.partition == partition]

    def landing(self, raw: str, name: str) -> Landing:
        """What an input `landing/source/day@version` of a raw revision stands for."""
        _, source, day, _ = parts_of(raw)
        return Landing(raw=raw, version=name.removeprefix(f"{LANDING}{source}/{day}@"), file=self._file(source, day))

    def _listing(self, stage: str, table: str) -> tuple[Stage, dict[tuple[str, int], Revision]]:
        if (stage, table) not in self._listed:
            if stage == "feature_store":
                store = self._tables.features(next(each for each in self._owner.views if each.name == table))
            else:
                store = getattr(self._tables, stage)(table)
            held = {(each.partition, each.number): each for each in store.revisions()}
            self._listed[stage, table] = store, held
        return self._listed[stage, table]

    def _file(self, source: str, day: str) -> str:
        """Where a day of a source landed; its file by name, where it lies in a folder still."""
        place = place_of(self._platform, self._owner, self._owner.source(source))
        if isinstance(place, Folder):
            there = [file for file in files_of(day) if (place.path / file).exists()]
            return str(place.path / (there[0] if there else day))
        return f"{place}/{day}"


def parts_of(name: str) -> tuple[str, str, str, int]:
    """Stage, table, partition and number of a revision's name.

    Examples
    --------
    >>> parts_of("raw/orders/2024-01-04@2")
    ('raw', 'orders', '2024-01-04', 2)
    """
    stage, table, rest = name.split("/", 2)
    partition, _, number = rest.rpartition("@")
    return stage, table, partition, int(number)
