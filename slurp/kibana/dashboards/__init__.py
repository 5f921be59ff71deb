"""The dashboards, each described in a file of its own."""

from slurp.kibana.dashboards.activity import BLUESKY_ACTIVITY
from slurp.kibana.dashboards.follows import FOLLOWS_AND_ACCOUNTS
from slurp.kibana.dashboards.likes import LIKES_AND_REPOSTS
from slurp.kibana.dashboards.posts import POSTS_AND_TOPICS
from slurp.kibana.dashboards.worker import WORKER

DASHBOARDS = (BLUESKY_ACTIVITY, POSTS_AND_TOPICS, LIKES_AND_REPOSTS, FOLLOWS_AND_ACCOUNTS, WORKER)

__all__ = ["DASHBOARDS"]
