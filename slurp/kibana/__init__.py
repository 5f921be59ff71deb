"""Kibana: data views and dashboards as code, and their import."""
