"""What the worker does with the model: the action first, then its explanation in slices."""

from dataclasses import dataclass
import time

from owled_ros.driver.action import InvalidAction, Status
from owled_ros.driver.memory import free_caches, is_out_of_memory, OutOfMemory
from owled_ros.driver.process import DriverProcess, ProcessEnded, Stopped
from owled_ros.ros.refused import one_line, Refused

MAX_RESTARTS = 3  # of the model's process without an action, or an explanation, in between


@dataclass(frozen=True)
class ExplanationReport:
    """What one Explanation message says."""

    stamp: int
    action_sequence: int
    text: str
    complete: bool
    confidence: float


class DecisionLoop:
    """Takes the newest frame, decides, and explains while no frame waits. One thread's own."""

    def __init__(self, driver, *, inputs, outlet, clock, counters, publish_explanation,
                 show, log):
        """Take the loaded driver and its surroundings.

        publish_explanation(ExplanationReport); show(frame, report, text) draws for who watches;
        log(sentence).
        """
        self.driver = driver
        self._inputs = inputs
        self._outlet = outlet
        self._clock = clock
        self._counters = counters
        self._publish_explanation = publish_explanation
        self._show = show
        self._log = log
        self._explaining = None  # (report, ticket, stream)
        self._just_decided = False
        self._text = ''
        self._restarts = 0  # of the model's process, since the last action
        self._mute = 0      # how often it ended over an explanation, since the last that it wrote
        self.loading = False

    def close(self):
        """End the model's process, if it has one."""
        if isinstance(self.driver, DriverProcess):
            self.driver.close()

    def step(self, timeout):
        """Decide on the newest frame, or go on explaining, or wait up to `timeout` [s].

        Raises OutOfMemory or ProcessEnded when the model cannot go on; what else it raises is
        said frame by frame.
        """
        # A model slower than the camera always has a frame waiting; between two actions it
        # writes a slice all the same, or there would never be an explanation.
        if self._explaining and self._just_decided:
            self._just_decided = False
            self._explain()
            return
        frame = self._inputs.take(0 if self._explaining else timeout)
        if frame is not None:
            self._just_decided = True
            self._decide(frame)
        elif self._explaining:
            self._explain()

    def _decide(self, frame):
        if not self._outlet.begin(frame.ticket):
            self._counters.count('outdated')
            return
        began = time.monotonic()
        try:
            picture, ego, command = self._inputs.of(frame)
            decision = self._decision(picture, ego, command)
            report = self._outlet.offer(decision.action, frame, ego, command,
                                        time.monotonic() - began)
        except Refused as refusal:
            self._refuse(refusal, frame, began)
        except InvalidAction as error:
            self._refuse(Refused(Status.INVALID_OUTPUT, str(error)), frame, began)
        except OutOfMemory as error:
            self._refuse(Refused(Status.MODEL_ERROR, str(error)), frame, began)
            raise
        except Stopped:
            return  # and the worker ends
        except ProcessEnded as error:
            self._start_again(error, frame.ticket, frame.stamp)
        except BaseException as error:  # SystemExit too: a model must not end its thread
            self._log(f'the model failed: {type(error).__name__}: {error}')
            self._refuse(Refused(Status.MODEL_ERROR, 'the model failed: ' + one_line(error)),
                         frame, began)
        else:
            if report is not None:
                self._after(report, frame, picture, decision)
        finally:
            self._outlet.end(frame.ticket)

    def _decision(self, picture, ego, command):
        """Let the model decide; once more with freed caches if it runs out of memory."""
        try:
            return self.driver.decide(picture, ego, command)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._counters.count('out of memory')
            self._log(f'the model ran out of memory, and tries once more: {one_line(error)}')
        # Here the exception is gone, and with it the tensors of the frames that it came through.
        self._explaining = None
        free_caches()
        try:
            return self.driver.decide(picture, ego, command)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory('the model ran out of memory, also with freed caches: '
                              + one_line(error)) from None

    def _refuse(self, refusal, frame, began):
        self._outlet.refuse(refusal, frame.ticket, frame.stamp, time.monotonic() - began)

    def _start_again(self, error, ticket, stamp):
        """Say that the model's process has ended, and start another one."""
        self._outlet.refuse(Refused(Status.MODEL_ERROR, str(error)), ticket, stamp)
        self._explaining = None
        self.loading = True
        self._outlet.model_restarts(True)
        try:
            while error is not None:
                self._count_end(error)
                error = self._restart()
        finally:
            self._outlet.model_restarts(False)
            self.loading = False

    def _count_end(self, error):
        """Count an end of the process; raise ProcessEnded when it was one too many."""
        self._counters.count('processes ended')
        self._log(str(error))
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise ProcessEnded(f'{error}, and so did {MAX_RESTARTS} before it')

    def _restart(self):
        """Start the process again; return the ProcessEnded when that ended too, else None."""
        try:
            self.driver.restart()
            self.driver.warm_up()
        except ProcessEnded as error:
            return error

    def _after(self, report, frame, picture, decision):
        """Begin to explain an action that is out, if asked to, and show it to those who watch."""
        self._restarts = 0
        if self._explaining is None and self._outlet.settings.explain and \
                self._mute <= MAX_RESTARTS:
            self._begin_explanation(report, frame, decision)
        try:
            self._show(picture, report, self._text)
        except Exception as error:
            self._log(f'the debug image could not be drawn: {one_line(error)}')

    def _begin_explanation(self, report, frame, decision):
        try:
            self._explaining = (report, frame.ticket, self.driver.explain(decision))
        except BaseException as error:
            self._explanation_failed(error)

    def _explain(self):
        """Write one slice of the explanation; publish it when it is complete or too old."""
        report, ticket, stream = self._explaining
        if ticket != self._outlet.ticket():
            self._explaining = None  # of a time that is gone
            return
        settings = self._outlet.settings
        try:
            complete = stream.advance(settings.explanation_slice)
            if ticket != self._outlet.ticket():
                self._explaining = None  # it hung, and was given up meanwhile
            elif complete or self._age(report) > settings.max_explanation_age:
                self._explaining = None
                self._finish_explanation(report, stream, complete)
        except Stopped:
            return
        except ProcessEnded as error:
            self._mute += 1
            if self._mute > MAX_RESTARTS:
                self._log(f'no more explanations: {MAX_RESTARTS + 1} in a row ended the process '
                          'of the model')
            self._start_again(error, ticket, report.stamp)
        except BaseException as error:
            self._explanation_failed(error)

    def _age(self, report):
        return (self._clock.now() - report.stamp) / 1e9

    def _finish_explanation(self, report, stream, complete):
        self._text, self._mute = stream.text, 0
        self._publish_explanation(ExplanationReport(
            report.stamp, report.sequence, stream.text, complete, stream.confidence))
        self._counters.count('explanations' if complete else 'explanations given up')

    def _explanation_failed(self, error):
        self._explaining = None
        self._counters.count('explanations failed')
        if is_out_of_memory(error):
            free_caches()
        self._log(f'the explanation failed: {one_line(error)}')
