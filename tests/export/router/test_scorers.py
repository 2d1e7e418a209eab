"""Scorers: their scores, and errors where one is not available."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.error import BackendError, BundleError, ConfigError
from costroute_rt.export.postcard.judge import CLEANNESS_WEIGHT, Finding
from costroute_rt.export.router.clip_scorer import AestheticScorer, ClipScorer
from costroute_rt.export.router.prompts import PromptRow
from costroute_rt.export.router.scorers import FunctionScorer, PostcardScorer, open_scorers

PIXELS = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
PROMPT = PromptRow(prompt_id="p", prompt="a red house", extra={}, stated={"house": "red", "tree_count": 3})
MODULE = """
def brightness(pixels, prompt):
    return pixels.mean() / 255 + len(prompt)

def other(pixels, prompt):
    return 1

value = 3
"""

NO_CLIP = "a CLIP model is run by torch and transformers, one of which is missing: pip install costroute-rt[export]"


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's in the working folder."""
    (tmp_path / "my_scorers.py").write_text(MODULE)
    (tmp_path / "broken_scorers.py").write_text("raise ValueError('not today')\n")
    monkeypatch.chdir(tmp_path)
    yield "my_scorers"
    for name in ("my_scorers", "broken_scorers"):
        sys.modules.pop(name, None)


def test_a_function_in_the_working_folder_scores(module: str, bundle: Bundle) -> None:
    before = list(sys.path)
    first, second = open_scorers([f"{module}:brightness", f"{module}:other"], bundle)
    assert sys.path == before
    assert (first.name, second.name) == ("brightness", "other")
    assert first.check(PROMPT) is None
    assert first.score(PIXELS, PROMPT) == pytest.approx(PIXELS.mean() / 255 + 11)
    assert second.score(PIXELS, PROMPT) == 1.0


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("sharpness", "expected postcard, recall, cleanness, clip:FOLDER"),
        ("my_scorers:", "expected postcard, recall, cleanness, clip:FOLDER"),
        ("no_such_module:score", "ModuleNotFoundError"),
        ("my_scorers:missing", "AttributeError"),
        ("broken_scorers:score", "ValueError: not today"),
        ("my_scorers:value", "a function, not an object of type int"),
    ],
)
@pytest.mark.usefixtures("module")
def test_invalid_scorers_are_refused(spec: str, problem: str, bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=problem):
        open_scorers([spec], bundle)


def test_two_scorers_with_one_name_are_refused(module: str, bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="scorers with different names"):
        open_scorers([f"{module}:other", f"{module}:other"], bundle)


class FakeJudge:
    """A judge whose findings are always the same."""

    def __init__(self, cleanness: float | None) -> None:
        self.judges_cleanness, self._cleanness = cleanness is not None, cleanness
        self.is_closed = False

    def look(self, pixels: Any, stated: Any) -> Finding:
        assert stated == PROMPT.stated
        return Finding(probabilities={"house": 0.5, "tree_count": 0.9}, cleanness=self._cleanness)

    def close(self) -> None:
        self.is_closed = True


def test_without_cleanness_the_postcard_score_is_the_mean_over_stated_values() -> None:
    judge = FakeJudge(None)
    scorer = PostcardScorer(judge, "score")  # type: ignore[arg-type]
    assert scorer.name == "postcard"
    assert scorer.check(PROMPT) is None
    assert scorer.score(PIXELS, PROMPT) == pytest.approx(0.7)
    scorer.close()
    assert judge.is_closed


def test_a_score_with_cleanness_has_a_name_of_its_own_and_its_parts_are_scorers_too() -> None:
    score, recall, cleanness = (PostcardScorer(FakeJudge(0.2), part) for part in ("score", "recall", "cleanness"))  # type: ignore[arg-type]
    assert (score.name, recall.name, cleanness.name) == ("postcard-clean", "recall", "cleanness")
    assert recall.score(PIXELS, PROMPT) == pytest.approx(0.7)
    assert cleanness.score(PIXELS, PROMPT) == pytest.approx(0.2)
    assert score.score(PIXELS, PROMPT) == pytest.approx(0.7 - CLEANNESS_WEIGHT * (0.7 - 0.2))
    nothing = PromptRow(prompt_id="p", prompt="x", extra={}, stated=None)
    assert cleanness.check(nothing) is None
    assert score.check(nothing) is not None


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        (None, "it has no value in the column `stated`"),
        ({}, "it has no value in the column `stated`"),
        ({"dragon": "red"}, "it states dragon 'red', but the postcard scorer knows sky"),
        ({"house": "purple"}, "it states house 'purple', but the postcard scorer knows none, red"),
        ({"house": ["red"]}, "it states house"),
    ],
)
def test_the_postcard_scorer_names_what_a_prompt_lacks(stated: Any, problem: str) -> None:
    row = PromptRow(prompt_id="p", prompt="x", extra={}, stated=stated)
    assert (PostcardScorer(FakeJudge(None), "score").check(row) or "").startswith(problem)


def test_a_bundle_without_the_postcard_scorer_is_refused(bundle: Bundle, home: Path) -> None:
    with pytest.raises(BundleError, match="use a bundle of the postcard family"):
        open_scorers(["postcard"], bundle, home)


def test_clip_without_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackendError, match="install the export extra"):
        ClipScorer.open(tmp_path)


def write_clip(folder: Path) -> None:
    """A CLIP model with random weights and a tokenizer of bytes."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    folder.mkdir(parents=True)
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **sizes,
        "vocab_size": len(tokens),
        "max_position_embeddings": 16,
        "eos_token_id": len(tokens) - 1,
        "bos_token_id": len(tokens) - 2,
    }
    torch.manual_seed(0)
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)


@pytest.mark.export
def test_clip_score_is_that_of_the_model_in_the_folder(tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch", reason=NO_CLIP), pytest.importorskip("transformers", reason=NO_CLIP)
    write_clip(tmp_path / "vit-tiny")
    scorer = ClipScorer.open(tmp_path / "vit-tiny")
    assert scorer.name == "clip_vit-tiny"
    model = transformers.CLIPModel.from_pretrained(tmp_path / "vit-tiny")
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path / "vit-tiny", use_fast=False)
    rng = np.random.default_rng(0)
    found = []
    for text in ("a red house", "a lake", "a red house", "a very long text " * 10):
        pixels = rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)
        inputs = processor(text=[text], images=[pixels], return_tensors="pt", truncation=True)
        with torch.inference_mode():
            out = model(**inputs)
        cosine = float((out.text_embeds * out.image_embeds).sum())
        found.append(scorer.score(pixels, PromptRow(prompt_id="p", prompt=text, extra={})))
        assert found[-1] == pytest.approx(2.5 * max(cosine, 0.0), abs=1e-4)
    assert len(set(found)) > 1
    scorer.close()


@pytest.mark.export
@pytest.mark.parametrize("kind", ["pickscore", "hps"])
def test_scores_of_clip_shaped_models_follow_their_formulas(kind: str, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch", reason=NO_CLIP), pytest.importorskip("transformers", reason=NO_CLIP)
    write_clip(tmp_path / "tiny")
    model = transformers.CLIPModel.from_pretrained(tmp_path / "tiny")
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path / "tiny", use_fast=False)
    with torch.inference_mode():
        out = model(**processor(text=[PROMPT.prompt], images=[PIXELS], return_tensors="pt"))
    logit = float(out.logits_per_image)
    wanted = logit if kind == "pickscore" else logit / model.logit_scale.exp().item()
    scorer = ClipScorer.open(tmp_path / "tiny", kind)
    assert scorer.name == f"{kind}_tiny"
    assert scorer.score(PIXELS, PROMPT) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.export
def test_an_aesthetic_head_rates_the_image_alone(tmp_path: Path, bundle: Bundle) -> None:
    torch, transformers = pytest.importorskip("torch", reason=NO_CLIP), pytest.importorskip("transformers", reason=NO_CLIP)
    write_clip(tmp_path / "tiny")
    torch.manual_seed(1)
    head = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Dropout(0.2), torch.nn.Linear(6, 4), torch.nn.Linear(4, 1)).eval()
    save_file({f"layers.{name}": value.numpy() for name, value in head.state_dict().items()}, tmp_path / "head.safetensors")
    model = transformers.CLIPModel.from_pretrained(tmp_path / "tiny")
    processor = transformers.CLIPProcessor.from_pretrained(tmp_path / "tiny", use_fast=False)
    with torch.inference_mode():
        image = model.get_image_features(**processor(images=[PIXELS], return_tensors="pt"))
        wanted = float(head(image / image.norm()))
    (scorer,) = open_scorers([f"aesthetic:{tmp_path / 'tiny'},{tmp_path / 'head.safetensors'}"], bundle)
    assert scorer.name == "aesthetic_head"
    other = PromptRow(prompt_id="q", prompt="something else", extra={})
    assert scorer.score(PIXELS, PROMPT) == scorer.score(PIXELS, other) == pytest.approx(wanted, rel=1e-4)
    save_file({"weight": np.ones((1, 5), np.float32), "bias": np.ones(1, np.float32)}, tmp_path / "tiny" / "aesthetic.safetensors")
    with pytest.raises(ConfigError, match="takes 5 numbers, the model in"):
        AestheticScorer.open(str(tmp_path / "tiny"))


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"0.weight": np.ones((2, 8), np.float32)},
        {"0.weight": np.ones((2, 8), np.float32), "2.weight": np.ones((1, 3), np.float32)},
        {"weight": np.ones(8, np.float32)},
        {"weight": np.full((1, 8), np.nan, np.float32)},
        {"weight": np.ones((1, 8), np.float32), "bias": np.ones(2, np.float32)},
    ],
)
def test_a_file_that_is_no_head_is_refused(tensors: dict[str, Any], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "head.safetensors")
    with pytest.raises(ConfigError, match="linear layers one after the other"):
        AestheticScorer.open(f"{tmp_path},{tmp_path / 'head.safetensors'}")


def test_a_head_that_is_missing_or_no_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("nothing of this")
    for spec in (str(tmp_path), f"{tmp_path},{tmp_path / 'text.safetensors'}"):
        with pytest.raises(ConfigError, match="a safetensors file with a linear layer"):
            AestheticScorer.open(spec)


@pytest.mark.export
def test_a_folder_without_a_clip_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=NO_CLIP)
    with pytest.raises(ConfigError, match="a folder with a CLIP model"):
        ClipScorer.open(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ConfigError, match="a folder with a CLIP model"):
        ClipScorer.open(tmp_path)


def test_open_scorers_are_closed_if_another_fails_to_open(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    closed: list[str] = []
    monkeypatch.setattr(FunctionScorer, "close", lambda self: closed.append(self.name))
    with pytest.raises(ConfigError):
        open_scorers([f"{module}:other", "nonsense"], bundle)
    assert closed == ["other"]
