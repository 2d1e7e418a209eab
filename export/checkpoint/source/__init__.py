"""Models as people have them: diffusers folders and single files, read without torch and without loading weights."""

from costroute_rt.export.checkpoint.source.opening import open_source

__all__ = ["open_source"]
