"""This process, prepared for training on a CPU."""

import ctypes

import threadpoolctl
import torch


def tune_process(threads: int = 1) -> None:
    """Prepare this process for training on a CPU. For `choose_device`.

    `threads`: of PyTorch and of numpy's matrix products. Two things more: numbers too small to be normal count as 0,
    for the gradients of a saturated LSTM underflow, which is three times as slow. And the C library (glibc) keeps freed
    memory instead of returning it after each batch: fetching it again page by page took 40 % of the time of an LSTM
    step. Results stay the same.
    """
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads, user_api="blas")
    torch.set_flush_denormal(True)
    try:
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap too
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap does not shrink
    except (AttributeError, OSError, TypeError):  # another C library
        pass
