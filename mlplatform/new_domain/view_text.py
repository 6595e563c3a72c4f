"""The written `views.py`: the history of each entity, what the request itself tells, and known categories."""

from dataclasses import dataclass

import polars as pl

from mlplatform.new_domain.code_text import block, call, docstring, text
from mlplatform.new_domain.contract import short, wider
from mlplatform.new_domain.names import identifier
from mlplatform.new_domain.outcome import digits_of
from mlplatform.new_domain.proposal import Proposal, feature_name

few_numbers = 3
"""Number columns whose mean goes into a history: those that say most of the outcome."""

few_classes = 6
"""Classes whose share goes into a history."""

summable = 1e9
"""Largest number whose sums by whole numbers cannot overflow."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A feature: its declaration, and the expression that gives it."""

    name: str
    dtype: str
    meaning: str
    expression: str
    column: str = ""
    """The one column that it is, in other clothes; empty: it is made of more, or of the time."""

    bounds: tuple[float | None, float | None] = (None, None)

    @property
    def declared(self) -> str:
        """The `Feature`, laid out for a tuple within a view."""
        arguments = {"name": text(self.name), "dtype": self.dtype}
        for bound, value in zip(("minimum", "maximum"), self.bounds, strict=True):
            if value is not None:
                arguments[bound] = text(value)
        return call("Feature", arguments | {"meaning": text(self.meaning)}, indent=12, end=",")


def view_name(key: tuple[str, ...]) -> str:
    """Name of the view of an entity."""
    return "_".join(key)


def history(proposal: Proposal, key: tuple[str, ...]) -> list[Told]:
    """Features of an entity's past rows."""
    days, name = proposal.horizon.window, view_name(key)
    whose = f"of the {short(' and '.join(key))} in {days} d"
    told = [
        Told(
            name=feature_name(f"{name}_rows_{days}d", proposal),
            dtype="pl.Int32()",
            meaning=f"Rows {whose}",
            expression="pl.len().cast(pl.Int32)",
            bounds=(1, None),
        )
    ]
    if proposal.task == "multiclass":
        told += [
            Told(
                name=feature_name(f"{name}_{identifier(each, f'class_{number}')}_share_{days}d", proposal),
                dtype="pl.Float32()",
                meaning=f"Share {short(each)} {whose}",
                expression=f'mean(pl.col("outcome") == {number})',
                bounds=(0, 1),
            )
            for number, each in enumerate(proposal.outcome.classes[:few_classes])
        ]
    else:
        what = "Share" if proposal.task == "binary" else "Mean"
        told.append(
            Told(
                name=feature_name(f"{name}_{proposal.outcome.label}_mean_{days}d", proposal),
                dtype="pl.Float32()",
                meaning=f"{what} of {short(proposal.outcome.label)} {whose}",
                expression=_mean("outcome", digits_of(proposal.outcome.values)),
                bounds=(0, 1) if proposal.task == "binary" else (None, None),
            )
        )
    return told + [
        Told(
            name=feature_name(f"{name}_{each}_mean_{days}d", proposal),
            dtype="pl.Float32()",
            meaning=f"Mean of {short(each)} {whose}",
            expression=_mean(each, digits_of(proposal.rows[each])),
        )
        for each in _telling_numbers(proposal)
    ]


def of_request(proposal: Proposal) -> list[Told]:
    """Features of the request itself."""
    told = []
    if not proposal.days_only:
        told.append(
            Told(
                name=feature_name("request_hour", proposal),
                dtype="pl.Int32()",
                meaning=f"Hour of {short(proposal.time)}, {proposal.sampled.zone}",
                expression="time.dt.hour().cast(pl.Int32)",
                bounds=(0, 23),
            )
        )
    told.append(
        Told(
            name=feature_name("request_weekday", proposal),
            dtype="pl.Int32()",
            meaning=f"Day of the week of {short(proposal.time)}, {proposal.sampled.zone}; 1 is Monday",
            expression="time.dt.weekday().cast(pl.Int32)",
            bounds=(1, 7),
        )
    )
    for each in proposal.numbers:
        known = proposal.rows[each].drop_nulls()
        low, high = wider(float(known.min()), float(known.max()))  # type: ignore[arg-type]  # of numbers
        told.append(
            Told(
                name=feature_name(f"request_{each}", proposal),
                dtype="pl.Float32()",
                meaning=f"Column {short(proposal.sampled.written[each])}",
                expression=f'pl.col("{each}").cast(pl.Float32)',
                column=each,
                bounds=(low, high),
            )
        )
    for each in proposal.flags:
        told.append(
            Told(
                name=feature_name(f"request_{each}", proposal),
                dtype="pl.Int8()",
                meaning=f"1 where {short(proposal.sampled.written[each])} is true",
                expression=f'pl.col("{each}").cast(pl.Int8)',
                column=each,
                bounds=(0, 1),
            )
        )
    return told


def views_text(proposal: Proposal) -> str:
    """`views.py`."""
    parts = [
        docstring(
            f"Features: the history of each {' and of each '.join(map(view_name, proposal.entity))}, what the request "
            "tells" + (", and known categories." if proposal.words else "."),
        ),
        "",
        "from datetime import datetime, timedelta",
        *(["from typing import Any"] if proposal.words else []),
        "",
        "import polars as pl",
        "",
        f"from mlplatform.domain.view import Feature, FeatureView, {'FittedValue, ' if proposal.words else ''}OnDemand",
        "",
        f"window = timedelta(days={proposal.horizon.window})",
        docstring(f"How far a history reaches back; {proposal.horizon.window_why}."),
        "",
        "fresh = timedelta(days=3)",
        docstring("Time to live: a history that is three days behind tells of other days."),
        "",
        f"zone = {text(proposal.sampled.zone)}",
        docstring("Whose clock tells the hour and the day of the week."),
        "",
        "",
        *(line for key in proposal.entity for line in _history(proposal, key)),
        *_mean_function(),
        *_of_request(proposal),
        *(_categories() if proposal.words else []),
        block("views = ", [_view(proposal, key) for key in proposal.entity]),
        "",
        "on_demand = (",
        "    OnDemand(",
        '        name="request",',
        '        meaning="What the request itself tells",',
        "        function=of_request,",
        block("features=", [each.declared for each in of_request(proposal)], indent=8, end=","),
        "    ),",
        ")",
        "",
        _fitted(proposal),
    ]
    return "\n".join(parts) + "\n"


def _telling_numbers(proposal: Proposal) -> list[str]:
    sizes = {each: proposal.rows.select(pl.col(each).abs().max()).item() for each in proposal.numbers}
    possible = [each for each in proposal.numbers if sizes[each] <= summable]
    return sorted(possible, key=lambda each: -proposal.power[each])[:few_numbers]


def _mean(column: str, digits: int) -> str:
    return f'mean(pl.col("{column}"){f", digits={digits}" if digits else ""})'


def _history(proposal: Proposal, key: tuple[str, ...]) -> list[str]:
    name = view_name(key)
    names = ", ".join(text(each) for each in key)
    return [
        f"def {name}_history(facts: pl.DataFrame, _at: datetime) -> pl.DataFrame:",
        docstring(f"How the rows of each {short(name)} went lately.", indent=4),
        "    return (",
        f"        facts.drop_nulls([{names}])",
        f"        .group_by({names})",
        "        .agg(",
        *(f"            {each.name}={each.expression}," for each in history(proposal, key)),
        "        )",
        "    )",
        "",
        "",
    ]


def _mean_function() -> list[str]:
    return [
        "def mean(values: pl.Expr, digits: int = 0) -> pl.Expr:",
        '    """Mean by a sum of whole numbers, which no order of the rows can change; null without a value."""',
        "    whole = (values * 10**digits).round().cast(pl.Int64)",
        "    known = whole.drop_nulls().len()",
        "    return pl.when(known > 0).then(whole.sum() / known / 10**digits).cast(pl.Float32)",
        "",
        "",
    ]


def _of_request(proposal: Proposal) -> list[str]:
    return [
        "def of_request(requests: pl.DataFrame) -> pl.DataFrame:",
        '    """What the request itself tells."""',
        f'    time = pl.col("{proposal.time}").dt.convert_time_zone(zone)',
        "    return requests.select(",
        *(f"        {each.name}={each.expression}," for each in of_request(proposal)),
        "    )",
        "",
        "",
    ]


def _categories() -> list[str]:
    return [
        "def _categories(column: str, name: str) -> FittedValue:",
        '    """Known values of a column as numbers, the most frequent first; null for a rare or a new one."""',
        "",
        "    def fit(rows: pl.DataFrame) -> Any:",
        '        counted = rows.drop_nulls(column).group_by(column).len().filter(pl.col("len") >= 5)',
        '        return counted.sort(["len", column], descending=[True, False])[column].to_list()',
        "",
        "    def apply(rows: pl.DataFrame, known: Any) -> pl.DataFrame:",
        "        codes = {value: code for code, value in enumerate(known)}",
        "        code = pl.col(column).replace_strict(codes, default=None, return_dtype=pl.Int32)",
        "        return rows.select(code.alias(name))",
        "",
        '    meaning = f"Place of {column} among the known ones; null: a rare or a new one"',
        "    return FittedValue(",
        '        name=f"{column}_categories",',
        '        meaning=f"Values of {column} known from the training rows, the most frequent first",',
        "        features=(Feature(name=name, dtype=pl.Int32(), minimum=0, meaning=meaning),),",
        "        fit=fit,",
        "        apply=apply,",
        "    )",
        "",
        "",
    ]


def _view(proposal: Proposal, key: tuple[str, ...]) -> str:
    name = view_name(key)
    return "\n".join(
        [
            "    FeatureView(",
            f"        name={text(name)},",
            f"        meaning={text(f'Recent rows of the {short(name)}')},",
            '        facts="records",',
            f"        entity={text(key)},",
            block("features=", [each.declared for each in history(proposal, key)], indent=8, end=","),
            "        look_back=window,",
            "        ttl=fresh,",
            f"        function={name}_history,",
            "    ),",
        ]
    )


def _fitted(proposal: Proposal) -> str:
    names = [(each, feature_name(f"{each}_code", proposal)) for each in proposal.words]
    if not names:
        return "fitted = ()"
    return call("fitted = ", [f'_categories("{column}", "{name}")' for column, name in names])
