"""What the engine, the readers and the commands cost, as ratios measured side by side."""
