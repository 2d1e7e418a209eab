"""PyInstaller's hook for costroute_rt: the shipped bundle, and the modules that are only loaded when a name is first used."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

from costroute_rt.__pyinstaller import is_needed

datas = collect_data_files("costroute_rt") + copy_metadata("costroute-rt")
hiddenimports = collect_submodules("costroute_rt", filter=is_needed)
