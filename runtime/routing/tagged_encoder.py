"""Tags of the prompt beside the features of another encoder; and reading any encoder's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costroute_rt.error import ConfigError
from costroute_rt.regular_file import ReadFile, read_regular
from costroute_rt.routing.array import Float32Array
from costroute_rt.routing.prompt_encoder import EngineEncoder, PromptEncoder, TextStates, load_plain_encoder
from costroute_rt.routing.prompt_tag import TAGS, check_tags, tag_prompts
from costroute_rt.routing.router_network import Network, OpenEngine, no_engine
from costroute_rt.routing.setting import number, text

KIND = "tagged"


@dataclass(frozen=True, slots=True)
class TaggedEncoder:
    """The features of another encoder, followed by tags of the prompt (see `prompt_tag`)."""

    inner: PromptEncoder
    weight: float = 1.0
    """Factor of the tags, which are from 0 to 1."""
    tags: tuple[str, ...] = TAGS

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ConfigError("weight", self.weight, "a finite number above 0")
        check_tags(self.tags)

    @property
    def kind(self) -> str:
        return KIND

    @property
    def width(self) -> int:
        return self.inner.width + len(self.tags)

    @property
    def needs_states(self) -> bool:
        return self.inner.needs_states

    @property
    def networks(self) -> tuple[Network, ...]:
        return self.inner.networks

    def encode(self, prompts: Sequence[str], states: TextStates | None = None) -> Float32Array:
        """float32[prompts, width]; states: as for the other encoder."""
        tags = np.float32(self.weight) * tag_prompts(prompts, self.tags)
        return np.concatenate([self.inner.encode(prompts, states), tags], axis=1)

    def to_json(self) -> dict[str, Any]:
        """Everything `load_encoder` needs."""
        return {"kind": self.kind, "inner": self.inner.to_json(), "weight": self.weight, "tags": list(self.tags)}


def load_encoder(
    settings: Mapping[str, Any], folder: Path | None = None, open_engine: OpenEngine = no_engine, read: ReadFile = read_regular
) -> PromptEncoder:
    """The encoder whose `to_json` this is, with tags or without; arguments and errors as for `load_plain_encoder`."""
    if settings["kind"] != KIND:
        return load_plain_encoder(settings, folder, open_engine, read)
    inner = load_plain_encoder(settings["inner"], folder, open_engine, read)
    return TaggedEncoder(inner, number(settings["weight"]), tuple(text(name) for name in settings["tags"]))


def find_sentence_encoder(encoder: PromptEncoder) -> EngineEncoder | None:
    """The sentence encoder that it is, or that it adds tags to; None if there is none."""
    plain = encoder.inner if isinstance(encoder, TaggedEncoder) else encoder
    return plain if isinstance(plain, EngineEncoder) else None
