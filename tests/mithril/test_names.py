"""Names are data: no text of a file, a module or a user becomes code, breaks generated source or merges two variables."""

import ast
import builtins
import copy
import enum
import json
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import mithril as ml
from mithril import IOKey, Model
from mithril.codegen.literal import MARK
from mithril.errors import ConnectionError, MithrilError, OperatorError
from mithril.interop import from_torch
from mithril.logical.register import register_op
from mithril.ops.table import HELPERS, OPS, WORDS
from tests.mithril.layers import Convolution2D, Linear, op

BACKENDS = ["NumpyBackend", "TorchBackend", "JaxBackend", "MlxBackend"]
HITS: list[str] = []
PAYLOADS = [
    'x"); HIT(); ("',
    "x'); HIT(); ('",
    'x"""\nHIT()\n"""',
    "x\nHIT()\n",
    "x\\",
    "{HIT()}",
    "HIT()",
    'a"b',
    f"{MARK}1{MARK}",
]
ODD_NAMES = [
    'a"b',
    "it's",
    "x\nHIT()",
    "{HIT()}",
    "HIT()",
    "\ufb01",
    "fi",
    "class",
    "0",
    "with space",
    "\\",
    '"""',
    "é",
    "²",
]
ODD_NAMES += [f"{MARK}1{MARK}", "params", "slice", "input", "a" * 3000, "\ud800", "\u202e"]


@pytest.fixture(autouse=True)
def marker(monkeypatch):
    """`HIT()` in a source that runs leaves a trace."""
    monkeypatch.setattr(builtins, "HIT", lambda: HITS.append("hit"), raising=False)
    HITS.clear()
    yield
    assert not HITS, "text of a name ran as code"


def backends():
    for name in BACKENDS:
        yield getattr(ml, name)()


def run(model, data, backend, params=None, **options):
    """Outputs as NumPy; the source parses."""
    compiled = ml.compile(model, backend, jit=False, shapes={k: list(v.shape) for k, v in data.items()}, **options)
    ast.parse(compiled.source)
    outputs = compiled.evaluate(params or compiled.randomize_params(), data)
    return {key: backend.to_numpy(value) for key, value in outputs.items()}


def block(name):
    inner = Model(name=name)
    inner += Convolution2D(4, 3, padding=1, name="conv")(input=IOKey("input", shape=["n", 4, "h", None]))
    inner += op("relu")
    inner += op("softmax", axis=-1)(output=IOKey("output"))
    return inner


def model():
    """Blocks that become a function and a loop, shared parameters, constants, named sizes, every kind of value."""
    outer = Model(name="outer")
    outer += Convolution2D(4, 3, padding=1, name="stem")(input=IOKey("image", shape=["n", 3, 4, 4]))
    for number in range(3):
        outer += block(f"block{number}")
    flat = outer.cout.reshape(outer.cout.shape[0], -1)[..., 1:5] + IOKey("table", value=np.arange(4.0))
    fc = Linear(4, name="fc")
    outer |= fc(flat, output="features")
    outer |= fc.shared()(outer.features.cast(ml.float32), output=IOKey("out"))
    outer |= op("pad", padding=((1, 1),), mode="constant")(input="out", output=IOKey("padded"))
    return outer


IMAGE = {"image": np.random.default_rng(0).standard_normal((2, 3, 4, 4), np.float32)}


def places(data, path=()):
    """Paths of all strings: (path, True) for a key of a mapping, (path, False) for a value."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*path, key), True
            yield from places(value, (*path, key))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from places(value, (*path, number))
    elif isinstance(data, str):
        yield path, False


def planted(data, path, is_key, text):
    """The data with another text at a place."""
    data = copy.deepcopy(data)
    *way, last = path
    owner = data
    for step in way:
        owner = owner[step]
    if is_key:
        items = [(text if key == last else key, value) for key, value in owner.items()]
        owner.clear()
        owner.update(items)
    else:
        owner[last] = text
    return data


def everywhere(data, old, text):
    """The data with every string `old` replaced, so that references to a name stay right."""
    if isinstance(data, dict):
        return {everywhere(k, old, text): everywhere(v, old, text) for k, v in data.items()}
    if isinstance(data, list):
        return [everywhere(part, old, text) for part in data]
    return text if data == old else data


def attempt(data, all_backends=False):
    """Read, compile and run; only this project's errors may come up."""
    chosen = backends() if all_backends else [ml.NumpyBackend()]
    try:
        found = Model.from_json(json.dumps(data))
        found.summary()
        found.draw()
        for backend in chosen:
            run(found, IMAGE, backend, inference=True)
    except MithrilError:
        return False
    return True


def test_no_string_of_a_json_file_runs():
    data = json.loads(model().to_json())
    for number, (path, is_key) in enumerate(places(data)):
        for text in PAYLOADS[number % 3 :: 3]:
            attempt(planted(data, path, is_key, text))


def test_no_name_of_a_json_file_runs_where_it_is_used_everywhere():
    data = json.loads(model().to_json())
    words = {path[-1] if is_key else str(at(data, path)) for path, is_key in places(data)}
    accepted = 0
    for number, word in enumerate(sorted(words)):
        for text in PAYLOADS[number % 3 :: 3]:
            accepted += attempt(everywhere(data, word, text), all_backends=True)
    assert accepted < len(words) / 3
    assert attempt(everywhere(data, "features", "\ufb01"), all_backends=True)


def at(data, path):
    for step in path:
        data = data[step]
    return data


class Named(nn.Module):
    """Parts of the given names, each a block of several operators, one after the other."""

    def __init__(self, names):
        super().__init__()
        parts = {name: nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4), nn.Tanh()) for name in names}
        self.parts = nn.ModuleDict(parts)

    def forward(self, x):
        results = {}
        for name, part in self.parts.items():
            x = part(x)
            results[name] = x + len(results)
        return results


@pytest.mark.parametrize("names", [ODD_NAMES, ["b8", "b08", "b09", "b10", "b11"], ["b", "b0", "b1", "b2", "b3"]])
def test_any_name_of_a_module_works(names):
    torch.manual_seed(0)
    module = Named(names).eval()
    x = torch.randn(2, 4)
    with torch.no_grad():
        expected = list(module(x).values())
    found, params = from_torch(module, (x,))
    for backend in backends():
        outputs = run(found, {"x": x.numpy()}, backend, params)
        assert len(outputs) == len(expected)
        for value, wanted in zip(outputs.values(), expected):
            np.testing.assert_allclose(value, wanted.numpy(), rtol=1e-4, atol=1e-5)
    kept = Model.from_json(found.to_json()) if all(n.isprintable() for n in names) else found
    again = ml.compile(kept, ml.NumpyBackend(), shapes={"x": [2, 4]})
    np.testing.assert_allclose(
        list(again.evaluate(params, {"x": x.numpy()}).values())[-1], expected[-1], rtol=1e-4, atol=1e-5
    )


def test_a_class_of_any_name_works():
    """The title of the source and the functions of blocks bear the names of classes."""
    for name in ['A"""\nHIT()', "Sum", "Abs", "Map", "Slice", "{HIT()}", "torch", "\ufb01"]:
        kind = type(name, (Named,), {})
        x = torch.randn(2, 4)
        found, params = from_torch(kind(["a", "b", "c"]).eval(), (x,))
        for backend in backends():
            run(found, {"x": x.numpy()}, backend, params)


WORDS_OF_SOURCES = [
    "\ufb01",
    "fi",
    "class",
    "slice",
    "map",
    "params",
    "data",
    "np",
    "torch",
    "evaluate",
    "_pending_1_",
    "i",
]
WORDS_OF_SOURCES += [f"{MARK}1{MARK}", "x", "y", "prefix", "new_state", "f", "HIT"]


def test_any_identifier_can_be_a_key():
    total = IOKey(WORDS_OF_SOURCES[0]) * 1
    for place, name in enumerate(WORDS_OF_SOURCES[1:], 2):
        total = total * 0.5 + (IOKey(name) * place).tanh()
    built = Model.create(output=total)
    random = np.random.default_rng(0)
    data = {name: random.standard_normal((2, 3)).astype(np.float32) for name in WORDS_OF_SOURCES}
    expected = data[WORDS_OF_SOURCES[0]]
    for place, name in enumerate(WORDS_OF_SOURCES[1:], 2):
        expected = expected * 0.5 + np.tanh(data[name] * place)
    for backend in backends():
        np.testing.assert_allclose(run(built, data, backend)["output"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [*PAYLOADS, "a b", "", "1", "a" * 300, None, 3])
def test_names_and_sizes_are_identifiers(text):
    for make in (
        lambda: IOKey(text) if text is not None else IOKey(""),
        lambda: IOKey("x", shape=[text or ""]) if not isinstance(text, int) else IOKey("3"),
        lambda: Model(name=text if text is not None else ""),
        lambda: ml.compile(op("relu"), ml.NumpyBackend(), shapes={"input": [str(text) * 2 + "'"]}),
        lambda: Model.create(output=IOKey("x") * 2).rename_key("x", text),
    ):
        if text == f"{MARK}1{MARK}":
            continue
        with pytest.raises(ConnectionError, match="a name is a Python identifier"):
            make()


def test_sizes_of_one_name_stay_apart():
    """Two models name a size `n`, a third `n_1`, which the compiler could make of the second."""
    total = Model()
    for key, size in (("a", "n"), ("b", "n"), ("c", "n_1")):
        part = Model()
        part |= op("relu")(input=IOKey("input", shape=[size]), output=IOKey("output"))
        total |= part(input=key, output=IOKey(f"out_{key}"))
    data = {key: np.ones(size, np.float32) for key, size in (("a", 2), ("b", 3), ("c", 4))}
    compiled = ml.compile(total, ml.NumpyBackend(), shapes={"a": [None], "b": [None], "c": [None]})
    assert {k: len(v) for k, v in compiled.evaluate({}, data).items()} == {"out_a": 2, "out_b": 3, "out_c": 4}


# Values


class Axis(enum.IntEnum):
    LAST = 1


@pytest.mark.parametrize("axis", [np.int64(1), np.array(1), Axis.LAST, np.uint8(1), torch.tensor(1)])
def test_numbers_of_a_library_are_plain_numbers(axis):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    built = Model.create(
        called=op("sum")(input=IOKey("x"), axis=axis),
        made=op("sum", axis=axis)(input=IOKey("x")),
        taken=IOKey("x")[axis],
        shaped=IOKey("x").reshape(np.int64(3), np.array([2, 1])[0]),
        normed=op("layer_norm", eps=np.float32(1e-5))(input=IOKey("x")),
        scaled=IOKey("x") * Axis.LAST + np.float64(0.5),
    )
    built = Model.from_json(built.to_json())
    for backend in backends():
        outputs = run(built, {"x": x}, backend)
        np.testing.assert_allclose(outputs["called"], x.sum(1))
        np.testing.assert_allclose(outputs["made"], x.sum(1))
        np.testing.assert_allclose(outputs["taken"], x[1])
        np.testing.assert_allclose(outputs["scaled"], x + 0.5)
        assert outputs["shaped"].shape == (3, 2)


@pytest.mark.parametrize("value", [object(), b"x", 1j, {1: 2}, print])
def test_what_cannot_be_written_is_refused(value):
    with pytest.raises(OperatorError, match="no number, text"):
        ml.compile(op("sum", axis=value), ml.NumpyBackend(), shapes={"input": [2, 3]})


def test_large_algebra_is_refused_or_fast():
    start = time.process_time()
    for power in (2, 3, 16, 64):
        size = IOKey("x", shape=["a", "b", "c"]).shape
        length = size[0] + size[1] + size[2]
        long = length
        for _ in range(power - 1):
            long = long * length
        built = Model.create(output=op("full", value=1.0)(shape=(long,)), other=IOKey("x", shape=["a", "b", "c"]) * 1)
        with pytest.raises(MithrilError, match="expression of more than") if power > 8 else nullcontext():
            ml.compile(built, ml.NumpyBackend())
    deep = IOKey("x", shape=["a"]).shape[0]
    for _ in range(60):
        deep = deep % 7 + deep // 3
    with pytest.raises(MithrilError, match="expression of more than"):
        ml.compile(Model.create(output=op("full", value=1.0)(shape=(deep,)), y=IOKey("x") * 1), ml.NumpyBackend())
    for left, right in ((9, 10**9), (2, 10**18), (0, -1), (-8, 0.5)):
        with pytest.raises(MithrilError):
            ml.compile(Model.create(output=op("power")(left=left, right=right)), ml.NumpyBackend())
    assert time.process_time() - start < 5


def nested(depth):
    data = {"operator": "relu", "name": None, "attributes": {"mapping": {}}}
    for _ in range(depth):
        node = {"name": "n", "model": data, "bindings": {"mapping": {}}, "outputs": {}}
        data = {
            "type": "Model",
            "name": None,
            "connections": {},
            "nodes": [node],
            "exposed": [],
            "cin": None,
            "cout": None,
        }
    return data


def exposed_twice(data):
    """A graph that gives its first output twice."""
    twice = json.loads(json.dumps(data))
    twice["model"]["exposed"] *= 2
    assert twice["model"]["exposed"]
    return twice


def test_limits_of_the_reader():
    data = json.loads(model().to_json())
    loop = json.loads(Model.create(output=(IOKey("x") * 2).tanh()).to_json())
    nodes = loop["model"]["nodes"]
    nodes[0]["bindings"]["mapping"]["left"] = {"connection": next(iter(nodes[1]["outputs"].values()))}
    cases = [
        (loop, "depends on itself"),
        ({"mithril": 1, "model": nested(100)}, "inside one another"),
        ({"mithril": 1, "model": nested(100_000)}, "deep"),
        (everywhere(data, "out", "o" * 10_000), "model.connections"),
        ({**data, "extra": 1}, "there is no field 'extra'"),
        (everywhere(data, 4, 10**40), "too large"),
        (exposed_twice(data), "has no name, or is given twice"),
    ]
    for bad, text in cases:
        with pytest.raises(MithrilError, match=text):
            Model.from_json(written(bad))
    with pytest.raises(OperatorError, match="given twice"):
        Model.from_json('{"mithril": 1, "mithril": 1, "model": {}}')


def written(data):
    """JSON without json's own recursion."""
    if data["model"].get("nodes") and len(data) == 2:
        depth, inner = 0, data["model"]
        while inner.get("nodes"):
            depth, inner = depth + 1, inner["nodes"][0]["model"]
        if depth > 500:
            return '{"mithril": 1, "model": ' + '{"nodes": [' * depth + "]}" * depth + "}"
    return json.dumps(data)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.sampled_from([10**9, 2**62, 1e30, "input", "$0", "HIT()", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["tuple", "slice", "x", "mapping"]), inner)
    ),
    max_leaves=5,
)


def all_paths(data, path=()):
    """Paths of all parts of the data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from all_paths(value, (*path, key))


DATA = json.loads(model().to_json())
PATHS = list(all_paths(DATA))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_changes_of_structure_end_in_our_errors(draw):
    data = copy.deepcopy(DATA)
    for _ in range(draw.draw(st.integers(1, 2))):
        path = draw.draw(st.sampled_from(PATHS))
        try:
            owner = at(data, path[:-1])
            how = draw.draw(st.sampled_from(["drop", "replace", "swap"]))
            if how == "drop":
                del owner[path[-1]]
            elif how == "replace":
                owner[path[-1]] = draw.draw(ANY)
            else:
                owner[path[-1]] = copy.deepcopy(at(data, draw.draw(st.sampled_from(PATHS))))
        except (KeyError, IndexError, TypeError):
            continue
    start = time.process_time()
    try:
        found = Model.from_json(json.dumps(data))
        compiled = ml.compile(found, ml.NumpyBackend(), shapes={"image": [2, 3, 4, 4]}, inference=True)
        ast.parse(compiled.source)
    except MithrilError:
        pass
    assert time.process_time() - start < 2


# Operators of users


def test_templates_and_functions_are_checked_when_they_are_registered():
    for changes, text in (
        ({"name": "a b"}, "is no name"),
        ({"name": 'x"; HIT(); "'}, "is no name"),
        ({"inputs": ("input", "class")}, "is no name"),
        ({"implementations": {"any": "{input} + {other}"}}, "Did you mean|There are"),
        ({"implementations": {"any": "{input.__class__}"}}, "has {input.__class__}"),
        ({"implementations": {"any": "{input"}}, "cannot be read"),
        ({"implementations": {"any": "x = {input}\nHIT()"}}, "is no expression"),
        ({"implementations": {"any": lambda input: input}}, "no function written with `def`"),
        ({"implementations": {"any": "{input}"}, "gradient": {"input": "{grad} * {inputs}"}}, "has {inputs}"),
    ):
        with pytest.raises(OperatorError, match=text):
            register_op(**{"name": "names_probe", "implementations": {"any": "{input}"}, **changes})
        assert "names_probe" not in OPS


def test_functions_of_one_name_stay_apart():
    def twice(input):
        return input * 2

    def make():
        def twice(input):
            return input + 1

        return twice

    try:
        one = register_op("names_one", implementations={"any": twice}, gradient=twice_gradient())
        two = register_op("names_two", implementations={"any": make()})
        words = register_op("names_words", implementations={"any": "abs({input})"})
        built = Model.create(output=two()(one()(IOKey("abs"))), other=words()(IOKey("abs") * 1))
        for backend in backends():
            outputs = run(built, {"abs": -np.ones(3, np.float32)}, backend)
            np.testing.assert_allclose(outputs["output"], [-1, -1, -1])
            np.testing.assert_allclose(outputs["other"], [1, 1, 1])
    finally:
        WORDS.discard("abs")
        for key in [key for key in HELPERS if key[1].startswith("names_")]:
            del HELPERS[key]
        for name in [name for name in OPS if name.startswith("names_")]:
            del OPS[name]


def twice_gradient():
    def twice(grad, input, output):
        return (grad * 2,)

    return twice
