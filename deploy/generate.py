"""Writes the files of this folder: `python -m deploy.generate`, after a change of metrics, rules or dashboards."""

import json
from pathlib import Path

import yaml

from deploy.dashboards import dashboards
from deploy.rules import rule_file

FOLDER = Path(__file__).parent


def contents() -> dict[Path, str]:
    """Path below this folder -> what stands in it."""
    head = "# Made by `python -m deploy.generate`; change deploy/rules.py.\n"
    rules = yaml.safe_dump(rule_file(), sort_keys=False, width=120, allow_unicode=True)
    boards = {
        Path("grafana") / name: json.dumps(board, indent=2, ensure_ascii=False) + "\n"
        for name, board in dashboards().items()
    }
    return {Path("prometheus") / "mlplatform.rules.yml": head + rules, **boards}


def main() -> None:
    """Write them."""
    for path, content in contents().items():
        (FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / path).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
