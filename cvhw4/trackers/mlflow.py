"""MLflow: a server, a folder (`file:DIR`) or, where all of mlflow is installed and not mlflow-skinny, a database."""

from __future__ import annotations

import os
from contextlib import suppress

from cvhw4.records.schema import Epoch, RunRecord
from cvhw4.trackers import Run, final_figures, tags


class MLflow:
    """An experiment of MLflow's for each study, a run for every row and seed; see `Tracker`."""

    def __init__(self, uri: str) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else versions from 3.8 on refuse folders
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)

    def begin(self, run: Run) -> None:
        """Makes the run, and the experiment with the first one."""
        from mlflow import MlflowException

        self.run = run
        name = f"cvhw4 {run.row.study}"
        with suppress(MlflowException):  # it is there, perhaps since another worker made it a moment ago
            self.client.create_experiment(name)
        experiment = self.client.get_experiment_by_name(name)
        assert experiment is not None
        self.id = self.client.create_run(experiment.experiment_id, run_name=run.name).info.run_id
        for setting, value in run.settings.items():
            self.client.log_param(self.id, setting, value, synchronous=True)

    def epoch(self, epoch: Epoch) -> None:
        """Metrics, at the epoch's number."""
        for name, value in self.run.figures(epoch).items():
            self.client.log_metric(self.id, name, value, step=epoch.epoch)

    def end(self, record: RunRecord) -> None:
        """Final figures and tags."""
        for name, figure in final_figures(record).items():
            self.client.log_metric(self.id, name, figure)
        for name, tag in tags(record).items():
            self.client.set_tag(self.id, name, tag)
        self.client.set_terminated(self.id, "FINISHED")

    def failed(self, reason: str) -> None:
        """The reason, as a tag."""
        self.client.set_tag(self.id, "reason", reason)
        self.client.set_terminated(self.id, "FAILED")
