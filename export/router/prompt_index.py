"""The prompts of a table, each with a number, while the table is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from costroute_rt.export.router.csv_file import shorten


class PromptIndex:
    """Prompts in the order in which they first appear; repeated texts are kept once."""

    def __init__(self, category: str | None) -> None:
        """category: column with each prompt's category."""
        self._column = category
        self.ids: dict[str, int] = {}
        self.texts: list[str] = []
        self.categories: list[str] = []
        self._shared: dict[str, str] = {}

    def find(self, row: list[str], columns: Mapping[str, int], fail: Callable[[str], NoReturn]) -> int:
        """The number of the row's prompt.

        columns: position of each column in the row. Calls `fail` with the problem of an empty prompt, or one with two texts or categories.
        """
        text = row[columns["prompt"]]
        if not text.strip():
            fail("the prompt is empty")
        key = row[columns["prompt_id"]] if "prompt_id" in columns else text
        category = "" if self._column is None or self._column not in columns else row[columns[self._column]]
        index = self.ids.setdefault(key or text, len(self.ids))
        if index == len(self.texts):
            self.texts.append(text)
            self.categories.append(self._shared.setdefault(category, category))
        elif self.texts[index] != text:
            fail(f"prompt_id {key!r} has two texts: {shorten(self.texts[index])} and {shorten(text)}")
        elif self.categories[index] != category:
            fail(f"prompt {key!r} is in two categories: {shorten(self.categories[index])} and {shorten(category)}")
        return index
