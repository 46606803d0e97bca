"""What is settled costs the garbage collector nothing, and can be given back."""

import gc
import weakref

from owled_ros.driver.memory import free_caches, free_model, settle


class Cycle:
    """Something that only the garbage collector can clear away."""

    def __init__(self):
        self.myself = self


def test_a_settled_model_is_freed_when_it_is_given_back():
    model = Cycle()
    seen = weakref.ref(model)
    try:
        settle()
        frozen = gc.get_freeze_count()
        del model
        free_caches()
        assert seen() is not None   # it is not looked at
    finally:
        free_model()
    # From Python 3.12 on every collection freezes what is immortal: a few objects of Python's own.
    assert seen() is None and gc.get_freeze_count() < frozen / 10


def test_what_comes_later_is_still_collected():
    settle()
    try:
        seen = weakref.ref(Cycle())
        free_caches()
        assert seen() is None
    finally:
        free_model()
