"""Start one process for each device of a run on this machine, as `torchrun` does."""

from __future__ import annotations

import logging
import os
import sys
import uuid
from collections.abc import Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from branchtune.progress import Reporter
from branchtune.run.directory import RunDirectory
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings
from branchtune.training.device import check_devices, device_numbers
from branchtune.training.processes import rank_and_count


def wanted_processes(settings: Settings) -> int:
    """How many processes are to be started; 1 where `torchrun` has started them, or the run is finished or a trial."""
    config = settings.config
    if rank_and_count()[1] > 1 or config.trainer.get("fast_dev_run") or RunDirectory(settings).has("results.json"):
        return 1
    return len(device_numbers(config.trainer))


def launch(settings: Settings, argv: Sequence[str], processes: int) -> int:
    """Run `branchtune fit` with these arguments in several processes; the exit status of the first that fails, or 0.

    Raises:
        UserError: a mistake in the configuration, before any process is started.
    """
    check_devices(settings.config.trainer)
    bench = Workbench(settings.on_one_device().config, Reporter(quiet=True))
    bench.device = torch.device("cpu")  # this process takes no memory of a GPU, which may be for one process alone
    bench.check(plans=True, processes=processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the process that failed has said why
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns where every task has a label
    run = uuid.uuid4().hex  # other runs on this machine do not meet this one
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=run, rdzv_backend="c10d", rdzv_endpoint="localhost:0"
    )
    config.max_restarts = 0  # the same command goes on where the run stopped
    try:
        elastic_launch(config, sys.executable)("-m", "branchtune", "fit", *argv)
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else 1
    return 0
