"""Jobs through a real worker and runner: every way a job can go, and that it always ends."""

from __future__ import annotations

import os
import signal
import time

from service.jobs.records import Fault, Priority
from service.jobs.states import JobState


def test_steps_feed_each_other_and_the_last_is_the_result(bench):
    bench.start_worker()
    job = bench.wait(bench.submit("copy", "copy", "copy", content=b"abc"))
    assert job.state is JobState.SUCCEEDED
    assert bench.content(job) == b"abc+++"
    assert [item.name for item in job.artifacts] == ["copy.bin"]
    assert job.progress.fraction == 1.0
    assert job.attempt == 1


def test_one_runner_serves_many_jobs_and_reports_stay_json(bench):
    bench.start_worker()
    jobs = [bench.wait(bench.submit("copy")) for _ in range(3)]
    assert len({job.report["pid"] for job in jobs}) == 1
    assert jobs[0].report["not_a_number"] is None


def test_a_users_fault_carries_code_message_and_next_step(bench):
    bench.start_worker()
    job = bench.wait(bench.submit("copy", "refusing"))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.next_step) == ("upside_down", "Turn it.")
    assert job.error.fault is Fault.INPUT


def test_a_bug_ends_its_job_and_the_next_gets_a_fresh_runner(bench):
    bench.start_worker()
    before = bench.wait(bench.submit("copy"))
    failed = bench.wait(bench.submit("buggy"))
    after = bench.wait(bench.submit("copy"))
    assert failed.error is not None and failed.error.code == "pipeline_bug"
    assert "ZeroDivisionError" in failed.error.message
    assert failed.error.fault is Fault.DEFECT
    assert before.report["pid"] != after.report["pid"]


def test_a_job_that_kills_its_runner_three_times_is_poison(bench):
    bench.start_worker()
    job = bench.wait(bench.submit("deadly"))
    assert job.state is JobState.FAILED
    assert job.error is not None and job.error.code == "poison_job"
    assert job.error.message.count("SIGSEGV") == 3
    outcomes = [attempt.outcome for attempt in bench.queue.attempts(job.id)]
    assert outcomes[:3] == ["crashed"] * 3
    assert bench.wait(bench.submit("copy")).state is JobState.SUCCEEDED


def test_a_runner_that_dies_once_costs_an_attempt_not_the_job(bench):
    bench.start_worker()
    job = bench.wait(bench.submit("deadly_once"))
    assert job.state is JobState.SUCCEEDED
    assert [item.outcome for item in bench.queue.attempts(job.id)] == ["crashed", "finished"]
    assert "SIGKILL" in bench.queue.attempts(job.id)[0].reason


def test_a_step_beyond_its_time_is_stopped_with_its_reason(bench):
    bench.start_worker(job_timeout_seconds=0.5)
    job = bench.wait(bench.submit("stubborn", seconds=30.0))
    assert job.error is not None and job.error.code == "timeout"
    assert "0.5 seconds" in job.error.message


def test_cancelling_a_waiting_job_means_it_never_runs(bench):
    job = bench.submit("copy")
    assert bench.queue.cancel(job.id).state is JobState.CANCELLED
    bench.start_worker()
    other = bench.wait(bench.submit("copy"))
    assert other.state is JobState.SUCCEEDED
    assert bench.queue.get(job.id).attempt == 0


def test_cancelling_a_running_job_stops_it_and_keeps_the_runner(bench):
    worker = bench.start_worker()
    job = bench.wait_running(bench.submit("slow", seconds=30.0))
    runner = bench.runner_pid(worker)
    assert bench.queue.cancel(job.id).state is JobState.CANCELLING
    assert bench.wait(job).state is JobState.CANCELLED
    assert bench.wait(bench.submit("copy")).report["pid"] == runner


def test_a_pipeline_deaf_to_cancelling_is_killed_after_the_grace_time(bench):
    bench.start_worker()
    job = bench.submit("stubborn", seconds=30.0)
    bench.wait(job, lambda job: job.state is JobState.RUNNING)
    bench.queue.cancel(job.id)
    assert bench.wait(job).state is JobState.CANCELLED


def test_high_priority_overtakes_low(bench):
    low = [bench.submit("copy", priority=Priority.LOW) for _ in range(3)]
    high = [bench.submit("copy", priority=Priority.HIGH) for _ in range(2)]
    assert bench.queue.get(high[0].id).queue_position == 1
    assert bench.queue.get(low[0].id).queue_position == 3
    bench.start_worker()
    ended = [bench.wait(job) for job in (*low, *high)]
    order = [job.id for job in sorted(ended, key=lambda job: job.started_at)]
    assert order == [job.id for job in (*high, *low)]


def test_a_killed_worker_loses_nothing_when_it_comes_back(bench):
    worker = bench.start_worker()
    job = bench.wait_running(bench.submit("slow_once", seconds=600.0))
    waiting = bench.submit("copy")
    os.killpg(worker.pid, signal.SIGKILL)
    bench.start_worker()
    assert bench.wait(job).state is JobState.SUCCEEDED
    assert bench.wait(waiting).state is JobState.SUCCEEDED
    outcomes = [item.outcome for item in bench.queue.attempts(job.id)]
    assert outcomes == ["crashed", "finished"]


def test_a_living_worker_takes_over_from_a_dead_one(bench):
    first = bench.start_worker()
    # Until the first is killed, however long a second takes to start on a busy machine.
    job = bench.wait_running(bench.submit("slow_once", seconds=600.0))
    second = bench.start_worker()
    other = bench.wait(bench.submit("copy"))  # by the second: the first is busy
    os.killpg(first.pid, signal.SIGKILL)
    assert bench.wait(job).state is JobState.SUCCEEDED
    workers = [item.worker for item in bench.queue.attempts(job.id)]
    assert len(set(workers)) == 2
    assert bench.queue.attempts(other.id)[0].worker == workers[1]
    assert second.poll() is None


def test_sigterm_gives_the_job_back_at_no_cost(bench):
    worker = bench.start_worker()
    job = bench.wait_running(bench.submit("slow_once", seconds=600.0))
    worker.terminate()
    assert worker.wait(20) == 0
    again = bench.queue.get(job.id)
    assert again.state is JobState.QUEUED
    assert [item.outcome for item in bench.queue.attempts(job.id)] == ["interrupted"]
    bench.start_worker()
    assert bench.wait(job).state is JobState.SUCCEEDED


def test_a_job_that_kills_its_workers_is_poison_too(bench):
    job = bench.submit("slow", seconds=30.0)
    for _ in range(3):
        worker = bench.start_worker()
        attempts = len(bench.queue.attempts(job.id))
        bench.wait(job, lambda job, seen=attempts: job.attempt > seen and bool(job.progress.stage))
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    bench.start_worker()
    job = bench.wait(job)
    assert job.error is not None and job.error.code == "poison_job"
    assert job.error.message.count("its worker process died") == 3


def test_the_runner_dies_with_its_worker(bench):
    worker = bench.start_worker()
    bench.wait(bench.submit("copy"))
    runner = bench.runner_pid(worker)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(runner):
        time.sleep(0.02)
    assert not _alive(runner)


def test_a_pipeline_that_does_not_load_fails_its_own_jobs_only(bench):
    bench.start_worker()
    failed = bench.wait(bench.submit("absent"))
    assert failed.error is not None and failed.error.code == "pipeline_bug"
    assert "ImportError" in failed.error.message
    assert bench.wait(bench.submit("copy")).state is JobState.SUCCEEDED


def test_a_runner_that_cannot_start_costs_no_job_anything(bench):
    worker = bench.start_worker(runner="no_such_module")
    job = bench.submit("copy")
    bench.wait_for(lambda: [item.state for item in bench.queue.workers()] == ["broken"])
    assert bench.queue.get(job.id).state is JobState.QUEUED
    assert bench.queue.attempts(job.id) == []
    worker.terminate()
    assert worker.wait(20) == 0
    bench.start_worker()
    assert bench.wait(job).attempt == 1


def test_mangled_text_neither_hides_a_job_nor_mixes_answers(bench):
    bench.start_worker()
    first, second = bench.submit("mangled"), bench.submit("copy", content=b"second")
    assert bench.wait(first).state is JobState.SUCCEEDED
    assert bench.content(bench.wait(second)) == b"second+"


def test_a_dead_runner_is_noticed_though_its_child_holds_the_pipe(bench):
    bench.start_worker()
    job = bench.submit("leaving_a_child")
    job = bench.wait(job)  # well before the child's 20 s, three times
    assert job.error is not None and job.error.code == "poison_job"
    assert (job.finished_at - job.started_at).total_seconds() < 20


def test_a_full_disk_is_named_as_such(bench):
    bench.start_worker()
    job = bench.wait(bench.submit("full_disk"))
    assert job.error is not None and job.error.code == "worker_storage"
    assert "No space left" in job.error.message


def test_what_a_dead_host_left_is_cleared(bench):
    left = bench.settings.data_dir / "work" / "elsewhere:cpu"
    (left / "some-job" / "inputs").mkdir(parents=True)
    bench.start_worker()
    bench.wait_for(lambda: not left.exists())
    assert bench.wait(bench.submit("copy")).state is JobState.SUCCEEDED


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
