"""Gaussian mixtures as an experiment: the claims of three papers that closed forms can decide."""
