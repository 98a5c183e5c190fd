"""TensorBoard's event files, in DIR/<study>/<row>/seed<n>."""

from __future__ import annotations

from pathlib import Path

from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.trackers import Run, final_figures, tags


class TensorBoard:
    """Scalars by epoch, and the settings with the final figures under "hparams"; see `Tracker`."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def begin(self, run: Run) -> None:
        """Opens the run's file."""
        from torch.utils.tensorboard import SummaryWriter

        self.run = run
        folder = self.folder / run.row.study / run.row.name / f"seed{run.seed}"
        self.writer = SummaryWriter(folder, purge_step=0)  # what an earlier session logged there is hidden

    def epoch(self, epoch: Epoch) -> None:
        """Scalars, at the epoch's number."""
        for name, value in self.run.figures(epoch).items():
            self.writer.add_scalar(name, value, epoch.epoch)
        self.writer.flush()

    def end(self, record: RunRecord) -> None:
        """Settings, tags and final figures."""
        self.writer.add_hparams(tags(record) | self.run.settings, final_figures(record), run_name=".")
        self.writer.close()

    def failed(self, reason: str) -> None:
        """The reason, as a text."""
        self.writer.add_text("failed", reason)
        self.writer.close()
