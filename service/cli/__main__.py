"""`python -m service.cli`: the command where no entry point is installed."""

from service.cli import main

main()
