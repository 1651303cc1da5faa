"""Physical graph to readable Python source."""
