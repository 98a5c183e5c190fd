"""`python -m cvhw4`: the command line where the package is not installed."""

from cvhw4.cli import main

main()
