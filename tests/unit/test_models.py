"""Backbones, heads and losses: notebooks 05, 07 to 10."""

import inspect

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from labutils import models, training
from labutils.recipes import Experiment

LENGTHS = [[9, 5, 1, 7], [6, 6, 6], [1], [12, 3]]
BACKBONES = [
    lambda: models.LSTMBackbone(20, 8),
    lambda: models.LSTMBackbone(20, 8, num_layers=2, pooling="last", frames_per_step=3),
    lambda: models.LSTMBackbone(20, 8, pooling="last_index"),
    lambda: models.LSTMBackbone(20, 8, frames_per_step=2, statistics=True),
    lambda: models.CNNBackbone(20, (4, 6)),
    lambda: models.CNNBackbone(20, (4, 6), frames_per_step=2, bands_per_step=2),
    lambda: models.CNNBackbone(20, (4, 6), padding=0, num_frames=30),
    lambda: models.ASTBackbone(20, 16, depth=1, patch_frames=3),
]


def batch(lengths, num_features=20, seed=0):
    """Random clips, zero-padded."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), num_features, generator=generator)
    lengths = torch.tensor(lengths)
    return x * models.length_mask(lengths, x.shape[1])[..., None], lengths


@pytest.mark.parametrize("lengths", [*LENGTHS, [40, 13, 28, 31]], ids=str)
@pytest.mark.parametrize("make", BACKBONES)
def test_inference_mode_gives_the_same_vectors(make, lengths):
    torch.manual_seed(0)
    backbone = make().train()
    x, lengths = batch(lengths)
    backbone(5 * x + 1, lengths)  # running statistics that matter
    expected = backbone.eval()(x, lengths)
    with torch.inference_mode():
        assert torch.allclose(backbone(x, lengths), expected, atol=1e-5)


def test_length_mask():
    assert models.length_mask(torch.tensor([2, 0, 3]), 3).tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_masked_mean_max_ignores_padding():
    x = torch.tensor([[[1.0], [-3.0], [99.0]]])
    assert models.masked_mean_max(x, torch.tensor([2])).tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_reverse_sequences_is_its_own_inverse_and_leaves_padding(lengths):
    x, lengths = batch(lengths)
    flipped = models.reverse_sequences(x, lengths)
    assert torch.equal(models.reverse_sequences(flipped, lengths), x)
    for row, source, length in zip(flipped, x, lengths):
        assert torch.equal(row[:length], source[:length].flip(0)) and torch.equal(row[length:], source[length:])


@pytest.mark.parametrize("lengths", LENGTHS)
def test_bilstm_equals_packed_sequences_in_outputs_and_gradients(lengths):
    torch.manual_seed(0)
    ours, packed = models.BiLSTM(20, 8), nn.LSTM(20, 8, batch_first=True, bidirectional=True)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        getattr(packed, name).data.copy_(getattr(ours.forward_lstm, name))
        getattr(packed, name + "_reverse").data.copy_(getattr(ours.backward_lstm, name))
    x, lengths = batch(lengths)
    mask = models.length_mask(lengths, x.shape[1])[..., None]
    out, _ = packed(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(out, batch_first=True)
    found = ours(x, lengths) * mask
    assert torch.allclose(found, expected, atol=1e-5)
    weights = torch.randn(expected.shape)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        assert torch.allclose(getattr(ours.forward_lstm, name).grad, getattr(packed, name).grad, atol=1e-5)
        assert torch.allclose(
            getattr(ours.backward_lstm, name).grad, getattr(packed, name + "_reverse").grad, atol=1e-5
        )


def test_a_naive_padded_bilstm_is_not_equal():
    torch.manual_seed(0)
    naive = nn.LSTM(20, 8, batch_first=True, bidirectional=True)
    x, lengths = batch([9, 5])
    out, _ = naive(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    packed, _ = pad_packed_sequence(out, batch_first=True)
    assert (naive(x)[0][1, :5] - packed[1, :5]).abs().max() > 1e-3


def test_last_reads_both_ends_and_last_index_reads_one_frame_backwards():
    torch.manual_seed(0)
    last, index = (
        models.LSTMBackbone(20, 8, pooling="last").eval(),
        models.LSTMBackbone(20, 8, pooling="last_index").eval(),
    )
    x, lengths = batch([10])
    changed = x.clone()
    changed[:, 0] += 1  # the first frame
    hidden = slice(8, 16)  # the backward direction
    assert (last(x, lengths) - last(changed, lengths))[:, hidden].abs().max() > 1e-4
    assert torch.equal(index(x, lengths)[:, hidden], index(changed, lengths)[:, hidden])


@pytest.mark.parametrize("make", BACKBONES)
@pytest.mark.parametrize("lengths", LENGTHS)
def test_a_prediction_does_not_depend_on_padding_or_on_the_batch(make, lengths):
    torch.manual_seed(0)
    backbone = make()
    x, size = batch([40, 31, 20], seed=5)
    for _ in range(3):
        backbone.train()(x, size)  # let batch norm see something
    backbone.eval()
    x, size = batch(lengths)
    together = backbone(x, size)
    padded = torch.cat([x, torch.zeros(len(x), 11, x.shape[2])], dim=1)
    wider = backbone(padded, size)
    alone = torch.cat([backbone(x[i : i + 1, : size[i]], size[i : i + 1]) for i in range(len(x))])
    assert together.shape == (len(lengths), backbone.num_outputs)
    assert torch.allclose(together, wider, atol=1e-5) and torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("make", BACKBONES)
def test_every_weight_gets_a_gradient(make):
    backbone = make().train()
    x, lengths = batch([40, 33, 36])
    backbone(x, lengths).square().sum().backward()
    silent = [name for name, weight in backbone.named_parameters() if not (weight.grad.abs() > 1e-12).any()]
    # the report's backward direction starts from nothing and reads one frame: its recurrent weights cannot matter
    allowed = "layers.0.backward_lstm.weight_hh" if getattr(backbone, "pooling", "") == "last_index" else ()
    assert not [name for name in silent if not name.startswith(allowed)]


def test_average_frames_averages_real_frames_only():
    x = torch.tensor([[[2.0], [4.0], [6.0], [0.0]], [[1.0], [0.0], [0.0], [0.0]]])
    averages, lengths = models.average_frames(x, torch.tensor([3, 1]), 2)
    assert averages[..., 0].tolist() == [[3.0, 6.0], [1.0, 0.0]] and lengths.tolist() == [2, 1]


def test_input_norm_standardises_and_keeps_padding_zero():
    class Statistics:
        def mean_and_deviation(self):
            import numpy as np

            return np.full(20, 2.0, np.float32), np.full(20, 4.0, np.float32)

    norm = models.InputNorm(20)
    norm.fit(Statistics())
    x, lengths = batch([3, 1])
    out = norm(x, lengths)
    assert torch.allclose(out[0, 0], (x[0, 0] - 2) / 4) and (out[1, 1:] == 0).all()


def options_of(backbone):
    """Every option of a backbone with a value that is not the default, also those that all backbones share."""
    other = {"hidden": 16, "num_layers": 2, "pooling": "last", "dropout": 0.4, "frames_per_step": 3, "normalise": False,
             "statistics": True, "channels": (8, 8), "padding": 0, "bands_per_step": 2, "num_frames": 30, "width": 32,
             "depth": 1, "num_heads": 2, "patch_frames": 2}  # fmt: skip
    names = {*inspect.signature(backbone).parameters, *inspect.signature(models.Backbone).parameters}
    return {name: other[name] for name in names - {"num_features", "num_outputs", "options"}}


@pytest.mark.parametrize("backbone", [models.LSTMBackbone, models.CNNBackbone, models.ASTBackbone])
def test_models_that_differ_in_any_option_have_different_keys(backbone, layout):
    clips = Experiment(root=layout).genre_splits().train

    def key(**changes):
        torch.manual_seed(0)
        model = models.Classifier(backbone(128, **changes), 3)
        return training._key(model, clips, clips, training.Settings(), nn.CrossEntropyLoss())

    keys = {name: key(**{name: value}) for name, value in options_of(backbone).items()}
    assert len(set(keys.values()) | {key()}) == len(keys) + 1 and key() == key()


@pytest.mark.parametrize("make", BACKBONES)
def test_no_state_changes_in_evaluation_mode_whatever_the_batch(make):
    backbone = make()
    backbone.statistics = nn.BatchNorm1d(60)
    backbone.eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(*batch([40, 33])), backbone(*batch([40]))
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not any(module.training for module in backbone.modules())
    backbone.train()
    backbone.statistics.eval()  # frozen
    backbone(*batch([40, 33]))
    assert not backbone.statistics.training and not backbone.statistics.num_batches_tracked


def test_heads_give_the_right_shapes():
    x, lengths = batch([7, 5])
    backbone = models.LSTMBackbone(20, 8)
    assert models.Classifier(backbone, 5)(x, lengths).shape == (2, 5)
    assert models.Regressor(backbone)(x, lengths).shape == (2,)
    assert models.MultitaskRegressor(backbone, 3)(x, lengths).shape == (2, 3)


def test_multitask_loss_equals_the_sum_of_its_parts():
    predictions, targets = torch.rand(6, 3), torch.rand(6, 3)
    parts = [nn.functional.mse_loss(predictions[:, a], targets[:, a]) for a in range(3)]
    assert models.MultitaskLoss([1, 1, 1])(predictions, targets).item() == pytest.approx(sum(parts).item())
    weighted = 2 * parts[0] + 0.5 * parts[2]
    assert models.MultitaskLoss([2, 0, 0.5])(predictions, targets).item() == pytest.approx(weighted.item())


def test_a_missing_label_counts_for_nothing_in_loss_and_gradient():
    predictions, targets = torch.rand(6, 3, requires_grad=True), torch.rand(6, 3)
    targets[:4, 1], targets[:, 2] = torch.nan, torch.nan
    loss = models.MultitaskLoss([1, 1, 1])(predictions, targets)
    parts = [((predictions - targets) ** 2)[:, 0].mean(), ((predictions - targets) ** 2)[4:, 1].mean()]
    assert loss.item() == pytest.approx(sum(parts).item())
    (gradient,) = torch.autograd.grad(loss, predictions)
    assert gradient.isfinite().all() and (gradient[targets.isnan()] == 0).all() and (gradient[:, 0] != 0).all()


def test_uncertainty_loss_is_smallest_where_the_variance_is_the_axes_loss():
    predictions, targets = torch.rand(50, 2), torch.rand(50, 2)
    losses = ((predictions - targets) ** 2).mean(dim=0)
    best = models.UncertaintyLoss(losses)(predictions, targets).item()
    assert best == pytest.approx((0.5 + 0.5 * losses.log()).sum().item(), abs=1e-5)
    for factors in ([1.3, 1], [1, 0.7]):
        assert models.UncertaintyLoss(losses * torch.tensor(factors))(predictions, targets).item() > best


def test_unknown_pooling_lists_the_choices():
    with pytest.raises(ValueError, match="mean_max, last or last_index"):
        models.LSTMBackbone(20, 8, pooling="median")


def test_pooled_statistics_ignore_padding_and_take_a_clip_of_one_frame():
    clips = [torch.randn(n, 5, generator=torch.Generator().manual_seed(n)) for n in (1, 7, 12)]
    got = models.pooled_statistics(nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([1, 7, 12]))
    for row, clip in zip(got, clips):
        change = (clip[1:] - clip[:-1]).abs().mean(dim=0) if len(clip) > 1 else torch.zeros(5)
        expected = torch.cat([clip.mean(dim=0), clip.std(dim=0, correction=0), change])
        assert torch.allclose(row, expected, atol=2e-3)


def test_statistics_beside_the_lstm_train_on_a_batch_of_one_clip():
    model = models.LSTMBackbone(6, 4, statistics=True).train()
    x, lengths = torch.randn(1, 9, 6), torch.tensor([9])
    assert model(x, lengths).shape == (1, model.num_outputs) == (1, 4 * 4 + 3 * 6)
    before = model.statistics.running_mean.clone()
    assert model(torch.randn(3, 9, 6), torch.tensor([9, 4, 1])).isfinite().all()
    assert not torch.equal(before, model.statistics.running_mean)
