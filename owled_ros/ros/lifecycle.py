"""A managed node whose services answer while a transition takes its time."""

import threading

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node

LABELS = ('configure', 'cleanup', 'activate', 'deactivate', 'shutdown')
IDENTIFIERS = (
    Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN,
)


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node for a multi-threaded executor.

    rclpy.lifecycle.LifecycleNode puts its services into the default callback group, where a long
    `configure` blocks `get_state`; here they have a reentrant one, and a lock sees to it that
    only one transition runs: a second is refused, not queued.
    """

    def __init__(self, name, **arguments):
        Node.__init__(self, name, **arguments)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._transition_lock = threading.Lock()
        for service in self.services:
            if service.srv_type is ChangeState:
                self._change_state = service.callback
                service.callback = self._change_state_if_free
            service.callback = self._unharmed_by_requests(service.callback)

    def _unharmed_by_requests(self, answer):
        """Wrap a service's callback: rclpy ends its executor, and so the node, when one raises.

        Its own raise for requests that make no sense, as a parameter of a type that is not there;
        such a request is answered with the response as it was made, which says nothing or no.
        """
        def call(request, response):
            try:
                return answer(request, response)
            except Exception as error:
                self.get_logger().error(
                    f'a request failed: {type(error).__name__}: {error}',
                    throttle_duration_sec=1.0)
                return response
        return call

    def destroy_node(self):
        """Destroy what rclpy destroys, and the state machine too.

        It holds on to the node, and the node to its part in DDS: without this a process that
        then ends leaves the shared memory of that behind.
        """
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def transition(self, name):
        """Run 'configure', 'activate', ... from inside the process; True when it succeeded."""
        trigger = getattr(self, f'trigger_{name}')
        return self._one_at_a_time(name, lambda: trigger() == TransitionCallbackReturn.SUCCESS)

    def _change_state_if_free(self, request, response):
        # The ids by which the state machine reports the end of a transition are accepted by
        # rclpy as requests too; a client must not end a transition of ours.
        label, identifier = request.transition.label, request.transition.id
        if label and label not in LABELS or not label and identifier not in IDENTIFIERS:
            self.get_logger().warning(f'transition {label or identifier} cannot be requested')
            response.success = False
            return response
        response.success = self._one_at_a_time(
            label or identifier, lambda: self._change_state(request, response).success)
        return response

    def _one_at_a_time(self, name, change):
        if not self._transition_lock.acquire(blocking=False):
            self.get_logger().warning(
                f'transition {name} was refused: another one is still running')
            return False
        try:
            return change()
        finally:
            self._transition_lock.release()

    def state(self):
        """Return the id (lifecycle_msgs/State) of the state that the node is in."""
        return self._state_machine.current_state[0]

    def is_unconfigured(self):
        return self.state() == State.PRIMARY_STATE_UNCONFIGURED

    def is_finalized(self):
        return self.state() == State.PRIMARY_STATE_FINALIZED
