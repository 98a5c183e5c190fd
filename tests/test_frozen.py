"""A frozen network cut behind its trunk trains the same function."""

from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import nn

from cvhw4.models.build import build_network
from cvhw4.models.frozen import split_frozen
from cvhw4.training.fit import fit, make_learner, make_optimizer, make_step, plain_call, train_epoch
from cvhw4.training.frozen import FrozenClassification
from cvhw4.training.objectives import make_objective
from tests.helpers.tiny import dataset, row

CPU = torch.device("cpu")


def frozen(name="q1_1", network="tf_efficientnet_lite0", **changes):
    experiment = replace(row(name), network=network, start="random", **changes)
    size = 64 if network == "alexnet" else 32
    experiment = replace(experiment, recipe=replace(experiment.recipe, size=size, lr=1e-2))
    return experiment, build_network(experiment, seed=0)


@pytest.mark.parametrize("network", ["tf_efficientnet_lite0", "tf_efficientnet_lite0+linear", "resnet18"])
@pytest.mark.parametrize("name", ["q1_1", "q1_5"])
def test_features_in_large_batches_train_as_the_whole_network_does(name, network):
    """Loss by loss over two epochs, random crops and whole faces; dropout off, whose draws come in another order.
    (AlexNet is held against the reference loop in `test_equivalence.py`.)"""
    experiment, built = frozen(name, network)
    losses, heads = [], []
    for shared in (True, False):
        module = build_network(experiment, seed=0).module
        for part in module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        task = make_objective(experiment, dataset("classification"), built, CPU, seed=0)
        learner, learnt = make_learner(experiment, module, task, plain_call) if shared else (module, task)
        assert isinstance(learnt, FrozenClassification) == shared
        module.eval()  # batch norms keep their statistics, dropout is off
        optimizer = make_optimizer(experiment.recipe, module)
        step = make_step(learnt, learner, optimizer)
        losses.append([float(train_epoch(learnt, step, epoch).mean()) for epoch in (1, 2)])
        with torch.inference_mode():
            figures = learnt.evaluate(learner).figures
        losses[-1].append(figures["loss"])
        heads.append([p.detach() for p in learner.parameters() if p.requires_grad])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] != losses[0][1]
    for ours, whole in zip(*heads, strict=True):
        assert torch.allclose(ours, whole, rtol=1e-3, atol=1e-5)


def test_the_dropout_of_a_frozen_alexnet_draws_anew_each_epoch():
    """One variant of each image, one order: all that differs between two epochs' features is dropout."""
    experiment, built = frozen("q1_5", "alexnet")
    task = make_objective(experiment, dataset("classification"), built, CPU, seed=0)
    _, learnt = make_learner(experiment, built.module, task, plain_call)
    for training in (True, False):
        built.module.train(training)
        (one, _), (two, _) = (next(learnt.block(learnt.blocks(1)[0], learnt.generator(1))) for _ in range(2))
        assert one.shape == (4, 4096) and torch.equal(one, two) != training


def test_features_too_large_to_keep_are_computed_anew(monkeypatch):
    experiment, _ = frozen("q1_5")
    histories = []
    for limit in (1 << 30, 0):
        monkeypatch.setattr("cvhw4.training.frozen.KEPT_BYTES", limit)
        network = build_network(experiment, seed=0)
        histories.append(fit(experiment, dataset("classification"), network, seed=0, device=CPU).epochs)
    for kept, anew in zip(*histories, strict=True):
        assert kept.loss == pytest.approx(anew.loss, rel=1e-5)
        assert kept.figures["accuracy"] == anew.figures["accuracy"]


def test_a_network_that_cannot_be_cut_is_left_whole():
    assert split_frozen(timm.create_model("resnet18", num_classes=2), row("q1_1")) is None  # all of it is trained
    drawing = timm.create_model("resnet18", num_classes=2, drop_rate=0.5)  # its dropout is part of the trunk
    mobile = torchvision.models.mobilenet_v3_small(num_classes=2)  # torchvision's other networks have no such cut
    for module, head in ((drawing, drawing.fc), (mobile, mobile.classifier[-1])):
        module.requires_grad_(False)
        head.requires_grad_(True)
        assert split_frozen(module, row("q1_1")) is None
    assert split_frozen(drawing, replace(row("q1_1"), batch_norm="frozen")).width == 512  # whose dropout never draws


def test_a_network_of_ones_own_is_cut_where_its_parts_give_what_it_gives():
    class Net(nn.Sequential):
        def __init__(self, body):
            super().__init__(body, nn.Linear(3, 2))
            body.requires_grad_(False)

    class Listed(nn.Module):
        def forward(self, x):
            return [x.mean((2, 3))]

    class First(nn.Linear):
        def forward(self, x):
            return super().forward(x[0])

    class Headed(nn.Sequential):
        forward_features, forward_head = nn.Sequential.forward, lambda self, x: x

        def get_classifier(self):
            return self[-1]

        def forward(self, x):
            return super().forward(x)

    mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert split_frozen(Net(mean), row("q1_1")).width == 3
    for other in (nn.Sequential(Listed(), First(3, 2)), Headed(mean, nn.Linear(3, 2))):
        assert split_frozen(other, row("q1_1")) is None


def test_a_network_with_two_classifiers_is_not_cut():
    class Distilled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head, self.other = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward_features(self, x):
            return self.body(x).mean((2, 3))

        def forward_head(self, x, pre_logits=False):
            return x if pre_logits else (self.head(x) + self.other(x)) / 2

        def forward(self, x):
            return self.forward_head(self.forward_features(x))

        def get_classifier(self):
            return self.head, self.other

    module = Distilled()
    module.body.requires_grad_(False)
    assert split_frozen(module, row("q1_1")) is None
    module.get_classifier = lambda: nn.ModuleList([module.head, module.other])
    assert split_frozen(module, row("q1_1")) is None


def test_cutting_changes_neither_mode_nor_statistics_nor_the_random_state():
    _, built = frozen()
    built.module.train()
    before = {k: v.clone() for k, v in built.module.state_dict().items()}
    state = torch.random.get_rng_state()
    assert split_frozen(built.module, row("q1_1")).width == 1280
    assert built.module.training and torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in built.module.state_dict().items())
