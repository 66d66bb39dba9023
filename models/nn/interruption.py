"""A network that can be stopped in the middle of a pass: a call before each of its parts may raise.

Knows neither networks nor who wants them stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def before_each(parts: Iterable[nn.Module], call: Callable[[], None]) -> Iterator[None]:
    """Within it `call` runs before every pass of these parts; what it raises ends the whole pass.

    On a GPU it runs when a part is queued, not when it is computed.
    """
    handles = [part.register_forward_pre_hook(lambda *_: call()) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
