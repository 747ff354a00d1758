"""The tokenizer of a GGUF file as one of the ``tokenizers`` library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from penstock.errors import BackendUnavailableError, UnsupportedError, install_hint

CONTROL, USER, BYTE = 3, 4, 6

#: How words are cut before they are merged, by ``tokenizer.ggml.pre``.
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {
    "llama-bpe": f"{_CONTRACTIONS}|{_REST % (chr(92) + 'p{N}{1,3}')}",
    "qwen2": f"{_CONTRACTIONS}|{_REST % (chr(92) + 'p{N}')}",
}
_PATTERNS |= {"llama3": _PATTERNS["llama-bpe"], "llama-v3": _PATTERNS["llama-bpe"]}
#: Those of GPT-2, and those that take each digit alone before.
_PLAIN, _DIGITS = ("gpt-2", "default", "phi-2"), ("smollm", "starcoder", "refact", "command-r")

_ENDS_OF_TURNS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")


@dataclass(frozen=True)
class GgufVocabulary:
    """What a file says of its tokenizer. ``kind`` is ``gpt2`` (merges of bytes) or ``llama``
    (pieces with scores)."""

    kind: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    begin: int | None = None
    add_begin: bool = False
    space_first: bool = True

    @classmethod
    def read(cls, get: Callable[..., Any], need: Callable[[str], Any]) -> GgufVocabulary:
        kind = str(need("tokenizer.ggml.model"))
        if kind not in ("gpt2", "llama"):
            raise UnsupportedError(
                f"the tokenizer {kind!r} is unsupported; gpt2 and llama are supported"
            )
        tokens = [str(token) for token in need("tokenizer.ggml.tokens")]
        types = get("tokenizer.ggml.token_type") or [1] * len(tokens)
        begin = get("tokenizer.ggml.bos_token_id")
        return cls(
            kind=kind,
            pre=str(get("tokenizer.ggml.pre", "default")),
            tokens=tokens,
            types=[int(one) for one in types],
            scores=[float(one) for one in get("tokenizer.ggml.scores") or ()],
            merges=[str(one) for one in get("tokenizer.ggml.merges") or ()],
            begin=None if begin is None else int(begin),
            add_begin=bool(get("tokenizer.ggml.add_bos_token", kind == "llama")),
            space_first=bool(get("tokenizer.ggml.add_space_prefix", True)),
        )

    def ends_of_turns(self) -> list[int]:
        """Control tokens that end an answer by their names."""
        return [
            number
            for number, (text, kind) in enumerate(zip(self.tokens, self.types, strict=False))
            if kind == CONTROL and text in _ENDS_OF_TURNS
        ]


def special_texts(vocabulary: GgufVocabulary, begin: Any, end: Any) -> dict[str, str]:
    """The texts of the first and last token, as chat templates name them."""
    pairs = (("bos_token", begin), ("eos_token", end))
    count = len(vocabulary.tokens)
    return {
        name: vocabulary.tokens[int(number)]
        for name, number in pairs
        if number is not None and 0 <= int(number) < count
    }


def tokenizer_json(vocabulary: GgufVocabulary) -> str:
    """The tokenizer as the JSON of the ``tokenizers`` library.

    Raises :class:`UnsupportedError` for a way of cutting words that is not known.
    """
    try:
        import tokenizers
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(
            f"this needs tokenizers, which is not installed: {install_hint('llm')}"
        ) from error
    made = _of_bytes(vocabulary) if vocabulary.kind == "gpt2" else _of_pieces(vocabulary)
    if vocabulary.add_begin and vocabulary.begin is not None:
        text = vocabulary.tokens[vocabulary.begin]
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{text} $A", pair=f"{text} $A $B", special_tokens=[(text, vocabulary.begin)]
        )
    kinds = list(zip(vocabulary.tokens, vocabulary.types, strict=False))
    made.add_special_tokens([_added(text) for text, kind in kinds if kind == CONTROL])
    made.add_tokens([_added(text) for text, kind in kinds if kind == USER])
    return str(made.to_str())


def _added(text: str) -> Any:
    from tokenizers import AddedToken

    return AddedToken(text, normalized=False)


def _of_bytes(vocabulary: GgufVocabulary) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    pairs = [_pair(merge) for merge in vocabulary.merges]
    ids = {token: number for number, token in enumerate(vocabulary.tokens)}
    whole = vocabulary.pre in ("llama-bpe", "llama3", "llama-v3")
    made = Tokenizer(models.BPE(ids, pairs, ignore_merges=whole))
    steps: list[Any] = []
    if vocabulary.pre in _PATTERNS:
        steps.append(pre_tokenizers.Split(Regex(_PATTERNS[vocabulary.pre]), "isolated"))
    elif vocabulary.pre in _DIGITS:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    elif vocabulary.pre not in _PLAIN:
        known = ", ".join((*_PATTERNS, *_DIGITS, *_PLAIN))
        raise UnsupportedError(
            f"the tokenizer cuts words as {vocabulary.pre!r}, which is unsupported; {known} are"
        )
    by_pattern = vocabulary.pre in _PATTERNS
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not by_pattern))
    made.pre_tokenizer = pre_tokenizers.Sequence(steps)
    made.decoder = decoders.ByteLevel()
    if vocabulary.pre == "qwen2":
        made.normalizer = normalizers.NFC()
    return made


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _of_pieces(vocabulary: GgufVocabulary) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    ids = {token: number for number, token in enumerate(vocabulary.tokens)}
    made = Tokenizer(
        models.BPE(
            ids, _merges(vocabulary, ids), fuse_unk=True, byte_fallback=True,
            unk_token=next((t for t in ("<unk>",) if t in ids), None),
        )
    )  # fmt: skip
    steps: list[Any] = [normalizers.Replace(" ", "▁")]
    back: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.space_first:
        steps.insert(0, normalizers.Prepend("▁"))
        back.append(decoders.Strip(content=" ", left=1))
    made.normalizer = normalizers.Sequence(steps)
    made.decoder = decoders.Sequence(back)
    return made


def _merges(vocabulary: GgufVocabulary, ids: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs that make each piece, those of the best pieces first."""
    found: list[tuple[float, int, int, tuple[str, str]]] = []
    scores = vocabulary.scores or [float(-number) for number in range(len(vocabulary.tokens))]
    for number, piece in enumerate(vocabulary.tokens):
        if vocabulary.types[number] in (CONTROL, USER, BYTE):
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                found.append((-scores[number], ids[left], ids[right], (left, right)))
    return [pair for *_, pair in sorted(found)]
