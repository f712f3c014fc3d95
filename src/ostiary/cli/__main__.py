"""`python -m ostiary.cli`: the same as the console script."""

from ostiary.cli import main

main()
