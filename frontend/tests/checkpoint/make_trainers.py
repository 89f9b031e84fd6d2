#!/usr/bin/env python3
"""Writes trainers.txt: what Python's own pickler makes of the objects that trainers put beside
their weights. Foreign packages are replaced by stand-ins with the same names and the same
`__reduce__` results; only the standard library is needed.

    python3 make_trainers.py > trainers.txt
"""

import argparse, collections, dataclasses, datetime, decimal, enum, functools, io
import pathlib, pickle, sys, types, uuid


def module(name):
    """Makes a module and its parents importable."""
    parts = name.split(".")
    for i in range(len(parts)):
        path = ".".join(parts[: i + 1])
        sys.modules.setdefault(path, types.ModuleType(path))
    return sys.modules[name]


def at(path):
    """Moves a class or function to `package.module.Name`."""

    def move(thing):
        home, name = path.rsplit(".", 1)
        thing.__module__, thing.__name__, thing.__qualname__ = home, name, name
        setattr(module(home), name, thing)
        return thing

    return move


# torch


@at("torch._utils._rebuild_tensor_v2")
def rebuild_tensor(*args): ...


@at("torch._utils._rebuild_parameter")
def rebuild_parameter(*args): ...


@at("torch._tensor._rebuild_from_type_v2")
def rebuild_from_type(*args): ...


@at("torch.FloatStorage")
class FloatStorage: ...


class Storage: ...


class Tensor:
    def __reduce_ex__(self, protocol):
        args = (Storage(), 0, (2, 2), (2, 1), False, collections.OrderedDict())
        return rebuild_tensor, args


class Parameter:
    def __reduce_ex__(self, protocol):
        return rebuild_parameter, (Tensor(), True, collections.OrderedDict())


@at("torchvision.tv_tensors.Image")
class Image:
    def __reduce_ex__(self, protocol):
        func, args = Tensor().__reduce_ex__(protocol)
        return rebuild_from_type, (func, Image, args, {})


@at("torch.Size")
class Size(tuple):
    def __reduce__(self):
        return Size, (tuple(self),)


@at("torch.device")
class Device:
    def __reduce__(self):
        return Device, ("cuda", 0)


@at("torch.dtype")
class DType:
    def __reduce__(self):
        return "float32"


module("torch").float32 = DType()
DType.__module__ = "torch"


@at("torch.nn.modules.normalization.LayerNorm")
class LayerNorm: ...


@at("torch.optim.lr_scheduler.CosineAnnealingLR")
class Scheduler: ...


# numpy


@at("numpy.dtype")
class NumpyDType:
    def __reduce__(self):
        return NumpyDType, ("f8", False, True), (3, "<", None, None, None, -1, -1, 0)


@at("numpy.ndarray")
class NumpyArray: ...


def numpy_at(package):
    @at(f"{package}.multiarray.scalar")
    def scalar(*args): ...

    @at(f"{package}.multiarray._reconstruct")
    def reconstruct(*args): ...

    class Scalar:
        def __reduce__(self):
            return scalar, (NumpyDType(), b"\0\0\0\0\0\0\xf0\x3f")

    class Array:
        def __reduce__(self):
            state = (1, (1,), NumpyDType(), False, b"\0\0\0\0\0\0\xf0\x3f")
            return reconstruct, (NumpyArray, (0,), b"b"), state

    return Scalar, Array


OldScalar, OldArray = numpy_at("numpy.core")
NewScalar, NewArray = numpy_at("numpy._core")

# mmengine, omegaconf, user code


@at("mmengine.logging.history_buffer.HistoryBuffer")
class HistoryBuffer:
    def __init__(self):
        self._log_history, self._count_history = NewArray(), NewArray()
        self._statistics_methods = {"mean": HistoryBuffer.mean}

    def mean(self): ...


@at("mmengine.config.config.ConfigDict")
class ConfigDict(dict):
    @classmethod
    def create(cls): ...


@at("omegaconf.dictconfig.DictConfig")
class DictConfig:
    def __init__(self, parent=None):
        self._parent, self._content = parent, {}
        if parent is None:
            self._content["model"] = DictConfig(self)


@at("train.Mode")
class Mode(enum.Enum):
    FAST = 1


@at("train.Point")
@dataclasses.dataclass
class Point:
    x: int = 1


Pair = at("train.Pair")(collections.namedtuple("Pair", "a b"))


@at("train.Holder")
class Holder:
    def __init__(self, value):
        self.value = value


def cycle():
    cycle = {"list": []}
    cycle["list"].append(cycle)
    return cycle


EXTRAS = {
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("run/1"), model=LayerNorm),
    "numpy_core_scalar": OldScalar(),
    "numpy__core_scalar": NewScalar(),
    "numpy_core_array": OldArray(),
    "history_buffer": HistoryBuffer(),
    "datetime": datetime.datetime(2024, 6, 1, 11, 33),
    "timedelta": datetime.timedelta(seconds=76016),
    "defaultdict": collections.defaultdict(list, {"a": [1, 2]}),
    "counter": collections.Counter("aab"),
    "deque": collections.deque([1, 2], maxlen=3),
    "enum": Mode.FAST,
    "partial": functools.partial(LayerNorm, eps=1e-6),
    "bound_method": ConfigDict.create,
    "config_dict": ConfigDict(type="EMO2", depths=[2, 2]),
    "omegaconf": DictConfig(),
    "class_reference": Scheduler,
    "cycle": cycle(),
    "big_integer": 10**40,
    "negative_integers": [-1, -(2**31), -(2**63), 2**63 - 1],
    "lone_surrogate": "a\ud800b",
    "set": {1},
    "frozenset": frozenset({1}),
    "builtin_values": [1j, range(3), slice(1, 2), bytearray(b"ab"), b"ab", Ellipsis, type(None)],
    "exception": ValueError("bad"),
    "uuid": uuid.UUID(int=1),
    "decimal": decimal.Decimal("1.5"),
    "dataclass": Point(),
    "namedtuple": Pair(1, 2),
    "torch_values": [Size((2, 3)), Device(), module("torch").float32],
    "tensor_in_object": Holder(Tensor()),
    "parameter": Parameter(),
    "tensor_subclass": Image(),
    "optimizer": {"state": {0: {"step": Tensor(), "exp_avg": Tensor()}}, "param_groups": [{"lr": 0.1}]},
    "tensors_in_lists": [Tensor(), (None, {"k": Tensor()})],
    "other_keys": {(1, 2): Tensor(), None: 1, "s": Tensor()},
}


class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return ("storage", FloatStorage, "0", "cuda:0", 4)


for name, extra in EXTRAS.items():
    for protocol in range(2, 6):
        out = io.BytesIO()
        weights = collections.OrderedDict(weight=Tensor())
        Pickler(out, protocol).dump({"state_dict": weights, "extra": extra})
        print(name, protocol, out.getvalue().hex())
