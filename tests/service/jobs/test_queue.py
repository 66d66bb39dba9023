"""The queue without a worker: submitting, replaying, paging, limits, what the database guards."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from service.errors import (
    Conflict,
    IdempotencyConflict,
    InvalidRequest,
    NotFound,
    NotReady,
    QueueFull,
)
from service.jobs import database
from service.jobs.ledger import Ledger
from service.jobs.queue import JobQueue, new_job_id
from service.jobs.records import Fault, JobError, NewJob, Progress
from service.jobs.retention import Retention
from service.jobs.states import FINAL, TRANSITIONS, JobState, sources
from service.settings import Settings


def test_every_state_but_the_final_ones_leads_somewhere():
    assert set(TRANSITIONS) == set(JobState)
    dead_ends = {state for state, targets in TRANSITIONS.items() if not targets}
    assert dead_ends <= FINAL
    assert JobState.EXPIRED in TRANSITIONS[JobState.SUCCEEDED]
    assert sources(JobState.SUCCEEDED) == (JobState.RUNNING,)


def test_job_ids_sort_by_time_and_are_version_7():
    ids = []
    for _ in range(3):
        ids.append(new_job_id())
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert all(text[14] == "7" and text[19] in "89ab" for text in ids)


def test_the_same_key_and_request_is_one_job(bench):
    first = bench.submit("copy", key="k")
    again = bench.submit("copy", key="k")
    assert again.id == first.id
    assert bench.queue.counts()[JobState.QUEUED] == 1


def test_the_same_key_with_another_request_is_refused(bench):
    first = bench.submit("copy", key="k")
    with pytest.raises(IdempotencyConflict, match=first.id):
        bench.submit("copy", key="k", content=b"other")


def test_one_key_from_many_processes_at_once_is_one_job(bench):
    queues = [JobQueue(bench.settings, bench.store) for _ in range(4)]
    found: list[str] = []
    template = bench.submit("copy", key="other")

    def submit(queue: JobQueue) -> None:
        new = NewJob("rehearsal", template.steps, template.inputs, idempotency_key="same")
        found.append(queue.submit(new)[0].id)

    threads = [threading.Thread(target=submit, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for queue in queues:
        queue.close()
    assert len(found) == 4 and len(set(found)) == 1


def test_a_full_queue_refuses_with_its_limit(tmp_path, bench):
    full = JobQueue(replace(bench.settings, max_queued=1), bench.store)
    job = bench.submit("copy")
    with pytest.raises(QueueFull, match="limit is 1"):
        full.submit(NewJob("rehearsal", job.steps, job.inputs))
    full.close()


def test_pages_cover_every_job_once_newest_first(bench):
    ids = [bench.submit("copy").id for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        page, cursor = bench.queue.page(limit=3, after=cursor)
        seen += [job.id for job in page]
        if cursor is None:
            break
    assert seen == ids[::-1]
    with pytest.raises(InvalidRequest, match="bogus"):
        bench.queue.page(after="bogus")


def test_a_job_that_ended_cannot_be_cancelled(bench):
    job = bench.submit("copy")
    bench.queue.cancel(job.id)
    with pytest.raises(Conflict, match="cancelled"):
        bench.queue.cancel(job.id)
    with pytest.raises(NotFound):
        bench.queue.cancel("no-such-job")


@pytest.fixture
def engine(bench):
    engine = database.create_engine(bench.settings.effective_queue_url)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine):
    return Ledger(engine)


@pytest.fixture
def retention(engine):
    return Retention(engine)


def test_an_outdated_attempt_cannot_publish_over_its_successor(bench, ledger):
    job = bench.submit("copy")
    old = ledger.begin_attempt(job.id, "a")
    new = ledger.begin_attempt(job.id, "b")
    assert not ledger.publish(job.id, old, [], {"by": "old"}, 60)
    assert ledger.progress(job.id, old, Progress("late", 0.9)) is None
    assert ledger.publish(job.id, new, [], {"by": "new"}, 60)
    assert not ledger.publish(job.id, new, [], {"by": "again"}, 60)
    assert ledger.get(job.id).report == {"by": "new"}
    assert [item.outcome for item in ledger.attempts(job.id)] == ["crashed", "finished"]


def test_a_result_expires_and_its_payload_is_collected(bench, ledger, retention):
    job = bench.submit("copy", content=b"short-lived")
    kept = bench.submit("copy", content=b"kept")
    attempt = ledger.begin_attempt(job.id, "a")
    ledger.publish(job.id, attempt, job.inputs, {}, ttl_seconds=-1)
    assert retention.expire() == 1
    assert ledger.get(job.id).state is JobState.EXPIRED
    removed = bench.store.collect(retention.referenced_payloads(), min_age_seconds=-1)
    assert removed == 1
    assert not bench.store.exists(job.inputs[0].sha256)
    assert bench.store.exists(kept.inputs[0].sha256)


def test_artifacts_of_finished_steps_are_kept_until_the_job_ends(bench, ledger, retention):
    job = bench.submit("copy", "copy", content=b"input")
    attempt = ledger.begin_attempt(job.id, "a")
    with bench.store.incoming() as payload:
        payload.write(b"outcome of step 0")
        between = replace(job.inputs[0], sha256=bench.store.add(payload))
    ledger.keep(job.id, attempt, [between])
    ledger.begin_attempt(job.id, "b")  # a crash later they are still needed
    assert bench.store.collect(retention.referenced_payloads(), min_age_seconds=-1) == 0
    assert ledger.fail(job.id, JobError("message", "code"), ttl_seconds=60)
    assert bench.store.collect(retention.referenced_payloads(), min_age_seconds=-1) == 1
    assert not bench.store.exists(between.sha256) and bench.store.exists(job.inputs[0].sha256)


def test_rows_are_forgotten_only_after_their_time(bench, ledger, retention):
    old, young, waiting = (bench.submit("copy") for _ in range(3))
    ledger.begin_attempt(old.id, "a")
    assert ledger.fail(old.id, JobError("message", "code"), ttl_seconds=-100)
    assert ledger.fail(young.id, JobError("message", "code"), ttl_seconds=100)
    assert retention.forget_jobs(history_seconds=50) == 1
    with pytest.raises(NotFound):
        ledger.get(old.id)
    assert ledger.get(young.id).state is JobState.FAILED
    assert ledger.get(waiting.id).state is JobState.QUEUED


def test_a_locked_database_is_an_answer_not_a_hang(bench, engine):
    """Two submissions at once while another process holds the write lock: both hear so soon."""
    refusals: list[float] = []

    def submit() -> None:
        started = time.monotonic()
        with pytest.raises(NotReady):
            bench.submit("copy")
        refusals.append(time.monotonic() - started)

    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=submit) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(25)
        connection.rollback()
    assert len(refusals) == 2
    assert bench.submit("copy").state is JobState.QUEUED


def test_many_processes_may_open_an_empty_database_at_once(tmp_path):
    url = Settings(data_dir=tmp_path).effective_queue_url
    command = [sys.executable, "-c", f"from service.jobs.database import prepare; prepare({url!r})"]
    opening = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate()[1] for process in opening] == [b""] * 4
    assert [process.returncode for process in opening] == [0] * 4


def test_a_failed_jobs_error_survives_the_database(bench, ledger):
    job = bench.submit("copy")
    error = JobError("message", "code", "next", Fault.OUTAGE)
    assert ledger.fail(job.id, error, 60)
    assert bench.queue.get(job.id).error == error


@pytest.mark.parametrize(("by_user", "fault"), [(True, Fault.INPUT), (False, Fault.DEFECT)])
def test_an_error_of_an_earlier_release_is_read(bench, ledger, engine, by_user, fault):
    job = bench.submit("copy")
    assert ledger.fail(job.id, JobError("message", "code"), 60)
    before = {"code": "code", "message": "message", "next_step": "next", "user_fault": by_user}
    with engine.begin() as connection:
        rows = database.jobs
        connection.execute(rows.update().where(rows.c.id == job.id).values(error=before))
    assert bench.queue.get(job.id).error == JobError("message", "code", "next", fault)


def test_a_database_of_another_release_is_refused(tmp_path):
    settings = Settings(data_dir=tmp_path)
    database.prepare(settings.effective_queue_url)
    engine = database.create_engine(settings.effective_queue_url)
    with engine.begin() as connection:
        connection.execute(database.schema.update().values(version=99))
    engine.dispose()
    with pytest.raises(NotReady, match="99"):
        database.prepare(settings.effective_queue_url)
