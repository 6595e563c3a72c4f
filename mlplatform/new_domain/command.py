"""A new domain, from the sample file to the package in its place."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from rich.console import Console

from mlplatform.domain.domain import Domain
from mlplatform.new_domain.package import checkout, place_of, write_package
from mlplatform.new_domain.proposal import propose
from mlplatform.new_domain.questions import Ask, Given, choose
from mlplatform.new_domain.sampled import read
from mlplatform.new_domain.summary import show
from mlplatform.provenance.platform import wall_clock


def new_domain(
    name: str,
    sample: Path,
    given: Given,
    *,
    zone: str,
    into: Path | None,
    existing: Mapping[str, Domain],
    ask: Ask | None,
    console: Console,
    clock: Callable[[], datetime] = wall_clock,
    root: Path = checkout,
) -> Domain:
    """Read, ask, propose, write and tell; gives the declaration of what was written.

    Parameters
    ----------
    sample : CSV, Parquet or JSON-lines file
    given : what is said by flags
    zone : of times that name none
    into : new folder for a package of its own; None: a domain of this checkout
    existing : registered domains, by name
    ask : asks a person; None: nobody is there
    root : of the checkout

    Raises
    ------
    DeclarationError
        The name, a column or a flag cannot be what it is said to be.
    DataError
        The sample cannot be read, or does not suffice.
    """
    place = place_of(name, into, existing, root)
    proposal = propose(name, choose(read(sample, zone), given, ask), now=clock())
    written = write_package(proposal, place)
    show(proposal, place, console)
    return written
