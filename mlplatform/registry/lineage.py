"""What a model was made from, for people: data, code and environment as its bundle tells them, and where MLflow has it.

The same facts are in the release dossier of what was promoted; here they are of every model, on the page where people
look at it, with the commands that go further.
"""

import re
from dataclasses import dataclass

from mlplatform.domain.domain import Domain
from mlplatform.provenance.record import Record
from mlplatform.registry.bundle import Bundle
from mlplatform.registry.mlflow_registry import LoggedModel, registered_name
from mlplatform.registry.origin import RECIPE_FILE, origin_of
from mlplatform.training.lineage import Input, inputs_of, link
from mlplatform.training.recipe import Recipe

_commit_digits = 12


@dataclass(frozen=True, kw_only=True)
class Table:
    """An input table of a model."""

    input: Input
    revisions: str
    """Digest of the revisions; empty: the record does not have it."""

    content: str
    """Digest of the content hashes of those revisions; empty: the same."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Facts of one model."""

    model: str
    recipe: str
    manifest: str
    tables: tuple[Table, ...]
    training_set: str
    """Content hash of its rows."""

    record: Record


def lineage_of(domain: Domain, bundle: Bundle, recipe: Recipe) -> Lineage:
    """What the model of a bundle was made from.

    Parameters
    ----------
    recipe : of its folder, for a bundle that does not hold its own
    """
    record = bundle.manifest.record
    if RECIPE_FILE in bundle.manifest.files:
        recipe = origin_of(bundle).recipe
    return Lineage(
        model=bundle.manifest.model,
        recipe=bundle.manifest.model_version,
        manifest=bundle.digest,
        tables=tuple(
            Table(
                input=each,
                revisions=record.inputs.get(each.table, ""),
                content=(record.contents or {}).get(each.table, ""),
            )
            for each in inputs_of(domain, recipe)
        ),
        training_set=record.training_set,
        record=record,
    )


def code_said(record: Record) -> str:
    """Markdown: the commit, and the version of each piece of code.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> told = SimpleNamespace(commit="0123456789abcdef", dirty=True, code={"training": "ab"}, lock="cd" * 20)
    >>> print(code_said(told))
    commit `0123456789ab` and changes that no commit holds; lock file `cdcdcdcdcdcd`
    <BLANKLINE>
    | code | version |
    |---|---|
    | training | `ab` |
    """
    beside = {None: "", False: ", nothing changed beside it", True: " and changes that no commit holds"}[record.dirty]
    commit = f"commit `{record.commit[:_commit_digits]}`{beside}" if record.commit else "no commit is known"
    lines = [f"| {name} | `{version}` |" for name, version in record.code.items()]
    told = f"{commit}; lock file `{record.lock[:_commit_digits]}`"
    return "\n".join([told, "", "| code | version |", "|---|---|", *lines])


def mlflow_said(tracking_uri: str, model: str, recipe: str, logged: LoggedModel | None = None) -> str:
    """Markdown: where MLflow has a version: a link where a server does, else its names and the command.

    Parameters
    ----------
    logged : the version and run, once it was registered; None: the model of all versions

    Examples
    --------
    >>> mlflow_said("http://user:secret@mlflow:5000/", "shop/late", "2024-01-21-ab12cd34")
    '[shop.late](http://mlflow:5000/#/models/shop.late), run `2024-01-21-ab12cd34`'
    """
    name, address = registered_name(model), _without_secrets(tracking_uri)
    if not tracking_uri.startswith(("http://", "https://")):
        version = f" version {logged.version}" if logged else ""
        return f"`{name}`{version}, run `{recipe}`: `mlflow ui --backend-store-uri {address}` shows it"
    root = address.rstrip("/")
    if logged is None:
        return f"{link(name, f'{root}/#/models/{name}')}, run `{recipe}`"
    version = f"{root}/#/models/{name}/versions/{logged.version}"
    return f"{link(f'{name} version {logged.version}', version)}, {link('run', f'{root}/#/runs/{logged.run_id}')}"


def commands(model: str, recipe: str) -> str:
    """Markdown: what can be asked further of a version of `domain/model`."""
    return "\n".join(
        [
            f"- `mlplatform reproduce {model}@{recipe}` makes it again and compares",
            f"- `mlplatform diff {model}@{recipe} {model}@OTHER` says how it differs from another version",
            f"- `mlplatform rollout history {model}` tells of its rollouts",
        ]
    )


def _without_secrets(address: str) -> str:
    """An address that may be shown: it may name a user and a password, before the host or among its options."""
    # Not `urlsplit`: a database's password may hold what ends the host of a link.
    shown = re.sub(r"://[^:/?@]*(:.*)?@", "://", address)
    return re.split("[?&]", shown)[0] if "://" in shown else shown
