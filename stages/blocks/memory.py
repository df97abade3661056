"""How the memory of large activations is kept between layers."""

import platform
from ctypes import CDLL

__all__ = ["keep_heap"]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""
LARGEST_INT = 2**31 - 1
ONE_GIB = 1 << 30


def keep_heap() -> bool:
    """Have glibc keep freed memory of this process for the next allocation; True where that was possible.

    As it is, glibc maps every large activation anew and gives it back after the layer, and the system clears its pages
    each time. Elsewhere than on glibc nothing is done. The process keeps what it used at its peak.

    Measured on ViT-L-14 in bf16, 16 frames at once, two busy cores: 1.1 million page faults a batch became none, system
    time of a frame 0.11 s became 0.001 s, user time 0.73 s became 0.56 to 0.70 s; memory stood at 2.6 GB in place of
    1.9 GB, the same from the second batch on.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, ONE_GIB)) and bool(mallopt(TRIM_THRESHOLD, LARGEST_INT))
