"""How work on engines is reported to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], object]
"""Called as progress(engine, index, total) before each engine that is really worked on; what it raises stops the work."""
Detail = Callable[[str, float], object]
"""Called as detail(engine, share) while an engine is built, where its backend can tell, with 0 to 1; what it raises stops the work."""
