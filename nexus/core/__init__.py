"""What every model has: a configuration, a card, weights, an initialization."""
