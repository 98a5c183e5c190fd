"""Negative controls: rows trained wrongly on purpose, as data. Bounds that do not notice them check nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cvhw4.experiments import Experiment, Profile, Sabotage, Spoils


@dataclass(frozen=True, kw_only=True)
class Control:
    """One kind of sabotage.

    Attributes:
        name: what is done, one word; with the strength it makes the arm that `-k` selects by.
        row: the row ("q1_6") that is spoilt, and whose bounds have to notice.
        words: what is done, with a place for the strength.
        strengths: how strongly, the first of them the one that has to be caught; the others tell how little suffices.
        spoils: what it does to the training data, if anything.
        changes: settings of the experiment that it changes, if any.
        lr: whether the strength multiplies the learning rate.
    """

    name: str
    row: str
    words: str
    strengths: tuple[float, ...] = (1.0,)
    spoils: Spoils | None = None
    changes: Mapping[str, Any] | None = None
    lr: bool = False

    def experiment(self, profile: Profile, strength: float) -> Experiment:
        """The spoilt row at a profile's size.

        Raises:
            ValueError: the profile does not have the row.
        """
        found = [row for row in profile.rows if row.row == self.row]
        if not found:
            raise ValueError(f"profile {profile.name} has no row {self.row}")
        changes: dict[str, Any] = dict(self.changes or {})
        if self.spoils is not None:
            changes["sabotage"] = Sabotage(self.spoils, strength)
        if self.lr:
            changes["recipe"] = replace(found[0].recipe, lr=found[0].recipe.lr * strength)
        arm = self.name if len(self.strengths) == 1 else f"{self.name}_{strength:g}"
        return replace(found[0], row=f"{self.row}x", arm=arm, group="control", **changes)


# fmt: off
CONTROLS: tuple[Control, ...] = (
    Control(name="label_noise",     row="q1_6",   spoils="label noise",          strengths=(0.2, 0.1, 0.05),
            words="{:.0%} of the training labels are wrong"),
    Control(name="fewer_images",    row="q2_n1a", spoils="smaller training set", strengths=(0.5, 0.25, 0.1),
            words="{:.0%} of the training images are left out"),
    Control(name="learning_rate",   row="q1_2",   lr=True,                       strengths=(10, 3, 1.5),
            words="the learning rate is {:g} times what it should be"),
    Control(name="no_pretraining",  row="q1_6",   changes={"start": "random"},
            words="the network starts from random weights"),
    Control(name="batch_norm",      row="q2_n1a", changes={"batch_norm": "initial"},
            words="batch norm keeps its initial statistics"),
    Control(name="mask_shift",      row="q2_n1a", spoils="mask shift",           strengths=(8, 4, 2, 1),
            words="the training masks are off by {:g} pixels"),
    Control(name="classes_swapped", row="q2_n1a", spoils="classes swapped",      strengths=(1, 0.5, 0.25),
            words="Road and Pavement are swapped in {:.0%} of the training masks"),
)
# fmt: on
