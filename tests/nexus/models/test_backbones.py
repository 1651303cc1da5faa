"""What detectors ask of the backbones that they are given."""

import torch
from torch import nn

from nexus.layers import channels_last
from nexus.models.cv.rcnn.pyramid import backbone_maps
from nexus.models.registry import create_model


def test_unread_weights_are_found_without_gradients_too():
    with torch.no_grad():
        found = backbone_maps({"name": "resnet18", "hidden_dim": 6}, 3)
        tail = backbone_maps({"name": "efficientnet_b0", "drop_path_rate": 0.01}, 3).unread
    assert found.dims == (6, 12, 24, 48)
    assert not found.unread
    assert tail == backbone_maps("efficientnet_b0", 3).unread
    assert tail


def test_maps_keep_channels_side_by_side_and_exported_graphs_do_not_say_so():
    images = torch.randn(1, 3, 64, 64)
    assert channels_last(images).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(channels_last(images), images)
    model = create_model("rtdetr_r18", backbone={"name": "resnet18", "hidden_dim": 4}, num_classes=2).eval()
    for level in model(images)["features"]:
        assert level.is_contiguous(memory_format=torch.channels_last)

    class Layout(nn.Module):
        def forward(self, images):
            return channels_last(images) + 1

    graph = torch.export.export(Layout(), (images,)).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [torch.ops.aten.add.Tensor]
