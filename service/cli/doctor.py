"""`meshpress doctor`: the guard's checks as a table or JSON.

Knows nothing of the checks. The same report, when even click is broken: `python -m service.guard`.
"""

from __future__ import annotations

import click


@click.command("doctor", short_help="Check this installation and machine.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--quick", is_flag=True, help="Do not try to import every package.")
def doctor(as_json: bool, quick: bool) -> int:
    """Check this installation and machine: exit code 0 fine, 1 warnings, 2 cannot serve."""
    from service.guard.checks import run_checks
    from service.guard.report import exit_code, to_json, to_text
    from service.settings import read_settings

    settings = read_settings()
    findings = run_checks(
        data_dir=settings.data_dir,
        min_free_bytes=settings.min_free_bytes,
        host=settings.host,
        port=settings.port,
        devices=settings.devices,
        import_packages=not quick,
    )
    click.echo(to_json(findings) if as_json else to_text(findings))
    return exit_code(findings)
