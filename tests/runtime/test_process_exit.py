"""A program that ends while images are being made ends cleanly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from costroute_rt import Runtime

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")

START = """
import contextlib, sys, threading, time
from costroute_rt import Runtime, StateError
runtime = Runtime.open(sys.argv[1], home=sys.argv[2], threads=2)
started = threading.Event()
def draw():
    while True:
        runtime.generate("a red house", on_step=lambda event: started.set())
"""
ENDINGS = {
    "daemon thread": "threading.Thread(target=draw, daemon=True).start(); started.wait(60)",
    "several daemon threads": "[threading.Thread(target=draw, daemon=True).start() for _ in range(4)]; started.wait(60)",
    "sys.exit": "threading.Thread(target=draw, daemon=True).start(); started.wait(60); sys.exit(0)",
    "jobs": "jobs = [runtime.submit('a red house', count=500) for _ in range(3)]",
    "paused stream": "stream = runtime.stream('a red house', candidate='tiny-base@4'); next(stream)",
    "forgotten asyncio task": """
import asyncio
async def main():
    task = asyncio.create_task(runtime.generate_async("a red house", count=500))
    await asyncio.sleep(0.05)
asyncio.run(main())
""",
    "opening in a daemon thread": """
def open_another():
    while True:
        Runtime.open(sys.argv[1], home=sys.argv[2], threads=2, progress=lambda event: started.set())
threading.Thread(target=open_another, daemon=True).start()
started.wait(60)
""",
    "closed in a thread": """
def draw_until_closed():  # a traceback of its own would be written while the interpreter ends, which aborts the program
    with contextlib.suppress(StateError):
        draw()
threading.Thread(target=draw_until_closed, daemon=True).start()
started.wait(60)
threading.Thread(target=runtime.close).start()
""",
    "signal handler": """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: (runtime.close(), sys.exit(0)))
def stop(event):
    if event.index == 1:
        os.kill(os.getpid(), signal.SIGTERM)
runtime.generate("a red house", count=500, on_step=stop)
""",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    path = tmp_path_factory.mktemp("home")
    Runtime.open(tiny_bundle, home=path, threads=2, build=True, preload=False).close()
    return path


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=list(ENDINGS))
def test_a_program_ends_cleanly_while_images_are_made(ending: str, home: Path, tiny_bundle: Path) -> None:
    command = [sys.executable, "-c", START + ending, str(tiny_bundle), str(home)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stderr.splitlines()) == (0, [])
