"""Records: immutable values with named, typed fields. Ground: it touches nothing.

A class of the standard library costs too much where a hot verb defines twenty of them: `dataclasses`
takes 20 ms to import and define, `typing.NamedTuple` 10, this a few tenths.
"""

from __future__ import annotations

from _collections import _tuplegetter  # type: ignore[import-not-found]  # what namedtuple has for its fields
from _operator import itemgetter  # `operator` would be an import

TYPE_CHECKING = False  # type checkers know the name; `import typing` would cost 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_: object):
        """What `typing` has under this name does nothing at run time."""
        return lambda decorated: decorated


_getters: list[_tuplegetter] = []  # of the first field of a record, of the second ...


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _RecordType(type):
    """Makes the annotated names of a class its fields, with the values beside them as defaults."""

    fields: tuple[str, ...]
    defaults: dict[str, object]
    pick: Callable[[dict[str, object]], tuple[object, ...]] | None  # the fields' values, in their order

    def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any]) -> _RecordType:
        fields = tuple(space.get("__annotations__", ()))
        while len(_getters) < len(fields):
            _getters.append(_tuplegetter(len(_getters), None))
        space["fields"], space["__slots__"] = fields, ()
        space["defaults"] = {field: space[field] for field in space.keys() & fields}
        space["pick"] = itemgetter(*fields) if len(fields) > 1 else None
        space.update(zip(fields, _getters))
        return super().__new__(cls, name, bases, space)


class Record(tuple, metaclass=_RecordType):  # type: ignore[type-arg]  # its items have no one type
    """An immutable value with the annotated names of its class as fields, given by keyword.

    Two records are equal when their fields are. A field without a default must be given.

    Raises:
        TypeError: a field is missing, or there is none of that name.
    """

    def __new__(cls, **values: object) -> Self:
        found = {**cls.defaults, **values}
        try:
            items = cls.pick(found) if cls.pick else [found[name] for name in cls.fields]
        except KeyError as missing:
            raise TypeError(f"{cls.__name__} needs {missing}") from None
        if len(found) > len(cls.fields):
            raise TypeError(f"{cls.__name__} has no {', '.join(found.keys() - cls.fields)}")
        return tuple.__new__(cls, items)

    def replace(self, **changes: object) -> Self:
        """The same record with some fields changed."""
        return type(self)(**{**dict(zip(type(self).fields, self)), **changes})

    def __repr__(self) -> str:
        pairs = zip(type(self).fields, self)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, object]]:
        return (), dict(zip(type(self).fields, self))
