"""A child's bond to its parent: stdin is a pipe that ends when the parent does, however it dies."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable


def follow_parent(on_orphaned: Callable[[], object]) -> None:
    """Call `on_orphaned` in a thread once stdin ends. Does nothing when stdin is no pipe."""

    def wait() -> None:
        handle = sys.stdin.fileno()
        while os.read(handle, 1024):
            pass
        on_orphaned()

    if not sys.stdin.closed and not os.isatty(sys.stdin.fileno()):
        threading.Thread(target=wait, name="lifeline", daemon=True).start()
