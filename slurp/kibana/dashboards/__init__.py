"""The dashboards, each described in a file of its own."""

from slurp.kibana.dashboards.apps import APPS_AND_LEXICONS
from slurp.kibana.dashboards.engagement import ENGAGEMENT
from slurp.kibana.dashboards.long_term import LONG_TERM_TRENDS
from slurp.kibana.dashboards.overview import OVERVIEW
from slurp.kibana.dashboards.people import PEOPLE
from slurp.kibana.dashboards.pipeline import PIPELINE_HEALTH
from slurp.kibana.dashboards.posts import POSTS_AND_TOPICS

DASHBOARDS = (
    OVERVIEW,
    POSTS_AND_TOPICS,
    ENGAGEMENT,
    PEOPLE,
    LONG_TERM_TRENDS,
    PIPELINE_HEALTH,
    APPS_AND_LEXICONS,
)

__all__ = ["DASHBOARDS"]
