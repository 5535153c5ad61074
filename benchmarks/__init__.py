"""What a message costs: dlrproxy against a plain byte relay, HAProxy and nothing at all, in one run."""
