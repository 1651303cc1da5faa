"""A torchvision that may not fit the installed torch.

Nothing here needs it; transformers and timm import it if it is there.
"""

import importlib
import sys
from types import ModuleType


def import_torchvision(*, needed: bool) -> None:
    """Imports torchvision; where its operators do not load, without the module that describes them to the compiler.

    transformers is imported after it because it looks whether torchvision imports, and does without.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        if needed:
            raise
    except RuntimeError:  # "operator torchvision::nms does not exist"
        for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        unneeded = "torchvision._meta_registrations"
        sys.modules[unneeded] = ModuleType(unneeded)
        importlib.import_module("torchvision")
