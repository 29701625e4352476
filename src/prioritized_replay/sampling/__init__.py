"""Which slots to draw, and with what probability. It never sees a row."""
