"""Every Python example in the guide runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

GUIDE = Path(__file__).parent.parent / "docs/embedding.md"


def read_examples() -> list[str]:
    """The examples, with budgets that also a busy machine can keep; that of one millisecond is meant to be too small."""
    found = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [re.sub(r"\b(max_ms|mean_ms)=(\d{2,})", r"\1=\g<2>000", code) for code in found]


@pytest.mark.slow
def test_the_examples_of_the_guide_run(tmp_path: Path) -> None:
    examples, failed = read_examples(), list[str]()
    assert len(examples) > 8
    environment = {**os.environ, "COSTROUTE_HOME": str(tmp_path / "home")}
    for number, code in enumerate(examples):
        if "openvino" in code and find_spec("openvino") is None:
            continue
        script = tmp_path / f"example_{number}.py"
        script.write_text(code, encoding="utf-8")
        done = subprocess.run([sys.executable, "-W", "error", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            failed.append(f"{code}\n{done.stderr}")
    assert not failed, "\n".join(failed)
