"""Opening a bundle checks its manifest and files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from costroute_rt.engines.bundle import digest
from costroute_rt.engines.bundle.bundle import Bundle
from costroute_rt.engines.bundle.digest import sha256_file
from costroute_rt.error import BundleError
from tests.engines.conftest import flip_byte, relist, rewrite_manifest

Edit = Callable[[dict[str, Any]], object]


def test_a_good_bundle_opens_with_typed_sections(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)

    assert bundle.family == "tiny"
    assert bundle.license == "Apache-2.0"
    assert bundle.components["base"].weights == ("unet/diffusion_pytorch_model.safetensors",)
    assert bundle.graphs["unet/step.onnx"].inputs["row"].shape == (9,)
    assert [row["name"] for row in bundle.pool] == ["tiny-turbo@1", "tiny-turbo@2", "tiny-base@4", "tiny-base@8"]
    assert bundle.quality["candidates"]["tiny-base@8"]["mean"] == pytest.approx(0.91)
    assert bundle.image.sizes == ((64, 64), (64, 96))
    assert bundle.path("tokenizer/tokenizer.json").is_file()


def test_a_flipped_byte_in_any_file_is_detected(bundle_copy: Path) -> None:
    for path in sorted(path for path in bundle_copy.rglob("*") if path.is_file()):
        before = path.read_bytes()
        flip_byte(path)
        with pytest.raises(BundleError) as caught:
            Bundle.open(bundle_copy)
        assert path.name in str(caught.value)
        assert "get the bundle again" in str(caught.value)
        path.write_bytes(before)
    Bundle.open(bundle_copy)


def test_without_verify_a_flipped_byte_is_detected_by_verify_graph(bundle_copy: Path) -> None:
    flip_byte(bundle_copy / "unet/diffusion_pytorch_model.safetensors")
    bundle = Bundle.open(bundle_copy, verify=False)

    bundle.verify_graph("turbo", "step")
    with pytest.raises(BundleError, match="diffusion_pytorch_model"):
        bundle.verify_graph("base", "step")


@pytest.mark.parametrize("name", ["unet/step.onnx", "vae/diffusion_pytorch_model.safetensors", "tokenizer/tokenizer.json"])
def test_the_error_names_a_truncated_or_missing_file(bundle_copy: Path, name: str) -> None:
    path = bundle_copy / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BundleError, match=f"{path.name}.*the manifest says"):
        Bundle.open(bundle_copy, verify=False)
    path.unlink()
    with pytest.raises(BundleError, match=path.name):
        Bundle.open(bundle_copy, verify=False)


def test_the_error_names_a_file_that_cannot_be_read(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(tiny_bundle, verify=False)

    def deny(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("costroute_rt.engines.bundle.digest.sha256_file", deny)
    with pytest.raises(BundleError, match=r"step\.onnx: .*cannot be read: Permission denied"):
        bundle.verify("unet/step.onnx")


def test_a_missing_directory_or_manifest_is_refused(tmp_path: Path, bundle_copy: Path) -> None:
    with pytest.raises(BundleError, match="no bundle directory"):
        Bundle.open(tmp_path / "nothing")
    with pytest.raises(BundleError, match="no bundle directory"):
        Bundle.open("x" * 5000)
    (bundle_copy / "manifest.sha256").unlink()
    with pytest.raises(BundleError, match=r"manifest\.sha256"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize(
    "place", ["../x", "/etc/passwd", "C:/x", "a\\b", "unet/../../x", "./unet/step.onnx", "", "unet//step.onnx", "a\0b"]
)
def test_paths_that_could_leave_the_bundle_are_refused(bundle_copy: Path, place: str) -> None:
    rewrite_manifest(bundle_copy, lambda manifest: manifest["files"].update({place: {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(BundleError, match="relative path that stays inside"):
        Bundle.open(bundle_copy)


@pytest.mark.skipif(os.name == "nt", reason="makes symbolic links, for which Windows asks for special rights")
def test_a_link_out_of_the_bundle_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    path = bundle_copy / "unet/step.onnx"
    path.rename(tmp_path / "step.onnx")
    path.symlink_to(tmp_path / "step.onnx")
    with pytest.raises(BundleError, match=r"step\.onnx.*link out of the bundle"):
        Bundle.open(bundle_copy)


@pytest.mark.skipif(os.name == "nt", reason="makes symbolic links, for which Windows asks for special rights")
def test_a_linked_directory_out_of_the_bundle_is_refused(bundle_copy: Path, tmp_path: Path) -> None:
    (bundle_copy / "vae").rename(tmp_path / "vae")
    (bundle_copy / "vae").symlink_to(tmp_path / "vae")
    with pytest.raises(BundleError, match="link out of the bundle"):
        Bundle.open(bundle_copy)


def test_a_file_of_several_names_is_hashed_once(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, hashed = bundle_copy / "vae" / "diffusion_pytorch_model.safetensors", list[Path]()
    (bundle_copy / "vae" / "twin.safetensors").hardlink_to(weights)
    monkeypatch.setattr(digest, "sha256_file", lambda path: hashed.append(path) or sha256_file(path))

    found = digest.sha256_files(sorted((bundle_copy / "vae").iterdir()))
    assert len(hashed) == len(found) - 1
    assert found[weights] == found[weights.with_name("twin.safetensors")] == sha256_file(weights)


def test_a_component_may_own_a_part_of_its_weight_files(bundle_copy: Path) -> None:
    rewrite_manifest(bundle_copy, _set(300, "components", "text_encoder", "weights_bytes"))
    assert Bundle.open(bundle_copy, verify=False).weights_bytes("text_encoder") == 300
    with pytest.raises(BundleError, match="uses its weights more than 4 times"):  # 2.8 kB of them
        Bundle.open(bundle_copy)


def _remove(*keys: str) -> Edit:
    def edit(manifest: dict[str, Any]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        del manifest[keys[-1]]

    return edit


def _set(value: Any, *keys: str | int) -> Edit:
    def edit(manifest: Any) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return edit


def _gate(**changes: Any) -> Edit:
    """A gate of the component `turbo` that was passed, but for the changes."""
    passed = {"reference": "base", "latent_psnr_db": 50.0, "ssim": 0.99, "images": 2, "height": 64, "width": 64, "num_inference_steps": 4}
    return _set({"turbo": {**passed, "min_latent_psnr_db": 25.0, "min_ssim": 0.85, **changes}}, "quality_gates")


STEP, TURBO = (("graphs", f"{folder}/step.onnx", "inputs") for folder in ("unet", "unet_turbo"))
CONDITION, IDS = ("graphs", "unet/condition.onnx", "inputs"), ("graphs", "text_encoder/model.onnx", "inputs", "input_ids")
STATES = (*CONDITION, "text_encoder.last_hidden_state")
GUIDED = ("graphs", "unet_turbo/guided_step.onnx", "inputs", STATES[-1])
TOKENIZER, UNKNOWN = ("tokenizers", "tokenizer"), {"dtype": "float32", "shape": ["batch", 3]}
BROKEN: list[tuple[Edit, str]] = [
    (_set("other", "format"), "format is 'other'"),
    (_set(1, "format_version"), "format version 1.*export it again"),
    (_set(3, "format_version"), "upgrade costroute-rt"),
    (_remove("license"), "no license"),
    (_set(" ", "license"), "license is empty"),
    (_set(3, "family"), "family is 3"),
    (_set("a/b", "family"), "expected letters, digits and"),
    (_remove("files", "unet/step.onnx"), "not among its files"),
    (_set("xyz", "files", "unet/step.onnx", "sha256"), "64 hexadecimal digits"),
    (_set(-1, "files", "unet/step.onnx", "bytes"), "0 or more"),
    (_set(True, "files", "unet/step.onnx", "bytes"), "a whole number"),
    (_remove("graphs", "unet/step.onnx"), "has no entry for unet/step.onnx"),
    (_remove("components", "vae", "graphs", "decode"), "no graph decode"),
    (_set("float99", *STEP, "latent", "dtype"), "float99"),
    (_set("int64", *STEP, "latent", "dtype"), "latent is int64"),
    (_set([1, 0, 2, 2], *STEP, "latent", "shape"), "the axis 0"),
    (_set(["batch", 5, "height", "width"], *STEP, "latent", "shape"), "latent has 5 channels"),
    (_set([7], *STEP, "row", "shape"), r"expected \[9\]"),
    (_set(UNKNOWN, *TURBO, "text_encoder_2.pooled"), r"text_encoder_2\.pooled is .*, which nothing provides; .* text_encoder\."),
    (_set(UNKNOWN, *STEP, "condition_1"), "condition_1 is .*, which nothing provides"),
    (_set(UNKNOWN, "graphs", "unet/condition.onnx", "inputs", "latent"), "latent is .*, which nothing provides"),
    (_set(UNKNOWN, "graphs", "text_encoder/model.onnx", "inputs", "pixels"), "a text encoder takes input_ids"),
    (_set({}, "graphs", "text_encoder/model.onnx", "outputs"), "which nothing provides"),
    (_set([2, "sequence"], *IDS, "shape"), r"input_ids is int64\[2, 'sequence'\], expected .* rows and tokens, or \[1, 16\]"),
    (_set(["rows", 20], *IDS, "shape"), r"input_ids is int64\['rows', 20\], expected .* or \[1, 16\]"),
    (_set(["batch", "sequence", 8], *STATES, "shape"), "'batch'.* expected 2 texts, or a free axis called rows"),
    (_set([1, "sequence", 8], *STATES, "shape"), "expected 2 texts"),
    (
        _set({"dtype": "bool", "shape": ["rows", "sequence"]}, *CONDITION, "tokenizer.attention_mask"),
        "attention_mask is bool.* nothing provides",
    ),
    (_set([1, "sequence", 8], *GUIDED, "shape"), r"unet_turbo/guided_step\.onnx inputs: .* expected 2 texts"),
    (_set(["batch", "sequence", 8], *TURBO, STATES[-1], "shape"), r"unet_turbo/step\.onnx inputs: .* expected 1 texts"),
    (_set({"dtype": "float32", "shape": [2]}, *CONDITION, "image_size"), "image_size is float32.*, which nothing provides"),
    (_set([1, 65], *STEP, "condition_0", "shape"), r"condition_0 is float32\[1, 65\]"),
    (_set("tokenizer/none.json", *TOKENIZER, "file"), "not among its files"),
    (_set(0, *TOKENIZER, "max_length"), "max_length is 0: expected 1 or more"),
    (_set(10**13, *TOKENIZER, "max_length"), "65536 or less"),
    (_set(16, *TOKENIZER, "drop"), "drop is 16: expected less than max_length"),
    (_set("middle", *TOKENIZER, "pad_side"), "expected right or left"),
    (_set(["batch", 3, "height", "width"], "graphs", "vae/encoder.onnx", "outputs", "latent", "shape"), "latent has 3 channels"),
    (_set("float32", "graphs", "vae/encoder.onnx", "inputs", "pixels", "dtype"), "encoder.onnx inputs: pixels is float32"),
    (_set("A1111", *TOKENIZER, "prompt_syntax"), "prompt_syntax is 'A1111': expected none or a1111"),
    (_set(None, *TOKENIZER, "prompt_syntax"), "expected text"),
    (
        lambda manifest: manifest["tokenizers"]["tokenizer"].update(prompt_syntax="a1111", prefix="a "),
        "prompt_syntax is 'a1111': expected no template",
    ),
    (_set(["rows", "text_tokens"], "graphs", "text_encoder/model.onnx", "inputs", "input_ids", "shape"), "expected int64 with the axes"),
    (_set(1, *TOKENIZER, "prefix"), "prefix is 1: expected text"),
    (_set("\ud800", *TOKENIZER, "prefix"), "half of a surrogate pair"),
    (_set(2**40, *TOKENIZER, "pad_id"), "pad_id is 1099511627776: expected 2147483647 or less"),
    (_set("another", "components", "text_encoder", "tokenizer"), "not among its tokenizers"),
    (_remove("components", "text_encoder", "tokenizer"), "has no components.text_encoder.tokenizer"),
    (_set(["unet/none.safetensors"], "components", "base", "weights"), "not among its files"),
    (_set("model.safetensors", "components", "base", "weights"), "expected a list"),
    (_set(1 << 30, "components", "base", "weights_bytes"), r"components\.base\.weights_bytes is 1073741824: expected .* or less"),
    (_gate(ssim="high"), "quality_gates.turbo.ssim is 'high': expected a number"),
    (_gate(ssim=0.1), "turbo must not be used: its images differ from those of base"),
    (_gate(reference="vea"), "names 'vea', which is not a component"),
    (_gate(psnr=1.0), "quality_gates.turbo.psnr is not known"),
    (_set({"turbo": {}}, "quality_gates"), "manifest has no quality_gates.turbo.reference"),
    (_set("int4", "components", "base", "weight_precision"), "expected float or int8"),
    (_set("some", "components", "base", "guidance"), "expected none or classifier_free or embedded"),
    (_set("any", "negative_prompt"), "expected empty_text or zeros"),
    (_set(16 * 10**9, "image", "height"), "multiples of 16 up to 4096"),
    (_set(10**400, "pool", 0, "guidance_scale"), "guidance_scale is 1000.*finite number"),
    (_remove("components", "text_encoder"), "no component with the role text_encoder"),
    (_set(60, "image", "height"), "multiples of 16"),
    (_set([[96, 96]], "image", "sizes"), "default size"),
    (_set([[0.1, 0.2, 0.3]], "preview", "matrix"), "1 rows: expected 4"),
    (_set([1, 2], "preview", "bias"), "three finite numbers"),
    (_remove("schedulers", "turbo"), "not among its schedulers"),
    (_remove("schedulers", "turbo", "_class_name"), "_class_name"),
    (_set([], "pool"), "pool is empty"),
    (_set("nobody", "pool", 0, "denoiser"), "not a denoiser of this bundle"),
    (_set("base", "pool", 0, "decoder"), "not a decoder of this bundle"),
    (_set(0, "pool", 0, "num_inference_steps"), "1 or more"),
    (_set("tiny-base@8", "pool", 0, "name"), "names a candidate twice"),
    (_remove("quality", "candidates", "tiny-base@8"), "no entry for tiny-base@8"),
    (_set({"mean": 1, "standard_error": 0}, "quality", "candidates", "x"), "not in the pool"),
    (_set(-1, "quality", "candidates", "tiny-base@8", "standard_error"), "finite number"),
    (_set([], "components"), "expected an object"),
]


@pytest.mark.parametrize(("edit", "message"), BROKEN, ids=[message for _, message in BROKEN])
def test_an_invalid_manifest_is_refused_with_the_entry(bundle_copy: Path, edit: Edit, message: str) -> None:
    rewrite_manifest(bundle_copy, edit)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(bundle_copy)
    assert caught.value.exit_code == 4
    assert "manifest.json" in caught.value.path


def test_guidance_needs_a_guided_graph(bundle_copy: Path) -> None:
    rewrite_manifest(bundle_copy, _remove("components", "base", "graphs", "guided_step"))
    with pytest.raises(BundleError, match="takes no guidance: expected 1"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_not_valid_json_is_refused(bundle_copy: Path, text: bytes) -> None:
    import hashlib

    (bundle_copy / "manifest.json").write_bytes(text)
    (bundle_copy / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest())
    with pytest.raises(BundleError, match="manifest"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("location", ["../vae/diffusion_pytorch_model.safetensors", "/etc/passwd", "config.json", "x/../y"])
def test_external_data_outside_the_weight_files_is_refused(bundle_copy: Path, location: str) -> None:
    path = bundle_copy / "unet/step.onnx"
    model = onnx.load(path, load_external_data=False)
    entry = next(entry for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location")
    entry.value = location
    path.write_bytes(model.SerializeToString())
    relist(bundle_copy, "unet/step.onnx")
    with pytest.raises(BundleError, match=r"step\.onnx.*external data"):
        Bundle.open(bundle_copy)


def test_external_data_hidden_in_a_subgraph_is_refused(bundle_copy: Path) -> None:
    path = bundle_copy / "vae/decode.onnx"
    model = onnx.load(path, load_external_data=False)
    hidden = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "hidden")
    hidden.data_location = onnx.TensorProto.EXTERNAL
    hidden.external_data.add(key="location", value="../../secret")
    branch = onnx.helper.make_graph([], "branch", [], [], [hidden])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))
    path.write_bytes(model.SerializeToString())
    relist(bundle_copy, "vae/decode.onnx")
    with pytest.raises(BundleError, match=r"\.\./\.\./secret"):
        Bundle.open(bundle_copy)


@pytest.mark.parametrize("data", [b"", b"not onnx at all", b"\xff" * 64, b"\x08\x08"])
def test_a_file_that_is_not_onnx_is_refused(bundle_copy: Path, data: bytes) -> None:
    (bundle_copy / "vae/decode.onnx").write_bytes(data)
    relist(bundle_copy, "vae/decode.onnx")
    with pytest.raises(BundleError, match=r"decode\.onnx.*ONNX"):
        Bundle.open(bundle_copy)


def test_names_that_the_manifest_does_not_list_are_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    with pytest.raises(BundleError, match="does not list the file secret"):
        bundle.path("secret")
    with pytest.raises(BundleError, match=r"it has .*text_encoder/encode"):
        bundle.graph_path("base", "refine")
