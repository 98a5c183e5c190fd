"""Convolutions that are trained by faster kernels on a CPU: against autograd's own."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import nn

from cvhw4.models import convolutions
from cvhw4.models.convolutions import fast_convolutions


def wide(kind=nn.Conv2d, kernel=(5, 5), channels=4, **settings):
    torch.manual_seed(0)
    return kind(channels, channels, kernel, groups=channels, **settings).double()


def gradients(module, inputs):
    """The output and the gradients of inputs and parameters."""
    inputs = inputs.clone().requires_grad_()
    output = module(inputs)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    return [output, *torch.autograd.grad((output * weights).sum(), [inputs, *module.parameters()])]


def assert_float32_is_float64(module, inputs, tolerance):
    """As networks are trained: channels last, by oneDNN's kernels, which are returned. The module becomes so."""
    expected = gradients(module, inputs)
    module.float().to(memory_format=torch.channels_last)
    inputs = inputs.float().to(memory_format=torch.channels_last)
    with fast_convolutions(module):
        found = gradients(module, inputs)
        kernels = kernels_of(lambda: gradients(module, inputs))
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    for mine, theirs in zip(found, expected, strict=True):
        atol = 1e-5 * theirs.detach().abs().max().item()
        torch.testing.assert_close(mine.double(), theirs, rtol=tolerance, atol=atol)
    return kernels


@given(
    kind=st.sampled_from([nn.Conv2d, Conv2dSame]),
    kernel=st.tuples(st.integers(1, 7), st.integers(4, 9)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    size=st.tuples(st.integers(9, 14), st.integers(9, 14)),
    bias=st.booleans(),
    images=st.integers(1, 3),
)
def test_gradients_are_those_of_autograd(kind, kernel, stride, padding, size, bias, images):
    module = wide(kind, kernel, stride=stride, padding=padding, bias=bias)
    inputs = torch.randn(images, 4, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
    expected = gradients(module, inputs)
    with fast_convolutions(module):
        found = gradients(module, inputs)
    assert torch.equal(found[0], expected[0])
    for mine, theirs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_it_can_be_differentiated_twice():
    module, inputs = wide(channels=2, padding=2), torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    with fast_convolutions(module):
        assert torch.autograd.gradgradcheck(
            lambda x, w: torch.func.functional_call(module, {"weight": w}, (x,)), (inputs, module.weight)
        )


@pytest.mark.parametrize(
    ("kind", "stride", "bias"), [(nn.Conv2d, 1, True), (nn.Conv2d, 2, False), (Conv2dSame, 2, True)]
)
def test_gradients_in_float32_are_those_of_float64(kind, stride, bias):
    module = wide(kind, (7, 7), 96, stride=stride, padding=0 if kind is Conv2dSame else 3, bias=bias)
    assert_float32_is_float64(module, torch.randn(8, 96, 13, 13, dtype=torch.float64), 1e-4)


@pytest.fixture
def strips(monkeypatch):
    """Calls that computed a gradient in strips."""
    calls, original = [], convolutions._weight_gradient
    monkeypatch.setattr(convolutions, "_weight_gradient", lambda *args: calls.append(1) or original(*args))
    return calls


def test_the_nine_wide_layers_of_lite0_and_no_others(strips):
    network = timm.create_model("tf_efficientnet_lite0", num_classes=2)
    with fast_convolutions(network):
        network(torch.randn(2, 3, 64, 64)).sum().backward()
        assert len(strips) == 9
        network.blocks[-2].requires_grad_(False)  # four of them
        network(torch.randn(2, 3, 64, 64)).sum().backward()
        with torch.no_grad():
            network(torch.randn(2, 3, 64, 64))
    assert len(strips) == 9 + 5
    network(torch.randn(2, 3, 64, 64)).sum().backward()
    assert len(strips) == 9 + 5


class Halved(nn.Conv2d):
    def forward(self, input):
        return super().forward(input) / 2


@pytest.mark.parametrize(
    "module",
    [
        wide(kernel=(5, 3)),
        wide(dilation=2),
        wide(padding=2, padding_mode="reflect"),
        wide(padding="same"),
        wide(Halved),
        nn.Conv2d(4, 8, 5, groups=4).double(),
        nn.Conv2d(4, 4, 5).double(),
    ],
    ids=["narrow", "dilation", "reflection", "padding by name", "own forward", "two outputs", "not depthwise"],
)
def test_others_are_left_alone(module, strips):
    inputs = torch.randn(2, 4, 12, 12, dtype=torch.float64)
    expected = gradients(module, inputs)
    with fast_convolutions(module):
        assert all(map(torch.equal, gradients(module, inputs), expected))
    assert not strips


def test_what_is_compiled_stays_compiled_and_under_autocast_it_stays_autocast(strips):
    module, inputs = wide(padding=2).float(), torch.randn(1, 4, 6, 6)
    with fast_convolutions(module), torch.autocast("cpu", torch.bfloat16):
        output = module(inputs)
        output.sum().backward()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    with fast_convolutions(compiled):
        compiled(inputs).sum().backward()
    assert output.dtype is torch.bfloat16 and not strips


def test_a_weight_that_is_parametrised_is_not_computed_for_it(strips):
    module, calls = wide(padding=2), []

    class Counted(nn.Module):
        def forward(self, weight):
            calls.append(1)
            return weight

    nn.utils.parametrize.register_parametrization(module, "weight", Counted())
    calls.clear()
    with fast_convolutions(module):
        module(torch.randn(1, 4, 6, 6, dtype=torch.float64)).sum().backward()
    assert calls == [1] and not strips


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kernels_of(work):
    with torch.profiler.profile() as profile:
        work()
    return {event.name for event in profile.events()}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("settings", [{}, {"bias": False, "stride": 2}, {"padding": 1}, {"padding": "same"}], ids=str)
@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
def test_one_pixel_convolutions_of_few_images_are_computed_by_onednn(kind, settings):
    torch.manual_seed(0)
    module = kind(24, 40, 1, **settings).double()
    kernels = assert_float32_is_float64(module, torch.randn(4, 24, 9, 7, dtype=torch.float64), 1e-5)
    assert "aten::mkldnn_convolution" in kernels and "aten::_slow_conv2d_backward" not in kernels


@pytest.mark.parametrize(
    "module", [Halved(4, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1, device="meta"), nn.Conv1d(4, 4, 1)]
)
def test_other_convolutions_of_one_pixel_are_left_alone(module):
    before = module.dilation
    with fast_convolutions(module):
        assert module.dilation == before


@pytest.mark.usefixtures("one_thread")
def test_a_compiled_network_keeps_its_convolutions_of_one_pixel():
    module = nn.Sequential(nn.Conv2d(4, 4, 1))
    for compiled in (torch.compile(module, backend="eager"), module):
        module.compile(backend="eager") if compiled is module else None
        with fast_convolutions(compiled):
            assert module[0].dilation == (1, 1)


@pytest.mark.usefixtures("one_thread")
def test_an_error_leaves_the_module_as_it_was():
    module = nn.Sequential(wide(), nn.Conv2d(4, 4, 1))
    with pytest.raises(RuntimeError, match="stop"), fast_convolutions(module):
        assert "forward" in module[0].__dict__ and module[1].dilation == (2, 2)
        raise RuntimeError("stop")
    assert "forward" not in module[0].__dict__ and module[1].dilation == (1, 1)
