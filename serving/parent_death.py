"""The end of a worker whose parent has died: nobody else would look after it."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of <linux/prctl.h>."""


def end_with_parent(by: signal.Signals) -> None:
    """Let the kernel send this process a signal when its parent dies; Linux only, elsewhere it lives on.

    The parent is the thread that started this process, so a supervisor starts its workers from its main thread.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os.kill(os.getpid(), by)
