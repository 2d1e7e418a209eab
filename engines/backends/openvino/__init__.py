"""OpenVINO: its backend, and what it needs to compute in fewer bits."""
