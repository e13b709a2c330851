"""The results of a comparison, drawn and told for someone who has not read the code."""
