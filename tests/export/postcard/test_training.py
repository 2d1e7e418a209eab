"""The parts of training: optimizer, resumed runs, tokenizer, pairs, critic, latent scorer and refinement."""

import copy
import itertools
import json
import logging
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="training runs on torch, which is missing: pip install costroute-rt[export]")
pytest.importorskip("diffusers", reason="training uses the models of diffusers, which is missing: pip install costroute-rt[export]")

from costroute_rt import shipped_bundle  # noqa: E402
from costroute_rt.export.postcard import refine, training  # noqa: E402
from costroute_rt.export.postcard.critic import Critic  # noqa: E402
from costroute_rt.export.postcard.latent_scorer import LatentScorer, stated_targets  # noqa: E402
from costroute_rt.export.postcard.networks import TEXT_LAYERS, make_denoiser, make_scheduler, make_text_encoder  # noqa: E402
from costroute_rt.export.postcard.optimizer import Optimizer  # noqa: E402
from costroute_rt.export.postcard.pairs import GUIDANCES, TEACHER_STEPS, Teacher, shard_captions  # noqa: E402
from costroute_rt.export.postcard.refine import JUDGED_TIME, predicted_clean, refine_base  # noqa: E402
from costroute_rt.export.postcard.scene import ATTRIBUTES, sample_scene  # noqa: E402
from costroute_rt.export.postcard.text import BATCH, SORTED, deepen, draw_batches, tokenize, train_tokenizer  # noqa: E402
from costroute_rt.export.postcard.tiny_decoder import TinyDecoder  # noqa: E402
from costroute_rt.export.postcard.train import Plan, Recipe  # noqa: E402
from costroute_rt.export.postcard.training import Run, rate_scale  # noqa: E402
from costroute_rt.export.postcard.warm_start import START, START_TURBO, add_change  # noqa: E402

pytestmark = pytest.mark.export


def small_net() -> "torch.nn.Module":
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 3, padding=1))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_optimizer_moves_matrices_in_place_in_either_memory_layout(layout: "torch.memory_format") -> None:
    net = small_net().to(memory_format=layout)
    optimizer, x = Optimizer(net, 1e-2), torch.randn(4, 3, 8, 8)
    losses = []
    for _ in range(40):
        loss = (net(x) - x).square().mean()
        losses.append(loss.item())
        optimizer.step(loss, 1.0)
    assert losses[-1] < 0.5 * losses[0]


def test_an_interrupted_run_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    x = torch.randn(4, 3, 8, 8)

    def train(minutes: float) -> Run:
        net = small_net()
        run = Run(net, tmp_path / "net.pt", minutes, 1e-2)
        for _ in run:
            run.step((net(x) - x).square().mean())
        return run

    first = train(0.005)
    second = train(0.01)
    assert first.steps > 0
    assert second.steps > first.steps
    assert second.elapsed >= 0.6


def test_a_loss_that_is_not_finite_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = small_net()
    before = [p.detach().clone() for p in net.parameters()]
    run = Run(net, tmp_path / "net.pt", 1, 1e-2)
    with caplog.at_level(logging.WARNING):
        run.step(net(torch.randn(1, 3, 8, 8)).mean() * float("nan"))
    assert "skipped" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_the_learning_rate_warms_up_and_falls() -> None:
    scales = [rate_scale(done, 0.5) for done in (0, 0.01, 0.3, 0.75, 1)]
    assert scales[0] < scales[1] < scales[2] == 1 > scales[3] > scales[4]


def test_the_tokenizer_accepts_any_text(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(tmp_path, captions=2000)
    ids = tokenize(tokenizer, ["a red house", "", "überraschung 🏠 \u4e2d", "word " * 500])
    assert ids.shape == (4, 64)
    assert int(ids.max()) < len(tokenizer)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert tokenizer.decode(ids[2], skip_special_tokens=True).startswith("überraschung")


class FakeTeacher(Teacher):
    """Writes noise and guidance into the latents; they are approved if the guidance is at least the value of the noise."""

    def __init__(self) -> None:
        pass

    def generate(self, noise: "torch.Tensor", captions: "list[str]", guidance: float) -> "torch.Tensor":
        return torch.stack([noise, torch.full_like(noise, guidance)], 1)

    def scores(self, latents: "torch.Tensor", stated: "list[dict[str, object]]") -> "torch.Tensor":
        return (latents[:, 1] >= latents[:, 0]).float()


def test_latents_of_a_short_caption_are_regenerated_with_more_guidance_until_they_are_approved() -> None:
    short, long = ("a house", {"house": "red"}), ("much", dict.fromkeys(list(ATTRIBUTES)[:6], 0))
    needed = torch.tensor([GUIDANCES[0], GUIDANCES[1], 99.0, 99.0])
    latents, approved = FakeTeacher().generate_approved(needed, [short, short, short, long])
    assert latents[:, 1].tolist() == [GUIDANCES[0], GUIDANCES[1], GUIDANCES[-1], GUIDANCES[0]]
    assert approved.tolist() == [True, True, False, True]


def test_captions_of_a_shard_are_reproducible_and_mostly_short() -> None:
    captions = shard_captions(7)
    assert captions == shard_captions(7)
    assert 0.7 < sum(len(stated) <= 4 for _, stated in captions) / len(captions) < 0.8


def test_the_critic_separates_drawn_latents_from_generated_ones() -> None:
    torch.manual_seed(0)
    critic = Critic()
    drawn, generated = torch.randn(16, 16, 16, 16), 0.2 * torch.randn(16, 16, 16, 16)
    losses = [critic.learn(drawn, generated) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    assert critic(drawn).mean() > critic(generated).mean()
    assert not any(p.requires_grad for p in critic.parameters())


def test_the_latent_scorer_loss_depends_only_on_stated_attributes() -> None:
    torch.manual_seed(0)
    scorer, latents = LatentScorer().eval(), torch.randn(2, 16, 16, 16)
    first = next(iter(ATTRIBUTES))
    wanted = stated_targets([{first: ATTRIBUTES[first][0]}, {}])
    assert wanted[0, 0] == 0
    assert (wanted[0, 1:] == -1).all()
    assert (wanted[1] == -1).all()
    torch.manual_seed(1)
    before = scorer.loss(latents, wanted).item()
    for head in scorer.heads[1:]:
        torch.nn.init.constant_(head.weight, 3.0)
    torch.manual_seed(1)
    assert scorer.loss(latents, wanted).item() == pytest.approx(before)
    assert scorer.loss(latents, stated_targets([{}, {}])).item() == 0


@pytest.mark.filterwarnings("ignore:.*copy keyword:DeprecationWarning")
@pytest.mark.parametrize("steps", [0, 3, 7])
def test_predicted_clean_latents_have_the_gradient_of_the_last_step_only(steps: int) -> None:
    scheduler = make_scheduler()
    scheduler.set_timesteps(TEACHER_STEPS)
    pace = torch.nn.Parameter(torch.tensor(1.0))
    has_gradient, times = [], []

    def straight(x: "torch.Tensor", t: "torch.Tensor", states: "torch.Tensor") -> SimpleNamespace:
        has_gradient.append(torch.is_grad_enabled())
        times.append(t.unique().item())
        return SimpleNamespace(sample=pace * states.mean((1, 2))[:, None, None, None].expand_as(x))

    noise, empty, stated = torch.randn(2, 16, 16, 16), torch.full((1, 64, 160), 0.1), torch.full((2, 64, 160), 0.3)
    clean = predicted_clean(straight, stated, empty, noise, steps)
    guided = 0.1 + GUIDANCES[0] * (0.3 - 0.1)
    assert has_gradient == [False] * steps + [True]
    assert times == pytest.approx(scheduler.timesteps[: steps + 1].tolist())
    torch.testing.assert_close(clean, noise - guided, atol=2e-3, rtol=0)
    (slope,) = torch.autograd.grad(clean.mean(), pace)
    assert slope.item() == pytest.approx(-float(scheduler.sigmas[steps]) * guided, abs=1e-4)


def let_a_step_take_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of a training run, however busy the machine is."""
    seconds = itertools.count()
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))


@pytest.mark.filterwarnings("ignore:.*copy keyword:DeprecationWarning")
@pytest.mark.parametrize("has_judge", [True, False])
def test_the_judge_takes_part_in_the_first_part_of_the_refinement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_judge: bool) -> None:
    let_a_step_take_one_second(monkeypatch)
    monkeypatch.setattr(refine, "DRAWN", 2)
    monkeypatch.setattr(refine, "JUDGED", 2)
    torch.manual_seed(0)
    tokenizer = train_tokenizer(tmp_path / "tokenizer", captions=500)
    unet, text = make_denoiser(), make_text_encoder(len(tokenizer), tokenizer.eos_token_id).eval()
    judge = LatentScorer().eval().requires_grad_(False)
    learn = judge.loss

    def watched(latents: "torch.Tensor", wanted: "torch.Tensor") -> "torch.Tensor":
        seen.append((latents.shape, latents.requires_grad, bool((wanted >= 0).any(1).all())))
        return learn(latents, wanted)

    monkeypatch.setattr(judge, "loss", watched)
    start, path, minutes = copy.deepcopy(unet.state_dict()), tmp_path / "refined.pt", 1e-3
    interrupted = Run(copy.deepcopy(unet), path, minutes, 1e-3, refine.PLAIN)
    with torch.no_grad():
        torch._foreach_add_(list(interrupted.average.parameters()), 1.0)
        torch._foreach_add_(list(interrupted.model.parameters()), 0.01)
    interrupted.elapsed = 60 * minutes * (JUDGED_TIME + (-0.01 if has_judge else 0.01))
    interrupted.save()
    before, seen = torch.load(path, weights_only=True)["model"], []

    class Drawn:
        def sample(self, count: int, rng: random.Random, device: object) -> tuple[object, ...]:
            masks = torch.zeros(count, 16, 16, dtype=torch.uint8)
            return torch.randn(count, 16, 16, 16), masks, [sample_scene(rng) for _ in range(count)]

    refine_base(unet, text, tokenizer, judge, Drawn(), path, minutes)
    saved = torch.load(path, weights_only=True)
    assert saved["steps"] == 1
    assert seen == [((2, 16, 16, 16), True, True)] * has_judge
    assert any(not torch.equal(value, before[name]) for name, value in saved["model"].items())
    for name, kept in unet.state_dict().items():
        assert (saved["average"][name] - start[name]).mean() == pytest.approx(1, abs=1e-3)
        torch.testing.assert_close(kept, saved["average"][name])


def test_a_recipe_starts_with_the_networks_of_a_bundle(tmp_path: Path) -> None:
    recipe = Recipe(tmp_path, Plan(), torch.device("cpu"), shipped_bundle())
    assert not [stage for stage in ("latents", "text", "base", "refined", "pairs", "turbo") if recipe.done(stage).exists()]
    assert all(recipe.done(stage).exists() for stage in ("tokenizer", "autoencoder", "decoder", "scorer", "tiny_decoder", "cleanness"))
    with torch.no_grad():
        image = recipe.vae("decoder").decode(torch.zeros(1, 16, 16, 16)).sample
        assert TinyDecoder.from_pretrained(tmp_path / "tiny_decoder")(torch.zeros(1, 16, 16, 16)).shape == image.shape == (1, 3, 256, 256)
        assert set(recipe.trained_scorer()(image)) == set(ATTRIBUTES)
        assert 0 <= float(recipe.trained_cleanness()(image)) <= 1
        states = recipe.text_encoder(START)(tokenize(recipe.words, ["a red house"])).last_hidden_state
        assert recipe.unet(START)(torch.zeros(1, 16, 16, 16), 500, states).sample.isfinite().all()
    recipe.done("text").touch()
    again = Recipe(tmp_path, Plan(), torch.device("cpu"), shipped_bundle())
    assert again.is_continued
    assert again.done("text").exists()
    assert Recipe(tmp_path, Plan(), torch.device("cpu")).is_continued
    assert not Recipe(tmp_path / "new", Plan(), torch.device("cpu")).is_continued
    assert (tmp_path / START_TURBO / "unet").is_dir()


def test_a_deeper_text_encoder_first_says_what_the_other_one_says() -> None:
    torch.manual_seed(0)
    shallow = make_text_encoder(100, 99)
    shallow.config.num_hidden_layers = 2
    del shallow.text_model.encoder.layers[2:]
    tokens = torch.randint(0, 99, (3, 20))
    deep = deepen(shallow)
    assert deep.config.num_hidden_layers == TEXT_LAYERS
    torch.testing.assert_close(deep(tokens).last_hidden_state, shallow(tokens).last_hidden_state)


def test_a_text_encoder_learns_on_and_keeps_what_denoisers_understand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_a_step_take_one_second(monkeypatch)
    recipe = Recipe(tmp_path, Plan(text=0.1), torch.device("cpu"), shipped_bundle())
    recipe.text()
    learned, before = recipe.text_encoder("text"), recipe.text_encoder(START)
    tokens = tokenize(recipe.words, ["a red house by a lake"])
    changed = (learned(tokens).last_hidden_state - before(tokens).last_hidden_state).square().mean()
    assert 0 < changed < 0.1 * before(tokens).last_hidden_state.square().mean()
    assert (tmp_path / "text" / "heads.safetensors").exists()


def test_batches_of_captions_are_about_equally_long() -> None:
    batches = draw_batches(random.Random(1))
    assert [len(batch) for batch in batches] == [BATCH] * SORTED
    spreads = [max(len(text) for text, _ in batch) - min(len(text) for text, _ in batch) for batch in batches]
    assert sorted(spreads)[SORTED // 2] < 40


def test_turbo_begins_with_what_base_has_learned() -> None:
    before, after, turbo = (torch.nn.Linear(2, 2) for _ in range(3))
    expected = turbo.weight + after.weight - before.weight
    add_change(turbo, before, after)
    torch.testing.assert_close(turbo.weight, expected)
