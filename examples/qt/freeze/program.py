"""The one program of the folder: the window, and with the name of a command, such as `serve`, the command line of costroute-rt."""

import sys

if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
    from costroute_rt.cli.start import main as run_command

    run_command()
else:
    from costroute_qt.__main__ import main as open_window

    sys.exit(open_window())
