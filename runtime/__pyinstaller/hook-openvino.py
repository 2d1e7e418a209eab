"""PyInstaller's hook for OpenVINO, which loads the plugin of each device and the readers of each format by their file names."""

from PyInstaller.utils.hooks import collect_data_files, collect_dynamic_libs

binaries = collect_dynamic_libs("openvino")
datas = collect_data_files("openvino", subdir="libs")
