"""`python -m rlaif`."""

from rlaif.cli.main import main

main()
