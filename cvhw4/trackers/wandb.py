"""Weights & Biases; with WANDB_MODE=offline below ./wandb (or WANDB_DIR), for `wandb sync` later."""

from __future__ import annotations

from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.trackers import Run, final_figures, tags


class WandB:
    """A run for every row and seed, grouped by study and row; see `Tracker`."""

    def __init__(self, project: str) -> None:
        self.project = project

    def begin(self, run: Run) -> None:
        """Starts the run, quietly: the terminal is the session's."""
        import wandb

        self.run = run
        quiet = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        self.live = wandb.init(
            project=self.project,
            group=f"{run.row.study}/{run.row.name}",
            job_type=run.row.study,
            name=run.name,
            config=run.settings,
            reinit="create_new",
            settings=quiet,
        )
        self.live.define_metric("*", step_metric="epoch")

    def epoch(self, epoch: Epoch) -> None:
        """Figures, by the epoch's number."""
        self.live.log({"epoch": epoch.epoch, **self.run.figures(epoch)})

    def end(self, record: RunRecord) -> None:
        """Final figures and tags."""
        self.live.summary.update(final_figures(record))
        self.live.config.update(tags(record) | self.run.settings)  # whose names come first
        self.live.finish(exit_code=0)

    def failed(self, reason: str) -> None:
        """The reason, in the summary."""
        self.live.summary["failed"] = reason
        self.live.finish(exit_code=1)
