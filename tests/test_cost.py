"""What a run costs at least, against figures worked by hand; what a machine reaches; memory by shapes alone."""

import warnings
from copy import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.performance import memory
from benchmarks.performance.cost import (
    Cost,
    Flops,
    Machine,
    flops_per_image,
    measure_machine,
    parameter_bytes_per_step,
    run_cost,
)
from cvhw4.models.build import build_network, set_training_mode
from cvhw4.training.fit import fit
from tests.helpers.emulated_gpu import emulated_gpu
from tests.helpers.tiny import FULL, QUICK, dataset

CPU = torch.device("cpu")


def built(name, study=FULL):
    """A row of the homework, from random weights (a pass costs the same with any), and its network."""
    row = replace(study.row(name), start="random")
    return row, build_network(row, seed=0).module


@pytest.fixture(scope="module")
def finetune():
    return built("q1_2")


def small(*parts, frozen=()):
    """A row at 8 px, and a network for it of which some parts are frozen."""
    row, module = FULL.row("q1_2"), nn.Sequential(*parts)
    for i in frozen:
        module[i].requires_grad_(False)
    recipe = copy(row.recipe)
    object.__setattr__(recipe, "size", 8)  # smaller than a study may have
    return replace(row, recipe=recipe), module


def conv():
    return nn.Conv2d(3, 4, 3, padding=1)


def flat(*between):
    return conv(), *between, nn.Flatten(), nn.Linear(256, 5)


class ReadsValues(nn.Module):
    """What the meta device cannot run: it looks at a number."""

    def forward(self, x):
        return x * 2 if x.sum().item() >= 0 else x


CONV = 2 * 4 * 3 * 9 * 8 * 8  # 4 channels out of 3, kernel 3, 8 x 8 positions
LINEAR = 2 * 4 * 64 * 5
WHOLE = Flops(CONV + LINEAR, 2 * CONV + 3 * LINEAR)  # backward: all but the gradient of the first layer's input


def grouped(kind, groups, channels, **more):
    """A network with a grouped convolution, and its FLOPs: as many per gradient as forward."""
    flops = 2 * channels * (4 // groups) * 9 * 64
    parts = (conv(), kind(4, channels, 3, padding=1, groups=groups, **more))
    return parts, (), Flops(CONV + flops, 2 * CONV + 3 * flops)


NETWORKS = {
    "a convolution and a linear layer": (flat(nn.ReLU()), (), WHOLE),
    "a frozen trunk has no backward": (flat(), [0], Flops(CONV + LINEAR, CONV + 2 * LINEAR)),
    "all frozen": (flat(), [0, 2], Flops(CONV + LINEAR, CONV + LINEAR)),
    "what the meta device cannot run": (flat(ReadsValues(), nn.BatchNorm2d(4)), (), WHOLE),
    **{f"{n} groups": grouped(nn.Conv2d, n, 4) for n in (1, 2, 4)},
    # a transposed one counts by the positions of its input
    **{f"transposed, {n} groups": grouped(nn.ConvTranspose2d, n, 6, stride=2, output_padding=1) for n in (1, 2)},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_small_networks_by_hand_and_left_as_they_were(name):
    parts, without_gradient, expected = NETWORKS[name]
    row, module = small(*parts, frozen=without_gradient)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    assert flops_per_image(row, module) == expected
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in module.parameters())


def test_alexnet_at_224_px(finetune):
    flops, of_frozen = flops_per_image(*finetune), flops_per_image(*built("q1_1"))
    assert flops.training == pytest.approx(4.1e9, rel=0.03)
    assert flops.training == 3 * flops.forward - 2 * 64 * 3 * 11 * 11 * 55 * 55  # the first layer's input
    # frozen it is its forward and the gradient of its head
    assert of_frozen == Flops(flops.forward, flops.forward + 2 * 8192, 2 * (9216 * 4096 + 4096 * 4096 + 8192))


def test_fcn8s_over_vgg16_at_256_px_and_a_depthwise_network():
    flops = flops_per_image(*built("q2_1a"))
    assert flops.training == pytest.approx(128e9, rel=0.03) and flops.after_dropout == 0
    lite0 = flops_per_image(*built("q1_2", QUICK))
    assert 2.9 < lite0.training / lite0.forward < 3


def test_dropout_is_active_where_batch_norm_trains():
    row, module = small(*flat(nn.Dropout(0.5)))
    assert flops_per_image(row, module).after_dropout == LINEAR
    assert flops_per_image(replace(row, batch_norm="frozen"), module).after_dropout == 0
    module[1].p = 0.0
    assert flops_per_image(row, module).after_dropout == 0


def test_counting_leaves_modes_and_hooks_as_they_were():
    row, module = small(*flat(nn.BatchNorm2d(4), nn.Dropout()))
    set_training_mode(module, row)
    module[1].eval()
    with torch.inference_mode():  # wherever it is called
        flops_per_image(row, module)
    assert [part.training for part in module] == [True, False, True, True, True]
    assert not any(part._forward_pre_hooks for part in module)


def test_parameter_traffic_by_hand(finetune):
    row, (_, module) = FULL.row("q1_2"), small(nn.Conv2d(3, 4, 3), nn.Linear(10, 5))
    filters, weight, bias = 4 * 27 + 4, 50, 5
    for recipe, passes in ((dict(), 8), (dict(optimizer="adam", momentum=None), 10), (dict(momentum=0.0), 6)):
        changed = replace(row, recipe=replace(row.recipe, **recipe))
        assert parameter_bytes_per_step(changed, module) == 4 * (passes * (filters + bias) + (passes - 2) * weight)
    module[0].requires_grad_(False)
    assert parameter_bytes_per_step(row, module) == 4 * (filters + 8 * bias + 6 * weight)
    linear = 9216 * 4096 + 4096 * 4096 + 4096 * 2
    assert parameter_bytes_per_step(*finetune) == 32 * 57_012_034 - 8 * linear
    assert parameter_bytes_per_step(*built("q1_1")) == 4 * (57_012_034 - 8194 + 6 * 8192 + 8 * 2)


def test_a_whole_run(finetune):
    flops = flops_per_image(*finetune)
    cost = run_cost(*finetune, train=10, val=3)  # three steps of at most four images, 25 epochs
    total = 25 * (10 * flops.training + 3 * flops.forward)
    assert cost == Cost(total, 25 * 3 * parameter_bytes_per_step(*finetune), 25 * 13)


@pytest.mark.parametrize(("name", "passes"), [("q1_1", 25 * 10 + 3), ("q1_5", 2 * 10 + 3)])
def test_a_frozen_run_reuses_features(name, passes):
    row, module = built(name)
    flops, head = flops_per_image(row, module), 4 * (6 * 8192 + 8 * 2)
    trunk = flops.forward - flops.after_dropout
    total = passes * trunk + (25 * 10 + 3) * flops.after_dropout
    assert run_cost(row, module, train=10, val=3) == Cost(total, 25 * 3 * head, 25 * 13)
    quick, module = built(name, QUICK)  # without dropout
    passes = {"q1_1": 5 * 256 + 200, "q1_5": 2 * 256 + 200}[name]
    assert run_cost(quick, module, train=256, val=200).flops == passes * flops_per_image(quick, module).forward


def test_the_floor_is_the_longer_of_the_two():
    machine = Machine("cpu", matrix_flops=100.0, precision="float32", bandwidth=10.0)
    for cost, floor in (((300, 20, 1), (3.0, "arithmetic")), ((300, 50, 1), (5.0, "memory"))):
        assert machine.floor(Cost(*cost)) == floor
    assert machine.floor(Cost(0, 0, 0))[0] == 0.0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_machine_is_measured(precision):
    before = torch.get_float32_matmul_precision()
    machine = measure_machine(CPU, precision, side=192, triad_bytes=12 * 2**20, seconds=0.02)
    assert (machine.device, machine.precision) == ("cpu", precision)
    assert 1e8 < machine.matrix_flops < 1e15 and 1e8 < machine.bandwidth < 1e13  # a slow core to a large server
    assert torch.get_float32_matmul_precision() == before


# Memory


@pytest.mark.parametrize("name", [pytest.param("q1_2", marks=pytest.mark.integration), "q1_1", "q2_1a"])
def test_memory_by_shapes_alone_is_that_of_real_numbers(name):
    row = QUICK.row(name)
    row = replace(row, start="random", recipe=replace(row.recipe, size=32, batch=4, epochs=2))
    peaks = []
    for numbers in (True, False):
        network = build_network(row, seed=0)
        with emulated_gpu(numbers=numbers) as gpu, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(row, dataset(row.task.name), network, seed=0, device=gpu.device)
        peaks.append(gpu.peak)
    assert peaks[0] == peaks[1] > 0


@pytest.mark.integration
def test_the_page_of_memory_counts_as_the_formula_does_and_a_larger_card_takes_a_larger_batch():
    row = QUICK.row("q1_3")
    page = memory.memory_page("quick", [row])
    (line,) = (x for x in page.splitlines() if x.startswith("| q1_3"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    counted, formula = float(cells[5]), float(cells[6])
    batches = [int(cell.replace(",", "")) for cell in cells[7:]]
    assert formula < counted < 1.2 * formula  # beside the network's there are the products that resample pictures
    assert batches == sorted(batches) and batches[0] > 16
