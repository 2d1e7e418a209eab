"""Sentence encoders made from configurations with random weights: the same embeddings as transformers', without it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt import Runtime
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.pool import Pool
from costroute_rt.error import BackendError, ConfigError
from costroute_rt.export.router.job import Source, evaluate_bundle, fit_bundle, fit_pool, opened_sentence_encoder
from costroute_rt.export.router.sentence_encoder import export_sentence_encoder, read_layout
from tests.export.router.test_transformer import route_without_torch, write_labels
from tests.export.small_checkpoint import needs_export, write_tokenizer
from tests.pools import write_pool_of

TOKENS = 16
PROMPTS = ["a red house", "three pine trees in the snow " * 5, "x", "A Lake, at night"]
LINES = ("a red house by a lake with snowy mountains behind", "three pine trees in the snow under a starry night", "the small white birds")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rounds the weights to float16, so that export loses nothing."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special, show_progress=False))
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    BertTokenizerFast(tokenizer_object=inner, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=120, max_position_embeddings=TOKENS, **sizes)).half().float().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    write_tokenizer(folder)
    tokenizer = CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 24}
    numbers = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=TOKENS, **sizes, **numbers)
    CLIPTextModelWithProjection(config).half().float().save_pretrained(folder)
    return folder


def embed(model: Path, folder: Path) -> np.ndarray:
    """Embeddings from an engine, with the runtime's code only."""
    folder.mkdir()
    with opened_sentence_encoder(model, folder, Source(labels="none")) as encoder:
        assert (encoder.max_length, encoder.name) == (TOKENS, model.name)
        return encoder.encode(PROMPTS)


def forward(model: Any, folder: Path) -> tuple[Any, Any]:
    """Output of transformers for the padded prompts, and their mask."""
    import torch
    from transformers import AutoTokenizer

    batch = AutoTokenizer.from_pretrained(folder)(PROMPTS, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
    with torch.no_grad():
        return model.from_pretrained(folder).eval()(**batch), batch["attention_mask"]


def as_sentence_transformer(model: Path, target: Path, pooling: str, *more: str, **settings: Any) -> Path:
    """The folder as sentence-transformers lays it out."""
    shutil.copytree(model, target)
    kinds = ["Transformer", "Pooling", *more]
    paths = ["", "1_Pooling", *(f"{index}_{kind}" for index, kind in enumerate(more, 2))]
    rows = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    (target / "modules.json").write_text(json.dumps(rows))
    (target / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{name}": name == pooling for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    (target / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))
    (target / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128, "do_lower_case": False, **settings}))
    return target


class TestExported:
    pytestmark = needs_export

    def test_a_folder_of_transformers_is_pooled_by_its_mean(self, bert: Path, tmp_path: Path) -> None:
        from transformers import BertModel

        outputs, mask = forward(BertModel, bert)
        share = mask[:, :, None].float()
        expected = (outputs.last_hidden_state * share).sum(1) / share.sum(1)
        np.testing.assert_allclose(embed(bert, tmp_path / "out"), expected, atol=1e-4, rtol=0)

    @pytest.mark.parametrize(("pooling", "more"), [("mean_tokens", ("Normalize",)), ("cls_token", ()), ("lasttoken", ("Normalize",))])
    def test_modules_are_combined_as_in_sentence_transformers(
        self, bert: Path, tmp_path: Path, pooling: str, more: tuple[str, ...]
    ) -> None:
        from transformers import BertModel

        folder = as_sentence_transformer(bert, tmp_path / "tiny", pooling, *more)
        outputs, mask = forward(BertModel, bert)
        states, share = outputs.last_hidden_state, mask[:, :, None].float()
        pooled = {
            "mean_tokens": (states * share).sum(1) / share.sum(1),
            "cls_token": states[:, 0],
            "lasttoken": states[range(len(PROMPTS)), mask.sum(1) - 1],
        }[pooling].numpy()
        expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True) if more else pooled
        np.testing.assert_allclose(embed(folder, tmp_path / "out"), expected, atol=1e-4, rtol=0)

    def test_clip_gives_its_projected_end_of_text(self, clip: Path, tmp_path: Path) -> None:
        from transformers import CLIPTextModelWithProjection

        expected = forward(CLIPTextModelWithProjection, clip)[0].text_embeds
        found = embed(clip, tmp_path / "out")
        assert found.shape == (len(PROMPTS), 24)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)

    def test_clip_without_a_projection_gives_its_end_of_text(self, clip: Path, tmp_path: Path) -> None:
        from transformers import CLIPTextModel

        folder = Path(shutil.copytree(clip, tmp_path / "tiny"))
        CLIPTextModel.from_pretrained(clip).save_pretrained(folder)
        expected = forward(CLIPTextModel, folder)[0].pooler_output
        np.testing.assert_allclose(embed(folder, tmp_path / "out"), expected, atol=1e-4, rtol=0)

    def test_the_text_side_of_a_whole_clip_is_taken(self, clip: Path, tmp_path: Path) -> None:
        from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPVisionConfig

        folder = Path(shutil.copytree(clip, tmp_path / "tiny"))
        text = CLIPTextModelWithProjection.from_pretrained(clip)
        vision = CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
        )
        config = CLIPConfig.from_text_vision_configs(text.config, vision, projection_dim=24)
        whole = CLIPModel(config)
        whole.text_model.load_state_dict(text.text_model.state_dict())
        whole.text_projection.load_state_dict(text.text_projection.state_dict())
        whole.save_pretrained(folder)
        np.testing.assert_allclose(
            embed(folder, tmp_path / "out"), forward(CLIPTextModelWithProjection, clip)[0].text_embeds, atol=1e-4, rtol=0
        )

    def test_lengths_and_letter_case_are_the_folders(self, bert: Path, tmp_path: Path) -> None:
        folder = as_sentence_transformer(bert, tmp_path / "tiny", "mean_tokens", max_seq_length=5, do_lower_case=True)
        settings = export_sentence_encoder(folder, tmp_path)
        assert settings == {"name": "tiny", "embedding_width": 32, "max_length": 5, "pad": "[PAD]"}
        assert json.loads((tmp_path / "tokenizer.json").read_text())["normalizer"]["normalizers"][0] == {"type": "Lowercase"}

    @pytest.mark.parametrize("damage", ["truncated", "no weights", "foreign", "an encoder and a decoder", "lacking a layer"])
    def test_models_that_cannot_be_used_are_refused(self, bert: Path, tmp_path: Path, damage: str) -> None:
        folder = Path(shutil.copytree(bert, tmp_path / "tiny"))
        weights = folder / "model.safetensors"
        config = json.loads((folder / "config.json").read_text())
        if damage == "truncated":
            weights.write_bytes(weights.read_bytes()[:-50])
        elif damage == "no weights":
            weights.unlink()
        elif damage == "foreign":
            (folder / "config.json").write_text(json.dumps({"model_type": "abacus"}))
        elif damage == "lacking a layer":
            (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
        else:
            from transformers import T5Config, T5Model

            T5Model(T5Config(vocab_size=120, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(folder)
        with pytest.raises(ConfigError, match="a folder with a sentence encoder"):
            export_sentence_encoder(folder, tmp_path)

    def test_a_bundle_fitted_with_it_routes_by_it_without_torch(self, bert: Path, tiny_bundle: Path, tmp_path: Path, home: Path) -> None:
        pool = [row["name"] for row in Bundle.open(tiny_bundle).pool]
        write_labels(tmp_path / "labels.csv", pool)
        output = tmp_path / "fitted"
        source = Source(labels=tmp_path / "labels.csv")
        router = fit_bundle(Bundle.open(tiny_bundle), source, output, encoder=str(bert), estimators=["linear"])
        assert (router.routes_on, router.encoder.kind, router.needs_states) == ("prompt", "engine", False)
        assert Bundle.open(output).router["tokenizer"] == "router/tokenizer.json"
        assert route_without_torch(output, "white red lake house") == pool[0]
        assert route_without_torch(output, "the snow white lake") == pool[-1]
        assert evaluate_bundle(Bundle.open(output), source).to_json()["router_ms"] > 0

    def test_a_pool_fitted_with_it_routes_by_it(self, bert: Path, tiny_bundle: Path, tmp_path: Path, home: Path) -> None:
        """The encoder is one of the pool's own engines; the pool's bundles are not needed to read a prompt."""
        pool = write_pool_of(tmp_path / "desk.pool", tiny_bundle, others={"elsewhere": 5.0})
        write_labels(tmp_path / "labels.csv", [str(row["name"]) for row in pool.rows])
        source = Source(labels=tmp_path / "labels.csv")
        fit_pool(pool, source, pool.root, encoder=str(bert), estimators=["linear"], force=True)
        made = Pool.open(pool.root)
        assert (made.states_bundle, list(made.holders)) == (None, ["tiny", "router"])
        with Runtime.open(pool=made.root, build=True) as runtime:
            assert "router/router_encoder/encode" in runtime._resources.engines.resident()
            assert runtime.route("white red lake house").chosen.name == pool.names()[0]
            assert runtime.generate("white red lake house", seed=1).route.judgement.trust is not None


BROKEN: dict[str, Callable[[Path], object]] = {
    "no folder": lambda folder: shutil.rmtree(folder),
    "no config.json": lambda folder: (folder / "config.json").unlink(),
    "broken modules.json": lambda folder: (folder / "modules.json").write_text("[{"),
    "no pooling settings": lambda folder: write_modules(folder, "Transformer", "Pooling"),
    "an unknown module": lambda folder: write_modules(folder, "Transformer", "Dense"),
    "pooling by the maximum": lambda folder: (
        write_modules(folder, "Transformer", "Pooling"),
        (folder / "Pooling").mkdir(),
        (folder / "Pooling/config.json").write_text('{"pooling_mode_max_tokens": true}'),
    ),
}


def write_modules(folder: Path, *kinds: str) -> None:
    rows = [{"type": f"sentence_transformers.models.{kind}", "path": "" if kind == "Transformer" else kind} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(rows))


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_unusable_folders_are_refused(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    read_layout(folder)
    damage(folder)
    with pytest.raises(ConfigError, match="states, hashed, or a folder"):
        read_layout(folder)


def test_without_torch_and_transformers_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    with pytest.raises(BackendError, match="install the export extra"):
        export_sentence_encoder(tmp_path, tmp_path)
