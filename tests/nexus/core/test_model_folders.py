"""Folders of models from strangers: nothing in them runs, nothing outside them is read, what is wrong is one line."""

import json

import pytest

import nexus
from nexus.core.documents import FileError
from nexus.core.module import NexusModule
from nexus.tasks.image_text.tokenizers import load_tokenizer

WRONG = [
    None,
    3,
    1.5,
    True,
    "text",
    [],
    {},
    [None],
    {"a": None},
    [[[]]],
    "../x",
    "/etc/passwd",
    "a\x1b[31m\n",
    -1,
    1e308,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return nexus.create_model("resnet18", hidden_dim=4, num_classes=3).save_pretrained(tmp_path_factory.mktemp("model"))


def write(folder, settings):
    (folder / "config.json").write_text(json.dumps(settings))


def copied(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return json.loads((folder / "config.json").read_text())


def outcome(folder):
    """The model, or None and what the refusal says."""
    try:
        return NexusModule.from_pretrained(folder), ""
    except ValueError as error:
        return None, str(error)


def test_a_wrong_value_anywhere_names_the_file(folder, tmp_path):
    settings = copied(folder, tmp_path)
    places = [settings, settings["config"], settings["preprocessing"]]
    for place in places:
        for key, kept in list(place.items()):
            for wrong in WRONG:
                place[key] = wrong
                write(tmp_path, settings)
                model, said = outcome(tmp_path)
                assert model is not None or str(tmp_path) in said, (key, wrong, said)
            place[key] = kept
    for wrong in [*WRONG, "[" * 9999]:
        (tmp_path / "config.json").write_text(wrong if isinstance(wrong, str) else json.dumps(wrong))
        model, said = outcome(tmp_path)
        assert model is None
        assert "config.json" in said


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "tokenizer.py", ".", "", "secret", "config.json", 3, None]
)
def test_files_are_of_a_closed_list(folder, tmp_path, name):
    settings = copied(folder, tmp_path)
    write(tmp_path, {**settings, "files": [name]})
    with pytest.raises(FileError, match=r"config\.json names the file .* among files; known are"):
        NexusModule.from_pretrained(tmp_path)


def test_a_file_that_is_a_link_out_is_not_read(folder, tmp_path):
    inside = tmp_path / "model"
    inside.mkdir()
    settings = copied(folder, inside)
    (tmp_path / "secret").write_text("secret")
    (inside / "vocab.txt").symlink_to(tmp_path / "secret")
    write(inside, {**settings, "files": ["vocab.txt"]})
    with pytest.raises(FileError, match="is a link out of"):
        NexusModule.from_pretrained(inside)


def test_code_of_a_tokenizer_does_not_run(transformers, tmp_path):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T:\n    pass\n")
    auto = {"AutoTokenizer": ["evil.T", "evil.T"], "AutoConfig": "evil.T"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T", "auto_map": auto}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    model = nexus.create_model("clip_vit_base_patch32_224", num_layers=1, text_num_layers=1)
    with pytest.raises(ValueError, match="There is no tokenizer at") as refused:
        load_tokenizer(model, tmp_path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


def test_a_push_without_a_network_says_what_to_do(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = NexusModule.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"'me/mine' cannot be uploaded: the hub cannot be reached.*hf upload me/mine"):
        model.push_to_hub("me/mine")
