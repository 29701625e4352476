"""Handwritten digits of which half are rare, after section 6 of the paper."""
