"""Who it is that runs a command."""

import getpass
import os


def logged_in() -> str:
    """The login name; in a container whose user has none, its number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
