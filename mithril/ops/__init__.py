"""The operator table: one file per family, one row per operator."""
