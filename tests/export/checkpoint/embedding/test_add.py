"""Textual inversions become rows of the token embeddings and words of the tokenizers; what does not fit is refused in one line."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.error import BundleError, ConfigError
from costroute_rt.export.checkpoint.embedding.add import add_embeddings, plan_embeddings
from costroute_rt.export.checkpoint.embedding.argument import parse_embedding
from costroute_rt.export.checkpoint.embedding.read_embedding import read_embedding
from costroute_rt.export.checkpoint.embedding.word_file import CHARACTERS, read_words
from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.network import Source
from tests.checkpoints import END, write_sd15_folder, write_sdxl_folder
from tests.tensor_file import decode, write_safetensors

TABLE = "text_model.embeddings.token_embedding.weight"
WIDTH, SECOND = 32, 64


def random(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def table(source: Source, encoder: str) -> Any:
    region = source.networks[encoder].weights[TABLE]
    return decode(region.file.read_bytes()[region.offset : region.offset + region.length], region.dtype, region.shape)


@pytest.fixture
def sd15(tmp_path: Path) -> Source:
    return open_source(write_sd15_folder(tmp_path / "model"))


def test_vectors_become_rows_and_the_word_their_numbers(sd15: Source, tmp_path: Path) -> None:
    several, one = random(1, 3, WIDTH), random(2, WIDTH)
    files = [
        write_safetensors(tmp_path / "EasyNegative.safetensors", {"emb_params": several}),
        write_safetensors(tmp_path / "learned_embeds.safetensors", {"<red-toy>": one}),
    ]
    added = add_embeddings(sd15, files, tmp_path / "own")
    before, network = table(sd15, "text_encoder"), added.networks["text_encoder"]
    rows = len(before)
    found = table(added, "text_encoder")
    np.testing.assert_array_equal(found[:rows], before)
    np.testing.assert_allclose(found[rows:], np.concatenate([several, one[None]]), rtol=1e-3)
    assert network.weights[TABLE].dtype == "F16"
    assert network.config["vocab_size"] == rows + 4
    assert read_words(added.tokenizers["tokenizer"]) == {"EasyNegative": range(rows, rows + 3), "<red-toy>": range(rows + 3, rows + 4)}
    words = json.loads((added.tokenizers["tokenizer"] / "vocab.json").read_text())
    assert network.config["eos_token_id"] == words[END]
    others = {name: region for name, region in network.weights.items() if name != TABLE}
    assert others == {name: region for name, region in sd15.networks["text_encoder"].weights.items() if name != TABLE}
    assert read_words(sd15.tokenizers["tokenizer"]) == {}

    again = add_embeddings(added, [write_safetensors(tmp_path / "more.safetensors", {"emb_params": one})], tmp_path / "more")
    assert read_words(again.tokenizers["tokenizer"])["more"] == range(rows + 4, rows + 5)
    assert len(read_words(again.tokenizers["tokenizer"])) == 3


def test_an_unchanged_table_is_kept_and_another_word_changes_the_key(sd15: Source, tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "a b.safetensors", {"emb_params": random(1, 2, WIDTH)})
    added = add_embeddings(sd15, [file], tmp_path / "own")
    path = added.networks["text_encoder"].weights[TABLE].file
    modified = path.stat().st_mtime_ns
    assert add_embeddings(sd15, [file], tmp_path / "own") == added
    assert path.stat().st_mtime_ns == modified
    plan = plan_embeddings(sd15, [file])
    assert plan.record() == [{"name": "a b", "sha256": read_embedding(file).sha256, "vectors": 2}]
    assert plan.keys != plan_embeddings(sd15, [read_embedding(file, "another")]).keys
    assert add_embeddings(sd15, [], tmp_path / "none") == sd15
    assert not (tmp_path / "none").exists()


def test_sdxl_has_vectors_for_both_text_encoders(tmp_path: Path) -> None:
    source = open_source(write_sdxl_folder(tmp_path / "model"))
    tensors = {"clip_l": random(1, 2, WIDTH), "clip_g": random(2, 2, SECOND)}
    added = add_embeddings(source, [write_safetensors(tmp_path / "pair.safetensors", tensors)], tmp_path / "own")
    for encoder, key in (("text_encoder", "clip_l"), ("text_encoder_2", "clip_g")):
        np.testing.assert_allclose(table(added, encoder)[-2:], tensors[key], rtol=1e-3)
    assert all(read_words(folder).keys() == {"pair"} for folder in added.tokenizers.values())
    with pytest.raises(BundleError, match=r"it is for one text encoder, but the model model is SDXL, which has two; use one with clip_l"):
        plan_embeddings(source, [write_safetensors(tmp_path / "one.safetensors", {"emb_params": random(1, 2, WIDTH)})])
    with pytest.raises(BundleError, match="it is for SDXL, but the model"):
        plan_embeddings(open_source(write_sd15_folder(tmp_path / "other")), [tmp_path / "pair.safetensors"])


@pytest.mark.parametrize(
    ("name", "tensors", "problem"),
    [
        (
            "wide",
            {"emb_params": random(1, 2, 1024)},
            r"vectors have 1024 numbers \(Stable Diffusion 2.x\), those of the model model 32",
        ),
        ("long", {"emb_params": random(1, 76, WIDTH)}, "it has 76 vectors, but a prompt has room for 75"),
        ("flat", {"emb_params": random(1, 0, WIDTH)}, r"shapes \(0, 32\)"),
        ("deep", {"emb_params": random(1, 1, 1, WIDTH)}, "shapes"),
        ("unequal", {"clip_l": random(1, 2, WIDTH), "clip_g": random(1, 3, SECOND)}, r"\(2, 32\), \(3, 64\): expected .* of as many"),
        ("infinite", {"emb_params": np.full((2, WIDTH), np.inf, np.float32)}, "NaN or infinity"),
        (
            "lora",
            {"a.lora_up.weight": random(1, 2, 2), "a.lora_down.weight": random(1, 2, 2)},
            "it is a LoRA; add it as one",
        ),
        ("model", {"a": random(1, 2, 2), "b": random(1, 2, 2)}, "no textual inversion: it holds 2 tensors, such as 'a', 'b'"),
        ("Red", {"emb_params": random(1, WIDTH)}, "'Red' is a word of the model's vocabulary; rename the file"),
        ("a(b", {"emb_params": random(1, WIDTH)}, "cannot stand in a prompt"),
        ("x", {"emb_params": random(1, WIDTH)}, "cannot stand in a prompt"),
    ],
)
def test_what_does_not_fit_is_refused(sd15: Source, tmp_path: Path, name: str, tensors: dict[str, Any], problem: str) -> None:
    with pytest.raises(BundleError, match=problem):
        add_embeddings(sd15, [write_safetensors(tmp_path / f"{name}.safetensors", tensors)], tmp_path / "own")
    assert not (tmp_path / "own").exists()


def test_words_are_unique_and_not_too_many(sd15: Source, tmp_path: Path) -> None:
    def words(*names: str, vectors: int = 1) -> list[Any]:
        file = write_safetensors(tmp_path / "file.safetensors", {"emb_params": random(1, vectors, WIDTH)})
        return [read_embedding(file, name) for name in names]

    with pytest.raises(BundleError, match="'STYLE-one' is that of another textual inversion"):
        plan_embeddings(sd15, words("style-one", "STYLE-one"))
    with pytest.raises(BundleError, match="25 learned words with 25 vectors; add 24 words"):
        plan_embeddings(sd15, words(*(f"style-{index}" for index in range(25))))
    with pytest.raises(BundleError, match=f"vectors; add 24 words with {len(CHARACTERS)} vectors at most"):
        plan_embeddings(sd15, words(*(f"style-{index}" for index in range(10)), vectors=70))
    with pytest.raises(BundleError, match="too short for their vectors"):
        plan_embeddings(sd15, words("qx", vectors=60))
    with pytest.raises(ConfigError, match="word of a textual inversion"):
        words("[a]")


def test_a_vector_that_float16_cannot_hold_is_refused(sd15: Source, tmp_path: Path) -> None:
    file = write_safetensors(tmp_path / "large.safetensors", {"emb_params": np.full((1, WIDTH), 1e6, np.float32)})
    with pytest.raises(BundleError, match="too large for F16; use the model in float32"):
        add_embeddings(sd15, [file], tmp_path / "own")


def test_pickles_and_broken_tokenizers_are_refused(sd15: Source, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"string_to_param": {}}))
    with pytest.raises(BundleError, match=r"textual inversion in torch's format can run code .* use a \.safetensors file"):
        read_embedding(tmp_path / "a.pt")
    file = write_safetensors(tmp_path / "good one.safetensors", {"emb_params": random(1, WIDTH)})
    for content, problem in (("{}", "no tokenizer of CLIP"), ("[", "not valid JSON"), (None, "neither vocab.json nor tokenizer.json")):
        folder = tmp_path / "tokenizer"
        folder.mkdir(exist_ok=True)
        (folder / "vocab.json").unlink(missing_ok=True) if content is None else (folder / "vocab.json").write_text(content)
        with pytest.raises(BundleError, match=problem):
            plan_embeddings(dataclasses.replace(sd15, tokenizers={"tokenizer": folder}), [file])
    for rows in ({"a": 3}, {"a": [1]}, {"a": [-1, 2]}, {"a": [1, 10**9]}, {"a": [1, 5000]}):
        (folder / "learned_words.json").write_text(json.dumps(rows))
        with pytest.raises(BundleError, match="add the textual inversions again"):
            read_words(folder)


def test_a_command_line_gives_files_and_words(tmp_path: Path) -> None:
    file = str(tmp_path / "a=b.safetensors")
    assert parse_embedding(f"toy={file}") == (Path(file), "toy")
    assert parse_embedding("a.safetensors") == (Path("a.safetensors"), None)
    Path(file).touch()
    assert parse_embedding(file) == (Path(file), None)
    for text in ("", "=a", "toy="):
        with pytest.raises(ConfigError, match="expected FILE or WORD=FILE"):
            parse_embedding(text)
