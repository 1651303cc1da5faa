"""Models as JSON, tables and drawings."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import mithril as ml
from mithril import IOKey, Model, Operator
from mithril.errors import MithrilError, OperatorError
from tests.mithril.layers import Convolution2D, Linear, op


class Scaled(Operator):
    def __init__(self, factor, name=None):
        super().__init__(name=name)
        self.factor = factor

    def create_model(self):
        return Model.create(output=IOKey("input") * self.factor)


def model():
    inner = Model(name="inner")
    inner += Convolution2D(4, 3, padding=1, name="conv")(input=IOKey("input", shape=["n", 3, None, None]))
    inner += op("relu")
    outer = Model(name="outer")
    outer |= inner(input="image", output="features")
    fc = Linear(5, name="fc")
    outer |= fc(outer.features.reshape(outer.features.shape[0], -1)[:, 1:5], output="h")
    outer |= fc.shared()(outer.h[..., :4] + IOKey("table", value=np.arange(4.0)), output=IOKey("out"))
    outer |= Scaled(2.0)(input="out", output=IOKey("twice"))
    return outer


def test_json_keeps_the_model():
    backend = ml.NumpyBackend()
    original = model()
    copy = Model.from_json(original.to_json(), operators=[Scaled])
    assert copy.to_json() == original.to_json()
    ours, theirs = (ml.compile(m, backend, shapes={"image": [2, 3, 4, 4]}) for m in (original, copy))
    assert ours.source == theirs.source
    assert ours.shapes == theirs.shapes
    params = ours.randomize_params()
    image = np.ones((2, 3, 4, 4), np.float32)
    for key, value in ours.evaluate(params, {"image": image}).items():
        np.testing.assert_array_equal(value, theirs.evaluate(params, {"image": image})[key])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: d["model"]["nodes"][0]["model"].update(operator="os.system"), "There is no operator 'os.system'"),
        (lambda d: d["model"]["nodes"][-1]["model"].update({"class": "Popen"}), "'Popen' is not among those given"),
        (lambda d: d.update(mithril=99), "version 99"),
        (lambda d: d["model"].pop("nodes"), "not a mithril model: model: 'nodes' is missing"),
        (lambda d: d["model"]["nodes"][0].update(outputs={"x": "nowhere"}), "not a mithril model"),
        (lambda d: d["model"]["connections"].update(features={"type": "object"}), "is not a dtype"),
    ],
)
def test_json_names_nothing_but_operators(change, text):
    data = json.loads(model().to_json())
    change(data)
    with pytest.raises(MithrilError, match=text):
        Model.from_json(json.dumps(data), operators=[Scaled])


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"mithril": 1}', '{"mithril": 1, "model": {"type": 3}}'])
def test_json_that_is_no_model(text):
    with pytest.raises(OperatorError):
        Model.from_json(text)


def test_summary():
    lines = model().summary().splitlines()
    assert lines[0] == "outer (Model), 11 operators"
    rows = {line.split()[0]: line for line in lines if line.strip()}
    assert rows["inner"].split() == ["inner", "Model", "input=image", "features"]
    assert rows["conv"].startswith("  conv")
    assert lines[-2].startswith("inputs: image")
    assert lines[-1] == "outputs: out, twice"


def test_drawings(tmp_path):
    text = model().draw()
    assert '"inner" -> "' in text
    assert text.startswith('digraph "outer" {')
    assert text.endswith("}")
    drawn = model().draw(str(tmp_path / "model.svg"))
    assert (tmp_path / "model.svg").read_text() == drawn
    labels = [e.text for e in ElementTree.fromstring(drawn).iter() if e.tag.endswith("text")]
    assert "inner: Model" in labels
    assert "image" in labels
    with pytest.raises(MithrilError, match=r"must end in \.svg or \.dot"):
        model().draw(str(tmp_path / "model.png"))
