"""What a caller asks of quantization. Knows no torch, so that the zoo and the command line can
speak of it without importing any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias, get_args

from penstock.errors import QuantizationError, shorten

#: How activations and weights become int8.
#:
#: - ``static_per_channel``: activations with one scale a tensor, fixed by calibration; weights with
#:   one scale an output channel.
#: - ``static_per_tensor``: the same with one scale for all of a weight.
#: - ``dynamic_per_channel``: weights as above; activations are quantized as the program runs, and
#:   only operators for which XNNPACK can do that take part. Needs no calibration.
#: - ``dynamic_4bit``: the same, with the weights of linear layers in 4 bits, one scale for each
#:   ``block`` of a row. What blocks do not fit, and layers whose result is the model's, keep 8.
Scheme: TypeAlias = Literal[
    "static_per_tensor", "static_per_channel", "dynamic_per_channel", "dynamic_4bit"
]

#: How the range of a static activation follows from what calibration saw: ``histogram`` cuts off
#: rare extremes where that lowers the squared error, ``minmax`` keeps all that was seen,
#: ``percentile`` cuts off one value in 10,000 at each end.
Observer: TypeAlias = Literal["histogram", "minmax", "percentile"]

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
#: Those that quantize activations as the program runs.
DYNAMIC_SCHEMES: tuple[Scheme, ...] = ("dynamic_per_channel", "dynamic_4bit")
#: XNNPACK's blocks are multiples of this.
LEAST_BLOCK = 32
OBSERVERS: tuple[Observer, ...] = get_args(Observer)

_SHORT_NAMES: Mapping[str, Scheme] = {
    "static": "static_per_channel",
    "dynamic": "dynamic_per_channel",
    "4bit": "dynamic_4bit",
}


@dataclass(frozen=True)
class Quantization:
    """How to quantize a model.

    ``skip`` names what stays in float: module paths (``features.0``: that module and all below
    it), or operator names as the operator table writes them; ``*`` and ``?`` are wildcards.
    ``overrides`` gives single modules (the same kind of pattern) another scheme, or ``None`` for
    float; the longest pattern that fits a module wins. ``module_types`` does so for modules of a
    class and all below them: the class, or its name with or without the path
    (``torch.nn.modules.linear.Linear``, ``Linear``); the innermost module decides. ``operators``
    does so for operators by name, ``{"*": None}`` for all that nothing else names. What names a
    module goes before what names a class, and that before what names an operator.

    ``block`` is how many weights of a row share a scale in the scheme ``dynamic_4bit``, a multiple
    of 32.

    ``float_nodes`` names single operators that stay in float, and ``observers`` gives single values
    an observer of their own, both by the names that the report has in its first column
    (``conv2d_3``). An accuracy budget fills them in.

    Raises :class:`~penstock.errors.QuantizationError` for an unknown scheme or observer.
    """

    scheme: Scheme = "static_per_channel"
    skip: tuple[str, ...] = ()
    overrides: Mapping[str, Scheme | None] = field(default_factory=dict)
    observer: Observer = "histogram"
    block: int = LEAST_BLOCK
    float_nodes: tuple[str, ...] = ()
    observers: Mapping[str, Observer] = field(default_factory=dict)
    module_types: Mapping[type | str, Scheme | None] = field(default_factory=dict)
    operators: Mapping[str, Scheme | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scheme", parse_scheme(self.scheme))
        object.__setattr__(self, "skip", _texts("skip", self.skip))
        for option in ("overrides", "observers", "module_types", "operators"):
            if not isinstance(getattr(self, option), Mapping):
                raise QuantizationError(
                    f"{option} must be a dict with a choice for each name, not"
                    f" {shorten(repr(getattr(self, option)))}"
                )
        object.__setattr__(self, "overrides", _schemes("overrides", self.overrides))
        types = {type_name(key): scheme for key, scheme in self.module_types.items()}
        object.__setattr__(self, "module_types", _schemes("module_types", types))
        object.__setattr__(self, "operators", _schemes("operators", self.operators))
        object.__setattr__(self, "float_nodes", _texts("float_nodes", self.float_nodes))
        _texts("observers", tuple(self.observers))
        object.__setattr__(self, "observers", dict(self.observers))
        for observer in (self.observer, *self.observers.values()):
            if observer not in OBSERVERS:
                raise QuantizationError(
                    f"unknown observer {observer!r}; valid: {', '.join(OBSERVERS)}"
                )
        if not isinstance(self.block, int) or self.block < 1 or self.block % LEAST_BLOCK:
            raise QuantizationError(f"block is {self.block!r}; give a multiple of {LEAST_BLOCK}")

    @classmethod
    def parse(cls, value: QuantizationLike) -> Quantization:
        """``value``: a :class:`Quantization` as it is, or one from the name of a scheme (``static``
        and ``dynamic`` stand for the per-channel ones).

        Raises :class:`~penstock.errors.QuantizationError` for anything else.
        """
        if isinstance(value, cls):
            return value
        return cls(scheme=parse_scheme(value))

    def scheme_for(
        self, module_path: str, operator: str, types: Sequence[str] = ()
    ) -> Scheme | None:
        """The scheme for an operator, ``None`` for float.

        ``module_path`` is dotted, empty for the outermost module; ``operator`` is the name in the
        operator table; ``types`` are the full names of the classes of the modules that the operator
        is called in, the outermost first.
        """
        if self.skipped_by(module_path, operator) is not None:
            return None
        named = [path for path in self.overrides if fits_module(path, module_path)]
        if named:
            return self.overrides[max(named, key=len)]
        for name in reversed(types):
            fitting = [str(key) for key in self.module_types if fits_type(str(key), name)]
            if fitting:
                return self.module_types[max(fitting, key=len)]
        matching = [key for key in self.operators if fnmatchcase(operator, key)]
        return self.operators[max(matching, key=len)] if matching else self.scheme

    def skipped_by(self, module_path: str, operator: str) -> str | None:
        """The pattern of ``skip`` that an operator falls under, if any; arguments as for
        :meth:`scheme_for`, ``module_path`` too."""
        for pattern in self.skip:
            if fnmatchcase(operator, pattern) or fits_module(pattern, module_path):
                return pattern
        return None


QuantizationLike: TypeAlias = "Quantization | str"


def parse_scheme(name: object) -> Scheme:
    """A scheme by its full or short name."""
    if isinstance(name, str):
        full = _SHORT_NAMES.get(name, name)
        for scheme in SCHEMES:
            if scheme == full:
                return scheme
    valid = ", ".join((*_SHORT_NAMES, *SCHEMES))
    text = f"unknown quantization scheme {shorten(repr(name))}; valid: {valid}"
    if "torchao" in type(name).__module__ or hasattr(name, "annotate"):
        text += "; torchao's flow takes this one, and lower() what comes of it, without quantize"
    raise QuantizationError(text)


def type_name(key: object) -> str:
    """The full name of a class; a name as it is."""
    if isinstance(key, type):
        return f"{key.__module__}.{key.__qualname__}"
    if isinstance(key, str):
        return key
    found = shorten(repr(key))
    raise QuantizationError(f"module_types has {found}; give a class of modules, or its name")


def _texts(option: str, names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise QuantizationError(f"{option} must be a sequence of names, not {names!r}")
    for name in names:
        if not isinstance(name, str):
            raise QuantizationError(f"{option} has {shorten(repr(name))}; give names, as text")
    return tuple(names)


def _schemes(option: str, given: Mapping[str, Scheme | None]) -> dict[str, Scheme | None]:
    _texts(option, tuple(given))
    return {key: None if scheme is None else parse_scheme(scheme) for key, scheme in given.items()}


def fits_type(pattern: str, name: str) -> bool:
    """Whether ``pattern`` is the full name ``name`` or the end of it behind the last dot."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[2], pattern)


def fits_module(pattern: str, module_path: str) -> bool:
    """Whether ``module_path`` or a module around it is the one ``pattern`` names."""
    parts = module_path.split(".") if module_path else []
    return any(fnmatchcase(".".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
