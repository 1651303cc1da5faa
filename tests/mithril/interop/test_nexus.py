"""Every class of the zoo, imported and equal to PyTorch."""

import pytest
import torch

import mithril as ml
from tests.mithril.interop import zoo
from tests.mithril.interop.test_foreign import check, difference, expected_of, gradients, slow_but

QUICK = {"vit_tiny_patch16_224", "resnet18", "swin_tiny_patch4_window7_224"}


@pytest.mark.parametrize("name", slow_but(QUICK, zoo.NAMES))
def test_equal_on_numpy_and_torch(name):
    check(name, zoo.make, [ml.NumpyBackend(), ml.TorchBackend()], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NAMES)
def test_equal_on_mlx(needed, name):
    needed("mlx.core")
    check(name, zoo.make, [ml.MlxBackend()], 1e-4)


@pytest.mark.parametrize("name", slow_but({"resnet18"}, zoo.NAMES))
def test_equal_on_jax(needed, name):
    needed("jax")
    check(name, zoo.make, [ml.JaxBackend()], 1e-4)


@pytest.mark.parametrize("name", slow_but({"resnet18"}, zoo.NAMES))
def test_equal_in_float64(name):
    check(name, zoo.make, [ml.NumpyBackend(dtype=ml.float64)], 1e-9, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NAMES)
def test_equal_in_float64_on_jax(needed, name):
    needed("jax")
    check(name, zoo.make, [ml.JaxBackend(dtype=ml.float64)], 1e-9, torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sorted(QUICK), "efficientnet_b0", "clip_vit_base_patch32_224", "detr_resnet50"])
def test_gradients_on_jax(needed, name):
    needed("jax")
    gradients(*zoo.make(name), ml.JaxBackend(dtype=ml.float64))


@pytest.mark.parametrize("name", slow_but(QUICK, zoo.CLASSIFIERS))
def test_open_batch(name):
    module, inputs = zoo.make(name)
    model, params = ml.from_torch(module, inputs, {"images": {0: "batch"}})
    compiled = ml.compile(model, ml.NumpyBackend(), inference=True)
    more = {"images": torch.randn(3, *inputs["images"].shape[1:])}
    found = compiled.evaluate(params, {"images": more["images"].numpy()})
    assert difference(found, expected_of(module, more)) < 1e-4


def test_a_detector_whose_boxes_depend_on_the_image_says_so():
    module = zoo.create_model("fasterrcnn_resnet50_fpn", **zoo.RCNN).eval()
    with pytest.raises(ml.MithrilError, match=r"depends? on the values of its data|cannot trace") as caught:
        ml.from_torch(module, torch.randn(1, 3, 64, 64))
    assert "in rpn (RegionProposalNetwork)" in str(caught.value)
