"""Jobs over many recordings: one row for each in one file, resumable, on this machine or on a Ray cluster."""
