"""The cores that this process may use, and no more threads than those."""

import os

import torch


def cores() -> int:
    """Cores of this process: the machine's, the affinity's, the container's quota or SLURM's,
    whichever are fewest.
    """
    from joblib import cpu_count

    here: int = cpu_count()
    ours = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(here, int(ours)) if ours.isdigit() and int(ours) else here


def take() -> None:
    """Have torch and other libraries use as many threads as there are `cores`.

    Threads that share a core wait for each other: with two on one an iteration of EM was measured
    at 200 times its time. OMP_NUM_THREADS, where it is set, is obeyed instead.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    few = cores()
    if few < torch.get_num_threads():
        torch.set_num_threads(few)
    if few < (os.cpu_count() or few):
        limit(few)


def limit(few: int) -> None:
    """Have no library use more threads than `few`, such as those of linear algebra and scikit-learn,
    be it loaded or not.
    """
    from threadpoolctl import ThreadpoolController

    for pool in ThreadpoolController().lib_controllers:
        if few < pool.num_threads:
            pool.set_num_threads(few)
    # Read by each as it is loaded; not in os.environ, since ranks with none there share the cores.
    os.putenv("OMP_NUM_THREADS", str(few))
