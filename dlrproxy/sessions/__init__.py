"""Connections with operators and gateways: how they come about, and what they are."""
