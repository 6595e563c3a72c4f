"""Names: of the domain, which becomes a package, and of columns, which become words of its code."""

import keyword
import re
import unicodedata
from collections.abc import Collection, Sequence

from mlplatform.errors import DeclarationError

taken_columns = frozenset(
    {"at", "available_at", "broken_rules", "event_time", "known_at", "label", "label_available_at", "outcome"}
)
"""Names that the platform or the written package gives to columns of its own."""


def check_name(name: str, existing: Collection[str]) -> None:
    """Refuse what cannot be the name of a domain and of its package.

    Raises
    ------
    DeclarationError
        It is no lower-case word of Python, or there is a domain or a module of that name.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name.endswith("_") or "__" in name:
        raise DeclarationError(
            f"{name!r} cannot name a domain: it names a Python package, tables and addresses. Use lower-case letters, "
            f"digits and single underscores, such as {identifier(name, 'my_domain')!r}"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise DeclarationError(f"{name!r} is a word of Python. Take another name, such as {name + '_domain'!r}")
    if name in existing:
        raise DeclarationError(f"{name!r} is taken. Take another name, or remove what has it; nothing was written")


def column_names(written: Sequence[str]) -> dict[str, str]:
    """A name for every column: lower-case words with underscores, each once, none that the platform uses itself.

    Examples
    --------
    >>> column_names(["Order ID", "Temp (°C)", "label", "2nd"])
    {'Order ID': 'order_id', 'Temp (°C)': 'temp_c', 'label': 'label_column', '2nd': 'column_2nd'}
    """
    names: dict[str, str] = {}
    for number, each in enumerate(written, start=1):
        name = identifier(each, f"column_{number}")
        name = f"{name}_column" if name in taken_columns else name
        names[each] = free(name, names.values())
    return names


def identifier(text: str, otherwise: str) -> str:
    """Lower-case words with underscores; `otherwise` where the text holds no Latin letter or digit."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    plain = unicodedata.normalize("NFKD", split).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return f"column_{name}" if name[:1].isdigit() else name or otherwise


def free(name: str, taken: Collection[str]) -> str:
    """The name, or with the first number that makes it new."""
    if name not in taken:
        return name
    return next(numbered for number in range(2, len(taken) + 3) if (numbered := f"{name}_{number}") not in taken)
