"""Prompt encoders: from prompts to features."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.error import ConfigError
from costroute_rt.regular_file import ReadFile, read_regular
from costroute_rt.routing.array import Float32Array, IntArray
from costroute_rt.routing.router_network import Network, OpenEngine, encoder_network, no_engine
from costroute_rt.routing.setting import text, whole_number

_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
"""A word, a number, or one mark of punctuation."""
_START, _END = "\x02", "\x03"
_MOST_DIMENSIONS, _LONGEST_ORDER = 1 << 20, 8
TOKENIZER = "tokenizer.json"
"""File of a sentence encoder's tokenizer, in the router's folder."""
_MOST_TOKENS = 1 << 16


@dataclass(frozen=True, slots=True)
class TextStates:
    """Outputs of the family's text encoder for some prompts."""

    states: Float32Array
    """float32[prompts, tokens, width]"""
    lengths: IntArray
    """int64[prompts], number of tokens without padding; 1 or more."""

    def __len__(self) -> int:
        return len(self.states)

    def select(self, index: npt.ArrayLike) -> TextStates:
        """The states of the prompts at these positions, or where a mask is true."""
        rows = np.asarray(index)
        return TextStates(self.states[rows], self.lengths[rows])


def check_states(states: TextStates | None, prompts: int, width: int) -> TextStates:
    """The states, which must be those of so many prompts and of that width; raises ConfigError."""
    if states is None or states.states.ndim != 3 or states.states.shape[::2] != (prompts, width):
        found = None if states is None else f"float32{list(states.states.shape)}"
        raise ConfigError("states", found, f"those of {prompts} prompts, {width} wide")
    return states


class PromptEncoder(Protocol):
    """Turns prompts into features of one length."""

    @property
    def kind(self) -> str:
        """Its name in a router's settings: hashed, states, engine or tagged."""

    @property
    def width(self) -> int:
        """Number of features per prompt."""

    @property
    def needs_states(self) -> bool:
        """Whether `encode` reads text states rather than the prompt."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """Networks it runs; none where NumPy is enough."""

    def encode(self, prompts: Sequence[str], states: TextStates | None) -> Float32Array:
        """float32[prompts, width]; states: of the same prompts, if `needs_states` is true."""

    def to_json(self) -> dict[str, Any]:
        """Everything `load_plain_encoder` needs."""


@dataclass(frozen=True, slots=True)
class HashedEncoder:
    """Hashed word n-grams: needs no weights and no engine (Weinberger et al. 2009, without signs).

    Tokens are words in lower case, numbers and punctuation marks; n-grams of two and more include the start and end of the prompt. A
    feature is log(1 + occurrences), then the features are scaled to unit length.
    """

    dimensions: int = 4096
    orders: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if not 1 <= self.dimensions <= _MOST_DIMENSIONS:
            raise ConfigError("dimensions", self.dimensions, f"1 to {_MOST_DIMENSIONS}")
        if not 1 <= len(self.orders) <= _LONGEST_ORDER or not all(1 <= order <= _LONGEST_ORDER for order in self.orders):
            raise ConfigError("orders", self.orders[: _LONGEST_ORDER + 1], f"lengths of n-grams, 1 to {_LONGEST_ORDER}")

    @property
    def kind(self) -> str:
        return "hashed"

    @property
    def width(self) -> int:
        return self.dimensions

    @property
    def needs_states(self) -> bool:
        return False

    @property
    def networks(self) -> tuple[Network, ...]:
        return ()

    def encode(self, prompts: Sequence[str], states: TextStates | None = None) -> Float32Array:
        """float32[prompts, dimensions], rows of length 1 (0 for a prompt without a token)."""
        features = np.zeros((len(prompts), self.dimensions), dtype=np.float32)
        for row, prompt in zip(features, prompts, strict=True):
            counts: dict[int, int] = {}
            for gram in self._grams(prompt):
                place = zlib.crc32(gram.encode("utf-8", "surrogatepass")) % self.dimensions
                counts[place] = counts.get(place, 0) + 1
            if counts:
                values = np.log1p(np.fromiter(counts.values(), dtype=np.float64, count=len(counts)))
                row[list(counts)] = values / np.sqrt(values @ values)
        return features

    def to_json(self) -> dict[str, Any]:
        """Everything `load_plain_encoder` needs."""
        return {"kind": self.kind, "dimensions": self.dimensions, "orders": list(self.orders)}

    def _grams(self, prompt: str) -> list[str]:
        words = _TOKEN.findall(prompt.lower())
        if not words:
            return []
        marked = [_START, *words, _END]
        grams = []
        for order in self.orders:
            source = words if order == 1 else marked
            grams += [" ".join(source[index : index + order]) for index in range(len(source) - order + 1)]
        return grams


@dataclass(frozen=True, slots=True)
class StatesEncoder:
    """Features from text states: their mean over the prompt's tokens, followed by the state of the last token."""

    states_width: int

    def __post_init__(self) -> None:
        if self.states_width < 1:
            raise ConfigError("states_width", self.states_width, "1 or more")

    @property
    def kind(self) -> str:
        return "states"

    @property
    def width(self) -> int:
        return 2 * self.states_width

    @property
    def needs_states(self) -> bool:
        return True

    @property
    def networks(self) -> tuple[Network, ...]:
        return ()

    def encode(self, prompts: Sequence[str], states: TextStates | None) -> Float32Array:
        """float32[prompts, 2 * states_width]; raises ConfigError for states of another width or of other prompts."""
        states = check_states(states, len(prompts), self.states_width)
        features = np.empty((len(prompts), self.width), dtype=np.float32)
        for row, tokens, length in zip(features, states.states, states.lengths.tolist(), strict=True):
            row[: self.states_width] = tokens[:length].mean(0)
            row[self.states_width :] = tokens[length - 1]
        return features

    def to_json(self) -> dict[str, Any]:
        """Everything `load_plain_encoder` needs."""
        return {"kind": self.kind, "states_width": self.states_width}


@dataclass(frozen=True, slots=True)
class EngineEncoder:
    """A sentence encoder with a tokenizer of its own; exported by `export.router.sentence_encoder`."""

    name: str
    """Name of the model, for people."""
    embedding_width: int
    max_length: int
    """Number of tokens it reads; longer prompts are truncated."""
    pad: str
    open_engine: OpenEngine = field(repr=False, compare=False)
    tokenizer: Tokenizer = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.embedding_width < 1:
            raise ConfigError("embedding_width", self.embedding_width, "1 or more")

    @classmethod
    def open(
        cls,
        folder: Path,
        open_engine: OpenEngine,
        *,
        name: str,
        embedding_width: int,
        max_length: int,
        pad: str,
        read: ReadFile = read_regular,
    ) -> EngineEncoder:
        """The encoder with the tokenizer in `folder`, which `read` reads; raises ConfigError, BundleError."""
        if not 1 <= max_length <= _MOST_TOKENS:
            raise ConfigError("max_length", max_length, f"1 to {_MOST_TOKENS}")
        tokenizer = Tokenizer.open(folder / TOKENIZER, max_length=max_length, pad=pad, read=read)
        return cls(name, embedding_width, max_length, pad, open_engine, tokenizer)

    @property
    def kind(self) -> str:
        return "engine"

    @property
    def width(self) -> int:
        return self.embedding_width

    @property
    def needs_states(self) -> bool:
        return False

    @property
    def networks(self) -> tuple[Network, ...]:
        return (encoder_network(self.embedding_width),)

    def encode(self, prompts: Sequence[str], states: TextStates | None = None) -> Float32Array:
        """float32[prompts, embedding_width], by one call per prompt; raises EngineError where the output is not finite."""
        (network,) = self.networks
        engine = self.open_engine(network.role, network.graph)
        features = np.empty((len(prompts), self.width), dtype=np.float32)
        for row, prompt in zip(features, prompts, strict=True):
            tokens = self.tokenizer.encode(prompt[: self.tokenizer.most_characters])
            ids = tokens.ids[:, : max(1, tokens.length)]
            row[:] = network.run(engine, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
        return features

    def to_json(self) -> dict[str, Any]:
        """Everything `load_plain_encoder` needs."""
        settings = {name: getattr(self, name) for name in ("name", "embedding_width", "max_length", "pad")}
        return {"kind": self.kind, **settings}


def load_plain_encoder(
    settings: Mapping[str, Any], folder: Path | None = None, open_engine: OpenEngine = no_engine, read: ReadFile = read_regular
) -> PromptEncoder:
    """The encoder whose `to_json` this is; raises ValueError, KeyError, TypeError, ConfigError or BundleError for anything else.

    folder: holds the tokenizer of a sentence encoder, which `read` reads; None if there is none.
    open_engine: called for the engine of its network whenever it encodes.
    """
    kind = settings["kind"]
    if kind == "hashed":
        return HashedEncoder(whole_number(settings["dimensions"]), tuple(whole_number(order) for order in settings["orders"]))
    if kind == "states":
        return StatesEncoder(whole_number(settings["states_width"]))
    if kind == "engine":
        if folder is None:
            raise ValueError("the prompt encoder 'engine' has no tokenizer that the manifest lists")
        return EngineEncoder.open(
            folder,
            open_engine,
            name=text(settings["name"]),
            embedding_width=whole_number(settings["embedding_width"]),
            max_length=whole_number(settings["max_length"]),
            pad=text(settings["pad"]),
            read=read,
        )
    raise ValueError(f"the prompt encoder {kind!r}: expected hashed, states, engine or tagged")
