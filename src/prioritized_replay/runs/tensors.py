"""Tensors and plain values from the bytes that ``torch.save`` made, read within bounds.

Such a file may come from anybody. Nothing in it is executed (``weights_only``), and its size bounds
the work and the memory that it can cause. Knows torch's format; knows no network.
"""

import io
import pickletools
import zipfile
from typing import Any

import torch

_LONGEST_PICKLE = 1 << 22
_MOST_VALUES = 100_000
_DEEPEST = 50
# What the pickle may call: tensors, dicts. Storages are of the form torch.FloatStorage.
_CALLED = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}
# What may be referred to a second time: names and texts, and what a call returned. A container
# that holds another one twice, that one a third one twice, ... would never be walked to its end.
_REUSABLE = {
    *("GLOBAL", "STACK_GLOBAL", "REDUCE"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "LONG1", "BININT", "BINFLOAT"),
}
_STORING = {"BINPUT": "BINGET", "LONG_BINPUT": "LONG_BINGET", "PUT": "GET"}
_FETCHING = set(_STORING.values())


def tensors_in(data: bytes) -> Any:
    """Return the tensors and plain values that ``torch.save`` made these bytes of, on the CPU.

    Parameters
    ----------
    data : bytes
        A whole file.

    Returns
    -------
    dict, list, tuple, tensor, text, number, bool or None
        Nested at most 50 deep, with at most 100,000 values.

    Raises
    ------
    ValueError
        They are damaged, hold something else, or would unpack to more than they are.

    Notes
    -----
    O(size of the data) time and memory.
    """
    _check_pickle(_pickle_of(data))
    try:
        value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        # Not quoted: torch's messages recommend to read such a file without weights_only.
        raise ValueError(
            f"torch cannot read it as tensors and plain values ({type(error).__name__})"
        ) from error
    _check_value(value, len(data))
    return value


def _pickle_of(data: bytes) -> bytes:
    """Return the pickle in a file of torch's; the records cannot unpack to more than the file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            records = parts.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise ValueError("a record of it is compressed")  # torch does not do that
            if sum(record.file_size for record in records) > len(data):
                raise ValueError("records of it overlap")
            pickles = [one for one in records if one.filename.rpartition("/")[2] == "data.pkl"]
            if len(pickles) != 1 or pickles[0].file_size > _LONGEST_PICKLE:
                raise ValueError(f"it must hold one pickle of at most {_LONGEST_PICKLE:,} bytes")
            return parts.read(pickles[0])
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, RuntimeError) as error:
        raise ValueError(f"it is no file of torch.save ({type(error).__name__})") from error


def _check_pickle(text: bytes) -> None:
    """Raise where a pickle calls for more than tensors, or refers to one container twice."""
    before, reusable = "", set()
    try:
        for operation, argument, _ in pickletools.genops(text):
            name = operation.name
            if name == "GLOBAL" and not _may_be_called(str(argument)):
                raise ValueError(f"it holds {argument}, and must hold tensors and plain values")
            if name in ("STACK_GLOBAL", "MEMOIZE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"):
                raise ValueError(f"it holds the operation {name}, which torch.save does not write")
            if name in _STORING and before in _REUSABLE:
                reusable.add(argument)
            elif name in _STORING:
                reusable.discard(argument)
            if name in _FETCHING and argument not in reusable:
                raise ValueError("a list, tuple or dict in it is used twice")
            before = name
    except (UnicodeDecodeError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__})") from error


def _may_be_called(name: str) -> bool:
    module, _, member = name.partition(" ")
    return name in _CALLED or (module == "torch" and member.endswith("Storage"))


def _check_value(value: Any, size: int) -> None:
    """Raise where values are nested too deeply, too many, or claim more than the file has."""
    waiting = [(value, 0)]
    count = claimed = 0
    while waiting:
        part, depth = waiting.pop()
        count += 1
        if count > _MOST_VALUES or depth > _DEEPEST:
            raise ValueError(
                f"it must hold at most {_MOST_VALUES:,} values, nested at most {_DEEPEST} deep"
            )
        if isinstance(part, torch.Tensor):
            claimed += part.numel() * part.element_size()
            if part.layout is not torch.strided or not part.is_contiguous() or claimed > size:
                raise ValueError("a tensor of it is larger than its numbers")
        elif isinstance(part, dict):
            waiting += ((one, depth + 1) for pair in part.items() for one in pair)
        elif isinstance(part, (list, tuple)):
            waiting += ((one, depth + 1) for one in part)
