from __future__ import annotations

from pathlib import Path

from costroute_rt.export.checkpoint.source.model_name import name_of_model, repository_of


def test_models_are_called_by_their_repository_folder_or_file() -> None:
    snapshot = Path("/cache/hub/models--stabilityai--sdxl-turbo/snapshots/71153311d3dbb46851df1931d3ca6e939de83304")
    assert repository_of(snapshot / "unet") == "stabilityai/sdxl-turbo"
    assert repository_of(Path("/models/snapshots")) is None
    names = {name_of_model(path) for path in (snapshot, snapshot / "a.b.safetensors", Path("/models/sd-v1.5"))}
    assert names == {"sdxl-turbo", "a.b", "sd-v1.5"}
