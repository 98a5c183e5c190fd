"""Recipes: what is refused, and that timm's optimizers, schedules and losses train and go on as they say."""

import json
import math
import re
from functools import partial

import pytest
import timm.optim
import timm.optim.kron
import torch
from timm.loss import BinaryCrossEntropy
from torch import nn, optim
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from cvhw4 import InputError, Loss, Recipe
from cvhw4.records.schema import Epoch
from cvhw4.runner import Runner
from cvhw4.tasks import CLASSIFICATION, SEGMENTATION
from cvhw4.training.checkpoint import Checkpoint, Checkpoints, restore, state_of
from cvhw4.training.memory import AccumulatedStep
from cvhw4.training.recipe import Rates, check_recipe, make_clipping, make_loss, make_optimizer
from tests.helpers import ROOT
from tests.helpers.studies import insects, pictures

CPU = torch.device("cpu")


def squares(logits, targets):
    return (logits.softmax(1).gather(1, targets[:, None]) - 1).square().mean()


# What is refused

WRONG = {  # what a setting cannot be, and how to put it right
    "size": (["96"], "give a whole number, 32 or more"),
    "batch": ([-4, 2.5], "give a whole number, 1 or more"),
    "epochs": ([0], "give a whole number, 1 or more"),
    "optimizer": ([["sgd"]], "name one"),
    "lr": (["1e-3", None, True, -1e-3, float("nan"), 10**400], "give a learning rate above 0"),
    "momentum": (["0.9", float("nan"), 1.0], "give a number from 0 to below 1"),
    "lr_step": ([None, (3, 6)], "give a whole number, 1 or more"),
    "lr_gamma": ([0, [0.1]], "give a number above 0"),
    "lr_min": ([1e-2], "give a learning rate from 0 to lr"),
    "weight_decay": ([-1], "give a number, 0 or more"),
    "schedule": (["cosin"], "choose one of step, cosine"),
    "loss": ([3, Loss("bce")], "name one, or give a function|give Loss\\(function"),
    "label_smoothing": ([1.0], "give a number from 0 to below 1"),
    "clip_grad": ([0], "give a number above 0"),
    "clip_mode": (["agc"], "choose one of norm, value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_that_no_training_can_follow_is_one_error_when_it_is_made(name):
    values, fix = WRONG[name]
    for value in values:
        with pytest.raises(
            InputError, match=f"^recipe: has {name}={re.escape(repr(value)[:60])}.*Fix: ({fix})"
        ) as error:
            Recipe(**{name: value})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (dict(momentum=0.9, optimizer="adam"), "has momentum=0.9 for adam, which has none"),
        (dict(schedule="multi-step", lr_step=(30, 60)), "has schedule='multi-step'. Fix: choose one of step, cosine"),
        (dict(schedule="multistep"), "has lr_step=8. Fix: give the epochs in rising order"),
        (dict(schedule="multistep", lr_step=(6, 3)), r"has lr_step=\(6, 3\)"),
        (dict(epochs=3, warmup_epochs=3), "has warmup_epochs=3 of 3 epochs"),
        (dict(label_smoothing=0.1, loss=squares), "has label_smoothing and a loss of your own"),
    ],
)
def test_settings_that_do_not_go_together_are_one_error(settings, told):
    with pytest.raises(InputError, match=told):
        Recipe(**settings)


class Learnt(nn.Module):
    """A loss with a parameter."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, targets):
        return self.scale * F.cross_entropy(logits, targets)


UNKNOWN = {
    "an optimizer": (dict(optimizer="adamww"), r"has optimizer='adamww', which timm does not have.* such as .*adamw"),
    "one around another": (dict(optimizer="ahead_adamw"), "has optimizer='ahead_adamw', which timm"),
    "one that is not installed": (dict(optimizer="bnbadamw8bit"), "'bnbadamw8bit', which cannot be made .*bitsandb"),
    "momentum of adamw": (dict(optimizer="adamw", momentum=0.9), "has momentum=0.9 for adamw, which has none"),
    "too short a schedule": (dict(schedule="wsd", epochs=1), "has schedule='wsd', which timm"),
    "a loss that raises": (dict(loss=lambda logits, targets: 1 / 0), "loss <lambda>: raises ZeroDivisionError"),
    "a loss of each image": (dict(loss=partial(F.cross_entropy, reduction="none")), r"returns a tensor \(2,\)"),
    "a class": (dict(loss=nn.CrossEntropyLoss), "loss CrossEntropyLoss: raises|returns CrossEntropyLoss"),
    "a number": (dict(loss=lambda logits, targets: 0.5), r"returns 0.5. Fix: let it return a scalar tensor"),
    "no gradient": (dict(loss=lambda logits, targets: logits.detach().mean()), "does not depend on the logits"),
    "not finite": (dict(loss=lambda logits, targets: logits.sum() / 0), "returns -?inf"),
    "parameters": (dict(loss=Learnt()), "loss Learnt: has parameters, which no optimizer trains"),
}


@pytest.mark.parametrize(("settings", "told"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_only_timm_and_torch_can_tell_is_told_before_training(settings, told, tmp_path):
    study = insects(data=pictures(tmp_path / "photos"), recipe=Recipe(size=32, **settings))
    with pytest.raises(InputError, match=told) as error:
        Runner(study=study, results=tmp_path / "results").check()
    assert "\n" not in str(error.value) and not (tmp_path / "results").exists()


def test_what_a_graph_cannot_replay_is_refused():
    for name in ("sgd", "adam", "adamw", "momentum"):
        check_recipe(Recipe(optimizer=name, schedule="cosine", clip_grad=1.0), CLASSIFICATION, 2, graphs=True)
    for settings, told in (
        (dict(optimizer="lamb"), "optimizer='lamb', which counts"),
        (dict(optimizer="lookahead_adamw"), "optimizer='lookahead_adamw'"),
        (dict(schedule="onecycle"), "schedule='onecycle'"),
        (dict(loss=squares), "a loss of your own"),
    ):
        check_recipe(Recipe(**settings), CLASSIFICATION, 2)
        with pytest.raises(InputError, match=rf"{told}.*: a CUDA graph cannot replay it. Fix: leave out --cuda-graphs"):
            check_recipe(Recipe(**settings), CLASSIFICATION, 2, graphs=True)


EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "recipes.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=["recipes", "augmentation", "scores"])
def test_the_examples_of_the_documentation_pass_all_checks(code, tmp_path):
    assert len(code.splitlines()) <= 25
    pictures(tmp_path / "photos")
    made = {"__file__": str(tmp_path / "example.py"), "__name__": "example"}
    exec(code, made)
    Runner(study=made["study"], results=tmp_path / "results").check()
    assert len(made["study"].rows) >= 2


# Settings in records


def test_settings_hold_what_is_in_use():
    first = {"size", "batch", "epochs", "optimizer", "lr", "momentum", "lr_step", "lr_gamma"}
    assert Recipe().settings().keys() == first and Recipe(momentum=0.0) != Recipe()
    assert [Recipe(optimizer="sgd", **m).settings()["momentum"] for m in ({}, {"momentum": 0})] == [0.0, 0.0]
    changed = Recipe(schedule="multistep", lr_step=[2, 4], clip_grad=1.0, loss=squares, optimizer="muon").settings()
    assert changed.keys() - first == {"schedule", "clip_grad", "loss"}
    assert changed["lr_step"] == [2, 4] and changed["momentum"] is None and changed["loss"].startswith("squares ")
    assert json.loads(json.dumps(changed)) == changed


def test_a_loss_is_known_by_its_text_what_it_holds_and_its_version():
    weighted = [nn.CrossEntropyLoss(weight=torch.tensor([1.0, w])) for w in (1.0, 5.0, 5.0)]
    one, other, again = (Recipe(loss=loss).settings()["loss"] for loss in weighted)
    assert one != other == again
    assert Recipe(loss=Loss(squares, version="2")).settings() != Recipe(loss=squares).settings()
    assert Recipe(loss=partial(F.cross_entropy, label_smoothing=0.1)).settings()["loss"].startswith("cross_entropy ")


# Optimizers


def network(seed=0):
    torch.manual_seed(seed)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), *pooled).to(
        memory_format=torch.channels_last
    )


def batches(number):
    draws = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, 6, 6, generator=draws), torch.tensor([0, 1, 0, 1])) for _ in range(number)]


def trainer(recipe):
    """A network, its optimizer, its schedule and its step."""
    module = network()
    optimizer = make_optimizer(recipe, module)
    step = AccumulatedStep(module, nn.CrossEntropyLoss(), module, optimizer, make_clipping(recipe, module))
    return module, optimizer, Rates(recipe, optimizer, 2, "accuracy"), step


def epoch(number):
    figures = {"accuracy": 0.5}
    return Epoch(epoch=number, lr=0.1, loss=1.0, figures=figures, train_seconds=1.0, evaluate_seconds=1.0)


def train(recipe, path, broken_off=None):
    """Trains three epochs of two steps; broken off after so many steps, it goes on from its file with all made anew."""
    torch.manual_seed(2)
    module, optimizer, rates, step = trainer(recipe)
    for number, batch in enumerate(batches(6), 1):
        step(*batch)
        rates.after_step()
        if number % 2 == 0:
            rates.after_epoch(epoch(number // 2))
        if number == broken_off:
            tensors, values = state_of(module, optimizer)
            values = {"optimizer": values, **rates.state(), "epoch": 1, "taken": 0}
            Checkpoints(path, "f" * 64, every=0).write(Checkpoint(tensors, values))
            random = torch.get_rng_state()
            module, optimizer, rates, step = trainer(recipe)
            found = Checkpoints(path, "f" * 64, resume=True).read()
            restore(module, optimizer, found)
            rates.restore(found.values, [epoch(n + 1) for n in range(number // 2)])
            torch.set_rng_state(random)
    return module.state_dict(), rates.now


def available():
    """Those of timm's optimizers that can be made here."""
    for name in [*timm.optim.list_optimizers(), "lookahead_adamw", "lookahead_lamb"]:
        try:
            check_recipe(Recipe(optimizer=name), CLASSIFICATION, 2)
        except InputError as error:
            assert "cannot be made" in str(error)  # of apex and bitsandbytes
        else:
            yield name


def test_every_optimizer_of_timm_goes_on_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(timm.optim.kron, "has_dynamo", False)  # it would compile, for a minute
    names, path = list(available()), tmp_path / "c.safetensors"
    assert len(names) > 80 and {"sgd", "adam", "adamw", "lamb", "lion", "kron", "adahessian"} <= set(names)
    for name in names:
        recipe = Recipe(optimizer=name, lr=1e-2, weight_decay=1e-2, schedule="cosine", epochs=3, warmup_epochs=1)
        whole, broken = train(recipe, path), train(recipe, path, broken_off=3)
        assert whole[1] == broken[1], name
        assert all(torch.equal(value, broken[0][key]) for key, value in whole[0].items()), name
        assert not torch.equal(network()[5].weight, whole[0]["5.weight"]), name


def test_adamw_is_pytorchs_with_decay_of_weights_alone_and_sgd_without_nesterov():
    module = network()
    made = make_optimizer(Recipe(optimizer="adamw", weight_decay=0.1), module)
    assert type(made) is optim.AdamW and [group["weight_decay"] for group in made.param_groups] == [0.0, 0.1]
    assert {id(p) for p in made.param_groups[1]["params"]} == {id(module[0].weight), id(module[5].weight)}
    sgd, nesterov = (make_optimizer(Recipe(optimizer=name), module).param_groups[0] for name in ("sgd", "nesterov"))
    assert [(g["nesterov"], g["momentum"]) for g in (sgd, nesterov)] == [(False, 0.0), (True, 0.9)]
    for name in ("sgd", "lars"):
        assert make_optimizer(Recipe(optimizer=name, momentum=0.5), module).param_groups[0]["momentum"] == 0.5
    adam = make_optimizer(Recipe(optimizer="adam", weight_decay=0.1), module).param_groups
    assert [(len(group["params"]), group["weight_decay"]) for group in adam] == [(4, 0.0), (2, 0.1)]
    module[0].requires_grad_(False)
    decayed = make_optimizer(Recipe(optimizer="sgd", weight_decay=0.1), module).param_groups
    assert sum(len(group["params"]) for group in decayed) == 4
    with pytest.raises(ValueError, match="rmsprob"):
        make_optimizer(Recipe(optimizer="rmsprob"), module)


def test_gradients_are_clipped_before_they_are_used():
    loss = lambda logits, targets: 100 * F.cross_entropy(logits, targets)  # noqa: E731
    for mode, most in (("norm", 0.5), ("value", 0.1)):
        module = network()
        recipe = Recipe(optimizer="sgd", lr=1.0, clip_grad=most, clip_mode=mode)
        before = [p.detach().clone() for p in module.parameters()]
        optimizer = make_optimizer(recipe, module)
        AccumulatedStep(module, loss, module, optimizer, make_clipping(recipe, module))(*batches(1)[0])
        moved = torch.cat([(b - p).detach().flatten() for b, p in zip(before, module.parameters(), strict=True)])
        assert float(moved.norm() if mode == "norm" else moved.abs().max()) == pytest.approx(most, rel=1e-4)


# Schedules


def rates(recipe, steps=2, figures=()):
    """The learning rate of every step."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = optim.SGD([parameter], lr=recipe.lr)
    schedule, found = Rates(recipe, optimizer, steps, "accuracy"), []
    for number in range(1, recipe.epochs + 1):
        for _ in range(steps):
            found.append(schedule.now)
            optimizer.step()
            schedule.after_step()
        value = figures[number - 1] if figures else 0.5
        schedule.after_epoch(Epoch(**(vars(epoch(number)) | {"figures": {"accuracy": value}})))
    return found


BY_EPOCH = {
    "step": (dict(lr_step=2, lr_gamma=0.5), [1, 1, 0.5, 0.5, 0.25]),
    "step, warm-up": (dict(lr_step=2, lr_gamma=0.5, warmup_epochs=2), [1 / 3, 2 / 3, 0.5, 0.5, 0.25]),
    "cosine": (dict(), [0.5 * (1 + math.cos(math.pi * t / 5)) for t in range(5)]),
    "cosine, floor": (dict(lr_min=0.2), [0.2 + 0.4 * (1 + math.cos(math.pi * t / 5)) for t in range(5)]),
    "multistep": (dict(lr_step=(2, 4), lr_gamma=0.1), [1, 0.1, 0.1, 0.01, 0.01]),
    "poly": (dict(lr_gamma=2.0), [(1 - t / 5) ** 2 for t in range(5)]),
    "plateau": (dict(lr_step=1, lr_gamma=0.1), [1, 1, 1, 0.1, 0.1]),
}


@pytest.mark.parametrize("name", BY_EPOCH)
def test_schedules_by_epochs(name):
    settings, expected = BY_EPOCH[name]
    recipe = Recipe(lr=1.0, epochs=5, schedule=name.partition(",")[0], **settings)
    assert rates(recipe) == pytest.approx([rate for rate in expected for _ in range(2)])


def test_plateau_waits_while_the_metric_rises():
    recipe = Recipe(lr=1.0, epochs=5, schedule="plateau", lr_step=1, lr_gamma=0.1)
    assert rates(recipe, 1, figures=(0.1, 0.2, 0.3, 0.4, 0.5)) == [1.0] * 5


@pytest.mark.parametrize(("settings", "rising"), [({}, 0.3), (dict(warmup_epochs=2), 0.5)])
def test_one_cycle_is_pytorchs(settings, rising):
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12, pct_start=rising)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    recipe = Recipe(lr=0.1, epochs=4, schedule="onecycle", **settings)
    assert rates(recipe, steps=3) == expected
    optimizer = optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    Rates(recipe, optimizer, 3, "accuracy")
    assert optimizer.param_groups[0]["momentum"] == 0.9  # left as it is, unlike there
    for epochs in (1, 2):
        assert all(map(math.isfinite, rates(Recipe(schedule="onecycle", epochs=epochs), 1)))


# Losses


def test_losses_are_the_libraries():
    draws = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(6, 3, generator=draws), torch.tensor([0, 1, 2, 2, 1, 0])
    hot = F.one_hot(targets, 3).float()

    def found(name, share=0.0, **options):
        return make_loss(Recipe(loss=name, label_smoothing=share), CLASSIFICATION, CPU)(logits, targets, **options)

    assert torch.equal(found(None), F.cross_entropy(logits, targets))
    assert torch.equal(found("cross_entropy", 0.2), F.cross_entropy(logits, targets, label_smoothing=0.2))
    assert torch.equal(found("cross_entropy", 0.2, smoothing=0.0), F.cross_entropy(logits, targets))  # in validation
    assert torch.equal(found("bce"), F.binary_cross_entropy_with_logits(logits, hot))
    assert float(found("bce", 0.3)) == pytest.approx(float(BinaryCrossEntropy(smoothing=0.3)(logits, targets)))
    assert torch.equal(found("focal"), sigmoid_focal_loss(logits, hot, reduction="mean"))
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    assert torch.equal(found(weighted), weighted(logits, targets))


def test_pixels_of_no_class_are_left_out_or_negatives_and_ignored_by_own_losses():
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=draws)
    labels = torch.randint(4, (2, 4, 4), generator=draws).to(torch.uint8)  # 3 is no class
    ignored = labels.long().masked_fill(labels == 3, -100)

    def found(loss, targets=labels, **recipe):
        return make_loss(Recipe(loss=loss, **recipe), SEGMENTATION, CPU)(logits, targets)

    assert float(found("cross_entropy")) == pytest.approx(float(F.cross_entropy(logits, ignored)))
    assert float(found("cross_entropy", torch.full_like(labels, 3))) == 0.0
    hot = (labels[:, None] == torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1)).float()
    assert torch.equal(found(None), F.binary_cross_entropy_with_logits(logits, hot))
    smoothed = (
        F.cross_entropy(logits, ignored, label_smoothing=0.3),
        F.binary_cross_entropy_with_logits(logits, 0.7 * hot + 0.1 * (labels < 3)[:, None]),
    )
    both = [float(found(loss, label_smoothing=0.3)) for loss in ("cross_entropy", "bce")]
    assert both == pytest.approx([float(loss) for loss in smoothed])
    seen = []
    found(lambda logits, targets: seen.append(targets) or logits.mean())
    assert torch.equal(seen[0], ignored)
