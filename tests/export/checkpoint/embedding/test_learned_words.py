"""A tokenizer.json with learned words gives the tokens that diffusers gives: those of the word, its vectors one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.embedding.add import add_embeddings
from costroute_rt.export.checkpoint.embedding.read_embedding import read_embedding
from costroute_rt.export.checkpoint.embedding.word_file import write_words
from costroute_rt.export.checkpoint.source import open_source
from costroute_rt.export.checkpoint.source.network import Source
from tests.checkpoints import write_sd15_folder, write_tokenizer
from tests.export.small_checkpoint import needs_export
from tests.tensor_file import write_safetensors

pytestmark = needs_export
VECTORS = {"EasyNegative": 8, "EasyNegative-v2": 2, "<red-toy>": 1, "long-one": 75, "坏 手": 2}
PROMPTS = ["{}", "a {}, the cat", "the{}s", "{} {}", "a cat", "({}!)"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("learned")
    source = open_source(write_sd15_folder(folder / "model", dtype="F32"))
    embeddings = []
    for index, (word, count) in enumerate(VECTORS.items()):
        vectors = np.random.default_rng(index).standard_normal((count, 32)).astype(np.float32)
        embeddings.append(read_embedding(write_safetensors(folder / f"{index}.safetensors", {"emb_params": vectors}), word))
    return add_embeddings(source, embeddings, folder / "own")


@pytest.fixture(scope="module")
def ours(model: Source, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    from costroute_rt.export.checkpoint.tokenizer import read_clip_tokenizer

    words = model.networks["text_encoder"].config["vocab_size"]
    original, converted, length = read_clip_tokenizer(model.tokenizers["tokenizer"], max_length=77, vocabulary=words)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(converted.to_str(), encoding="utf-8")
    return Tokenizer.open(path, max_length=length, pad=int(original.pad_token_id))


@pytest.fixture(scope="module")
def theirs(model: Source) -> Any:
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    pipeline = StableDiffusionPipeline.from_pretrained(model.path)
    for index, word in enumerate(VECTORS):
        vectors = load_file(model.path.parent / f"{index}.safetensors")["emb_params"]
        pipeline.load_textual_inversion({word: vectors}, token=word)
    return pipeline


@pytest.mark.parametrize("word", VECTORS)
def test_words_become_the_tokens_that_diffusers_gives(word: str, ours: Tokenizer, theirs: Any) -> None:
    for form in PROMPTS:
        prompt = form.replace("{}", word)
        text = theirs.maybe_convert_prompt(prompt, theirs.tokenizer)
        wanted = theirs.tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
        assert ours.encode(prompt).ids[0].tolist() == wanted, prompt


def test_words_are_found_in_any_case(ours: Tokenizer) -> None:
    assert ours.encode("EASYnegative, a cat").ids.tolist() == ours.encode("EasyNegative, a cat").ids.tolist()


def test_the_text_encoder_gives_the_states_that_diffusers_gives(model: Source, ours: Tokenizer, theirs: Any) -> None:
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    network = model.networks["text_encoder"]
    encoder = CLIPTextModel(CLIPTextConfig(**network.config)).eval()
    state = {}
    for name, region in network.weights.items():
        data = region.file.read_bytes()[region.offset : region.offset + region.length]
        state[name] = torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(region.shape)
    encoder.load_state_dict(state)
    prompt = "a red cat, easynegative"
    with torch.no_grad():
        found = encoder(torch.from_numpy(ours.encode(prompt).ids))
        wanted = theirs.encode_prompt(prompt.replace("easyn", "EasyN"), "cpu", 1, False)[0]
    torch.testing.assert_close(found.last_hidden_state, wanted)


def test_a_table_with_more_rows_than_words_and_words_beyond_the_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from costroute_rt.export.checkpoint.tokenizer import read_clip_tokenizer

    folder = tmp_path / "tokenizer"
    rows = write_tokenizer(folder)["vocab_size"] + 100
    write_words(folder, {"red-toy": range(rows, rows + 2)})
    _, converted, _ = read_clip_tokenizer(folder, max_length=77, vocabulary=rows + 2)
    assert converted.encode("a Red-Toy", add_special_tokens=False).ids[1:3] == [rows, rows + 1]
    converted.to_str()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(BundleError, match=f"learned words beyond the {rows + 1} embeddings"):
        read_clip_tokenizer(folder, max_length=77, vocabulary=rows + 1)
