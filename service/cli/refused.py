"""What the command line refuses before any work: one line, exit code 2, no usage text.

Knows nothing of why.
"""

import click


class Refused(click.ClickException):
    """The words were understood; what they ask for is not allowed, and the message says why."""

    exit_code = 2
