"""What custody waits for: the parts of `custody.py` that read the store."""
