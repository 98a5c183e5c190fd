"""A peer: training as the documentation of Lightning and of segmentation_models_pytorch writes it.

`python lightning_script.py classify --data DIR --network tf_efficientnet_lite0 --start start.pth ...`, or `segment
--network Unet/resnet18 ...`. It imports nothing of this project. At its end it prints the images per second of its two
loops as JSON; the validation that checks the code before the first epoch is not in them.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, io, tv_tensors
from torchvision.transforms import v2

CLASSES = 11  # of the street scenes, numbered from 0; further numbers are void


class Module(L.LightningModule):
    """What both tasks share."""

    model: nn.Module
    optimizer: Any

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over a batch."""
        return nn.functional.cross_entropy(logits, targets)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss = self.loss(self.model(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.1)]


class Classifier(Module):
    """A network of timm's with two classes, from the weights in a file."""

    optimizer = partial(torch.optim.SGD, lr=1e-2, momentum=0.9)

    def __init__(self, network: str, start: str) -> None:
        super().__init__()
        self.model = timm.create_model(network, num_classes=2, checkpoint_path=start)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        logits = self.model(batch[0])
        self.log("val_loss", self.loss(logits, batch[1]))
        self.log("val_accuracy", (logits.argmax(1) == batch[1]).float().mean(), prog_bar=True)


class Segmenter(Module):
    """A network of segmentation_models_pytorch from random weights, with that library's counts of pixels."""

    optimizer = partial(torch.optim.Adam, lr=1e-3)

    def __init__(self, network: str) -> None:
        import segmentation_models_pytorch as smp

        super().__init__()
        architecture, _, encoder = network.partition("/")
        self.model = smp.create_model(architecture, encoder_name=encoder, encoder_weights=None, classes=CLASSES)
        self.metrics, self.counts = smp.metrics, list[tuple[Tensor, ...]]()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy against one-hot targets, zero for void."""
        one_hot = nn.functional.one_hot(targets, CLASSES + 1)[..., :CLASSES].movedim(-1, 1)
        return nn.functional.binary_cross_entropy_with_logits(logits, one_hot.float())

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        logits = self.model(batch[0])
        self.log("val_loss", self.loss(logits, batch[1]))
        settings: dict[str, Any] = dict(mode="multiclass", num_classes=CLASSES, ignore_index=CLASSES)
        self.counts.append(self.metrics.get_stats(logits.argmax(1), batch[1], **settings))

    def on_validation_epoch_end(self) -> None:
        counts = [torch.cat(part) for part in zip(*self.counts, strict=True)]
        self.log("val_iou", self.metrics.iou_score(*counts, reduction="macro-imagewise"), prog_bar=True)
        self.counts.clear()


class Scenes(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Pictures of `split/` with their labels in `splitannot/`: float32 [3, size, size] and int64 [size, size]."""

    def __init__(self, folder: Path, steps: v2.Transform) -> None:
        self.pictures = sorted(folder.glob("*.png"))
        self.labels = sorted(folder.with_name(f"{folder.name}annot").glob("*.png"))
        self.steps = steps

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = tv_tensors.Image(io.decode_image(str(self.pictures[index]), io.ImageReadMode.RGB))
        image, label = self.steps(image, tv_tensors.Mask(io.decode_image(str(self.labels[index]))[0]))
        return image, label.long()


class Loops(L.Callback):
    """Seconds of the two loops of every epoch."""

    train = val = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.ended = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.train += self.ended - self.began
            self.val += time.perf_counter() - self.ended


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("classify", "segment"))
    kinds: dict[str, Any] = dict(data=Path, network=str, start=str, device=str, size=int, batch=int)
    for name, kind in (kinds | dict(epochs=int, workers=int)).items():
        parser.add_argument(f"--{name}", type=kind, required=name != "start")
    given = parser.parse_args()
    segments, size = given.task == "segment", given.size
    if segments:
        crops: list[list[v2.Transform]] = [[v2.RandomCrop(size)], [v2.CenterCrop(size)]]
    else:
        crops = [[v2.RandomResizedCrop(size)], [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)]]
    crops[0].append(v2.RandomHorizontalFlip())
    dtypes = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
    to_input = [v2.ToImage(), dtypes, v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    steps = [v2.Compose([*crop, *to_input]) for crop in crops]
    read: Any = Scenes if segments else datasets.ImageFolder
    train, val = read(given.data / "train", steps[0]), read(given.data / "val", steps[1])
    settings: dict[str, Any] = dict(num_workers=given.workers, persistent_workers=given.workers > 0)
    settings |= dict(batch_size=given.batch, pin_memory=torch.cuda.is_available() and given.device != "cpu")
    loops, module = Loops(), Segmenter(given.network) if segments else Classifier(given.network, given.start)
    trainer = L.Trainer(max_epochs=given.epochs, accelerator=given.device, devices=1, callbacks=[loops])
    trainer.fit(module, DataLoader(train, shuffle=True, **settings), DataLoader(val, **settings))
    rates = {"train": len(train) / loops.train, "val": len(val) / loops.val}
    print(json.dumps({loop: given.epochs * rate for loop, rate in rates.items()}))


if __name__ == "__main__":
    main()
