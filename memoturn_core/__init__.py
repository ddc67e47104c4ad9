"""What a memory is: the operations, the profiles they act on, and the one door `invoke`."""
