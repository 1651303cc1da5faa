"""InternVL, against kept results of the authors' image encoder and against transformers.

`golden/internvl_vision_*` hold weights and outputs of OpenGVLab/InternVL at 2410d1d, run in float64.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nexus import create_model, list_models, model_info
from nexus.core.documents import FileError
from nexus.core.formats import to_our_names
from nexus.deploy import export_onnx
from nexus.models.cv import InternVL
from nexus.models.cv.internvl.config import InternVLConfig
from nexus.models.cv.internvl.internvl import IGNORED, VARIANTS
from nexus.models.cv.internvl.vision import pixel_shuffle
from nexus.proofs.internvl import IMAGE_ID, as_published, shrink, transformers_internvl, written
from nexus.proofs.parity import randomize

GOLDEN = Path(__file__).parent / "golden"
PUBLISHED = {
    "internvl2_5_1b": 938_193_024,
    "internvl2_5_4b": 3_712_637_952,
    "internvl3_1b": 938_193_024,
    "internvl3_2b": 2_088_957_440,
    "internvl3_8b": 7_944_373_760,
    "internvl3_14b": 15_117_256_704,
    "internvl3_5_1b": 1_060_897_792,
    "internvl3_5_2b": 2_348_347_392,
    "internvl3_5_4b": 4_732_489_216,
    "internvl3_5_8b": 8_528_318_464,
    "internvl3_5_14b": 15_119_523_840,
}
LANGUAGE = {
    "model_type": "qwen2",
    "hidden_size": 40,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
FAMILIES = {
    "qwen2": {},
    "qwen3": {"head_dim": 16},
    "llama": {},
    "phi3": {"pad_token_id": 0},
}


class Kept:
    """What the authors' code gave, and our model with its weights."""

    def __init__(self, kind: str) -> None:
        data = load_file(GOLDEN / f"internvl_vision_{kind}.safetensors")
        self.data = {key: value.double() if value.is_floating_point() else value for key, value in data.items()}
        told = json.loads((GOLDEN / f"internvl_vision_{kind}.json").read_text())
        self.near = told["expected_tolerance"]["abs"]
        rms = {"norm": "rms", "qkv_bias": False, "qk_norm": True} if kind == "rms" else {}
        sizes = {"image_size": 84, "embed_dim": 48, "num_layers": 4, "num_heads": 4, "mlp_dim": 96}
        self.model = InternVL({**sizes, **rms, "language": LANGUAGE}).double().eval()
        state, spelling = to_our_names(
            {k[8:]: v for k, v in self.data.items() if k[:8] == "weights/"}, InternVL.formats
        )
        assert spelling == "authors"
        rest = {key: value for key, value in self.model.state_dict().items() if key.startswith("language.")}
        self.model.load_state_dict({**state, **rest})

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.data[key]


@pytest.fixture(scope="module", params=["ln", "rms"])
def kept(request) -> Kept:
    return Kept(request.param)


def tiny(name: str = "internvl3_1b", **changes) -> InternVL:
    torch.manual_seed(0)
    model = InternVL(VARIANTS[name].replace(**{**shrink(VARIANTS[name]), **changes}))
    return model.eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = create_model(name)
    assert model.num_parameters() == PUBLISHED[name] == model_info(name).num_parameters
    assert sum(p.numel() for p in model.visual.parameters()) == 304_012_288


def test_the_tower_of_six_billion_has_the_published_count():
    with torch.device("meta"):
        config = InternVLConfig(
            embed_dim=3200, num_layers=45, num_heads=25, mlp_dim=12800, norm="rms", qkv_bias=False, qk_norm=True,
            language=LANGUAGE,
        )  # fmt: skip
        model = InternVL(config)
    assert sum(p.numel() for p in model.visual.parameters()) == 5_536_496_000


def test_tokens_of_every_block_are_the_authors(kept):
    for number, tokens in enumerate(kept.model.visual(kept["inputs/pixel_values"])):
        torch.testing.assert_close(tokens, kept[f"outputs/hidden.{number}"], rtol=0, atol=2 * kept.near)
    other = kept.model.visual(kept["inputs/pixel_values_other_size"])[-1]
    torch.testing.assert_close(other, kept["outputs/other_size/last_hidden_state"], rtol=1e-6, atol=6e-6)


@pytest.mark.parametrize(
    ("changes", "name"),
    [({}, "features_v2"), ({"shuffle_version": 1}, "features_v1"), ({"select_layer": -2}, "features_select_minus2")],
)
def test_what_the_language_model_is_shown_is_the_authors(kept, changes, name):
    model, config = kept.model, kept.model.config
    model.config = config.replace(**changes)
    try:
        found = model.encode_image(kept["inputs/pixel_values"])
    finally:
        model.config = config
    torch.testing.assert_close(found, kept[f"outputs/{name}"], rtol=0, atol=kept.near)


@pytest.mark.parametrize("version", [1, 2])
def test_pixels_are_shuffled_as_by_the_authors(kept, version):
    numbers = torch.arange(48.0).double().view(1, 4, 6, 2)
    assert torch.equal(pixel_shuffle(numbers, 2, version), kept[f"outputs/pixel_shuffle_index/v{version}"])


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_answers_equal_transformers(transformers, family):
    language = {**LANGUAGE, "hidden_size": 32, **FAMILIES[family], "model_type": family}
    config = InternVLConfig(**{**shrink(VARIANTS["internvl3_1b"]), "language": language})
    torch.manual_seed(0)
    theirs = transformers_internvl(transformers, config).double().eval()
    randomize(theirs)
    ours = InternVL(config).double().eval()
    state, _ = to_our_names(as_published(theirs.state_dict()), InternVL.formats)
    ours.load_state_dict(ours.fit_state(state))
    images = torch.randn(2, 3, 56, 56, dtype=torch.double)
    tokens, places = written(images)
    mask = torch.ones_like(tokens)
    mask[0, 0] = 0  # the first text is shorter
    wanted = theirs(input_ids=tokens, pixel_values=images, attention_mask=mask).logits
    found = ours(images, tokens, places, attention_mask=mask)["logits"]
    torch.testing.assert_close(found[mask == 1], wanted[mask == 1], rtol=1e-10, atol=1e-10)
    kind = {"input_ids": tokens, "attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    answer = theirs.generate(pixel_values=images, pad_token_id=0, **kind)[:, tokens.shape[1] :]
    assert torch.equal(ours.generate(images, tokens, places, attention_mask=mask, max_new_tokens=6), answer)


def test_the_loss_of_words_equals_transformers(transformers):
    config = VARIANTS["internvl3_1b"].replace(**shrink(VARIANTS["internvl3_1b"]))
    torch.manual_seed(0)
    theirs = transformers_internvl(transformers, config).eval()
    ours = InternVL(config).eval()
    state, _ = to_our_names(as_published(theirs.state_dict()), InternVL.formats)
    ours.load_state_dict(ours.fit_state(state))
    images = torch.randn(2, 3, 56, 56)
    tokens, places = written(images)
    labels = torch.where(places, IGNORED, tokens)
    wanted = theirs(input_ids=tokens, pixel_values=images, labels=labels).loss
    found = ours(images, tokens, places, labels=labels)["losses"]["language"]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spelling", ["hub", "authors", "authors in parts"])
def test_folders_of_both_layouts_load(transformers, tmp_path, spelling):
    config = VARIANTS["internvl3_1b"].replace(**shrink(VARIANTS["internvl3_1b"]))
    torch.manual_seed(0)
    theirs = transformers_internvl(transformers, config).eval()
    randomize(theirs)
    if spelling == "hub":
        theirs.save_pretrained(tmp_path)
    else:
        _save_as_authors(theirs, config, tmp_path, parts=2 if "parts" in spelling else 1)
    loaded = InternVL.from_pretrained(tmp_path)
    images = torch.randn(1, 3, 56, 56)
    tokens, places = written(images)
    wanted = theirs(input_ids=tokens, pixel_values=images).logits
    torch.testing.assert_close(loaded(images, tokens, places)["logits"], wanted, rtol=1e-4, atol=1e-4)
    assert loaded.config.max_tiles == (12 if spelling == "hub" else 6)


def _save_as_authors(model, config, folder, parts):
    names = {
        "vision_tower.embeddings.cls_token": "vision_model.embeddings.class_embedding",
        "vision_tower.embeddings.position_embeddings": "vision_model.embeddings.position_embedding",
        "vision_tower.embeddings.patch_embeddings.projection": "vision_model.embeddings.patch_embedding",
        "vision_tower.encoder.layer": "vision_model.encoder.layers",
        "attention.projection_layer": "attn.proj",
        "lambda_": "ls",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "multi_modal_projector.layer_norm": "mlp1.0",
        "multi_modal_projector.linear_1": "mlp1.1",
        "multi_modal_projector.linear_2": "mlp1.3",
    }
    state = {}
    for key, value in as_published(model.state_dict()).items():
        for theirs, authors in names.items():
            key = key.replace(theirs, authors)
        state[key] = value.clone()
    for key in [key for key in state if "attention.q_proj" in key]:
        rows = [state.pop(key.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        state[key.replace("attention.q_proj", "attn.qkv")] = torch.cat(rows)
    keys, index = sorted(state), {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors" if parts > 1 else "model.safetensors"
        mine = keys[part::parts]
        save_file({key: state[key] for key in mine}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(mine, file)
    if parts > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    told = {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": config.image_size,
        "llm_config": {**config.language, "architectures": ["Qwen2ForCausalLM"], "torch_dtype": "bfloat16"},
        "max_dynamic_patch": 6,
        "min_dynamic_patch": 1,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "torch_dtype": "bfloat16",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "hidden_size": config.embed_dim,
            "image_size": config.image_size,
            "intermediate_size": config.mlp_dim,
            "num_attention_heads": config.num_heads,
            "num_hidden_layers": config.num_layers,
            "norm_type": "layer_norm",
            "patch_size": 14,
            "qk_normalization": False,
            "qkv_bias": True,
            "use_flash_attn": True,
        },
    }
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "modeling_internvl_chat.py").write_text("raise SystemExit('code of a folder ran')")


def test_saving_and_loading_keeps_everything(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    again = InternVL.from_pretrained(tmp_path)
    assert again.config == model.config
    images = torch.randn(1, 3, 56, 56)
    assert torch.equal(again(images, *written(images))["logits"], model(images, *written(images))["logits"])


def test_drawn_words_follow_the_seed():
    model, images = tiny(), torch.randn(1, 3, 56, 56)
    rows = []
    for _ in range(2):
        torch.manual_seed(3)
        rows.append(model.generate(images, *written(images), max_new_tokens=8, temperature=1.0, top_p=0.9))
    assert torch.equal(*rows)
    assert rows[0].shape == (1, 8)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda model, images: model(images, torch.full((1, 9), IMAGE_ID), torch.zeros(1, 9).bool()),
            "The texts have 0 places for tokens of images, and the images give 4: a tile needs 4",
        ),
        (
            lambda model, images: model(None, *written(images)),
            "have 4 places for tokens of images, and the images give 0",
        ),
        (lambda model, images: model(images, torch.ones(1, 9)), r"tokens are torch.float32 of shape \(1, 9\)"),
        (lambda model, images: model(None, [[1, 2]]), "tokens are a list; the model takes a tensor of ids"),
        (
            lambda model, images: model(None, torch.tensor([[3, 10**6]])),
            "ids from 3 to 1000000, and the model knows 100",
        ),
        (lambda model, images: model(None, torch.tensor([[-3, 3]])), "ids from -3 to 3, and the model knows 100"),
        (
            lambda model, images: model(images, torch.ones(1, 9).long(), torch.ones(1, 4).bool()),
            r"places are \(1, 4\) and tokens \(1, 9\); they must be one",
        ),
        (lambda model, images: model.encode_image(torch.ones(1, 3, 42, 42)), "has 3 x 3 patches; both must be multipl"),
        (lambda model, images: model.encode_image(torch.ones(1, 1, 56, 56)), "channel"),
    ],
)
def test_mistakes_are_answered(act, message):
    with pytest.raises(ValueError, match=message):
        act(tiny(), torch.randn(1, 3, 56, 56))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 434}, "image_size 434 has 31 patches a side, which is no multiple of shuffle 2"),
        ({"select_layer": 3}, "select_layer is 3; it counts the 24 blocks from the end"),
        ({"min_tiles": 7, "max_tiles": 6}, "min_tiles is 7 and max_tiles 6; 1 <= min <= max"),
        ({"language": {"hidden_size": 8}}, "language has no model_type or no hidden_size"),
    ],
)
def test_impossible_configurations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        InternVLConfig(**fields)


def test_other_families_and_odd_configurations_are_named():
    with pytest.raises(ValueError, match="The language model is of the family 'internlm2'"):
        InternVL({"language": {"model_type": "internlm2", "hidden_size": 8}})
    with pytest.raises(ValueError, match="transformers builds no qwen2 of this configuration"):
        InternVL({"language": {**LANGUAGE, "num_attention_heads": 0}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llm_config": {"model_type": "internlm2"}}, "its model_type 'internlm2' is none of qwen2, qwen3, llama"),
        ({"ps_version": "v3"}, "ps_version is 'v3'; it is v1 or v2"),
        ({"downsample_ratio": 0.3}, "downsample_ratio is 0.3; its inverse is a whole number"),
        ({"router": {"tokens": 64}}, "router"),
        ({"vision_config": {"norm_type": "batch_norm"}}, "norm_type is 'batch_norm'"),
    ],
)
def test_keys_that_are_not_built_are_refused_by_name(changes, message):
    vision = {"hidden_size": 32, "num_attention_heads": 2, "norm_type": "layer_norm", "image_size": 56}
    told = {"model_type": "internvl_chat", "vision_config": vision, "llm_config": LANGUAGE, **changes}
    with pytest.raises(FileError, match=message):
        InternVL.config_from_hub(told)


@pytest.mark.needs("onnxscript")
def test_it_is_not_exported_as_a_whole(tmp_path):
    with pytest.raises(ValueError, match="An InternVL cannot be exported as a whole: it writes word after word"):
        export_onnx(tiny(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_they_are_listed():
    assert list_models("internvl*") == sorted(PUBLISHED)
