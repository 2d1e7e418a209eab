"""Image sizes: which graphs depend on them, and the names of engines built for one size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.size import depends_on_size, known_size, with_size
from costroute_rt.error import ConfigError

SIZE = (64, 96)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return Bundle.open(tiny_bundle, verify=False)


def test_only_graphs_that_depend_on_the_size_have_engines_per_size(bundle: Bundle) -> None:
    names = ["tiny/text_encoder/encode", "tiny/base/condition", "tiny/base/guided_step", "tiny/turbo/step", "tiny/vae/decode"]
    assert [name for name in names if depends_on_size(bundle, name)] == names[2:]
    assert with_size(bundle, names[1:3], SIZE) == ["tiny/base/condition", "tiny/base/guided_step@64x96"]
    one_size = replace(bundle, image=replace(bundle.image, any_size=False, sizes=((64, 64),)))
    assert with_size(one_size, names, (64, 64)) == names
    with pytest.raises(ConfigError, match="multiple of 16"):
        with_size(bundle, names, (65, 64))


def test_a_key_that_does_not_fix_all_axes_has_no_known_size(bundle: Bundle) -> None:
    assert known_size(bundle, "") is None
    assert known_size(bundle, "batch=1 height=4 width=4") is None
    assert known_size(bundle, "image_height=64 image_width=96") is None
    assert known_size(bundle, "image_height=many image_width=96") is None
