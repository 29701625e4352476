"""The write side: steps of many streams become transitions."""
