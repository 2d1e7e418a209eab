"""Default pools: the kind of a model, its steps and schedulers, and the order in which its candidates are preferred."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint.lora.lora import Lora
from costroute_rt.export.checkpoint.source.network import Network, Source
from costroute_rt.export.families import FAMILIES, find_family
from costroute_rt.export.families.detect import Detected, detect_kind
from costroute_rt.export.families.kind import BASE, KINDS
from costroute_rt.export.families.pool import PoolPlan, plan_pool
from costroute_rt.sampling.diffusers_config import from_diffusers
from costroute_rt.sampling.named_scheduler import NAMES
from costroute_rt.sampling.scheduler import build_table


def make_source(name: str, family: str = "sdxl", scheduler: dict[str, Any] | None = None, unet: dict[str, Any] | None = None) -> Source:
    network = Network(name="unet", class_name="UNet2DConditionModel", config=unet or {}, weights={})
    return Source(
        path=Path("models") / name, name=name, family=family, pipeline="", networks={"unet": network}, tokenizers={},
        scheduler=scheduler or {},
    )  # fmt: skip


def plan(source: Source, found: Detected | None = None, **how: Any) -> PoolPlan:
    decoders = how.pop("decoders", ("vae",))
    return plan_pool(source, FAMILIES[source.family], found or detect_kind(source), denoiser="unet", decoders=decoders, **how)


def steps_of(pool: PoolPlan) -> tuple[int, ...]:
    return tuple(row["num_inference_steps"] for row in pool.rows)


@pytest.mark.parametrize(
    ("name", "kind", "steps"),
    [
        ("juggernautXL_v9", "base", (8, 15, 25)),
        ("hyperrealistic_lightningstorm", "base", (8, 15, 25)),
        ("sd_xl_turbo_1.0_fp16", "turbo", (1, 2, 4)),
        ("dreamshaperXL_v21TurboDPMSDE", "turbo", (1, 2, 4)),
        ("LCM_Dreamshaper_v7", "lcm", (4, 8)),
        ("sdxl_lightning_4step", "lightning", (4,)),
        ("RealVisXL-Lightning", "lightning", (4, 8)),
        ("Hyper-SDXL-8steps-lora", "hyper", (8,)),
        ("Hyper-SDXL-1step-lora", "hyper", (1, 2, 4, 8)),
        ("dmd2_sdxl_4step_unet", "dmd2", (4,)),
        ("dmd2_sdxl_1step_unet", "dmd2", (1,)),
    ],
)
def test_a_name_says_the_kind_and_the_steps(name: str, kind: str, steps: tuple[int, ...]) -> None:
    found = detect_kind(make_source(name))
    assert found.kind.name == kind
    assert steps_of(plan(make_source(name), found)) == steps


def test_the_pipeline_and_the_scheduler_say_the_kind_of_a_plain_name() -> None:
    lcm = make_source("mine", unet={"time_cond_proj_dim": 256})
    turbo = make_source("mine", scheduler={"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"})
    assert detect_kind(lcm).kind.name == "lcm"
    assert plan(lcm).guidance == "embedded"
    assert detect_kind(turbo).kind.name == "turbo"
    assert detect_kind(make_source("mine", scheduler={"_class_name": "TCDScheduler"})).kind.name == "hyper"


def test_a_lora_and_the_user_decide_before_the_name() -> None:
    source = make_source("juggernaut-turbo")
    lora = Lora(path=Path("sdxl_lightning_8step_lora.safetensors"), modules=(), metadata={}, sha256="")
    assert detect_kind(source, loras=[lora])[:2] == (KINDS["lightning"], 8)
    assert detect_kind(source, "base").kind is BASE


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_default_pool_compiles_and_prefers_more_steps(family: str, kind: str) -> None:
    source = make_source("mine", family)
    pool = plan(source, detect_kind(source, kind))
    means = [pool.quality["candidates"][row["name"]]["mean"] for row in pool.rows]
    assert means == sorted(set(means))
    for row in pool.rows:
        table = build_table(from_diffusers(pool.schedulers[row["scheduler"]]), row["num_inference_steps"])
        assert np.isfinite(table.rows()).all()
        assert row["guidance_scale"] > 1 or kind != "base"


def test_the_prior_puts_a_base_at_its_best_above_everything_distilled() -> None:
    best = {}
    for kind in KINDS:
        source = make_source("mine")
        best[kind] = max(row["mean"] for row in plan(source, detect_kind(source, kind)).quality["candidates"].values())
    assert max(best, key=lambda kind: best[kind]) == "base"


def test_dmd2_runs_at_the_timesteps_of_its_authors() -> None:
    four, one = (plan(make_source(f"dmd2_sdxl_{count}step_unet")) for count in (4, 1))
    assert build_table(from_diffusers(four.schedulers["default"]), 4).timestep.tolist() == [999, 749, 499, 249]
    assert build_table(from_diffusers(one.schedulers["default"]), 1).timestep.tolist() == [399]


def test_hyper_runs_with_the_schedulers_of_its_authors() -> None:
    unified, eight = (plan(make_source(f"Hyper-SDXL-{count}")).schedulers["default"]["_class_name"] for count in ("1step", "8steps"))
    assert (unified, eight) == ("TCDScheduler", "DDIMScheduler")


def test_the_truncated_schedule_of_one_step_is_the_first_part_of_the_whole() -> None:
    def levels(name: str, start: int) -> Any:
        config = plan(make_source(name)).schedulers["default"]
        betas = np.linspace(config["beta_start"] ** 0.5, config["beta_end"] ** 0.5, config["num_train_timesteps"]) ** 2
        return np.cumprod(1 - betas)[start]

    assert levels("dmd2_sdxl_1step_unet", 399) == pytest.approx(levels("mine", 399), rel=1e-9)


def test_a_model_with_zero_terminal_snr_starts_at_the_last_timestep() -> None:
    scheduler = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    pool = plan(make_source("noobai", scheduler=scheduler))
    assert pool.schedulers["default"]["prediction_type"] == "v_prediction"
    assert build_table(from_diffusers(pool.schedulers["default"]), 8).timestep[0] == 999
    assert {row["guidance_rescale"] for row in pool.rows} == {0.7}


def test_named_schedulers_and_decoders_are_candidates_of_their_own() -> None:
    pool = plan(make_source("Fox v1"), steps=(20, 4), schedulers=("Euler a", "DPM++ 3M SDE Exponential"), decoders=("vae", "tiny"))
    assert [row["name"] for row in pool.rows][:4] == [
        "fox-v1-euler-a@4-tiny", "fox-v1-euler-a@4", "fox-v1-euler-a@20-tiny", "fox-v1-euler-a@20",
    ]  # fmt: skip
    assert len(pool.rows) == 8
    assert pool.schedulers["euler-a"]["_class_name"] == "EulerAncestralDiscreteScheduler"
    assert from_diffusers(pool.schedulers["dpm-3m-sde-exponential"]).title == "dpmpp_3m sde exponential"


def test_every_named_scheduler_keeps_the_training_of_the_model_or_is_refused() -> None:
    source, refused = make_source("mine", scheduler={"beta_end": 0.011, "prediction_type": "v_prediction"}), []
    for name in NAMES:
        try:
            settings = from_diffusers(next(iter(plan(source, schedulers=(name,)).schedulers.values())))
        except ConfigError:
            refused.append(name)
        else:
            assert (settings.beta_end, settings.prediction_type) == (0.011, "v_prediction")
    assert refused == ["DPM++ 2S a", "dpmpp_2s_ancestral"]


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(BundleError, match=r"beta_start is 'much'.*scheduler_config\.json"):
        plan(make_source("mine", scheduler={"beta_start": "much"}))
    with pytest.raises(ConfigError, match="num_inference_steps is 1001"):
        plan(make_source("mine"), steps=(1001,))
    with pytest.raises(ConfigError, match="family is 'flux': expected one of sd1, sd2, sdxl"):
        find_family("flux")


def test_guidance_may_end_early_in_candidates_of_their_own() -> None:
    pool = plan(make_source("mine"), steps=(20,), guidance_ends=(1.0, 0.6), guidance_rescale=0.7)
    rows = {row["name"]: row for row in pool.rows}
    assert list(rows) == ["mine-g60@20", "mine@20"]
    assert rows["mine-g60@20"]["guidance_end"] == 0.6
    assert "guidance_end" not in rows["mine@20"]
    assert {row["guidance_rescale"] for row in pool.rows} == {0.7}
    means = [pool.quality["candidates"][name]["mean"] for name in rows]
    assert means[0] < means[1]
    with pytest.raises(ConfigError, match="models run without guidance"):
        plan(make_source("sd_xl_turbo_1.0_fp16"), guidance_ends=(0.5,))
