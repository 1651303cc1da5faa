"""Grounding DINO against transformers, against kept results of the authors' code, and against what we promise.

`golden/grounding_dino` holds a small model that ran in the authors' code (GroundingDINO at 856dde2): its weights under
their names, pictures and captions, and what came out of each stage. Where captions differ within a batch the authors
mix up the masks of the images (users' issue 294); the kept result has that put right.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nexus import create_model
from nexus.core.formats import to_our_names
from nexus.core.module import NexusModule
from nexus.core.outline import outlined
from nexus.models.cv import GroundingDINO, GroundingDINOConfig
from nexus.models.cv.grounding_dino.losses import grounding_losses
from nexus.models.cv.grounding_dino.phrases import class_chances, divide, phrase_spans
from nexus.ops.set_prediction import Objects
from nexus.proofs.grounding_dino import SMALL, TOKENS, enliven, hub_grounding_dino, published, targets_for, theirs
from nexus.proofs.parity import randomize

GOLDEN = Path(__file__).parent / "golden"
FACTS = json.loads((GOLDEN / "grounding_dino.json").read_text())
CASES = ["b1", "b1_long", "b1_padded", "b2_same_caption", "b2_different_captions_corrected"]
ENDS = (101, 102, 1012, 1029)
AUTHORS = GroundingDINOConfig(
    backbone={
        "name": "swin_tiny_patch4_window7_224",
        "embed_dim": 8,
        "num_layers": (1, 1, 2, 1),
        "num_heads": (1, 1, 2, 2),
        "window_size": 4,
    },
    num_layers=(1, 2),
    hidden_dim=64,
    num_queries=12,
    text_dim=32,
    text_num_layers=2,
    text_num_heads=2,
    text_hidden_dim=64,
    vocab_size=1200,
    text_positions=256,
)


@pytest.fixture(scope="module")
def golden():
    files = ("grounding_dino", "grounding_dino_decoder")
    return {key: value for name in files for key, value in load_file(GOLDEN / f"{name}.safetensors").items()}


def authors_state(golden):
    state = {}
    for key, value in golden.items():
        if key.startswith("weights/"):
            name = key.removeprefix("weights/")
            scale = 2.0 ** FACTS["int8_exponent"][name] if value.dtype == torch.int8 else 1.0
            state[name] = value.float() * scale
    return {**state, **{key: state[other] for key, other in FACTS["same_as"].items()}}


@pytest.fixture(scope="module")
def authors(golden):
    """Our model with the authors' weights."""
    model = GroundingDINO(AUTHORS).eval()
    state, spelling = to_our_names(authors_state(golden), GroundingDINO.formats)
    assert spelling == "authors"
    model.load_state_dict(state)
    return model


def given(golden, case):
    """The images of a case, and their sizes where they are padded already."""
    first, second = golden["inputs/image_a"], golden["inputs/image_b"]
    if case == "b1_padded":
        padded = torch.zeros(1, 3, 80, 128)
        padded[0, :, :64, :96] = first
        return padded, [(64, 96)]
    return ([first, second] if case.startswith("b2") else [first]), None


def small(**changes) -> GroundingDINO:
    torch.manual_seed(0)
    model = GroundingDINO(SMALL | changes)
    randomize(model)
    return model.eval()


@pytest.mark.parametrize("case", CASES)
def test_every_stage_is_the_authors(authors, golden, case):
    def kept(name):
        return golden[f"outputs/{case}/{name}"]

    states = {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, key=key: states.update({key: out}))
        for key, module in {"text": authors.text_encoder, "enhanced": authors.enhancer[-1]}.items()
    ]
    images, sizes = given(golden, case)
    with torch.no_grad():
        text = authors.encode_text(kept("input_ids"))
        outputs = authors(images, text, image_sizes=sizes)
    for hook in hooks:
        hook.remove()
    assert torch.equal(text.together, kept("text_block_mask"))
    assert torch.equal(text.places, kept("text_positions"))
    assert torch.equal(text.words.long(), kept("attention_mask"))
    torch.testing.assert_close(states["text"], kept("bert_last_hidden"), rtol=0, atol=2e-5)
    image, words = states["enhanced"]
    whole = f"outputs/{case}/image_enhanced" in golden
    wanted = kept("image_enhanced") if whole else kept("image_enhanced_every_8th")
    torch.testing.assert_close(image if whole else image[:, ::8], wanted, rtol=0, atol=2e-4)
    torch.testing.assert_close(words, kept("text_enhanced"), rtol=0, atol=2e-5)
    torch.testing.assert_close(outputs["encoder_boxes"], kept("reference.0"), rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs["embeddings"], kept("decoder_hidden.1"), rtol=0, atol=1e-4)
    torch.testing.assert_close(outputs["pred_logits"], kept("logits"), rtol=0, atol=1e-3)
    torch.testing.assert_close(outputs["pred_boxes"], kept("boxes"), rtol=0, atol=2e-5)


def test_fusion_and_text_block_are_the_authors(authors, golden):
    states = {}
    layer = authors.enhancer[0]
    hooks = [
        module.register_forward_hook(lambda _, __, out, key=key: states.update({key: out}))
        for key, module in {"fusion": layer.fusion, "text": layer.text_block}.items()
    ]
    with torch.no_grad():
        authors(given(golden, "b1")[0], golden["outputs/b1/input_ids"])
    for hook in hooks:
        hook.remove()
    image, text = states["fusion"]
    torch.testing.assert_close(image[:, ::8], golden["outputs/b1/after_fusion/image_every_8th"], rtol=0, atol=1e-4)
    torch.testing.assert_close(text, golden["outputs/b1/after_fusion/text"], rtol=0, atol=2e-5)
    torch.testing.assert_close(states["text"], golden["outputs/b1/after_text_layer"].transpose(0, 1), rtol=0, atol=2e-5)


def test_the_loss_is_the_published_one(authors, golden):
    """Kept in float64 by a computation of its own, of the last layer."""
    case = "outputs/b2_same_caption"
    ids = golden[f"{case}/input_ids"]
    spans = phrase_spans(ids, ENDS, 0)
    assert [[row.nonzero().flatten().tolist() for row in span] for span in spans] == [[[1], [3, 4]]] * 2
    objects = [
        Objects(golden[f"inputs/target_boxes_{place}"].double(), golden[f"inputs/target_labels_{place}"])
        for place in range(2)
    ]
    layers = {"": (golden[f"{case}/logits"].double(), golden[f"{case}/boxes"].double())}
    found = grounding_losses(layers, objects, spans, ids != 0, AUTHORS)
    for name, key, weight in (("classification", "focal", 2), ("box", "l1", 5), ("giou", "giou", 2)):
        torch.testing.assert_close(found[name], weight * golden[f"outputs/loss/{key}"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sum(found.values()), golden["outputs/loss/total_2_5_2"], rtol=1e-5, atol=1e-6)


def test_the_logit_of_a_box_is_the_authors_or_transformers():
    """1e-3 and 1e-5: boxes near the border of the image differ."""
    plain, other = small(inverse_sigmoid_eps=1e-3), small(inverse_sigmoid_eps=1e-5)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        apart = (plain(images, TOKENS)["pred_boxes"] - other(images, TOKENS)["pred_boxes"]).abs().max()
    assert apart > 1e-5


def test_eager_attention_makes_transformers_a_wrong_reference(transformers):
    """It adds a mask of yes and no to the scores there, so that phrases see each other: not an error of ours."""
    config = GroundingDINOConfig(**SMALL)
    reference = hub_grounding_dino(transformers, config).double()
    enliven(reference)
    model = GroundingDINO(config).double().eval()
    model.load_state_dict(to_our_names(published(reference.state_dict()), GroundingDINO.formats)[0])
    ids = TOKENS[1:]
    with torch.no_grad():
        text = model.encode_text(ids)
        _, together, places = divide(ids, ENDS)
        wanted = reference.model.text_backbone(ids, together[:, None], torch.zeros_like(ids), places)[0]
        torch.testing.assert_close(text.features, reference.model.text_projection(wanted), rtol=0, atol=1e-12)
        reference.model.text_backbone.set_attn_implementation("eager")
        wrong = reference.model.text_backbone(ids, together[:, None], torch.zeros_like(ids), places)[0]
    assert (wrong - wanted).abs().max() > 1e-2


def test_the_published_numbers_of_parameters():
    """transformers' 172,250,626 and 232,315,264 have the last norm of Swin, which nothing reads."""
    for name, number, unread in (("tiny", 172_250_626, 2 * 768), ("base", 232_315_264, 2 * 1024)):
        with outlined():
            model = create_model(f"grounding_dino_{name}")
        assert model.num_parameters() == number - unread
        text = sum(p.numel() for p in model.text_encoder.parameters())
        assert text == 108_891_648


def test_a_folder_of_transformers_is_read(transformers, tmp_path):
    """In the spelling of its files, which is not that of its classes, with the authors' logits of boxes."""
    config = GroundingDINOConfig(**SMALL)
    torch.manual_seed(0)
    reference = hub_grounding_dino(transformers, config)
    enliven(reference)
    reference.save_pretrained(tmp_path)
    model = NexusModule.from_pretrained(tmp_path)
    assert isinstance(model, GroundingDINO)
    assert model.config.inverse_sigmoid_eps == 1e-3
    model = NexusModule.from_pretrained(tmp_path, inverse_sigmoid_eps=1e-5)
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        found, wanted = model(images, TOKENS), reference(images, TOKENS, attention_mask=(TOKENS != 0).long())
    torch.testing.assert_close(found["pred_boxes"], wanted.pred_boxes, rtol=0, atol=1e-4)
    torch.testing.assert_close(found["pred_logits"], wanted.logits[..., :11], rtol=1e-3, atol=1e-3)


def test_phrases_end_at_their_separators():
    ids = torch.tensor([[101, 7, 8, 1012, 9, 1029, 102, 0], [101, 7, 1012, 9, 9, 9, 9, 102]])
    number, together, places = divide(ids, ENDS)
    assert number.tolist() == [[0, 1, 1, 1, 2, 2, 3, -1], [0, 1, 1, -1, -1, -1, -1, -1]]
    assert places.tolist() == [[0, 0, 1, 2, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]]
    assert together[0, 1].tolist() == [False, True, True, True] + [False] * 4
    assert together[1, 4].tolist() == [False] * 4 + [True] + [False] * 3  # what nothing ends sees itself alone
    spans = phrase_spans(ids, ENDS, 0)
    assert [[row.nonzero().flatten().tolist() for row in one] for one in spans] == [[[1, 2], [4]], [[1]]]


def test_a_class_is_as_likely_as_its_words_on_average():
    logits = torch.tensor([[0.0, 2.0, -torch.inf]])
    spans = torch.tensor([[True, True, False], [False, True, False]])
    chances = class_chances(logits, spans)
    assert chances[0].tolist() == pytest.approx([(0.5 + 0.880797) / 2, 0.880797], abs=1e-6)


def test_images_and_captions_of_a_batch_do_not_mix():
    model = small().double()
    images = [torch.randn(3, 64, 96).double(), torch.randn(3, 80, 64).double()]
    with torch.no_grad():
        together = model(images, TOKENS)
        for place, image in enumerate(images):
            padded = torch.zeros(1, 3, 80, 96).double()
            padded[0, :, : image.shape[1], : image.shape[2]] = image
            alone = model(padded, TOKENS[place : place + 1], image_sizes=[image.shape[1:]])
            for key in ("pred_logits", "pred_boxes"):
                torch.testing.assert_close(together[key][place], alone[key][0], rtol=1e-9, atol=1e-9)


def test_detections_are_pixels_and_rows_of_the_spans():
    model = small()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        outputs = model(images, TOKENS[1:])
    assert len(outputs["boxes"]) == 2
    for boxes, scores, labels in zip(outputs["boxes"], outputs["scores"], outputs["labels"]):
        assert boxes.shape == (20, 4)
        assert (scores.diff() <= 0).all()
        assert set(labels.tolist()) <= {0, 1, 2}
    spans = phrase_spans(TOKENS[1:], ENDS, 0)[0]
    assert outputs["scores"][0][0] == pytest.approx(class_chances(outputs["pred_logits"][0], spans).max().item())


def test_every_parameter_gets_a_gradient():
    model = small().train()
    outputs = model(torch.randn(2, 3, 96, 128), TOKENS, targets_for(torch.zeros(2, 3, 96, 128)))
    assert {"boxes", "scores", "labels"}.isdisjoint(outputs)
    assert len(outputs["losses"]) == 12
    sum(outputs["losses"].values()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing


def test_checkpointing_changes_nothing_but_memory():
    gradients = []
    for enabled in (False, True):
        model = small().double().set_gradient_checkpointing(enabled)
        outputs = model(torch.ones(2, 3, 64, 96).double(), TOKENS)
        outputs["pred_boxes"].square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], plain)


def test_transformers_runs_without_the_authors_padding(transformers):
    """The proof's own reference gives finite answers: what is compared is not a row of NaN."""
    reference = hub_grounding_dino(transformers, GroundingDINOConfig(**SMALL)).double()
    enliven(reference)
    assert theirs(reference, torch.randn(2, 3, 96, 128).double()).isfinite().all()


def test_errors_name_what_is_wrong():
    model = small()
    images = torch.randn(2, 3, 64, 96)
    with pytest.raises(ValueError, match="The caption has 17 tokens, and the model reads 16; ask in parts"):
        model(images, torch.full((1, 17), 7))
    with pytest.raises(ValueError, match="The caption has ids up to 5000; the model knows 0 to 1029"):
        model(images, torch.tensor([[101, 5000, 1012]]))
    with pytest.raises(ValueError, match="There are 3 captions for 2 images"):
        model(images, TOKENS[:1].repeat(3, 1))
    with pytest.raises(ValueError, match=r"tokens are torch\.float32"):
        model(images, TOKENS.float())
    with pytest.raises(ValueError, match=r"spans must be \(k, 11\)"):
        model(images, TOKENS, spans=torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="There are 1 targets for 2 images"):
        model(images, TOKENS, targets_for(images)[:1])
    with pytest.raises(ValueError, match="Target 1 has the label 9, and its caption has 3 classes, 0 to 2"):
        model(
            images,
            TOKENS,
            [targets_for(images)[0], {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.tensor([9])}],
        )
    with pytest.raises(ValueError, match="embed_dim 40 must be a multiple of 32 with num_heads 4"):
        GroundingDINOConfig(**SMALL | {"embed_dim": 40})
    with pytest.raises(ValueError, match="max_text_len is 64; it must lie in 2 to text_positions, 32"):
        GroundingDINOConfig(**SMALL | {"max_text_len": 64})
    with pytest.raises(ValueError, match="must be ids of the vocabulary, 0 to 99"):
        GroundingDINOConfig(**SMALL | {"vocab_size": 100})
