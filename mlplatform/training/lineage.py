"""Where a version comes from and where it went, as links between the pages of the UI.

Each step that a recipe goes through is an asset with a partition of the recipe's own; the links lead from the page of
each to the same recipe's page of every other, also to those that came later. It only names: what is not made yet is a
page that says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from mlplatform.domain.domain import Domain
from mlplatform.training.recipe import Recipe, facts_table, input_pins

steps = ("training_set", "model", "evaluation", "promotion", "rollout", "bento", "dossier")
"""Assets of a recipe, in the order in which they are made."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """A table that a version was made from."""

    table: str
    asset: tuple[str, ...]
    """Key of the asset that fills it."""

    days: int
    first: str
    last: str
    corrected: int
    """Days that were read in a later revision than the first."""


def inputs_of(domain: Domain, made: Recipe) -> list[Input]:
    """The tables of a recipe: the facts of the requests, then the views."""
    facts = facts_table(domain)
    return [
        Input(
            table=table,
            asset=(domain.name, "derived") if table == facts else (table.split("/")[0], "feature_store"),
            days=len(days),
            first=min(days, default=""),
            last=max(days, default=""),
            corrected=sum(number > 1 for number in days.values()),
        )
        for table, days in input_pins(domain, made).items()
    ]


def data_links(inputs: Iterable[Input]) -> str:
    """Markdown: the assets that the tables of some inputs are of, each a link to its page."""
    return ", ".join(link("/".join(asset), page(asset)) for asset in dict.fromkeys(each.asset for each in inputs))


def steps_said(model: str, recipe: str) -> str:
    """Markdown: every step of a version of `domain/model`, each a link to its page."""
    return " → ".join(link(step.replace("_", " "), page((*model.split("/"), step), recipe)) for step in steps)


def page(asset: Iterable[str], partition: str = "") -> str:
    """Address of an asset's page from the root of the UI; of one partition, or of the newest.

    Examples
    --------
    >>> page(("shop", "late", "model"), "2024-01-21-ab12cd34")
    '/assets/shop/late/model?view=partitions&partition=2024-01-21-ab12cd34'
    """
    shown = f"?view=partitions&partition={quote(partition, safe='')}" if partition else ""
    return f"/assets/{'/'.join(quote(part, safe='') for part in asset)}{shown}"


def link(text: str, address: str) -> str:
    """Markdown of a link."""
    return f"[{text}]({address})"
