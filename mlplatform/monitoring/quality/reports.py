"""Where the Evidently reports of a day lie, and that a failed one is told instead."""

from pathlib import Path

from mlplatform.domain.domain import Domain
from mlplatform.errors import ReportFailed
from mlplatform.monitoring.quality.day_quality import DayQuality
from mlplatform.monitoring.report import write_report
from mlplatform.provenance.platform import Platform


def write_reports(platform: Platform, domain: Domain, found: DayQuality) -> dict[str, Path | str]:
    """Write a report of each manifest that was judged: by manifest its file, or why there is none."""
    told: dict[str, Path | str] = {}
    for each in found.manifests:
        if not each.features or each.sample is None or each.training_sample is None:
            continue
        path = report_path(platform, domain, found.day, each.model, each.manifest)
        worst = [feature.feature for feature in found.features if feature.manifest == each.manifest]
        order = [each.names.index(name) for name in worst]
        try:
            write_report(
                path,
                each.training_sample[:, order],
                each.sample[:, order],
                worst,
                f"{domain.name}/{each.model} {each.manifest[:12]} on {found.day}",
            )
            told[each.manifest] = path
        except ReportFailed as error:
            told[each.manifest] = str(error)
    return told


def report_path(platform: Platform, domain: Domain, day: str, model: str, manifest: str) -> Path:
    """The HTML file of one manifest and day; a day judged again replaces it."""
    return platform.home / "monitoring" / domain.name / "reports" / day / f"{model}-{manifest[:12]}.html"
