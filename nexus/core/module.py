"""`NexusModule`: an `nn.Module` that knows its configuration and how it is saved."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from nexus.core import weights
from nexus.core.config import Config
from nexus.core.formats import Format, State
from nexus.core.parts import Part, PartSpec, make_parts
from nexus.core.preprocessing import Preprocessing

if TYPE_CHECKING:
    from nexus.core.card import ModelCard


class TokenLayout(NamedTuple):
    """Where the patches of an image stand in a token sequence: after `prefix` tokens, row by row."""

    prefix: int
    height: int
    width: int


class NexusModule(nn.Module):
    """Base of every model of the zoo: a plain `nn.Module` with a configuration.

    A subclass names its configuration by annotating it, `config: MixerConfig`; it may then be built from that
    dataclass or from a mapping of its fields. A subclass without such an annotation keeps the mapping it was given.

    Attributes:
        formats: Names that other libraries give to the same weights; set below the class.
        head_prefixes: Names of the weights whose shapes follow from `num_classes`.
        hub_types: The `model_type`s of the hub's config.json that `config_from_hub` understands.
        task: What models of this class are for: the name of a task, "classification" unless a class says otherwise.
        other_tasks: What they are for too, where what they are shown asks for it (`Task.takes`).
        answers: Names of what an inner stage gives (see `parts`) and whoever exports the whole model wants, too.
        config: The frozen configuration (or the mapping that was given).
        preprocessing: How an image becomes the model's input; None until weights or a trainer bring it.
        class_names: Names of the outputs in order; empty when unknown.
        card: The registered variant it was created from, if any.
        files: What is saved beside the weights, by name: of a model that reads texts, those of its tokenizer.
        checkpointing: Whether blocks recompute their activations in the backward pass.
    """

    config_class: ClassVar[type[Config] | None] = None
    formats: ClassVar[tuple[Format, ...]] = ()
    head_prefixes: ClassVar[tuple[str, ...]] = ("head.",)
    hub_types: ClassVar[tuple[str, ...]] = ()
    task: ClassVar[str] = "classification"
    other_tasks: ClassVar[tuple[str, ...]] = ()
    answers: ClassVar[tuple[str, ...]] = ("embeddings",)
    config: Any

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        annotation = inspect.get_annotations(cls, eval_str=True).get("config")
        if isinstance(annotation, type) and issubclass(annotation, Config):
            cls.config_class = annotation

    def __init__(self, config: Config | Mapping[str, Any]) -> None:
        super().__init__()
        if self.config_class is not None and not isinstance(config, Config):
            config = self.config_class.from_mapping(config)
        elif self.config_class is not None and not isinstance(config, self.config_class):
            raise ValueError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, not a {type(config).__name__}."
            )
        self.config = config
        self.preprocessing: Preprocessing | None = None
        self.class_names: tuple[str, ...] = ()
        self.card: ModelCard | None = None
        self.files: Mapping[str, bytes] = {}
        self.checkpointing = False

    @classmethod
    def from_config(cls, config: Config | Mapping[str, Any]) -> Self:
        """Returns a model with fresh weights."""
        return cls(config)

    @classmethod
    def config_from_hub(cls, mapping: Mapping[str, Any]) -> Config:
        """Returns our configuration for the hub's config.json (the spelling of transformers).

        Raises:
            ValueError: Something in it is not built here.
        """
        raise ValueError(f"{cls.__name__} has no reading of the hub's model_type {mapping.get('model_type')!r}.")

    def fit_state(self, state: State) -> State:
        """Returns `state`, in our names, with tensors resampled whose size follows from the image size.

        A model with position embeddings or relative tables says here how they change; by default nothing does.
        """
        return state

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        **changes: Any,
    ) -> Self:
        """Returns a model with trained weights, in evaluation mode. See `nexus.core.weights.load_pretrained`.

        Args:
            source: A registered name (`"vit_base_patch16_224"`, with a tag after a dot if it has several weights),
                a file, a directory written by `save_pretrained`, or `"hf-hub:org/repo"`.
            dtype: Of the floating-point weights, such as `torch.bfloat16`; None: float32.
            device: Where the weights go; None: the CPU.
            **changes: Fields of the configuration to change, such as `num_classes` or `image_size`.

        Raises:
            ValueError: The source is unknown, is not a model of this class, or does not fit the configuration.
        """
        return weights.load_pretrained(source, cls, changes, dtype, device)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes `model.safetensors` and `config.json` (configuration, preprocessing, class names) into `folder`."""
        return weights.save_pretrained(self, Path(folder))

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads what `save_pretrained` writes to the Hugging Face hub and returns the commit's address."""
        return weights.push_to_hub(self, repo_id, private=private, token=token)

    def num_parameters(self, *, trainable: bool = False) -> int:
        """Returns how many numbers the parameters hold, or only those that are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable)

    def set_gradient_checkpointing(self, enabled: bool = True) -> Self:
        """Trades compute for memory: blocks recompute their activations in the backward pass."""
        for module in self.modules():
            if isinstance(module, NexusModule):
                module.checkpointing = enabled
        return self

    def token_layout(self, image_size: Sequence[int]) -> TokenLayout | None:
        """Returns where patches of an image of `(height, width)` pixels stand in the token sequence.

        None for a model whose features are maps (b, c, h, w).
        """
        del image_size
        return None

    def part_specs(self) -> dict[str, PartSpec]:
        """Returns what `parts` makes: by default one stage, the whole model."""
        everything = [name for name, _ in (*self.named_children(), *self.named_parameters(recurse=False))]
        return {"model": PartSpec(_whole, ("images",), tuple(everything))}

    def example_inputs(self, image_size: tuple[int, int] | None = None) -> dict[str, Tensor]:
        """Returns tensors that the model can be called with, by name: two images of noise.

        Args:
            image_size: (height, width) in pixels; None is the preprocessing's, or the configuration's.
        """
        side = getattr(self.config, "image_size", 224)
        made_for = self.preprocessing.image_size if self.preprocessing else (side, side)
        height, width = image_size or (made_for if isinstance(side, int) else side)
        like = next(self.parameters())
        channels = getattr(self.config, "in_channels", 3)
        noise = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(0))
        return {"images": noise.to(like.device, like.dtype)}

    def free_dims(self) -> dict[str, dict[int, str]]:
        """Returns which dimensions of its example inputs may have any size: of each a name, the same for equal ones.

        "height" and "width" of the images, and what follows them ("patches"), are left open on request alone.
        """
        return {"images": {0: "batch", 2: "height", 3: "width"}}

    def parts(self, image_size: tuple[int, int] | None = None) -> dict[str, Part]:
        """Returns the stages that run on their own, in order, each a module with example inputs of fixed size.

        Run one after another (`nexus.core.parts.run_parts`) they give what the model gives in evaluation mode. Tensors
        stand where the model gives a list with an entry per image: of k boxes the first `count` are objects.

        Args:
            image_size: (height, width) in pixels of the examples; None is the size that the model is made for.
        """
        return make_parts(self, self.part_specs(), self.example_inputs(image_size))

    if TYPE_CHECKING:

        def __call__(self, images: Tensor, *args: Any, **keywords: Any) -> dict[str, Any]: ...


def _whole(model: NexusModule, images: Tensor) -> dict[str, Tensor]:
    outputs = model(images)
    return {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
