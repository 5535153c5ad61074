"""From the operator to the gateways: reports, and MO as far as they are treated alike."""
