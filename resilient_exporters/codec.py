"""Records to bytes and back, exactly: MessagePack with extension types.

The extension codes below are part of the format on disk. They are never renumbered and never reused; a new kind of
value gets a new code. Payloads that are "MessagePack" may hold every kind of value again. Numbers are big-endian.

==== ============== ==================================================================================
code value          payload
==== ============== ==================================================================================
1    big int        two's complement, as short as possible (ints of 64 bits and less are plain)
2    str            UTF-8 with lone surrogates passed through (other texts are plain)
3    map            MessagePack array key, value, key, value, … (maps with plain keys are plain)
4    tuple          MessagePack array
5    set            MessagePack array
6    frozenset      MessagePack array
7    datetime       year u16, month, day, hour, minute, second u8, microsecond u32, fold u8 [, UTC offset in us i64]
8    date           year u16, month u8, day u8
9    time           hour, minute, second u8, microsecond u32, fold u8 [, UTC offset in us i64]
10   timedelta      days i32, seconds u32, microseconds u32
11   Decimal        its text
12   UUID           16 bytes
13   numpy array    MessagePack array, see :mod:`resilient_exporters.foreign`
14   numpy scalar   MessagePack array, see there
15   pandas value   MessagePack array, see there
16   bson ObjectId  12 bytes
17   bson value     MessagePack array, see there
==== ============== ==================================================================================

What arrives differs from what was sent in these points only, and they are the same through memory and through disk:
bytearray and memoryview arrive as bytes; an enum member as its value; a named tuple as a tuple; a dataclass,
``msgspec.Struct`` or attrs object as a mapping of its fields; any other mapping and subclasses of dict, list, str, int,
… as the plain type; a time zone as its UTC offset at that moment; a deque or ``array.array`` as a list. No class is
looked up by a name from the data, and nothing in the data can be executed.
"""

from __future__ import annotations

import array
import dataclasses
import enum
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from resilient_exporters import foreign, scalars
from resilient_exporters.errors import EncodingError
from resilient_exporters.foreign import Refusal

__all__ = ["FORMAT", "MAX_DEPTH", "decode", "decode_plainly", "decode_with_options", "encode", "encode_with_options"]

#: Version of this format, written into the header of every block.
FORMAT: Final = 1

#: Deepest nesting that is taken. Far below where the interpreter's own recursion limit would strike, also at delivery.
MAX_DEPTH: Final = 200

# The codes of the containers; the others are those of the modules below.
MAP, TUPLE, SET, FROZENSET = range(3, 7)

# Types that msgspec writes and restores exactly, as values and as keys. It also takes datetime, Decimal, UUID, enum,
# set, tuple and more, but gives back something else, which is why types are looked at before.
_PLAIN: Final[frozenset[type]] = frozenset({str, bytes, int, float, bool, type(None)})
# Where a text or a number was refused: each text and each int is looked at, too.
_SAFE: Final[frozenset[type]] = frozenset({bytes, float, bool, type(None)})

_pack: Final = msgspec.msgpack.Encoder().encode
_all_plain = _PLAIN.issuperset
_join = "".join
_seen: Final[list[list[str]]] = [[]]
_Ext = msgspec.msgpack.Ext


def encode(data: Any, root: str = "record") -> bytes:
    """Encode a value; the result is also its snapshot.

    Args:
        data: the value, see the module's text for what is taken.
        root: what the value is called in an error.

    Returns:
        One MessagePack object.

    Raises:
        EncodingError: a value that cannot be kept; the text names its path, its type and what to send instead. Also
            for circular references and for nesting deeper than ``MAX_DEPTH``.
    """
    try:
        kind = type(data)
        if kind is dict:
            if [*data] != _seen[0]:
                # The cheapest test there is that every key is a text: anything else raises. (msgspec writes a key
                # of a subclass of str as its text.) Most programs send the same keys again.
                _join([*data])
                _seen[0] = [*data]
            if _all_plain(map(type, data.values())):
                return _pack(data)
            return _pack(_map_values(data, 0, _PLAIN))
        return _pack(data if kind in _PLAIN else _prepare(data, 0, _PLAIN))
    except Exception:  # noqa: BLE001 - the careful way succeeds (big ints, lone surrogates, odd keys) or tells why not
        return _encode_carefully(data, root)


def decode(payload: bytes | memoryview) -> Any:
    """Restore what :func:`encode` wrote; nothing of ``payload`` is referred to afterwards.

    numpy, pandas and bson are imported only if a value of theirs occurs. Where they are not installed, the nearest
    plain value comes instead: nested lists, numbers, datetimes, None, texts.

    Raises:
        EncodingError: the bytes are not what ``encode`` of this or an earlier version writes.
    """
    try:
        return _unpack(payload)
    except MemoryError:
        raise
    except Exception as error:
        raise EncodingError(f"cannot decode these {len(payload)} bytes: {error}") from error


def encode_with_options(data: Any, options: dict[str, Any]) -> bytes:
    """Encode a record with the options of its ``send``, as a MessagePack array of two.

    Raises:
        EncodingError: as :func:`encode`.
    """
    # Put together from the two encodings: an array header of two in front, an empty map where there are no options.
    if not options:
        return b"\x92%b\x80" % encode(data)
    return b"\x92%b%b" % (encode(data), encode(options, "options"))


def decode_with_options(payload: bytes | memoryview) -> tuple[Any, dict[str, Any]]:
    """Restore what :func:`encode_with_options` wrote.

    Raises:
        EncodingError: as :func:`decode`.
    """
    both = decode(payload)
    if type(both) is not list or len(both) != 2 or type(both[1]) is not dict:
        raise EncodingError(f"cannot decode these {len(payload)} bytes: not a record with options")
    return both[0], both[1]


def _encode_carefully(data: Any, root: str) -> bytes:
    """Encode with every text and number looked at, and tell what could not be."""
    try:
        return _pack(_prepare(data, 0, _SAFE))
    except Refusal as refusal:
        raise EncodingError(refusal.text(root)) from refusal.__cause__
    except RecursionError as error:
        raise EncodingError(f"{root}: no stack left to encode it; send it from less deep in the program") from error
    except MemoryError:
        raise
    except Exception as error:  # 4 GiB in one value, a released memoryview
        raise EncodingError(f"{root}: {type(error).__name__}: {error}") from error


# ---------------------------------------------------------------------------------------------- what is written
#
# Each function below takes a value, its depth, and the types that may stay as they are. It returns the value itself if
# msgspec writes it exactly, else something in its place; a container is copied only if something in it changes.


def _prepare(value: Any, depth: int, plain: frozenset[type]) -> Any:
    kind = type(value)
    if kind in plain:
        return value
    return _WRITERS.get(kind, _other)(value, depth, plain)


def _map(value: dict[Any, Any], depth: int, plain: frozenset[type]) -> Any:
    if not _all_plain(map(type, value)) or (plain is _SAFE and _any_changes(value)):
        return _pairs(value, value.items(), depth, plain)
    if plain.issuperset(map(type, value.values())):
        return value
    return _map_values(value, depth, plain)


def _map_values(value: dict[Any, Any], depth: int, plain: frozenset[type]) -> dict[Any, Any]:
    if depth >= MAX_DEPTH:
        raise Refusal.too_deep(value)
    copy = value
    key: Any = None
    try:
        for key, item in value.items():
            kind = type(item)
            if kind not in plain:
                ready = _WRITERS.get(kind, _other)(item, depth + 1, plain)
                if ready is not item:
                    if copy is value:
                        copy = value.copy()
                    copy[key] = ready
    except Refusal as refusal:
        refusal.inside(value, _step(key))
        raise
    except RecursionError:
        raise
    except RuntimeError as error:  # what a dict or set raises when another thread changes it under the loop
        raise _changed(value, error) from error
    return copy


def _any_changes(keys: Iterable[Any]) -> bool:
    """Tell whether one of these plain keys is a text or an int that MessagePack cannot hold."""
    return any(_prepare(key, 0, _SAFE) is not key for key in keys)


def _pairs(whole: Any, items: Iterable[tuple[Any, Any]], depth: int, plain: frozenset[type]) -> Any:
    """Write a map with odd keys as pairs; as a plain map if its keys turn out to be plain."""
    if depth >= MAX_DEPTH:
        raise Refusal.too_deep(whole)
    keys, values = [], []
    step = ""
    try:
        for key, item in items:
            step = f" key {foreign.short(key)}"
            keys.append(_prepare(key, depth + 1, plain))
            step = _step(key)
            values.append(_prepare(item, depth + 1, plain))
    except Refusal as refusal:
        refusal.inside(whole, step)
        raise
    except RecursionError:
        raise
    except RuntimeError as error:  # what a dict or set raises when another thread changes it under the loop
        raise _changed(whole, error) from error
    restored = _restored(whole, keys, "keys")
    if _all_plain(map(type, keys)):
        return dict(zip(restored, values, strict=True))
    return _Ext(MAP, _pack([part for pair in zip(keys, values, strict=True) for part in pair]))


def _restored(whole: Any, prepared: list[Any], what: str) -> list[Any]:
    """Return keys or members as they will arrive, and refuse them if two would be one or one cannot be hashed."""
    restored = prepared if _all_plain(map(type, prepared)) else _unpack(_pack(prepared))
    try:
        distinct = len(set(restored))
    except TypeError as error:
        odd = next(item for item in restored if not _hashable(item))
        raise Refusal(whole, f"one of its {what} arrives as a {type(odd).__name__}, which cannot be hashed") from error
    if distinct != len(restored):
        raise Refusal(whole, f"two of its {what} arrive as the same value")
    return restored


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _list(value: list[Any], depth: int, plain: frozenset[type]) -> Any:
    if plain.issuperset(map(type, value)):
        return value
    return _items(value, value, depth, plain)


def _items(whole: Any, items: Iterable[Any], depth: int, plain: frozenset[type]) -> list[Any]:
    if depth >= MAX_DEPTH:
        raise Refusal.too_deep(whole)
    ready: list[Any] = []
    try:
        for item in items:
            kind = type(item)
            ready.append(item if kind in plain else _WRITERS.get(kind, _other)(item, depth + 1, plain))
    except Refusal as refusal:
        refusal.inside(whole, f"[{len(ready)}]")
        raise
    except RecursionError:
        raise
    except RuntimeError as error:  # what a dict or set raises when another thread changes it under the loop
        raise _changed(whole, error) from error
    return ready


def _tuple(value: tuple[Any, ...], depth: int, plain: frozenset[type]) -> Any:
    if plain.issuperset(map(type, value)):
        return _Ext(TUPLE, _pack(value))
    return _Ext(TUPLE, _pack(_items(value, value, depth, plain)))


def _set(value: set[Any], depth: int, plain: frozenset[type]) -> Any:
    return _Ext(SET, _members(value, depth, plain))


def _frozenset(value: frozenset[Any], depth: int, plain: frozenset[type]) -> Any:
    return _Ext(FROZENSET, _members(value, depth, plain))


def _members(value: set[Any] | frozenset[Any], depth: int, plain: frozenset[type]) -> bytes:
    if plain.issuperset(map(type, value)):
        return _pack(value)
    ready = _items(value, value, depth, plain)
    _restored(value, ready, "members")
    return _pack(ready)


_WRITERS: Final[dict[type, Callable[[Any, int, frozenset[type]], Any]]] = {
    dict: _map,
    list: _list,
    tuple: _tuple,
    set: _set,
    frozenset: _frozenset,
    **scalars.EXACT,
}

# Subclasses, in this order (a datetime is a date), to what their base holds, whatever methods they override.
_BASES: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    (str, str.__str__),
    (bytes, lambda value: bytes(memoryview(value))),
    (bytearray, lambda value: bytes(memoryview(value))),
    (int, int.__int__),
    (float, float.__float__),
    (list, list),
    (deque, list),
    (array.array, list),
    (tuple, tuple),
    (set, set),
    (frozenset, frozenset),
)


def _other(value: Any, depth: int, plain: frozenset[type]) -> Any:
    """Write what is of none of the exact types above."""
    if depth >= MAX_DEPTH:
        raise Refusal.too_deep(value)
    try:
        return _write_other(value, depth, plain)
    except (Refusal, RecursionError):
        raise
    except Exception as error:  # a property or method of the value itself
        raise Refusal(value, f"reading it raised {type(error).__name__}: {error}") from error


def _write_other(value: Any, depth: int, plain: frozenset[type]) -> Any:
    if isinstance(value, enum.Enum):
        return _prepare(value.value, depth + 1, plain)
    parts = foreign.parts(value)
    if parts is not None:
        code, content = parts
        if type(content) is not bytes:
            content = _pack(_items(value, content, depth, plain))
            if code == foreign.NUMPY_SCALAR and (size := foreign.number_size(value)):
                _WRITERS[type(value)] = _number_writer(content[:-size])
        return _Ext(code, content)
    for base, reduce in _BASES:
        if isinstance(value, base):
            return _prepare(reduce(value), depth, plain)
    for base, write in scalars.SUBCLASSES:
        if isinstance(value, base):
            return write(value, depth, plain)
    if isinstance(value, Mapping):
        return _prepare(dict(value.items()), depth, plain)
    names = _field_names(value)
    if names is None:
        raise Refusal(value, _HINTS.get(type(value).__name__, _HINT))
    fields = {name: getattr(value, name) for name in names}
    return _prepare({name: item for name, item in fields.items() if item is not msgspec.UNSET}, depth, plain)


def _number_writer(head: bytes) -> Callable[[Any, int, frozenset[type]], Any]:
    """Write numbers of one of numpy's own types: two of a type differ in the bytes after the head only."""

    def write(value: Any, depth: int, plain: frozenset[type]) -> Any:  # noqa: ARG001 - the form of all writers
        if depth >= MAX_DEPTH:
            raise Refusal.too_deep(value)
        return _Ext(foreign.NUMPY_SCALAR, head + value.tobytes())

    return write


def _field_names(value: Any) -> list[str] | None:
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value)]
    if isinstance(value, msgspec.Struct):
        return list(value.__struct_fields__)
    attributes = getattr(type(value), "__attrs_attrs__", None)
    return None if attributes is None else [attribute.name for attribute in attributes]


_HINT: Final = "send values of plain types, or make them so in a transform"
_HINTS: Final = {
    "complex": "send [value.real, value.imag]",
    "generator": "send list(...) of it",
    "range": "send list(...) of it",
    "dict_keys": "send list(...) of it",
    "dict_values": "send list(...) of it",
    "dict_items": "send dict(...) of it",
    "coroutine": "await it and send the result",
    "function": "call it and send the result",
    "ZoneInfo": "send its key, str(value)",
    "PosixPath": "send str(value)",
    "WindowsPath": "send str(value)",
    "Fraction": "send str(value), or [value.numerator, value.denominator]",
    "type": "send its name",
}


def _step(key: Any) -> str:
    return f".{key}" if type(key) is str and key.isidentifier() else f"[{foreign.short(key)}]"


def _changed(value: Any, error: RuntimeError) -> Refusal:
    return Refusal(value, f"it changed while it was being encoded ({error}); send a copy")


# ---------------------------------------------------------------------------------------------- what is read


def _read(code: int, data: memoryview) -> Any:
    reader = _READERS.get(code)
    if reader is None:
        raise ValueError(f"extension code {code} is not known to format {FORMAT}; a later version may have written it")
    return reader(data)


def _read_map(data: memoryview) -> dict[Any, Any]:
    flat = _unpack(data)
    return dict(zip(flat[::2], flat[1::2], strict=True))


_READERS: Final[dict[int, Callable[[memoryview], Any]]] = {
    **scalars.READERS,
    MAP: _read_map,
    TUPLE: lambda data: tuple(_unpack(data)),
    SET: lambda data: set(_unpack(data)),
    FROZENSET: lambda data: frozenset(_unpack(data)),
    foreign.NUMPY_ARRAY: lambda data: foreign.numpy_array(_unpack(data)),
    foreign.NUMPY_SCALAR: lambda data: foreign.numpy_scalar(_unpack(data)),
    foreign.PANDAS: lambda data: foreign.pandas_value(_unpack(data)),
    foreign.OBJECT_ID: lambda data: foreign.object_id(bytes(data)),
    foreign.BSON: lambda data: foreign.bson_value(_unpack(data)),
}

_unpack: Callable[[bytes | memoryview], Any] = msgspec.msgpack.Decoder(ext_hook=_read).decode

decode_plainly = _unpack
"""As ``decode``, but whatever goes wrong is raised as it comes."""
