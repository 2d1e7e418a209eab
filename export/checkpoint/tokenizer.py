"""Converts a CLIP tokenizer to a tokenizer.json, which the runtime reads with the `tokenizers` library instead of transformers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from costroute_rt.error import BundleError
from costroute_rt.export.checkpoint.embedding.word_file import CHARACTERS, read_words
from costroute_rt.export.checkpoint.weight_file import check_content, read_config
from costroute_rt.regular_file import read_regular

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_BYTES = 64 << 20
"""Of each file of a tokenizer."""
_NEIGHBOURS = 20
"""Added tokens that each added token is tried beside."""
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def convert_clip_tokenizer(tokenizer: Any, max_length: int, learned: Mapping[str, range] = MappingProxyType({})) -> Tokenizer:
    """A tokenizer with the ids of transformers' CLIPTokenizer (the Python one, without ftfy), padded and truncated to `max_length`.

    CLIPTokenizerFast has other ids: it keeps control characters, does not separate Chinese characters and splits a second time.
    learned: the tokens of each word of a textual inversion, which is found in any case (see `embedding.word_file`).
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors

    merges = list(tokenizer.bpe_ranks)
    unknown = str(tokenizer.unk_token)
    added = added_tokens(tokenizer)
    characters = dict(zip(CHARACTERS, (number for tokens in learned.values() for number in tokens), strict=False))
    vocabulary = tokenizer.encoder | {token.content: number for number, token in added.items()} | characters  # which keeps their numbers
    vocabulary |= _fill_gaps(vocabulary, min((tokens.start for tokens in learned.values()), default=0))
    bpe = models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False, unk_token=unknown)
    converted = Tokenizer(bpe)
    converted.normalizer = _normalizer(learned)
    converted.pre_tokenizer = _pre_tokenizer()
    converted.decoder = decoders.ByteLevel()
    bos, eos = ((str(token), tokenizer.convert_tokens_to_ids(token)) for token in (tokenizer.bos_token, tokenizer.eos_token))
    converted.post_processor = processors.RobertaProcessing(eos, bos, add_prefix_space=False, trim_offsets=False)
    # Matched in normalised text too: CLIPTokenizer also finds <|ENDOFTEXT|>, because it lowercases the text first.
    converted.add_special_tokens([AddedToken(text, normalized=True) for text in dict.fromkeys((bos[0], eos[0]))])
    # Found in the text as it is: CLIPTokenizer looks for its other added tokens before it lowercases the text.
    converted.add_tokens([_as_written(token) for token in added.values()])
    converted.add_tokens([AddedToken(character, normalized=True) for character in characters])
    converted.enable_truncation(max_length)
    pad = str(tokenizer.pad_token)
    converted.enable_padding(length=max_length, pad_id=tokenizer.convert_tokens_to_ids(pad), pad_token=pad)
    return converted


def _fill_gaps(vocabulary: Mapping[str, int], end: int) -> dict[str, int]:
    """A word that no text has for each number below `end` that no token has: the library complains about gaps on standard output."""
    gaps = set(range(end)) - set(vocabulary.values())
    return {f"[unused {number}]": number for number in sorted(gaps)}


def added_tokens(tokenizer: Any) -> dict[int, Any]:
    """The tokens that were added to a CLIPTokenizer, such as those of textual inversion, by number; without its start and end tokens."""
    own = {str(tokenizer.bos_token), str(tokenizer.eos_token)}
    return {number: token for number, token in sorted(tokenizer.added_tokens_decoder.items()) if token.content not in own}


def check_tokenizer(tokenizer: Any, converted: Tokenizer, vocabulary: int, path: Path) -> None:
    """Raises BundleError if a token has no embedding, or if the converted tokenizer splits text with an added token in another way.

    vocabulary: number of the text encoder's embeddings. path: of the tokenizer, for the message.
    """
    beyond = [text for text, number in tokenizer.get_vocab().items() if number >= vocabulary]
    if beyond:
        problem = f"the text encoder has {vocabulary} embeddings, but none for {_show(beyond)}"
        raise BundleError(path, problem, "save the text encoder after resize_token_embeddings(len(tokenizer)), or remove these tokens")
    texts = [token.content for token in added_tokens(tokenizer).values()]
    alone = [text for text in texts if not all(_agree(tokenizer, converted, probe) for probe in _probes(text))]
    together = [text for text in texts if not all(_agree(tokenizer, converted, text + other) for other in texts[:_NEIGHBOURS])]
    changed = alone or together
    if changed:
        problem = f"its added tokens {_show(changed)} cannot be converted: they would be read in another way than in transformers"
        raise BundleError(path, problem, "remove them, or add them without single_word, lstrip and rstrip")


def read_clip_tokenizer(folder: Path, *, max_length: int, vocabulary: int) -> tuple[Any, Tokenizer, int]:
    """The CLIPTokenizer in a checkpoint's folder, its conversion, which was checked, and the tokens it is padded to; raises BundleError.

    max_length: most tokens that the text encoder reads; the tokenizer may have a lower limit.
    vocabulary: number of tokens that the text encoder has embeddings for.
    """
    tokenizer = load_clip_tokenizer(folder)
    length, learned = min(int(tokenizer.model_max_length), max_length), read_words(folder)
    if any(tokens.stop > vocabulary for tokens in learned.values()):
        problem = f"it has learned words beyond the {vocabulary} embeddings of the text encoder"
        raise BundleError(folder, problem, "add the textual inversions to the model again")
    try:
        converted = convert_clip_tokenizer(tokenizer, length, learned)
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(folder, f"its vocabulary cannot be used: {error}", "download the checkpoint again") from error
    check_tokenizer(tokenizer, converted, vocabulary, folder)
    _check_learned(converted, learned, folder)
    return tokenizer, converted, length


def _check_learned(converted: Tokenizer, learned: Mapping[str, range], path: Path) -> None:
    """Raises BundleError unless each learned word becomes its tokens."""
    for word, tokens in learned.items():
        found = converted.encode(f"a {word}", add_special_tokens=False).ids
        if [number for number in found if number in tokens] != list(tokens):
            problem = f"the word {word!r} of a textual inversion cannot be found in prompts"
            raise BundleError(path, problem, "give it another word")


def load_clip_tokenizer(folder: Path) -> Any:
    """The CLIPTokenizer in a checkpoint's folder, also if it was saved as a tokenizer.json alone; raises BundleError."""
    from transformers import CLIPTokenizer

    for name in ("tokenizer_config.json", "vocab.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json"):
        if (folder / name).exists():
            read_config(folder / name)
    has_words = all((folder / name).exists() for name in ("vocab.json", "merges.txt"))
    if has_words:
        check_content(folder / "merges.txt")
    elif not (folder / "tokenizer.json").exists():
        raise BundleError(folder, "it has neither vocab.json and merges.txt nor tokenizer.json", "download the whole checkpoint")
    try:
        with tempfile.TemporaryDirectory() as copy:
            _copy_words(folder, Path(copy)) if has_words else _write_words(folder, Path(copy))
            _copy_settings(folder, Path(copy))
            return CLIPTokenizer.from_pretrained(copy, local_files_only=True)
    except BundleError:
        raise
    except Exception as error:  # transformers raises many kinds
        problem = f"it is not a usable CLIP tokenizer: {type(error).__name__}: {error}"
        raise BundleError(folder, problem, "download the checkpoint again") from error


def _copy_words(folder: Path, copy: Path) -> None:
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "tokenizer.json"):
        if (folder / name).exists():
            (copy / name).write_bytes(read_regular(folder / name, _MOST_BYTES))


def _write_words(folder: Path, copy: Path) -> None:
    """Writes vocab.json and merges.txt from a tokenizer.json."""
    whole = read_config(folder / "tokenizer.json")
    model = whole["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (copy / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (copy / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    added = {token["content"]: token["id"] for token in whole.get("added_tokens", ()) if token["content"] not in model["vocab"]}
    (copy / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")


def _copy_settings(folder: Path, copy: Path) -> None:
    """Copies the settings, without names of files: transformers would read them, wherever they are, into the tokenizer."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            settings = read_config(folder / name)
            plain = {key: value for key, value in settings.items() if not key.endswith(("_file", "name_or_path")) and key != "auto_map"}
            (copy / name).write_text(json.dumps(plain), encoding="utf-8")


def _as_written(token: Any) -> Any:
    from tokenizers import AddedToken

    options = {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "special")}
    return AddedToken(token.content, normalized=False, **options)


def _probes(text: str) -> Iterator[str]:
    """Texts that contain an added token: alone, in words, among blanks, twice, in another case, and longer or shorter."""
    yield from (text, f"a {text} cat", f"a{text}b", f"  {text}  ", f"{text}{text}", f"{text} {text}", f"{text}, {text}!")
    yield from (text.upper(), text.lower(), text.title(), text[:-1], f"{text}_1", f"{text}s")


def _agree(tokenizer: Any, converted: Tokenizer, text: str) -> bool:
    length = converted.truncation["max_length"] if converted.truncation else None
    theirs = tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
    return list(converted.encode(text).ids) == list(theirs)


def _show(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
    return ", ".join(map(repr, texts[:5])) + more


def _normalizer(learned: Mapping[str, range]) -> Any:
    """The steps of BasicTokenizer(strip_accents=False, do_split_on_punc=False): clean, separate Chinese characters, NFC, lowercase.

    Then each learned word becomes the characters of its tokens, longer words first: one may be the beginning of another.
    """
    from tokenizers import Regex
    from tokenizers.normalizers import NFC, BertNormalizer, Lowercase, Replace, Sequence

    clean = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    # str.lower handles the final sigma, Lowercase does not.
    final_sigma = Replace(Regex(r"(?<=\p{L})Σ(?!['’.:·\p{M}]*\p{L})"), "ς")
    # The tables of BertNormalizer are older than Unicode 9.
    unassigned = Replace(Regex(r"[\p{Cn}\p{Co}\p{Cf}]"), "")
    steps = [clean, unassigned, NFC(), final_sigma, Lowercase()]
    plain, characters, replaced = Sequence(steps), iter(CHARACTERS), {}
    for word, tokens in learned.items():
        replaced[plain.normalize_str(word)] = "".join(islice(characters, len(tokens)))
    return Sequence([*steps, *(Replace(word, replaced[word]) for word in sorted(replaced, key=len, reverse=True))])


def _pre_tokenizer() -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    return Sequence([Split(Regex(_WORDS), behavior="removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)])
