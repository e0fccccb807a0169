"""What the engine keeps between turns: the store that it decides over, and the soft state folded from it."""

from tq.core.change import lanes
from tq.core.change.step import Bounds
from tq.core.model import tables
from tq.core.model.job import Meta
from tq.core.model.view import View
from tq.core.placement.fold import live_of


class EngineState:
    """The state that each turn works on, and writes forward."""

    def __init__(self, view: View, bounds: Bounds) -> None:
        self.view = view
        self.bounds = bounds
        self.live = live_of(view)
        self.live.lanes |= lanes.lost_lanes(view, self.live)
        # The counters as the last turn left them: whoever writes turns is alone, so they need no reading again.
        self.meta: Meta | None = view.get(tables.META, ())
        self.is_due_known = False  # nothing has been done since the next due time was looked up
        self.dispatched_ms = 0  # steady time of the last Dispatch: what turned long until then has been looked at

    def dispatched(self, steady_ms: int, *, may_lease: bool) -> None:
        """Note until when Dispatch has looked at the chains, and whether it might lease."""
        self.dispatched_ms = steady_ms
        self.live.may_lease = may_lease
        self.is_due_known = False
