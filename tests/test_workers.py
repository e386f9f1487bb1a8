from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest

from bids_cmb.resources import workers_within_memory
from bids_cmb.workers import Died, Workers, _serve


def do(job: str) -> str | int:
    if job == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "leave":
        os._exit(3)
    if job.startswith("sleep"):
        time.sleep(30)
    return os.getpid()


def test_jobs_go_to_as_many_processes_as_there_may_be() -> None:
    with Workers(do, 2) as workers:
        for n in range(6):
            workers.submit(str(n))
        results = dict(workers.results())
        assert sorted(results) == [str(n) for n in range(6)]
        assert 1 <= len(set(results.values())) <= 2
        assert os.getpid() not in results.values()
        workers.submit("later")
        assert [job for job, _ in workers.results()] == ["later"]


def test_a_death_is_the_result_of_its_job_only() -> None:
    with Workers(do, 1) as workers:
        for job in ("a", "die", "leave", "b"):
            workers.submit(job)
        results = dict(workers.results())
    assert isinstance(results["a"], int)
    assert isinstance(results["b"], int)
    assert results["die"] == Died(-signal.SIGKILL)
    assert "memory" in str(results["die"])
    assert "exit status 3" in str(results["leave"])


def test_leaving_ends_busy_processes_at_once() -> None:
    start = time.monotonic()
    with pytest.raises(RuntimeError), Workers(do, 2) as workers:
        workers.submit("sleep")
        workers.submit("x")
        for _job, _ in workers.results():
            assert workers.active == ["sleep"]
            raise RuntimeError
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(("memory", "count"), [(0.5, 1), (5.0, 2), (100.0, 8)])
def test_memory_limits_the_number_of_scans_at_once(memory: float, count: int) -> None:
    assert workers_within_memory(8, 5_000_000, memory) == count


def test_a_worker_whose_run_was_ended_leaves_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, do_slowly))
    process.start()
    theirs.close()
    ours.send("a job")
    ours.close()  # while it is at work
    process.join(60)
    assert process.exitcode == 0
    assert capfd.readouterr().err == ""


def do_slowly(job: str) -> str:
    time.sleep(0.2)
    return job
