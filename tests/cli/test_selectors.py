"""Words that mean jobs and tasks, as every verb reads them."""

import pytest

from tests.cli.conftest import Run
from tests.cli.fake import FakeServer
from tq.core import vocabulary as v


@pytest.mark.parametrize("field", ["name", "tag"])
def test_a_task_of_a_job_is_named_by_the_job_where_that_is_one(run: Run, server: FakeServer, field: str) -> None:
    ids = {"nightly": ("43",), "both": ("45", "44"), "v1.4": ("46",)}
    server.says[v.List] = lambda asked: v.Page(tuple({"id": one} for one in ids.get(getattr(asked, field), ())))
    server.says[v.Get] = lambda asked: v.Document({"id": asked.id})
    server.says[v.Cancel] = lambda _: v.Acted(1)
    assert run("show", "nightly.7", "-q") == (0, "43.7\n", "")
    assert run("show", "v1.4", "-q") == (0, "46\n", "")
    assert run("cancel", "nightly.7", "nightly.1-5").status == 0
    assert server.asked[-1] == v.Cancel(("43.7", "43.1-5"))
    said = "tq: 'both.7': several jobs have the name or tag both\nhint: of the newest: 45.7\n"
    assert run("show", "both.7") == (1, "", said)
    ran = run("show", "weekly.7")
    assert (ran.status, ran.err.splitlines()[0]) == (1, "tq: 'weekly.7' is no id, and no job has that name or tag")
