"""Masked pre-training of HiViT against the paper written once more, and what a classifier takes over from it."""

import pytest
import torch

from nexus.core.module import NexusModule
from nexus.models.cv import HiViT, HiViTMAE, HiViTMAEConfig
from nexus.models.registry import create_model, model_info
from nexus.proofs import randomize
from nexus.proofs.hivit import WrittenHiViTMAE, authors_names, draw

TINY = HiViTMAEConfig(
    image_size=32,
    patch_size=8,
    embed_dim=16,
    num_layers=(1, 1, 2),
    num_heads=2,
    decoder_dim=12,
    decoder_num_layers=1,
    decoder_num_heads=3,
)
NOISE = torch.rand(2, 16, generator=torch.Generator().manual_seed(3))
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(("ratio", "norm_pix_loss"), [(0.75, True), (0.3, False)])
def test_loss_and_gradients_are_those_of_the_written_paper(ratio, norm_pix_loss):
    config = TINY.replace(mask_ratio=ratio, norm_pix_loss=norm_pix_loss)
    theirs, ours = WrittenHiViTMAE(config).double(), HiViTMAE(config).double()
    draw(theirs)
    ours.load_state_dict(authors_names(theirs.state_dict()))
    wanted = theirs(IMAGES.double(), NOISE)
    found = ours(IMAGES.double(), noise=NOISE)["losses"]["reconstruction"]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)
    wanted.backward()
    found.backward()
    learned = authors_names(dict(theirs.named_parameters()))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, learned[name].grad, rtol=1e-9, atol=1e-12, msg=name)


def test_parameter_count():
    with torch.device("meta"):
        model = create_model("mae_hivit_base")
        classifier = HiViT(model.config.encoder.replace(num_classes=1000, relative_bias=True))
    assert model.num_parameters() == model_info("mae_hivit_base").num_parameters == 87_041_152
    assert classifier.num_parameters() == model_info("hivit_base").num_parameters


def test_hidden_patches_are_never_seen():
    """Sec. 3.3: no stage mixes patches before the last, so what is hidden changes nothing that is said."""
    model = HiViTMAE(TINY).eval()
    outputs = model(IMAGES, noise=NOISE)
    hidden = outputs["mask"].bool()
    assert hidden.sum(1).tolist() == [12, 12]
    patches = model.patchify(IMAGES)
    changed = model.paint(IMAGES, {"predictions": torch.randn_like(patches), "mask": outputs["mask"]})
    assert not torch.equal(changed, IMAGES)
    assert torch.equal(model(changed, noise=NOISE)["predictions"], outputs["predictions"])


def test_the_classifier_sees_what_the_encoder_saw():
    """Fresh biases are zero, so with no patch hidden both say the same."""
    model = HiViTMAE(TINY.replace(mask_ratio=0.0)).eval()
    randomize(model)
    classifier = model.to_classifier(5).eval()
    encoder = model(IMAGES, noise=torch.arange(16.0).expand(2, 16))
    found = classifier(IMAGES)
    torch.testing.assert_close(found["features"][-1], encoder["features"][-1], rtol=1e-5, atol=1e-5)
    larger = model.to_classifier(7, image_size=48, drop_path_rate=0.1)
    assert larger(torch.randn(1, 3, 48, 48))["logits"].shape == (1, 7)


def test_reads_a_file_of_the_pre_training(tmp_path, caplog):
    """The authors' file has the names of this model; a classifier takes the encoder and fresh biases from it."""
    theirs = HiViTMAE(TINY)
    randomize(theirs)
    torch.save({"model": theirs.state_dict()}, tmp_path / "mae_hivit.pth")
    ours = HiViTMAE.from_pretrained(tmp_path / "mae_hivit.pth", **TINY.to_dict())
    assert torch.equal(ours(IMAGES, noise=NOISE)["predictions"], theirs.eval()(IMAGES, noise=NOISE)["predictions"])
    described = TINY.encoder.replace(num_classes=5, relative_bias=True).to_dict()
    classifier = HiViT.from_pretrained(tmp_path / "mae_hivit.pth", **described)
    assert torch.equal(classifier.blocks[7].attn.qkv.weight, theirs.blocks[7].attn.qkv.weight)
    assert not classifier.blocks[7].attn.relative_position_bias_table.any()
    assert "head" in caplog.text


def test_what_every_model_owes(tmp_path):
    model = HiViTMAE(TINY)
    outputs = model(IMAGES, noise=NOISE, output_attentions=True)
    assert [tuple(x.shape) for x in outputs["features"]] == [
        (2, 4, 4, 4, 4), (2, 4, 4, 4, 4), (2, 4, 2, 2, 8), (2, 4, 2, 2, 8), (2, 4, 2, 2, 8), (2, 4, 1, 1, 16),
        (2, 4, 16), (2, 4, 16),
    ]  # fmt: skip
    for maps in outputs["attentions"]:
        assert maps.shape == (2, 2, 4, 4)
        torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 4))
    outputs["losses"]["reconstruction"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    model.set_gradient_checkpointing().zero_grad()
    model(IMAGES, noise=NOISE)["losses"]["reconstruction"].backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients.get(name))
    alone = torch.cat([model(IMAGES[i : i + 1], noise=NOISE[i : i + 1])["predictions"] for i in range(2)])
    torch.testing.assert_close(outputs["predictions"], alone, rtol=1e-5, atol=1e-5)
    again = NexusModule.from_pretrained(model.save_pretrained(tmp_path))
    assert torch.equal(again(IMAGES, noise=NOISE)["predictions"], model(IMAGES, noise=NOISE)["predictions"])
    assert "features" not in model(IMAGES, output_features=False)
    wide = torch.randn(1, 3, 16, 40)
    assert model(wide)["predictions"].shape == (1, 10, 192)
    with pytest.raises(ValueError, match="images are 30x32 pixels; both sides must be multiples of 8"):
        model(torch.zeros(1, 3, 30, 32))
