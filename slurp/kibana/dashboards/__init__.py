"""The dashboards, each described in a file of its own."""

from slurp.kibana.dashboards.follows import FOLLOWED
from slurp.kibana.dashboards.inside import INSIDE
from slurp.kibana.dashboards.likes import LIKED
from slurp.kibana.dashboards.now import NOW
from slurp.kibana.dashboards.talk import TALK

DASHBOARDS = (NOW, TALK, LIKED, FOLLOWED, INSIDE)

__all__ = ["DASHBOARDS"]
