"""Coverage-guided fuzzing: whatever a peer sends, nothing but the named errors comes out (`make fuzz`).

One module a target. Its `check(data)` states an invariant in its first sentence and raises when the bytes break it;
`seeds()` gives inputs to start from. What the fuzzer found worth keeping is in corpus/, one directory a target; the
tests replay it without the fuzzer (tests/test_fuzz_corpus.py). `python -m fuzz --help` says how to run and to minimize.
"""
