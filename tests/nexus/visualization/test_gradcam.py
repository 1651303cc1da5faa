"""GradCAM: equal to the equations computed directly, and a polite guest in the model."""

import pytest
import torch
from torch import nn

from nexus.models.cv.resnet import ResNet
from nexus.models.cv.vit import VisionTransformer
from nexus.visualization import GradCAM, plot_heat

VIT = {"image_size": 16, "patch_size": 4, "num_classes": 5, "embed_dim": 16, "num_layers": 3, "num_heads": 2}
RESNET = {"block": "basic", "num_layers": (1, 1, 1, 2), "num_classes": 5, "hidden_dim": 4, "stem": "cifar"}


def vit(**changes) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(VIT | changes)
    nn.init.normal_(model.head.weight)
    return model.eval()


def resnet() -> ResNet:
    torch.manual_seed(0)
    return ResNet(RESNET).eval()


def upsampled(heat: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    heat = nn.functional.interpolate(heat[:, None], size=size, mode="bilinear")[:, 0]
    return heat / heat.amax((1, 2), keepdim=True)


class Corner(nn.Module):
    """Class 1 is the sum of the top left quarter, class 0 of the whole image, class 2 of nothing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 1, 1)
        nn.init.ones_(self.stem.weight)
        nn.init.zeros_(self.stem.bias)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.Flatten()

    def forward(self, images):
        seen = self.act(self.stem(images))
        whole = self.pool(seen).sum(1)
        return torch.stack([whole, seen[:, 0, :4, :4].sum((1, 2)), -whole], dim=1)


def test_the_corner_that_is_read_lights_up():
    image = torch.zeros(1, 1, 8, 8)
    image[..., 1:3, 1:3] = 1
    heat = GradCAM(Corner(), "stem")(image, target_class=1)
    assert heat.shape == (1, 8, 8)
    assert torch.equal(heat > 0, image[0] > 0)
    assert heat.max() == 1


def test_a_class_that_the_image_speaks_against_has_no_heat():
    assert GradCAM(Corner(), "stem")(torch.rand(2, 1, 8, 8), target_class=2).count_nonzero() == 0


def test_resnet_equals_the_equations():
    model, images = resnet(), torch.randn(2, 3, 32, 24)
    outputs = model(images)
    (gradient,) = torch.autograd.grad(outputs["logits"][:, 3].sum(), outputs["features"][-1])
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    expected = (weights * outputs["features"][-1]).sum(1).clamp(min=0)
    heat = GradCAM(model, "layer4")(images, target_class=3)
    torch.testing.assert_close(heat, upsampled(expected.detach(), (32, 24)))
    torch.testing.assert_close(GradCAM(model, "layer4.1")(images, 3), heat)
    torch.testing.assert_close(GradCAM(model)(images, 3), heat)


def test_a_vit_block_equals_the_equations():
    model, images = vit(), torch.randn(2, 3, 16, 24)
    outputs = model(images)
    (gradient,) = torch.autograd.grad(outputs["logits"][:, 3].sum(), outputs["features"][1])
    patches = (gradient[:, 1:].mean(1, keepdim=True) * outputs["features"][1][:, 1:]).sum(2).clamp(min=0)
    heat = GradCAM(model, "blocks.1")(images, target_class=3)
    torch.testing.assert_close(heat, upsampled(patches.detach().view(2, 4, 6), (16, 24)))


def test_the_last_vit_block_is_read_where_its_gradient_reaches_the_patches():
    """At the block's output only the class token has a gradient; at its `norm1` the patches have one."""
    model, images = vit(), torch.randn(2, 3, 16, 16)
    outputs = model(images)
    (gradient,) = torch.autograd.grad(outputs["logits"][:, 3].sum(), outputs["features"][2])
    assert gradient[:, 1:].count_nonzero() == 0
    tokens = model.blocks[2].norm1(model(images)["features"][1].detach()).detach().requires_grad_()
    block, before = model.blocks[2], model(images)["features"][1]
    after = before + block.attn(tokens)
    after = after + block.mlp(block.norm2(after))
    (gradient,) = torch.autograd.grad(model.head(model.norm(after)[:, 0])[:, 3].sum(), tokens)
    patches = (gradient[:, 1:].mean(1, keepdim=True) * tokens[:, 1:]).sum(2).clamp(min=0)
    heat = GradCAM(model, "blocks.2")(images, target_class=3)
    torch.testing.assert_close(heat, upsampled(patches.detach().view(2, 4, 4), (16, 16)))
    assert heat.amax() == 1
    assert heat.std() > 0.05
    torch.testing.assert_close(GradCAM(model, "blocks")(images, 3), heat)
    torch.testing.assert_close(GradCAM(model)(images, 3), heat)


def test_the_guess_is_explained_without_a_class():
    model, images = resnet(), torch.randn(3, 3, 32, 32)
    guesses = model(images)["logits"].argmax(1)
    torch.testing.assert_close(GradCAM(model, "layer3")(images), GradCAM(model, "layer3")(images, guesses.tolist()))


def test_images_of_a_batch_do_not_mix():
    model, images = vit(), torch.randn(3, 3, 16, 16)
    together = GradCAM(model, "blocks.2")(images, [0, 4, 2])
    alone = torch.cat([GradCAM(model, "blocks.2")(image, target) for image, target in zip(images, (0, 4, 2))])
    torch.testing.assert_close(together, alone)


def test_class_names():
    model, image = vit(), torch.randn(1, 3, 16, 16)
    model.class_names = ("ant", "bee", "cat", "dog", "elk")
    torch.testing.assert_close(GradCAM(model, "blocks.0")(image, "cat"), GradCAM(model, "blocks.0")(image, 2))
    with pytest.raises(ValueError, match=r"no class 'cats'. Did you mean 'cat'\?"):
        GradCAM(model, "blocks.0")(image, "cats")


def test_the_model_is_left_as_it_was():
    model, image = resnet(), torch.randn(1, 3, 32, 32)
    model.train()
    model.bn1.eval()
    model.head.weight.grad = torch.full_like(model.head.weight, 7)
    modes = [module.training for module in model.modules()]
    running = model.layer1[0].bn1.running_mean.clone()
    GradCAM(model, "layer4")(image, 1)
    with pytest.raises(ValueError, match="5 classes"):
        GradCAM(model, "layer4")(image, 5)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(model.layer1[0].bn1.running_mean, running)
    assert (model.head.weight.grad == 7).all()
    assert all(p.grad is None for name, p in model.named_parameters() if name != "head.weight")
    assert image.grad is None
    assert not image.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_frozen_weights_and_no_gradients_around_it(context):
    model, image = vit(), torch.randn(1, 3, 16, 16)
    expected = GradCAM(model, "blocks.2")(image, 1)
    model.requires_grad_(False)
    with context():
        torch.testing.assert_close(GradCAM(model, "blocks.2")(image.clone(), 1), expected)


def test_gradient_checkpointing_changes_nothing():
    model, image = vit(), torch.randn(1, 3, 16, 16)
    expected = GradCAM(model, "blocks.2")(image, 1)
    torch.testing.assert_close(GradCAM(model.set_gradient_checkpointing(), "blocks.2")(image, 1), expected)


def test_a_plain_module_with_tokens_needs_no_reshape(timm):
    torch.manual_seed(0)
    theirs = timm.models.VisionTransformer(
        img_size=16, patch_size=4, num_classes=5, embed_dim=16, depth=3, num_heads=2, class_token=True
    ).eval()
    ours = vit()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 16, 16)
    for layer in ("blocks.1", "blocks.2"):
        expected = GradCAM(ours, layer)(image, 1)
        torch.testing.assert_close(GradCAM(theirs, layer)(image, 1), expected, rtol=1e-3, atol=1e-4)


def test_mistakes_are_named():
    model, image = vit(), torch.randn(2, 3, 16, 16)
    with pytest.raises(ValueError, match=r"VisionTransformer has no layer 'block.1'. Did you mean 'blocks.1'\?"):
        GradCAM(model, "block.1")
    with pytest.raises(ValueError, match="target_class is 281; the model has 5 classes, 0 to 4"):
        GradCAM(model, "blocks.2")(image, target_class=281)
    with pytest.raises(ValueError, match="one class, or one for each of 2 images"):
        GradCAM(model, "blocks.2")(image, target_class=[0, 1, 2])
    with pytest.raises(ValueError, match=r"'head' gives shape \(2, 5\); GradCAM needs a map"):
        GradCAM(model, "head")(image, 1)
    with pytest.raises(ValueError, match=r"no gradient reaches them. Choose an earlier layer"):
        GradCAM(model, "blocks.2.mlp")(image, 1)
    with pytest.raises(ValueError, match="does not say which layer gives its features"):
        GradCAM(Corner())(image[:, :1], 1)


def test_a_sheet_says_in_words_that_nothing_speaks_for_the_class():
    image = torch.rand(3, 24, 32)
    heat = torch.zeros(24, 32)
    blank = plot_heat(image, heat, title="photo", subject="cat")
    assert "No place speaks for it" in blank.axes[1].texts[0].get_text()
    assert len(blank.axes) == 2
    heat[3, 4] = 1
    sheet = plot_heat(image, heat, title="photo", subject="cat")
    assert [axes.get_title() for axes in sheet.axes[:2]] == ["image", "cat"]
    assert not sheet.axes[1].texts
    assert [text.get_text() for text in sheet.axes[2].get_yticklabels()] == ["none", "half", "strongest\nevidence"]
    assert sheet.get_suptitle() == "photo"
