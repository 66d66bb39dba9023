"""What the guard raises when it is asked something it cannot answer: a wrong path, no such GPU.

Only for questions. What is wrong with an installation is a finding, never an exception.
"""

from __future__ import annotations


class GuardError(Exception):
    """`message` says what was wrong with the question, `next_step` how to put it right."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
