"""Stores as the command line names them: a folder, or a git revision of one."""

from dataclasses import replace

import pytest

from cvhw4.errors import InputError
from cvhw4.records.revisions import hint_of, opened
from cvhw4.records.store import Store
from tests.helpers.records import git, place, results
from tests.helpers.tiny import record


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """With runs of one study in `results`, of another in `other`, of both in `both`, and a link to a record outside."""
    monkeypatch.chdir(tmp_path)
    for folder, study in (("results", "full"), ("other", "insects"), ("both", "full"), ("both", "insects")):
        saved = Store(tmp_path / folder, study).save(replace(record(), study=study), results())
    (tmp_path / "secret.json").write_text(record(seed=9).to_json())
    link = place(Store(tmp_path / "results", "full"), record(seed=9))
    link.symlink_to(tmp_path / "secret.json")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no runs")
    git("init"), git("add", "."), git("commit", "-m", "x"), git("tag", "v1.0")
    link.unlink()
    return tmp_path, saved


@pytest.mark.parametrize(
    ("name", "study", "found"),
    [("results", None, "full"), ("both", "insects", "insects"), ("both/insects", None, "insects"),
     ("main", None, "full"), ("v1.0:other/", None, "insects")],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_a_store_is_a_folder_or_in_a_revision(name, study, found, repository):
    folder, saved = repository
    before = sorted(folder.rglob("*"))
    with opened(name, study) as (store, opened_study):
        assert opened_study == found == store.folder.name
        assert store.load() == [replace(saved, study=found)]
    assert sorted(folder.rglob("*")) == before


OTHER = "Fix: name a study that has runs there with --study: full"


@pytest.mark.parametrize(
    ("name", "study", "told"),
    [
        ("nowhere", None, "nowhere: is not a folder or a git revision. Fix: name a results folder"),
        ("--output=x", None, "--output=x: is not a folder or a git revision"),
        (":", None, "is not a folder or a git revision"),
        ("empty", None, "empty: has no runs. Fix: name a results folder"),
        ("both", None, f"both: has runs of several studies. {OTHER}, insects"),
        ("main", "quick", f"main: has no runs of study quick. {OTHER}"),
        ("main:none", None, "main:none: has no none at that revision"),
        ("main:empty", None, "main:empty: has no runs that git archive can read"),
    ],
)
def test_a_store_that_is_not_there_is_one_error(name, study, told, repository):
    with pytest.raises(InputError, match=told), opened(name, study):
        pass


def test_a_hint_names_the_studies_that_are_there(repository):
    folder, _ = repository
    assert f"Fix: {hint_of(Store(folder / 'both', 'quick'), '-')}" == f"{OTHER}, insects"
    assert hint_of(Store(folder / "empty", "quick"), "-") == "-"
