"""The transformer: fitting, export, and few or no labels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BackendError, ConfigError
from costroute_rt.export.router.cells import Cells, make_cells
from costroute_rt.export.router.fit import learn
from costroute_rt.export.router.grid import FitOptions, Setting, grid_of
from costroute_rt.export.router.job import Source, evaluate_bundle, fit_bundle
from costroute_rt.export.router.transformer import fit_transformer
from costroute_rt.routing.estimator.average import Average
from costroute_rt.routing.estimator.mean import Mean
from costroute_rt.routing.estimator.transformer import Transformer
from costroute_rt.routing.prompt_encoder import HashedEncoder, TextStates
from tests.export.small_checkpoint import needs_export

TOKENS, WIDTH = 6, 12


def make(count: int = 120, seed: int = 0) -> tuple[Cells, TextStates]:
    """Which candidate is better depends on a marked token anywhere in the prompt, which an average of states hardly shows."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, TOKENS + 1, count)
    states = rng.normal(size=(count, TOKENS, WIDTH)).astype(np.float32)
    marked = rng.integers(0, 2, count)
    states[np.arange(count), rng.integers(0, lengths), 0] = np.where(marked, 4.0, -4.0)
    truth = np.stack([0.5 + 0.2 * marked, 0.7 - 0.2 * marked, np.full(count, 0.55)], axis=1)
    prompt, candidate = (index.ravel().repeat(3) for index in np.indices(truth.shape))
    cells = make_cells(
        prompt_ids=tuple(map(str, range(count))),
        prompts=tuple(f"prompt {index}" for index in range(count)),
        categories=None,
        candidates=("one", "two", "three"),
        prompt=prompt.astype(np.int64),
        candidate=candidate.astype(np.int64),
        score=truth[prompt, candidate] + 0.05 * rng.standard_normal(len(prompt)),
        cost_ms=np.full(len(prompt), np.nan),
    )
    return cells, TextStates(states, lengths.astype(np.int64))


def fit(cells: Cells, states: TextStates, **options: Any) -> Any:
    return fit_transformer(states, cells.mean, cells.variance, **options)


def judge(estimator: Any, states: TextStates) -> np.ndarray:
    return np.asarray(estimator.estimate(np.empty((len(states), 0), dtype=np.float32), states)[0])


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_few_prompts_give_the_average_and_no_network(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, states = make(12)
    monkeypatch.setattr("costroute_rt.export.router.transformer.import_torch", lambda: None)
    hidden = np.arange(12)[:, None] >= count
    found = fit_transformer(states, np.where(hidden, np.nan, cells.mean), np.where(hidden, np.nan, cells.variance))
    assert isinstance(found, Average)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cells, states = make(20)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match="install the export extra"):
        fit(cells, states)


def test_without_torch_nothing_is_started(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, messages = Bundle.open(tiny_bundle), list[str]()
    write_labels(tmp_path / "labels.csv", [row["name"] for row in bundle.pool])
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match="install the export extra"):
        fit_bundle(bundle, Source(labels=tmp_path / "labels.csv"), tmp_path / "out", estimators=["transformer"], say=messages.append)
    assert not messages


def test_a_transformer_is_fitted_on_request_only_and_needs_states() -> None:
    cells, _ = make(30)
    assert {setting.kind for setting in grid_of(["mean"])} == {"knn", "linear"}
    assert {setting.kind for setting in grid_of(["mean", "transformer"])} == {"knn", "linear", "transformer"}
    with pytest.raises(ConfigError, match="text states, which a transformer reads"):
        learn(cells, HashedEncoder(64).encode(cells.prompts), options=FitOptions(estimators=("transformer",)))


class TestFitted:
    pytestmark = needs_export

    def test_a_signal_in_the_tokens_is_learned_reproducibly(self) -> None:
        (cells, states), (held_out, unseen) = make(), make(60, seed=1)
        first, second = fit(cells, states), fit(cells, states)
        found = judge(first, unseen)
        np.testing.assert_array_equal(found, judge(second, unseen))
        assert first.to_json() == second.to_json()
        assert (found.argmax(1) == held_out.mean.argmax(1)).mean() > 0.85
        assert (first.standard_error > 0.001).all()
        assert (first.standard_error < 0.1).all()

    def test_the_exported_network_matches_the_fitted_one(self, tmp_path: Path) -> None:
        from costroute_rt.engines.backends.onnxruntime.backend import OnnxRuntimeBackend
        from costroute_rt.engines.backends.spec import BuildSpec

        cells, states = make(40)
        fitted = fit(cells, states)
        fitted.open_engine("router_estimator", "estimate").write(tmp_path)
        (tmp_path / "built").mkdir()
        backend, spec = OnnxRuntimeBackend(), BuildSpec()
        backend.build(tmp_path / "router_estimator.onnx", tmp_path / "built", spec)
        with backend.open(tmp_path / "built", spec) as engine:
            opened = Transformer(lambda component, graph: engine, fitted.standard_error, width=WIDTH)
            for rows in ([3], list(range(40))):
                np.testing.assert_allclose(judge(opened, states.select(rows)), judge(fitted, states.select(rows)), atol=1e-4, rtol=0)
            padded = TextStates(np.pad(states.states, ((0, 0), (0, 3), (0, 0)), constant_values=1e4), states.lengths)
            np.testing.assert_allclose(judge(opened, padded), judge(fitted, states), atol=1e-4, rtol=0)

    def test_missing_cells_are_ignored(self) -> None:
        cells, states = make(100)
        hidden = np.random.default_rng(0).random(cells.mean.shape) < 0.3
        mean, variance = np.where(hidden, np.nan, cells.mean), np.where(hidden, np.nan, cells.variance)
        found = fit_transformer(states, mean, variance)
        assert np.isfinite(judge(found, states)).all()
        assert (judge(found, states).argmax(1) == cells.mean.argmax(1)).mean() > 0.8
        # What stands where nothing is known does not matter.
        np.testing.assert_array_equal(judge(fit_transformer(states, mean, np.where(hidden, 7.0, variance)), states), judge(found, states))

    def test_states_that_are_not_finite_or_not_the_prompts_are_refused(self) -> None:
        cells, states = make(20)
        broken = states.states.copy()
        broken[0, 0, 0] = np.nan
        for wrong in (TextStates(broken, states.lengths), states.select(range(19))):
            with pytest.raises(ConfigError, match="finite numbers for 20 prompts"):
                fit(cells, wrong)

    def test_groups_are_held_out_whole(self) -> None:
        cells, states = make(30)
        assert isinstance(fit(cells, states, groups=np.arange(30) // 4), Average)
        assert isinstance(fit(cells, states, groups=np.arange(30) // 2), Transformer)

    def test_cross_validation_chooses_a_transformer_that_predicts_best(self) -> None:
        cells, states = make(100)
        features = HashedEncoder(64).encode(cells.prompts)
        options = FitOptions(estimators=("linear", "transformer", "mean"), folds=3)
        learned = learn(cells, features, states=states, options=options)
        assert learned.routes_on == "prompt"
        assert learned.estimator.needs_states
        assert "transformer (width 64)" in learned.reason
        assert learned.validation is not None
        assert any(name.startswith("mean of ") for name in learned.validation.losses) or learned.validation.chosen.kind == "transformer"
        assert isinstance(Setting((("knn", 15), ("transformer", 64))).fit(features, cells.mean, cells.variance, states), Mean)

    @pytest.mark.slow
    def test_a_bundle_fitted_with_a_transformer_routes_by_it_without_torch(self, tiny_bundle: Path, tmp_path: Path, home: Path) -> None:
        labels = tmp_path / "labels.csv"
        pool = [row["name"] for row in Bundle.open(tiny_bundle).pool]
        write_labels(labels, pool)
        output = tmp_path / "fitted"
        router = fit_bundle(Bundle.open(tiny_bundle), Source(labels=labels), output, encoder="hashed", estimators=["transformer"])
        assert (router.routes_on, router.estimator.kind, router.text_encoder is not None) == ("prompt", "transformer", True)
        assert route_without_torch(output, "white red lake house") == pool[0]
        assert route_without_torch(output, "the snow white lake") == pool[-1]
        assert evaluate_bundle(Bundle.open(output), Source(labels=labels)).to_json()["router_ms"] > 0


WORDS = ("lake", "house", "snow", "three", "small", "white", "birds", "sea")


def write_labels(path: Path, pool: list[str]) -> None:
    """Prompts with a red thing are served best by the first candidate, the others by the last."""
    rng = np.random.default_rng(0)
    rows = ["prompt,candidate,seed,score"]
    for index in range(80):
        words = [*rng.choice(WORDS, 3, replace=False), *(["red"] if index % 2 else ["the"])]
        prompt = " ".join(rng.permutation(words))
        for place, name in enumerate(pool):
            score = 0.5 + (0.1 if index % 2 else -0.1) * (1.5 - place) + 0.02 * rng.standard_normal()
            rows.append(f"{prompt} {index},{name},0,{score:.4f}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def route_without_torch(bundle: Path, prompt: str) -> str:
    """Name of the candidate in a process that cannot import torch and its kind."""
    code = f"""
import sys
for name in ("torch", "transformers", "optimum", "onnx"):
    sys.modules[name] = None
from costroute_rt import Runtime
with Runtime.open({str(bundle)!r}, build=True) as runtime:
    print(runtime.route({prompt!r}).chosen.name)
"""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
