"""The loop: what is drawn, what changes, what is measured."""

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from cvhw4.data import augment
from cvhw4.data.augment import stream
from cvhw4.models.build import build_network
from cvhw4.training import fit as fit_module
from cvhw4.training.fit import TrainingDiverged, fit
from cvhw4.training.objectives import Evaluation, make_objective
from tests.helpers.tiny import FULL, dataset, row

CPU = torch.device("cpu")


def train(name, seed=0, batch_norm=None, **recipe):
    experiment = row(name, **recipe)
    experiment = replace(experiment, batch_norm=batch_norm or experiment.batch_norm)
    network = build_network(experiment, seed=seed)
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    with torch.random.fork_rng():
        history = fit(experiment, dataset(experiment.task.name), network, seed=seed, device=CPU)
    return history, before, network.module.state_dict()


def changed(before, after):
    return {k for k in before if not torch.equal(before[k], after[k].to(before[k].dtype))}


def test_a_classifier_learns_what_is_plain_to_see():
    history, _, _ = train("q1_5", epochs=4, size=96, lr=0.01, lr_step=3, lr_gamma=0.1)
    assert history.epochs[-1].figures["accuracy"] == 1.0
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert history.primary == "accuracy" and history.images == 4 * 12
    assert history.by_class["recall"] == [1.0, 1.0]
    assert [e.lr for e in history.epochs] == pytest.approx([1e-2, 1e-2, 1e-2, 1e-3])


def test_segmentation_learns():
    history, _, _ = train("q2_1a", epochs=20, lr=3e-3)
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert history.epochs[-1].figures["pixel_accuracy"] > 0.5
    assert len(history.by_class["iou"]) == len(history.by_class["best_set_iou"]) == 11


def test_the_same_seed_gives_the_same_figures_to_the_bit():
    (a, _, x), (b, _, y), (c, _, _) = train("q1_8"), train("q1_8"), train("q1_8", seed=1)
    assert [(e.loss, e.figures) for e in a.epochs] == [(e.loss, e.figures) for e in b.epochs]
    assert not changed(x, y)
    assert [e.loss for e in a.epochs] != [e.loss for e in c.epochs]


def test_feature_extractor_changes_nothing_but_its_last_layer():
    _, before, after = train("q1_1")
    assert changed(before, after) == {"classifier.weight", "classifier.bias"}


def test_frozen_batch_norm_keeps_its_statistics_and_trains_its_weights():
    _, before, after = train("q2_1b")
    keys = changed(before, after)
    assert not any("running_" in k for k in keys)
    assert {"norms.0.weight", "norms.4.bias", "deconvs.0.weight", "backbone.conv_stem.weight"} <= keys
    assert torch.equal(after["norms.2.running_mean"], torch.zeros(128))
    _, before, after = train("q2_1b", batch_norm="train")
    assert "norms.2.running_mean" in changed(before, after)


@pytest.mark.parametrize("name", ["q2_1a", "q2_n1b"])
def test_the_first_epochs_of_a_long_run_are_a_short_run(name):
    """So that the report's 50 epochs show its template's 20 as well."""
    long, _, _ = train(name, epochs=3)
    short, _, _ = train(name, epochs=2)
    assert [(e.loss, e.figures) for e in long.epochs[:2]] == [(e.loss, e.figures) for e in short.epochs]


def make(name, seed=0, **changes):
    experiment = replace(row(name), **changes)
    return make_objective(experiment, dataset(experiment.task.name), build_network(experiment, seed=0), CPU, seed)


def test_rows_with_one_seed_see_the_same_batches():
    one, other = make("q1_2"), make("q1_1")
    for (x, s), (y, t) in zip(one.batches(1), other.batches(1), strict=True):
        assert torch.equal(x, y) and torch.equal(s, t)
    first, second = (torch.cat([t for _, t in one.batches(epoch)]).tolist() for epoch in (1, 2))
    assert sorted(first) == sorted(second) == [0] * 6 + [1] * 6 and first != second  # each image is seen once an epoch


def test_order_crops_and_dropout_are_of_seed_and_epoch():
    index, zero, one = torch.arange(12), make("q1_2", seed=0), make("q1_2", seed=1)
    drawn = (zero, 1), (zero, 2), (one, 1)
    assert len({tuple(torch.cat(task.blocks(epoch)).tolist()) for task, epoch in drawn}) == 3
    assert len({float(task.augmented(index, task.generator(epoch))[0].sum()) for task, epoch in drawn}) == 3
    states = set()
    for seed in (0, 1):
        network = build_network(row("q1_2", epochs=1), seed=0)
        hook = lambda *_: states.add(torch.initial_seed() if torch.is_grad_enabled() else None)  # noqa: E731
        network.module.register_forward_pre_hook(hook)
        with torch.random.fork_rng():
            fit(row("q1_2", epochs=1), dataset("classification", 4, 2), network, seed=seed, device=CPU)
    assert states - {None} == {stream(seed, "dropout").initial_seed() for seed in (0, 1)}


def test_the_third_augmentation_is_the_first_jittered_and_auto_augmented():
    index, plain, whole = torch.arange(12), make("q1_8", augmentation="random-resized crop"), make("q1_8")
    generator = plain.generator(1)
    crops, _ = plain.augmented(index, generator)
    jittered = augment.colour_jitter(crops, generator).round().to(torch.uint8)
    expected = augment.auto_augment(jittered, generator).float()
    assert not torch.equal(expected, crops)
    assert torch.equal(whole.augmented(index, whole.generator(1))[0], expected)


def test_the_loss_of_an_epoch_is_the_mean_over_its_images():
    """Its last batch is half a batch; nothing is drawn, and next to nothing learnt."""
    still = replace(row("q1_2", epochs=1, lr=1e-12), augmentation="none", batch_norm="frozen")
    data = dataset("classification", 10)
    history = fit(still, replace(data, val=data.train), build_network(still, seed=0), seed=0, device=CPU)
    assert history.epochs[0].loss == pytest.approx(history.epochs[0].figures["loss"], rel=1e-5)


def test_lists_by_class_are_of_the_last_epoch_and_of_the_first_best_one(monkeypatch):
    found = iter([(0.5, [1.0, 0.0]), (0.5, [0.0, 1.0]), (0.4, [0.4, 0.4])])

    def evaluated(objective, learner, call, observe):
        accuracy, recall = next(found)
        if observe is not None:
            observe(torch.zeros(8, 2))
        return Evaluation({"accuracy": accuracy}, {"recall": recall}, np.zeros(8, np.uint8))

    monkeypatch.setattr(fit_module, "evaluate", evaluated)
    history, _, _ = train("q1_2", epochs=3)
    assert history.by_class == {"recall": [0.4, 0.4], "best_recall": [1.0, 0.0]}


def test_inputs_are_normalised_by_the_networks_mean_and_deviation():
    task = make("q1_5")  # Lite0: mean 0.5, deviation 0.5
    for level, expected in ((255.0, 1.0), (0.0, -1.0)):
        assert torch.allclose(task.normalised(torch.full((1, 3, 2, 2), level)), torch.tensor(expected))


class Oracle(nn.Module):
    """Answers with the validation split's own labels, or with wrong ones."""

    def __init__(self, answers):
        super().__init__()
        self.answers, self.at = answers, 0

    def forward(self, x):
        answers = self.answers[self.at : self.at + len(x)]
        self.at += len(x)
        return nn.functional.one_hot(answers.long(), 12).float().movedim(-1, 1)


def test_evaluation_is_against_the_validation_labels():
    task = make("q1_2")
    right = torch.tensor(dataset("classification").val.targets)
    one_wrong = right.clone()
    one_wrong[0] = 1 - one_wrong[0]
    for answers, accuracy in ((right, 1.0), (1 - right, 0.0), (one_wrong, 7 / 8)):
        figures, lists, *_ = fit_module.evaluate(task, Oracle(answers))
        assert figures["accuracy"] == pytest.approx(accuracy)
    assert lists["recall"] == pytest.approx([3 / 4, 1.0])
    smoothed = make("q1_2", recipe=row("q1_2", label_smoothing=0.3).recipe)  # in training alone
    loss = fit_module.evaluate(smoothed, Oracle(right)).figures["loss"]
    assert loss == pytest.approx(math.log(math.e + 11) - 1)  # one logit of 12 is 1, the others 0


def test_infinite_loss_stops_the_run_and_names_the_step():
    message = r"q1_2-finetune, seed 3: loss (nan|inf) at step \d of 3 in epoch 1, learning rate 1e\+30; last good check"
    with pytest.raises(TrainingDiverged, match=message) as caught:
        train("q1_2", seed=3, lr=1e30)
    assert (caught.value.epoch, caught.value.lr) == (1, 1e30) and 1 < caught.value.step <= 3
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.integration
def test_full_rows_train_at_their_real_size(tmp_path):
    """AlexNet at 224 px, FCN8s over VGG16 at 256 px of scenes of 360 x 480, the report's batches and optimizers; one
    epoch of few images."""
    torch.save(torchvision.models.alexnet().state_dict(), tmp_path / "alexnet.pth")
    torch.save(torchvision.models.vgg16(init_weights=False).state_dict(), tmp_path / "vgg16.pth")

    def enlarged(split):
        images, targets = (np.repeat(np.repeat(a, 9, 1), 10, 2) for a in (split.images, split.targets))
        return replace(split, images=images, targets=targets, sizes=split.sizes * [9, 10])

    for name, images in (("q1_1", 8), ("q2_1a", 2)):
        experiment = FULL.row(name)
        experiment = replace(experiment, recipe=replace(experiment.recipe, epochs=1))
        network = build_network(experiment, seed=0, weights=tmp_path)
        data = dataset(experiment.task.name, train=images, val=2)
        if name == "q2_1a":
            data = replace(data, train=enlarged(data.train), val=enlarged(data.val))
        history = fit(experiment, data, network, seed=0, device=CPU)
        assert len(history.epochs) == 1 and math.isfinite(history.epochs[0].loss)
