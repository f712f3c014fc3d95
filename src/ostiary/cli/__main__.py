"""`python -m ostiary.cli`: runs the same command line as the console script `ostiary`."""

from ostiary.cli import main

main()
