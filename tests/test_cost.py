"""What a run must cost at least, against figures worked by hand."""

import math
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from cvhw4.experiments import Experiment, find_row
from cvhw4.models.build import build_network, set_training_mode
from cvhw4.training import cost as cost_module
from cvhw4.training.cost import (
    Cost,
    Flops,
    Machine,
    floor_seconds,
    flops_per_image,
    limit,
    measure_machine,
    parameter_bytes_per_step,
    run_cost,
)


def row(name: str, profile: str = "full") -> Experiment:
    """A row that needs no weights: what a pass costs does not hang on them."""
    return replace(find_row(profile, name), start="random")


def sized(experiment: Experiment, **recipe) -> Experiment:
    return replace(experiment, recipe=replace(experiment.recipe, **recipe))


@pytest.fixture(scope="module")
def finetune() -> tuple[Experiment, nn.Module]:
    experiment = row("q1_2")
    return experiment, build_network(experiment, seed=0).module


@pytest.fixture(scope="module")
def frozen() -> tuple[Experiment, nn.Module]:
    experiment = row("q1_1")
    return experiment, build_network(experiment, seed=0).module


def small(*parts: nn.Module, size: int = 8) -> tuple[Experiment, nn.Module]:
    return sized(row("q1_2"), size=size), nn.Sequential(*parts)


CONV = 2 * 4 * 3 * 9 * 8 * 8  # 4 channels out of 3, kernel 3, 8 x 8 positions
LINEAR = 2 * 4 * 64 * 5


def test_a_convolution_and_a_linear_layer_by_hand():
    experiment, module = small(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    # backward: the convolution's weights (its input wants no gradient), the linear layer's weights and input
    assert flops_per_image(experiment, module) == Flops(CONV + LINEAR, 2 * CONV + 3 * LINEAR)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_grouped_convolution_costs_as_much_per_gradient_as_forward(groups):
    grouped = nn.Conv2d(4, 4, 3, padding=1, groups=groups)
    forward = 2 * 4 * (4 // groups) * 9 * 64
    experiment, module = small(nn.Conv2d(3, 4, 3, padding=1), grouped)
    assert flops_per_image(experiment, module) == Flops(CONV + forward, 2 * CONV + 3 * forward)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_counts_by_the_positions_of_its_input(groups):
    transposed = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=groups)
    forward = 2 * 4 * (6 // groups) * 9 * 64
    experiment, module = small(nn.Conv2d(3, 4, 3, padding=1), transposed)
    assert flops_per_image(experiment, module) == Flops(CONV + forward, 2 * CONV + 3 * forward)


def test_a_frozen_trunk_has_no_backward():
    experiment, module = small(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 5))
    module[0].requires_grad_(False)
    assert flops_per_image(experiment, module) == Flops(CONV + LINEAR, CONV + 2 * LINEAR)
    module.requires_grad_(False)
    assert flops_per_image(experiment, module) == Flops(CONV + LINEAR, CONV + LINEAR)


def test_alexnet_at_224_px(finetune):
    flops = flops_per_image(*finetune)
    assert flops.training == pytest.approx(4.1e9, rel=0.03)
    first = 2 * 64 * 3 * 11 * 11 * 55 * 55
    assert flops.training == 3 * flops.forward - first


def test_fcn8s_over_vgg16_at_256_px():
    experiment = row("q2_1a")
    flops = flops_per_image(experiment, build_network(experiment, seed=0).module)
    assert flops.training == pytest.approx(128e9, rel=0.03)
    assert flops.after_dropout == 0


def test_frozen_alexnet_is_its_forward_and_the_gradient_of_its_head(finetune, frozen):
    flops = flops_per_image(*frozen)
    assert flops.forward == flops_per_image(*finetune).forward
    assert flops.training == flops.forward + 2 * 4096 * 2
    assert flops.after_dropout == 2 * (9216 * 4096 + 4096 * 4096 + 4096 * 2)


def test_a_depthwise_network_costs_no_more_than_thrice_its_forward():
    experiment = row("q1_2", "quick")
    flops = flops_per_image(experiment, build_network(experiment, seed=0).module)
    assert 2.9 < flops.training / flops.forward < 3


def test_no_dropout_is_active_where_batch_norm_keeps_its_initial_statistics():
    experiment, module = small(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(256, 5))
    assert flops_per_image(experiment, module).after_dropout == LINEAR
    assert flops_per_image(replace(experiment, batch_norm="initial"), module).after_dropout == 0
    module[2].p = 0.0
    assert flops_per_image(experiment, module).after_dropout == 0


def test_counting_leaves_the_module_as_it_was():
    experiment, module = small(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
    set_training_mode(module, experiment)
    module[1].eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with torch.inference_mode():  # wherever it is called
        flops_per_image(experiment, module)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in module.parameters())
    assert [part.training for part in module] == [True, False, True, True, True]
    assert not any(part._forward_pre_hooks for part in module)


class ReadsValues(nn.Module):
    """What the meta device cannot run: it looks at a number."""

    def forward(self, x):
        return x * 2 if x.sum().item() >= 0 else x


def test_a_network_that_the_meta_device_cannot_run_runs_for_real():
    parts = (nn.Conv2d(3, 4, 3, padding=1), ReadsValues(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 5))
    experiment, module = small(*parts)
    before = module[2].running_mean.clone()
    assert flops_per_image(experiment, module) == Flops(CONV + LINEAR, 2 * CONV + 3 * LINEAR)
    assert torch.equal(module[2].running_mean, before)
    assert all(p.grad is None for p in module.parameters())


def test_parameter_traffic_by_hand():
    experiment, module = small(nn.Conv2d(3, 4, 3), nn.Linear(10, 5))
    conv, weight, bias = 4 * 27 + 4, 50, 5
    assert parameter_bytes_per_step(experiment, module) == 4 * (8 * (conv + bias) + 6 * weight)
    assert parameter_bytes_per_step(experiment, module, written_out=True) == 4 * 8 * (conv + weight + bias)
    adam = sized(experiment, optimizer="adam", momentum=0.0)
    assert parameter_bytes_per_step(adam, module) == 4 * (10 * (conv + bias) + 8 * weight)
    plain = sized(experiment, momentum=0.0)
    assert parameter_bytes_per_step(plain, module) == 4 * (6 * (conv + bias) + 4 * weight)
    module[0].requires_grad_(False)
    assert parameter_bytes_per_step(experiment, module) == 4 * (conv + 8 * bias + 6 * weight)


def test_traffic_of_alexnet(finetune, frozen):
    with torch.device("meta"):
        whole = torchvision.models.alexnet()  # 1000 classes: 61.1 M numbers
    assert parameter_bytes_per_step(finetune[0], whole, written_out=True) == pytest.approx(1.95e9, rel=0.01)
    assert parameter_bytes_per_step(*finetune, written_out=True) == 32 * 57_012_034
    linear = 9216 * 4096 + 4096 * 4096 + 4096 * 2
    assert parameter_bytes_per_step(*finetune) == 32 * 57_012_034 - 8 * linear
    assert parameter_bytes_per_step(*frozen) == 4 * (57_012_034 - 8194 + 6 * 8192 + 8 * 2)


def test_a_whole_run(finetune):
    flops = flops_per_image(*finetune)
    cost = run_cost(*finetune, train=10, val=3)  # three steps of at most four images, 25 epochs
    assert cost == Cost(
        25 * (10 * flops.training + 3 * flops.forward), 25 * 3 * parameter_bytes_per_step(*finetune), 25 * 13
    )
    more = run_cost(*finetune, train=10, val=3, written_out=True)
    assert more.bytes == 25 * 3 * 32 * 57_012_034


def test_a_frozen_run_that_reuses_features(frozen):
    flops, head = flops_per_image(*frozen), 4 * (6 * 8192 + 8 * 2)
    cost = run_cost(*frozen, train=10, val=3, trunk_passes=23)
    trunk = flops.forward - flops.after_dropout
    assert cost == Cost(23 * trunk + (25 * 10 + 3) * flops.after_dropout, 25 * 3 * head, 25 * 13)
    assert cost.flops < run_cost(*frozen, train=10, val=3).flops


def test_without_dropout_reuse_costs_the_passes_through_the_trunk(frozen):
    _, module = small(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, 2))
    module[1].requires_grad_(False)
    cost = run_cost(sized(frozen[0], size=8), module, train=10, val=3, trunk_passes=23)
    assert cost.flops == 23 * 2 * (192 * 4 + 4 * 2)


def test_only_a_frozen_row_reuses_features(finetune):
    with pytest.raises(ValueError, match="q1_2-finetune trains all layers"):
        run_cost(*finetune, train=10, val=3, trunk_passes=23)


def test_the_floor_is_the_longer_of_the_two():
    machine = Machine("cpu", matrix_flops=100.0, precision="float32", bandwidth=10.0)
    assert (floor_seconds(Cost(300, 20, 1), machine), limit(Cost(300, 20, 1), machine)) == (3.0, "arithmetic")
    assert (floor_seconds(Cost(300, 50, 1), machine), limit(Cost(300, 50, 1), machine)) == (5.0, "memory")
    assert floor_seconds(Cost(0, 0, 0), machine) == 0.0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_machine_is_measured(precision):
    before = torch.get_float32_matmul_precision()
    machine = measure_machine(torch.device("cpu"), precision, side=192, triad_bytes=12 * 2**20, repeats=3)
    assert (machine.device, machine.precision) == ("cpu", precision)
    # a slow single core to a large server
    assert 1e8 < machine.matrix_flops < 1e15
    assert 1e8 < machine.bandwidth < 1e13
    assert torch.get_float32_matmul_precision() == before


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float8"):
        measure_machine(torch.device("cpu"), "float8")


def test_little_memory_makes_a_small_triad(monkeypatch):
    sizes = []
    monkeypatch.setattr(cost_module, "free_memory", lambda device: 48 * 2**20)
    monkeypatch.setattr(cost_module, "_bandwidth", lambda device, count, repeats: sizes.append(count) or 1.0)
    measure_machine(torch.device("cpu"), "float32", side=8, repeats=1)
    assert sizes == [2**20]  # three arrays of 4 MiB: a quarter


def test_free_memory_can_be_read():
    assert 2**20 <= cost_module.free_memory(torch.device("cpu")) < math.inf
