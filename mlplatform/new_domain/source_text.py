"""The written `sources.py`, `sample.py` and `__init__.py`."""

import polars as pl

from mlplatform.domain.column import Column
from mlplatform.new_domain.code_text import block, call, docstring, dtype_text, text
from mlplatform.new_domain.contract import short, wider
from mlplatform.new_domain.proposal import Proposal

SAMPLE = '''"""The sample as its source would have sent it: on each day (UTC), the rows whose outcome was known."""

from datetime import date
from functools import cache
from pathlib import Path

import polars as pl

from mlplatform.domain.source import Sample

from .sources import contract, facts


def sent_on(_source: str, day: date) -> pl.DataFrame:
    """What the source sent on a day; no rows on a quiet one."""
    days, empty = _by_day()
    return days.get(day, empty)


@cache
def _by_day() -> tuple[dict[date, pl.DataFrame], pl.DataFrame]:
    rows = pl.read_parquet(Path(__file__).parent / "data" / "sample.parquet").select(contract.names)
    known_on = facts(rows)["event_time"].dt.date().alias("_day")
    parts = rows.with_columns(known_on).partition_by("_day", as_dict=True, include_key=False)
    return {day: part for (day,), part in parts.items()}, rows.clear()


sample = Sample(start=START, end=END, demo_days=DAYS, read=sent_on)
'''

INIT = """MODULE

from mlplatform.domain.domain import Domain
from mlplatform.domain.reproducibility import Reproducibility

from .models import model, requests
from .sample import sample
from .sources import records
from .views import fitted, on_demand, views

DOMAIN = Domain(
    name=NAME,
    meaning=MEANING,
    owners=(OWNER,),
    start=sample.start,
    sources=(records,),
    views=views,
    on_demand=on_demand,
    fitted=fitted,
    requests=requests,
    models=(model,),
    history_until=sample.end,
    sample=sample,
    # While the proposal is being edited its models may serve, and the edits are kept in their bundles. Take this out
    # before people rely on it: then what no commit holds is not promoted.
    reproducibility=Reproducibility(dirty_tree="stored"),
)
"""


def init_text(proposal: Proposal) -> str:
    """`__init__.py`."""
    task = {"binary": "a yes or no", "multiclass": "one of several classes", "regression": "an amount"}[proposal.task]
    module = docstring(
        f"{proposal.name}: predicts `{proposal.outcome.label}`, {task}, from what is known at `{proposal.time}`.",
        f"Written by `mlplatform new` from {short(proposal.sampled.file)}. Everything in it is a proposal to be looked "
        "over: the ranges in `sources.py`, the features in `views.py`, the thresholds in `models.py`.",
    )
    return (
        INIT.replace("MODULE", module)
        .replace("NAME", text(proposal.name))
        .replace("MEANING", text(f"Predicts {proposal.outcome.label}, asked at {proposal.time}"))
        .replace("OWNER", text(f"team:{proposal.name}"))
    )


def sample_text(proposal: Proposal) -> str:
    """`sample.py`."""
    horizon = proposal.horizon
    return (
        SAMPLE.replace("START", text(horizon.first))
        .replace("END", text(horizon.last))
        .replace("DAYS", str(horizon.days))
    )


def sources_text(proposal: Proposal) -> str:
    """`sources.py`."""
    rules = proposal.known_at is not None
    uses_delta = not rules
    horizon = proposal.horizon
    parts = [
        docstring(
            "The one source, `records`: what its columns promise, and the facts made of its rows.",
            f"Proposed from {short(proposal.sampled.file)}: {proposal.rows.height:,} rows, {horizon.first} to "
            f"{horizon.last}. Ranges have as much room on either side as was seen; narrow them to what is honest. "
            f"Times carry their zone here; those of the sample that named none were read as {proposal.sampled.zone}.",
        ),
        "",
        *(["from datetime import timedelta", ""] if uses_delta else []),
        "import polars as pl",
        "",
        f"from mlplatform.domain.column import Column, Contract{', RowRule' if rules else ''}",
        "from mlplatform.domain.source import Source",
        "",
        'instant = pl.Datetime("us", "UTC")',
        "",
        *_known_after(proposal),
        *_classes(proposal),
        block("columns = ", [_column(each.column) for each in proposal.columns]),
        *_rule(proposal),
        *_contract(proposal),
        "",
        "",
        *_facts(proposal),
        "",
        "",
        _outcome_column(proposal),
        "",
        "records = Source(",
        '    name="records",',
        f"    meaning={text(f'Rows as {short(proposal.sampled.file)} holds them, sent when their outcome is known')},",
        "    contract=contract,",
        "    base=facts,",
        "    base_columns=(*columns, outcome),",
        ")",
    ]
    return "\n".join(parts) + "\n"


def _known_after(proposal: Proposal) -> list[str]:
    if proposal.known_at is not None:
        return []
    return [
        f"known_after = {text(proposal.known_after)}",
        docstring(f"From `{proposal.time}` until the outcome is known: {proposal.known_after_why}."),
        "",
    ]


def _classes(proposal: Proposal) -> list[str]:
    if proposal.task != "multiclass":
        return []
    return [
        call("classes = ", [text(each) for each in proposal.outcome.classes]),
        docstring(f"Values of `{proposal.outcome.label}`; the outcome is the place in this list."),
        "",
    ]


def _column(column: Column) -> str:
    arguments = {"name": text(column.name), "dtype": dtype_text(column.dtype), "meaning": text(column.meaning)}
    if column.nullable:
        arguments["nullable"] = "True"
    for bound in ("minimum", "maximum", "max_null_share"):
        value = getattr(column, bound)
        if value is not None:
            arguments[bound] = text(value)
    if column.allowed is not None:
        arguments["allowed"] = text(column.allowed)
    if column.severity != "quarantine":
        arguments["severity"] = text(column.severity)
    return call("Column", arguments, indent=4, end=",")


def _rule(proposal: Proposal) -> list[str]:
    if proposal.known_at is None:
        return [""]
    return [
        "",
        "",
        "def _known_after_asked() -> pl.Expr:",
        f"    return pl.col({text(proposal.known_at)}) >= pl.col({text(proposal.time)})",
        "",
        "",
    ]


def _contract(proposal: Proposal) -> list[str]:
    most = int(wider(0, 5 * proposal.horizon.busiest)[1])
    lines = ["contract = Contract(", "    columns=columns,", f"    unique={_key(proposal)},"]
    if proposal.known_at is not None:
        rule = call(
            "RowRule",
            {
                "name": text("known after it was asked"),
                "holds": "_known_after_asked",
                "meaning": text("No outcome is known before it is asked for"),
            },
            indent=8,
            end=",",
        )
        lines += ["    rules=(", rule, "    ),"]
    return [*lines, f"    max_rows={_grouped(most)},", ")"]


def _key(proposal: Proposal) -> str:
    if len(proposal.key) == len(proposal.columns):
        return "tuple(column.name for column in columns)"
    return text(proposal.key)


def _grouped(number: int) -> str:
    return f"{number:_}" if number >= 10_000 else str(number)


def _facts(proposal: Proposal) -> list[str]:
    known = f'pl.col("{proposal.known_at}")' if proposal.known_at else f'pl.col("{proposal.time}") + known_after'
    return [
        "def facts(landed: pl.DataFrame) -> pl.DataFrame:",
        '    """Rows with their outcome as a number; a row is a fact from the moment on when its outcome is known."""',
        "    return landed.with_columns(",
        f"        outcome={_outcome(proposal)},",
        f"        event_time={known},",
        "    )",
    ]


def _outcome(proposal: Proposal) -> str:
    label = f'pl.col("{proposal.outcome.label}")'
    dtype = proposal.rows.schema[proposal.outcome.label]
    if proposal.task == "regression":
        return f"{label}.cast(pl.Float64)"
    if proposal.task == "multiclass":
        plain = label if dtype == pl.String() else f"{label}.cast(pl.String)"
        codes = "{name: number for number, name in enumerate(classes)}"
        return f"{plain}.replace_strict(\n            {codes}, default=None, return_dtype=pl.Int8\n        )"
    yes = proposal.outcome.classes[1]
    if dtype == pl.Boolean():
        return f"{label}.cast(pl.Int8)"
    return f"({label} == {text(yes) if dtype == pl.String() else yes}).cast(pl.Int8)"


def _outcome_column(proposal: Proposal) -> str:
    arguments = {
        "name": text("outcome"),
        "dtype": "pl.Float64()" if proposal.task == "regression" else "pl.Int8()",
        "meaning": text(f"`{short(proposal.outcome.label)}` as a number"),
    }
    return call("outcome = Column", arguments | ({"nullable": "True"} if proposal.outcome.values.null_count() else {}))
