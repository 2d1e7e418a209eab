"""A limit for the memory of graphs that are not known to be harmless: ONNX Runtime refuses a tensor before it takes the memory."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from costroute_rt.engines.bundle.onnx_file import RELU
from costroute_rt.engines.machine import device

if TYPE_CHECKING:
    from onnxruntime import SessionOptions

_log = logging.getLogger(__name__)

NO_ROOM = "it needs more memory than this machine has"
_NO_ROOM_TEXTS = ("Available memory of", "bad_alloc")
"""Texts of ONNX Runtime's error when a tensor does not fit: into the arena, and, where it has none, into the memory."""
_SHARE = 0.8
"""Share of the machine's memory."""


def limit_arena(ort: ModuleType, options: SessionOptions) -> None:
    """Let sessions with these options allocate from one arena of limited size; ort: the module."""
    if _has_arena(ort):
        options.add_session_config_entry("session.use_env_allocators", "1")


def shrink_arena(ort: ModuleType) -> None:
    """Give back what closed sessions have left in the arena, which only the end of a run does: here one of a tiny graph."""
    if not _has_arena(ort):
        return
    options, run_options = ort.SessionOptions(), ort.RunOptions()
    options.log_severity_level = run_options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    limit_arena(ort, options)
    run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    with suppress(Exception):  # memory that is not given back is no reason to fail
        session = ort.InferenceSession(RELU, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        session.run(None, {"x": np.ones(1, np.float32)}, run_options)


def is_no_room(error: Exception) -> bool:
    """Whether ONNX Runtime failed because a tensor does not fit."""
    return any(text in str(error) for text in _NO_ROOM_TEXTS)


@cache
def _has_arena(ort: ModuleType) -> bool:
    """Make the arena, once in a process; False where this ONNX Runtime cannot."""
    limit = int(_SHARE * device.memory_bytes())
    if not limit:
        return False
    settings = {"max_mem": limit, "arena_extend_strategy": 1, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    try:
        info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(info, ort.OrtArenaCfg(settings))
    except Exception as error:  # ONNX Runtime has a dozen unrelated exception classes
        _log.debug("graphs are checked without a limit of memory: %s", error)
        return False
    return True
