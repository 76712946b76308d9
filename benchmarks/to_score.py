"""How soon our recipe reaches the score of the report's: `python benchmarks/to_score.py ROOT`.

ROOT is a data set of genres in the lab's layout, such as `labutils data build` makes. Each recipe is trained from the
same seed; the report's in full, ours for 1, 2, 3, ... epochs, until its macro F1 on the test split is that of the
report's recipe. Both run on our code: the report's own, packed, would be slower still.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labutils import evaluation, process, training
from labutils.recipes import Experiment

INPUTS = (("fused", "beat"), ("mel", "raw"))


def train(root: str, feature: str, axis: str, recipe: str, num_epochs: int = 0) -> tuple[float, float]:
    """Seconds of training and macro F1 on the test split."""
    experiment = Experiment(root=root, recipe=recipe, num_epochs=num_epochs)
    splits = experiment.genre_splits(feature=feature, time=axis)
    model, settings = experiment.model("lstm", splits.train), experiment.settings("lstm", splits.train)
    start = time.perf_counter()
    training.fit(model, splits.train, splits.val, settings)
    seconds = time.perf_counter() - start
    return seconds, evaluation.macro_f1(splits.test.labels, training.predict(model, splits.test).argmax(axis=1))


def main(root: str) -> None:
    process.tune_process()
    print("| input | the report's recipe | ours, as good or better | ratio |\n|---|---|---|---|")
    for feature, axis in INPUTS:
        slow, goal = train(root, feature, axis, "report")
        for num_epochs in range(1, 31):
            fast, score = train(root, feature, axis, "repaired", num_epochs)
            if score >= goal:
                break
        ours = f"{score:.2f} in {fast:.1f} s, {num_epochs} epochs"
        print(f"| {feature} {axis} | {goal:.2f} in {slow:.1f} s | {ours} | {slow / fast:.0f} x |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
