"""V6: no tokenizer.json ends the process, or lets a prompt take memory or time without limit: it is refused with a BundleError."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Inner
from tokenizers import models, normalizers, pre_tokenizers

from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.engines.bundle.tokenizer_regex import check_regex
from costroute_rt.error import BundleError
from tests.tiny_bundle import END, write_tokenizer

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tokenizer(tmp_path / "tokenizer.json")
    return tmp_path / "tokenizer.json"


def edit(path: Path, change: Change) -> None:
    whole = json.loads(path.read_text())
    change(whole)
    path.write_text(json.dumps(whole))


def opened(path: Path, max_length: int = 16) -> Tokenizer:
    return Tokenizer.open(path, max_length=max_length, pad=END)


def normalizer(*parts: dict[str, Any]) -> Change:
    return lambda whole: whole.update(normalizer={"type": "Sequence", "normalizers": list(parts)})


def replace(pattern: str, content: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def split(regex: str) -> Change:
    pattern = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    return lambda whole: whole.update(pre_tokenizer=pattern)


def precompiled(table: bytes) -> Change:
    return normalizer({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()})


def model(**changes: Any) -> Change:
    return lambda whole: whole["model"].update(changes)


def template(**changes: Any) -> Change:
    plain = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}}
    return lambda whole: whole.update(post_processor={**plain, **changes})


def nested(depth: int) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        part = {"type": "Sequence", "normalizers": [part]}
    return part


TEXT, TOKEN = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "absent", "type_id": 0}}
HOSTILE: dict[str, Change] = {
    "a table that asks for 4 GiB": precompiled(base64.b64decode("////f////////w==")),
    "a table cut short": precompiled(b"\0\0\0"),
    "a table with a long text": precompiled(b"\x04\0\0\0" + bytes(4) + b"x" * 100_000),
    "replacements that multiply": normalizer(*[replace("a", "aaaaaaaaaa")] * 12),
    "eight replacements": normalizer(*[replace("a", "aaaaaaaaaa")] * 8),
    "a long replacement": normalizer(replace("a", "b" * 1_000_000)),
    "a long replacement of a long text": normalizer(replace("a" * 1000, "b" * 129)),
    "an empty pattern": normalizer(replace("", "aaaa")),
    "a pattern that matches nothing": normalizer(*[replace("(?=a)", "aaaaaaaaaa", "Regex")] * 4),
    "many parts": normalizer(*[{"type": "NFKD"}] * 1000),
    "bytes of bytes": lambda whole: whole.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 12}),
    "parts in parts": normalizer(nested(100)),
    "an unknown part": normalizer({"type": "Shell"}),
    "a part that is a list": lambda whole: whole.update(normalizer=[]),
    "a repeated group that repeats": split("(a+)+$"),
    "repeats in a row": split(r"\w*\w*\w*!"),
    "an expression that takes memory": split("((a{1000}){1000}){1000}"),
    "one in the decoder": lambda whole: whole.update(decoder=replace("((a{1000}){1000}){1000}", "", "Regex")),
    "a back reference": split(r"(a)\1"),
    "an absent token in the template": template(single=[TOKEN, TEXT]),
    "a template that repeats the text": template(single=[TEXT] * 3),
    "a long template": template(single=[TEXT] * 100_000),
    "a template without tokens": template(special_tokens=None),
    "a long added token": lambda whole: whole["added_tokens"].append({**whole["added_tokens"][0], "id": 90, "content": "x" * 5000}),
    "an empty added token": lambda whole: whole["added_tokens"].append({**whole["added_tokens"][0], "id": 90, "content": ""}),
    "many added tokens": lambda whole: whole.update(
        added_tokens=[{**whole["added_tokens"][0], "id": 90 + number, "content": f"<{number}>"} for number in range(60_000)]
    ),
    "no model": lambda whole: whole.update(model=None),
    "an empty vocabulary": model(vocab={}),
    "a vocabulary of numbers": model(vocab=[1, 2]),
    "a long token": model(vocab={"x" * 5000: 0}),
    "a long suffix": model(end_of_word_suffix="x" * 5000),
    "merges dropped at random": model(dropout=0.5),
    "long words": model(type="WordPiece", max_input_chars_per_word=10**9),
    "no token for unknown words": model(type="WordPiece", max_input_chars_per_word=100, unk_token="[UNK]", continuing_subword_prefix="##"),
    "an id beyond 32 bits": lambda whole: whole["added_tokens"][0].update(id=2**40),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tokenizer_is_refused(path: Path, change: Change) -> None:
    edit(path, change)
    with pytest.raises(BundleError, match=r"tokenizer\.json: it is not a usable tokenizer"):
        opened(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"[" * 200_000, b'{"a": ' * 5000, b"\xff\xfe", b'{"model": NaN}', b"[" + b"[]," * 2_000_000 + b"1]"],
    ids=["empty", "a list", "null", "deep lists", "deep objects", "not UTF-8", "NaN", "millions of lists"],
)
def test_a_file_that_is_no_tokenizer_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BundleError, match="it is not a usable tokenizer"):
        opened(path)


def test_names_given_twice_are_refused_because_the_library_may_read_the_other(path: Path) -> None:
    whole = path.read_text()
    hostile = json.dumps(replace("a", "a" * 500))
    path.write_text(f'{{"normalizer": {hostile}, {whole.lstrip()[1:]}')
    with pytest.raises(BundleError, match="twice"):
        opened(path)


@pytest.mark.parametrize("max_length", [0, -1, 1 << 20, 10**12])
def test_a_number_of_tokens_that_takes_all_memory_is_refused(path: Path, max_length: int) -> None:
    with pytest.raises(BundleError, match="expected 1 to 65536"):
        opened(path, max_length)


@pytest.mark.parametrize("pad", [-1, 2**40, 10**400])
def test_a_padding_token_beyond_32_bits_is_refused(path: Path, pad: int) -> None:
    with pytest.raises(BundleError):
        Tokenizer.open(path, max_length=16, pad=pad)


class Panic(BaseException):
    """As the library raises for a panic of its Rust code: no Exception."""


def test_a_panic_while_encoding_is_a_bundle_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = opened(path)

    class Broken:
        def encode(self, text: str) -> None:
            raise Panic(text)

    monkeypatch.setattr(tokenizer, "_inner", Broken())
    with pytest.raises(BundleError, match="not a usable tokenizer: a lake"):
        tokenizer.encode("a lake")


def test_a_table_that_makes_the_library_panic_is_a_bundle_error(path: Path) -> None:
    edit(path, precompiled(b"\x04\0\0\0" + b"\xff\xff\xff\x7f" + b"x\0"))
    with pytest.raises(BundleError, match="not a usable tokenizer"):
        opened(path).encode("a lake")


def test_known_tokenizers_are_still_read(path: Path, tmp_path: Path) -> None:
    """As T5, BERT and Qwen have them, in small."""
    table = b"\0\x04\0\0" + bytes(1024) + b"fi\0"  # whose trie finds nothing
    unigram = Inner(models.Unigram([("<pad>", 0.0), ("\u2581", -1.0), ("a", -2.0)], unk_id=0, byte_fallback=False))
    unigram.normalizer = normalizers.Sequence([normalizers.Precompiled(table), normalizers.Replace(" {2,}", " ")])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.save(str(tmp_path / "t5.json"))
    words = Inner(models.WordPiece({"[UNK]": 0, "[PAD]": 1, "a": 2, "##b": 3}, unk_token="[UNK]", max_input_chars_per_word=100))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words.save(str(tmp_path / "bert.json"))
    assert Tokenizer.open(tmp_path / "bert.json", max_length=8, pad="[PAD]").encode("ab a").ids[0, :3].tolist() == [2, 3, 2]
    assert Tokenizer.open(tmp_path / "t5.json", max_length=8, pad="<pad>").encode("a").length == 2
    assert opened(path).encode("a lake").length > 2


@pytest.mark.parametrize(
    "pattern",
    [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{Lm}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
        r"[一-龥぀-ゟ゠-ヿ]+",
    ],
    ids=["GPT-2", "Qwen", "GPT-4", "GPT-4o", "DeepSeek", "DeepSeek's Chinese"],
)
def test_expressions_of_known_models_are_allowed(pattern: str) -> None:
    check_regex(pattern)


SLOW = ("a*a*b", "(a|b)*", "a**", "(a|a)" * 9, "a?" * 9, r"\w*\w*!", "a*b*c*", "(?:a+|b)(?:c+|d)e", "(?=a+b+)c", "(" * 50 + "a" + ")" * 50)
UNKNOWN = ("[a", "(", "a)", "(?#x)", "(?x) a", r"\k<a>", "{2}", "+a", "a{,}", "a{99999}", "[]a]", "\\", "a" * 3000, "(?<name>a)", "(*FAIL)")


@pytest.mark.parametrize("pattern", [*SLOW, *UNKNOWN])
def test_expressions_that_could_be_slow_or_are_not_understood_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="regular expression"):
        check_regex(pattern)


ABORTS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from pathlib import Path
from costroute_rt.engines.bundle.tokenizer import Tokenizer
from costroute_rt.error import BundleError
try:
    Tokenizer.open(Path(sys.argv[1]), max_length=16, pad=sys.argv[2]).encode("a")
except BundleError:
    print("refused")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits memory as POSIX does")
@pytest.mark.parametrize("name", ["a table that asks for 4 GiB", "replacements that multiply"])
def test_the_process_goes_on(path: Path, name: str) -> None:
    edit(path, HOSTILE[name])
    result = subprocess.run([sys.executable, "-c", ABORTS, str(path), END], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout.strip()) == (0, "refused"), result
