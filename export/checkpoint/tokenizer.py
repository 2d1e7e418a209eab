"""Converts a CLIP tokenizer to a tokenizer.json, which the runtime reads with the `tokenizers` library instead of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def convert_clip_tokenizer(tokenizer: Any, max_length: int) -> Tokenizer:
    """A tokenizer with the ids of transformers' CLIPTokenizer (the Python one, without ftfy), padded and truncated to `max_length`.

    CLIPTokenizerFast has other ids: it keeps control characters, does not separate Chinese characters and splits a second time.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors

    merges = list(tokenizer.bpe_ranks)
    unknown = str(tokenizer.unk_token)
    bpe = models.BPE(tokenizer.encoder, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False, unk_token=unknown)
    converted = Tokenizer(bpe)
    converted.normalizer = _normalizer()
    converted.pre_tokenizer = _pre_tokenizer()
    converted.decoder = decoders.ByteLevel()
    bos, eos = ((str(token), tokenizer.convert_tokens_to_ids(token)) for token in (tokenizer.bos_token, tokenizer.eos_token))
    converted.post_processor = processors.RobertaProcessing(eos, bos, add_prefix_space=False, trim_offsets=False)
    # Matched in normalised text too: CLIPTokenizer also finds <|ENDOFTEXT|>, because it lowercases the text first.
    converted.add_special_tokens([AddedToken(text, normalized=True) for text in dict.fromkeys((bos[0], eos[0]))])
    converted.enable_truncation(max_length)
    pad = str(tokenizer.pad_token)
    converted.enable_padding(length=max_length, pad_id=tokenizer.convert_tokens_to_ids(pad), pad_token=pad)
    return converted


def _normalizer() -> Any:
    """The steps of BasicTokenizer(strip_accents=False, do_split_on_punc=False): clean, separate Chinese characters, NFC, lowercase."""
    from tokenizers import Regex
    from tokenizers.normalizers import NFC, BertNormalizer, Lowercase, Replace, Sequence

    clean = BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False)
    # str.lower handles the final sigma, Lowercase does not.
    final_sigma = Replace(Regex(r"(?<=\p{L})Σ(?!['’.:·\p{M}]*\p{L})"), "ς")
    # The tables of BertNormalizer are older than Unicode 9.
    unassigned = Replace(Regex(r"[\p{Cn}\p{Co}\p{Cf}]"), "")
    return Sequence([clean, unassigned, NFC(), final_sigma, Lowercase()])


def _pre_tokenizer() -> Any:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    return Sequence([Split(Regex(_WORDS), behavior="removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)])
