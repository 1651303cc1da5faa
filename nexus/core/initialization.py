"""Fresh weights for vision models."""

from torch import nn


class WeightInitMixin:
    """Adds `init_weights_vision` to a module: `class MyModel(WeightInitMixin, NexusModule)`."""

    def init_weights_vision(self, *, std: float = 0.02) -> None:
        """Draws fresh weights by the kind of layer; parameters that belong to no layer are left alone.

        Linear layers and embeddings: normal with `std`, truncated at ±2, as in timm's ViT; biases 0.
        Convolutions: He et al. (2015), normal, fan-out, for ReLU; those that cut patches (stride equal to the
        kernel) are linear layers over a patch: LeCun normal, as in the JAX code of ViT; biases 0. Norms: 1 and 0.

        Args:
            std: Deviation of linear layers and embeddings.
        """
        assert isinstance(self, nn.Module), "WeightInitMixin is mixed into an nn.Module"
        for module in self.modules():
            init_vision_layer(module, std=std)


def init_vision_layer(module: nn.Module, *, std: float = 0.02) -> None:
    """Draws fresh weights for one layer (not its children), as `WeightInitMixin.init_weights_vision` says."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=std)
    elif isinstance(module, nn.Conv2d) and module.stride == module.kernel_size and module.kernel_size != (1, 1):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        if module.weight is not None:
            nn.init.ones_(module.weight)
    else:
        return
    bias = getattr(module, "bias", None)
    if bias is not None:
        nn.init.zeros_(bias)
