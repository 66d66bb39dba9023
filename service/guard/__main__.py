"""`python -m service.guard`: the report where even the command line is broken."""

import sys

from service.guard.checks import run_checks
from service.guard.report import exit_code, to_text

findings = run_checks(thorough=True).findings
sys.stdout.write(to_text(findings) + "\n")
sys.exit(exit_code(findings))
