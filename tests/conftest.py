"""Threads as `rloop` itself sets them, before any test imports torch: spinning ones take the core
from those that work, and made these tests three times slower on a busy machine.
"""

from rloop.threads import set_threads

set_threads()
