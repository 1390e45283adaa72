"""What a person sees of a run afterwards: traces and logs."""
