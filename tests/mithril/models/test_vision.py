"""Ready-made models against torchvision, timm and transformers, with their weights under our names."""

import re

import numpy as np
import pytest
import torch

import mithril as ml
from mithril import models as m


def as_params(module):
    """The state dict under our keys."""
    state = {key.replace(".", "_"): value.numpy() for key, value in module.state_dict().items()}
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def randomize(module):
    """Weights far from their defaults, so that no layer can be left out unseen."""
    torch.manual_seed(0)
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point():
            with torch.no_grad():
                noise = torch.randn_like(value) * (0.1 if value.ndim < 2 else value[0].numel() ** -0.5)
                value.copy_(noise.abs() + 0.8 if name.endswith(("var", "weight")) and value.ndim == 1 else noise)
    return module.eval()


def count(model, **shapes):
    """Parameters of a model; nothing is allocated."""
    compiled = ml.compile(model, ml.NumpyBackend(), shapes=shapes, inference=True)
    return sum(int(np.prod(compiled.shapes[key])) for key in compiled.parameter_keys)


def outputs(model, inputs, params, backend=None):
    backend = backend or ml.TorchBackend()
    compiled = ml.compile(model, backend, shapes={k: v.shape for k, v in inputs.items()}, inference=True)
    assert {*compiled.parameter_keys, *compiled.state_keys} == params.keys()
    values = {key: backend.array(value) for key, value in params.items()}
    found = compiled.evaluate(values, {key: backend.array(value) for key, value in inputs.items()})
    return {key: backend.to_numpy(value) for key, value in found.items()}


def test_resnets_equal_torchvision(torchvision):
    image = torch.randn(2, 3, 64, 48)
    for name in ("resnet18", "resnet50"):
        module = randomize(getattr(torchvision.models, name)(num_classes=5))
        found = outputs(getattr(m, name)(num_classes=5), {"input": image.numpy()}, as_params(module))
        np.testing.assert_allclose(found["output"], module(image).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_resnet_trains_like_torchvision(torchvision):
    """Batch statistics, their new running values, and gradients."""
    module = randomize(torchvision.models.resnet18(num_classes=3)).double().train()
    params, image = as_params(module), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    params = {key: value.copy() for key, value in params.items()}
    backend = ml.TorchBackend(dtype=ml.float64)
    compiled = ml.compile(m.resnet18(3), backend, shapes={"input": image.shape}, data_keys={"input"})
    weights = torch.randn(2, 3, dtype=torch.float64)
    values, gradients, state = compiled.evaluate_all(params, {"input": image}, {"output": weights})
    expected = module(image)
    expected.backward(weights)
    torch.testing.assert_close(values["output"], expected.detach())
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(gradients[key.replace(".", "_")], parameter.grad, msg=key)
    for key, value in state.items():
        np.testing.assert_allclose(value.numpy(), as_params(module)[key], rtol=1e-9, err_msg=key)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("vision_transformer", 86_567_656),
    ],
)
def test_published_sizes(name, size):
    assert count(getattr(m, name)(), input=[1, 3, 224, 224]) == size


def test_published_sizes_of_gpt2_and_clip():
    assert count(m.gpt2(), input=[1, 4]) == 124_439_808
    assert count(m.clip(), image=[1, 3, 224, 224], text=[1, 77]) == 151_277_313
    resnet50 = {"embed_dim": 1024, "vision_layers": (3, 4, 6, 3), "vision_width": 64}
    assert count(m.clip(**resnet50), image=[1, 3, 224, 224], text=[1, 77]) == 102_007_137


def test_vision_transformer_equals_timm(timm):
    settings = {"patch_size": 8, "embed_dim": 24, "num_heads": 3, "num_classes": 5}
    module = randomize(timm.models.VisionTransformer(img_size=32, depth=2, **settings))
    image = torch.randn(2, 3, 32, 32)
    found = outputs(m.vision_transformer(32, num_layers=2, **settings), {"input": image.numpy()}, as_params(module))
    np.testing.assert_allclose(found["output"], module(image).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_vision_transformer_wants_whole_patches():
    with pytest.raises(ValueError, match="image_size 30 is not a multiple of patch_size 8"):
        m.vision_transformer(30, 8)


def test_gpt2_equals_transformers(transformers):
    config = transformers.GPT2Config(vocab_size=19, n_positions=8, n_embd=24, n_layer=2, n_head=3)
    module = randomize(transformers.GPT2Model(config))
    tokens = torch.randint(0, 19, (2, 6))
    found = outputs(m.gpt2(19, 8, 24, 2, 3), {"input": tokens.numpy()}, as_params(module))
    expected = module(tokens).last_hidden_state
    np.testing.assert_allclose(found["embeddings"], expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    logits = expected @ module.wte.weight.T
    np.testing.assert_allclose(found["logits"], logits.detach().numpy(), rtol=1e-4, atol=1e-5)


CLIP_NAMES = {
    r"^vision_model\.embeddings\.patch_embedding": "visual.conv1",
    r"^vision_model\.embeddings\.class_embedding": "visual.class_embedding",
    r"^vision_model\.embeddings\.position_embedding\.weight": "visual.positional_embedding",
    r"^vision_model\.pre_layrnorm": "visual.ln_pre",
    r"^vision_model\.post_layernorm": "visual.ln_post",
    r"^vision_model\.encoder\.layers": "visual.transformer.resblocks",
    r"^text_model\.embeddings\.token_embedding": "token_embedding",
    r"^text_model\.embeddings\.position_embedding\.weight": "positional_embedding",
    r"^text_model\.encoder\.layers": "transformer.resblocks",
    r"^text_model\.final_layer_norm": "ln_final",
    r"layer_norm(\d)": r"ln_\1",
    r"self_attn\.": "attn.",
    r"mlp\.fc1": "mlp.c_fc",
    r"mlp\.fc2": "mlp.c_proj",
}


def openai_names(state):
    """transformers' CLIP under the names of the published checkpoint, where queries, keys, values are one layer."""
    renamed = {"visual_proj": state.pop("visual_projection.weight").T}
    renamed["text_projection"] = state.pop("text_projection.weight").T
    for key, value in state.items():
        for pattern, name in CLIP_NAMES.items():
            key = re.sub(pattern, name, key)
        renamed[key.replace(".", "_")] = value
    for key in [k for k in renamed if "_q_proj_" in k]:
        parts = [renamed.pop(key.replace("_q_proj_", f"_{role}_proj_")) for role in "qkv"]
        renamed[key.replace("_q_proj_", "_in_proj_")] = torch.cat(parts)
    return {key: value.numpy() for key, value in renamed.items()}


def test_clip_equals_transformers(transformers):
    shared = {"num_hidden_layers": 2, "hidden_act": "quick_gelu"}
    text = {"vocab_size": 30, "hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 3}
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 16,
    }
    config = transformers.CLIPConfig(
        text_config={**shared, **text, "max_position_embeddings": 7, "eos_token_id": 29},
        vision_config={**shared, **vision},
        projection_dim=16,
    )
    module = randomize(transformers.CLIPModel(config))
    image, words = torch.randn(2, 3, 32, 32), torch.randint(1, 28, (3, 7))
    words[[0, 1, 2], [6, 3, 4]] = 29
    params = openai_names(dict(module.state_dict()))
    model = m.clip(16, 32, 2, 128, 16, 7, 30, 24, 3, 2)
    found = outputs(model, {"image": image.numpy(), "text": words.numpy()}, params)
    expected = module(input_ids=words, pixel_values=image)
    for key, name in (("logits_per_image",) * 2, ("logits_per_text",) * 2, ("text_features", "text_embeds")):
        np.testing.assert_allclose(found[key], expected[name].detach().numpy(), rtol=1e-3, atol=1e-4, err_msg=key)


def test_clip_resnet_equals_timm(timm):
    from timm.models.byobnet import _convert_openai_clip

    module = timm.create_model("resnet50_clip", num_classes=16, img_size=64).eval()
    model = m.modified_resnet((3, 4, 6, 3), 16, 64, 64)
    backend, image = ml.TorchBackend(), torch.randn(1, 3, 64, 64)
    compiled = ml.compile(model, backend, shapes={"input": image.shape}, inference=True)
    params = {**compiled.randomize_params(0), **compiled.initial_state()}
    dotted = {}
    for key, value in params.items():
        key = re.sub(r"^(layer\d)_(\d+)_", r"\1.\2.", key).replace("downsample_", "downsample.")
        key = re.sub(r"_(weight|bias|running_mean|running_var)$", r".\1", key).replace("attnpool_", "attnpool.")
        dotted[f"visual.{key}"] = value
    state = _convert_openai_clip(dotted, module)
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    np.testing.assert_allclose(
        compiled.evaluate(params, {"input": image})["output"], module(image).detach(), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ["numpy", "jax", "mlx"])
def test_small_models_are_equal_on_every_backend(needed, name):
    needed(name)
    backend = getattr(ml, {"numpy": "NumpyBackend", "jax": "JaxBackend", "mlx": "MlxBackend"}[name])()
    random = np.random.default_rng(0)
    cases = [
        (lambda: m.simple_cnn(4, 6), {"input": random.standard_normal((2, 1, 8))}),
        (lambda: m.multi_task_cnn((4, 6)), {"input": random.standard_normal((2, 3, 32, 32))}),
        (lambda: m.resnet((1, 1), True, 5, width=4), {"input": random.standard_normal((2, 3, 16, 16))}),
        (lambda: m.gpt2(11, 6, 8, 1, 2), {"input": random.integers(0, 11, (2, 5))}),
        (
            lambda: m.clip(8, 16, 1, 64, 8, 5, 11, 8, 2, 1),
            {"image": random.standard_normal((2, 3, 16, 16)), "text": random.integers(0, 11, (3, 5))},
        ),
    ]
    for model, inputs in cases:
        compiled = ml.compile(
            model(), ml.TorchBackend(), shapes={k: v.shape for k, v in inputs.items()}, inference=True
        )
        params = {k: v.numpy() for k, v in {**compiled.randomize_params(0), **compiled.initial_state()}.items()}
        expected, found = (outputs(model(), inputs, params, b) for b in (None, backend))
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=2e-4, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("name", ["gpt2", "vision_transformer", "clip", "clip_resnet"])
def test_gradients_on_numpy_equal_torch(name):
    """The generated reverse code of whole models against autograd."""
    random = np.random.default_rng(0)
    image, text = random.standard_normal((2, 3, 32, 32)), random.integers(0, 11, (3, 5))
    sizes = {"clip": (8, 32, 1, 64, 8, 5, 11, 8, 2, 1), "clip_resnet": (8, 32, (1, 1, 1, 1), 8, 8, 5, 11, 8, 2, 1)}
    model, inputs = {
        "gpt2": lambda: (m.gpt2(11, 6, 8, 2, 2), {"input": text}),
        "vision_transformer": lambda: (m.vision_transformer(32, 8, 24, 2, 3, num_classes=5), {"input": image}),
    }.get(name, lambda: (m.clip(*sizes[name]), {"image": image, "text": text}))()
    found = []
    for backend in (ml.NumpyBackend(dtype=ml.float64), ml.TorchBackend(dtype=ml.float64)):
        compiled = ml.compile(model, backend, shapes={k: v.shape for k, v in inputs.items()}, inference=True)
        params, key = {**compiled.randomize_params(0), **compiled.initial_state()}, compiled.output_keys[-1]
        weights = np.random.default_rng(1).standard_normal(compiled.shapes[key])
        gradients = compiled.evaluate_gradients(params, inputs, {key: weights})
        found.append({k: backend.to_numpy(v) for k, v in gradients.items()})
    ours, theirs = found
    assert ours.keys() == theirs.keys() == set(compiled.trainable_keys)
    for key, value in theirs.items():
        np.testing.assert_allclose(ours[key], value, rtol=1e-7, atol=1e-9 * np.abs(value).max() + 1e-12, err_msg=key)
        assert np.abs(value).max() > 0 or "k_proj_bias" in key, key
