"""What is added to a model before it becomes a bundle: LoRAs, and the words of textual inversions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costroute_rt.export.checkpoint.embedding.add import Addition, add_embeddings
from costroute_rt.export.checkpoint.lora.fuse import Fusion, fuse_loras
from costroute_rt.export.checkpoint.lora.lora import Lora
from costroute_rt.export.checkpoint.source.network import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """Files that were checked against a model; nothing is computed yet."""

    fusion: Fusion | None = None
    embeddings: Addition | None = None

    def __bool__(self) -> bool:
        return self.fusion is not None or self.embeddings is not None

    @property
    def loras(self) -> tuple[Lora, ...]:
        return () if self.fusion is None else tuple(lora for lora, _ in self.fusion.loras)

    def record(self) -> dict[str, Any]:
        """The files as data for a manifest, which also decides whether a bundle is up to date."""
        loras = {} if self.fusion is None else {"loras": self.fusion.record()}
        return loras | ({} if self.embeddings is None else {"embeddings": self.embeddings.record()})

    def output_bytes(self, source: Source) -> int:
        """How many bytes the weights take that LoRAs change."""
        return 0 if self.fusion is None else self.fusion.output_bytes(source)

    def apply(self, source: Source, folder: Path, on_share: Callable[[float], object] = lambda _: None) -> Source:
        """The model with the additions; changed weights are written to `folder`, unless an earlier run has done it.

        on_share: called with the finished share; what it raises ends the work. Raises BundleError and OutputError.
        """

        def on_weight(_: str, index: int, count: int) -> None:
            on_share(index / count)

        if self.fusion is not None:
            source = fuse_loras(source, self.fusion, folder, progress=on_weight)
        return source if self.embeddings is None else add_embeddings(source, self.embeddings, folder)


NOTHING = Additions()
