"""PyInstaller's hook for the command line: each command is imported by its name."""

from costroute_rt.cli.main import COMMANDS

hiddenimports = [f"costroute_rt.cli.{name.replace('-', '_')}" for name in COMMANDS]
