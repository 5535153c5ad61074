"""From the gateways to the operator: MT and other requests, and their responses."""
