"""Loading by name, file, folder and address; saving; what does not fit."""

import hashlib
import http.server
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from nexus import NexusModule, WeightInitMixin
from nexus.core import weights
from nexus.core.card import ModelCard, Weights
from nexus.core.config import Config
from nexus.core.preprocessing import Preprocessing
from nexus.core.weights import find_source, load_weights
from nexus.models import registry
from nexus.models.cv import ResNet, VisionTransformer, ViTConfig
from nexus.models.registry import create_model
from nexus.proofs.vit import hub_vit

TINY = ViTConfig(image_size=32, patch_size=8, num_classes=5, embed_dim=24, num_layers=2, num_heads=2)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
HALF = Preprocessing(image_size=(32, 32), resize_size=36, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
NAMES = ("a", "b", "c", "d", "é")


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = VisionTransformer(TINY).eval()
    model.preprocessing, model.class_names = HALF, NAMES
    return model


@pytest.fixture
def published(model, monkeypatch, tmp_path):
    """A variant `vit_test` whose weights a local server has, in torchvision's names."""
    monkeypatch.setenv("NEXUS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NEXUS_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    www = tmp_path / "www"
    www.mkdir()
    torch.save({"model": model.state_dict()}, www / "vit.pth")
    digest = hashlib.sha256((www / "vit.pth").read_bytes()).hexdigest()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(www))

        def log_message(self, *_):
            pass

    registry.all_cards()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{httpd.server_port}/vit.pth"
        weights = (
            Weights(tag="good_in1k", url=url, sha256=digest[:8], preprocessing=HALF, class_names=NAMES),
            Weights(tag="bad_in1k", url=url.replace("vit.pth", "vit.pth?x"), sha256="0" * 8),
        )
        card = ModelCard(name="vit_test", model_class=VisionTransformer, config=TINY, weights=weights)
        monkeypatch.setitem(registry._CARDS, "vit_test", card)
        yield card
        httpd.shutdown()
        thread.join()


def test_a_published_file_is_fetched_checked_and_loaded(published, model, tmp_path):
    for name in ("vit_test", "vit_test.good_in1k"):
        loaded = NexusModule.from_pretrained(name)
        assert type(loaded) is VisionTransformer
        assert torch.equal(loaded(IMAGES)["logits"], model(IMAGES)["logits"])
        assert loaded.preprocessing == HALF
        assert loaded.card is published
        assert loaded.class_names == NAMES
        assert not loaded.training
    assert torch.equal(create_model("vit_test", pretrained=True)(IMAGES)["logits"], model(IMAGES)["logits"])
    assert (tmp_path / "home" / "weights" / "vit.pth").is_file()
    with pytest.raises(ValueError, match=r"vit_test has no weights 'god_in1k'. Did you mean 'good_in1k'"):
        create_model("vit_test.god_in1k", pretrained=True)


def test_names_of_classes_go_with_their_head(published):
    assert NexusModule.from_pretrained("vit_test", num_classes=2).class_names == ()


def test_a_changed_file_is_not_kept(published, tmp_path):
    with pytest.raises(ValueError, match=r"gave a file with the sha256 \w+, but it should begin with 00000000"):
        create_model("vit_test.bad_in1k", pretrained=True)
    assert not (tmp_path / "home" / "weights" / "vit.pth").exists()


def test_offline_names_file_address_and_place(published, monkeypatch, tmp_path):
    monkeypatch.setenv("NEXUS_OFFLINE", "1")
    place = tmp_path / "home" / "weights" / "vit.pth"
    with pytest.raises(ValueError, match=rf"vit.pth is not in the cache.*{published.weights[0].url}.*{place}"):
        create_model("vit_test", pretrained=True)


def test_offline_hub_names_file_address_and_place(monkeypatch, tmp_path):
    monkeypatch.setenv("NEXUS_OFFLINE", "1")
    monkeypatch.setenv("NEXUS_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    with pytest.raises(ValueError, match=r"model.safetensors of hf-hub:timm/resnet18.a1_in1k cannot be had") as caught:
        create_model("resnet18", pretrained=True)
    assert "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors" in str(caught.value)
    assert str(tmp_path / "hub" / "timm" / "resnet18.a1_in1k") in str(caught.value)


def test_a_hub_repository_put_there_by_hand(monkeypatch, tmp_path, model):
    monkeypatch.setenv("NEXUS_OFFLINE", "1")
    monkeypatch.setenv("NEXUS_HOME", str(tmp_path))
    model.save_pretrained(tmp_path / "hub" / "me" / "mine")
    loaded = NexusModule.from_pretrained("hf-hub:me/mine")
    assert torch.equal(loaded(IMAGES)["logits"], model(IMAGES)["logits"])


def test_a_hub_repository_in_parts(monkeypatch, tmp_path, model):
    monkeypatch.setenv("NEXUS_OFFLINE", "1")
    monkeypatch.setenv("NEXUS_HOME", str(tmp_path))
    folder = model.save_pretrained(tmp_path / "hub" / "me" / "mine")
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    index = {"weight_map": dict.fromkeys(model.state_dict(), "part-1.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded = NexusModule.from_pretrained("hf-hub:me/mine")
    assert torch.equal(loaded(IMAGES)["logits"], model(IMAGES)["logits"])


def test_save_and_load_are_bit_exact(model, tmp_path):
    folder = model.save_pretrained(tmp_path / "new" / "folder")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    for cls in (NexusModule, VisionTransformer):
        loaded = cls.from_pretrained(str(folder))
        assert loaded.config == model.config
        assert loaded.preprocessing == model.preprocessing
        assert loaded.class_names == model.class_names
        for key, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], value)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert settings["class"] == "VisionTransformer"
    assert settings["task"] == "classification"


def test_a_saved_variant_keeps_its_card(tmp_path):
    model = create_model("vit_tiny_patch16_224", num_layers=1, image_size=32, num_classes=3)
    again = NexusModule.from_pretrained(model.save_pretrained(tmp_path))
    assert again.card is model.card
    assert again.config == model.config


def test_another_number_of_classes_keeps_all_but_the_head(model, tmp_path, caplog):
    folder = model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "nexus"):
        loaded = VisionTransformer.from_pretrained(folder, num_classes=10)
    assert "The head was freshly initialised: model.safetensors has another one" in caplog.text
    assert loaded.head.out_features == 10
    assert loaded.class_names == ()
    assert torch.equal(loaded(IMAGES)["embeddings"], model(IMAGES)["embeddings"])
    headless = VisionTransformer.from_pretrained(folder, num_classes=0)
    assert torch.equal(headless(IMAGES)["logits"], model(IMAGES)["embeddings"])


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_adapt_the_first_layer_and_the_preprocessing(model, tmp_path, channels):
    loaded = VisionTransformer.from_pretrained(model.save_pretrained(tmp_path), in_channels=channels)
    assert loaded.preprocessing.mean == (0.5,) * channels
    if channels == 1:
        grey = IMAGES[:, :1]
        wanted = model(grey.expand(-1, 3, -1, -1))["logits"]
        torch.testing.assert_close(loaded(grey)["logits"], wanted, rtol=1e-4, atol=1e-5)
    assert loaded(torch.randn(1, channels, 32, 32))["logits"].isfinite().all()


def test_another_image_size_resamples_positions_and_follows_in_the_preprocessing(model, tmp_path):
    loaded = VisionTransformer.from_pretrained(model.save_pretrained(tmp_path), image_size=[64, 32])
    assert loaded.pos_embed.shape == (1, 33, 24)
    assert loaded.preprocessing.image_size == (64, 32)
    assert loaded.preprocessing.resize_size == 36
    assert not torch.equal(loaded.pos_embed[:, 1:], torch.zeros(1, 32, 24))


def test_a_file_is_loaded_into_an_existing_model_whole_or_not_at_all(model, tmp_path):
    state = model.state_dict()
    state["blocks.0.attn.qkv.weight"] = state["blocks.0.attn.qkv.weight"][:, :3]
    del state["norm.weight"]
    state["extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "wrong.pth")
    other = VisionTransformer(TINY)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"wrong\.pth") as caught:
        load_weights(other, tmp_path / "wrong.pth")
    message = str(caught.value)
    assert "it lacks norm.weight" in message
    assert "it has extra.weight too many" in message
    assert "blocks.0.attn.qkv.weight is (72, 3) and should be (72, 24)" in message
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


def test_only_another_head_says_what_to_pass(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "w.pth")
    other = VisionTransformer(TINY.replace(num_classes=9))
    with pytest.raises(ValueError, match=r"head.bias is \(5,\) and should be \(9,\); only the head differs: pass num_"):
        load_weights(other, tmp_path / "w.pth")
    load_weights(other, tmp_path / "w.pth", new_head=True)
    assert torch.equal(other.eval()(IMAGES)["embeddings"], model(IMAGES)["embeddings"])


def test_a_file_of_another_model_is_refused(tmp_path):
    torch.save(ResNet({"block": "basic", "num_layers": [1, 1, 1, 1]}).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet.pth .* does not fit VisionTransformer: it lacks .* and \d+ more"):
        VisionTransformer.from_pretrained(tmp_path / "resnet.pth", **TINY.to_dict())


def test_a_folder_of_another_class_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="is a VisionTransformer, not a ResNet"):
        ResNet.from_pretrained(model.save_pretrained(tmp_path))


def test_timm_folders_are_read(timm, tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=7, depth=12).eval()
    timm.models.save_for_hf(theirs, tmp_path, model_config={"num_classes": 7})
    loaded = NexusModule.from_pretrained(tmp_path)
    assert loaded.card.name == "vit_tiny_patch16_224"
    assert loaded.config.num_classes == 7
    assert loaded.preprocessing.resize_size == 248
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(loaded(images)["logits"], theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not valid JSON"),
        ("[]", "config.json is not valid JSON .it holds a list"),
        ("{}", "config.json names no model"),
        ('{"class": "os.system"}', "is for the class 'os.system', which is not part of the zoo"),
        ('{"class": "VisionTransformer", "config": {"depth": 3}}', "ViTConfig has no key 'depth'"),
        ('{"architecture": "vit_tiny_patch16_22"}', "Did you mean 'vit_tiny_patch16_224'"),
        ('{"model_type": "vitt"}', "has the model_type 'vitt'. Did you mean 'vit'"),
    ],
)
def test_folders_with_a_wrong_config(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        NexusModule.from_pretrained(tmp_path)


def test_sources_that_are_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"There is no model 'resnet5'. Did you mean 'resnet50'"):
        NexusModule.from_pretrained("resnet5")
    with pytest.raises(ValueError, match="There is no file or folder absent/folder"):
        NexusModule.from_pretrained("absent/folder")
    with pytest.raises(ValueError, match=r"There is no file or folder absent\.pth"):
        NexusModule.from_pretrained("absent.pth")
    with pytest.raises(ValueError, match=r"has no config\.json; it is not a model that save_pretrained wrote"):
        NexusModule.from_pretrained(tmp_path)
    torch.save({"w": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth is not a published file, so nothing says which model"):
        NexusModule.from_pretrained(tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"'a/\.\./b' is not a repository of the hub"):
        NexusModule.from_pretrained("hf-hub:a/../b")


def test_a_published_file_is_known_by_its_name(tmp_path):
    path = tmp_path / "resnet50-11ad3fa6.pth"
    path.write_bytes(b"")
    found = find_source(path, NexusModule)
    assert found.card.name == "resnet50"
    assert found.preprocessing.resize_size == 232


class MyModel(WeightInitMixin, NexusModule):
    """As in the seeds: a mapping instead of a configuration class."""

    def __init__(self, config: Mapping[str, Any]):
        super().__init__(config)
        self.linear = nn.Linear(config["width"], 2)
        self.init_weights_vision()

    def forward(self, x):
        return {"logits": self.linear(x)}


def test_a_users_own_model_is_saved_and_loaded(tmp_path):
    model = MyModel({"width": 3})
    assert not model.linear.bias.any()
    loaded = MyModel.from_pretrained(model.save_pretrained(tmp_path))
    assert loaded.config == {"width": 3}
    assert torch.equal(loaded.linear.weight, model.linear.weight)
    with pytest.raises(ValueError, match=r"is for the class 'MyModel', which is not part of the zoo. Call MyModel"):
        NexusModule.from_pretrained(tmp_path)


@dataclass(frozen=True, kw_only=True)
class MyConfig(Config):
    width: int = 3
    num_samples: int = 0


class MyOwn(NexusModule):
    config_class = MyConfig
    config: MyConfig

    def __init__(self, config):
        super().__init__(config)
        self.linear = nn.Linear(self.config.width, 2)


def test_a_number_of_a_users_own_configuration_may_be_any(tmp_path):
    model = MyOwn(MyConfig(num_samples=5_000_000))
    loaded = MyOwn.from_pretrained(model.save_pretrained(tmp_path))
    assert loaded.config.num_samples == 5_000_000
    assert torch.equal(loaded.linear.weight, model.linear.weight)


@pytest.mark.parametrize(("key", "value"), [("image_size", 1 << 30), ("num_layers", 1 << 30)])
def test_a_number_of_the_zoos_configurations_is_bounded_before_anything_is_built(model, tmp_path, key, value):
    path = model.save_pretrained(tmp_path) / "config.json"
    settings = json.loads(path.read_text())
    settings["config"][key] = value
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=rf"its configuration has {key} = 1073741824, which no model of"):
        NexusModule.from_pretrained(tmp_path)


def test_no_space_while_saving_leaves_the_old_model(model, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        VisionTransformer(TINY).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_what_describes_a_model_is_written_after_its_weights(model, tmp_path, monkeypatch):
    """A save that is stopped at any file leaves no folder that names weights which are not there."""
    model.files = {"words.txt": b"one"}
    written, write = [], weights.write_whole
    monkeypatch.setattr(weights, "write_whole", lambda path, *rest: (written.append(path.name), write(path, *rest)))
    model.save_pretrained(tmp_path)
    assert written == ["model.safetensors", "words.txt", "config.json"]


def test_classes_of_a_hub_folder_are_in_the_order_of_their_numbers(transformers, tmp_path):
    theirs = hub_vit(transformers, TINY.replace(num_classes=12), id2label={n: f"class {n}" for n in range(12)})
    theirs.save_pretrained(tmp_path)
    assert NexusModule.from_pretrained(tmp_path).class_names == tuple(f"class {n}" for n in range(12))


def test_push_to_hub_uploads_what_save_writes(model, monkeypatch):
    import huggingface_hub

    seen = {}

    class Api:
        def __init__(self, token):
            seen["token"] = token

        def create_repo(self, repo_id, *, private, exist_ok):
            seen["repo"] = (repo_id, private, exist_ok)

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            seen["logits"] = NexusModule.from_pretrained(folder_path)(IMAGES)["logits"]
            return type("Commit", (), {"commit_url": f"https://hub/{repo_id}/commit/1"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr("nexus.core.weights.reachable", lambda url: True)
    assert model.push_to_hub("me/mine", private=True, token="t") == "https://hub/me/mine/commit/1"
    assert seen["repo"] == ("me/mine", True, True)
    assert torch.equal(seen["logits"], model(IMAGES)["logits"])
