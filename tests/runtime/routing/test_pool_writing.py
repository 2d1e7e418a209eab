"""Routers over pools: with networks of their own, beside the text encoder of one of the bundles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costroute_rt import Bundle, BundleError, Runtime
from costroute_rt.engines.building.usage import survey
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.engines.store.store import Store
from costroute_rt.export.router.states import read_states
from costroute_rt.family.calls import pool_candidate_names
from costroute_rt.routing.pool_writing import with_pool_router
from costroute_rt.routing.router_bundle import with_router
from tests.pools import write_pool_of
from tests.runtime.routing.routers import write_network_router
from tests.small_network import expect
from tests.small_router import make_router


@pytest.fixture
def pool(tiny_bundle: Path, other_bundle: Path, tmp_path: Path) -> Pool:
    return write_pool_of(tmp_path / "desk.pool", tiny_bundle, other_bundle, candidates=["tiny-turbo@1", "other-turbo@2", "tiny-base@4"])


def test_a_router_reads_the_text_states_of_one_bundle_and_runs_its_own_networks(pool: Pool, tmp_path: Path, home: Path) -> None:
    pytest.importorskip("onnxruntime", reason="engines are built and run by ONNX Runtime: pip install costroute-rt[cpu]")
    other = pool.bundles["other"]
    _, matrix = write_network_router(replace(other, pool=pool.rows), tmp_path / "fitted")
    made = with_pool_router(pool, tmp_path / "fitted", pool.root, states_bundle="other", force=True)
    assert (made.states_bundle, list(made.holders)) == ("other", ["tiny", "other", "router"])
    assert made.router is not None
    assert made.router.router is not None
    assert made.router.router["tokenizer"] == "router/tokenizer.json"
    expected = expect(matrix, read_states(other, ["a red house"], home=home))[0]
    with Runtime.open(pool=made.root, build=True) as runtime:
        route = runtime.route("a red house")
        np.testing.assert_allclose([option.quality for option in route.options], expected, rtol=1e-4)
        best = runtime.candidates[int(expected.argmax())]
        assert runtime.generate("a red house", seed=1).route.chosen == best
        resident = set(runtime._resources.engines._resident)
        assert {"router/router_encoder/encode", "router/router_estimator/estimate", "other/text_encoder/encode"} <= resident
    users = {each.engine: each.used_by for each in survey(list(made.holders.values()), Store.open(), pool_candidate_names(made))}
    assert set(users["router/router_estimator/estimate"]) == set(users["other/text_encoder/encode"]) == set(pool.names())
    with Runtime.open(pool=made.root, candidates=["tiny-turbo@1"]) as runtime:  # the other bundle is needed for its text encoder alone
        assert runtime.route("a red house").options[0].quality == pytest.approx(expected[pool.names().index("tiny-turbo@1")], rel=1e-4)
        assert "other/turbo/step" not in runtime._resources.engines._resident


def test_the_files_of_a_router_must_be_whole_and_of_these_candidates(pool: Pool, tmp_path: Path) -> None:
    write_network_router(replace(pool.bundles["tiny"], pool=pool.rows), tmp_path / "fitted")
    made = with_pool_router(pool, tmp_path / "fitted", tmp_path / "made", states_bundle="tiny")
    (made.root / "router" / "router_encoder.onnx").unlink()
    with pytest.raises(BundleError, match=r"router_encoder\.onnx"):
        Pool.open(made.root)
    make_router(pool.rows[:2]).save(tmp_path / "fewer")
    with pytest.raises(BundleError, match="it was not fitted for"):
        with_pool_router(pool, tmp_path / "fewer", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_bundle_s_own_router_is_left_out_of_a_pool(tiny_bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    write_network_router(bundle, tmp_path / "fitted")
    routed = with_router(bundle, tmp_path / "fitted", tmp_path / "routed")
    pool = write_pool_of(tmp_path / "pool", routed.root, other_bundle)
    view = pool.bundles["tiny"]
    view.verify()
    assert (pool.router, view.router) == (None, None)
    assert not {"router_encoder", "router_estimator"} & set(view.components)


def test_a_pool_of_one_bundle_decides_as_the_bundle(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    pool = Pool.of_bundle(bundle)
    assert (pool.rows, pool.names(), pool.holders) == (bundle.pool, [row["name"] for row in bundle.pool], {"tiny": bundle})
