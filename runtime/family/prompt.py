"""Prompts: which texts are accepted."""

from __future__ import annotations

import re

from costroute_rt.error import ConfigError, PromptError

_REFUSED = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Control characters other than tab and line breaks, and halves of surrogate pairs."""


def check_prompt(prompt: object) -> str:
    """The prompt, where an image can be made from it; raises PromptError (empty, control characters), ConfigError (no text)."""
    text = check_text("prompt", prompt)
    if not text.strip():
        raise PromptError("the prompt is empty: describe the image")
    return text


def check_text(name: str, text: object) -> str:
    """`text`, where it is text without control characters; it may be empty. Any other Unicode is welcome."""
    if not isinstance(text, str):
        raise ConfigError(name, text, "text")
    refused = _REFUSED.search(text)
    if refused:
        code = ord(refused.group())
        what = "half of a surrogate pair" if code >= 0xD800 else "a control character"
        raise PromptError(f"the {name} has {what}, U+{code:04X}, at position {refused.start()}: remove it")
    return text
