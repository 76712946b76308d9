"""Makes `labutils/assets/sharpen.npz` anew: the network with which `pretrained.from_mel` ends (half an hour, one core).

`python benchmarks/sharpen.py` renders procedural music, of which both sides are known: the input from sound and the one
from features. None of it is in the default data, whose seed is another.
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from labutils import audio, files, pretrained, process
from labutils.corpus import demo

NUM_CLIPS, SECONDS, SEED = 400, 10.0, 1
NUM_EPOCHS, BATCH_SIZE, LR = 4, 8, 3e-3


def pair(row: dict) -> tuple[np.ndarray, np.ndarray]:
    """The windows of a clip, from features before they are sharpened and from sound as loud as those assume."""
    samples = demo.render(row, seconds=SECONDS)
    power = audio.mel_power(audio.stft(samples))
    gain = 10 ** (pretrained.LEVEL / 20) / np.sqrt(power.max())
    seen = pretrained.deconvolved(audio.to_db(power).T, pretrained.LEVEL)
    heard = pretrained.from_audio((gain * samples).astype(np.float32))
    return pretrained.windows(seen)[0], pretrained.windows(heard[: len(seen)])[0]


def main() -> None:
    process.tune_process(1)
    rows = demo.plan(seed=SEED)[:NUM_CLIPS].to_dict("records")
    seen, heard = zip(*(pair(row) for row in tqdm(rows, unit="clip")))
    x, y = torch.from_numpy(np.concatenate(seen)), torch.from_numpy(np.concatenate(heard))
    torch.manual_seed(0)
    network = pretrained.Sharpener()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
    batches = len(x) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=NUM_EPOCHS * batches + 1)
    for epoch in range(NUM_EPOCHS):
        total = 0.0
        for batch in tqdm(torch.randperm(len(x))[: batches * BATCH_SIZE].split(BATCH_SIZE), desc=f"epoch {epoch + 1}"):
            loss = (network(x[batch]) - y[batch]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: root mean square error {np.sqrt(total / batches):.3f}", flush=True)
    state = {name: tensor.detach().numpy().astype(np.float16) for name, tensor in network.state_dict().items()}
    with files.whole_file(pretrained.SHARPENER) as part, open(part, "wb") as file:
        np.savez_compressed(file, **state)


if __name__ == "__main__":
    main()
