"""Folding batch norms for evaluation: the same function, and everything as it was afterwards."""

import pytest
import timm
import torch
from torch import nn

from cvhw4.models.build import build_network
from cvhw4.models.folded import find_pairs, folded
from cvhw4.training.fit import evaluation_mode
from tests.helpers.tiny import row

INPUTS = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def trained(module):
    """With statistics, scales and shifts that are not the initial ones."""
    draws = torch.Generator().manual_seed(2)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean):
                tensor.data += 0.1 * torch.randn(tensor.shape, generator=draws)
            part.running_var.data *= 0.5 + torch.rand(part.running_var.shape, generator=draws)
    return module.eval()


@pytest.mark.parametrize(
    "network, pairs",
    [("q2_1a", 48), ("q1_2", 49), ("resnet18", 20), ("q1_3", 0)],  # Lite0 without and with its head, ResNet, AlexNet
)
def test_the_folded_network_is_the_same_function(network, pairs):
    module = timm.create_model(network) if network == "resnet18" else build_network(row(network), seed=0).module
    module = trained(module)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    parameters = list(module.parameters())
    found = find_pairs(module, INPUTS)
    assert len(found) == pairs
    with torch.inference_mode():
        expected = module(INPUTS)
        with folded(found):
            assert torch.allclose(module(INPUTS), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
            assert all("forward" in norm.__dict__ for _, norm in found)
        assert torch.equal(module(INPUTS), expected)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert all(a is b for a, b in zip(parameters, module.parameters(), strict=True))


class Branched(nn.Module):
    """The convolution's output is used beside the batch norm: it cannot be folded."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.convolution(x)
        return self.norm(x) + x


class Squared(nn.BatchNorm2d):
    """No plain batch norm."""

    def forward(self, x):
        return super().forward(x) ** 2


def test_what_cannot_be_folded_is_left():
    assert find_pairs(trained(Branched()), INPUTS) == []
    assert find_pairs(trained(nn.Sequential(nn.Conv2d(3, 4, 3), Squared(4))), INPUTS) == []
    shared = nn.Conv2d(3, 3, 3, padding=1)
    twice = nn.Sequential(shared, nn.BatchNorm2d(3), shared, nn.BatchNorm2d(3))
    assert find_pairs(trained(twice), INPUTS) == []


class PreActivated(nn.Module):
    """As residual networks of the second version have it: the shortcut leaves before the batch norm."""

    def __init__(self):
        super().__init__()
        self.stem, self.body = (nn.Conv2d(channels, 4, 3, padding=1) for channels in (3, 4))
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.stem(x)
        return x + self.body(self.norm(x).relu())


def test_what_fresh_batch_norms_hide_is_not_folded():
    """They do nothing yet, so that a wrong fold would show only once they were trained."""
    in_place = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4))
    assert find_pairs(in_place.eval(), INPUTS) == [] == find_pairs(PreActivated().eval(), INPUTS)
    fresh = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).eval()
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    assert len(find_pairs(fresh, INPUTS)) == 1
    assert all(torch.equal(v, before[k]) for k, v in fresh.state_dict().items())
    assert len(find_pairs(timm.create_model("resnet18").eval(), INPUTS)) == 20


@pytest.mark.parametrize("computed", [nn.utils.parametrizations.weight_norm, nn.utils.spectral_norm])
def test_weights_that_are_computed_are_not_folded(computed):
    module = nn.Sequential(computed(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)).eval()
    with evaluation_mode(module, 32)(module):
        assert module(INPUTS).shape == (2, 4, 62, 62)


def test_what_a_module_keeps_of_its_first_call_can_be_trained_with():
    class Keeps(nn.Sequential):
        kept = None

        def forward(self, x):
            x = super().forward(x)
            self.kept = torch.ones_like(x) if self.kept is None else self.kept
            return x * self.kept

    module = Keeps(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    evaluation_mode(module, 64)
    module(INPUTS).sum().backward()


def test_all_is_restored_after_an_error():
    module = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    expected, pairs = module(INPUTS), find_pairs(module, INPUTS)
    assert len(pairs) == 1
    with pytest.raises(RuntimeError, match="stop"), folded(pairs):
        raise RuntimeError("stop")
    assert torch.equal(module(INPUTS), expected)


def test_the_mode_is_kept_until_it_is_evaluated():
    module = build_network(row("q1_2"), seed=0).module.train()
    ready = evaluation_mode(module, 32)
    assert module.training
    with ready(module):
        assert not module.training
