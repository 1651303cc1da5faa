"""Five small kinds of model that the frame does not know: each is a folder, a line in the table, a model and data.

`nexus --import toys` (from the folder above) makes them known to every command.
"""

from nexus.core.card import ModelCard
from nexus.data.datasets import register_source
from nexus.models.registry import register
from nexus.tasks import TASKS
from toys import answers, pointing, rays, watching, words

KINDS = {"pointing": pointing, "watching": watching, "words": words, "rays": rays, "answers": answers}

for kind, folder in KINDS.items():
    TASKS[f"toy-{kind}"] = f"toys.{kind}"
    register(ModelCard(name=f"toy_{kind}", model_class=folder.Model, config=folder.Model.config_class()))
    register_source(f"toy-{kind}", folder.Data)
