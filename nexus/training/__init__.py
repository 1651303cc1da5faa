"""Training: recipes, the trainer, optimizers, schedules, and checkpoints that a run goes on from exactly."""

from nexus.training.checkpoint import CheckpointError
from nexus.training.fit import fit
from nexus.training.optimizers import Lamb, Lion, parameter_groups
from nexus.training.recipe import Recipe
from nexus.training.recipe_files import list_recipes, load_recipe
from nexus.training.schedules import get_cosine_schedule_with_warmup
from nexus.training.signals import Interrupted
from nexus.training.trainer import FitResult, Trainer, TrainingError
