"""The paper's Blind Cliffwalk."""
