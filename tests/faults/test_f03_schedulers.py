"""F3: a checkpoint with PNDM, the default of Stable Diffusion 1.x, was exported to a bundle that never opens."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint import checkpoint
from costroute_rt.export.checkpoint.checkpoint import check_export, export_bundle
from costroute_rt.export.checkpoint.scheduler import plain_config, read_scheduler
from costroute_rt.sampling.replacement import choose_scheduler
from costroute_rt.sampling.tables import Tables
from tests.export.checkpoint_folder import DDIM, PNDM, SCHEDULE, simple_recipe, write_folder
from tests.export.small_checkpoint import make_recipe, needs_export

DPM = {"_class_name": "DPMSolverMultistepScheduler", **SCHEDULE}


@pytest.fixture
def no_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if a weight is loaded or a file is written."""

    def refuse(*_: object) -> None:
        raise AssertionError("long work has begun")

    monkeypatch.setattr(checkpoint, "_Export", refuse)


def test_f3_pndm_is_replaced_by_a_scheduler_with_the_same_schedule(tmp_path: Path) -> None:
    plan = check_export(write_folder(tmp_path / "sd15", scheduler=PNDM), simple_recipe())
    assert plan.replaced == "PNDMScheduler -> DPMSolverMultistepScheduler"
    chosen = plan.schedulers["default"]
    assert chosen == {**DPM, "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1}
    assert np.isfinite(Tables(plan.schedulers).table("default", 20, 4096).rows()).all()


REPLACED = {
    "LMSDiscreteScheduler": ({"use_karras_sigmas": True}, "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DEISMultistepScheduler": ({"solver_order": 3, "algorithm_type": "deis", "solver_type": "logrho"}, "DPMSolverMultistepScheduler", {}),
    "SASolverScheduler": ({}, "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPMSolverMultistepScheduler": ({"algorithm_type": "dpmsolver"}, "DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "UniPCMultistepScheduler": ({"solver_order": 3}, "UniPCMultistepScheduler", {"solver_order": 2}),
}


@pytest.mark.parametrize("name", REPLACED)
def test_f3_other_schedulers_are_replaced(tmp_path: Path, name: str) -> None:
    settings, instead, expected = REPLACED[name]
    source = write_folder(tmp_path / "sd", scheduler={"_class_name": name, **SCHEDULE, **settings})
    plan = check_export(source, simple_recipe({"num_inference_steps": 4}))
    assert plan.replaced is not None
    chosen = plan.schedulers["default"]
    assert {key: chosen[key] for key in ("_class_name", *expected)} == {"_class_name": instead, **expected}
    assert {key: chosen[key] for key in SCHEDULE} == SCHEDULE


def test_f3_missing_settings_of_a_replaced_scheduler_have_its_defaults() -> None:
    chosen, _ = choose_scheduler({"_class_name": "PNDMScheduler", "prediction_type": None})
    assert (chosen["beta_start"], chosen["beta_end"], chosen["beta_schedule"]) == (0.0001, 0.02, "linear")
    assert (chosen["timestep_spacing"], chosen["prediction_type"]) == ("leading", "epsilon")


KEPT = {
    "DDPMScheduler": {"variance_type": "fixed_small", "clip_sample": False},
    "TCDScheduler": {},
    "KDPM2DiscreteScheduler": {"use_beta_sigmas": True},
    "KDPM2AncestralDiscreteScheduler": {},
    "DPMSolverSDEScheduler": {"noise_sampler_seed": 3},
    "DPMSolverSinglestepScheduler": {"solver_order": 3},
    "DPMSolverMultistepScheduler": {"solver_order": 3, "use_lu_lambdas": True},
}


@pytest.mark.parametrize("name", KEPT)
def test_f3_a_scheduler_that_was_replaced_once_is_kept(name: str) -> None:
    config = {"_class_name": name, **SCHEDULE, **KEPT[name]}
    assert choose_scheduler(config) == (config, None)


def test_f3_supported_schedulers_are_kept(tmp_path: Path) -> None:
    plan = check_export(write_folder(tmp_path / "sd", scheduler=DDIM), simple_recipe())
    assert plan.replaced is None
    assert plan.schedulers["default"] == DDIM


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"_class_name": "MyScheduler"}, "_class_name is 'MyScheduler'"),
    "no class": ({}, "_class_name is None"),
    "EDM": ({"_class_name": "EDMEulerScheduler"}, "_class_name is 'EDMEulerScheduler'"),
    "iPNDM": ({"_class_name": "IPNDMScheduler"}, "_class_name is 'IPNDMScheduler'"),
    "thresholding": ({**DDIM, "thresholding": True}, "thresholding is True"),
    "karras sigmas": ({"_class_name": "EulerAncestralDiscreteScheduler", "use_karras_sigmas": True}, "use_karras_sigmas is True"),
    "two schedules": ({**DPM, "use_exponential_sigmas": True, "use_beta_sigmas": True}, "use_beta_sigmas is True"),
    "trained betas": ({**PNDM, "trained_betas": [0.1, 0.2]}, "trained_betas is"),
    "prediction type": ({**PNDM, "prediction_type": "noise"}, "prediction_type is 'noise'"),
    "beta schedule": ({**PNDM, "beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
    "order": ({**DPM, "solver_order": 5}, "solver_order is 5"),
    "predict noise": ({"_class_name": "UniPCMultistepScheduler", "predict_x0": False}, "predict_x0 is False"),
    "variance": ({**DPM, "variance_type": "learned_range"}, "variance_type is 'learned_range'"),
    "list": ({**DDIM, "beta_end": [1]}, r"beta_end is \[1\]"),
}


@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize("name", REFUSED)
def test_f3_what_nothing_replaces_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    config, problem = REFUSED[name]
    source = write_folder(tmp_path / "sd", scheduler=config)
    with pytest.raises(BundleError, match=problem) as caught:
        export_bundle(source, tmp_path / "bundle", simple_recipe())
    assert caught.value.path == str(source / "scheduler" / "scheduler_config.json")
    assert "name another one as `default` in the recipe's schedulers" in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_f3_a_scheduler_that_the_recipe_names_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = write_folder(tmp_path / "sd", scheduler={"_class_name": "EDMEulerScheduler"})
    euler = {"_class_name": "EulerDiscreteScheduler", **SCHEDULE}
    plan = check_export(source, simple_recipe(schedulers={"default": euler}))
    assert plan.schedulers == {"default": euler}
    assert plan.replaced is None
    other = simple_recipe({"scheduler": "own"}, schedulers={"own": euler})  # no candidate uses the checkpoint's
    assert check_export(source, other).schedulers == {"own": euler}


@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize(
    ("config", "steps", "problem"),
    [
        (PNDM, 20, "_class_name is 'PNDMScheduler'"),
        ({"_class_name": "LCMScheduler", **SCHEDULE}, 51, "num_inference_steps is 51: expected 1 to 50"),
        (DDIM, 1001, "num_inference_steps is 1001: expected 1 to 1000"),
        ({"_class_name": "UniPCMultistepScheduler", **SCHEDULE}, 1000, "would divide by zero"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift_terminal": 0.02}, 1, "num_inference_steps is 1: expected 2 or more"),
    ],
)
def test_f3_a_recipe_whose_bundle_would_not_open_is_refused_before_the_work(
    tmp_path: Path, config: dict[str, Any], steps: int, problem: str
) -> None:
    source = write_folder(tmp_path / "sd")
    recipe = simple_recipe({"scheduler": "own", "num_inference_steps": steps}, schedulers={"own": config})
    with pytest.raises(BundleError, match=f"the candidate 'base@20' cannot use the scheduler 'own': .*{problem}"):
        export_bundle(source, tmp_path / "bundle", recipe)


BAD_RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "family": ({"family": "my family"}, "a family named 'my family'"),
    "license": ({"license": " "}, "license is empty"),
    "no candidate": ({"pool": ()}, "pool is empty"),
    "two of a name": ({"pool": simple_recipe({}, {}).pool}, "names a candidate twice"),
    "steps": ({"pool": simple_recipe({"num_inference_steps": 0}).pool}, "num_inference_steps is 0"),
    "guidance": ({"pool": simple_recipe({"guidance_scale": float("nan")}).pool}, "Out of range float|guidance_scale"),
    "guidance as text": ({"pool": simple_recipe({"guidance_scale": "7"}).pool}, "recipe cannot be used"),
    "decoder": ({"pool": simple_recipe({"decoder": "tiny"}).pool}, "names 'tiny', which is not a decoder"),
    "quality": ({"quality": {"metric": "none", "candidates": {}}}, "quality has no entry for base@20"),
    "no metric": ({"quality": {"candidates": {"base@20": {"mean": 0, "standard_error": 0}}}}, "has no quality.metric"),
    "size": ({"sizes": ((500, 512),)}, r"the size \[500, 512\]: expected .* multiples of 8"),
    "preview": ({"preview": {"matrix": [[0, 0, 0]], "bias": [0, 0, 0]}}, "preview.matrix has 1 rows: expected 4"),
    "scheduler without a class": ({"schedulers": {"other": {}}}, "has no schedulers.other._class_name"),
}


@pytest.mark.usefixtures("no_long_work")
@pytest.mark.parametrize("name", BAD_RECIPES)
def test_f3_any_other_mistake_in_a_recipe_is_refused_before_the_work_too(tmp_path: Path, name: str) -> None:
    changes, problem = BAD_RECIPES[name]
    recipe = simple_recipe(**changes)
    with pytest.raises(BundleError, match=problem):
        export_bundle(write_folder(tmp_path / "sd"), tmp_path / "bundle", recipe)


class TestWithTorch:
    pytestmark: ClassVar = needs_export

    def test_f3_every_scheduler_of_diffusers_opens_or_is_refused(self) -> None:
        """As a checkpoint is loaded: the class's own defaults, in Stable Diffusion's pipeline."""
        import diffusers

        opened, refused = [], []
        for name in sorted(name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax")):
            try:
                config = dict(getattr(diffusers, name)().config)
            except (ImportError, TypeError, ValueError):
                continue  # it needs torchsde or arguments
            config = json.loads(json.dumps(plain_config(read_scheduler(config | {"_class_name": name})), default=str))
            try:
                chosen, _ = choose_scheduler(config)
            except ConfigError:
                refused.append(name)
                continue
            for steps in (1, 2, 20, 50):
                assert np.isfinite(Tables({"default": chosen}).table("default", steps, 4096).rows(memory=True)).all()
            opened.append(name)
        assert {"PNDMScheduler", "DDPMScheduler", "UniPCMultistepScheduler"} <= set(opened)
        assert {"EDMEulerScheduler", "IPNDMScheduler"} <= set(refused)

    def test_f3_the_bundle_of_a_checkpoint_with_pndm_opens_and_runs(self, oddity: Path, home: Path) -> None:
        from costroute_rt import Runtime

        manifest = json.loads((oddity / "bundle" / "manifest.json").read_text())
        assert manifest["schedulers"]["default"]["_class_name"] == "DPMSolverMultistepScheduler"
        assert manifest["schedulers"]["default"]["beta_schedule"] == "scaled_linear"
        assert manifest["notes"] == ["scheduler: PNDMScheduler -> DPMSolverMultistepScheduler"]
        kept = json.loads((oddity / "bundle" / "scheduler" / "scheduler_config.json").read_text())
        assert kept["_class_name"] == "PNDMScheduler"  # for diffusers
        with Runtime.open(oddity / "bundle", home=home, build=True) as runtime:
            result = runtime.generate("<my-cat> and the cat", candidate="small@4", seed=0)
        assert result.pixels.shape == (1, 256, 256, 3)
        assert result.pixels.std() > 1

    @pytest.mark.parametrize("name", ["LMSDiscreteScheduler", "SchedulerOfTomorrow"])
    def test_f3_a_scheduler_that_diffusers_cannot_load_is_replaced_there_too(self, oddity: Path, name: str) -> None:
        plan = check_export(oddity / "checkpoint", make_recipe(schedulers={"few": DDIM, "default": DDIM}))
        own = {"scheduler": {"_class_name": name}, **{key: value for key, value in plan.checkpoint.configs.items() if key != "scheduler"}}
        scheduler = checkpoint._load_scheduler(replace(plan, checkpoint=replace(plan.checkpoint, configs=own)))
        assert type(scheduler).__name__ in (name, "DDIMScheduler")

    def test_f3_the_replacement_is_logged(
        self, oddity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Stopped(Exception):
            pass

        def stop(*_: object) -> None:
            raise Stopped

        monkeypatch.setattr(checkpoint, "_Export", stop)
        with caplog.at_level(logging.WARNING), pytest.raises(Stopped):
            export_bundle(oddity / "checkpoint", tmp_path / "bundle", make_recipe())
        assert "is replaced: PNDMScheduler -> DPMSolverMultistepScheduler" in caplog.text

    def test_f3_a_bundle_that_does_not_open_does_not_take_its_place(
        self, oddity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(bundle: object) -> None:
            raise BundleError("bundle", "it does not open", "report it")

        monkeypatch.setattr(checkpoint.Family, "open", refuse)
        monkeypatch.setattr(checkpoint._Export, "_manifest", lambda self: {})
        monkeypatch.setattr(checkpoint, "seal_bundle", lambda folder, manifest: None)
        for part in ("text_encoder", "denoiser", "decoder", "extras"):
            monkeypatch.setattr(checkpoint._Export, part, lambda self, *name: None)
        with pytest.raises(BundleError, match="it does not open"):
            export_bundle(oddity / "checkpoint", tmp_path / "bundle", make_recipe())
        assert list(tmp_path.iterdir()) == []
