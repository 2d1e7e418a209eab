"""Reads what a pickle of torch says about tensors. Nothing is imported, called or made: an opcode that would call something is looked up
in a short list of names, and what is not needed becomes a placeholder.

The opcodes are those of Python's `pickletools`; the meaning of the names is that of torch's `torch/_utils.py` and `torch/serialization.py`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MOST_BYTES, _MOST_OPCODES = 8 << 20, 1_000_000
"""Of a pickle; that of Stable Diffusion with its training state has 0.6 MB and 100,000 opcodes."""
_MOST_AXES, _LARGEST = 8, 1 << 40
DTYPES = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64", "LongStorage": "I64",
    "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
"""Names of dtypes as safetensors has them, by torch's classes of storages."""
_LATER_DTYPES = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "uint16": "U16", "uint32": "U32", "uint64": "U64"}
"""Those without a class of storages."""
_PLAIN_TYPES = {
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "object",
    "set",
    "slice",
    "str",
    "tuple",
}
_HARMLESS = {
    "builtins": _PLAIN_TYPES, "__builtin__": _PLAIN_TYPES | {"unicode", "long"}, "collections": {"OrderedDict", "defaultdict", "Counter"},
    "_codecs": {"encode"}, "argparse": {"Namespace"}, "numpy": {"dtype", "ndarray"}, "copy_reg": {"_reconstructor"},
    "copyreg": {"_reconstructor"}, "typing": {"Any"},
}  # fmt: skip
"""Names by module that the pickles of training states have beside torch's."""
_HARMLESS_FOLDERS = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.core.", "numpy._core.", "torch.optim.")
_REBUILD = "torch._utils"


@dataclass(frozen=True, slots=True)
class Storage:
    """A file of the archive that holds numbers."""

    key: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where the numbers of a tensor are in their storage; all in numbers, not in bytes."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """What a pickle would import."""

    module: str
    name: str


class _Other:
    """An object that is not needed."""


_OTHER, _MARK = _Other(), object()


def read_pickle(data: bytes) -> Any:
    """The pickled value: dicts, lists, texts and numbers as they are, `Tensor` for tensors, and placeholders for all else.

    Raises ValueError for a pickle that is damaged, and for one that names what weights do not need, such as functions of `os`.
    """
    machine = _Machine()
    try:
        for index, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if index == _MOST_OPCODES:
                raise ValueError(f"its pickle has more than {_MOST_OPCODES:,} opcodes")
            machine.run(opcode.name, argument)
        return machine.stack[-1]
    except (IndexError, KeyError, AttributeError, TypeError, OverflowError, UnicodeError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__})") from error


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self, opcode: str, argument: Any) -> None:
        if opcode in _IGNORED:
            return
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _PUTS:
            self.memory[len(self.memory) if opcode == "MEMOIZE" else argument] = self.stack[-1]
        elif opcode in _GETS:
            self.stack.append(self.memory[argument])
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            raise ValueError(f"its pickle has the opcode {opcode}")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("its pickle is damaged")
        return value

    def pop_to_mark(self) -> list[Any]:
        """The values above the last mark, which is removed too."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                values = self.stack[index + 1 :]
                del self.stack[index:]
                return values
        raise ValueError("its pickle is damaged")

    def pop_tuple(self, length: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(length)][::-1]))

    def push_name(self, module: Any, name: Any) -> None:
        self.stack.append(_check_name(module, name))

    def push_global(self, argument: str) -> None:
        self.push_name(*argument.split(" ", 1))

    def push_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.push_name(module, name)

    def add(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(values)

    def add_items(self, values: list[Any]) -> None:
        """Keys and values in turn; only those whose key is text, as the names of tensors are."""
        if type(self.stack[-1]) is dict:
            self.stack[-1].update((key, value) for key, value in zip(values[::2], values[1::2], strict=True) if type(key) is str)

    def push_dict(self, _: Any) -> None:
        values = self.pop_to_mark()
        self.stack.append({})
        self.add_items(values)

    def reduce(self, _: Any) -> None:
        arguments, name = self.pop(), self.pop()
        self.stack.append(_make(name, arguments))

    def push_other(self, count: int) -> None:
        """Replaces so many values by a placeholder."""
        for _ in range(count):
            self.pop()
        self.stack.append(_OTHER)

    def push_marked_other(self) -> None:
        self.pop_to_mark()
        self.stack.append(_OTHER)

    def push_instance(self, argument: str) -> None:
        self.push_global(argument)
        self.stack.pop()
        self.push_marked_other()


_IGNORED = {"PROTO", "FRAME", "STOP"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": lambda: _MARK, "EMPTY_LIST": list,
    "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": _Other,
}  # fmt: skip
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}
_ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE1": lambda machine, _: machine.pop_tuple(1),
    "TUPLE2": lambda machine, _: machine.pop_tuple(2),
    "TUPLE3": lambda machine, _: machine.pop_tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "LIST": lambda machine, _: machine.stack.append(machine.pop_to_mark()),
    "DICT": _Machine.push_dict,
    "APPEND": lambda machine, _: machine.add([machine.pop()]),
    "APPENDS": lambda machine, _: machine.add(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.add_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.add_items(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.pop_to_mark(),
    "FROZENSET": lambda machine, _: machine.push_marked_other(),
    "GLOBAL": _Machine.push_global,
    "STACK_GLOBAL": _Machine.push_stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": lambda machine, _: machine.pop(),
    "NEWOBJ": lambda machine, _: machine.push_other(2),
    "NEWOBJ_EX": lambda machine, _: machine.push_other(3),
    "OBJ": lambda machine, _: machine.push_marked_other(),
    "INST": _Machine.push_instance,
    "BINPERSID": lambda machine, _: machine.stack.append(_storage(machine.pop())),
}


def _check_name(module: Any, name: Any) -> _Name:
    """What a pickle names; raises ValueError for what weights and training states do not need."""
    if type(module) is not str or type(name) is not str:
        raise ValueError("its pickle is damaged")
    is_torch = module in ("torch", "torch.storage", "torch._tensor", "torch.nn.parameter", _REBUILD) and (
        name.endswith("Storage")
        or name.startswith("_rebuild_")
        or name in ("Size", "device", "dtype", "Tensor", "Parameter", *_LATER_DTYPES)
    )
    if not (is_torch or name in _HARMLESS.get(module, ()) or f"{module}.".startswith(_HARMLESS_FOLDERS)):
        raise ValueError(f"its pickle names {module}.{name}, which weights do not need")
    return _Name(module, name)


def _make(name: Any, arguments: Any) -> Any:
    """What a call of a named function would return, as far as it is needed."""
    if name == _Name("collections", "OrderedDict"):
        return {}
    if not isinstance(name, _Name) or name.module != _REBUILD or type(arguments) is not tuple:
        return _OTHER
    if name.name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        return arguments[0]
    if name.name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        return _tensor(arguments[0], arguments[0].dtype, *arguments[1:4])
    if name.name == "_rebuild_tensor_v3":
        return _tensor(arguments[0], _LATER_DTYPES.get(arguments[6].name, "of an unknown dtype"), *arguments[1:4])
    return _OTHER


def _tensor(storage: Any, dtype: str, offset: Any, shape: Any, stride: Any) -> Tensor:
    if not isinstance(storage, Storage) or not _are_sizes((offset,)) or not _are_sizes(shape) or not _are_sizes(stride):
        raise ValueError("its pickle is damaged: a tensor without a position")
    if len(shape) != len(stride) or len(shape) > _MOST_AXES:
        raise ValueError("its pickle is damaged: a tensor without a shape")
    return Tensor(storage, dtype, offset, shape, stride)


def _are_sizes(values: Any) -> bool:
    return type(values) is tuple and all(type(value) is int and 0 <= value <= _LARGEST for value in values)


def _storage(identity: Any) -> Storage:
    """The storage that an identity of torch names: ("storage", class, key, device, count)."""
    if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage" or type(identity[2]) is not str:
        raise ValueError("its pickle is damaged: a storage without a name")
    return Storage(identity[2], DTYPES.get(identity[1].name, "of an unknown dtype"))
