"""A trail as a tree: each node is something that an answer goes back to, its children what that goes back to."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Node:
    """One thing on a trail."""

    label: str
    """Its name."""

    detail: str = ""
    """What is known of it."""

    children: tuple["Node", ...] = ()
    """What it was made from; of revisions, the newest first."""

    fault: str = ""
    """What is wrong with it: gone, or not what was written. Empty: nothing that was looked at."""

    def faults(self) -> Iterator[tuple[str, str]]:
        """Label and fault of each node that has one, each once, from the answer on."""
        met: set[str] = set()
        waiting = [self]
        while waiting:
            node = waiting.pop(0)
            if node.fault and node.label not in met:
                met.add(node.label)
                yield node.label, node.fault
            waiting += node.children
