"""Jobs in processes of this machine or on a Ray cluster, which outlive bad jobs."""
