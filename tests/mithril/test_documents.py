"""Every code block of the documents 000 and 002 runs as printed and gives equal numbers on four backends.

The blocks are read from the documents. Where a document elides something, `FILLED` says what is put in its place; what
a block takes from elsewhere (`make_layer`, `transformer`) stands in `USER_CODE`.
"""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mithril as ml
from mithril import models
from mithril.models.vision.clip import clip_vision_transformer

BACKENDS = {"numpy": "NumpyBackend", "torch": "TorchBackend", "jax": "JaxBackend", "mlx": "MlxBackend"}
RANDOM = np.random.default_rng(0)

FILLED = {
    "def vision_transformer(": {
        "# ... (additional processing code)": """
    tokens = block.conv1.flatten(2).transpose(0, 2, 1)
    first = IOKey("class_embedding", shape=[width], trainable=True).broadcast_to(tokens.shape[0], 1, width)
    places = IOKey("positional_embedding", shape=[(input_resolution // patch_size) ** 2 + 1, width], trainable=True)
    block |= LayerNorm(name="ln_pre")(Concat(axis=1)([first, tokens]) + places, output="ln_1")
""",
        "# ... (final processing code)": """
    x = LayerNorm(name="ln_post")(block.transformer.transpose((1, 0, 2))[:, 0])
    if use_proj:
        x = x @ IOKey("proj", shape=[width, output_dim], trainable=True)
    block |= Buffer()(x, output=IOKey("output"))
    block.set_cin("input")
""",
    },
    "def clip(": {
        "modified_resnet(...)": """modified_resnet(
            vision_layers, embed_dim, image_resolution, vision_width, name="visual")""",
        "vision_transformer(...)": """vision_transformer(
            image_resolution, vision_patch_size, vision_width, vision_layers, vision_heads, embed_dim,
            use_proj=True, name="visual")""",
        'name="token_embedding")(...)': 'name="token_embedding")(input=text, output="tokens")',
        "transformer(...)": """transformer(
        transformer_width, transformer_layers, transformer_heads, is_causal=True, name="transformer")
    places = IOKey("positional_embedding", shape=[context_length, transformer_width], trainable=True)
    x = transformer_main((block.tokens + places).transpose((1, 0, 2))).transpose((1, 0, 2))
    x = LayerNorm(name="ln_final")(x)
    end = text.argmax(axis=-1)[:, None, None].broadcast_to(-1, 1, transformer_width)
    x = TakeAlongAxis(axis=1)(x, end)[:, 0]
    x = x @ IOKey("text_projection", shape=[transformer_width, embed_dim], trainable=True)
    block |= visual(input=image, output="image_features")
    block |= Norm(axis=-1, keepdims=True)(input="image_features", output="image_features_norm")
    block |= Buffer()(x, output="text_features")
    block |= Norm(axis=-1, keepdims=True)(input="text_features", output="text_features_norm")
    logit_scale = IOKey("logit_scale", shape=[], trainable=True)
""",
        "logits_per_text = logits_per_image.transpose()": """logits_per_text = logits_per_image.transpose()
    block |= Buffer()(logits_per_image, output=IOKey("logits_per_image"))
    block |= Buffer()(logits_per_text, output=IOKey("logits_per_text"))""",
    },
    "def transformer_block(": {
        "# ... (attention implementation)": """
    parts = [attn.qkv_split[i] for i in range(3)]
    q, k, v = (p.reshape(p.shape[0], p.shape[1], num_heads, -1).transpose(0, 2, 1, 3) for p in parts)
    mixed = ScaledDotProductAttention()(q, k, v).transpose(0, 2, 1, 3)
    mixed = mixed.reshape(mixed.shape[0], mixed.shape[1], -1)
    attn |= Linear(dim, name="proj")(input=mixed, output=IOKey("output"))
"""
    },
}

USER_CODE = """
def shortcut(out_channels, stride):
    model = Model()
    model += Convolution2D(out_channels, kernel_size=1, stride=stride)
    return model

def bottleneck(out_channels, stride=1, downsample=None):
    block = Model()
    block += Convolution2D(out_channels, kernel_size=1)
    model_input = block.cin
    block += Relu()
    block += Convolution2D(out_channels, kernel_size=3, stride=stride, padding=1)
    block += Relu()
    block += Convolution2D(out_channels, kernel_size=1)
    main = block.cout
    if downsample is not None:
        block |= downsample(input=model_input)
    block |= Add()(left=main, right=model_input if downsample is None else downsample.cout)
    block += Relu()
    return block

def make_layer(out_channels, block, n_blocks, stride):
    layer = Model()
    layer += block(out_channels, stride, shortcut(out_channels, stride) if stride > 1 else None)
    for _ in range(n_blocks - 1):
        layer += block(out_channels)
    return layer

def transformer(width, layers, heads, is_causal=False, name=None):  # tokens come first, then the batch
    model = Model(name=name)
    for i in range(layers):
        block, x = Model(name=f"resblocks_{i}"), IOKey("input")
        x = x + in_turn(width, heads, is_causal)(LayerNorm(name="ln_1")(x))
        y = Linear(4 * width, name="mlp_c_fc")(LayerNorm(name="ln_2")(x))
        x = x + Linear(width, name="mlp_c_proj")(y * (1.702 * y).sigmoid())
        block |= Buffer()(x, output=IOKey("output"))
        block.set_cin("input")
        model += block
    return model

def in_turn(width, heads, is_causal):
    attention = Model(name="attn")
    joint = Linear(3 * width, name="in_proj")(IOKey("input").transpose((1, 0, 2)))
    parts = [joint[:, :, i * width : (i + 1) * width] for i in range(3)]
    q, k, v = (p.reshape(p.shape[0], p.shape[1], heads, -1).transpose(0, 2, 1, 3) for p in parts)
    mixed = ScaledDotProductAttention(is_causal=is_causal)(q, k, v).transpose(2, 0, 1, 3)
    mixed = mixed.reshape(mixed.shape[0], mixed.shape[1], -1)
    attention |= Linear(width, name="out_proj")(input=mixed, output=IOKey("output"))
    attention.set_cin("input")
    return attention
"""


@pytest.fixture(scope="module")
def printed(shared):
    """The printed blocks by a piece of text that only they have, with elided parts filled in."""
    texts = []
    for number in ("000", "002"):
        (path,) = (shared / "seeds").glob(f"{number}_*.txt")
        texts += re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    assert len(texts) == 17

    def find(mark):
        (text,) = [t for t in texts if mark in t]
        for elided, filled in FILLED.get(mark, {}).items():
            assert text.count(elided) == 1, elided
            text = text.replace(elided, filled)
        assert "..." not in text
        return text

    return find


@pytest.fixture
def run(printed):
    """Runs blocks in one namespace, as a reader of the document has it, and returns what they define."""

    def run(*marks, **names):
        space = {"ml": ml, "Callable": Callable}
        exec("from mithril.models import *", space)
        exec(USER_CODE, space)
        space.update(names)
        for mark in marks:
            exec(printed(mark), space)
        return space

    return run


def numbers(backend, build, inputs, params, inference=True):
    compiled = ml.compile(build(), backend, shapes={k: v.shape for k, v in inputs.items()}, inference=inference)
    params = params or {**compiled.randomize_params(0), **compiled.initial_state()}
    arrays = [
        {k: backend.array(backend.to_numpy(v) if backend.is_array(v) else v) for k, v in d.items()}
        for d in (params, inputs)
    ]
    found = compiled.evaluate(*arrays)
    found = found if inference else found[0]
    return {k: backend.to_numpy(v) for k, v in found.items()}, {k: np.asarray(v) for k, v in params.items()}


def everywhere(build, params=None, **inputs):
    """Outputs on NumPy in float64 and the parameters, after comparing all backends in float32 with them."""
    expected, params = numbers(ml.NumpyBackend(dtype=ml.float64), build, inputs, params)
    for name, backend in BACKENDS.items():
        found, _ = numbers(getattr(ml, backend)(), build, inputs, params)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=2e-4, atol=2e-4, err_msg=f"{key} on {name}")
    return expected, {k: torch.tensor(v) for k, v in params.items()}


def normal(*shape):
    return RANDOM.standard_normal(shape)


def agree(found, expected):
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-6, atol=1e-8)


def loaded(module, params):
    """A torch module in float64 with these parameters, in order."""
    module = module.double().eval()
    own = list(module.parameters())
    assert len(own) == len(params)
    for mine, theirs in zip(own, params.values()):
        mine.data = theirs
    return module


def test_forecast(run):
    model = run("cnn_model = Model()")["cnn_model"]
    signal = normal(2, 1, 8)
    found, params = everywhere(lambda: model, input=signal)
    layers = [nn.Conv1d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(64, 64), nn.ReLU()]
    module = loaded(nn.Sequential(*layers, nn.Linear(64, 1)), params)
    agree(found["output"], module(torch.tensor(signal)))


def test_multi_task_with_svm(run):
    model = run("# Define backbone")["logical_model"]
    image = normal(2, 3, 64, 64)
    found, params = everywhere(lambda: model, input=image)
    convs = [[nn.Conv2d(a, b, 3, 2, 1), nn.MaxPool2d(2)] for a, b in ((3, 8), (8, 16), (16, 32))]
    backbone = [layer for pair in convs for layer in pair][:-1] + [nn.Flatten()]
    heads = [[128, 256, 64, 1], [128, 32, 16, 1]]
    age, gender = ([nn.Linear(*sizes[i : i + 2]) for i in range(3)] for sizes in heads)
    svm, leaky = nn.Linear(1, 1), nn.LeakyReLU()
    modules = nn.ModuleList([nn.Sequential(*backbone), *age, *gender, svm])
    assert found.keys() == {"age", "gender", "pred_gender"}
    loaded(modules, params)
    features = modules[0](torch.tensor(image))
    agree(found["age"], age[2](leaky(age[1](leaky(age[0](features))))))
    score = svm(gender[2](leaky(gender[1](leaky(gender[0](features))))))
    agree(found["gender"], score)
    agree(found["pred_gender"], score.sign())


class Taken:
    """Convolutions that take their weights from the params, one after the other."""

    def __init__(self, params):
        self.left = list(params.values())

    def conv(self, x, **options):
        return F.conv2d(x, self.left.pop(0), self.left.pop(0), **options)


@pytest.mark.parametrize("stride", [1, 2])
def test_basic_block(run, stride):
    space = run("def basic_block(")

    def build():
        return space["basic_block"](4, stride, space["shortcut"](4, stride) if stride > 1 else None)

    image = normal(2, 4, 6, 6)
    found, params = everywhere(build, input=image)
    x, taken = torch.tensor(image), Taken(params)
    main = taken.conv(F.relu(taken.conv(x, stride=stride, padding=1)), padding=1)
    short = taken.conv(x, stride=stride) if stride > 1 else x
    agree(found["output"], F.relu(main + short))


def test_resnets(run):
    space = run("def basic_block(", "def resnet(n_classes")
    image = normal(1, 3, 16, 16)
    tiny = {"n_classes": 3, "block": space["basic_block"], "layers": [1, 1, 1, 2]}
    found, params = everywhere(lambda: space["resnet"](**tiny), input=image)
    taken = Taken(params)
    x = taken.conv(torch.tensor(image), stride=2, padding=3)
    for stride in (1, 2, 2, 2, 1):
        main = taken.conv(F.relu(taken.conv(x, stride=stride, padding=1)), padding=1)
        x = F.relu(main + (taken.conv(x, stride=stride) if stride > 1 else x))
    agree(found["output"], F.linear(x.flatten(1), *taken.left))
    counts = {"resnet18": 20, "resnet34": 34, "resnet50": 49, "resnet101": 103, "resnet152": 154}
    for name, convolutions in counts.items():
        compiled = ml.compile(space[name](10), ml.NumpyBackend(), shapes={"input": [None, 3, 32, 32]})
        assert compiled.shapes["output"] == [None, 10]
        assert sum(len(compiled.shapes[k]) == 4 for k in compiled.parameter_keys) == convolutions, name


def test_vision_transformer(run):
    build = run("def vision_transformer(")["vision_transformer"]
    image = normal(2, 3, 16, 16)
    found, params = everywhere(lambda: build(16, 8, 64, 2, 1, 5, use_proj=True), input=image)
    own = clip_vision_transformer(16, 8, 64, 2, 5)
    expected, _ = numbers(ml.NumpyBackend(dtype=ml.float64), lambda: own, {"input": image}, params)
    np.testing.assert_allclose(found["output"], expected["output"], rtol=1e-6)


@pytest.mark.parametrize("tower", [1, (1, 1, 1, 1)], ids=["transformer", "resnet"])
def test_clip(run, tower):
    build = run("def vision_transformer(", "def clip(")["clip"]
    inputs = {"image": normal(2, 3, 32, 32), "text": RANDOM.integers(0, 11, (3, 5))}
    sizes = (8, 32, tower, 64 if tower == 1 else 8, 8, 5, 11, 8, 2, 1)
    found, params = everywhere(lambda: build(*sizes), **inputs)
    expected, _ = numbers(ml.NumpyBackend(dtype=ml.float64), lambda: models.clip(*sizes), inputs, params)
    for key in ("logits_per_image", "logits_per_text"):
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", BACKENDS)
def test_backend_compatibility(needed, run, printed, name):
    needed(name)
    space = run("def basic_block(", "def resnet(n_classes")
    shape, backend = [2, 3, 16, 16], getattr(ml, BACKENDS[name])()
    params = ml.compile(space["resnet18"](10), backend, shapes={"input": shape}).randomize_params(0)
    images = backend.array(np.random.default_rng(1).standard_normal(shape))
    text = printed("# Choose a backend").replace("[32, 3, 224, 224]", str(shape))
    space.update(params=params, images=images)
    exec(text.replace("ml.TorchBackend()", f"ml.{BACKENDS[name]}()"), space)
    found = backend.to_numpy(space["outputs"]["output"])
    assert found.shape == (2, 10)
    plain = ml.NumpyBackend()
    compiled = ml.compile(space["resnet18"](10), plain, shapes={"input": shape})
    arrays = {k: backend.to_numpy(v) for k, v in params.items()}
    expected = compiled.evaluate(arrays, {"input": backend.to_numpy(images)})["output"]
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())


def test_custom_mlp(run):
    build = run("def custom_mlp(")["custom_mlp"]
    x = normal(2, 5)
    found, params = everywhere(lambda: build(5, [4, 3], 2), input=x)
    module = loaded(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), params)
    agree(found["output"], module(torch.tensor(x)))


def test_attention_block(run):
    build = run("def attention_block(")["attention_block"]
    x = normal(2, 3, 8)
    found, params = everywhere(lambda: build(8, 2), input=x)
    norm, attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
    loaded(nn.ModuleList([norm, attention]), params)
    normed = norm(torch.tensor(x))
    agree(found["output"], torch.tensor(x) + attention(normed, normed, normed)[0])


@pytest.mark.parametrize("stride", [1, 2])
def test_resnet_block(run, stride):
    """The shortcut reaches the sum; it is not added to itself."""
    build = run("def resnet_block(")["resnet_block"]
    image = normal(2, 4, 6, 6)
    found, params = everywhere(lambda: build(4, stride), input=image)
    weights = [value for key, value in params.items() if "running" not in key]
    statistics = [value for key, value in params.items() if "running" in key]

    def conv_norm(x, **options):
        x = F.conv2d(x, weights.pop(0), weights.pop(0), **options)
        return F.batch_norm(x, statistics.pop(0), statistics.pop(0), weights.pop(0), weights.pop(0))

    x = torch.tensor(image)
    main = conv_norm(F.relu(conv_norm(x, stride=stride, padding=1)), padding=1)
    agree(found["output"], F.relu(main + (conv_norm(x, stride=stride) if stride > 1 else x)))


def test_channel_shuffle(run):
    build = run("class ChannelShuffle(")["ChannelShuffle"]
    image = normal(2, 6, 3, 2)
    found, _ = everywhere(lambda: build(3), input=image)
    agree(found["output"], nn.ChannelShuffle(3)(torch.tensor(image)))


def test_depthwise_separable_convolution(run):
    space = run("class DepthwiseSeparableConv(")
    image = normal(2, 4, 6, 5)
    found, params = everywhere(lambda: space["DepthwiseSeparableConv"](6, 3, stride=2, padding=1), input=image)
    assert list(params) == ["depthwise_weight", "depthwise_bias", "pointwise_weight", "pointwise_bias"]
    taken = Taken(params)
    agree(found["output"], taken.conv(taken.conv(torch.tensor(image), stride=2, padding=1, groups=4)))


def test_fusion_model(run):
    build = run("def fusion_model(")["fusion_model"]
    inputs = {"text_input": normal(2, 5), "image_input": normal(2, 4)}
    found, params = everywhere(lambda: build(5, 4, 3), **inputs)
    p = list(params.values())
    parts = [F.linear(torch.tensor(x), p[2 * i], p[2 * i + 1]) for i, x in enumerate(inputs.values())]
    agree(found["output"], F.linear(torch.cat(parts, dim=1), p[4], p[5]))


def test_multi_task_model(run):
    build = run("def multi_task_model(")["multi_task_model"]
    x = normal(2, 5)
    found, p = everywhere(lambda: build(5), input=x)
    features = F.relu(F.linear(torch.tensor(x), p["backbone_weight"], p["backbone_bias"]))
    for task in ("regression", "classification"):
        expected = F.linear(features, p[f"{task}_head_weight"], p[f"{task}_head_bias"])
        agree(found[f"{task}_output"], expected)


def test_transformer_block(run):
    build = run("def transformer_block(")["transformer_block"]
    x = normal(2, 3, 8)
    found, params = everywhere(lambda: build(8, 2, 12), input=x)
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, F.gelu, batch_first=True, norm_first=True)
    names = ["norm1", "self_attn.in_proj_", "self_attn.out_proj", "norm2", "linear1", "linear2"]
    keys = [f"{n}{'' if n.endswith('_') else '.'}{kind}" for n in names for kind in ("weight", "bias")]
    layer.double().eval().load_state_dict(dict(zip(keys, params.values(), strict=True)))
    agree(found["output"], layer(torch.tensor(x)))


def test_lstm_cell(run):
    build = run("def lstm_cell(")["lstm_cell"]
    x, h, c = normal(2, 5), normal(2, 3), normal(2, 3)
    found, params = everywhere(lambda: build(5, 3), input=x, h_prev=h, c_prev=c)
    cell = nn.LSTMCell(5, 3).double()
    weight, bias = params["gates_weight"], params["gates_bias"]
    state = {"weight_ih": weight[:, :5], "weight_hh": weight[:, 5:], "bias_ih": bias, "bias_hh": torch.zeros(12)}
    cell.load_state_dict(state)
    h_new, c_new = cell(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))
    agree(found["h_new"], h_new)
    agree(found["c_new"], c_new)


def test_pretrained_weights(run, torchvision, monkeypatch):
    """The document downloads weights; here its torch model has random ones."""
    made = []

    def resnet18(pretrained):
        torch.manual_seed(0)
        made.append(original())
        return made[-1]

    original = torchvision.models.resnet18
    monkeypatch.setattr(torchvision.models, "resnet18", resnet18)
    compiled, params = run("def load_pretrained_resnet(")["load_pretrained_resnet"]()
    assert set(params) == {*compiled.parameter_keys, *compiled.state_keys}
    image = torch.randn(1, 3, 224, 224)
    outputs, state = compiled.evaluate(params, {"input": image}, state={})
    expected = made[0].train()(image)
    torch.testing.assert_close(outputs["output"], expected.detach(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(state["layer4_1_bn2_running_var"], made[0].layer4[1].bn2.running_var)
