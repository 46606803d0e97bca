"""Which topic each input comes on, so that one that does not come is told of by its topic."""

from owled_ros.driver.action import Status
from owled_ros.ros.refused import Refused


class Topics:
    """The topics that a node listens to, and who publishes them.

    To ask the graph takes its time: `look` does it, now and then. `where` and `missing` answer
    at once, with what was found last; they may be called by any thread.
    """

    def __init__(self):
        """Know of no topic yet."""
        self._subscribed = {}  # {input: (topic, its resolved name, type)}
        self._where = {}       # {input: words}

    def add(self, what, topic, resolved, kind):
        """Note the topic, and the message class, of an input."""
        self._subscribed[what] = (topic, resolved, type_name(kind))
        self._where[what] = f' on {resolved}'

    def look(self, types_of):
        """Find out who publishes; types_of(topic) -> the type of each of its publishers."""
        self._where = {what: f' on {resolved}' + _fault(set(types_of(topic)), kind)
                       for what, (topic, resolved, kind) in self._subscribed.items()}

    def where(self, what):
        """Return ' on <topic>' and what is wrong with that, if anything; '' for no such input."""
        return self._where.get(what, '')

    def missing(self, what):
        """Return the Refused for an input of which there was none yet."""
        return Refused(Status.NO_INPUT, f'no {what} has arrived yet{self.where(what)}')

    def __str__(self):
        return ', '.join(f'{resolved} ({kind})' for _, resolved, kind
                         in self._subscribed.values())


def _fault(published, kind):
    """Return why nothing of type `kind` can come from publishers of these types, or ''."""
    if not published:
        return ', which nobody publishes'
    if kind in published:
        return ''
    return f', whose type is {" or ".join(sorted(published))}, not {kind}'


def type_name(kind):
    """Return the name of a message class as ROS writes it: nav_msgs/msg/Odometry."""
    return f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}'
