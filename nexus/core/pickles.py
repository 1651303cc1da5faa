"""Pickles as data: read by a machine of our own that looks up no name and runs nothing, within limits.

Python's reader imports what a pickle names, and reserves memory for any number that one writes. This one knows a closed
list of names, each with a reading of our own, and counts its steps.
"""

import pickle
import pickletools
import warnings
from collections.abc import Callable, Sequence
from typing import IO, Any

PICKLE_BYTES = 32 << 20
"""Of a pickle, without the numbers of its tensors."""
PICKLE_STEPS = 500_000
"""Instructions of a pickle, and elements that its calls copy."""
LONGEST_KEY = 16
"""Elements of a tuple that is a key."""

Names = Callable[[str, str], Any]
"""From a module and a name to what stands for it here; raises `Refused` where nothing does."""


class Refused(pickle.UnpicklingError):
    """A pickle names something that is neither a tensor nor plain data."""

    def __init__(self, module: str, name: str) -> None:
        super().__init__(f"{module}.{name}"[:100])


class InertModule:
    """Stands for an object of any class: only its attributes are kept, none of its code is there."""

    def __init__(self, *_: Any) -> None:
        """Takes and forgets what its class was called with."""

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.__dict__.update({key: value for key, value in part.items() if isinstance(key, str)})


def unpickle(
    file: IO[bytes],
    names: Names,
    persistent: Callable[[Any], Any],
    *,
    size: int = PICKLE_BYTES,
    steps: int = PICKLE_STEPS,
    python_2: bool = False,
) -> Any:
    """Returns what one pickle describes; the file stands behind it afterwards.

    Args:
        file: Open for reading, at the start of the pickle.
        names: Says what a name in the pickle stands for.
        persistent: Says what is meant by an object that lies outside the pickle.
        size: Bytes that are read.
        steps: Instructions, and elements that calls copy.
        python_2: Whether the texts of Python 2 are bytes; else they are texts in Latin-1.

    Raises:
        Refused: The pickle names something that `names` does not know.
        pickle.UnpicklingError: It is damaged, or larger than the limits.
    """
    machine = _Machine(names, persistent, size, steps, python_2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on odd escapes in the text of old pickles
            return machine.run(file)
    except pickle.UnpicklingError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise pickle.UnpicklingError(f"its pickle is damaged: {error}"[:200]) from None


class _Machine:
    """The stack of a pickle's program. Each instruction is a method, or a row of the tables below."""

    def __init__(self, names: Names, persistent: Callable[[Any], Any], size: int, steps: int, python_2: bool) -> None:
        self.stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._names, self._persistent, self._size, self._python_2 = names, persistent, size, python_2
        self._steps, self._most_steps = 0, steps

    def run(self, file: IO[bytes]) -> Any:
        for opcode, argument, place in pickletools.genops(file):
            if place is not None and place > self._size:
                raise pickle.UnpicklingError(f"it has more than {self._size:,} bytes beside its tensors")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._step(opcode.name, argument)
        raise pickle.UnpicklingError("its pickle does not end")

    def _step(self, name: str, argument: Any) -> None:
        self._spend(1)
        if name in _LITERALS:
            self.stack.append(argument.encode("latin-1") if self._python_2 and name in _OLD_TEXTS else argument)
        elif name in _FRESH:
            self.stack.append(_FRESH[name]())
        elif name in _READS:
            self.stack.append(self._memo[argument])
        elif name in _WRITES:
            self._memo[len(self._memo) if argument is None else argument] = self.stack[-1]
        elif name not in _NOTHING:
            action = getattr(self, f"_{name.lower()}", None)
            if action is None:
                raise pickle.UnpicklingError(f"its pickle has the instruction {name}, which is not read")
            action(argument)

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > self._most_steps:
            raise pickle.UnpicklingError(f"it takes more than {self._most_steps:,} steps to read")

    def _marked(self) -> list[Any]:
        items, self.stack = self.stack, self._marks.pop()
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(self.stack)
        self.stack = []

    def _pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._marked()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(tuple(items))

    def _tuple1(self, _: Any) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _tuple2(self, _: Any) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _tuple3(self, _: Any) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _list(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._marked()
        self.stack.append({})
        self._fill(items)

    def _frozenset(self, _: Any) -> None:
        items = self._marked()
        self.stack.append(frozenset(_key(item) for item in items))

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, InertModule):
            raise pickle.UnpicklingError(f"its pickle appends to a {type(target).__name__}")

    def _setitem(self, _: Any) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        self._fill(items)

    def _setitems(self, _: Any) -> None:
        self._fill(self._marked())

    def _fill(self, items: Sequence[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_key(key)] = value
        elif not isinstance(target, InertModule):
            raise pickle.UnpicklingError(f"its pickle sets items of a {type(target).__name__}")

    def _additems(self, _: Any) -> None:
        items = self._marked()
        if not isinstance(self.stack[-1], set):
            raise pickle.UnpicklingError(f"its pickle adds items to a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(_key(item) for item in items)

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self._names(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self._names(str(module), str(name)))

    def _reduce(self, _: Any) -> None:
        arguments, made_by = self.stack.pop(), self.stack.pop()
        self._call(made_by, arguments)

    _newobj = _reduce

    def _newobj_ex(self, _: Any) -> None:
        self.stack.pop()  # arguments by name: nothing here takes any
        self._reduce(None)

    def _obj(self, _: Any) -> None:
        items = self._marked()
        self._call(items[0], tuple(items[1:]))

    def _inst(self, argument: str) -> None:
        items = self._marked()
        self._global(argument)
        self._call(self.stack.pop(), tuple(items))

    def _call(self, made_by: Any, arguments: Any) -> None:
        if not callable(made_by) or not isinstance(arguments, tuple):
            raise pickle.UnpicklingError(f"its pickle calls a {type(made_by).__name__}")
        self._spend(sum(len(one) for one in arguments if isinstance(one, list | tuple | dict | set | str | bytes)))
        self.stack.append(made_by(*arguments))

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], InertModule):  # attributes of mappings, `_metadata` of a state dict, say nothing
            self.stack[-1].__setstate__(state)

    def _binpersid(self, _: Any) -> None:
        self.stack.append(self._persistent(self.stack.pop()))


def _key(value: Any) -> Any:
    """Returns a key or an element of a set: plain, or a short tuple of plain ones, so that its hash takes no time."""
    parts = value if isinstance(value, tuple) and len(value) <= LONGEST_KEY else (value,)
    if all(part is None or isinstance(part, str | bytes | int | float) for part in parts):
        return value
    raise pickle.UnpicklingError(f"its pickle has a {type(value).__name__} as a key")


_LITERALS = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
    ]
)
_OLD_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_READS, _WRITES = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_NOTHING = {"PROTO", "FRAME"}
