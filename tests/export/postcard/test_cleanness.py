"""Cleanness: its examples of faults, the network and its training."""

import random
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training runs on torch, which is missing: pip install costroute-rt[export]")
pytest.importorskip("diffusers", reason="training uses the models of diffusers, which is missing: pip install costroute-rt[export]")

from costroute_rt.export.postcard import faults  # noqa: E402
from costroute_rt.export.postcard.cleanness import Cleanness, blurred, mean_logits, random_masks, set_scale, spoil, train_cleanness  # noqa: E402
from costroute_rt.export.postcard.dataset import Shard  # noqa: E402
from costroute_rt.export.postcard.networks import make_vae  # noqa: E402
from costroute_rt.export.postcard.scene import sample_scene  # noqa: E402

pytestmark = pytest.mark.export


def shapes(count: int) -> "torch.Tensor":
    """Images with sharp squares on a plain ground, float[count, 3, 128, 128]."""
    rng, images = np.random.default_rng(1), torch.full((count, 3, 128, 128), -0.5)
    for image in images:
        for x, y in rng.integers(0, 96, (6, 2)):
            image[:, y : y + 30, x : x + 30] = torch.from_numpy(rng.uniform(-1, 1, (3, 1, 1)).astype(np.float32))
    return images


def test_a_fault_changes_the_image_inside_its_mask_only(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.zeros(12, 1, 128, 128)
    mask[..., :64] = 1
    monkeypatch.setattr("costroute_rt.export.postcard.cleanness.random_masks", lambda count, rng: mask)
    images = shapes(24)
    spoilt = spoil(images[:12], images[12:], np.random.default_rng(0))
    assert torch.equal(spoilt[..., 64:], images[:12, ..., 64:])
    assert ((spoilt - images[:12]).abs().amax((1, 2, 3)) > 0.05).all()


def test_masks_are_soft_and_within_0_and_1() -> None:
    masks = random_masks(30, np.random.default_rng(2))
    assert masks.shape == (30, 1, 128, 128)
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert 4 <= int((masks.amin((1, 2, 3)) == 1).sum()) <= 16


def test_a_blur_keeps_the_mean_and_removes_contrast() -> None:
    (image,) = shapes(1)
    soft = blurred(image, 3.0)
    assert soft.mean().item() == pytest.approx(image.mean().item(), abs=0.02)
    assert soft.std() < image.std()
    flat = torch.full((3, 20, 20), 0.25)
    torch.testing.assert_close(blurred(flat, 2.0), flat)


def test_mixed_latents_have_a_share_of_a_neighbour() -> None:
    latents = torch.arange(4.0)[:, None, None, None].expand(4, 16, 2, 2)
    mixed = faults.mixed(latents, torch.Generator().manual_seed(0))
    share = ((mixed - latents) / (latents.roll(1, 0) - latents))[:, 0, 0, 0]
    low, high = faults.SHARES
    assert ((share >= low) & (share <= high)).all()


def test_a_double_painter_draws_one_thing_of_the_scene_twice() -> None:
    painter = pytest.importorskip(
        "costroute_rt.export.postcard.painter", reason="drawing needs skia-python: pip install costroute-rt[export]"
    )
    found = set()
    for index in range(60):
        scene = sample_scene(random.Random(index))
        if any(scene[name] != absent for name, (absent, _) in painter.DOUBLED.items()):
            things = [box[0] for box in painter.render(scene, random.Random(index))[1]]
            twice = [box[0] for box in painter.render(scene, random.Random(index), painter=painter.DoublePainter)[1]]
            found |= {thing for thing in set(twice) if twice.count(thing) == things.count(thing) + 1}
    assert {"landmark", "balloon", "sun", "moon"} <= found  # the second one uses random numbers, so that counts of animals may differ too


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
def test_a_shard_of_examples_has_every_kind_and_is_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skia", reason="drawing needs skia-python: pip install costroute-rt[export]")
    monkeypatch.setattr(faults, "SHARD", 2)
    monkeypatch.setattr(faults, "SAMPLED", 2)
    torch.manual_seed(0)
    vae, drawings, generated = make_vae().eval(), Shard(tmp_path / "images", 3), Shard(tmp_path / "generated", 3)
    for shard in (drawings, generated):
        shard.folder.mkdir()
        shard.save("images", np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8))
    drawings.save("latents", np.zeros((2, 16, 16, 16), np.float16))
    (tmp_path / "examples").mkdir()
    faults.make_examples(vae, drawings, generated, tmp_path / "examples")
    made = Shard(tmp_path / "examples", 3)
    for kind in (*faults.CLEAN, *faults.UNCLEAN):
        assert made.array(kind).shape == (2, 128, 128, 3)
    before = {path: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    faults.make_examples(vae, drawings, generated, tmp_path / "examples")
    assert {path: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before


def test_training_tells_clean_images_from_unclean_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLEAN_IMAGES", "UNCLEAN_IMAGES", "SPOILT_IMAGES"):
        monkeypatch.setattr(f"costroute_rt.export.postcard.cleanness.{name}", 4)
    torch.manual_seed(0)
    images = shapes(16)
    soft = torch.stack([blurred(image, 4.0) for image in images])
    clean, unclean = (((part + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy() for part in (images, soft))
    network = Cleanness()
    train_cleanness(network, [clean], [unclean], tmp_path / "cleanness.pt", minutes=0.1)
    assert torch.load(tmp_path / "cleanness.pt", weights_only=True)["steps"] > 0
    assert not network.training
    assert mean_logits(network, clean).mean() > mean_logits(network, unclean).mean()
    set_scale(network, clean)
    assert np.median(mean_logits(network, clean)) == pytest.approx(np.log(9), abs=0.01)
    whole = torch.nn.functional.interpolate(images, scale_factor=2)
    np.testing.assert_allclose(network.patches(images).mean((1, 2)).detach(), mean_logits(network, clean), atol=0.05)
    np.testing.assert_allclose(network(whole).detach(), network.patches(images).mean((1, 2)).sigmoid().detach(), atol=1e-4)
