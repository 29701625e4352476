"""The read side: batches made of drawn slots, their statistics, batches drawn ahead."""
