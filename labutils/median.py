"""The running median of harmonic-percussive separation, a quarter of librosa's cost, the same bits (notebook 02)."""

import functools

import numpy as np

MEDIAN_WIDTH = 31  # frames or bins, librosa's default for harmonic-percussive separation


def running_median(lines: np.ndarray) -> np.ndarray:
    """Median over 31 neighbours along the first axis of [R, C], edges reflected. For `percussive`."""
    width, half = MEDIAN_WIDTH, MEDIAN_WIDTH // 2
    blocks = (np.ascontiguousarray(lines[:, i : i + 128]) for i in range(0, lines.shape[1], 128))
    blocks = (np.pad(block, ((half, half), (0, 0)), "symmetric") for block in blocks)
    blocks = (np.pad(block, ((width, 0), (0, 0)), constant_values=np.inf) for block in blocks)
    return np.concatenate([_compiled_median()(block)[width + 2 * half :] for block in blocks], axis=1)


@functools.cache
def _compiled_median():
    import numba

    return numba.njit(cache=True)(_median_of_rows)


def _median_of_rows(lines):
    """Row r: the median of the rows r - 30 to r of [R, C]; the first 31 rows are infinite.

    The window of each column is kept in order. A step takes the oldest value out, which moves those above it down,
    and squeezes the new one in. All columns take it together: numba compiles the inner loop to vector instructions.
    """
    medians = np.empty_like(lines)
    ordered = np.full((MEDIAN_WIDTH + 1, lines.shape[1]), np.inf, lines.dtype)
    for row in range(MEDIAN_WIDTH, len(lines)):
        below = np.full(lines.shape[1], -np.inf, lines.dtype)
        for i in range(MEDIAN_WIDTH):
            for lane in range(lines.shape[1]):
                kept = ordered[i, lane] if ordered[i, lane] < lines[row - MEDIAN_WIDTH, lane] else ordered[i + 1, lane]
                ordered[i, lane] = min(max(below[lane], lines[row, lane]), kept)
                below[lane] = kept
        medians[row] = ordered[MEDIAN_WIDTH // 2]
    return medians
