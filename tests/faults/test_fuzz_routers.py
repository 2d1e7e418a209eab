"""Found by the fuzz test: values of other types in router.json ended in TypeError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from costroute_rt import Bundle, BundleError
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.routing.router import Router
from costroute_rt.routing.router_bundle import check_router
from tests.small_router import make_router

OTHERS: tuple[Any, ...] = (None, 977, 1.25, False, [], ["x"], {}, {"x": 1}, "", "x", 1e308)


@pytest.mark.parametrize("value", OTHERS, ids=repr)
@pytest.mark.parametrize("field", ["name", "denoiser", "scheduler", "num_inference_steps", "guidance_scale", "decoder"])
def test_a_pool_with_a_value_of_another_type(tiny_bundle: Path, tmp_path: Path, field: str, value: Any) -> None:
    bundle = Bundle.open(tiny_bundle, verify=False)
    make_router(bundle.pool).save(tmp_path)
    path = tmp_path / "router.json"
    values = json.loads(path.read_text())
    assert values["pool"][1][field] != value
    values["pool"][1][field] = value
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError):
        check_router(Router.load(tmp_path), Pool.of_bundle(bundle), path)
