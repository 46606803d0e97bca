"""An input or a result that must not become an action, and the status that says so."""


class Refused(Exception):
    """Raised where something is refused; `status` and `reason` (one sentence) are published."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status
        self.reason = reason


def one_line(error):
    """Return the first line of an exception's message, or its name when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def in_one_line(error):
    """All of an exception's message; without the mark that rclpy sets under what it objects to."""
    return ' '.join(str(error).split()).removesuffix(' ^')
