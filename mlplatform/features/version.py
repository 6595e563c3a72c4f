"""The version of a feature view: a hash of its definition, unmoved by comments and formatting."""

from mlplatform.domain.domain import Domain
from mlplatform.domain.view import FeatureView
from mlplatform.provenance.code_version import declaration_version


def view_version(domain: Domain, view: FeatureView) -> str:
    """16 hex characters over code, dtypes, keys, window, time to live and publishing schedule.

    Meaning and unit count too: whoever reads a feature by its old meaning must notice.
    """
    return declaration_version(view, domain.publishing_delay)
