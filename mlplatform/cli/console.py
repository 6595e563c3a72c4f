"""Where the command writes: what was asked for, and what went wrong."""

from rich.console import Console

out = Console()
problems = Console(stderr=True)
