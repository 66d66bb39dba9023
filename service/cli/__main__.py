"""`python -m service.cli`: the command where no entry point is installed."""

from service.cli.root import main

main()
