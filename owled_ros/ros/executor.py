"""A multi-threaded executor that leaves the processor to the model."""

from concurrent.futures import ThreadPoolExecutor
import threading

from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor

BEGIN_WITHIN = 0.05  # s to wait for a free thread before looking for other work


class CalmPool(ThreadPoolExecutor):
    """Has all its threads from the beginning, and returns from `submit` when the work has begun."""

    def __init__(self, threads):
        super().__init__(threads)
        together = threading.Barrier(threads + 1)
        for _ in range(threads):
            super().submit(together.wait)
        together.wait()

    def submit(self, work, *arguments, **options):
        begun = threading.Event()

        def run():
            begun.set()
            return work(*arguments, **options)

        future = super().submit(run)
        begun.wait(BEGIN_WITHIN)
        return future


class CalmExecutor(MultiThreadedExecutor):
    """rclpy's executor, without its busy loop.

    MultiThreadedExecutor hands a callback to its pool and looks for work again at once, finds the
    same callback still not begun, hands it over again, and so on until a thread of the pool gets
    Python's lock from it. At the rate of /clock that takes a whole core, and the lock from the
    model: single frames took seconds.
    """

    def __init__(self, num_threads, **options):
        super().__init__(num_threads, **options)
        self._executor.shutdown()  # of Humble, Jazzy and Kilted alike; it has no threads yet
        self._executor = CalmPool(num_threads)
        self._ends = False

    def shutdown(self, *arguments, **options):
        """Stop as rclpy does."""
        self._ends = True
        return super().shutdown(*arguments, **options)

    def spin_in_thread(self, signals):
        """Spin outside the main thread, which `signals` (EndSignals) needs; return the thread."""
        def spin():
            try:
                self.spin()
            except ExternalShutdownException:
                pass
            except Exception:
                # rclpy destroys what it wakes itself with under the callbacks that still run.
                if not self._ends:
                    raise
            finally:
                signals.end()

        thread = threading.Thread(target=spin, name='executor', daemon=True)
        thread.start()
        return thread
