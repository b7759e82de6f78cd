"""`python -m memlib.papers`: the studies, their claims, and what the kept runs of each scale took."""

from memlib.cli.studies import listing

print(listing())
