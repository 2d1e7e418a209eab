"""Prompt encoders: from a prompt to the numbers an estimator reads."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from costroute_rt.error import ConfigError, EngineError, Reason
from costroute_rt.family.prompt import Tokenizer
from costroute_rt.routing.router_network import Network, OpenEngine, encoder_network, no_engine

Float32Array = npt.NDArray[np.float32]

_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
"""A word, a number, or one mark of punctuation."""
_START, _END = "\x02", "\x03"
_MOST_DIMENSIONS, _LONGEST_ORDER = 1 << 20, 8
TOKENIZER = "tokenizer.json"
"""A router's own tokenizer, in its folder."""
_MOST_TOKENS = 1 << 16


@dataclass(frozen=True, slots=True)
class TextStates:
    """What the family's text encoder says of prompts."""

    states: npt.NDArray[np.float32]
    """float32[prompts, tokens, width]"""
    lengths: npt.NDArray[np.int64]
    """int64[prompts], tokens that are not padding; 1 or more."""

    def __len__(self) -> int:
        return len(self.states)

    def select(self, index: npt.ArrayLike) -> TextStates:
        """Those of the prompts at these positions, or where a mask is true."""
        rows = np.asarray(index)
        return TextStates(self.states[rows], self.lengths[rows])


class PromptEncoder(Protocol):
    """Turns prompts into features of one length."""

    @property
    def kind(self) -> str:
        """How a router names it: a key of `ENCODERS`."""

    @property
    def width(self) -> int:
        """Numbers per prompt."""

    @property
    def needs_states(self) -> bool:
        """Whether `encode` reads the text states rather than the words."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """What it runs beside numpy."""

    def encode(self, prompts: Sequence[str], states: TextStates | None) -> Float32Array:
        """float32[prompts, width]; states: of the same prompts, where `needs_states` is true."""

    def to_json(self) -> dict[str, Any]:
        """Everything `load_encoder` needs."""


@dataclass(frozen=True, slots=True)
class HashedEncoder:
    """Word n-grams, hashed to a number of dimensions: needs no weights and no engine (Weinberger et al. 2009, without signs).

    Words in lower case, numbers and marks of punctuation count; n-grams of two and more see where the prompt starts and ends. A
    feature is log(1 + occurrences); a prompt has unit length.
    """

    dimensions: int = 4096
    orders: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if not 1 <= self.dimensions <= _MOST_DIMENSIONS:
            raise ConfigError("dimensions", self.dimensions, f"1 to {_MOST_DIMENSIONS}")
        if not self.orders or not all(1 <= order <= _LONGEST_ORDER for order in self.orders):
            raise ConfigError("orders", self.orders, f"lengths of n-grams, 1 to {_LONGEST_ORDER}")

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
        """float32[prompts, dimensions], rows of length 1 (0 for a prompt without a word)."""
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
        """Everything `load_encoder` needs."""
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
    """The text encoder's states: their mean over the prompt's own tokens, then the state of the last of these."""

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
        if states is None or states.states.ndim != 3 or states.states.shape[::2] != (len(prompts), self.states_width):
            found = None if states is None else f"float32{list(states.states.shape)}"
            raise ConfigError("states", found, f"those of {len(prompts)} prompts, {self.states_width} wide")
        features = np.empty((len(prompts), self.width), dtype=np.float32)
        for row, tokens, length in zip(features, states.states, states.lengths.tolist(), strict=True):
            row[: self.states_width] = tokens[:length].mean(0)
            row[self.states_width :] = tokens[length - 1]
        return features

    def to_json(self) -> dict[str, Any]:
        """Everything `load_encoder` needs."""
        return {"kind": self.kind, "states_width": self.states_width}


@dataclass(frozen=True, slots=True)
class EngineEncoder:
    """A sentence encoder of the router's own, with its own tokenizer; made by `export.router.sentence_encoder`."""

    name: str
    """What people call the model."""
    embedding_width: int
    max_length: int
    """Tokens that it reads; of a longer prompt the rest is left out."""
    pad: str
    open_engine: OpenEngine = field(repr=False, compare=False)
    tokenizer: Tokenizer = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.embedding_width < 1:
            raise ConfigError("embedding_width", self.embedding_width, "1 or more")

    @classmethod
    def open(cls, folder: Path, open_engine: OpenEngine, *, name: str, embedding_width: int, max_length: int, pad: str) -> EngineEncoder:
        """With the tokenizer in `folder`; raises ConfigError, BundleError."""
        if not 1 <= max_length <= _MOST_TOKENS:
            raise ConfigError("max_length", max_length, f"1 to {_MOST_TOKENS}")
        tokenizer = Tokenizer.open(folder / TOKENIZER, max_length=max_length, pad=pad)
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
        """float32[prompts, embedding_width], one call for each prompt; raises EngineError where a number is not finite."""
        (network,) = self.networks
        engine = self.open_engine(network.role, network.graph)
        features = np.empty((len(prompts), self.width), dtype=np.float32)
        for row, prompt in zip(features, prompts, strict=True):
            tokens = self.tokenizer.encode(prompt[: self.tokenizer.most_characters])
            ids = tokens.ids[:, : max(1, tokens.length)]
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            outputs = engine.run({name: engine.to_device(np.ascontiguousarray(array)) for name, array in feeds.items()})
            row[:] = engine.to_host(outputs["embedding"])[0]
        if not np.isfinite(features).all():
            raise EngineError(f"{network.engine} made numbers that are not finite", reason=Reason.FAILED)
        return features

    def to_json(self) -> dict[str, Any]:
        """Everything `load_encoder` needs."""
        settings = {name: getattr(self, name) for name in ("name", "embedding_width", "max_length", "pad")}
        return {"kind": self.kind, **settings}


ENCODERS = ("hashed", "states", "engine")


def load_encoder(settings: Mapping[str, Any], folder: Path | None = None, open_engine: OpenEngine = no_engine) -> PromptEncoder:
    """The encoder that `to_json` described; raises ValueError, KeyError, TypeError, ConfigError or BundleError for anything else.

    folder: where a tokenizer of its own lies. open_engine: asked for the engine of its network whenever it encodes.
    """
    kind = settings["kind"]
    if kind == "hashed":
        return HashedEncoder(_whole(settings["dimensions"]), tuple(_whole(order) for order in settings["orders"]))
    if kind == "states":
        return StatesEncoder(_whole(settings["states_width"]))
    if kind == "engine" and folder is not None:
        return EngineEncoder.open(
            folder,
            open_engine,
            name=_text(settings["name"]),
            embedding_width=_whole(settings["embedding_width"]),
            max_length=_whole(settings["max_length"]),
            pad=_text(settings["pad"]),
        )
    raise ValueError(f"the prompt encoder {kind!r}: expected one of {', '.join(ENCODERS)}")


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} in an encoder's settings: expected a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} in an encoder's settings: expected text")
    return value
