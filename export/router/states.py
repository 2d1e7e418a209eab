"""Text states of many prompts: what the family's text encoder says of them, for encoders and estimators that read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from costroute_rt.engines.build import build_engines, open_engine
from costroute_rt.engines.bundle import Bundle
from costroute_rt.engines.error import PromptError
from costroute_rt.engines.store import Store
from costroute_rt.parts import encode_name
from costroute_rt.prompt import Tokenizer, check_prompt
from costroute_rt.prompt_encoder import TextStates
from costroute_rt.text import encode_text

SAY_EVERY = 1000


def read_states(
    bundle: Bundle,
    prompts: Sequence[str],
    *,
    home: str | Path | None = None,
    backend: str = "onnxruntime",
    provider: str = "auto",
    precision: str = "auto",
    progress: Callable[[str], None] = lambda _: None,
) -> TextStates:
    """One call of the text encoder for each prompt; its engine is built where it is missing.

    Raises PromptError that names a prompt the runtime would refuse, and as building and opening engines do.
    """
    store, name = Store.open(home), encode_name(bundle)
    how: dict[str, Any] = {"backend": backend, "provider": provider, "precision": precision}
    build_engines(bundle, store, graphs=[name], measure=False, **how)
    tokenizer = Tokenizer.from_bundle(bundle)
    tokens = []
    for number, prompt in enumerate(prompts, 1):
        try:
            tokens.append(tokenizer.encode(check_prompt(prompt)))
        except PromptError as error:
            raise PromptError(f"labelled prompt {number}, {prompt[:60]!r}: {error}") from error
    states = []
    engine = open_engine(bundle, store, *name.split("/"), **how)
    try:
        for done, each in enumerate(tokens, 1):
            states.append(encode_text(engine, each)[0])
            if done % SAY_EVERY == 0:
                progress(f"{done} of {len(tokens)} prompts encoded")
    finally:
        engine.close()
    return TextStates(np.stack(states), np.array([each.length for each in tokens], dtype=np.int64))
