from qatqfs.store.staging.sequential import SequentialRun


def test_a_run_goes_on_where_it_ended_and_nowhere_else() -> None:
    run = SequentialRun()
    run.wrote(0, 10)
    run.wrote(10, 5)
    run.wrote(20, 5)
    run.wrote(3, 2)
    assert run.end == 15


def test_a_file_that_is_not_begun_at_its_start_is_no_run() -> None:
    run = SequentialRun()
    run.wrote(4, 10)
    assert run.end == 0


def test_a_cut_takes_a_run_back() -> None:
    run = SequentialRun()
    run.wrote(0, 10)
    run.cut(4)
    run.wrote(10, 5)
    assert run.end == 4
    run.wrote(4, 1)
    assert run.end == 5


def test_a_run_that_was_stopped_does_not_begin_again() -> None:
    run = SequentialRun()
    run.wrote(0, 10)
    run.stop()
    run.wrote(0, 10)
    assert run.stopped
    assert run.end == 0
    assert not run.take_step(1)


def test_each_step_is_told_once() -> None:
    run = SequentialRun()
    run.wrote(0, 9)
    assert not run.take_step(10)
    run.wrote(9, 1)
    assert run.take_step(10)
    run.wrote(10, 9)
    assert not run.take_step(10)
    run.wrote(19, 1)
    assert run.take_step(10)


def test_what_is_written_again_after_a_cut_is_a_step_again() -> None:
    run = SequentialRun()
    run.wrote(0, 10)
    assert run.take_step(10)
    run.cut(0)
    run.wrote(0, 10)
    assert run.take_step(10)
