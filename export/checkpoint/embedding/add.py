"""Adds textual inversions to a model: rows of its token embeddings, and words of its tokenizers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.section import shorten
from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.embedding.embedding import Embedding, count_vectors
from costroute_rt.export.checkpoint.embedding.read_embedding import read_embedding
from costroute_rt.export.checkpoint.embedding.vocabulary import Vocabulary, copy_tokenizer
from costroute_rt.export.checkpoint.embedding.word_file import CHARACTERS, MOST_WORDS, read_words
from costroute_rt.export.checkpoint.source.network import Network, Region, Source
from costroute_rt.export.checkpoint.tensor.keyed_file import describe_weights, move_weights, write_once
from costroute_rt.export.checkpoint.tensor.number import from_float32, open_weights, read_blocks, read_tensor, to_float32
from costroute_rt.export.checkpoint.tensor.writer import NewTensor

_FORMAT = 1
"""Of the key; a change of what is written changes it."""
_TABLE = "text_model.embeddings.token_embedding.weight"
_ENCODERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 1280: "the second text encoder of SDXL"}
_ENDS = 2
"""Start and end token of a prompt."""
_MOST_GROWTH = 25
"""A tokenizer.json may make a text 128 times longer at most, and five times is what its bytes may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """Textual inversions that were checked against a model; nothing is written yet."""

    embeddings: tuple[Embedding, ...]
    keys: Mapping[str, str]
    """By text encoder: what its new token embeddings are made of, as a hash."""

    def record(self) -> list[dict[str, Any]]:
        """The textual inversions as data for a manifest."""
        return [{"name": each.name, "sha256": each.sha256, "vectors": each.count} for each in self.embeddings]


def plan_embeddings(source: Source, files: Sequence[Path | Embedding]) -> Addition:
    """Reads and checks textual inversions for a model; raises BundleError for one that cannot be used."""
    embeddings = tuple(each if isinstance(each, Embedding) else read_embedding(each) for each in files)
    keys = {}
    for encoder, network in _encoders(source).items():
        for embedding in embeddings:
            _check_fit(source, network, embedding)
        _check_words(source, _ENCODERS[encoder], embeddings)
        used = [[each.name, each.sha256] for each in embeddings]
        keys[encoder] = sha256(json.dumps([_FORMAT, used, describe_weights(network, [_TABLE])]).encode()).hexdigest()
    return Addition(embeddings=embeddings, keys=keys if embeddings else {})


def add_embeddings(source: Source, files: Sequence[Path | Embedding] | Addition, folder: Path) -> Source:
    """The model with textual inversions: their words are tokens of its tokenizers, and their vectors rows of its token embeddings.

    files: files, what `read_embedding` returned, or what `plan_embeddings` returned.
    folder: made where it is missing. It gets a file ENCODER.words.safetensors per text encoder, which is kept if nothing changed, and a
        copy of each tokenizer.
    Raises as `plan_embeddings`; BundleError for a vector that the table's dtype cannot hold; OutputError.
    """
    addition = files if isinstance(files, Addition) else plan_embeddings(source, files)
    networks, tokenizers = dict(source.networks), dict(source.tokenizers)
    for encoder, key in addition.keys.items():
        network, tokenizer = networks[encoder], _ENCODERS[encoder]
        region = network.weights[_TABLE]
        words = read_words(tokenizers[tokenizer])
        first = region.shape[0]
        for embedding in addition.embeddings:
            words[embedding.name] = range(first, first + embedding.count)
            first += embedding.count
        path = folder / f"{encoder}.words.safetensors"
        blocks = partial(_table_blocks, region, encoder, addition.embeddings)
        write_once(path, key, {_TABLE: NewTensor(dtype=region.dtype, shape=(first, region.shape[1]), blocks=blocks)})
        vocabulary = Vocabulary.read(tokenizers[tokenizer])
        tokenizers[tokenizer] = copy_tokenizer(tokenizers[tokenizer], folder / tokenizer, words)
        # By the old setting, the end of a text is the token of the highest number, which would now be a learned word's.
        config = {**network.config, "vocab_size": first, "eos_token_id": vocabulary.end}
        networks[encoder] = dataclasses.replace(move_weights(network, path), config=config)
    return dataclasses.replace(source, networks=networks, tokenizers=tokenizers)


def _encoders(source: Source) -> dict[str, Network]:
    return {name: source.networks[name] for name in _ENCODERS if name in source.networks}


def _check_fit(source: Source, network: Network, embedding: Embedding) -> None:
    """Raises BundleError for vectors that are missing for a text encoder, too many for it, or of another width."""
    encoders, tensor = _encoders(source), embedding.vectors.get(network.name)
    if embedding.vectors.keys() != encoders.keys() or tensor is None:
        own, wanted = ("SDXL", "another model") if len(embedding.vectors) > 1 else ("one text encoder", "SDXL, which has two")
        remedy = "use one with clip_l and clip_g" if len(encoders) > 1 else "use one that was made for this model"
        raise BundleError(embedding.path, f"it is for {own}, but the model {source.name} is {wanted}", remedy)
    width, expected = tensor.shape[-1], network.weights[_TABLE].shape[1]
    if width != expected:
        known = f" ({_WIDTHS[width]})" if width in _WIDTHS else ""
        problem = f"its vectors have {width} numbers{known}, those of the model {source.name} {expected}"
        raise BundleError(embedding.path, problem, "use one that was made for this model")
    room = int(network.config.get("max_position_embeddings", 77)) - _ENDS
    if embedding.count > room:
        problem = f"it has {embedding.count} vectors, but a prompt has room for {room}"
        raise BundleError(embedding.path, problem, "use another version of it")


def _check_words(source: Source, tokenizer: str, embeddings: Sequence[Embedding]) -> None:
    """Raises BundleError for words that mean something else already, and for more than a tokenizer can have."""
    folder = source.tokenizers[tokenizer]
    vocabulary, known = Vocabulary.read(folder), read_words(folder)
    taken = {word.lower() for word in known}
    for embedding in embeddings:
        word = embedding.name.lower()
        if word in vocabulary.words or f"{word}</w>" in vocabulary.words:
            problem = f"its word {shorten(embedding.name)} is a word of the model's vocabulary"
            raise BundleError(embedding.path, problem, "rename the file, or give it another word")
        if word in taken:
            problem = f"its word {shorten(embedding.name)} is that of another textual inversion"
            raise BundleError(embedding.path, problem, "rename the file, or give it another word")
        taken.add(word)
    vectors = sum(map(len, known.values())) + sum(each.count for each in embeddings)
    counts = [(word, len(tokens)) for word, tokens in known.items()] + [(each.name, each.count) for each in embeddings]
    growth = math.prod(max(1, -(-count // len(word))) for word, count in counts)
    if len(taken) > MOST_WORDS or vectors > len(CHARACTERS):
        problem = f"the model would have {len(taken)} learned words with {vectors} vectors"
        raise BundleError(source.path, problem, f"add {MOST_WORDS} words with {len(CHARACTERS)} vectors at most")
    if growth > _MOST_GROWTH:
        raise BundleError(source.path, "its learned words are too short for their vectors", "give them longer words")


def _table_blocks(region: Region, encoder: str, embeddings: Sequence[Embedding]) -> Iterator[npt.NDArray[Any]]:
    """The rows of the table as they are, then those of the words; raises BundleError for a vector that the dtype cannot hold."""
    with open_weights(region.file) as file:
        for data in read_blocks(file, region.file, region.offset, region.length):
            yield np.frombuffer(data, np.uint8)
    for embedding in embeddings:
        tensor = embedding.vectors[encoder]
        values = read_tensor(embedding.path, tensor).reshape(count_vectors(tensor), -1)
        stored = from_float32(values, region.dtype)
        if not np.isfinite(to_float32(stored.tobytes(), region.dtype)).all():
            raise BundleError(embedding.path, f"its vectors are too large for {region.dtype}", "use the model in float32 or bfloat16")
        yield stored
