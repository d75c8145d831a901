"""How turns are given to instances.

    >>> from readyroom import RoutingStrategy
    >>> RoutingStrategy("sticky") is RoutingStrategy.STICKY
    True
"""

from __future__ import annotations

import enum

__all__ = ["LEAST_BUSY", "ROUND_ROBIN", "STICKY", "RoutingStrategy"]


class RoutingStrategy(str, enum.Enum):
    """The three strategies; each is also the string that names it.

    >>> from readyroom import RoutingStrategy
    >>> [each.value for each in RoutingStrategy]
    ['round_robin', 'least_busy', 'sticky']
    """

    #: In turn. The choice is final.
    ROUND_ROBIN = "round_robin"
    #: The instance with the least to do; what has not started moves to one that falls idle.
    LEAST_BUSY = "least_busy"
    #: The same key, the same instance while it lives; without a key, instance 0.
    STICKY = "sticky"

    def __str__(self) -> str:
        return self.value


ROUND_ROBIN = RoutingStrategy.ROUND_ROBIN
LEAST_BUSY = RoutingStrategy.LEAST_BUSY
STICKY = RoutingStrategy.STICKY
