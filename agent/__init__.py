"""The agent: probes targets from one region and streams what it saw to coordinators."""
