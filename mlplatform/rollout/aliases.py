"""The aliases in MLflow, set from the ledger: `champion`, and `challenger` while there is one.

They mirror it and decide nothing, so they are set after a move, by whoever has the time (MLflow takes seconds to
import), and again by the next one.
"""

from mlplatform.provenance.platform import Platform
from mlplatform.registry.candidate import bundle_of
from mlplatform.registry.ledger import Alias, Entry, Ledger, standing
from mlplatform.registry.mlflow_registry import remove_alias, set_alias


def mirror(platform: Platform, model: str) -> None:
    """Set the aliases of `domain/model`, and take away the one that nothing is behind.

    Raises
    ------
    Unavailable
        MLflow was never told of a version.
    """
    now = standing(Ledger(platform).entries(model))
    made: dict[Alias, Entry | None] = {"champion": now.champion, "challenger": now.challenger}
    for alias, entry in made.items():
        if entry is None:
            remove_alias(platform.mlflow_uri, model=model, alias=alias)
        else:
            set_alias(platform.mlflow_uri, manifest=bundle_of(platform, entry.to_manifest).manifest, alias=alias)
