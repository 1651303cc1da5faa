"""Run by `runpy` in a process of its own: trains the small run, and may kill itself in the middle of a write.

Globals that the test sets: `run_dir`, `recipe`, `data` (the file with `small_data`), and perhaps `die_at_flush`, the
number of the flush to disk at which the process kills itself, and `distributed`, the environment of `torchrun`.
"""

import os
import runpy
import signal

import torch

from nexus.training import Trainer

settings = dict(globals())
torch.set_num_threads(1)
os.environ.update(settings.get("distributed", {}))
flushes = 0
fsync = os.fsync


def fsync_or_die(descriptor):
    """Counts the flushes: three at the start (owner, recipe, metrics), then six for each checkpoint."""
    global flushes
    flushes += 1
    if flushes == settings.get("die_at_flush"):
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)


os.fsync = fsync_or_die
small_data = runpy.run_path(settings["data"])["small_data"]
Trainer(settings["recipe"], settings["run_dir"], **small_data(), resume=True, progress="off").fit()
