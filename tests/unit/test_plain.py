"""The fast forms give what the plain ones give: the two sides of each benchmark, on small and awkward input."""

import epoch
import loading
import networks
import numpy as np
import pytest
import torch

from labutils import models, training
from labutils.data import SpectrogramDataset

LENGTHS = {"unequal": [9, 31, 17, 30], "one frame": [1, 12, 1], "a single clip": [23], "equal": [20, 20, 20]}
LENGTHS["more than one group"] = [1 + 7 * i % 23 for i in range(2 * models.GROUP + 3)]


def clips(lengths):
    x = torch.randn(len(lengths), max(lengths), networks.NUM_MELS, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor(lengths)
    return x * models.length_mask(lengths, x.shape[1])[..., None], lengths


def outputs_and_gradients(model, x, lengths):
    outputs = model(x, lengths)
    model.zero_grad()
    (outputs * torch.linspace(-1, 1, outputs.shape[1])).sum().backward()
    return outputs.detach(), {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("last_index", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_lstm_equals_packed_sequences(lengths, last_index):
    ours = networks.backbone("lstm", 16, pooling="last_index" if last_index else "mean_max")
    plain = networks.PackedLSTM(networks.NUM_MELS, 16, last_index=last_index).copy_from(ours)
    x, lengths = clips(lengths)
    (got, gradients), (expected, plain_gradients) = (outputs_and_gradients(m, x, lengths) for m in (ours, plain))
    assert torch.allclose(got, expected, atol=1e-5)
    for name, gradient in gradients.items():
        direction, weight = name.split(".")[2:]
        other = plain_gradients[f"lstm.{weight}" + "_reverse" * (direction == "backward_lstm")]
        assert torch.allclose(gradient, other, atol=1e-5), name


@pytest.mark.parametrize("lengths", [[64, 64, 64], [33, 33], [16]], ids=str)
def test_a_training_step_of_the_cnn_equals_the_plain_one(lengths):
    ours = networks.backbone("cnn", (4, 8, 12, 16)).double().train()
    plain = networks.PlainCNN().double().copy_from(ours).train()
    x, lengths = clips(lengths)
    (got, gradients), (expected, others) = (outputs_and_gradients(m, x.double(), lengths) for m in (ours, plain))
    assert torch.allclose(got, expected, atol=1e-5)
    for gradient, other in zip(gradients.values(), others.values(), strict=True):
        assert torch.allclose(gradient, other, atol=1e-5)
    for buffer, other in zip(ours.buffers(), [*ours.norm.buffers(), *plain.buffers()], strict=True):
        assert torch.allclose(buffer, other)  # the running statistics


@pytest.mark.parametrize("predicting", [True, False])
def test_the_cnn_predicts_each_clip_of_a_padded_batch_as_the_plain_one_predicts_it_alone(predicting):
    ours = networks.backbone("cnn", (4, 8, 12, 16)).train()
    x, lengths = clips([16, 37, 64, 20, 63, 31])
    ours(5 * x + 1, lengths)  # running statistics that matter
    plain = networks.PlainCNN().copy_from(ours.eval()).eval()
    with torch.inference_mode(predicting):
        together = ours(x, lengths)
    for i, length in enumerate(lengths):
        alone = plain(x[i : i + 1, :length], lengths[i : i + 1])
        assert torch.allclose(together[i], alone[0], atol=1e-5), int(length)


@pytest.mark.parametrize("size", [(6, 8), (7, 4), (1, 1), (2, 9), (1, 2)], ids=str)
def test_maxima_of_pairs_equal_max_pooling(size):
    x = torch.randn(3, 5, *size, generator=torch.Generator().manual_seed(0))
    x[0, :, -1] = -torch.inf
    for image in (x, x.to(memory_format=torch.channels_last)):
        assert torch.equal(models.pair_maxima(image), torch.nn.MaxPool2d(2, ceil_mode=True)(image))


def test_batches_equal_those_of_one_file_per_item_also_the_short_last_one():
    root = loading.raw_clips(loading.BATCH + 5)
    plain = loading.plain_loader(loading.OneFilePerItem(root, "mel"), shuffle=False)
    eager = loading.plain_loader(loading.AllFilesFirst(root, feature="mel"), shuffle=False)
    ours = training.loader(SpectrogramDataset(root), loading.BATCH)
    sizes = []
    for batch, *others in zip(ours, plain, eager, strict=True):
        sizes.append(len(batch.y))
        for other in others:
            assert all(torch.equal(mine, plain) for mine, plain in zip(batch, other, strict=True))
    assert sizes == [loading.BATCH, 5]


@pytest.mark.parametrize("device", ["cpu"] + ["cuda"] * torch.cuda.is_available())
def test_batches_of_clips_kept_on_a_device_equal_those_from_the_file(device):
    part = SpectrogramDataset(loading.raw_clips(loading.BATCH + 5)).subset([3, 9, 0, 30, 7])
    kept = part.keep_on(device)
    assert part.kept is None and all(clip.device.type == device for clip in kept.kept)
    assert kept.fingerprint == part.fingerprint
    choices = [(part, kept), (part.subset([4, 1]), kept.subset([4, 1])), (part, kept.subset(np.arange(5)))]
    for other, mine in choices:
        pairs = zip(*(training.loader(clips, 2, shuffle=True) for clips in (other, mine)), strict=True)
        for batch, same in pairs:
            assert all(torch.equal(a, b.cpu()) for a, b in zip(batch, same, strict=True))


@pytest.mark.parametrize("kind", ["lstm", "cnn"])
def test_prediction_equals_the_naive_loop(kind):
    root = loading.raw_clips(loading.BATCH + 5)
    torch.manual_seed(0)
    small = {"lstm": models.LSTMBackbone(128, 8), "cnn": models.CNNBackbone(128, (4, 8))}[kind]
    model = models.Classifier(small, 2).eval()
    batches = loading.plain_loader(loading.OneFilePerItem(root, "mel"), shuffle=False)
    expected = torch.cat([model(x, lengths) for x, lengths, _ in batches]).detach().numpy()
    assert np.allclose(training.predict(model, SpectrogramDataset(root)), expected, atol=1e-5)


def test_every_way_of_an_epoch_takes_the_steps_that_it_says(layout, monkeypatch):
    def steps(work, device):
        counted.append(0)
        work()
        return counted[-1]

    def step(*_):
        counted[-1] += 1

    counted = []
    monkeypatch.setattr(epoch, "seconds", steps)
    monkeypatch.setattr(training, "train_step", step)
    experiment = epoch.Experiment(root=layout)
    train = experiment.genre_splits().train
    clips, settings = len(train), experiment.settings("cnn", train)
    few, many = -(-clips // settings.batch_size), -(-clips // (4 * settings.batch_size))
    assert epoch.row(str(layout), "cnn", "cpu") == [few, few, 0, few, many] and len(epoch.COLUMNS) == 5
