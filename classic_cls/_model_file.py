"""What a model file holds, read and checked without constructing anything of it.

A model file is skops': a zip with schema.json, which describes the objects, and an .npy member for each array; and with
metadata.json. Members are stored, not compressed, so that a file never unpacks to more than its own size.
"""

import json
import math
from dataclasses import dataclass
from zipfile import ZIP_STORED, ZipFile

import numpy as np

METADATA = "metadata.json"
_SCHEMA = "schema.json"
_LARGEST_TEXT = 1 << 26  # bytes of schema.json: a forest of 3,000 trees
_SHOWN = 3  # elements of a long list, as of a forest's trees

# Besides what skops refuses: types whose compiled code does not check the arrays that it reads, so that a forged file
# could crash the process (scikit-learn's bindings of libsvm, its neighbour searches; NumPy's generators).
_LIBSVM = ("SVC", "NuSVC", "SVR", "NuSVR", "OneClassSVM")
_UNCHECKED = ("sklearn.neighbors.", "numpy.random.", *(f"sklearn.svm._classes.{name}" for name in _LIBSVM))


@dataclass(frozen=True)
class ModelInfo:
    """What :func:`classic_cls.inspect_model` finds in a file.

    Attributes
    ----------
    path : str
    size : int
        Of the file, in bytes.
    metadata : dict
        Versions, time, parameters, and under "user" what :func:`classic_cls.save` was given. Empty if the file has
        none. Nobody vouches for it.
    untrusted : list of str
        Types that :func:`classic_cls.load` needs in its `trusted`.
    tree : str
        The estimators with their arrays, shapes and dtypes.
    """

    path: str
    size: int
    metadata: dict
    untrusted: list
    tree: str

    def __str__(self):
        about = {name: value for name, value in self.metadata.items() if name != "user"}
        needs = f"trusted={self.untrusted}" if self.untrusted else "nothing"
        pairs = [("file", self.path), ("size", f"{self.size:,} bytes"), ("load needs", needs)]
        pairs += [*self.metadata.get("user", {}).items(), *about.items()]
        text = "\n".join(f"{name:<13} {value}" for name, value in pairs)
        return _printable(f"{text}\n\n{self.tree}")


def _printable(text):
    """Return the text without control characters: a terminal would obey those of a forged file."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


class ModelFile:
    """A checked model file: what reading it takes grows no faster than its size, whatever it says.

    Parameters
    ----------
    file : binary file, open for reading

    Attributes
    ----------
    file : binary file
    size : int
        In bytes.
    schema : dict
        skops' description of the model.
    metadata : dict or None
        None where the file has none.
    types : set of str
        Full names of all types and functions in the schema.

    Raises
    ------
    Exception
        Of many kinds, where the file is damaged or forged.
    """

    def __init__(self, file):
        self.file, self.size = file, file.seek(0, 2)
        with ZipFile(file) as archive:
            _check_members(archive, self.size)
            self._arrays = {name: _header(archive, name) for name in archive.namelist() if name.endswith(".npy")}
            self.schema = json.loads(archive.read(_SCHEMA))
            self.metadata = json.loads(archive.read(METADATA)) if METADATA in archive.namelist() else None
        if self.metadata is not None:
            _check_metadata(self.metadata)
        self.types, self._nodes_of, self._owners = set(), {}, {}
        self._count(self.schema)

    def _count(self, value):
        """Return how many lists and dicts `value` consists of, having checked those that describe objects.

        skops reads an object once for all that carry its ``__id__``. Were others allowed to be smaller, a short schema
        could refer to itself, or double at every level.
        """
        if not isinstance(value, (dict, list)):
            return 0
        n = 1 + sum(map(self._count, value.values() if isinstance(value, dict) else value))
        if isinstance(value, dict) and "__loader__" in value:
            self._check_state(value, n)
        return n

    def _check_state(self, state, n):
        self.types.add(f"{state['__module__']}.{state['__class__']}")
        identity = state.get("__id__") or id(state)
        if self._nodes_of.setdefault(identity, n) != n:
            raise ValueError(f"objects that are said to be one, {identity}, differ")
        if "file" in state:
            if state["file"] not in self._arrays:
                raise ValueError(f"there is no array {state['file']!r}")
            if self._owners.setdefault(state["file"], identity) != identity:
                raise ValueError(f"two objects claim the array {state['file']!r}")

    def untrusted_types(self, trusted):
        """Return the names of types, sorted, without which the model cannot be loaded and that are not in `trusted`."""
        import skops.io

        refused = {*skops.io.get_untrusted_types(file=self.file), *self.unchecked_types()}
        return sorted(refused.difference(trusted))

    def unchecked_types(self):
        """Return the names of types that skops trusts, and whose compiled code a forged array could crash."""
        return {name for name in self.types if name.startswith(_UNCHECKED)}

    def tree(self):
        """Return the estimators and arrays as indented lines of text."""
        return "\n".join(self._lines("", self.schema, ""))

    def _lines(self, label, state, indent):
        head, loader = f"{indent}{label}", state["__loader__"]
        if loader == "NdArrayNode" and "file" in state:
            shape, dtype = self._arrays[state["file"]]
            yield f"{head} {_type_of_array(dtype)} {shape}"
        elif loader in ("ObjectNode", "TreeNode"):
            yield f"{head}: {state['__class__']}" if label else f"{indent}{state['__class__']}"
            attributes = (state.get("content") or {}).get("content")
            if isinstance(attributes, dict):
                yield from self._named(_fitted(attributes), indent + "  ")
        elif loader in ("ListNode", "TupleNode"):
            yield from self._sequence(label, state["content"], indent)
        elif loader == "DictNode":
            items = state["content"].items()
            yield from self._named([(f"{label}[{key!r}]", value) for key, value in items], indent)

    def _named(self, items, indent):
        for name, value in items:
            yield from self._lines(name, value, indent)

    def _sequence(self, label, states, indent):
        """Yield the lines of a list or tuple; of ("name", object), as in a Pipeline's steps, under that name."""
        if len(states) > 1 and states[0]["__loader__"] == "JsonNode" and states[1]["__loader__"] != "JsonNode":
            name = json.loads(states[0]["content"])
            yield from self._lines(str(name), states[1], indent)
            return
        shown = len(states) if len(states) <= 2 * _SHOWN else _SHOWN
        lines = list(self._named([(f"{label}[{i}]", state) for i, state in enumerate(states[:shown])], indent))
        yield from lines
        if lines and shown < len(states):
            yield f"{indent}{label}[{shown}] to [{len(states) - 1}]: not shown"


def _check_members(archive, size):
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError("it holds two members of the same name")
    for member in members:
        if member.filename not in (_SCHEMA, METADATA) and not member.filename.endswith(".npy"):
            raise ValueError(f"it holds {member.filename!r}; expected arrays of numbers or text only")
        if member.compress_type != ZIP_STORED or member.compress_size != member.file_size:
            raise ValueError(f"{member.filename!r} is compressed; expected members stored as they are")
        if member.filename in (_SCHEMA, METADATA) and member.file_size > _LARGEST_TEXT:
            raise ValueError(f"{member.filename} has {member.file_size} bytes; expected {_LARGEST_TEXT} at most")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its members overlap")


def _header(archive, name):
    """Return shape and dtype of an array, whose header must not promise more than the member holds."""
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with archive.open(name) as member:
        shape, _, dtype = readers[np.lib.format.read_magic(member)](member)
        promised = member.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise ValueError(f"{name!r} has shape {shape} and dtype {dtype}; expected numbers or text")
    if promised != archive.getinfo(name).file_size:
        raise ValueError(f"{name!r} holds more or less than shape {shape} and dtype {dtype}")
    return shape, dtype


def _check_metadata(metadata):
    texts = ("classic_cls", "scikit-learn", "model")
    if not isinstance(metadata, dict) or type(metadata.get("format")) is not int:
        raise ValueError(f"{METADATA} names no format")
    if not all(isinstance(metadata.get(name), str) for name in texts) or not isinstance(metadata.get("user"), dict):
        raise ValueError(f"{METADATA} lacks one of {', '.join(texts)}, user")


def _fitted(attributes):
    """Return the attributes as pairs, without those parameters of which there is a fitted copy."""
    return [(name, state) for name, state in attributes.items() if f"{name}_" not in attributes]


def _type_of_array(dtype):
    return "table" if dtype.names else str(dtype)
