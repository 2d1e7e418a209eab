"""Prompts with weights and of several chunks on real engines: the tiny bundle on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from costroute_rt import Runtime
from costroute_rt.engines.building.build import build_engines
from costroute_rt.engines.bundle.size import with_size
from costroute_rt.engines.store.store import Store
from costroute_rt.family.calls import engine_names
from tests.tiny_bundle import write_tiny_bundle

pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")


def test_engines_take_prompts_of_any_number_of_chunks_also_those_built_for_one_size(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle", prompt_syntax="a1111")
    store = Store.open(tmp_path / "home")
    build_engines(bundle, store, with_size(bundle, engine_names(bundle), (64, 96)))
    with Runtime.open(bundle.root, home=store.root, threads=1, build=True, preload=False) as runtime:
        for candidate in ("tiny-base@4", "tiny-turbo@1"):
            for width in (64, 96):

                def pixels(prompt: str, *, plain_prompt: bool = False, name: str = candidate, width: int = width) -> bytes:
                    found = runtime.generate(prompt, seed=1, candidate=name, width=width, plain_prompt=plain_prompt)
                    assert not found.truncated
                    return found.pixels.tobytes()

                images = [pixels("a red house"), pixels("a (red:1.9) house"), pixels("a red BREAK house"), pixels("a red house " * 20)]
                assert len(set(images)) == 4
                assert pixels("a red house", plain_prompt=True) == images[0]
