"""What is kept of a network's last evaluation: Grad-CAM by hand, runs left as they were, files that only fit."""

import warnings
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cvhw4.data import load
from cvhw4.data.dataset import Split
from cvhw4.data.embedded import face_masks
from cvhw4.data.embedded.portraits import SIZE, Head, face_mask, person_at
from cvhw4.models.build import build_network
from cvhw4.records.samples import pictures_digest
from cvhw4.runner import Runner
from cvhw4.training import samples as capture
from cvhw4.training.fit import fit
from cvhw4.training.objectives import make_objective
from cvhw4.training.samples import NO_MAP, SampleRecorder, grad_cam, validation_pictures
from tests.helpers.tiny import QUICK, dataset, row

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CVHW4_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


class Small(nn.Module):
    """One convolution, the mean over its map, one linear layer: what CAM (Zhou et al., 2016) was made for."""

    def __init__(self, channels=5, classes=3):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, channels, 3), nn.Linear(channels, classes)

    def forward_features(self, x):
        return self.conv(x)

    def forward_head(self, x):
        return self.linear(x.mean((2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


def seen_by(recorder, module, inputs, batch=3):
    """What a recorder keeps of one evaluation."""
    module.eval()
    with torch.inference_mode(), recorder.looking():
        for part in inputs.split(batch):
            recorder.observe(module(part))
    return recorder.samples()


# Grad-CAM


def test_of_one_convolution_and_a_mean_grad_cam_is_the_class_activation_map():
    torch.manual_seed(0)
    network, inputs = Small(), torch.randn(4, 3, 8, 8)
    maps, classes = network.conv(inputs).detach(), torch.tensor([0, 2, 1, 2])
    scores, heat = grad_cam(maps, classes, network.forward_head)
    by_hand = torch.einsum("bk,bkyx->byx", network.linear.weight[classes], maps).relu() / 36
    assert torch.allclose(heat, by_hand, atol=1e-6) and (heat > 0).any()
    assert torch.allclose(scores, network(inputs), atol=1e-6)
    last = maps.permute(0, 2, 3, 1)  # channels come last
    _, other = grad_cam(last, classes, lambda x: network.forward_head(x.permute(0, 3, 1, 2)), (1, 2))
    assert torch.allclose(heat, other)


def test_a_network_without_a_map_has_none_and_says_so():
    tokens, unused, other = Small(), Small(), Small()
    tokens.forward_features, tokens.forward_head = lambda x: x.flatten(2), lambda x: x.mean(2)
    unused.forward = lambda x: torch.eye(3)[:1].repeat(len(x), 1)  # never calls its features
    other.forward = lambda x: 9 * other.forward_head(other.forward_features(x))  # makes another thing of them
    for network, why in ((tokens, NO_MAP), (unused, NO_MAP), (other, "the network's head is not what its name says")):
        found = seen_by(SampleRecorder(dataset("classification"), network, 8), network, torch.randn(8, 3, 8, 8))
        assert found.heat is None and why == found.why and len(found.probabilities) == 8


def of_nothing():
    raise TypeError("forward_head() missing 1 required positional argument")


@pytest.mark.parametrize("head", [lambda x: x @ torch.zeros(7, 7), lambda x: of_nothing()])
def test_grad_cam_that_fails_costs_no_run(head):
    network = Small()
    recorder = SampleRecorder(dataset("classification"), network, 8)
    recorder.cut = recorder.cut._replace(head=head)
    with pytest.warns(UserWarning, match="keeps no heat maps"):
        found = seen_by(recorder, network, torch.randn(8, 3, 8, 8))
    assert found.heat is None and found.probabilities.shape == (8, 3)


def test_a_subclass_of_sequential_has_heat_maps():
    class Net(nn.Sequential):
        def __init__(self, classes):
            super().__init__(Small(classes=4), nn.Linear(4, classes))

    network = Net(3)
    found = seen_by(SampleRecorder(dataset("classification"), network, 8), network, torch.randn(8, 3, 8, 8))
    assert found.heat.shape == (8, 6, 6) and found.probabilities.shape == (8, 3)


def test_of_many_images_an_even_choice_is_kept(monkeypatch):
    monkeypatch.setattr(capture, "MOST_IMAGES", 3)
    network, inputs = Small(), torch.randn(8, 3, 8, 8)
    found = seen_by(SampleRecorder(dataset("classification"), network, 8), network, inputs)
    assert found.index.tolist() == [0, 2, 5] and found.heat.shape == (3, 6, 6)
    assert np.allclose(found.probabilities, network(inputs[[0, 2, 5]]).softmax(1).detach(), atol=1e-3)
    pictures = validation_pictures(dataset("classification"), 32)
    assert len(pictures.packed) and pictures.labels.shape == (3,)


# In training


def trained(name, **recipe):
    """A run's history, network, and what is left of torch's generator."""
    experiment = row(name.removesuffix(" alexnet"), **recipe)
    if name.endswith("alexnet"):
        experiment = replace(experiment, network="alexnet", start="random")
    torch.manual_seed(0)
    network = build_network(experiment, seed=0)
    history = fit(experiment, dataset(experiment.task.name), network, seed=0, device=CPU)
    return experiment, history, network.module, torch.get_rng_state()


def as_it_was(history):
    timeless = [replace(e, train_seconds=0.0, evaluate_seconds=0.0) for e in history.epochs]
    return timeless, repr(history.by_class), history.results.to_bytes()  # NaN is equal to itself in a text


@pytest.mark.parametrize("name", ["q1_1", "q1_1 alexnet", "q1_2", "q1_8", "q2_1a"])
def test_a_run_is_the_same_to_the_bit_looked_at_or_not(name, monkeypatch):
    size = {"size": 64} if name.endswith("alexnet") else {}
    _, history, module, generator = trained(name, **size)
    with monkeypatch.context() as patch:
        patch.setattr(SampleRecorder, "looking", lambda self: nullcontext())
        patch.setattr(SampleRecorder, "observe", lambda self, scores: None)
        patch.setattr(SampleRecorder, "samples", lambda self: None)
        _, plain, other, after = trained(name, **size)
    assert as_it_was(history) == as_it_was(plain) and torch.equal(generator, after)
    states = zip(module.state_dict().items(), other.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in states)
    assert [m.training for m in module.modules()] == [m.training for m in other.modules()]
    assert vars(module).keys() == vars(other).keys()  # no method is left replaced
    grads = ([p.grad for p in m.parameters() if p.grad is not None] for m in (module, other))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    data, shown = dataset("classification" if name.startswith("q1") else "segmentation"), history.samples
    if name.startswith("q1"):  # it is the last evaluation that is kept
        assert ((shown.probabilities.argmax(1) == data.val.targets) == history.results.right[-1]).all()
        assert np.allclose(shown.probabilities.sum(1), 1, atol=2e-3)
        side = 3 if size else 1
        assert shown.heat.shape == (8, side, side) and shown.heat.dtype == np.uint8 and shown.why == ""
        return
    masks = validation_pictures(data, 32).masks
    assert shown.predicted.shape == masks.shape == (8, 32, 32)
    counts = np.zeros((8, 12, 11), dtype=np.int64)
    np.add.at(counts, (np.arange(8)[:, None, None], masks, shown.predicted), 1)
    assert (counts == history.results.counts[-1].sum(1)).all()


@pytest.mark.parametrize("name", ["q1_1", "q1_2"])
def test_the_heat_is_grad_cam_of_the_trained_network_as_autograd_finds_it(name):
    experiment, history, module, _ = trained(name, size=96, epochs=1)
    objective = make_objective(experiment, dataset("classification"), build_network(experiment, seed=0), CPU, 0)
    inputs, _ = next(objective.validation())
    maps = module.eval().requires_grad_(True).forward_features(inputs)
    maps.retain_grad()
    scores = module.forward_head(maps)
    scores.max(1).values.sum().backward()
    heat = F.relu((maps.grad.mean((2, 3), keepdim=True) * maps).sum(1)).detach().numpy()
    scaled = 255 * heat / heat.max((1, 2), keepdims=True)
    found = history.samples
    assert found.heat.shape == (8, 3, 3) and (found.heat.max((1, 2)) == 255).all()
    assert np.abs(found.heat - scaled).max() < 1.5  # batch norms were folded into their convolutions
    assert np.abs(found.probabilities - scores.softmax(1).detach().numpy()).max() < 2e-3


def test_a_study_keeps_samples_with_the_record_and_pictures_once(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "_load", lambda *_: dataset("classification"))
    runner = Runner(study=QUICK, results=tmp_path, device="cpu", reuse=True)
    first, second = (runner.run(row("q1_1"), seed) for seed in (0, 1))
    shown = [runner.store.samples(r) for r in (first, second)]
    assert [e.run for e in shown] == [first.fingerprint, second.fingerprint]
    (path,) = (tmp_path / "quick" / "pictures").iterdir()
    digest = pictures_digest(dataset("classification").fingerprint, 32)
    assert path.name == f"{digest}.npz" and {e.pictures for e in shown} == {digest}
    pictures = runner.store.pictures(digest)
    val = dataset("classification").val
    assert (pictures.labels == val.targets).all() and pictures.names == val.names
    assert pictures.picture(3).shape == (32, 32, 3) and pictures.faces is None

    runner.store.path(first.row, 0, first.fingerprint).with_suffix(".samples.npz").unlink()  # as older code left it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert runner.run(row("q1_1"), 0) == first and runner.store.samples(first) is None


# Pictures


@pytest.mark.parametrize(("task", "name"), [("classification", "q1_2"), ("segmentation", "q2_1a")])
def test_pictures_are_what_networks_see(task, name):
    data, experiment = dataset(task), row(name)
    smooth = np.linspace(0, 255, 40 * 48 * 3).reshape(1, 40, 48, 3) + np.zeros((8, 1, 1, 1))
    data = replace(data, val=replace(data.val, images=smooth.astype(np.uint8)))
    seen = make_objective(experiment, data, build_network(experiment, seed=0), CPU, 0).centred(torch.arange(8))
    pictures = validation_pictures(data, 32)
    found = np.stack([pictures.picture(k) for k in range(8)]).astype(np.float64)
    assert np.abs(found - seen.permute(0, 2, 3, 1).numpy()).max() < 6
    if task == "segmentation":
        assert (pictures.masks == data.val.targets[:, 4:36, 8:40]).all() and pictures.labels is None
    else:
        assert (pictures.labels == data.val.targets).all() and pictures.masks is None


def test_the_face_is_where_the_generator_draws_it():
    for index in range(12):
        person, _ = person_at("val", index)
        mask, head = face_mask("val", index), Head(person, person.tilt)
        assert mask.shape == SIZE and 0.1 < mask.mean() < 0.45

        def at(u, v, mask=mask, head=head):
            x, y = head.pixel(u, v)
            return bool(mask[int(y), int(x)])

        assert all(at(*place) for place in ((0, 0), (-0.44, 0), (0.44, 0), (0, 0.7), (0, person.length - 0.12)))
        beside = (1.1, 0), (-1.1, 0), (0, -person.length - 0.1), (0, person.length + 0.1)
        assert not any(at(*place) for place in beside)


def test_faces_are_cropped_as_the_pictures_are():
    drawn = np.stack([face_mask("val", index) for index in (4, 1)])
    images = np.repeat(drawn[..., None], 3, 3).astype(np.uint8) * 255  # white faces on black
    val = Split(images, np.tile(np.int32(SIZE), (2, 1)), np.zeros(2, np.uint8), ("val/0004", "val/0001"))
    data = replace(dataset("classification"), val=val)
    assert (face_masks(data) == drawn).all()
    pictures = validation_pictures(data, 96)
    for k in range(2):
        assert ((pictures.picture(k)[..., 0] > 127) == pictures.faces[k]).mean() > 0.99
    assert face_masks(dataset("classification")) is None and face_masks(replace(data, embedded=False)) is None
