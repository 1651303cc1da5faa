"""config.json of transformers and timm: every key is followed, changes nothing, or is refused by name."""

import inspect
import json

import pytest
import torch

from nexus.core.documents import FileError
from nexus.core.foreign import OF_TRANSFORMERS
from nexus.core.module import NexusModule
from nexus.core.timm_folders import _ARGUMENTS, _TRAINING, config_from_timm
from nexus.core.weights import _timm_card, read_folder
from nexus.models.registry import all_cards, list_models, model_info

FAMILIES = {
    "vit": "ViTConfig",
    "dinov2": "Dinov2Config",
    "dinov2_with_registers": "Dinov2WithRegistersConfig",
    "swin": "SwinConfig",
    "efficientnet": "EfficientNetConfig",
    "resnet": "ResNetConfig",
    "vit_mae": "ViTMAEConfig",
    "detr": "DetrConfig",
    "rt_detr": "RTDetrConfig",
    "rt_detr_v2": "RTDetrV2Config",
    "clip": "CLIPConfig",
    "siglip": "SiglipConfig",
    "siglip2": "Siglip2Config",
    "sam": "SamConfig",
    "sam2": "Sam2Config",
    "sam2_video": "Sam2VideoConfig",
    "grounding-dino": "GroundingDinoConfig",
    "internvl": "InternVLConfig",
}


@pytest.fixture
def defaults(transformers, request):
    return json.loads(getattr(transformers, FAMILIES[request.param])().to_json_string(use_diff=False))


def reader(kind):
    return next(card.model_class for card in all_cards() if kind in card.model_class.hub_types)


def outcome(cls, settings):
    """The configuration, or None and what the refusal says."""
    try:
        return cls.config_from_hub(settings), ""
    except ValueError as error:
        return None, str(error)


def test_every_family_is_here():
    of_authors = {"internvl_chat"}  # tests/nexus/models/test_internvl.py reads it
    assert FAMILIES.keys() | of_authors == {kind for card in all_cards() for kind in card.model_class.hub_types}


@pytest.mark.parametrize(("kind", "defaults"), [(kind, kind) for kind in FAMILIES], indirect=["defaults"])
def test_every_key_of_a_library_is_known(kind, defaults):
    """What its class writes is read; a key that it does not know is refused; no value of a wrong type passes."""
    cls = reader(kind)
    cls.config_from_hub({**defaults, "model_type": kind})
    with pytest.raises(FileError, match="has brand_new_key, which is not known here"):
        cls.config_from_hub({**defaults, "brand_new_key": 3})
    for key in defaults.keys() - OF_TRANSFORMERS:
        for wrong in ("text", [], {}, [None], {"a": 1}, -1, 1e308, True, float("nan"), [[[]]], "gelu_new"):
            if isinstance(wrong, type(defaults[key])):
                continue
            _, said = outcome(cls, {**defaults, key: wrong})
            assert "\n" not in said


@pytest.mark.parametrize(("kind", "defaults"), [(kind, kind) for kind in FAMILIES], indirect=["defaults"])
def test_activations_and_epsilons_are_followed_or_refused(kind, defaults):
    cls = reader(kind)
    before = cls.config_from_hub({**defaults, "model_type": kind})
    places = {"": defaults, **{key: defaults[key] for key in ("vision_config", "text_config") if key in defaults}}
    for place, values in places.items():
        for key, value in values.items():
            if not (key.endswith(("_act", "activation_function", "_eps")) and key not in OF_TRANSFORMERS):
                continue
            changed = {**values, key: value * 7 if isinstance(value, float) else "leaky_relu"}
            settings = {**defaults, place: changed} if place else changed
            found, said = outcome(cls, {**settings, "model_type": kind})
            assert found != before, key
            assert found is not None or key in said, said


def timm_folder(timm, folder, architecture, model_args, **config):
    """Writes a folder as timm does, with random weights, and returns timm's model."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, **model_args).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.05)
    timm.models.save_for_hf(model, folder, model_config=None, model_args=model_args, safe_serialization=True)
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    settings["pretrained_cfg"].update(config)
    path.write_text(json.dumps(settings))
    return model


FOLLOWED = [
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2, "num_classes": 7}),
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2, "global_pool": "avg", "patch_size": 8, "embed_dim": 96}),
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2, "in_chans": 1, "num_heads": 6, "dynamic_img_size": True}),
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 1, "mlp_ratio": 2.0, "qkv_bias": False, "drop_rate": 0.1}),
    ("resnet18", {"num_classes": 7, "in_chans": 1}),
    ("resnet18", {"num_classes": 0}),
    ("swin_tiny_patch4_window7_224", {"img_size": 56, "depths": [1, 1], "num_heads": [2, 4], "num_classes": 7}),
    ("efficientnet_b0", {"num_classes": 7}),
    ("tf_efficientnet_lite0", {"num_classes": 5}),
    ("mixer_b16_224", {"img_size": 32, "num_classes": 7}),
    ("vit_small_patch14_dinov2", {"img_size": 56, "depth": 2, "patch_size": 8, "embed_dim": 96}),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 56, "depth": 2, "num_classes": 7}),
    ("eva02_tiny_patch14_336", {"img_size": 56, "depth": 2, "num_classes": 7}),
    ("eva02_base_patch14_448", {"img_size": 56, "depth": 1}),
    ("vgg11", {"in_chans": 1, "num_classes": 0}),
]
REFUSED = [
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 1, "act_layer": "relu"}, "act_layer"),
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 1, "global_pool": "max"}, "global_pool 'max'"),
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 1, "init_values": 1e-5}, "init_values"),
    ("vit_tiny_patch16_224", {"img_size": 64, "depth": 1, "class_token": False, "global_pool": "avg"}, "class_token"),
    ("resnet18", {"output_stride": 16}, "output_stride"),
    ("resnet18", {"global_pool": "max"}, "global_pool 'max'"),
    ("resnet18", {"act_layer": "leaky_relu"}, "act_layer"),
]


@pytest.mark.parametrize(("architecture", "arguments"), FOLLOWED)
def test_arguments_of_timm_are_followed(timm, tmp_path, architecture, arguments):
    theirs = timm_folder(timm, tmp_path, architecture, arguments)
    ours = NexusModule.from_pretrained(tmp_path)
    side = arguments.get("img_size", 64)
    image = torch.randn(2, arguments.get("in_chans", 3), side, side)
    with torch.no_grad():
        wanted = theirs(image)
        assert (ours(image)["logits"] - wanted).abs().max() <= 1e-4 * max(1.0, wanted.abs().max().item())


ARCHITECTURES = {
    "vit_tiny_patch16_224": "VisionTransformer",
    "vit_small_patch14_dinov2": "VisionTransformer",
    "eva02_tiny_patch14_336": "Eva",
    "swin_tiny_patch4_window7_224": "SwinTransformer",
    "mixer_b16_224": "MlpMixer",
    "resnet18": "ResNet",
    "vgg11_bn": "VGG",
    "efficientnet_b0": "EfficientNet",
    "tf_efficientnetv2_s": "EfficientNet",
}
OTHER_VALUES = {
    bool: lambda old: not old,
    int: lambda old: 2 * old,
    float: lambda old: old + 0.25,
    str: lambda old: "other",
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_argument_of_timm_is_passed_over(timm, architecture):
    """Every argument of its class: it changes our configuration, acts in training alone, or is refused by name."""
    given = {"architecture": architecture, "pretrained_cfg": {"input_size": [3, 224, 224]}}
    config = model_info(architecture).config if architecture in list_models() else _timm_card(architecture).config
    before = config_from_timm(given, config, "config.json")[0]
    signature = inspect.signature(getattr(timm.models, ARCHITECTURES[architecture]).__init__)
    asked = [one for one in signature.parameters.values() if one.name not in ("self", "args", "kwargs", "global_pool")]
    assert len(asked) > 5
    for one in asked:
        change = OTHER_VALUES.get(type(one.default), lambda old: [3, 5])
        arguments = {one.name: change(one.default)}
        try:
            found = config_from_timm({**given, "model_args": arguments}, config, "config.json")[0]
        except FileError as error:
            said = str(error)
            assert one.name in said or _ARGUMENTS.get(one.name, one.name) in said, said
        else:
            assert found != before or one.name in _TRAINING, one.name


@pytest.mark.parametrize(("architecture", "arguments", "message"), REFUSED)
def test_other_arguments_of_timm_are_refused_by_name(timm, tmp_path, architecture, arguments, message):
    timm_folder(timm, tmp_path, architecture, arguments)
    with pytest.raises(FileError, match=rf"config\.json.*{message}"):
        NexusModule.from_pretrained(tmp_path)


def test_preprocessing_of_timm(timm, tmp_path):
    sizes = {"input_size": [3, 64, 64], "test_input_size": None, "test_crop_pct": None}
    config = {**sizes, "crop_pct": 0.9, "mean": [0.1, 0.2, 0.3], "interpolation": "bilinear"}
    timm_folder(timm, tmp_path, "resnet18", {}, **config)
    found = read_folder(tmp_path, NexusModule, "").preprocessing
    assert (found.image_size, found.resize_size, found.interpolation) == ((64, 64), 71, "bilinear")
    assert found.mean == (0.1, 0.2, 0.3)
    for key, value in (("crop_mode", "border"), ("interpolation", "random"), ("crop_pct", 0), ("mean", "x")):
        path = tmp_path / "config.json"
        settings = json.loads(path.read_text())
        settings["pretrained_cfg"][key] = value
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / "config.json").write_text(json.dumps(settings))
        with pytest.raises(FileError, match=key):
            read_folder(tmp_path / "other", NexusModule, "")


@pytest.mark.parametrize(
    "older",
    [
        {"vision_config_dict": {"patch_size": 16, "image_size": 64}},
        {"text_config_dict": {"num_hidden_layers": 3, "vocab_size": 100, "eos_token_id": 99}},
        {"text_config_dict": {}, "vision_config_dict": None},
        {"text_config_dict": {"num_hidden_layers": 3}, "vision_config_dict": {"num_hidden_layers": 2}},
    ],
)
def test_the_older_sections_of_clip_take_the_place_of_its_sections(transformers, older):
    """As CLIPConfig itself reads them: what they do not say is its default, not what the newer section says."""
    given = {"vision_config": {"patch_size": 8}, "text_config": {"num_hidden_layers": 5}, **older}
    theirs = json.loads(transformers.CLIPConfig(**json.loads(json.dumps(given))).to_json_string(use_diff=False))
    cls = reader("clip")
    assert cls.config_from_hub(given) == cls.config_from_hub(theirs)
    assert cls.config_from_hub(given) != cls.config_from_hub({key: given[key] for key in given.keys() - older.keys()})


def test_a_wrong_key_in_an_older_section_is_named():
    with pytest.raises(FileError, match=r"vision_config_dict\.brand_new_key"):
        reader("clip").config_from_hub({"vision_config_dict": {"brand_new_key": 1}})
