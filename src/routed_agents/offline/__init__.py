"""Work on recorded traffic: what ran, what it cost, and what another policy would have made of it."""
