"""`python -m costroute_rt.cli` is `costroute-rt`."""

from costroute_rt.cli.main import main

main()
