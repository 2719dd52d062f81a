"""Memory on CPUs."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)


def keep_freed_memory() -> None:
    """Makes glibc keep what is freed, for this process; does nothing elsewhere.

    A step frees and takes the same large tensors again and again. By default each goes back to the system and comes
    back as pages of zeros, which takes about a fifth of a step's time, and more where processes do it side by side.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
