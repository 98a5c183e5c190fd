"""The rows against the facts of the report."""

import subprocess
import sys
from dataclasses import replace
from itertools import product

import pytest

from cvhw4.claims import CLAIMS, claims_of
from cvhw4.errors import InputError
from cvhw4.experiments import PROFILES, find_row
from cvhw4.report.ablations import CELLS

FULL, QUICK = PROFILES["full"], PROFILES["quick"]

Q1_FACTS = {
    # row: network, start, trained, augmentation, optimizer, reported accuracy
    "q1_1": ("alexnet", "imagenet", "last layer", "random-resized crop", "sgd", 0.8300),
    "q1_2": ("alexnet", "imagenet", "all layers", "random-resized crop", "sgd", 0.8750),
    "q1_3": ("alexnet", "random", "all layers", "random-resized crop", "sgd", 0.7175),
    "q1_5": ("alexnet", "imagenet", "last layer", "whole face", "sgd", None),
    "q1_6": ("alexnet", "imagenet", "all layers", "whole face", "sgd", None),
    "q1_8": ("efficientnet_b2+linear", "imagenet", "all layers", "crop + jitter + AutoAugment", "adam", 0.9075),
}
Q2_FACTS = {
    # row: classes, skips, reported mIoU, reported pixel accuracy, their epochs
    "q2_1a": (11, True, 0.4295, 0.8523, 41, 41),
    "q2_1b": (11, False, 0.4055, 0.8384, 20, 17),
    "q2_3": (3, False, 0.8261, 0.9629, 20, 20),
}


@pytest.mark.parametrize("row", Q1_FACTS)
def test_full_q1_rows_are_the_reports(row):
    e = find_row("full", row)
    facts = e.network, e.start, e.trained, e.augmentation, e.recipe.optimizer, e.reported.figures.get("accuracy")
    assert facts == Q1_FACTS[row]
    r = e.recipe
    assert (r.size, r.batch, r.epochs, r.lr, r.lr_step, r.lr_gamma) == (224, 4, 25, 1e-3, 5, 0.1)
    assert r.momentum == (0.9 if r.optimizer == "sgd" else 0.0)
    assert e.classes == 2


@pytest.mark.parametrize("row", Q2_FACTS)
def test_full_q2_rows_are_the_reports(row):
    e = find_row("full", row)
    facts = [of[metric] for of in (e.reported.figures, e.reported.epochs) for metric in ("miou", "pixel_accuracy")]
    assert (e.classes, e.skips, *facts) == Q2_FACTS[row]
    r = e.recipe
    assert (r.size, r.batch, r.epochs, r.optimizer, r.lr, r.lr_step, r.lr_gamma) == (256, 6, 50, "adam", 1e-4, 100, 0.5)
    assert (e.network, e.start, e.batch_norm) == ("fcn8s/vgg16", "imagenet", "initial")


def test_quick_rows_are_the_same_rows_and_differ_in_size_alone():
    rows = {e.row: e for e in QUICK.rows}
    for full in FULL.rows:
        if full.row == "q2_n3":  # left out for time
            continue
        quick = rows[full.row]
        assert replace(quick, profile="full", network=full.network, recipe=full.recipe) == full
        assert quick.recipe.optimizer == full.recipe.optimizer
    assert rows.keys() == ({e.row for e in FULL.rows} - {"q2_n3"}) | {"q1_c3"}  # at full size q1_c3 is q1_3


def test_ids_are_unique_and_select_what_they_say():
    for profile in PROFILES.values():
        ids = [e.id for e in profile.rows]
        assert len(set(ids)) == len(ids)
        assert [i for i in ids if "skip" in i] == ["q2_1a-skip", "q2_1b-noskip"]
        assert [i for i in ids if "3class" in i][:2] == ["q2_3-3class", "q2_c3-3class_fused"]


def test_controls_differ_from_their_row_in_one_setting():
    def differences(a, b, profile="quick"):
        one, other = (find_row(profile, row).settings() for row in (a, b))
        return {key for key in one if one[key] != other[key]}

    assert differences("q1_8", "q1_c8") == differences("q1_2", "q1_c3") == {"start"}
    assert differences("q2_3", "q2_c3") == {"skips"}
    assert differences("q2_1a", "q2_1b") == {"skips"}
    assert differences("q2_1b", "q2_3") == {"classes"}
    assert differences("q2_1a", "q2_n1a") == differences("q2_1b", "q2_n1b") == {"batch_norm"}
    assert differences("q2_3", "q2_n3", "full") == {"batch_norm"}
    assert differences("q1_1", "q1_5") == {"augmentation"}
    assert differences("q1_1", "q1_2") == {"trained"}


def test_claims_name_rows_that_exist():
    quick = {e.row for e in QUICK.rows}
    assert all(quick.issuperset(claim.rows) for claim in CLAIMS)
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert claims_of(QUICK) == CLAIMS
    assert claims_of(FULL) == tuple(c for c in CLAIMS if "q1_c3" not in c.rows)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_factorial_crosses_what_the_report_changed_at_once(profile):
    rows = {cell: find_row(profile, row) for cell, row in CELLS.items()}
    assert sorted(CELLS) == sorted(product((False, True), repeat=3))
    first, last = rows[False, False, False], rows[True, True, True]
    for (network, optimizer, augmentation), e in rows.items():
        assert e.network == (last if network else first).network
        assert e.recipe == (last if optimizer else first).recipe
        assert e.augmentation == (last if augmentation else first).augmentation
        assert (e.start, e.trained) == ("imagenet", "all layers")
    assert len({first.network, last.network}) == 2 and first.recipe != last.recipe


def test_unknown_row_and_profile_list_what_there_is():
    assert find_row("quick", "q1_2-finetune") is find_row("quick", "q1_2")
    with pytest.raises(InputError, match="q2_1a-skip"):
        find_row("quick", "q9")
    with pytest.raises(InputError, match="full, quick"):
        find_row("huge", "q1_1")


def test_experiments_import_nothing_heavy():
    code = "import sys, cvhw4.experiments, cvhw4.claims, cvhw4.study, cvhw4.pytest_plugin; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "timm", "pandas", "scipy", "numpy", "PIL"} & set(loaded)


@pytest.mark.parametrize("changes", [{"row": "x 1"}, {"arm": "a/../b"}, {"arm": "a b"}, {"row": ".q1_2"}])
def test_names_that_could_be_no_folder_are_refused(changes):
    with pytest.raises(InputError, match="is no name of a row"):
        replace(find_row("quick", "q1_2"), **changes)
