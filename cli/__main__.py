"""`python -m costroute_rt.cli` is `costroute-rt`.

Python itself puts the working directory before all modules when it is started with `-m`, so that a json.py there is run. The command
`costroute-rt` does not look there; nor does `python -P -m costroute_rt.cli`, with Python 3.11 and later.
"""

from costroute_rt.cli.start import main

main()
