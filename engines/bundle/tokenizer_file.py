"""Reading a tokenizer.json of anybody: only parts that are known, with settings that cannot make a text explode.

The library that runs it asks for as much memory as the file says, and ends the process where it does not get that.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from costroute_rt.engines.bundle.json_bound import check_json_size
from costroute_rt.engines.bundle.section import unique_names
from costroute_rt.engines.bundle.tokenizer_regex import check_regex
from costroute_rt.regular_file import ReadFile, read_regular

_MOST_BYTES, _MOST_VALUES = 64 << 20, 3_000_000
_MOST_ADDED, _LONGEST_ADDED_SUM = 50_000, 1 << 20
_LONGEST_TOKEN, _LONGEST_AFFIX, _LONGEST_CONTENT = 1024, 16, 16
_LONGEST_REPLACEMENT = 128
"""Characters that may take the place of a text; the words of textual inversions become one for each of their vectors."""
_LONGEST_WORD = 500
"""Characters of a word that WordPiece looks up, whose time grows with the third power."""
_MOST_PARTS, _MOST_GROWTH, _DEEPEST = 32, 128, 4
_MOST_TEMPLATE, _MOST_IDS = 64, 16
_NORMALIZERS = frozenset(
    {"BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Replace", "Sequence"}
    | {"Strip", "StripAccents"}
)
_PRE_TOKENIZERS = frozenset(
    {"BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "FixedLength", "Metaspace", "Punctuation", "Sequence", "Split"}
    | {"UnicodeScripts", "Whitespace", "WhitespaceSplit"}
)
_POST_PROCESSORS = frozenset({"BertProcessing", "ByteLevel", "RobertaProcessing", "Sequence", "TemplateProcessing"})
_MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
_BYTE_GROWTH, _PIECE_GROWTH = 5, 2
"""Most characters that ByteLevel and Metaspace make of one."""

Part = Mapping[str, Any]


def read_tokenizer(path: Path, read: ReadFile = read_regular) -> str:
    """The text of a tokenizer.json that was checked; raises OSError, and ValueError for what is damaged, too large or not supported."""
    data = read(path, _MOST_BYTES)
    check_json_size(data, _MOST_VALUES)
    text = data.decode("utf-8")
    try:
        whole = json.loads(text, object_pairs_hook=unique_names, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    if not isinstance(whole, dict):
        raise ValueError("it does not hold a JSON object")
    normalizers = _parts(whole.get("normalizer"), "normalizers", _NORMALIZERS)
    splits = _parts(whole.get("pre_tokenizer"), "pretokenizers", _PRE_TOKENIZERS)
    growth = 1
    for part in (*normalizers, *splits):
        growth *= _growth(part)
        if growth > _MOST_GROWTH:
            raise ValueError(f"its normalizers could make a text more than {_MOST_GROWTH} times longer")
    for part in _parts(whole.get("post_processor"), "processors", _POST_PROCESSORS):
        if part["type"] == "TemplateProcessing":
            _check_template(part)
    _check_regexes(whole.get("decoder"))
    _check_added(whole.get("added_tokens"))
    _check_model(whole.get("model"))
    return text


def _parts(part: Any, members: str, known: Collection[str], depth: int = 0) -> list[Part]:
    """The part, or all parts of a sequence; raises ValueError for an unknown one."""
    if part is None:
        return []
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(f"its part {_show(kind)} is not supported")
    if kind != "Sequence":
        return [part]
    inner = part.get(members)
    if not isinstance(inner, list) or len(inner) > _MOST_PARTS or depth > _DEEPEST:
        raise ValueError(f"a sequence of {members} is missing, too long or nested too deeply")
    found = [each for member in inner for each in _parts(member, members, known, depth + 1)]
    if len(found) > _MOST_PARTS:
        raise ValueError(f"it has more than {_MOST_PARTS} {members}")
    return found


def _growth(part: Part) -> int:
    """How many characters a normalizer or pre-tokenizer makes of one, at most; raises ValueError for settings that are not supported."""
    kind = part["type"]
    if kind == "Replace":
        pattern = _pattern(part)
        content = _text(part, "content", _LONGEST_CONTENT if pattern is None else _LONGEST_REPLACEMENT)
        return len(content) + 1 if pattern is None else max(1, -(-len(content) // len(pattern)))
    if kind == "Split":
        _pattern(part)
    if kind == "Prepend":
        _text(part, "prepend", _LONGEST_CONTENT)
    if kind == "Precompiled":
        return _longest_replacement(part.get("precompiled_charsmap"))
    return {"ByteLevel": _BYTE_GROWTH, "Metaspace": _PIECE_GROWTH}.get(kind, 1)


def _pattern(part: Part) -> str | None:
    """The text that a part looks for; None where it is a regular expression, which is checked."""
    pattern = part.get("pattern")
    if not isinstance(pattern, dict) or len(pattern) != 1 or next(iter(pattern)) not in ("String", "Regex"):
        raise ValueError(f"{part['type']} has no pattern that is a text or a regular expression")
    if "Regex" in pattern:
        check_regex(_text(pattern, "Regex", 1 << 20))
        return None
    return _text(pattern, "String", _LONGEST_TOKEN) or _fail("a pattern is empty")


def _check_regexes(value: Any, depth: int = 0) -> None:
    """Checks every regular expression in a decoder, which is loaded but not used."""
    if depth > 2 * _DEEPEST:
        raise ValueError("its decoder is nested too deeply")
    if isinstance(value, dict):
        if "Regex" in value:
            check_regex(_text(value, "Regex", 1 << 20))
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            _check_regexes(each, depth + 1)


def _longest_replacement(encoded: Any) -> int:
    """Characters of the longest text in SentencePiece's table, which replaces one or more characters.

    The table: its bytes of trie as uint32 (little endian), the trie, and texts that each end in a NUL.
    """
    if encoded is None:
        return 1
    try:
        table = base64.b64decode(encoded, validate=True)
        trie = int.from_bytes(table[:4], "little")
        if len(table) < 8 or trie % 4 or not 4 <= trie <= len(table) - 4:
            raise ValueError
        texts = table[4 + trie :].decode("utf-8").split("\0")
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError("the table of Precompiled is damaged") from error
    return max(1, *map(len, texts))


def _check_template(part: Part) -> None:
    """Raises ValueError for a template that is long, or names a token that it does not define."""
    known = part.get("special_tokens")
    if not isinstance(known, dict) or len(known) > _MOST_TEMPLATE:
        raise ValueError("its template has no special tokens, or too many")
    for name in ("single", "pair"):
        pieces = part.get(name)
        if not isinstance(pieces, list) or len(pieces) > _MOST_TEMPLATE or not all(isinstance(piece, dict) for piece in pieces):
            raise ValueError(f"its template {name} is missing or too long")
        tokens = [piece["SpecialToken"] for piece in pieces if "SpecialToken" in piece]
        if not all(isinstance(token, dict) and isinstance(token.get("id"), str) and token["id"] in known for token in tokens):
            raise ValueError(f"its template {name} has a token that is not among its special tokens")
        if len(pieces) - len(tokens) > (1 if name == "single" else 2):
            raise ValueError(f"its template {name} repeats the text")
    for token in known.values():
        if not isinstance(token, dict) or not isinstance(token.get("ids"), list) or len(token["ids"]) > _MOST_IDS:
            raise ValueError("a special token of its template has no ids, or too many")


def _check_added(added: Any) -> None:
    if added is None:
        return
    if not isinstance(added, list) or len(added) > _MOST_ADDED or not all(isinstance(token, dict) for token in added):
        raise ValueError(f"its added tokens are not a list of {_MOST_ADDED:,} at most")
    lengths = [len(_text(token, "content", _LONGEST_TOKEN) or _fail("an added token is empty")) for token in added]
    if sum(lengths) > _LONGEST_ADDED_SUM:
        raise ValueError(f"its added tokens have more than {_LONGEST_ADDED_SUM:,} characters")


def _check_model(model: Any) -> None:
    if not isinstance(model, dict) or model.get("type") not in (None, *_MODELS):
        raise ValueError(f"its model is not one of {', '.join(_MODELS)}")
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        tokens = list(vocabulary)
    elif isinstance(vocabulary, list) and all(isinstance(row, list) and row and isinstance(row[0], str) for row in vocabulary):
        tokens = [row[0] for row in vocabulary]
    else:
        raise ValueError("its model has no vocabulary")
    if not tokens or max(map(len, tokens)) > _LONGEST_TOKEN:
        raise ValueError(f"its vocabulary is empty, or has a token of more than {_LONGEST_TOKEN:,} characters")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name) is not None:
            _text(model, name, _LONGEST_AFFIX)
    if model.get("dropout") not in (None, 0):
        raise ValueError("its model drops merges at random")
    longest = model.get("max_input_chars_per_word", 0)
    if not isinstance(longest, int) or longest > _LONGEST_WORD:
        raise ValueError(f"max_input_chars_per_word is {_show(longest)}: expected {_LONGEST_WORD} at most")
    if (model.get("type") in ("WordPiece", "WordLevel") or longest) and model.get("unk_token") not in tokens:
        raise ValueError("its vocabulary has no token for unknown words")


def _text(part: Part, name: str, longest: int) -> str:
    value = part.get(name)
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"{name} is {_show(value)}: expected a text of {longest} characters at most")
    return value


def _show(value: object) -> str:
    return repr(value)[:60]


def _refuse_constant(constant: str) -> NoReturn:
    _fail(f"{constant} is not a number")


def _fail(problem: str) -> NoReturn:
    raise ValueError(problem)
