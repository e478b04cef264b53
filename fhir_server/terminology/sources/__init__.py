"""What the publishers of code systems hand out -> concepts, one at a time, none inside another."""
