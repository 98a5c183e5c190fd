"""Ours beside what people would use instead: `make peers`, or `pytest benchmarks/performance -m peers -rP`.

On generated pictures, or with `--portraits DIR` on real ones. Measures are kept in `<results>/peers.json`, tabled in
`<results>/peers.md`. Ours has to be faster than every peer; whether it reaches its targets, the page says.
"""

from __future__ import annotations

import os
import shlex
import sys

import pytest

from benchmarks.performance.peers import CONTESTS, PEERS, WHOLE, Work, compare, in_six, ratios, save
from cvhw4.errors import Unavailable
from cvhw4.training.device import pick_device

pytestmark = pytest.mark.peers

TRIALS = int(os.environ.get("CVHW4_TRIALS", "5"))


@pytest.mark.parametrize("name", CONTESTS)
def test_ours_is_faster_than_its_peers(name, pytestconfig, tmp_path):
    peers = {peer: PEERS[peer].missing() for peer in CONTESTS[name].targets}
    for peer, why in peers.items():
        print(f"{peer}: {f'not measured, {why}' if why else 'measured'}")
    if not (present := [peer for peer, why in peers.items() if not why]):
        pytest.skip("; ".join(peers.values()))
    device = pick_device(pytestconfig.getoption("cvhw4_device")).type
    portraits, weights = pytestconfig.getoption("portraits"), pytestconfig.getoption("cvhw4_weights")
    try:
        work, pictures = prepare(name, portraits, device, tmp_path, weights=weights)
    except Unavailable as reason:
        pytest.skip(str(reason))
    command = shlex.join(["pytest", *sys.argv[1:]])
    found = compare(name, work, peers=present, trials=TRIALS, pictures=pictures, command=command)
    print(save(pytestconfig.getoption("cvhw4_results") or pytestconfig.rootpath / "results", found))
    for peer in present:
        measured = {what: ratios(what, ours, theirs)[0] for what, ours, theirs in found.pairs(peer)}
        print(peer, ", ".join(f"{what}: {ratio:.2f} times as fast" for what, ratio in measured.items()))
        assert measured[WHOLE] > 1, f"{peer} is faster"


def prepare(name, portraits, device, folder, setting=None, weights=None):
    """The work of a contest, with its pictures and first weights written below a folder, and the pictures in words."""
    import torch

    from benchmarks.performance.speed import write_pictures
    from cvhw4.data.embedded import embedded_portraits, embedded_scenes
    from cvhw4.homework import study
    from cvhw4.models.build import build_network

    contest, start = CONTESTS[name], None
    scenes = contest.network.startswith("smp/")
    pictures = portraits
    if scenes or portraits is None:
        source = embedded_scenes() if scenes else embedded_portraits()
        pictures = write_pictures(source, setting or contest.setting, folder / "pictures")
    train, val = (sum(path.is_file() for path in (pictures / split).rglob("*")) for split in ("train", "val"))
    if contest.network.startswith("torchvision/"):
        pictures = in_six(pictures, folder / "six")
    if "/" not in contest.network:  # with ImageNet weights, as every side can read them
        start, row = folder / "start.pth", study("quick").row("q1_2")
        assert row.network_name == contest.network
        torch.save(build_network(row, seed=0, weights=weights).module.state_dict(), start)
    what = f"{train} + {val} {'generated' if scenes or portraits is None else 'real'} pictures"
    return Work(contest.network, pictures.resolve(), start, device), what
