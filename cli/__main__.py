"""`python -m costroute_rt.cli` is `costroute-rt`."""

from costroute_rt.cli.start import main

main()
