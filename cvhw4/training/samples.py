"""What a network made of the validation pictures in its last evaluation, kept by looking on: no evaluation of its own.

For classification the probabilities, and Grad-CAM of the predicted class (Selvaraju et al., 2017) from the last
convolutional feature map, which is kept as the evaluation computes it: what is computed anew is the head alone. For
segmentation the predicted class of every pixel.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import AlexNet

from cvhw4.data.augment import centre, resample, whole_views
from cvhw4.data.dataset import Dataset
from cvhw4.data.embedded import face_masks
from cvhw4.data.gather import gather
from cvhw4.models.build import evaluating
from cvhw4.models.names import first_line
from cvhw4.records.samples import MOST_BYTES, MOST_IMAGES, PredictionSamples, ValidationPictures, even_choice
from cvhw4.training.objectives import DeviceSplit

_PART = 64  # images that go through the head at once
QUALITY = 90  # of JPEG
NO_MAP = "the network's last features are no map"
_Seen = Callable[[Tensor], None]


class _Cut(NamedTuple):
    """A network at its last feature map.

    Attributes:
        watch: calls a function with every feature map the network makes, until it is called itself.
        head: feature maps to logits.
        space: the map's dimensions of space: (2, 3), or (1, 2) where channels come last.
    """

    watch: Callable[[_Seen], Callable[[], None]]
    head: Callable[[Tensor], Tensor]
    space: tuple[int, int]


class SampleRecorder:
    """Keeps what the evaluations of a network show.

    Args:
        dataset: whose validation split is evaluated, in order.
        module: the whole network.
        size: side of its inputs, in pixels.
    """

    def __init__(self, dataset: Dataset, module: nn.Module, size: int) -> None:
        self.module, self.images = module, len(dataset.val)
        self.index = _chosen_images(dataset, size)
        self.cut = _find_cut(module) if dataset.task == "classification" else None
        self._seen = self._mapped = 0  # images whose scores, and whose feature maps, have come
        self._scores: list[Tensor] = []
        self._maps: list[Tensor] = []

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Within it one evaluation is looked at. Where it makes no feature maps, because a frozen network's are kept,
        those seen before hold on."""
        self._seen, self._scores, maps, mapped = 0, [], list[Tensor](), 0

        def keep(found: Tensor) -> None:
            nonlocal mapped
            maps.append(self._of_chosen(found, mapped))
            mapped += len(found)

        stop = self.cut.watch(keep) if self.cut else None
        try:
            yield
        finally:
            if stop is not None:
                stop()
        if maps:
            self._maps, self._mapped = maps, mapped

    def observe(self, scores: Tensor) -> None:
        """Takes the logits of the next images: [B, C], or [B, C, H, W], of which the predicted classes are kept."""
        seen, self._seen = self._seen, self._seen + len(scores)
        scores = self._of_chosen(scores, seen)
        self._scores.append(scores if scores.ndim == 2 else scores.max(1).indices.to(torch.uint8))

    def _of_chosen(self, values: Tensor, first: int) -> Tensor:
        """Of values of successive images, `first` and those behind it, those of the chosen ones."""
        here = self.index[(self.index >= first) & (self.index < first + len(values))] - first
        return values if len(here) == len(values) else values[torch.from_numpy(here).to(values.device)]

    def samples(self) -> PredictionSamples:
        """What was seen, of no run yet."""
        scores = torch.cat(self._scores)
        if scores.ndim == 3:
            return PredictionSamples("", "", self.index, predicted=scores.cpu().numpy())
        heat, why = None, NO_MAP
        try:
            heat, why = self._heat(scores)
        except Exception as error:  # of a user's own head too: no picture is worth a trained network
            problem = first_line(error)
            warnings.warn(f"Grad-CAM failed ({problem}): this run keeps no heat maps.", stacklevel=2)
        probabilities = scores.float().softmax(1).cpu().numpy().astype(np.float16)
        return PredictionSamples("", "", self.index, probabilities=probabilities, heat=heat, why=why)

    def _heat(self, scores: Tensor) -> tuple[NDArray[np.uint8] | None, str]:
        """Grad-CAM of the chosen images, or why there is none."""
        if self.cut is None or not self._maps or self._maps[0].ndim != 4:
            return None, NO_MAP
        if self._mapped != self.images:
            return None, "memory did not hold a batch, and its features came in parts"
        heats, classes = [], scores.argmax(1)
        maps = torch.cat(self._maps)
        with evaluating(self.module):
            for part, expected, of in zip(maps.split(_PART), scores.split(_PART), classes.split(_PART), strict=True):
                found, heat = grad_cam(part, of, self.cut.head, self.cut.space)
                if not torch.allclose(found, expected.float(), rtol=0.05, atol=0.05 * float(expected.abs().max())):
                    return None, "the network's head is not what its name says"  # it does not give the scores
                heats.append(heat)
        whole = torch.cat(heats)
        whole = whole / whole.amax((1, 2), keepdim=True).clamp(min=torch.finfo().tiny) * 255
        return whole.round().to(torch.uint8).cpu().numpy(), ""


def grad_cam(
    maps: Tensor, classes: Tensor, head: Callable[[Tensor], Tensor], space: tuple[int, int] = (2, 3)
) -> tuple[Tensor, Tensor]:
    """Grad-CAM: the feature maps, each weighted with the mean gradient of its class's score, added up, where positive.

    No parameter gets a gradient. The head's mode is the caller's business.

    Args:
        maps: float [B, C, h, w], or [B, h, w, C] with `space` (1, 2).
        classes: int64 [B], of which class.
        head: maps to logits, image by image.

    Returns:
        Logits float32 [B, classes], and heat float32 [B, h, w], at least 0.
    """
    maps = maps.float().clone().requires_grad_()  # of an inference tensor too, which a clone is not
    with torch.inference_mode(False), torch.enable_grad():
        scores = head(maps)
        (gradient,) = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), maps)
    maps = maps.detach()
    heat = (gradient.mean(space, keepdim=True) * maps).sum(6 - sum(space)).relu()
    return scores.detach(), heat


def _find_cut(module: nn.Module) -> _Cut | None:
    """Where a classifier's last feature map is; None where that is not known."""
    network: Any = module
    if isinstance(module, AlexNet):  # before the last pooling
        *_, layer, pool = module.features

        def watch(seen: _Seen) -> Callable[[], None]:
            return layer.register_forward_hook(lambda *found: seen(found[-1])).remove

        return _Cut(watch, lambda x: network.classifier(network.avgpool(pool(x)).flatten(1)), (2, 3))
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        first, *rest = module  # a slice would call a subclass's own __init__
        inner, behind = _find_cut(first), nn.Sequential(*rest)
        return inner and inner._replace(head=lambda x: behind(inner.head(x)))
    if all(hasattr(module, part) for part in ("forward_features", "forward_head")):  # timm's
        last = str(getattr(module, "output_fmt", "NCHW")) == "NHWC"
        return _Cut(lambda seen: _watch_features(network, seen), network.forward_head, (1, 2) if last else (2, 3))
    return None


def _watch_features(network: Any, seen: _Seen) -> Callable[[], None]:
    """Shows what `forward_features` gives, which is no module that a hook could be on."""
    plain = network.forward_features

    def shown(*arguments: Any, **options: Any) -> Any:
        features = plain(*arguments, **options)
        if isinstance(features, Tensor):
            seen(features)
        return features

    network.forward_features = shown
    return lambda: delattr(network, "forward_features")


def _chosen_images(dataset: Dataset, size: int) -> NDArray[np.int64]:
    """The validation images that are kept, the same for all networks that see them at one size."""
    most = MOST_IMAGES if dataset.task == "classification" else MOST_BYTES // size**2
    return even_choice(len(dataset.val), max(1, min(MOST_IMAGES, most)))


def validation_pictures(dataset: Dataset, size: int) -> ValidationPictures:
    """The validation pictures as networks see them, `size` pixels a side."""
    from io import BytesIO

    from PIL import Image

    index, val = _chosen_images(dataset, size), dataset.val
    targets = gather(val.targets, index)
    faces = None
    if dataset.task == "classification":
        boxes = whole_views(torch.tensor(val.sizes[index]), size)
        seen = DeviceSplit(val, torch.device("cpu")).resampled(torch.from_numpy(index), boxes, size)
        if (drawn := face_masks(dataset)) is not None:
            covered = torch.from_numpy(drawn[index])[..., None].expand(-1, -1, -1, 3).to(torch.uint8)
            faces = (resample(covered, boxes, size)[:, 0] > 0.5).numpy()
        pixels = seen.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    else:
        pixels = centre(gather(val.images, index), size).numpy()
    files = []
    for picture in pixels:
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY)
        files.append(np.frombuffer(buffer.getvalue(), np.uint8))
    return ValidationPictures(
        index=index,
        packed=np.concatenate(files),
        ends=np.cumsum([len(file) for file in files]),
        names=tuple(val.names[i] for i in index),
        labels=targets.numpy() if dataset.task == "classification" else None,
        masks=None if dataset.task == "classification" else centre(targets, size).numpy(),
        faces=faces,
    )
