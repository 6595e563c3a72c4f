"""What a platform needs around it: alert rules for Prometheus, dashboards for Grafana."""
