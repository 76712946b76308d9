"""The training loop, prediction, and the cache of trained models (notebooks 05, 07-10)."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from . import data, evaluation, models, store
from .data import SpectrogramDataset, check_choice, pad_collate
from .files import locked, safe_name, whole_file
from .progress import progress
from .store import home

SOURCES = (store, data, models, evaluation, sys.modules[__name__])  # code that a trained model depends on


OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
SCHEDULES = {  # learning rate by step: of the optimiser, the settings and the number of steps in an epoch
    "one_cycle": lambda optimizer, settings, steps: torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=settings.num_epochs * steps + 1
    ),
    "halving": lambda optimizer, settings, steps: torch.optim.lr_scheduler.StepLR(optimizer, 50 * steps, gamma=0.5),
}
MONITORS = {  # score of an epoch, higher is better: of the labels, the outputs and the loss on the validation set
    "loss": lambda labels, outputs, loss: -loss,
    "last": lambda labels, outputs, loss: -loss,  # `fit` takes the number of the epoch
    "macro_f1": lambda labels, outputs, loss: evaluation.macro_f1(labels, outputs.argmax(axis=1)),
    "spearman": lambda labels, outputs, loss: evaluation.mean_spearman(
        labels.reshape(len(labels), -1), outputs.reshape(len(outputs), -1)
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is trained. For `fit`.

    Raises
    ------
    DataError : an optimiser, a schedule or a monitor that does not exist.
    """

    num_epochs: int = 20
    batch_size: int = 32
    lr: float = 1e-3  # the highest learning rate of the schedule
    weight_decay: float = 1e-2
    optimizer: str = "adamw"  # or "adam", whose weight decay is an L2 penalty, as in the report
    schedule: str = "one_cycle"  # or "halving": halved every 50 epochs, as in the report
    grad_clip: float = 1.0  # largest norm of the gradient; 0: no clipping
    patience: int = 8  # epochs without a better validation score before stopping
    # What chooses the epoch: "loss", "macro_f1" or "spearman" on the validation set, or "last": the last one is kept.
    monitor: str = "loss"
    refit: bool = False  # train once more, on training and validation clips together (`recipes` does it)
    seed: int = 0  # of shuffling and dropout

    def __post_init__(self):
        for name, table in {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "monitor": MONITORS}.items():
            check_choice(name, getattr(self, name), table)


@dataclasses.dataclass
class Fitted:
    """A trained model with what is known of its training. For `fit_or_load`."""

    model: nn.Module
    loss: nn.Module  # with the weights that it has learned, if it has any
    history: list[dict]  # per epoch: epoch, train_loss, val_loss, val_score
    seconds: float  # of the training, also when loaded
    loaded: bool = False  # from the cache

    @property
    def best(self) -> dict:
        """The epoch whose weights were kept."""
        return max(self.history, key=lambda epoch: epoch["val_score"])


def loader(dataset: SpectrogramDataset, batch_size: int, *, shuffle: bool = False, seed: int = 0) -> DataLoader:
    """Batches of padded clips, read on demand. Notebook 04."""
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(dataset, batch_size, shuffle=shuffle, collate_fn=pad_collate, generator=generator)


def clip_statistics(dataset: SpectrogramDataset) -> np.ndarray:
    """Mean, deviation and mean absolute change over time of each feature: float32 [N, 3 F]. Notebook 06."""
    return np.concatenate([models.pooled_statistics(b.x, b.lengths).numpy() for b in loader(dataset, 64)])


def device_of(model: nn.Module) -> torch.device:
    """Where the weights of a model lie. For `fit`, `predict`."""
    return next(model.parameters()).device


def default_loss(dataset: SpectrogramDataset) -> nn.Module:
    """Cross-entropy for genres, mean squared error for affect values. For `fit`."""
    return nn.CrossEntropyLoss() if dataset.task == "genre" else nn.MSELoss()


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Adam over the weights that are not frozen. For `fit`."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return OPTIMIZERS[settings.optimizer](weights, lr=settings.lr, weight_decay=settings.weight_decay, foreach=True)


def make_schedule(optimizer, settings: Settings, steps_per_epoch: int):
    """Learning rate per step: "one_cycle" (Smith, 2018) or "halving" every 50 epochs. For `fit`."""
    return SCHEDULES[settings.schedule](optimizer, settings, steps_per_epoch)


def freeze(module: nn.Module) -> None:
    """Keep a module as it is: no gradients, and batch norm statistics stay too (see `train_mode`). Notebook 09."""
    for weight in module.parameters():
        weight.requires_grad_(False)


def train_mode(model: nn.Module) -> None:
    """Training mode for all but the frozen parts. Notebook 09."""
    model.train()
    for module in model.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()


def fit_normalisation(model: nn.Module, dataset: SpectrogramDataset) -> None:
    """Fit the input standardisation on the training clips, unless it came with the weights. Notebook 05."""
    backbone = model.backbone
    if backbone.normalise and bool((backbone.norm.deviation == 1).all()):
        backbone.norm.fit(dataset)


def train_step(model: nn.Module, batch, loss_function: nn.Module, optimizer, grad_clip: float = 0.0) -> float:
    """One step of gradient descent on one batch; returns the batch's mean loss. Notebook 05."""
    loss = loss_function(model(batch.x, batch.lengths), batch.y)
    optimizer.zero_grad()
    loss.backward()
    if grad_clip:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        nn.utils.clip_grad_norm_(weights, grad_clip)
    optimizer.step()
    return loss.item()


def fit(
    model, train_set, val_set, settings: Settings = Settings(), *, loss_function=None, desc="training"
) -> list[dict]:
    """Train until the validation score stops rising, and leave the best epoch's weights in `model`.

    Notebook 05.

    Parameters
    ----------
    model : maps (x [B, T, F], lengths [B]) to outputs; its input standardisation is fitted on `train_set`.
    loss_function : module (outputs, y) -> scalar, trained too if it has weights; None: `default_loss`.
    desc : label of the progress bar.

    Returns
    -------
    history : per epoch `train_loss`, `val_loss` (means over clips, not over batches) and `val_score`, higher is
        better. The training loss is measured on the way, in training mode.

    Raises
    ------
    FloatingPointError : the loss is not finite.
    """
    torch.manual_seed(settings.seed)
    fit_normalisation(model, train_set)
    device = device_of(model)
    if device.type == "cuda":
        train_set, val_set = train_set.keep_on(device), val_set.keep_on(device)
    loss_function = (loss_function or default_loss(train_set)).to(device)
    batches = loader(train_set, settings.batch_size, shuffle=True, seed=settings.seed)
    trained = nn.ModuleList([model, loss_function])  # a loss may have weights of its own
    optimizer = make_optimizer(trained, settings)
    schedule = make_schedule(optimizer, settings, len(batches))
    history, best_state = [], None
    bar = progress(total=settings.num_epochs, desc=desc, unit="epoch")
    for epoch in range(1, settings.num_epochs + 1):
        train_mode(model)
        total = 0.0
        for batch in batches:
            loss = train_step(model, batch.to(device), loss_function, optimizer, settings.grad_clip)
            schedule.step()
            total += loss * len(batch.y)
        val_loss, val_score = validate(model, val_set, loss_function, settings.monitor)
        if settings.monitor == "last":
            val_score = epoch
        row = {"epoch": epoch, "train_loss": total / len(train_set), "val_loss": val_loss, "val_score": val_score}
        history.append(row)
        if not np.isfinite([total, val_loss]).all():
            raise FloatingPointError(f"the loss is not finite in epoch {epoch}: lower lr or look at the inputs")
        best = max(history, key=lambda row: row["val_score"])["epoch"]
        if best == epoch:
            best_state = {name: value.detach().clone() for name, value in trained.state_dict().items()}
        bar.update()
        if epoch - best >= settings.patience:
            bar.total = epoch  # stopped early, not broken off
            break
    bar.close()
    trained.load_state_dict(best_state)
    return history


def validate(model, dataset, loss_function, monitor: str = "loss") -> tuple[float, float]:
    """Loss and score (higher is better) on a data set, in evaluation mode. Notebook 05."""
    outputs, labels = predict(model, dataset), dataset.labels
    loss = loss_function(*(torch.from_numpy(values).to(device_of(model)) for values in (outputs, labels))).item()
    return loss, MONITORS[check_choice("monitor", monitor, MONITORS)](labels, outputs, loss)


@torch.inference_mode()
def predict(model, dataset, *, batch_size: int = 64) -> np.ndarray:
    """Outputs for all clips in order: logits [N, C] or values [N] or [N, A]. Notebook 06.

    Evaluation mode: dropout off, batch norm with its running statistics.
    """
    model.eval()
    order = np.argsort(dataset.lengths, kind="stable")  # clips of like length share a batch: little padding
    batches = (batch.to(device_of(model)) for batch in loader(dataset.subset(order), batch_size))
    outputs = torch.cat([model(batch.x, batch.lengths) for batch in batches]).cpu().numpy()
    return outputs[np.argsort(order)]


def overfit_batch(
    model, dataset, settings: Settings = Settings(), *, num_batches=3, num_steps=120, loss_function=None
) -> np.ndarray:
    """Train on the same few batches again and again; a sound model and loop drive the loss to about 0. Notebook 05.

    Dropout and weight decay are off: nothing should stand in the way. Returns the loss of each step, float [steps].
    """
    torch.manual_seed(settings.seed)
    fit_normalisation(model, dataset)
    device = device_of(model)
    optimizer = make_optimizer(model, dataclasses.replace(settings, weight_decay=0.0))
    loss_function = (loss_function or default_loss(dataset)).to(device)
    batches = loader(dataset, settings.batch_size, shuffle=True, seed=settings.seed)
    batches = list(itertools.islice(batches, num_batches))
    train_mode(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    rounds = itertools.islice(itertools.cycle(batch.to(device) for batch in batches), num_steps)
    return np.array([train_step(model, batch, loss_function, optimizer, settings.grad_clip) for batch in rounds])


def fit_or_load(
    name: str, model, train_set, val_set, settings: Settings = Settings(), *, loss_function=None
) -> Fitted:
    """`fit`, or the same fit from the cache of trained models.

    Notebook 09. The key is the content of data, model (with its initial weights), settings and training code:
    change any of them and the model is trained again. Files lie under `home()/models`.
    """
    loss_function = loss_function or default_loss(train_set)
    key = _key(model, train_set, val_set, settings, loss_function)
    path = home() / "models" / f"{safe_name(name)}-{key}.pt"
    with locked(path):
        saved = _load(path, device_of(model))
        loaded = saved is not None
        if not loaded:
            start = time.perf_counter()
            desc = f"{name}, seed {settings.seed}"
            history = fit(model, train_set, val_set, settings, loss_function=loss_function, desc=desc)
            seconds = time.perf_counter() - start
            saved = {"weights": model.state_dict(), "loss": loss_function.state_dict()}
            saved |= {"history": history, "seconds": seconds}
            content = io.BytesIO()
            torch.save(saved, content)
            with whole_file(path) as part:
                part.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())
    model.load_state_dict(saved["weights"])
    loss_function.to(device_of(model)).load_state_dict(saved["loss"])
    return Fitted(model.eval(), loss_function, saved["history"], saved["seconds"], loaded)


def _load(path: Path, device):
    if not path.exists():
        return None
    content, digest = (data := path.read_bytes())[:-32], data[-32:]
    if hashlib.sha256(content).digest() != digest:
        warnings.warn(f"{path}: damaged checkpoint, training again", stacklevel=4)
        return None
    return torch.load(io.BytesIO(content), map_location=device, weights_only=True)


def _key(model, train_set, val_set, settings, loss_function) -> str:
    digest = hashlib.blake2b(digest_size=10)
    for module in SOURCES:
        digest.update(Path(module.__file__).read_bytes())
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    text = (model, settings, loss_function, frozen, train_set.fingerprint, val_set.fingerprint)
    digest.update(repr(text).encode())
    for tensor in itertools.chain(model.state_dict().values(), loss_function.state_dict().values()):
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
