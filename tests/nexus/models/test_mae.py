"""MAE against transformers and the authors' layout, and the classifier that comes after it against timm."""

import pytest
import torch

from nexus.core.module import NexusModule
from nexus.core.weights import load_weights
from nexus.models.cv import MAE, MAEConfig, VisionTransformer
from nexus.models.cv.masked_autoencoder import sincos_positions
from nexus.models.registry import create_model, list_models, model_info
from nexus.proofs import randomize
from nexus.proofs.vit import hub_mae

TINY = MAEConfig(
    image_size=32,
    patch_size=8,
    embed_dim=24,
    num_layers=2,
    num_heads=2,
    mlp_ratio=2.0,
    decoder_dim=16,
    decoder_num_layers=1,
    decoder_num_heads=4,
    norm_pix_loss=False,
)
NOISE = torch.rand(2, 16, generator=torch.Generator().manual_seed(3))
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(4))


class Noisy(MAE):
    """MAE whose mask is that of NOISE."""

    config: MAEConfig

    def forward(self, images, **keywords):
        return super().forward(images, noise=NOISE[:, : images.shape[2] * images.shape[3] // 64], **keywords)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
@pytest.mark.parametrize("ratio", [0.75, 0.3])
def test_loss_and_gradients_match_transformers(transformers, assert_parity, norm_pix_loss, ratio):
    ours = Noisy(TINY.replace(norm_pix_loss=norm_pix_loss, mask_ratio=ratio))
    assert_parity(
        ours,
        hub_mae(transformers, TINY, norm_pix_loss=norm_pix_loss, mask_ratio=ratio),
        IMAGES,
        spelling="hub",
        run=lambda model, x: model(x, noise=NOISE).loss,
        read=lambda outputs: outputs["losses"]["reconstruction"],
    )


@pytest.mark.parametrize("size", [(32, 32), (16, 24)])
def test_predictions_and_mask_match_transformers(transformers, size):
    theirs, ours = hub_mae(transformers, TINY).double().eval(), MAE(TINY).double().eval()
    ours.load_state_dict(MAE.formats[0].to_ours(theirs.state_dict()))
    images, noise = torch.randn(2, 3, *size).double(), NOISE[:, : size[0] * size[1] // 64]
    outputs = ours(images, noise=noise)
    wanted = theirs(images, noise=noise, interpolate_pos_encoding=True)
    assert torch.equal(outputs["mask"], wanted.mask.double())
    torch.testing.assert_close(outputs["predictions"], wanted.logits, rtol=1e-10, atol=1e-10)


def test_fresh_positions_are_those_of_transformers(transformers):
    table = transformers.models.vit_mae.modeling_vit_mae.build_2d_sinusoidal_position_embedding
    ours = MAE(TINY)
    for positions, width in ((ours.pos_embed, 24), (ours.decoder_pos_embed, 16)):
        rows_first = table(4, 4, width, cls_token=True)
        theirs = rows_first.roll(width // 2, dims=1)  # published weights have the column first
        torch.testing.assert_close(positions[0].detach(), theirs)
    assert not ours.pos_embed.requires_grad
    rows = sincos_positions((2, 3), 8, 1)[0, 1:].reshape(2, 3, 8)
    assert torch.equal(rows[0, :, :4], rows[1, :, :4])  # the first half tells the column
    assert torch.equal(rows[:, 0, 4:], rows[:, 2, 4:])  # the second half tells the row


def test_reads_a_hub_folder(transformers, tmp_path):
    """Published files call the decoder's blocks decoder_layers; what this transformers writes, decoder_encoder.layer."""
    theirs = hub_mae(transformers, TINY).eval()
    theirs.save_pretrained(tmp_path)
    ours = MAE.from_pretrained(tmp_path)
    assert ours.config == TINY
    outputs, wanted = ours(IMAGES, noise=NOISE), theirs(IMAGES, noise=NOISE)
    torch.testing.assert_close(outputs["losses"]["reconstruction"], wanted.loss, rtol=1e-5, atol=1e-5)


def authors_state(transformers):
    """The reference's weights under the authors' names, which are timm's for the encoder."""
    return MAE.formats[0].to_ours(hub_mae(transformers, TINY).state_dict())


def test_reads_the_authors_file_with_a_decoder(transformers, tmp_path):
    theirs = hub_mae(transformers, TINY).eval()
    torch.save({"model": MAE.formats[0].to_ours(theirs.state_dict())}, tmp_path / "mae_visualize.pth")
    ours = MAE.from_pretrained(tmp_path / "mae_visualize.pth", **TINY.to_dict())
    wanted = theirs(IMAGES, noise=NOISE)
    torch.testing.assert_close(ours(IMAGES, noise=NOISE)["predictions"], wanted.logits, rtol=1e-5, atol=1e-5)


def test_reads_the_authors_file_of_the_encoder_alone(transformers, tmp_path, caplog):
    state = authors_state(transformers)
    encoder = {key: value for key, value in state.items() if not key.startswith(("decoder", "mask_token"))}
    torch.save({"model": encoder}, tmp_path / "mae_pretrain.pth")
    ours = MAE.from_pretrained(tmp_path / "mae_pretrain.pth", **TINY.to_dict())
    assert "The decoder was freshly initialised" in caplog.text
    assert torch.equal(ours.state_dict()["blocks.1.attn.qkv.weight"], state["blocks.1.attn.qkv.weight"])
    classifier = VisionTransformer.from_pretrained(
        tmp_path / "mae_pretrain.pth", **TINY.encoder.replace(num_classes=5, pool="mean").to_dict()
    )
    assert torch.equal(classifier.blocks[1].attn.qkv.weight, state["blocks.1.attn.qkv.weight"])
    assert torch.equal(classifier.fc_norm.weight, torch.ones(24))


def timm_classifier(timm, **changes):
    return timm.models.VisionTransformer(
        img_size=32,
        patch_size=8,
        num_classes=5,
        embed_dim=24,
        depth=2,
        num_heads=2,
        mlp_ratio=2.0,
        global_pool="avg",
        **changes,
    )


def test_the_classifier_matches_timm(timm, assert_parity, tmp_path):
    """Fine-tuned files have `fc_norm` on the mean of the patches, and no `norm`."""
    theirs = timm_classifier(timm)
    ours = MAE(TINY).to_classifier(5)
    assert_parity(ours, theirs, IMAGES, spelling="nexus")
    torch.save({"model": theirs.state_dict()}, tmp_path / "mae_finetuned.pth")
    loaded = VisionTransformer.from_pretrained(tmp_path / "mae_finetuned.pth", **ours.config.to_dict())
    torch.testing.assert_close(loaded(IMAGES)["logits"], theirs.float()(IMAGES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "count", "count_of_the_classifier"),
    [
        ("mae_vit_base_patch16_224", 111_907_840, 86_567_656),
        ("mae_vit_large_patch16_224", 329_541_888, 304_326_632),
        ("mae_vit_huge_patch14_224", 657_074_508, 632_045_800),
    ],
)
def test_parameter_counts(transformers, name, count, count_of_the_classifier):
    with torch.device("meta"):
        ours = create_model(name)
        classifier = VisionTransformer(ours.config.encoder.replace(num_classes=1000, pool="mean"))
    assert ours.num_parameters() == model_info(name).num_parameters == count
    assert classifier.num_parameters() == count_of_the_classifier
    config = ours.config
    with torch.device("meta"):
        theirs = transformers.ViTMAEForPreTraining(
            transformers.ViTMAEConfig(
                hidden_size=config.embed_dim,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                intermediate_size=4 * config.embed_dim,
                patch_size=config.patch_size,
            )
        )
    assert count == sum(p.numel() for p in theirs.parameters())


def test_the_cards_say_what_is_published():
    assert list_models("mae_vit_*") == [
        "mae_vit_base_patch16_224",
        "mae_vit_huge_patch14_224",
        "mae_vit_large_patch16_224",
    ]
    card = model_info("mae_vit_large_patch16_224")
    assert card.task == "masked-image-modeling"
    assert [weights.url.rpartition("/")[2] for weights in card.weights] == [
        "vit-mae-large",
        "mae_pretrain_vit_large.pth",
        "mae_visualize_vit_large.pth",
        "mae_visualize_vit_large_ganloss.pth",
    ]
    assert {weights.licence for weights in card.weights} == {"cc-by-nc-4.0"}
    tuned = model_info("vit_huge_patch14_224").find_weights("mae_ft_in1k")
    assert (tuned.changes, tuned.metrics[0].value) == ({"pool": "mean"}, 86.928)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_the_loss_counts_masked_patches_only(norm_pix_loss):
    """A visible patch changes what the decoder says, but its own error counts nothing (Sec. 3)."""
    model = MAE(TINY.replace(norm_pix_loss=norm_pix_loss)).eval()
    outputs = model(IMAGES, noise=NOISE)
    mask, error = outputs["mask"], (outputs["predictions"] - model.target(IMAGES)).square().mean(-1)
    assert mask.sum(1).tolist() == [12, 12]
    torch.testing.assert_close(outputs["losses"]["reconstruction"], error[mask.bool()].mean())
    outputs["losses"]["reconstruction"].backward()
    masked = model.patchify(IMAGES) * mask[..., None]  # what is masked is unknown to the encoder
    size = TINY.patch_size
    changed = IMAGES.clone()
    row, column = divmod(int(mask[0].argmax()), 4)
    changed[0, :, row * size : (row + 1) * size, column * size : (column + 1) * size] += 1
    assert masked.abs().sum() > 0
    assert torch.equal(model(changed, noise=NOISE)["predictions"], outputs["predictions"])


def test_the_smallest_noise_is_visible():
    model = MAE(TINY).eval()
    noise = torch.arange(16.0).flip(0).expand(1, 16)
    assert model(IMAGES[:1], noise=noise)["mask"][0].tolist() == [1] * 12 + [0] * 4
    torch.manual_seed(0)
    first = model(IMAGES)["mask"]
    assert not torch.equal(first, model(IMAGES)["mask"])  # drawn anew at each call
    assert not torch.equal(first[0], first[1])  # and for each image


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_painting_undoes_patchify(norm_pix_loss):
    """A decoder that says exactly its target paints the image itself."""
    model = MAE(TINY.replace(norm_pix_loss=norm_pix_loss)).eval()
    images = torch.randn(2, 3, 16, 32)
    outputs = model(images)
    perfect = outputs | {"predictions": model.target(images)}
    torch.testing.assert_close(model.paint(images, perfect), images, rtol=1e-5, atol=1e-5)
    painted = model.paint(images, outputs)
    same = (model.patchify(painted) == model.patchify(images)).all(-1)
    assert torch.equal(same, outputs["mask"] == 0)


def test_the_classifier_sees_what_the_encoder_saw():
    model = MAE(TINY.replace(mask_ratio=0.0)).eval()
    classifier = model.to_classifier(5, pool="token").eval()
    noise = torch.arange(16.0).expand(2, 16)
    encoder = model(IMAGES, noise=noise)
    torch.testing.assert_close(classifier(IMAGES)["features"][-1], encoder["features"][-1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(classifier(IMAGES)["embeddings"], encoder["embeddings"], rtol=1e-5, atol=1e-5)
    larger = model.to_classifier(7, image_size=48, drop_path_rate=0.1)
    assert larger(torch.randn(1, 3, 48, 48))["logits"].shape == (1, 7)
    assert larger.blocks[1].drop_path.rate == 0.1


def test_pre_training_lowers_the_loss():
    torch.manual_seed(0)
    ramps = torch.linspace(-1, 1, 32) * torch.randn(8, 3, 1, 1) + torch.randn(8, 3, 1, 1)
    images = ramps.expand(8, 3, 32, 32).contiguous()
    model = MAE(TINY).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = model(images)["losses"]["reconstruction"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_what_every_model_owes(tmp_path):
    model = MAE(TINY)
    outputs = model(IMAGES, noise=NOISE, output_attentions=True)
    assert outputs["predictions"].shape == (2, 16, 8 * 8 * 3)
    assert [tuple(x.shape) for x in outputs["features"]] == [(2, 5, 24)] * 2  # a class token and four visible patches
    assert [tuple(x.shape) for x in outputs["attentions"]] == [(2, 2, 5, 5)] * 2
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
    grey = MAE(TINY.replace(in_channels=1))
    assert grey(IMAGES[:, :1])["predictions"].shape == (2, 16, 64)


@pytest.mark.slow
def test_compiles_without_graph_breaks():
    model = MAE(TINY).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    wanted = model(IMAGES, noise=NOISE)["predictions"]
    torch.testing.assert_close(compiled(IMAGES, noise=NOISE)["predictions"], wanted, rtol=1e-5, atol=1e-5)


def test_a_file_for_another_image_size_is_resampled_as_in_the_forward_pass(tmp_path):
    theirs = MAE(TINY).eval()
    randomize(theirs)  # positions that no formula gives
    torch.save(theirs.state_dict(), tmp_path / "mae.pth")
    larger = MAE(TINY.replace(image_size=48)).eval()
    load_weights(larger, tmp_path / "mae.pth")
    images, noise = torch.randn(2, 3, 48, 48), torch.rand(2, 36)
    found, wanted = larger(images, noise=noise), theirs(images, noise=noise)
    assert found["predictions"].shape == (2, 36, 192)
    torch.testing.assert_close(found["features"][-1], wanted["features"][-1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["predictions"], wanted["predictions"], rtol=1e-5, atol=1e-5)


def test_errors_say_what_would_fit():
    with pytest.raises(ValueError, match=r"noise has shape \(2, 9\); it needs a number for each of 2 x 16 patches"):
        MAE(TINY)(IMAGES, noise=torch.rand(2, 9))
    with pytest.raises(ValueError, match=r"mask_ratio is 1\.0; it must be at least 0 and below 1"):
        TINY.replace(mask_ratio=1.0)
    with pytest.raises(ValueError, match="decoder_dim 18 is not a multiple of 4, which sine-cosine positions need"):
        TINY.replace(decoder_dim=18)
    with pytest.raises(ValueError, match="images are 30x32 pixels; both sides must be multiples of 8"):
        MAE(TINY)(torch.zeros(1, 3, 30, 32))
    with pytest.raises(ValueError, match="The MLPs are 4 and 2 times as wide; MAE has one ratio for both"):
        MAE.config_from_hub({"decoder_intermediate_size": 1024})
