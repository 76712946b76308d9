"""Other processors, imitated by environment variables: `python tests/machines.py NAME COMMAND...`.

Without arguments it prints the names of those that can be imitated here. numpy, PyTorch and OpenBLAS choose among some
forms of their inner loops by what the processor can do, and these variables say what they may use. Sums then round
differently, and an unstable sort orders ties differently.
"""

import os
import subprocess
import sys

import numpy as np

if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
    from numpy._core._multiarray_umath import __cpu_dispatch__ as DISPATCHED
    from numpy._core._multiarray_umath import __cpu_features__ as FEATURES
else:
    from numpy.core._multiarray_umath import __cpu_dispatch__ as DISPATCHED
    from numpy.core._multiarray_umath import __cpu_features__ as FEATURES

WIDE = ("AVX512", "X86_V4")  # what a processor without AVX-512 does not have, by the beginning of its name


def without(features) -> str:
    """What numpy is told not to use: those of these features that this processor has."""
    return " ".join(name for name in features if FEATURES.get(name))


MACHINES = {
    "sse": {
        "NPY_DISABLE_CPU_FEATURES": without(DISPATCHED),
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "avx2": {
        "NPY_DISABLE_CPU_FEATURES": without(name for name in DISPATCHED if name.startswith(WIDE)),
        "ATEN_CPU_CAPABILITY": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "avx512": {"OPENBLAS_CORETYPE": "SkylakeX"},
}
if not any(FEATURES.get(name) for name in DISPATCHED if name.startswith(WIDE)):
    del MACHINES["avx512"]  # this processor has none of it


def environment(name: str) -> dict[str, str]:
    """This environment, on the machine `name`."""
    ours = {key: value for key, value in os.environ.items() if key not in MACHINES["sse"]}
    return {**ours, **{key: value for key, value in MACHINES[name].items() if value}}


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(*MACHINES)
        sys.exit()
    if len(sys.argv) == 2 or sys.argv[1] not in MACHINES:
        sys.exit(f"{__doc__.splitlines()[0]}\nNAME is one of {', '.join(MACHINES)}")
    print(f"machine {sys.argv[1]}: {MACHINES[sys.argv[1]]}", flush=True)
    sys.exit(subprocess.run(sys.argv[2:], env=environment(sys.argv[1])).returncode)
