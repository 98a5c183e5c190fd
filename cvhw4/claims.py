"""What the report concludes, as data: which row should beat which row or figure."""

from __future__ import annotations

from dataclasses import dataclass

from cvhw4.errors import InputError
from cvhw4.experiments import Profile, check_name, is_number

Operand = str | tuple[str, str]  # a row ("q1_2"), or the difference of two: the first row's figure minus the second's


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One conclusion: `better` beats `worse` by more than `margin`, or `margin` itself.

    Attributes:
        id: the report's number and a name; `-k` selects by it. Made from rows and metric where it is left out.
        sentence: the conclusion in words; likewise.
        better: what should have the higher figure.
        worse: what it is compared with, seed by seed; None compares the figure itself with `margin`, which says
            something on real data alone.
        metric: figure compared, as in `RunRecord.best`.
        control: whether the comparison is this project's, not the report's.

    Raises:
        InputError: something of another kind than that.
    """

    id: str = ""
    sentence: str = ""
    better: Operand
    worse: Operand | None = None
    metric: str
    margin: float = 0.0
    control: bool = False

    def __post_init__(self) -> None:
        self._check()
        better, worse = (" less ".join((o,) if isinstance(o, str) else o) for o in (self.better, self.worse or ()))
        over = f"{worse} by {self.margin:g}" if worse and self.margin else worse or f"{self.margin:g}"
        name = f"{better}_above_{worse or f'{self.margin:g}'}-{self.metric}".replace(" ", "_")
        object.__setattr__(self, "id", self.id or name)
        object.__setattr__(self, "sentence", self.sentence or f"{better} beats {over} in {self.metric}")
        check_name(self.id, "claim")

    def _check(self) -> None:
        """Refuses what no claim can be made of; raises InputError."""
        row = 'name a row, or the difference of two as ("a", "b")'
        required = (
            ("id", isinstance(self.id, str), "give a text, or leave it out"),
            ("sentence", isinstance(self.sentence, str), "give a text, or leave it out"),
            ("better", _is_operand(self.better), row),
            ("worse", self.worse is None or _is_operand(self.worse), f"{row}, or leave it out"),
            ("metric", isinstance(self.metric, str) and self.metric != "", 'name a figure ("accuracy")'),
            ("margin", is_number(self.margin), "give a number"),
            ("control", isinstance(self.control, bool), "give True or False"),
        )
        for name, fine, mend in required:
            if not fine:
                where = f"claim {self.id or f'with better={self.better!r:.60}'}"
                raise InputError(where, f"has {name}={getattr(self, name)!r:.60}", mend)

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows compared."""
        operands = (self.better,) if self.worse is None else (self.better, self.worse)
        return tuple(row for operand in operands for row in ((operand,) if isinstance(operand, str) else operand))


def _is_operand(value: object) -> bool:
    """Whether it names a row, or two."""
    names = value if isinstance(value, tuple) and len(value) == 2 else (value,)
    return all(isinstance(name, str) and name for name in names)


# fmt: off
CLAIMS: tuple[Claim, ...] = (
    Claim(id="q1_4-finetune_above_features", better="q1_2", worse="q1_1", metric="accuracy",
          sentence="fine-tuning all layers beats training the last layer alone"),
    Claim(id="q1_4-features_above_scratch", better="q1_1", worse="q1_3", metric="accuracy",
          sentence="pretrained features beat AlexNet trained from scratch"),
    Claim(id="q1_4-finetune_above_scratch", better="q1_2", worse="q1_3", metric="accuracy",
          sentence="the fine-tuned network beats AlexNet trained from scratch"),
    Claim(id="q1_7-whole_face_features", better="q1_5", worse="q1_1", metric="accuracy",
          sentence="the whole face in view helps the feature extractor"),
    Claim(id="q1_7-whole_face_finetune", better="q1_6", worse="q1_2", metric="accuracy",
          sentence="the whole face in view helps the fine-tuned network"),
    Claim(id="q1_9-passes_0.895", better="q1_8", worse=None, margin=0.895, metric="accuracy",
          sentence="the better recipe passes 0.895"),
    Claim(id="q1_c9-pretraining", better="q1_8", worse="q1_c8", metric="accuracy", control=True,
          sentence="pretrained, the better recipe's network beats the same network from scratch"),
    Claim(id="q1_c4-pretraining", better="q1_2", worse="q1_c3", metric="accuracy", control=True,
          sentence="fine-tuned from ImageNet weights, q1_2's network beats the same network from scratch"),
    Claim(id="q2_2-skip_miou", better="q2_1a", worse="q2_1b", metric="miou",
          sentence="skip connections raise mIoU"),
    Claim(id="q2_2-skip_pixel_accuracy", better="q2_1a", worse="q2_1b", metric="pixel_accuracy",
          sentence="skip connections raise pixel accuracy"),
    Claim(id="q2_4-fewer_classes_miou", better="q2_3", worse="q2_1b", metric="miou",
          sentence="going from 11 to 3 classes raises mIoU"),
    Claim(id="q2_4-fewer_classes_pixel_accuracy", better="q2_3", worse="q2_1b", metric="pixel_accuracy",
          sentence="going from 11 to 3 classes raises pixel accuracy"),
    # "fused" and "norm", so that `-k skip` selects the report's two arms alone
    Claim(id="q2_c2-fused_miou_norm", better="q2_n1a", worse="q2_n1b", metric="miou", control=True,
          sentence="skip connections raise mIoU where batch norm trains as it should"),
    Claim(id="q2_c2-norm_miou", better="q2_n1a", worse="q2_1a", metric="miou", control=True,
          sentence="batch norm that trains as it should raises mIoU, with skip connections"),
    Claim(id="q2_c2-norm_interaction", better=("q2_1a", "q2_1b"), worse=("q2_n1a", "q2_n1b"), metric="miou",
          sentence="skip connections gain more mIoU where batch norm keeps its initial statistics than where it trains",
          control=True),
)
# fmt: on


def claims_of(profile: Profile) -> tuple[Claim, ...]:
    """The claims of an own ablation, or those of the report whose rows a profile has."""
    if profile.claims is not None:
        return profile.claims
    rows = {experiment.row for experiment in profile.rows}
    return tuple(claim for claim in CLAIMS if rows.issuperset(claim.rows))
