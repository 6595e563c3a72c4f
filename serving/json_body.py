"""The JSON body of a request: one object, each name once.

It refuses what parsers like to let pass: a name twice (the last one would win in silence), `NaN`, a list, another
encoding. What the fields mean is checked elsewhere.
"""

import json
from collections import Counter
from typing import Any

import msgspec

from mlplatform.errors import MalformedBody

MAX_BYTES = 64 * 1024
"""A request has some tens of short fields, about 1 kB. Sixty-four times that is a mistake or an attack."""


def decode_object(body: bytes) -> dict[str, Any]:
    """The object in a body.

    Raises
    ------
    MalformedBody
        The body is no JSON, no object, or has a name twice.

    Examples
    --------
    >>> decode_object(b'{"carrier": "UA"}')
    {'carrier': 'UA'}
    """
    try:
        decoded = msgspec.json.decode(body)
        if isinstance(decoded, dict):
            # msgspec keeps the last of two equal names and has no hook for it; the standard parser has one (5 µs for
            # ten). It gives up a little earlier on what is nested.
            json.loads(body, object_pairs_hook=_each_name_once)
    except RecursionError as error:
        raise MalformedBody("it is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"it is not JSON ({error})") from error
    if not isinstance(decoded, dict):
        raise MalformedBody(f"it is JSON of another kind ({type(decoded).__name__})")
    return decoded


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = sorted(name for name, times in Counter(names).items() if times > 1)
        raise MalformedBody(f"{', '.join(twice[:20])} is there twice")
    return dict(pairs)
