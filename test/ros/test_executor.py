"""The executor hands a callback over once, however busy Python is."""

import threading
import time

from owled_ros.ros.executor import BEGIN_WITHIN, CalmExecutor, CalmPool
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
import rclpy.context


def test_submitting_returns_when_the_work_has_begun():
    pool = CalmPool(1)
    begun, go_on = threading.Event(), threading.Event()

    def work():
        begun.set()
        go_on.wait(5)
        return 7

    future = pool.submit(work)
    assert begun.wait(1) and not future.done()
    go_on.set()
    assert future.result(5) == 7


def test_a_pool_without_a_free_thread_does_not_block_for_long():
    pool = CalmPool(1)
    go_on = threading.Event()
    pool.submit(go_on.wait, 5)
    started = time.monotonic()
    waiting = pool.submit(lambda: 8)
    assert time.monotonic() - started < BEGIN_WITHIN + 1.0
    go_on.set()
    assert waiting.result(5) == 8


def test_a_callback_is_handed_over_once_while_a_thread_computes(ros_domain):
    context = rclpy.context.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('busy', context=context)
    executor = CalmExecutor(4, context=context)
    executor.add_node(node)
    handed_over, called, stop = [], [], threading.Event()
    submit = executor._executor.submit
    executor._executor.submit = lambda *work: (handed_over.append(1), submit(*work))[1]
    node.create_timer(0.01, lambda: called.append(1), MutuallyExclusiveCallbackGroup(),
                      Clock(clock_type=ClockType.STEADY_TIME))

    def compute():
        while not stop.is_set():
            sum(range(100))

    computing = threading.Thread(target=compute)
    computing.start()
    try:
        end = time.monotonic() + 30
        while len(called) < 40 and time.monotonic() < end:
            executor.spin_once(0.1)
    finally:
        stop.set()
        computing.join()
        executor.shutdown(1.0)
        node.destroy_node()
        context.try_shutdown()
    assert len(called) > 20
    assert len(handed_over) < 1.5 * len(called)


class Signals:

    def __init__(self):
        self.ended = threading.Event()

    def end(self):
        self.ended.set()


def test_it_ends_quietly_under_a_callback_that_still_runs(ros_domain, capfd):
    context = rclpy.context.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('slow', context=context)
    executor = CalmExecutor(2, context=context)
    executor.add_node(node)
    running, signals = threading.Event(), Signals()

    def work():
        running.set()
        time.sleep(0.3)

    node.create_timer(0.01, work, MutuallyExclusiveCallbackGroup(),
                      Clock(clock_type=ClockType.STEADY_TIME))
    thread = executor.spin_in_thread(signals)
    assert running.wait(10)
    executor.shutdown(1.0)
    thread.join(5)
    assert not thread.is_alive() and signals.ended.is_set()
    node.destroy_node()
    context.try_shutdown()
    assert 'Traceback' not in capfd.readouterr().err


def test_threads_are_there_from_the_beginning():
    before = threading.active_count()
    pool = CalmPool(5)
    assert threading.active_count() == before + 5
    futures = [pool.submit(lambda number=number: number) for number in range(20)]
    assert [future.result(9) for future in futures] == list(range(20))
    assert threading.active_count() == before + 5
    pool.shutdown()
