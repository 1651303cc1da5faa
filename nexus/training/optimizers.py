"""Optimizers and what each parameter gets from them: decay or none, and a learning rate by depth."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from nexus.core.config import nearest
from nexus.training.recipe import OptimizerRecipe

# Embeddings that are added or appended to the tokens; they are not weights of a product and do not decay.
_TOKENS = re.compile(
    r"(^|\.)\w*(token|tokens|pos_embed|pos_embedding|position_embedding|relative_position_bias_table)$"
)
_BLOCK = re.compile(r"^((blocks|layers|stages)\.\d+(\.blocks\.\d+)?|(layer|stage)\d+\.\d+)\.")


def make_optimizer(model: nn.Module, recipe: OptimizerRecipe, batch_size: int) -> Optimizer:
    """Returns the optimizer of the model's trainable parameters.

    Args:
        model: Parameters without `requires_grad` are left out.
        recipe: Its settings.
        batch_size: Over all processes, for `lr_scaling`.
    """
    lr = recipe.lr * batch_size / recipe.lr_scaling if recipe.lr_scaling else recipe.lr
    groups = parameter_groups(model, lr, recipe.weight_decay, recipe.layer_decay, recipe.lr_factors)
    fused = {"fused": True} if _can_fuse(model) else {"foreach": True}
    match recipe.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=recipe.betas, eps=recipe.eps, **fused)
        case "sgd":
            return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.nesterov, **fused)
        case "lamb":
            return Lamb(groups, lr=lr, betas=recipe.betas, eps=recipe.eps)
        case "lion":
            return Lion(groups, lr=lr, betas=recipe.betas)


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    layer_decay: float | None = None,
    lr_factors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Returns groups of trainable parameters that share a learning rate and a weight decay.

    Norms, biases (all parameters with fewer than two dimensions), and position and class tokens do not decay.

    Args:
        model: Parameters without `requires_grad` are left out.
        lr: The learning rate at its peak.
        weight_decay: Of what decays.
        layer_decay: The blocks of the model, in their order, are layers: the head and the last norm learn at `lr`,
            the last block at `lr * layer_decay`, and so on down to the stem.
        lr_factors: What the rate is multiplied by, for parameters whose names start with each key; the longest counts.

    Raises:
        ValueError: Everything is frozen, there are no blocks for `layer_decay`, or no name starts with a key.
    """
    layers = layer_numbers(model) if layer_decay is not None else {}
    top = max(layers.values(), default=0)
    factors = name_factors([name for name, _ in model.named_parameters()], lr_factors or {})
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim < 2 or _TOKENS.search(name) else weight_decay
        scale = 1.0 if layer_decay is None else layer_decay ** (top - layers[name])
        groups.setdefault((lr * scale * factors[name], decay), []).append(parameter)
    if not groups:
        raise ValueError(f"{type(model).__name__} has no parameter that is trained; all are frozen.")
    return [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def name_factors(names: Iterable[str], factors: Mapping[str, float]) -> dict[str, float]:
    """Returns the factor of each name: that of the longest key which it starts with, or 1.

    Raises:
        ValueError: No name starts with some key.
    """
    found: dict[str, float] = {}
    used: set[str] = set()
    for name in names:
        fitting = [prefix for prefix in factors if name.startswith(prefix)]
        used.update(fitting)
        found[name] = factors[max(fitting, key=len)] if fitting else 1.0
    for prefix in factors:
        if prefix not in used:
            parts = {name.partition(".")[0] + "." for name in found}
            raise ValueError(f"optimizer.lr_factors: no parameter starts with {prefix!r}. {nearest(prefix, parts)}")
    return found


def layer_numbers(model: nn.Module) -> dict[str, int]:
    """Returns the layer of each parameter: 0 is the stem, then the blocks in order, and the highest is the head.

    Raises:
        ValueError: No parameter lies in a block (`blocks.3`, `stages.0.blocks.1`, `layer2.0`).
    """
    names = [name for name, _ in model.named_parameters()]
    blocks = {name: found.group(1) for name in names if (found := _BLOCK.match(name))}
    if not blocks:
        raise ValueError(
            f"optimizer.layer_decay needs a model with blocks, and {type(model).__name__} has none;"
            " leave layer_decay out."
        )
    order = {block: number for number, block in enumerate(dict.fromkeys(blocks.values()), start=1)}
    numbers: dict[str, int] = {}
    seen = False
    for name in names:
        seen = seen or name in blocks
        numbers[name] = order[blocks[name]] if name in blocks else (len(order) + 1 if seen else 0)
    return numbers


def _can_fuse(model: nn.Module) -> bool:
    """Whether torch has a fused step: for plain floating-point tensors on a CPU or on CUDA."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return all(p.device.type in ("cpu", "cuda") and type(p.data) is Tensor for p in parameters)


class Lamb(Optimizer):
    """LAMB (You et al. 2020, Algorithm 2): AdamW whose step is as long, per layer, as the weights are.

    Parameters without weight decay keep the plain Adam step, as in the authors' code for norms and biases.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "step": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyrefly: ignore[bad-override]
        """Moves the weights once."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            weights, grads, means, squares = _gather(self, group, "mean", "square")
            if not weights:
                continue
            group["step"] += 1
            beta1, beta2 = group["betas"]
            torch._foreach_lerp_(means, grads, 1 - beta1)
            torch._foreach_mul_(squares, beta2)
            torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
            scales = torch._foreach_sqrt(squares)
            torch._foreach_div_(scales, (1 - beta2 ** group["step"]) ** 0.5)
            torch._foreach_add_(scales, group["eps"])
            steps = torch._foreach_div(means, scales)
            torch._foreach_div_(steps, 1 - beta1 ** group["step"])
            if group["weight_decay"]:
                torch._foreach_add_(steps, weights, alpha=group["weight_decay"])
                torch._foreach_mul_(steps, _trust_ratios(weights, steps))
            torch._foreach_add_(weights, steps, alpha=-group["lr"])
        return loss


class Lion(Optimizer):
    """Lion (Chen et al. 2023, Algorithm 2): the sign of an interpolated momentum.

    Its learning rate is 3 to 10 times lower, and its weight decay as much higher, than AdamW's (Sec. 5).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyrefly: ignore[bad-override]
        """Moves the weights once."""
        loss = _evaluate(closure)
        for group in self.param_groups:
            weights, grads, momenta = _gather(self, group, "momentum")
            if not weights:
                continue
            beta1, beta2 = group["betas"]
            steps = torch._foreach_lerp(momenta, grads, 1 - beta1)
            torch._foreach_sign_(steps)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, steps, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, grads, 1 - beta2)
        return loss


def _evaluate(closure: Callable[[], float] | None) -> float | None:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _gather(optimizer: Optimizer, group: dict[str, Any], *names: str) -> list[list[Tensor]]:
    """Returns the weights that have a gradient, their gradients, and each named running average (zero at first)."""
    weights = [p for p in group["params"] if p.grad is not None]
    for weight in weights:
        state = optimizer.state[weight]
        for name in names:
            if name not in state:
                state[name] = torch.zeros_like(weight)
    averages = [[optimizer.state[weight][name] for weight in weights] for name in names]
    return [weights, [weight.grad for weight in weights], *averages]


def _trust_ratios(weights: list[Tensor], steps: tuple[Tensor, ...] | list[Tensor]) -> list[Tensor]:
    """Returns |weights| / |step| per tensor, and 1 where either is zero."""
    ratios = []
    for length, step in zip(torch._foreach_norm(weights), torch._foreach_norm(steps), strict=True):
        ratios.append(torch.where((length > 0) & (step > 0), length / step, torch.ones_like(length)))
    return ratios
